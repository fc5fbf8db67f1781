//! The parameter gradient of every penalty against differences: relative error at most 1e-7 away
//! from kinks.
//!
//! A case is rejected where the difference quotient itself, judged by its agreement over steps,
//! cannot see 1e-7 of the gradient, and where a penalty is not smooth: near a repeated largest
//! eigenvalue (spectral penalties) and where a singular value is zero (nuclear norm).

use proptest::prelude::*;
use relugrad::{Direction, FiniteDifference, Hinge, Norm, Objective, Penalty, SweepStrategy};
use relugrad_tests::cases::{Case, Shapes};
use relugrad_tests::difference::holding_step;
use relugrad_tests::matrix::{add, eigen, flatten, norm, scaled, singular_values, unit};
use relugrad_tests::parameter::{along, penalty_gradient, penalty_slope, signature};
use relugrad_tests::penalty::value;
use relugrad_tests::recipe::entries;
use relugrad_tests::run::{Residual, named, property};

use crate::values::balls;
use relugrad_tests::tolerance::{GRADIENT, relative_error, slope_error};

/// Gap between the two largest eigenvalues relative to the largest.
const GAP: f64 = 1e-3;

/// Smallest singular value relative to the largest.
const SMALLEST: f64 = 1e-3;

/// Error of the difference quotient that is accepted, a third of what is asserted.
const DIFFERENCE: f64 = GRADIENT / 3.0;

/// Whether a penalty is smooth at every sample, patterns and signs aside.
fn smooth(case: &Case, penalty: &Penalty) -> bool {
    let simple = |values: &[f64]| values.len() < 2 || values[0] - values[1] > GAP * values[0];
    (0..case.inputs.len()).all(|i| {
        let at = case.derivatives(i);
        let singular = singular_values(&at.jacobian);
        match penalty {
            Penalty::JacobianSpectral => simple(&singular),
            Penalty::JacobianNuclear => singular[singular.len() - 1] > SMALLEST * singular[0],
            Penalty::CurvatureSpectral => simple(&eigen(&at.hessian()).0),
            // Of a nearly certain sample the oracle has the difference of two large numbers.
            Penalty::WorstCase(_) => {
                let value = value(
                    penalty,
                    &case.graph,
                    &case.loss,
                    &case.inputs[i],
                    &case.targets[i],
                );
                value.is_some_and(|value| value.abs() > SMALLEST)
            }
            _ => true,
        }
    })
}

/// Checks the gradient along a random direction and along itself, by all routes.
fn check(case: &Case, penalty: &Penalty, residual: &Residual) -> Result<(), TestCaseError> {
    prop_assume!(smooth(case, penalty));
    let gradient = penalty_gradient(case, penalty, SweepStrategy::Fewest);
    let others = [
        SweepStrategy::AllRows,
        SweepStrategy::FirstLayerGram,
        SweepStrategy::FourRussians,
    ];
    let others = others.map(|route| penalty_gradient(case, penalty, route));
    let length = norm(&gradient);
    let random = unit(&entries(gradient.len(), 1.0, &mut case.random()));
    for direction in [random, unit(&gradient)] {
        let found = penalty_slope(case, penalty, &direction);
        prop_assume!(found.is_some());
        let (found, error) = found.unwrap();
        prop_assume!(error <= DIFFERENCE * length.max(found.abs()));
        for gradient in [&gradient].into_iter().chain(&others) {
            let exact = along(gradient, &direction);
            let error = slope_error(found, exact, length);
            residual.within(
                &format!("{penalty}: {found:e}, {exact:e}"),
                error,
                1.0,
                GRADIENT,
            )?;
        }
    }
    Ok(())
}

fn gradient_of(penalty: &Penalty, shapes: Shapes) {
    let name = format!("exactness::gradients::{penalty:?}");
    named(&name, shapes.cases(), |case, residual| {
        check(&case, penalty, residual)
    });
}

fn cure(step: f64, direction: Direction) -> Penalty {
    Penalty::Cure { step, direction }
}

#[test]
fn input_gradient() {
    gradient_of(&Penalty::InputGradient, Shapes::any());
}

#[test]
fn input_gradient_l2() {
    gradient_of(&Penalty::InputGradientL2, Shapes::any());
}

#[test]
fn input_gradient_l1() {
    gradient_of(&Penalty::InputGradientL1, Shapes::any());
}

#[test]
fn input_gradient_linf() {
    gradient_of(&Penalty::InputGradientLinf, Shapes::any());
}

#[test]
fn jacobian() {
    gradient_of(&Penalty::Jacobian, Shapes::any());
}

#[test]
fn jacobian_spectral() {
    gradient_of(&Penalty::JacobianSpectral, Shapes::any());
}

/// Wide layers, so that the Jacobian has full rank.
#[test]
fn jacobian_nuclear() {
    let shapes = Shapes {
        width: 12..=24,
        outputs: 1..=4,
        ..Shapes::any()
    };
    gradient_of(&Penalty::JacobianNuclear, shapes);
}

#[test]
fn jacobian_projected_on_one_row() {
    gradient_of(
        &Penalty::JacobianProjected { rows: 1, seed: 7 },
        Shapes::any(),
    );
}

#[test]
fn jacobian_projected_on_several_rows() {
    gradient_of(
        &Penalty::JacobianProjected { rows: 4, seed: 7 },
        Shapes::any(),
    );
}

#[test]
fn jacobian_probabilities() {
    gradient_of(&Penalty::JacobianProbabilities, Shapes::any());
}

#[test]
fn cross_lipschitz() {
    gradient_of(&Penalty::CrossLipschitz, Shapes::any());
}

#[test]
fn curvature_trace() {
    gradient_of(&Penalty::CurvatureTrace, Shapes::any());
}

#[test]
fn curvature_frobenius() {
    gradient_of(&Penalty::CurvatureFrobenius, Shapes::any());
}

#[test]
fn curvature_spectral() {
    gradient_of(&Penalty::CurvatureSpectral, Shapes::any());
}

#[test]
fn curvature_directional() {
    gradient_of(&Penalty::CurvatureDirectional, Shapes::any());
}

/// Whether a step counts as constant that moves with the parameters; in ℓ1 and ℓ∞ it does not.
fn step_is_held(penalty: &Penalty) -> bool {
    matches!(penalty, Penalty::WorstCase(ball) if ball.step > 0.0 && ball.norm == Norm::L2)
}

/// One of the worst cases for each network.
#[test]
fn worst_cases() {
    let all: Vec<Penalty> = balls().into_iter().filter(|p| !step_is_held(p)).collect();
    let strategy = (Shapes::any().cases(), prop::sample::select(all));
    named(
        "exactness::gradients::worst_cases",
        strategy,
        |(case, penalty), residual| check(&case, &penalty, residual),
    );
}

#[test]
fn cure_along_the_sign() {
    gradient_of(&cure(1.5, Direction::Sign), Shapes::any());
}

#[test]
fn cure_along_the_gradient() {
    gradient_of(
        &cure(1.5, Direction::Gradient { held: false }),
        Shapes::any(),
    );
}

#[test]
fn cure_along_the_gradient_held_constant() {
    gradient_of(
        &cure(1.5, Direction::Gradient { held: true }),
        Shapes::any(),
    );
}

#[test]
fn cure_with_a_small_step() {
    gradient_of(
        &cure(0.125, Direction::Gradient { held: false }),
        Shapes::any(),
    );
}

fn hinge(norm: Norm, nearest: usize, radius: f64) -> Hinge {
    Hinge {
        norm,
        nearest,
        radius,
    }
}

#[test]
fn region_boundary_in_every_norm() {
    for norm in Norm::ALL {
        let penalty = Penalty::RegionBoundary(hinge(norm, 4, 2.0));
        gradient_of(&penalty, Shapes::any());
    }
}

#[test]
fn decision_boundary_in_every_norm() {
    let shapes = || Shapes {
        outputs: 2..=5,
        ..Shapes::any()
    };
    for norm in Norm::ALL {
        let penalty = Penalty::DecisionBoundary(hinge(norm, 2, 5.0));
        gradient_of(&penalty, shapes());
    }
}

#[test]
fn maximum_margin() {
    let shapes = Shapes {
        outputs: 2..=5,
        ..Shapes::any()
    };
    gradient_of(&Penalty::MaximumMargin(hinge(Norm::L2, 3, 3.0)), shapes);
}

#[test]
fn kinks_of_cure_along_the_sign() {
    let direction = Direction::Sign;
    gradient_of(
        &Penalty::CureKinks {
            step: 1.5,
            direction,
        },
        Shapes::any(),
    );
}

#[test]
fn kinks_of_cure_along_the_gradient() {
    let direction = Direction::Gradient { held: false };
    gradient_of(
        &Penalty::CureKinks {
            step: 1.5,
            direction,
        },
        Shapes::any(),
    );
}

/// Every penalty in turn on small networks, whole gradients, with the engine's own central
/// differences.
#[test]
fn whole_gradients_of_small_networks() {
    let penalties = crate::values::penalties();
    let held = |p: &Penalty| *p == cure(1.5, Direction::Gradient { held: true }) || step_is_held(p);
    let penalties: Vec<Penalty> = penalties.into_iter().filter(|p| !held(p)).collect();
    let strategy = (Shapes::small().cases(), prop::sample::select(penalties));
    property(strategy, |(case, penalty), residual| {
        prop_assume!(smooth(&case, &penalty));
        let here = signature(&case, &case.graph, &penalty);
        let count = case.graph.parameters().len();
        let step = holding_step(1e-5, 2e-6, |t| {
            (0..count).all(|i| {
                let unit: Vec<f64> = (0..count).map(|j| f64::from(i == j)).collect();
                signature(&case, &case.graph.moved(&unit, t), &penalty) == here
            })
        });
        prop_assume!(step.is_some());
        let exact = penalty_gradient(&case, &penalty, SweepStrategy::Fewest);
        let estimates =
            [1.0, 2.0].map(|factor| whole_difference(&case, &penalty, factor * step.unwrap()));
        prop_assume!(relative_error(&estimates[0], &estimates[1]) <= GRADIENT);
        residual.within(
            penalty.name(),
            relative_error(&estimates[0], &exact),
            1.0,
            GRADIENT,
        )
    });
}

/// Central differences of the penalty alone: those of the objective minus those of the loss.
fn whole_difference(case: &Case, penalty: &Penalty, step: f64) -> Vec<f64> {
    let central = FiniteDifference::central(step).unwrap();
    let (network, batch) = (case.network(), case.batch());
    let value = case.objective(penalty, SweepStrategy::AllRows).value(
        &network,
        batch.view(),
        &case.owned.view(),
    );
    let weight = (1.0 / value.unwrap().penalties[0]).clamp(1.0, 1e280);
    let difference = |objective: &Objective| {
        let found =
            central.parameter_gradient(objective, &network, batch.view(), &case.owned.view());
        found.unwrap().values().to_vec()
    };
    let objective = Objective::new(case.loss)
        .with(penalty.clone(), weight)
        .unwrap();
    let loss = difference(&Objective::new(case.loss));
    let pairs = difference(&objective).into_iter().zip(loss);
    scaled(
        1.0 / weight,
        &pairs.map(|(a, b)| a - b).collect::<Vec<f64>>(),
    )
}

/// The gradient of the loss alone.
#[test]
fn gradient_of_the_loss() {
    property(Shapes::any().cases(), |case, residual| {
        let network = case.network();
        let objective = Objective::new(case.loss);
        let found = objective.gradient(&network, case.batch().view(), &case.owned.view());
        let gradient = found.unwrap().1.values().to_vec();
        let expected = loss_gradient(&case);
        let (logits, _) = case.sizes();
        let rounding = case.roundings() * (1.0 + logits) * 64.0;
        let scale = norm(&expected).max(1e-300);
        let amplification = parameter_size(&case) / scale;
        residual.within(
            "∂ℓ/∂θ",
            relative_error(&gradient, &expected),
            amplification.max(1.0),
            rounding,
        )
    });
}

/// Mean of `Bᵀ r uᵀ` over the batch, node by node from the oracle's matrices.
fn loss_gradient(case: &Case) -> Vec<f64> {
    let mut total = vec![0.0; case.graph.parameters().len()];
    let count = case.inputs.len() as f64;
    for i in 0..case.inputs.len() {
        let at = case.derivatives(i);
        let point = case.graph.at(&case.inputs[i]);
        let part = case.graph.logit_pullback(&point, &at.loss.residual);
        total = add(&total, 1.0 / count, &part);
    }
    total
}

/// The same with all terms positive, which rounding is proportional to.
fn parameter_size(case: &Case) -> f64 {
    let graph = case.graph.absolute();
    let sizes = case.inputs.iter().enumerate().map(|(i, x)| {
        let absolute: Vec<f64> = x.iter().map(|x| x.abs()).collect();
        let point = graph.frozen(&absolute, &graph.all_active());
        let at = case.derivatives(i);
        let s = norm(&flatten(&at.loss.hessian));
        let size = norm(&at.loss.residual) + s * case.sizes().0;
        norm(&graph.logit_pullback(&point, &vec![size; graph.outputs()]))
    });
    sizes.fold(0.0, f64::max)
}

/// With step 0 both points are the same, so CURE and its gradient vanish.
#[test]
fn cure_of_step_zero_is_zero() {
    property(Shapes::any().cases(), |case, residual| {
        let penalty = cure(0.0, Direction::Sign);
        let objective = case.objective(&penalty, SweepStrategy::Fewest);
        let found = objective.gradient(&case.network(), case.batch().view(), &case.owned.view());
        let (evaluation, gradient) = found.unwrap();
        let loss = Objective::new(case.loss);
        let plain = loss.gradient(&case.network(), case.batch().view(), &case.owned.view());
        prop_assert_eq!(evaluation.penalties[0], 0.0);
        let error = relative_error(gradient.values(), plain.unwrap().1.values());
        residual.within("gradient", error, 1.0, 0.0)?;
        Ok(())
    });
}
