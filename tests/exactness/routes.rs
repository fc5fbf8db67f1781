//! Penalties together, and by both routes.

use ndarray::Array2;
use proptest::prelude::*;
use relugrad::{Loss, Objective, Penalty, SweepStrategy, Targets};
use relugrad_tests::cases::{Case, Shapes};
use relugrad_tests::matrix::{add, norm, scaled};
use relugrad_tests::parameter::penalty_gradient;
use relugrad_tests::recipe::uniform;
use relugrad_tests::run::property;
use relugrad_tests::tolerance::relative_error;

/// Values and gradient of an objective.
fn evaluate(case: &Case, objective: &Objective) -> (Vec<f64>, Vec<f64>) {
    let found = objective.gradient(&case.network(), case.batch().view(), &case.owned.view());
    let (evaluation, gradient) = found.unwrap();
    (evaluation.penalties, gradient.values().to_vec())
}

/// All penalties in one objective are the sum of single ones, whatever rows they share.
#[test]
fn penalties_together_are_the_sum_of_single_ones() {
    let shapes = Shapes {
        unusual: false,
        ..Shapes::any()
    };
    let penalties = prop::sample::subsequence(crate::values::penalties(), 2..=8);
    property(
        (shapes.cases(), penalties),
        |(case, penalties), residual| {
            let mut together = Objective::new(case.loss);
            let (mut sum, mut size) = (evaluate(&case, &together).1, 0.0);
            let mut values = Vec::new();
            for (i, penalty) in penalties.iter().enumerate() {
                let lambda = 0.25 + 0.5 * i as f64;
                together = together.with(penalty.clone(), lambda).unwrap();
                let gradient = penalty_gradient(&case, penalty, SweepStrategy::AllRows);
                sum = add(&sum, lambda, &gradient);
                size += lambda * norm(&gradient);
                values.push(evaluate(&case, &case.objective(penalty, SweepStrategy::AllRows)).0[0]);
            }
            let (found, gradient) = evaluate(&case, &together);
            for (i, penalty) in penalties.iter().enumerate() {
                prop_assume!(well_conditioned(&case, penalty));
                residual.equal(
                    penalty.name(),
                    (found[i], values[i]),
                    values[i].abs().max(1e-12),
                    1e-10,
                )?;
            }
            residual.within(
                "gradient",
                norm(&add(&gradient, -1.0, &sum)),
                size + norm(&sum),
                1e-10,
            )
        },
    );
}

/// Whether rounding of the Gram matrix, which differs between the routes, is not magnified beyond
/// the tolerance.
fn well_conditioned(case: &Case, penalty: &Penalty) -> bool {
    let logits = case.sizes();
    (0..case.inputs.len()).all(|i| {
        let at = case.derivatives(i);
        let singular = relugrad_tests::matrix::singular_values(&at.jacobian);
        let gradient = norm(&at.gradient) > 1e-3 * logits.1 * norm(&at.loss.residual);
        match penalty {
            Penalty::JacobianNuclear => singular[singular.len() - 1] > 1e-2 * singular[0],
            Penalty::JacobianSpectral => singular.len() < 2 || singular[1] < 0.99 * singular[0],
            Penalty::CurvatureSpectral => {
                let (values, _) = relugrad_tests::matrix::eigen(&at.hessian());
                values.len() < 2 || values[1] < 0.99 * values[0]
            }
            _ => gradient,
        }
    })
}

/// The gradient is linear in the weights, and a weight of 0 adds nothing.
#[test]
fn a_penalty_of_weight_zero_is_reported_and_changes_nothing() {
    property(Shapes::any().cases(), |case, _| {
        let plain = evaluate(&case, &Objective::new(case.loss)).1;
        let mut objective = Objective::new(case.loss);
        for penalty in [
            Penalty::InputGradient,
            Penalty::Jacobian,
            Penalty::InputGradientL1,
        ] {
            objective = objective.with(penalty, 0.0).unwrap();
        }
        let (values, gradient) = evaluate(&case, &objective);
        prop_assert_eq!(gradient, plain);
        let alone = evaluate(
            &case,
            &case.objective(&Penalty::Jacobian, SweepStrategy::AllRows),
        )
        .0;
        prop_assert!((values[1] - alone[0]).abs() <= 1e-12 * alone[0]);
        Ok(())
    });
}

/// The mean over a batch is the mean of its samples taken alone.
#[test]
fn a_batch_is_the_mean_of_its_samples() {
    let shapes = Shapes {
        batch: 2..=5,
        ..Shapes::any()
    };
    let penalties: Vec<Penalty> = crate::values::penalties();
    let drawn = |p: &Penalty| matches!(p, Penalty::JacobianProjected { .. });
    let penalties: Vec<Penalty> = penalties.into_iter().filter(|p| !drawn(p)).collect();
    property(
        (shapes.cases(), prop::sample::select(penalties)),
        |(case, penalty), residual| {
            let objective = case.objective(&penalty, SweepStrategy::Fewest);
            let (_, whole) = evaluate(&case, &objective);
            let (mut sum, mut size) = (vec![0.0; whole.len()], 0.0);
            let share = 1.0 / case.inputs.len() as f64;
            for i in 0..case.inputs.len() {
                let (inputs, target) = (case.batch(), relugrad_tests::graph::array(&case.targets));
                let input = inputs.slice(ndarray::s![i..i + 1, ..]);
                let target = target.slice(ndarray::s![i..i + 1, ..]);
                let target = match case.loss {
                    Loss::SquaredError => Targets::Values(target),
                    _ => Targets::Probabilities(target),
                };
                let part = objective
                    .gradient(&case.network(), input, &target)
                    .unwrap()
                    .1;
                size += share * norm(part.values());
                sum = add(&sum, share, part.values());
            }
            residual.within(penalty.name(), norm(&add(&whole, -1.0, &sum)), size, 1e-9)
        },
    );
}

/// Different draws of the projected penalty are different estimates, and equal draws are equal.
#[test]
fn draws_of_the_projected_penalty_repeat() {
    let shapes = Shapes {
        width: 4..=16,
        outputs: 3..=8,
        ..Shapes::plain()
    };
    property(shapes.cases(), |case, _| {
        let jacobian = case.graph.at(&case.inputs[0]).jacobian().concat();
        prop_assume!(norm(&jacobian) > 0.0);
        let penalty = Penalty::JacobianProjected {
            rows: 2,
            seed: case.seed,
        };
        let mut objective = case.objective(&penalty, SweepStrategy::Fewest);
        let first = evaluate(&case, &objective);
        objective.set_draw(1);
        let second = evaluate(&case, &objective);
        objective.set_draw(0);
        prop_assert_eq!(&evaluate(&case, &objective), &first);
        prop_assert!(relative_error(&first.1, &second.1) > 1e-9);
        Ok(())
    });
}

/// Directions of the row form and of differences agree: `∂φ/∂θ` does not depend on how `φ` was
/// computed.
#[test]
fn both_routes_have_the_same_value_and_gradient() {
    let shapes = Shapes {
        unusual: false,
        ..Shapes::any()
    };
    let penalties = prop::sample::select(crate::values::penalties());
    property((shapes.cases(), penalties), |(case, penalty), residual| {
        prop_assume!(well_conditioned(&case, &penalty));
        let few = evaluate(&case, &case.objective(&penalty, SweepStrategy::Fewest));
        let all = evaluate(&case, &case.objective(&penalty, SweepStrategy::AllRows));
        residual.equal(
            "value",
            (few.0[0], all.0[0]),
            all.0[0].abs().max(1e-12),
            1e-10,
        )?;
        let error = relative_error(&few.1, &all.1);
        residual.within(penalty.name(), error, 1.0, 1e-10)
    });
}

/// A matrix of sweeps is as linear as the network: `J (a v + b w) = a J v + b J w`.
#[test]
fn sweeps_are_linear() {
    property(Shapes::any().cases(), |case, residual| {
        let (network, mut random) = (case.network(), case.random());
        let trace = network.trace(case.batch().view()).unwrap();
        let mut draw = || -> Array2<f64> {
            relugrad_tests::graph::array(&uniform(
                case.inputs.len(),
                network.inputs(),
                1.0,
                &mut random,
            ))
        };
        let (v, w) = (draw(), draw());
        let sum = trace.jvp((2.0 * &v - 3.0 * &w).view()).unwrap();
        let parts = 2.0 * trace.jvp(v.view()).unwrap() - 3.0 * trace.jvp(w.view()).unwrap();
        let (sum, parts): (Vec<f64>, Vec<f64>) =
            (sum.into_iter().collect(), parts.into_iter().collect());
        let size = 5.0 * case.sizes().1 * (network.inputs() as f64).sqrt();
        residual.equal_all(
            "J",
            &sum,
            &scaled(1.0, &parts),
            size,
            4.0 * case.roundings(),
        )
    });
}
