//! T69 to T71: what the affine map of the region says about the worst loss in a ball
//! (`docs/theory.md`, section 11).

use proptest::prelude::*;
use relugrad::{Ball, Norm, Penalty};
use relugrad_tests::cases::Case;
use relugrad_tests::loss::{divergence, evaluate};
use relugrad_tests::matrix::{Matrix, add, scaled, times};
use relugrad_tests::penalty::dual;
use relugrad_tests::recipe::entries;
use relugrad_tests::run::{Residual, property};

use crate::certificates::{loss_at, nearest_kink, steepest};
use crate::setting::{Setting, affine, draws, labels};

type Outcome = Result<(), TestCaseError>;

pub(crate) fn norms() -> impl Strategy<Value = Norm> {
    prop::sample::select(Norm::ALL.to_vec())
}

/// A radius whose whole ball lies in the region, at most 1.
fn radius_inside(case: &Case, norm: Norm) -> f64 {
    nearest_kink(case, norm).map_or(1.0, |(radius, _)| radius.min(1.0))
}

/// Points of the sphere: random ones, and those where the loss, its opposite, and each difference
/// of two logits grow fastest.
fn sphere(at: &Setting, norm: Norm, radius: f64) -> Matrix {
    let mut random = at.case.random();
    let pairs = (0..at.k).flat_map(|i| (0..at.k).map(move |k| (i, k)));
    let apart = pairs.filter(|(i, k)| i != k);
    let mut slopes: Matrix = apart.map(|(i, k)| add(&at.j[k], -1.0, &at.j[i])).collect();
    slopes.extend([at.g.clone(), scaled(-1.0, &at.g)]);
    slopes.extend((0..8).map(|_| entries(at.d, 1.0, &mut random)));
    let steep = slopes.iter().filter(|v| dual(norm, v) > 0.0);
    steep.map(|v| scaled(radius, &steepest(norm, v))).collect()
}

/// The largest loss at these points.
fn sampled_worst(at: &Setting, norm: Norm, radius: f64) -> f64 {
    let ends = sphere(at, norm, radius).into_iter();
    ends.map(|delta| loss_at(&at.case, &add(at.x(), 1.0, &delta)))
        .fold(loss_at(&at.case, at.x()), f64::max)
}

/// What rounding of a loss in a ball is proportional to.
fn size(at: &Setting, radius: f64) -> f64 {
    1.0 + at.case.sizes().0 + at.a * (1.0 + radius * (at.d as f64).sqrt())
}

fn range(e: &[f64]) -> f64 {
    let fold = |f: fn(f64, f64) -> f64, start| e.iter().copied().fold(start, f);
    fold(f64::max, f64::MIN) - fold(f64::min, f64::MAX)
}

pub(crate) fn t69(case: &Case, norm: Norm, residual: &Residual) -> Outcome {
    let (at, epsilon) = (Setting::new(case), radius_inside(case, norm));
    for delta in sphere(&at, norm, epsilon) {
        let e = times(&at.j, &delta);
        let found = divergence(&at.f, &add(&at.f, 1.0, &e));
        let bound = range(&e).powi(2) / 8.0;
        residual.at_most("KL", (found, bound), size(&at, epsilon), at.units)?;
    }
    let growth = at.value(&Penalty::WorstCaseQuadratic { epsilon, norm });
    let bound = loss_at(case, at.x()) + growth;
    let found = sampled_worst(&at, norm, epsilon);
    residual.at_most("loss", (found, bound), size(&at, epsilon) + bound, at.units)
}

/// **T69.** `KL(p(x) ‖ p(x + δ)) ≤ (max e − min e)²/8` with `e = J δ`, and
/// `max ℓ ≤ ℓ + ε‖g‖• + (ε²/8) max ‖J_j − J_k‖•²` in a ball inside the region.
#[test]
fn worst_case_is_bounded_by_gradient_and_farthest_pair_of_rows() {
    property((labels(), norms()), |(case, norm), residual| {
        t69(&case, norm, residual)
    });
}

/// Two classes that are equally likely, with `J = (w, −w)` and one input.
fn undecided(w: f64) -> Setting {
    Setting::new(&affine(&vec![vec![w], vec![-w]], &[0.0, 0.0], 0))
}

/// T69 with 1/9 for 1/8: the bound fails for an undecided sample and a small ball.
#[test]
fn counter_worst_case_is_bounded_by_gradient_and_farthest_pair_of_rows() {
    property((0.2..0.6_f64, norms()), |(w, norm), _| {
        let (at, epsilon) = (undecided(w), 1.0);
        let square = (2.0 * w * epsilon).powi(2);
        let slope = loss_at(&at.case, at.x()) + epsilon * dual(norm, &at.g);
        let found = sampled_worst(&at, norm, epsilon);
        prop_assert!(found > slope + square / 9.0 + 1e-6);
        prop_assert!(found <= slope + square / 8.0);
        Ok(())
    });
}

/// The loss of the linearised network in its worst case, by the engine.
fn worst_loss(at: &Setting, ball: Ball) -> f64 {
    loss_at(&at.case, at.x()) + at.value(&Penalty::WorstCase(ball))
}

pub(crate) fn t70(case: &Case, norm: Norm, residual: &Residual) -> Outcome {
    let (at, epsilon) = (Setting::new(case), radius_inside(case, norm));
    let bound = worst_loss(&at, Ball::new(norm, epsilon));
    let found = sampled_worst(&at, norm, epsilon);
    let (size, units) = (size(&at, epsilon), at.units);
    match at.k {
        2 => residual.equal("two classes", (found, bound), size, units),
        _ => residual.at_most("more classes", (found, bound), size, units),
    }
}

/// **T70.** `max ℓ ≤ log Σ_k exp(f_k − f_y + ε‖J_k − J_y‖•)` in a ball inside the region, with
/// equality for two classes.
#[test]
fn worst_case_is_bounded_by_every_rival_at_its_worst() {
    property((labels(), norms()), |(case, norm), residual| {
        t70(&case, norm, residual)
    });
    property(
        (draws(2), norms(), 0.1..2.0_f64),
        |(draw, norm, epsilon), residual| {
            let (numbers, f) = draw.numbers();
            let case = affine(
                &numbers[..1]
                    .iter()
                    .cloned()
                    .chain([vec![0.0; draw.d]])
                    .collect(),
                &f[..2],
                0,
            );
            let at = Setting::new(&case);
            let found = sampled_worst(&at, norm, epsilon);
            let bound = worst_loss(&at, Ball::new(norm, epsilon));
            residual.equal("equality", (found, bound), size(&at, epsilon), at.units)
        },
    );
}

/// T70 with three classes, of which two can never be at their worst together: less than the bound.
#[test]
fn counter_worst_case_is_bounded_by_every_rival_at_its_worst() {
    property(
        (draws(1), norms(), 0.2..2.0_f64),
        |(draw, norm, epsilon), _| {
            let w = draw.numbers().0[0].clone();
            prop_assume!(dual(norm, &w) > 0.1);
            let rows = vec![vec![0.0; w.len()], w.clone(), scaled(-1.0, &w)];
            let at = Setting::new(&affine(&rows, &[0.0; 3], 0));
            // The loss is convex along `w`, and the same at both ends.
            let reach = epsilon * dual(norm, &w);
            let exact = (1.0 + 2.0 * reach.cosh()).ln();
            let bound = worst_loss(&at, Ball::new(norm, epsilon));
            prop_assert!((sampled_worst(&at, norm, epsilon) - exact).abs() < 1e-9 * (1.0 + exact));
            prop_assert!(bound > exact + 1e-4);
            Ok(())
        },
    );
}

/// The loss at `x + δ` if the logits of `held` keep their distance from the label's.
fn loss_holding(at: &Setting, delta: &[f64], held: &[usize]) -> f64 {
    let moved = add(&at.f, 1.0, &times(&at.j, delta));
    let y = at.label();
    let differences = (0..at.k).map(|k| match held.contains(&k) {
        true => at.f[k] - at.f[y],
        false => moved[k] - moved[y],
    });
    let differences: Vec<f64> = differences.collect();
    evaluate(&at.case.loss, &differences, &at.t).value
}

pub(crate) fn t71(case: &Case, norm: Norm, residual: &Residual) -> Outcome {
    let (at, epsilon) = (Setting::new(case), radius_inside(case, norm));
    let (size, y) = (size(&at, epsilon), at.label());
    let mut order: Vec<usize> = (0..at.k).filter(|&k| k != y).collect();
    order.sort_by(|&a, &b| at.f[b].total_cmp(&at.f[a]));
    let reach = |k: usize| epsilon * dual(norm, &add(&at.j[k], -1.0, &at.j[y]));
    let all = worst_loss(&at, Ball::new(norm, epsilon));
    let mut before = loss_at(case, at.x());
    for rivals in 1..at.k {
        let (chosen, held) = order.split_at(rivals);
        let tied = held
            .iter()
            .any(|&k| at.f[chosen[rivals - 1]] - at.f[k] < 1e-9 * size);
        let ball = Ball {
            rivals: Some(rivals),
            ..Ball::new(norm, epsilon)
        };
        let bound = worst_loss(&at, ball);
        residual.at_most("more rivals", (before, bound), size, at.units)?;
        before = bound;
        if tied {
            continue;
        }
        for delta in sphere(&at, norm, epsilon) {
            let found = loss_holding(&at, &delta, held);
            residual.at_most("held", (found, bound), size, at.units)?;
        }
        let missed = held
            .iter()
            .map(|&k| at.p[k] * reach(k).exp_m1())
            .sum::<f64>();
        residual.at_most("missed", (all, bound + missed.ln_1p()), size, at.units)?;
        let margins = chosen.iter().map(|&k| at.f[k] - at.f[y] + reach(k));
        let worst = margins.fold(f64::MIN, f64::max);
        // The margin `m` as the loss of two classes, `log(1 + exp m)`.
        let two = worst.max(0.0) + (-worst.abs()).exp().ln_1p();
        residual.at_most("margin", (two, bound), size, at.units)?;
    }
    residual.equal("all rivals", (before, all), size, at.units)
}

/// **T71.** With fewer rivals the sum bounds the loss in which the others keep their distance, and
/// the margins of those that count; what it misses of T70 is at most
/// `log(1 + Σ p_k (exp(ε‖J_k − J_y‖•) − 1))` over the others.
#[test]
fn fewer_rivals_bound_the_loss_in_which_the_others_are_held() {
    property((labels(), norms()), |(case, norm), residual| {
        t71(&case, norm, residual)
    });
}

/// T71 for the loss itself: an unlikely class with a long row is missed by the bound of one rival.
#[test]
fn counter_fewer_rivals_bound_the_loss_in_which_the_others_are_held() {
    property((2.0..4.0_f64, norms()), |(w, norm), _| {
        let rows = vec![vec![0.0], vec![0.0], vec![w]];
        let at = Setting::new(&affine(&rows, &[0.0, -0.5, -1.0], 0));
        let one = Ball {
            rivals: Some(1),
            ..Ball::new(norm, 1.0)
        };
        prop_assert!(sampled_worst(&at, norm, 1.0) > worst_loss(&at, one) + 0.5);
        Ok(())
    });
}

/// **T71** with a step: the bound is one on the ball of the rest of the radius around `x'`, which
/// lies in the whole ball, and is at least the loss at `x'`.
#[test]
fn a_step_leaves_a_bound_on_a_smaller_ball_inside() {
    let step = 0.5;
    property((labels(), norms()), |(case, norm), residual| {
        let (at, epsilon) = (Setting::new(&case), radius_inside(&case, norm));
        prop_assume!(at.g.iter().all(|g| g.abs() > 1e-9 * at.a * at.r_size));
        let ball = Ball {
            step,
            unclipped: true,
            ..Ball::new(norm, epsilon)
        };
        let (bound, size) = (worst_loss(&at, ball), size(&at, epsilon));
        let moved = scaled(step * epsilon, &steepest(norm, &at.g));
        let there = loss_at(&case, &add(at.x(), 1.0, &moved));
        residual.at_most("second point", (there, bound), size, at.units)?;
        for delta in sphere(&at, norm, (1.0 - step) * epsilon) {
            let both = add(&moved, 1.0, &delta);
            prop_assert!(norm.of(&both) <= epsilon * (1.0 + 1e-12));
            let found = loss_at(&case, &add(at.x(), 1.0, &both));
            residual.at_most("ball", (found, bound), size, at.units)?;
        }
        Ok(())
    });
}

/// The same for the whole ball: an undecided sample's loss grows further than the bound where its
/// steepest direction turns, as it does between two rivals.
#[test]
fn counter_a_step_leaves_a_bound_on_a_smaller_ball_inside() {
    property(2.0..4.0_f64, |w, _| {
        // The likelier rival decides the step, away from the one with the longer row.
        let rows = vec![vec![0.0], vec![0.2 * w], vec![-2.0 * w]];
        let at = Setting::new(&affine(&rows, &[0.0, 0.0, -4.0], 0));
        let ball = Ball {
            step: 0.8,
            unclipped: true,
            ..Ball::new(Norm::Linf, 4.0)
        };
        prop_assume!(at.g[0] > 1e-3);
        prop_assert!(sampled_worst(&at, Norm::Linf, 4.0) > worst_loss(&at, ball) + 0.5);
        Ok(())
    });
}
