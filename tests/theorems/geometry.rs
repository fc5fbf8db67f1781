//! T67 and T68: derivatives of what hyperplanes make (`docs/theory.md`, sections 9 and 11).

use proptest::prelude::*;
use relugrad::{Direction, Hinge, Norm, Penalty};
use relugrad_tests::cases::{Case, Shapes};
use relugrad_tests::difference::derivative;
use relugrad_tests::geometry::{hyperplanes, kinks};
use relugrad_tests::graph::{GateKind, Graph, Op};
use relugrad_tests::loss::evaluate;
use relugrad_tests::matrix::{add, dot, norm, scaled, transposed_times, unit};
use relugrad_tests::parameter::{along, penalty_gradient, penalty_slope};
use relugrad_tests::penalty::step_direction;
use relugrad_tests::recipe::entries;
use relugrad_tests::run::{case_count, property};
use relugrad_tests::segment::{Piece, pieces};
use relugrad_tests::tolerance::{GRADIENT, slope_error};

/// The step of CURE.
const STEP: f64 = 1.5;

const KINKS: Penalty = Penalty::CureKinks {
    step: STEP,
    direction: Direction::Sign,
};

/// The hinge of the nearest hyperplane, far inside its radius.
fn nearest() -> Penalty {
    Penalty::RegionBoundary(Hinge {
        norm: Norm::L2,
        nearest: 1,
        radius: 100.0,
    })
}

/// The derivative of a penalty along a random direction equals differences.
fn matches_differences(case: &Case, penalty: &Penalty) -> Result<Option<f64>, TestCaseError> {
    let gradient = penalty_gradient(case, penalty, case.strategy());
    let direction = unit(&entries(gradient.len(), 1.0, &mut case.random()));
    let Some((found, error)) = penalty_slope(case, penalty, &direction) else {
        return Ok(None);
    };
    let length = norm(&gradient);
    if error > GRADIENT / 3.0 * length.max(found.abs()) {
        return Ok(None);
    }
    Ok(Some(slope_error(
        found,
        along(&gradient, &direction),
        length,
    )))
}

/// **T67.** The kinks of CURE move with the parameters: the margins at the crossings have a
/// derivative.
#[test]
fn kinks_of_cure_move_with_the_parameters() {
    property(Shapes::plain().cases(), |case, residual| {
        let error = matches_differences(&case, &KINKS)?;
        prop_assume!(error.is_some());
        residual.within("slope", error.unwrap_or(0.0), 1.0, GRADIENT)
    });
}

/// `k` of other parameters with the crossings of these.
fn held_kinks(case: &Case, graph: &Graph, z: &[f64], pieces: &[Piece]) -> Vec<f64> {
    let mut sum = scaled(0.0, &case.inputs[0]);
    for pair in pieces.windows(2) {
        let at = add(&case.inputs[0], pair[0].end, z);
        let [before, after] = [&pair[0], &pair[1]].map(|piece| graph.frozen(&at, &piece.pattern));
        let r = evaluate(&case.loss, before.logits(), &case.targets[0]).residual;
        sum = add(&sum, 1.0, &transposed_times(after.jacobian(), &r));
        sum = add(&sum, -1.0, &transposed_times(before.jacobian(), &r));
    }
    sum
}

/// T67 with crossings that stay where they are: another derivative wherever there are crossings to
/// speak of.
#[test]
fn counter_kinks_of_cure_move_with_the_parameters() {
    let (seen, moved) = (std::cell::Cell::new(0_u32), std::cell::Cell::new(0_u32));
    property(Shapes::plain().cases(), |case, _| {
        let (x, target) = (&case.inputs[0], &case.targets[0]);
        let (sum, switches) = kinks(
            &case.graph,
            &case.loss,
            (x, target),
            (STEP, Direction::Sign),
        );
        if switches.is_empty() || norm(&sum) < 1e-2 {
            return Ok(());
        }
        let exact = penalty_gradient(&case, &KINKS, case.strategy());
        let direction = unit(&exact);
        let z = step_direction(Direction::Sign, &case.derivatives(0).gradient);
        let pieces = pieces(&case.graph, x, &z, STEP);
        let held = |t: f64| {
            let k = held_kinks(&case, &case.graph.moved(&direction, t), &z, &pieces);
            vec![dot(&k, &k)]
        };
        let held = derivative(held, 1e-5).value[0];
        seen.set(seen.get() + 1);
        let differs = (held - norm(&exact)).abs() > 1e-4 * norm(&exact);
        moved.set(moved.get() + u32::from(differs));
        Ok(())
    });
    assert!(seen.get() > case_count() / 8);
    assert!(f64::from(moved.get()) > 0.8 * f64::from(seen.get()));
}

/// **T68.** The distance to a hyperplane has the derivative of its margin, and that of its normal.
#[test]
fn distance_to_a_hyperplane_turns_with_its_normal() {
    property(Shapes::plain().cases(), |case, residual| {
        let error = matches_differences(&case, &nearest())?;
        prop_assume!(error.is_some());
        residual.within("slope", error.unwrap_or(0.0), 1.0, GRADIENT)
    });
}

/// T68 with the normal held constant: in a chain without biases the distance does not change when
/// all parameters grow alike, but the margin does.
#[test]
fn counter_distance_to_a_hyperplane_turns_with_its_normal() {
    let shapes = Shapes {
        every_operation: false,
        ..Shapes::plain()
    };
    property(shapes.cases(), |case, residual| {
        let mut case = case;
        case.graph = case.graph.without_biases();
        let learned = |op: &Op| {
            matches!(
                op,
                Op::Gate {
                    kind: GateKind::Prelu(_),
                    ..
                }
            )
        };
        prop_assume!(!case.graph.nodes.iter().any(learned));
        prop_assume!(!case.graph.has_offsets() && case.distance_from_kinks() > 1e-6);
        let near = hyperplanes(&case.graph, &case.inputs[0], Norm::L2);
        prop_assume!(near.first().is_some_and(|near| near.distance > 1e-6));
        let gradient = penalty_gradient(&case, &nearest(), case.strategy());
        let grow = case.graph.parameters();
        // With the normal held, the mean of hinges 1 − d/γ would lose d/γ for each weight matrix
        // before the gate.
        let margin_alone = near[0].distance / 100.0;
        let scale = norm(&gradient) * norm(&grow) + margin_alone;
        residual.equal("⟨∂d, θ⟩", (dot(&gradient, &grow), 0.0), scale, 1e-9)?;
        prop_assert!(margin_alone > 1e-9);
        Ok(())
    });
}
