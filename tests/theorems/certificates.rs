//! T61 to T66: certificates and the local worst case (`docs/theory.md`, section 11).

use proptest::prelude::*;
use relugrad::{Norm, Penalty};
use relugrad_tests::cases::Case;
use relugrad_tests::graph::array;
use relugrad_tests::loss::{divergence, evaluate};
use relugrad_tests::matrix::{
    Matrix, add, centring, dot, eigen, frobenius, norm, outer, plus, product, scaled,
    singular_values, times, transposed_times, unit, zeros,
};
use relugrad_tests::penalty::dual;
use relugrad_tests::recipe::entries;
use relugrad_tests::run::{Residual, property};

use crate::setting::{Setting, affine, affine_with, chains, draws, labels, squared};
use relugrad_tests::segment::next_kink;

type Outcome = Result<(), TestCaseError>;

fn balls() -> impl Strategy<Value = Norm> {
    prop::sample::select(Norm::ALL.to_vec())
}

/// A `δ` of norm 1 with `v·δ` equal to the dual norm of `v`.
pub(crate) fn steepest(norm: Norm, v: &[f64]) -> Vec<f64> {
    match norm {
        Norm::L2 => unit(v),
        Norm::Linf => v.iter().map(|v| v.signum()).collect(),
        Norm::L1 => {
            let largest = Norm::Linf.of(v);
            let first = v.iter().position(|v| v.abs() == largest);
            let mut delta = vec![0.0; v.len()];
            let first = first.expect("v has entries");
            delta[first] = v[first].signum();
            delta
        }
    }
}

/// `ρ₁` with the direction in which the nearest gate switches, if any gate depends on the input.
pub(crate) fn nearest_kink(case: &Case, ball: Norm) -> Option<(f64, Vec<f64>)> {
    let margins = case.graph.margins(&case.graph.at(&case.inputs[0]));
    let sensitive = margins
        .iter()
        .filter(|margin| norm(&margin.gradient) > 1e-9 * margin.scale);
    let radii = sensitive.map(|margin| {
        (
            margin.value / dual(ball, &margin.gradient),
            &margin.gradient,
        )
    });
    let (radius, gradient) = radii.min_by(|a, b| a.0.total_cmp(&b.0))?;
    Some((radius, scaled(-1.0, &steepest(ball, gradient))))
}

fn same_region(case: &Case, delta: &[f64]) -> bool {
    let (network, x) = (case.network(), &case.inputs[0]);
    let trace = network
        .trace(array(&[x.clone(), add(x, 1.0, delta)]).view())
        .unwrap();
    trace.pattern().same_region(0, trace.pattern(), 1)
}

/// **T61.** The pattern is constant within `ρ₁ = min m_j/‖∇m_j‖_•`: in random directions, and in
/// the worst one.
#[test]
fn no_gate_switches_within_the_distance_to_the_nearest_kink() {
    property((labels(), balls()), |(case, ball), _| {
        let Some((radius, worst)) = nearest_kink(&case, ball) else {
            return Ok(());
        };
        let mut random = case.random();
        for _ in 0..8 {
            let v = entries(worst.len(), 1.0, &mut random);
            prop_assert!(same_region(
                &case,
                &scaled((1.0 - 1e-6) * radius / ball.of(&v), &v)
            ));
        }
        prop_assert!(same_region(&case, &scaled((1.0 - 1e-6) * radius, &worst)));
        Ok(())
    });
}

/// T61 for a radius longer by one part in a million: a gate switches.
#[test]
fn counter_no_gate_switches_within_the_distance_to_the_nearest_kink() {
    property((labels(), balls()), |(case, ball), _| {
        if let Some((radius, worst)) = nearest_kink(&case, ball) {
            prop_assert!(!same_region(&case, &scaled((1.0 + 1e-6) * radius, &worst)));
        }
        Ok(())
    });
}

/// The class of the largest logit.
fn predicted(f: &[f64]) -> usize {
    (0..f.len())
        .max_by(|&a, &b| f[a].total_cmp(&f[b]))
        .expect("there are logits")
}

/// `ρ₂` of class `y`, with the direction to the nearest other class and that class.
fn decision(at: &Setting, y: usize, ball: Norm) -> Option<(f64, Vec<f64>, usize)> {
    let others = (0..at.k).filter(|&k| k != y).filter_map(|k| {
        let difference = add(&at.j[y], -1.0, &at.j[k]);
        let length = dual(ball, &difference);
        let direction = scaled(-1.0, &steepest(ball, &difference));
        (length > 1e-9 * at.a).then(|| ((at.f[y] - at.f[k]) / length, direction, k))
    });
    others.min_by(|a, b| a.0.total_cmp(&b.0))
}

/// **T62.** Nothing within `min(ρ₁, ρ₂)` changes the class; if `ρ₂ ≤ ρ₁`, two classes tie at
/// distance `ρ₂`.
#[test]
fn class_is_constant_within_the_certified_radius() {
    property((labels(), balls()), |(case, ball), residual| {
        let at = Setting::new(&case);
        let y = predicted(&at.f);
        let Some((boundary, direction, other)) = decision(&at, y, ball) else {
            return Ok(());
        };
        prop_assume!(boundary > 1e-6);
        let kink = nearest_kink(&case, ball).map_or(f64::INFINITY, |(radius, _)| radius);
        let radius = (1.0 - 1e-6) * boundary.min(kink);
        let mut random = case.random();
        for _ in 0..8 {
            let v = entries(at.d, 1.0, &mut random);
            let moved = add(at.x(), radius / ball.of(&v), &v);
            prop_assert_eq!(predicted(&case.graph.logits(&moved)), y);
        }
        prop_assert_eq!(
            predicted(&case.graph.logits(&add(at.x(), radius, &direction))),
            y
        );
        if boundary <= kink {
            let f = case.graph.logits(&add(at.x(), boundary, &direction));
            let size = case.sizes().0 + at.a * boundary * at.d as f64;
            residual.equal("tie", (f[y], f[other]), size, at.units)?;
        }
        Ok(())
    });
}

/// T62 for a label that is not predicted: negative, it certifies nothing.
#[test]
fn counter_class_is_constant_within_the_certified_radius() {
    property((draws(2), balls()), |(draw, ball), _| {
        let (j, f) = draw.numbers();
        let at = Setting::new(&affine(&j, &f, draw.label));
        let y = (predicted(&f) + 1) % draw.k;
        prop_assume!(f[predicted(&f)] > f[y]);
        prop_assert!(decision(&at, y, ball).is_none_or(|(radius, _, _)| radius < 0.0));
        Ok(())
    });
}

/// T62 with `ρ₂` alone: the class changes earlier where a kink comes first. Here
/// `f = (1, 10 relu(x))` at `x = −1`, whose `J = 0` promises constancy for ever.
#[test]
fn counter_distance_to_the_decision_boundary_alone_certifies_nothing() {
    use relugrad_tests::graph::{GateKind, Graph, Op};
    property(0.1..5.0_f64, |start, _| {
        let layers = vec![
            Op::Gate {
                from: 0,
                kind: GateKind::Relu,
            },
            Op::Dense {
                from: 0,
                weight: vec![vec![0.0], vec![10.0]],
                bias: Some(vec![1.0, 0.0]),
            },
        ];
        let mut case = affine(&zeros(2, 1), &[0.0; 2], 0);
        (case.graph, case.inputs) = (Graph::chain(1, layers), vec![vec![-start]]);
        let at = Setting::new(&case);
        prop_assert!(decision(&at, 0, Norm::L2).is_none());
        prop_assert_eq!(predicted(&case.graph.logits(&[0.2])), 1);
        Ok(())
    });
}

/// A step inside the closure of the region, along a random direction.
fn step_inside(case: &Case) -> Vec<f64> {
    let v = unit(&entries(case.graph.inputs(), 1.0, &mut case.random()));
    let kink = next_kink(&case.graph, &case.graph.at(&case.inputs[0]), &v);
    scaled(kink.map_or(1.0, |(step, _)| step.min(1.0)), &v)
}

pub(crate) fn loss_at(case: &Case, x: &[f64]) -> f64 {
    evaluate(&case.loss, &case.graph.logits(x), &case.targets[0]).value
}

pub(crate) fn t63(case: &Case, residual: &Residual) -> Outcome {
    let (at, delta) = (Setting::new(case), step_inside(case));
    let moved = add(at.x(), 1.0, &delta);
    let tangent = loss_at(case, at.x()) + dot(&at.g, &delta);
    let exact = tangent + divergence(&at.f, &case.graph.logits(&moved));
    let size = 1.0 + case.sizes().0 + at.a;
    residual.equal(
        "tangent + KL",
        (loss_at(case, &moved), exact),
        size,
        at.units,
    )
}

/// **T63.** `ℓ(x + δ) = ℓ(x) + g·δ + KL(p(x) ‖ p(x + δ))` in the closure of a region.
#[test]
fn loss_is_its_tangent_plus_a_divergence_inside_the_region() {
    property(labels(), |case, residual| t63(&case, residual));
}

/// T63 with the end point in another region: unequal.
#[test]
fn counter_loss_is_its_tangent_plus_a_divergence_inside_the_region() {
    property(labels(), |case, _| {
        let at = Setting::new(&case);
        let delta = unit(&entries(at.d, 1.0, &mut case.random()));
        let moved = add(at.x(), 1.0, &delta);
        let there = case.graph.logits(&moved);
        let gap = dot(
            &at.r,
            &add(&add(&there, -1.0, &at.f), -1.0, &times(&at.j, &delta)),
        );
        prop_assume!(gap.abs() > 1e-4);
        let exact = loss_at(&case, at.x()) + dot(&at.g, &delta) + divergence(&at.f, &there);
        prop_assert!((loss_at(&case, &moved) - exact).abs() > 5e-5);
        Ok(())
    });
}

/// A radius whose whole ball lies in the region.
fn radius_inside(case: &Case) -> f64 {
    nearest_kink(case, Norm::L2).map_or(1.0, |(radius, _)| radius.min(1.0))
}

/// The largest loss at sampled points of the sphere: random ones, and the ends of the gradient and
/// the top eigenvector.
fn sampled_worst(at: &Setting, radius: f64) -> f64 {
    let mut random = at.case.random();
    let mut directions: Matrix = (0..16).map(|_| entries(at.d, 1.0, &mut random)).collect();
    directions.push(at.g.clone());
    directions.push(eigen(&at.h).1[0].clone());
    let ends = directions
        .iter()
        .flat_map(|v| [unit(v), scaled(-1.0, &unit(v))]);
    ends.map(|v| loss_at(&at.case, &add(at.x(), radius, &v)))
        .fold(f64::MIN, f64::max)
}

pub(crate) fn t64(case: &Case, residual: &Residual) -> Outcome {
    let (at, radius) = (Setting::new(case), radius_inside(case));
    let centred = singular_values(&product(&centring(at.k), &at.j))[0].powi(2);
    let slope = loss_at(case, at.x()) + radius * norm(&at.g);
    let worst = sampled_worst(&at, radius);
    let size = 1.0 + case.sizes().0 + at.a * at.a;
    residual.at_most(
        "upper",
        (worst, slope + 0.25 * radius * radius * centred),
        size,
        at.units,
    )?;
    residual.at_most("lower", (slope, worst), size, at.units)
}

/// **T64.** `ℓ + ε‖g‖ ≤ max ℓ ≤ ℓ + ε‖g‖ + ½ ε² max‖H‖₂` (softmax: `¼ ε² ‖CJ‖₂²`); for the squared
/// error equality if `g` is a top eigenvector of `JᵀJ`, for softmax if `C J = 0`.
#[test]
fn local_worst_case_is_bounded_by_gradient_and_largest_curvature() {
    property(labels(), |case, residual| t64(&case, residual));
    property(squared(), |case, residual| {
        let (at, radius) = (Setting::new(&case), radius_inside(&case));
        let bound = 0.5 * radius * radius * at.value(&Penalty::CurvatureSpectral);
        let upper = loss_at(&case, at.x()) + radius * norm(&at.g) + bound;
        let size = (1.0 + case.sizes().0 + at.a).powi(2);
        residual.at_most(
            "squared error",
            (sampled_worst(&at, radius), upper),
            size,
            at.units,
        )
    });
    property((draws(2), 0.1..2.0_f64), |(draw, radius), residual| {
        let (direction, f) = (
            unit(&entries(draw.d, 1.0, &mut draw.random())),
            draw.numbers().1,
        );
        let start = Setting::new(&affine_with(
            relugrad::Loss::SquaredError,
            &zeros(draw.k, draw.d),
            &f,
            draw.label,
        ));
        let case = affine_with(
            relugrad::Loss::SquaredError,
            &outer(&start.r, &direction),
            &f,
            draw.label,
        );
        let at = Setting::new(&case);
        let upper = loss_at(&case, at.x())
            + radius * norm(&at.g)
            + 0.5 * radius * radius * dot(&at.r, &at.r);
        residual.equal(
            "eigenvector",
            (sampled_worst(&at, radius), upper),
            upper,
            16.0 * at.units,
        )?;
        let row = draw.numbers().0[0].clone();
        let case = affine(&vec![row; draw.k], &f, draw.label);
        let at = Setting::new(&case);
        let here = loss_at(&case, at.x());
        residual.equal(
            "C J = 0",
            (sampled_worst(&at, radius), here),
            1.0 + case.sizes().0 + at.a,
            at.units,
        )
    });
}

/// `ψ(s) = (e^s − 1 − s)/s²`.
fn psi(s: f64) -> f64 {
    if s < 1e-3 {
        0.5 + s / 6.0 + s * s / 24.0
    } else {
        (s.exp_m1() - s) / (s * s)
    }
}

/// A confident sample of two classes, one radius away from a uncertain one: `J = (w, −w)`,
/// `f = (c, −c)`, label 0.
fn confident(c: f64) -> Setting {
    Setting::new(&affine(&vec![vec![1.0], vec![-1.0]], &[c, -c], 0))
}

/// T64 with the curvature at the centre only: the bound fails for a confident sample.
#[test]
fn counter_local_worst_case_is_bounded_by_gradient_and_largest_curvature() {
    property(3.0..8.0_f64, |c, _| {
        let at = confident(c);
        let radius = 2.0 * c;
        let half = 0.5 * radius * radius * at.value(&Penalty::CurvatureSpectral);
        let bound = loss_at(&at.case, at.x()) + radius * norm(&at.g) + half;
        prop_assert!(sampled_worst(&at, radius) > bound + 1.0);
        Ok(())
    });
}

pub(crate) fn t65(case: &Case, residual: &Residual) -> Outcome {
    let (at, radius) = (Setting::new(case), radius_inside(case));
    let pairs =
        at.j.iter()
            .flat_map(|a| at.j.iter().map(move |b| norm(&add(a, -1.0, b))));
    let range = radius * pairs.fold(0.0, f64::max);
    let correction = psi(range) * radius * radius * at.value(&Penalty::CurvatureSpectral);
    let bound = loss_at(case, at.x()) + radius * norm(&at.g) + correction;
    let size = 1.0 + case.sizes().0 + at.a * at.a + bound;
    residual.at_most(
        "worst case",
        (sampled_worst(&at, radius), bound),
        size,
        at.units,
    )
}

/// **T65.** `max ℓ ≤ ℓ + ε‖g‖ + ψ(ρ) ε² ‖H(x)‖₂`, with equality if `C J = 0`.
#[test]
fn curvature_at_the_centre_bounds_the_worst_case_with_a_correction() {
    property(labels(), |case, residual| t65(&case, residual));
    property(3.0..8.0_f64, |c, residual| {
        let (at, radius) = (confident(c), 2.0 * c);
        let correction =
            psi(2.0 * radius) * radius * radius * at.value(&Penalty::CurvatureSpectral);
        let bound = loss_at(&at.case, at.x()) + radius * norm(&at.g) + correction;
        residual.at_most(
            "confident",
            (sampled_worst(&at, radius), bound),
            bound,
            at.units,
        )
    });
    property(draws(2), |draw, residual| {
        let row = draw.numbers().0[0].clone();
        let case = affine(&vec![row; draw.k], &draw.numbers().1, draw.label);
        let at = Setting::new(&case);
        let size = 1.0 + case.sizes().0 + at.a;
        residual.equal(
            "C J = 0",
            (sampled_worst(&at, 0.5), loss_at(&case, at.x())),
            size,
            at.units,
        )
    });
}

/// T65 with `ψ` replaced by ½: the bound fails.
#[test]
fn counter_curvature_at_the_centre_bounds_the_worst_case_with_a_correction() {
    property(2.0..6.0_f64, |c, _| {
        let (at, radius) = (confident(c), 1.0);
        let half = 0.5 * radius * radius * at.value(&Penalty::CurvatureSpectral);
        let bound = loss_at(&at.case, at.x()) + radius * norm(&at.g) + half;
        prop_assert!(sampled_worst(&at, radius) > bound * (1.0 + 1e-6));
        Ok(())
    });
}

/// `G⁺`.
fn pseudo_inverse(gram: &Matrix) -> Matrix {
    let (values, vectors) = eigen(gram);
    let pairs = values
        .iter()
        .zip(&vectors)
        .filter(|(value, _)| **value > 1e-10 * values[0]);
    pairs.fold(zeros(gram.len(), gram.len()), |sum, (value, u)| {
        plus(&sum, 1.0 / value, &outer(u, u))
    })
}

/// **T66.** `δ ↦ Jδ` maps the ball onto the ellipsoid `eᵀG⁺e ≤ ε²`: its points have the loss of
/// `δ = JᵀG⁺e`, of norm at most `‖δ‖`; convexity puts the maximum on the boundary; for one row of
/// differences it is attained at an end.
#[test]
fn local_worst_case_is_a_problem_in_the_logits() {
    property(labels(), |case, residual| {
        let (at, radius) = (Setting::new(&case), radius_inside(&case));
        let values = eigen(&at.gram).0;
        prop_assume!(
            values
                .iter()
                .all(|v| *v > 1e-5 * values[0] || v.abs() < 1e-12 * values[0])
        );
        prop_assume!(at.generic());
        let delta = scaled(0.9 * radius, &unit(&entries(at.d, 1.0, &mut case.random())));
        let e = times(&at.j, &delta);
        let dual = times(&pseudo_inverse(&at.gram), &e);
        let least = transposed_times(&at.j, &dual);
        let size = 1.0 + case.sizes().0 + at.a;
        residual.equal(
            "‖δ‖",
            (norm(&least).powi(2), dot(&e, &dual)),
            radius * radius,
            1e6 * at.units,
        )?;
        residual.at_most(
            "smallest",
            (norm(&least), norm(&delta)),
            radius,
            1e6 * at.units,
        )?;
        let in_logits = evaluate(&case.loss, &add(&at.f, 1.0, &e), &at.t).value;
        residual.equal(
            "ℓ(f + e)",
            (loss_at(&case, &add(at.x(), 1.0, &least)), in_logits),
            size,
            1e6 * at.units,
        )?;
        let ends = [1.0, -1.0].map(|s| loss_at(&case, &add(at.x(), s / 0.9, &delta)));
        residual.at_most(
            "boundary",
            (in_logits, ends[0].max(ends[1])),
            size,
            at.units,
        )
    });
    property((draws(2), 0.1..2.0_f64), |(draw, radius), residual| {
        let row = draw.numbers().0[0].clone();
        let case = affine(&vec![row.clone(), scaled(-1.0, &row)], &[0.4, -0.2], 0);
        let at = Setting::new(&case);
        let e = radius * norm(&row);
        let ends = [e, -e].map(|e| evaluate(&case.loss, &[0.4 + e, -0.2 - e], &at.t).value);
        residual.equal(
            "ends",
            (sampled_worst(&at, radius), ends[0].max(ends[1])),
            1.0 + e,
            16.0 * at.units,
        )
    });
}

/// T66 for a ball that leaves the region: the loss is not that of the logits `f + Jδ`.
#[test]
fn counter_local_worst_case_is_a_problem_in_the_logits() {
    property(chains(), |case, _| {
        let at = Setting::new(&case);
        let delta = unit(&entries(at.d, 1.0, &mut case.random()));
        let there = case.graph.at(&add(at.x(), 1.0, &delta));
        prop_assume!(frobenius(&plus(there.jacobian(), -1.0, &at.j)) > 1e-2 * at.a);
        // The loss is convex in the logits, so it differs at least by its derivative where that is
        // positive.
        let e = add(&at.f, 1.0, &times(&at.j, &delta));
        let inside = evaluate(&case.loss, &e, &at.t);
        let least = dot(&inside.residual, &add(there.logits(), -1.0, &e));
        prop_assume!(least > 1e-6);
        let found = loss_at(&case, &add(at.x(), 1.0, &delta));
        prop_assert!(found - inside.value > 0.5 * least);
        Ok(())
    });
}
