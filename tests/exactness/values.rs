//! The value of every penalty against its definition.

use proptest::prelude::*;
use relugrad::{Ball, Direction, Norm, Objective, Penalty, SweepStrategy};
use relugrad_tests::cases::{Case, ROUTES, Shapes};
use relugrad_tests::geometry::{boundaries, hyperplanes};
use relugrad_tests::matrix::{add, frobenius, norm};
use relugrad_tests::penalty::{ball_step, second_point, value};
use relugrad_tests::run::property;

/// All penalties, and CURE with its direction held constant (which has the same value as the
/// other).
pub(crate) fn penalties() -> Vec<Penalty> {
    let direction = Direction::Gradient { held: true };
    let mut all = Penalty::all();
    all.push(Penalty::Cure {
        step: 1.5,
        direction,
    });
    all.extend(balls());
    all
}

/// Worst cases in balls of every norm, with fewer rivals, and with a step.
pub(crate) fn balls() -> Vec<Penalty> {
    let each = Norm::ALL.into_iter().flat_map(|norm| {
        let all = Ball::new(norm, 0.3);
        let one = Ball {
            rivals: Some(1),
            ..all
        };
        let step = Ball { step: 0.5, ..all };
        let unclipped = Ball {
            unclipped: true,
            ..step
        };
        let quadratic = Penalty::WorstCaseQuadratic { epsilon: 0.3, norm };
        let balls = [all, one, step, unclipped].map(Penalty::WorstCase);
        balls.into_iter().chain([quadratic])
    });
    each.collect()
}

/// What the rounding of a penalty at one sample is proportional to, and by how many units of it.
///
/// With `a` the size of `J`, `R` that of `r` and `s` that of `S`: the degree of the penalty in
/// each. The nuclear norm goes through `√λ`, which turns the rounding of a small eigenvalue into
/// its root.
fn scale(penalty: &Penalty, case: &Case, sample: usize) -> (f64, f64) {
    let at = case.derivatives(sample);
    let ((logits, a), s) = (case.sizes(), frobenius(&at.loss.hessian));
    let (r, s) = (
        norm(&at.loss.residual) + s * logits,
        s * (1.0 + 2.0 * logits),
    );
    let bound = 16.0 * case.roundings();
    let k = case.graph.outputs() as f64;
    match penalty {
        Penalty::InputGradient => ((a * r).powi(2), bound),
        Penalty::InputGradientL2 | Penalty::InputGradientL1 | Penalty::InputGradientLinf => {
            (a * r * k, bound)
        }
        Penalty::Jacobian | Penalty::JacobianSpectral => (a * a, bound),
        Penalty::JacobianNuclear => (k * a, case.roundings().sqrt()),
        Penalty::CrossLipschitz => (2.0 * k * a * a, bound),
        Penalty::JacobianProbabilities => ((a * s).powi(2), bound),
        Penalty::CurvatureTrace | Penalty::CurvatureSpectral => (a * a * s, bound),
        Penalty::CurvatureFrobenius => ((a * a * s).powi(2), bound),
        Penalty::CurvatureDirectional => (
            (a * a * s).powi(2) * (1.0 + a * r / norm(&at.gradient)),
            bound,
        ),
        Penalty::WorstCase(ball) => {
            let reach = ball.epsilon * a * (case.graph.inputs() as f64).sqrt();
            (2.0 * (reach + logits), bound)
        }
        Penalty::WorstCaseQuadratic { epsilon, .. } => {
            let reach = epsilon * a * (case.graph.inputs() as f64).sqrt();
            (reach * r + reach.powi(2), bound)
        }
        _ => (cure_scale(penalty, case, sample), bound),
    }
}

/// CURE is `‖g′ − g‖²`; the second point is as uncertain as the direction, `a R / ‖g‖`.
fn cure_scale(penalty: &Penalty, case: &Case, sample: usize) -> f64 {
    let Penalty::Cure { step, direction } = penalty else {
        panic!("no scale for {penalty}");
    };
    let at = case.derivatives(sample);
    let (logits, a) = case.sizes();
    let moved = second_point(&at, &case.inputs[sample], *step, *direction);
    let (there, s) = (
        relugrad_tests::penalty::Derivatives::at(
            &case.graph,
            &case.loss,
            &moved,
            &case.targets[sample],
        ),
        frobenius(&at.loss.hessian),
    );
    let logits = logits + step * a;
    let r = norm(&at.loss.residual) + s * logits;
    let turn = if *direction == Direction::Sign {
        0.0
    } else {
        a * r / norm(&at.gradient)
    };
    let s_there = frobenius(&there.loss.hessian);
    let r = r + norm(&there.loss.residual) + s_there * (logits + step * a * turn);
    (a * r).powi(2)
}

/// Whether the second point is safely inside a region, its direction well defined, and no choice
/// nearly a tie.
pub(crate) fn is_regular(penalty: &Penalty, case: &Case) -> bool {
    let (step, direction) = match penalty {
        Penalty::Cure { step, direction } => (step, direction),
        Penalty::WorstCase(ball) => {
            return (0..case.inputs.len()).all(|sample| ball_is_regular(ball, case, sample));
        }
        _ => return true,
    };
    (0..case.inputs.len()).all(|i| {
        let at = case.derivatives(i);
        let largest = at.gradient.iter().fold(0.0, |m: f64, g| m.max(g.abs()));
        let clear =
            *direction != Direction::Sign || at.gradient.iter().all(|g| g.abs() > 1e-9 * largest);
        let moved = second_point(&at, &case.inputs[i], *step, *direction);
        largest == 0.0 || (clear && case.graph.distance_from_kinks(&moved) > 1e-6)
    })
}

/// The same at one sample.
fn ball_is_regular(ball: &Ball, case: &Case, sample: usize) -> bool {
    let (at, x) = (case.derivatives(sample), &case.inputs[sample]);
    let moved = add(x, 1.0, &ball_step(ball, &at, x));
    let apart = |mut values: Vec<f64>, size: f64| {
        values.sort_by(f64::total_cmp);
        let mut pairs = values.windows(2);
        pairs.all(|pair| pair[1] - pair[0] > 1e-9 * size)
    };
    let slopes: Vec<f64> = at.gradient.iter().map(|g| g.abs()).chain([0.0]).collect();
    let steepest = slopes.iter().fold(0.0, |m: f64, s| m.max(*s));
    let logits = case.graph.at(&moved).logits().to_vec();
    (ball.rivals.is_none() || apart(logits, case.sizes().0))
        && (ball.step == 0.0
            || apart(slopes, steepest) && case.graph.distance_from_kinks(&moved) > 1e-6)
}

#[test]
fn penalties_equal_their_definitions() {
    property(
        (Shapes::any().cases(), prop::sample::select(&ROUTES[..])),
        |(case, route), residual| {
            for penalty in penalties() {
                if !is_regular(&penalty, &case) {
                    continue;
                }
                let objective = case.objective(&penalty, route);
                let found = objective
                    .value(&case.network(), case.batch().view(), &case.owned.view())
                    .unwrap();
                for (i, x) in case.inputs.iter().enumerate() {
                    let expected = value(&penalty, &case.graph, &case.loss, x, &case.targets[i]);
                    let Some(expected) = expected else { continue };
                    let (scale, bound) = scale(&penalty, &case, i);
                    let scale = if scale.is_nan() { 1.0 } else { scale };
                    let what = format!(
                        "{} ({:e}, {expected:e})",
                        penalty.spec(),
                        found.sample_penalties[(0, i)]
                    );
                    residual.within(
                        &what,
                        (found.sample_penalties[(0, i)] - expected) / bound,
                        scale,
                        1.0,
                    )?;
                }
            }
            Ok(())
        },
    );
}

/// Penalties on hyperplanes, away from what their values jump at or grow without bound.
#[test]
fn geometric_penalties_equal_their_definitions() {
    let shapes = Shapes {
        outputs: 2..=5,
        ..Shapes::any()
    };
    let penalties = prop::sample::select(Penalty::geometric());
    property((shapes.cases(), penalties), |(case, penalty), residual| {
        let (_, a) = case.sizes();
        let near = |x: &[f64], target: &[f64]| match &penalty {
            Penalty::RegionBoundary(hinge) => hyperplanes(&case.graph, x, hinge.norm),
            Penalty::DecisionBoundary(hinge) => boundaries(&case.graph, x, target, hinge.norm),
            Penalty::MaximumMargin(hinge) => [
                hyperplanes(&case.graph, x, hinge.norm),
                boundaries(&case.graph, x, target, hinge.norm),
            ]
            .concat(),
            _ => Vec::new(),
        };
        let samples = || case.inputs.iter().zip(&case.targets);
        let steep = samples().all(|(x, target)| {
            near(x, target)
                .iter()
                .all(|near| norm(&near.normal) > 1e-6 * a)
        });
        let way = match &penalty {
            Penalty::CureKinks { step, direction } => Some((*step, *direction)),
            _ => None,
        };
        let regular = way
            .is_none_or(|(step, direction)| is_regular(&Penalty::Cure { step, direction }, &case));
        prop_assume!(steep && regular);
        let objective = case.objective(&penalty, SweepStrategy::Fewest);
        let (network, batch) = (case.network(), case.batch());
        let found = objective
            .value(&network, batch.view(), &case.owned.view())
            .unwrap();
        for (i, (x, target)) in samples().enumerate() {
            let expected = value(&penalty, &case.graph, &case.loss, x, target).unwrap();
            let found = found.sample_penalties[(0, i)];
            let scale = match way {
                Some((step, direction)) => cure_scale(&Penalty::Cure { step, direction }, &case, i),
                None => expected.max(1.0),
            };
            let what = format!("{penalty}: {found:e}, {expected:e}");
            residual.within(&what, found - expected, scale, 1e-9)?;
        }
        Ok(())
    });
}

/// Means, the total, and the terms of [`relugrad::Evaluation`] belong together.
#[test]
fn evaluation_is_the_weighted_mean_of_its_samples() {
    property(Shapes::any().cases(), |case, residual| {
        let weights = [0.5, 2.0, 0.0];
        let penalties = [
            Penalty::Jacobian,
            Penalty::CurvatureTrace,
            Penalty::InputGradientL2,
        ];
        let mut objective = Objective::new(case.loss);
        for (penalty, &weight) in penalties.iter().zip(&weights) {
            objective = objective.with(penalty.clone(), weight).unwrap();
        }
        let found = objective
            .value(&case.network(), case.batch().view(), &case.owned.view())
            .unwrap();
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let mut total = mean(&found.sample_losses);
        residual.equal(
            "loss",
            (found.loss, total),
            found.loss.abs(),
            8.0 * f64::EPSILON,
        )?;
        for (i, weight) in weights.iter().enumerate() {
            let value = mean(&found.sample_penalties.row(i).to_vec());
            residual.equal(
                "mean",
                (found.penalties[i], value),
                value.abs(),
                8.0 * f64::EPSILON,
            )?;
            total += weight * value;
        }
        residual.equal(
            "value",
            (found.value, total),
            total.abs(),
            16.0 * f64::EPSILON,
        )?;
        prop_assert_eq!(found.samples_on_kink, 0);
        Ok(())
    });
}
