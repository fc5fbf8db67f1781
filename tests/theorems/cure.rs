//! T53 to T58: CURE (`docs/theory.md`, section 9).

use ndarray::ArrayView1;
use proptest::prelude::*;
use relugrad::{Direction, Penalty, gradient_change};
use relugrad_tests::cases::{Case, Shapes};
use relugrad_tests::difference::slope;
use relugrad_tests::graph::{GateKind, Graph, Op};
use relugrad_tests::loss::evaluate;
use relugrad_tests::matrix::{
    Matrix, add, dot, frobenius, norm, outer, plus, scaled, singular_values, times,
    transposed_times, unit,
};
use relugrad_tests::oracle::Pattern;
use relugrad_tests::parameter::{along, penalty_gradient, penalty_slope};
use relugrad_tests::penalty::{Derivatives, step_direction};
use relugrad_tests::recipe::entries;
use relugrad_tests::run::{Residual, named, property};
use relugrad_tests::tolerance::{GRADIENT, slope_error};

use crate::setting::{Setting, any_loss, chains, labels};
use relugrad_tests::segment::{Piece, next_kink, pieces};

type Outcome = Result<(), TestCaseError>;

const STEP: f64 = 1.5;

fn cure(step: f64, direction: Direction) -> Penalty {
    Penalty::Cure { step, direction }
}

const ALONG: Direction = Direction::Gradient { held: false };

/// `∇ℓ` at `x + t z` with the Jacobian of `pattern`.
fn gradient_at(case: &Case, pattern: &Pattern, x: &[f64]) -> Vec<f64> {
    let point = case.graph.frozen(x, pattern);
    let residual = evaluate(&case.loss, point.logits(), &case.targets[0]).residual;
    transposed_times(point.jacobian(), &residual)
}

pub(crate) fn t53(case: &Case, residual: &Residual) -> Outcome {
    let at = Setting::new(case);
    prop_assume!(norm(&at.g) > 1e-3 * at.a * at.r_size && at.r_size > 0.0);
    let z = unit(&at.g);
    let step = next_kink(&case.graph, &case.graph.at(at.x()), &z).map_or(1.0, |(t, _)| t.min(1.0));
    let h = 0.5 * step;
    let there = evaluate(&case.loss, &add(&at.f, h, &times(&at.j, &z)), &at.t);
    let change = add(&there.residual, -1.0, &at.r);
    let value = dot(&change, &times(&at.gram, &change));
    let magnified = 1.0 + at.a * at.r_size / norm(&at.g);
    let size = (at.a * (at.r_size + norm(&there.residual))).powi(2) * magnified * (1.0 + at.a);
    residual.equal(
        "ΔpᵀGΔp",
        (at.value(&cure(h, ALONG)), value),
        size,
        16.0 * at.units,
    )
}

/// **T53.** In a region CURE is `‖Jᵀ(r(f + hJz) − r(f))‖²`; for `h → 0`, divided by `h²`, it is
/// `‖Hz‖²`.
#[test]
fn cure_in_a_region_is_a_difference_of_probabilities() {
    property(any_loss(), |case, residual| t53(&case, residual));
    property(labels(), |case, residual| {
        let at = Setting::new(&case);
        prop_assume!(norm(&at.g) > 1e-4 * at.a * at.r_size);
        let h = 1e-4;
        let step = next_kink(&case.graph, &case.graph.at(at.x()), &unit(&at.g));
        prop_assume!(step.is_none_or(|(t, _)| t > 2.0 * h));
        let limit = at.value(&Penalty::CurvatureDirectional);
        let found = at.value(&cure(h, ALONG)) / (h * h);
        residual.equal("‖Hz‖²", (found, limit), (1.0 + at.a).powi(6), 1e-3)
    });
}

/// T53 for a step beyond the region: unequal.
#[test]
fn counter_cure_in_a_region_is_a_difference_of_probabilities() {
    property(chains(), |case, _| {
        let at = Setting::new(&case);
        prop_assume!(norm(&at.g) > 1e-4 * at.a * at.r_size);
        let (z, x) = (unit(&at.g), at.x());
        let there = case.graph.at(&add(x, STEP, &z));
        let jump = frobenius(&plus(there.jacobian(), -1.0, &at.j));
        prop_assume!(jump > 1e-2 * at.a);
        let moved = evaluate(&case.loss, &add(&at.f, STEP, &times(&at.j, &z)), &at.t);
        let change = add(&moved.residual, -1.0, &at.r);
        let value = dot(&change, &times(&at.gram, &change));
        let found = at.value(&cure(STEP, ALONG));
        prop_assert!((found - value).abs() > 1e-9 * (found + value));
        Ok(())
    });
}

/// The smooth part and the kinks of `Δ` over the pieces of the segment.
fn parts(case: &Case, z: &[f64], pieces: &[Piece]) -> (Vec<f64>, Vec<f64>) {
    let x = &case.inputs[0];
    let zero = vec![0.0; x.len()];
    let (mut smooth, mut kinks) = (zero.clone(), zero);
    for (i, piece) in pieces.iter().enumerate() {
        let (start, end) = (add(x, piece.start, z), add(x, piece.end, z));
        smooth = add(&smooth, 1.0, &gradient_at(case, &piece.pattern, &end));
        smooth = add(&smooth, -1.0, &gradient_at(case, &piece.pattern, &start));
        if i > 0 {
            kinks = add(&kinks, 1.0, &gradient_at(case, &piece.pattern, &start));
            kinks = add(
                &kinks,
                -1.0,
                &gradient_at(case, &pieces[i - 1].pattern, &start),
            );
        }
    }
    (smooth, kinks)
}

/// `∫ H z dt` over the pieces, by Simpson's rule with many panels.
fn integral(case: &Case, z: &[f64], pieces: &[Piece]) -> Vec<f64> {
    let (x, panels) = (&case.inputs[0], 32);
    let mut sum = vec![0.0; x.len()];
    for piece in pieces {
        let width = (piece.end - piece.start) / f64::from(panels);
        for i in 0..=panels {
            let weight = if i == 0 || i == panels {
                1.0
            } else {
                2.0 + 2.0 * f64::from(i % 2)
            };
            let point = case.graph.frozen(
                &add(x, piece.start + f64::from(i) * width, z),
                &piece.pattern,
            );
            let s = evaluate(&case.loss, point.logits(), &case.targets[0]).hessian;
            let hz = transposed_times(point.jacobian(), &times(&s, &times(point.jacobian(), z)));
            sum = add(&sum, weight * width / 3.0, &hz);
        }
    }
    sum
}

/// The walk passes through the Jacobians of points between its breakpoints.
///
/// Patterns may differ: a unit that only dead units feed is at its kink all along, whichever side
/// the walk left it on.
fn walk_is_complete(case: &Case, z: &[f64], pieces: &[Piece]) -> bool {
    let far = |piece: &Piece| piece.end - piece.start > 1e-9;
    pieces.iter().filter(|piece| far(piece)).all(|piece| {
        let middle = add(&case.inputs[0], 0.5 * (piece.start + piece.end), z);
        let walked = case.graph.frozen(&middle, &piece.pattern);
        case.graph.at(&middle).jacobian() == walked.jacobian()
    })
}

/// Smooth part and kinks by the engine's own walk.
fn engine_parts(case: &Case, z: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let (x, z) = (ArrayView1::from(&case.inputs[0]), ArrayView1::from(z));
    let pieces = case.network().pieces(x, z, STEP).unwrap();
    let change = gradient_change(&pieces, &case.loss, &case.owned.view()).unwrap();
    (change.smooth.to_vec(), change.kinks.to_vec())
}

pub(crate) fn t54(case: &Case, direction: Direction, residual: &Residual) -> Outcome {
    let at = Setting::new(case);
    prop_assume!(norm(&at.g) > 1e-3 * at.a * at.r_size);
    let z = step_direction(direction, &at.g);
    let end = add(at.x(), STEP, &z);
    prop_assume!(case.graph.distance_from_kinks(&end) > 1e-6);
    let pieces = pieces(&case.graph, at.x(), &z, STEP);
    prop_assert!(
        walk_is_complete(case, &z, &pieces),
        "the walk misses a region"
    );
    let (smooth, kinks) = parts(case, &z, &pieces);
    let delta = add(&smooth, 1.0, &kinks);
    let engine = engine_parts(case, &z);
    let found = at.value(&cure(STEP, direction));
    let size = (at.a * (1.0 + at.r_size)).powi(2)
        * (1.0 + STEP * at.a).powi(2)
        * (1.0 + at.a * at.r_size / norm(&at.g));
    residual.equal(
        "‖smooth + kinks‖²",
        (found, dot(&delta, &delta)),
        size,
        64.0 * at.units,
    )?;
    let magnitude = at.a * (1.0 + at.r_size) * (1.0 + STEP * at.a);
    residual.equal_all("smooth", &engine.0, &smooth, magnitude, 64.0 * at.units)?;
    residual.equal_all("kinks", &engine.1, &kinks, magnitude, 64.0 * at.units)?;
    let integral = integral(case, &z, &pieces);
    residual.equal_all(
        "∫ H z",
        &smooth,
        &integral,
        (1.0 + at.a).powi(2) * (1.0 + STEP * at.a).powi(5),
        1e-8,
    )
}

/// **T54.** Across regions `Δ` is the sum of a smooth part `∫ H z dt` and of kinks at breakpoints
/// found exactly.
#[test]
fn cure_across_regions_splits_into_smooth_part_and_kinks() {
    property((labels(), any::<bool>()), |(case, sign), residual| {
        t54(&case, if sign { Direction::Sign } else { ALONG }, residual)
    });
}

/// T54 with the kinks left out: unequal.
#[test]
fn counter_cure_across_regions_splits_into_smooth_part_and_kinks() {
    property(labels(), |case, _| {
        let at = Setting::new(&case);
        prop_assume!(norm(&at.g) > 1e-4 * at.a * at.r_size);
        let z = unit(&at.g);
        let (smooth, kinks) = parts(&case, &z, &pieces(&case.graph, at.x(), &z, STEP));
        prop_assume!(norm(&kinks) > 1e-3 * norm(&smooth));
        let (found, without) = (at.value(&cure(STEP, ALONG)), dot(&smooth, &smooth));
        prop_assume!((2.0 * dot(&smooth, &kinks) + dot(&kinks, &kinks)).abs() > 1e-6 * found);
        prop_assert!((found - without).abs() > 1e-7 * found);
        Ok(())
    });
}

/// **T55.** One unit that switches changes `J` by `(α′ − α) b ∇zᵀ`, of rank one, and bends the loss
/// by `∂ℓ/∂a`.
#[test]
fn one_switching_gate_makes_a_rank_one_kink() {
    property(labels(), |case, residual| {
        let at = Setting::new(&case);
        let z = unit(&entries(at.d, 1.0, &mut case.random()));
        let pieces = pieces(&case.graph, at.x(), &z, STEP);
        for pair in pieces.windows(2) {
            let switch = pair[0]
                .switch
                .expect("a piece that is not the last ends in a switch");
            let place = add(at.x(), pair[0].end, &z);
            let before = case.graph.frozen(&place, &pair[0].pattern);
            let after = case.graph.frozen(&place, &pair[1].pattern);
            let (b, step) = switch.rank_one(&case.graph, &before);
            let change = plus(after.jacobian(), -1.0, before.jacobian());
            let exact = outer(&b, &step);
            residual.equal_all("J′ − J", &change.concat(), &exact.concat(), at.a, at.units)?;
            let r = evaluate(&case.loss, before.logits(), &at.t).residual;
            let bend = dot(&transposed_times(&change, &r), &z);
            let exact = dot(&step, &z) * dot(&b, &r);
            residual.equal("bend", (bend, exact), at.a * (1.0 + at.r_size), at.units)?;
        }
        Ok(())
    });
}

/// T55 for two units that switch at the same point: rank two.
#[test]
fn counter_one_switching_gate_makes_a_rank_one_kink() {
    property(any::<u64>(), |seed, _| {
        let mut random = <rand_chacha::ChaCha8Rng as rand::SeedableRng>::seed_from_u64(seed);
        let weight = relugrad_tests::recipe::uniform(2, 3, 1.0, &mut random);
        let last = relugrad_tests::recipe::uniform(2, 2, 1.0, &mut random);
        let layers = vec![
            Op::Dense {
                from: 0,
                weight,
                bias: None,
            },
            Op::Gate {
                from: 0,
                kind: GateKind::Relu,
            },
            Op::Dense {
                from: 0,
                weight: last,
                bias: None,
            },
        ];
        let graph = Graph::chain(3, layers);
        let pattern = |active: usize| vec![vec![active; 2]];
        let x = [0.0; 3];
        let difference: Matrix = plus(
            graph.frozen(&x, &pattern(1)).jacobian(),
            -1.0,
            graph.frozen(&x, &pattern(0)).jacobian(),
        );
        let singular = singular_values(&difference);
        prop_assume!(singular[0] > 1e-3);
        prop_assert!(singular[1] > 1e-7 * singular[0]);
        Ok(())
    });
}

/// Whether the gradient of a penalty by `found` agrees with differences of `penalty` along a
/// direction.
fn gradient_error(case: &Case, penalty: &Penalty, gradient: &[f64]) -> Option<f64> {
    let direction = unit(gradient);
    let (found, estimate) = penalty_slope(case, penalty, &direction)?;
    let length = norm(gradient);
    let visible = estimate <= GRADIENT / 3.0 * length.max(found.abs());
    visible.then(|| slope_error(found, along(gradient, &direction), length))
}

/// Runs that check under the name of the test.
fn gradient_of(test: &str, penalty: Penalty) {
    let shapes = Shapes {
        width: 4..=12,
        ..Shapes::plain()
    };
    let name = format!("{}::{test}", module_path!());
    named(&name, shapes.cases(), |case, residual| {
        let gradient = penalty_gradient(&case, &penalty, case.strategy());
        let error = gradient_error(&case, &penalty, &gradient);
        prop_assume!(error.is_some());
        residual.within(penalty.name(), error.unwrap(), 1.0, GRADIENT)
    });
}

/// **T56.** The gradient with the direction held constant, against differences that hold it.
#[test]
fn cure_gradient_with_the_direction_held_constant() {
    gradient_of(
        "cure_gradient_with_the_direction_held_constant",
        cure(STEP, Direction::Gradient { held: true }),
    );
}

/// T56 against differences that recompute the direction: they disagree.
#[test]
fn counter_cure_gradient_with_the_direction_held_constant() {
    property(labels(), |case, _| {
        let held = penalty_gradient(
            &case,
            &cure(STEP, Direction::Gradient { held: true }),
            case.strategy(),
        );
        let exact = penalty_gradient(&case, &cure(STEP, ALONG), case.strategy());
        let difference = add(&held, -1.0, &exact);
        prop_assume!(norm(&difference) > 1e-3 * norm(&exact));
        let direction = unit(&difference);
        let found = penalty_slope(&case, &cure(STEP, ALONG), &direction);
        prop_assume!(found.is_some());
        let (found, estimate) = found.unwrap();
        prop_assume!(estimate < 1e-5 * norm(&exact));
        prop_assert!(slope_error(found, along(&held, &direction), norm(&held)) > 1e-4);
        Ok(())
    });
}

/// **T57.** The gradient through the direction `z = g/‖g‖`, against differences that recompute it.
#[test]
fn cure_gradient_through_the_direction_adds_one_cotangent() {
    gradient_of(
        "cure_gradient_through_the_direction_adds_one_cotangent",
        cure(STEP, ALONG),
    );
}

/// T57 without the projection: `z̄/‖g‖` in place of `(I − zzᵀ) z̄/‖g‖` differs by `z (z·z̄)/‖g‖`,
/// which differences of the unit vector `z` do not have.
#[test]
fn counter_cure_gradient_through_the_direction_adds_one_cotangent() {
    property(labels(), |case, _| {
        let at = Setting::new(&case);
        prop_assume!(norm(&at.g) > 1e-4 * at.a * at.r_size);
        let (z, moved) = (unit(&at.g), add(at.x(), STEP, &unit(&at.g)));
        let there = Derivatives::at(&case.graph, &case.loss, &moved, &at.t);
        let z_bar = scaled(
            2.0 * STEP,
            &times(&there.hessian(), &add(&there.gradient, -1.0, &at.g)),
        );
        prop_assume!(dot(&z, &z_bar).abs() > 1e-6 * norm(&z_bar) && norm(&z_bar) > 0.0);
        let moved = |t: f64| unit(&add(&at.g, t, &at.g));
        let (found, _) = slope(|t| dot(&moved(t), &z_bar), 1e-2);
        prop_assert!(found.abs() < 1e-9 * norm(&z_bar));
        Ok(())
    });
}

/// **T58.** Along `sign(g)` the direction is locally constant, so holding it is exact.
#[test]
fn sign_direction_is_locally_constant() {
    gradient_of(
        "sign_direction_is_locally_constant",
        cure(STEP, Direction::Sign),
    );
}

/// T58 where an entry of `g` changes sign: the direction, and with it the value, jumps.
#[test]
fn counter_sign_direction_is_locally_constant() {
    property(labels(), |case, _| {
        let at = Setting::new(&case);
        prop_assume!(at.d > 1 && at.g.iter().all(|g| *g != 0.0));
        let mut other = at.g.clone();
        other[0] *= -1e-12;
        let mut same = at.g.clone();
        same[0] *= 1e-12;
        let (z, jumped) = (
            step_direction(Direction::Sign, &same),
            step_direction(Direction::Sign, &other),
        );
        prop_assert!(norm(&add(&z, -1.0, &jumped)) > 1.9 / (at.d as f64).sqrt());
        let value = |z: &[f64]| {
            let moved = add(at.x(), STEP, z);
            let there = Derivatives::at(&case.graph, &case.loss, &moved, &at.t);
            norm(&add(&there.gradient, -1.0, &at.g))
        };
        let (value, jumped) = (value(&z), value(&jumped));
        prop_assume!(value > 1e-6 && (value / jumped - 1.0).abs() > 1e-9);
        Ok(())
    });
}
