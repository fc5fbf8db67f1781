//! T27 to T41: factor, eigenpairs, and the input curvature (`docs/theory.md`, sections 5 and 6).

use proptest::prelude::*;
use relugrad::{Loss, Penalty};
use relugrad_tests::cases::Case;
use relugrad_tests::difference::{one_sided, slope};
use relugrad_tests::graph::{GateKind, Graph, Op};
use relugrad_tests::loss::{divergence, softmax as probabilities, softmax_hessian};
use relugrad_tests::matrix::{
    Matrix, add, centring, chain, diagonal, dot, eigen, frobenius, identity, inner, multiple, norm,
    outer, plus, product, product_transposed, scaled, singular_values, times, trace, transpose,
    transposed_times, unit, zeros,
};
use relugrad_tests::recipe::{entries, uniform};
use relugrad_tests::run::{EPSILON, Residual, property};

use crate::setting::{
    Draw, Setting, affine, affine_with, draws, gram_of, labels, orthogonal, softmax, squared,
    symmetric,
};
use relugrad_tests::segment::next_kink;

type Outcome = Result<(), TestCaseError>;

/// `L = diag(√p) − p √pᵀ`.
fn factor(p: &[f64]) -> Matrix {
    let roots: Vec<f64> = p.iter().map(|p| p.sqrt()).collect();
    plus(&diagonal(&roots), -1.0, &outer(p, &roots))
}

/// `κ = min(p_max, ½)`, and `p_min`.
fn extremes(p: &[f64]) -> (f64, f64) {
    let largest = p.iter().copied().fold(0.0, f64::max);
    (largest.min(0.5), p.iter().copied().fold(1.0, f64::min))
}

/// **T27.** `S = L Lᵀ` with `L = diag(√p) − p √pᵀ`, whose null vector is `√p`.
#[test]
fn softmax_hessian_factors_without_an_eigendecomposition() {
    property(draws(2), |draw, residual| {
        let p = probabilities(&draw.numbers().1);
        let l = factor(&p);
        let found = product_transposed(&l, &l).concat();
        residual.equal_all(
            "LLᵀ",
            &found,
            &softmax_hessian(&p).concat(),
            1.0,
            8.0 * EPSILON,
        )?;
        let roots: Vec<f64> = p.iter().map(|p| p.sqrt()).collect();
        residual.equal_all(
            "L√p",
            &times(&l, &roots),
            &vec![0.0; draw.k],
            1.0,
            8.0 * EPSILON,
        )?;
        let rank = singular_values(&l).iter().filter(|&&s| s > 1e-6).count();
        prop_assert_eq!(rank, draw.k - 1);
        Ok(())
    });
}

/// T27 for `p` with another sum than 1.
#[test]
fn counter_softmax_hessian_factors_without_an_eigendecomposition() {
    property(draws(2), |draw, _| {
        let p = scaled(1.01, &probabilities(&draw.numbers().1));
        let l = factor(&p);
        let s = plus(&diagonal(&p), -1.0, &outer(&p, &p));
        prop_assert!(frobenius(&plus(&product_transposed(&l, &l), -1.0, &s)) > 1e-5);
        Ok(())
    });
}

pub(crate) fn t28(case: &Case, residual: &Residual) -> Outcome {
    let at = Setting::new(case);
    let network = case.network();
    let batch = case.batch();
    let pairs = network
        .trace(batch.view())
        .unwrap()
        .curvature(&case.loss)
        .unwrap()
        .eigenpairs()
        .unwrap();
    let (values, _) = eigen(&at.h);
    let size = at.h_size();
    let count = pairs.values.ncols();
    let found: Vec<f64> = (0..count).map(|i| pairs.values[(0, i)]).collect();
    residual.equal_all("λ", &found, &values[..count], size, at.units)?;
    for (i, &value) in found.iter().enumerate() {
        let w: Vec<f64> = (0..at.d).map(|j| pairs.vectors[(0, i, j)]).collect();
        if value > 1e-3 * size {
            residual.equal_all(
                "H w",
                &times(&at.h, &w),
                &scaled(value, &w),
                size,
                64.0 * at.units,
            )?;
            residual.equal("‖w‖", (norm(&w), 1.0), 1.0, 1e3 * at.units)?;
        }
    }
    Ok(())
}

/// **T28.** The non-zero eigenvalues of `H` are those of `Lᵀ G L`, and `Jᵀ L u/√λ` are unit
/// eigenvectors.
#[test]
fn input_curvature_eigenpairs_come_from_the_small_matrix() {
    property(softmax(), |case, residual| t28(&case, residual));
}

/// T28 for the null vector `u = √p`: `Jᵀ L u = 0` is no eigenvector.
#[test]
fn counter_input_curvature_eigenpairs_come_from_the_small_matrix() {
    property(draws(2), |draw, residual| {
        let (j, f) = draw.numbers();
        let p = probabilities(&f);
        let roots: Vec<f64> = p.iter().map(|p| p.sqrt()).collect();
        let w = transposed_times(&j, &times(&factor(&p), &roots));
        residual.within("Jᵀ L √p", norm(&w), frobenius(&j), 8.0 * EPSILON)
    });
}

/// `λ_max(S^½ G S^½)` for symmetric positive semidefinite `S`, as the largest eigenvalue of `S G`.
fn largest(s: &Matrix, gram: &Matrix) -> f64 {
    let (values, vectors) = eigen(s);
    let roots: Vec<f64> = values.iter().map(|v| v.max(0.0).sqrt()).collect();
    let l = product(&transpose(&vectors), &diagonal(&roots));
    eigen(&chain(&[&transpose(&l), gram, &l])).0[0]
}

/// **T29.** `∂λ/∂G = q qᵀ`, `∂λ/∂S = (Gq)(Gq)ᵀ/λ` for a simple largest eigenvalue, along random
/// changes.
#[test]
fn derivative_of_the_largest_curvature_eigenvalue() {
    property(draws(2), |draw, residual| {
        let ((j, _), mut random) = (draw.numbers(), draw.random());
        let root = uniform(draw.k, draw.k, 1.0, &mut random);
        let (s, gram) = (plus(&gram_of(&root), 1.0, &identity(draw.k)), gram_of(&j));
        let l = transpose(&eigen_root(&s));
        let (values, vectors) = eigen(&chain(&[&transpose(&l), &gram, &l]));
        prop_assume!(values[1] < 0.9 * values[0]);
        let q = times(&l, &vectors[0]);
        let gq = times(&gram, &q);
        let (ds, dj) = (
            symmetric(draw.k, &mut random),
            uniform(draw.k, draw.d, 0.3, &mut random),
        );
        let dg = symmetric_part(&product_transposed(&j, &dj));
        let exact = dot(&q, &times(&dg, &q)) + dot(&gq, &times(&ds, &gq)) / values[0];
        let moved = |h: f64| largest(&plus(&s, h, &ds), &gram_of(&plus(&j, h, &dj)));
        let (found, _) = slope(moved, 4e-3);
        let size = dot(&q, &q) * frobenius(&dg) + dot(&gq, &gq) / values[0] * frobenius(&ds);
        residual.equal("dλ", (found, exact), size, 1e-7)
    });
}

/// `M + Mᵀ`.
fn symmetric_part(m: &Matrix) -> Matrix {
    plus(m, 1.0, &transpose(m))
}

/// `√D V` with `S = Vᵀ D V`: the transpose of a factor `L` of `S`.
fn eigen_root(s: &Matrix) -> Matrix {
    let (values, vectors) = eigen(s);
    let rows = values.iter().zip(&vectors);
    rows.map(|(value, row)| scaled(value.max(0.0).sqrt(), row))
        .collect()
}

/// T29 at a repeated eigenvalue: the two one-sided derivatives differ.
#[test]
fn counter_derivative_of_the_largest_curvature_eigenvalue() {
    property(draws(2), |draw, _| {
        let change = symmetric(draw.k, &mut draw.random());
        let values = eigen(&change).0;
        prop_assume!(values[0] - values[draw.k - 1] > 1e-2);
        let gram = |t: f64| plus(&identity(draw.k), t, &change);
        let right = one_sided(|t| eigen(&gram(t)).0[0], 1e-4);
        let left = -one_sided(|t| eigen(&gram(-t)).0[0], 1e-4);
        prop_assert!(right - left > 0.5e-2);
        Ok(())
    });
}

/// `J` with orthonormal rows times 2 on two of them: the largest eigenvalue of `G` is 4, twice.
fn repeated(draw: &Draw) -> Matrix {
    let d = draw.d.max(draw.k);
    let rows = orthogonal(d, &mut draw.random());
    let scale = |i: usize| if i < 2 { 2.0 } else { 1.0 };
    (0..draw.k).map(|i| scaled(scale(i), &rows[i])).collect()
}

/// **T30.** At a repeated eigenvalue, `A = 2 q qᵀ J` for any of its eigenvectors is a subgradient
/// of `‖J‖₂²`.
#[test]
fn spectral_subgradient_inequality_holds_at_repeated_eigenvalues() {
    property(
        (draws(3), 0.0..std::f64::consts::TAU),
        |(draw, angle), residual| {
            let j = repeated(&draw);
            let mut u = vec![0.0; draw.k];
            (u[0], u[1]) = angle.sin_cos();
            let a = multiple(2.0, &product(&outer(&u, &u), &j));
            let change = uniform(draw.k, j[0].len(), 1.0, &mut draw.random());
            let other = plus(&j, 1.0, &change);
            let (here, there) = (eigen(&gram_of(&j)).0[0], eigen(&gram_of(&other)).0[0]);
            residual.at_most(
                "subgradient",
                (here + inner(&a, &change), there),
                here + there,
                64.0 * EPSILON,
            )?;
            // Equality along J itself: the function is quadratic there, (1 + t)² = 1 + 2t + t².
            let along = eigen(&gram_of(&multiple(1.001, &j))).0[0];
            residual.equal(
                "tangent",
                (here + 1e-3 * inner(&a, &j) + 1e-6 * here, along),
                here,
                64.0 * EPSILON,
            )
        },
    );
}

/// T30 with the eigenvector of a smaller eigenvalue: the inequality fails in some direction.
#[test]
fn counter_spectral_subgradient_inequality_holds_at_repeated_eigenvalues() {
    property(draws(3), |draw, _| {
        let j = repeated(&draw);
        let mut u = vec![0.0; draw.k];
        u[draw.k - 1] = 1.0;
        let a = multiple(2.0, &product(&outer(&u, &u), &j));
        let change = multiple(0.1, &a);
        let (here, there) = (
            eigen(&gram_of(&j)).0[0],
            eigen(&gram_of(&plus(&j, 1.0, &change))).0[0],
        );
        prop_assert!(here + inner(&a, &change) > there + 0.1);
        Ok(())
    });
}

/// `(G⁺)^½ J`, the polar factor.
fn polar(j: &Matrix) -> Matrix {
    let (values, vectors) = eigen(&gram_of(j));
    let mut root = zeros(j.len(), j.len());
    for (value, u) in values
        .iter()
        .zip(&vectors)
        .filter(|(value, _)| **value > 1e-10 * values[0])
    {
        root = plus(&root, 1.0 / value.sqrt(), &outer(u, u));
    }
    product(&root, j)
}

fn nuclear(j: &Matrix) -> f64 {
    singular_values(j).iter().sum()
}

/// **T31.** The polar factor is a subgradient of `‖J‖_*` for every `J`, and the gradient at full
/// rank.
#[test]
fn nuclear_norm_subgradient_is_the_polar_factor() {
    property((draws(2), any::<bool>()), |(draw, deficient), residual| {
        let (mut j, _) = draw.numbers();
        if deficient {
            j[0] = j[1].clone();
        }
        let change = uniform(draw.k, draw.d, 0.5, &mut draw.random());
        let a = polar(&j);
        let there = nuclear(&plus(&j, 1.0, &change));
        let tangent = inner(&a, &j) + inner(&a, &change);
        residual.at_most("subgradient", (tangent, there), there, 1e-7)?;
        let singular = singular_values(&j);
        if deficient || singular[singular.len() - 1] < 0.05 * singular[0] {
            return Ok(());
        }
        let (found, _) = slope(|t| nuclear(&plus(&j, t, &change)), 2e-3);
        residual.equal(
            "gradient",
            (found, inner(&a, &change)),
            frobenius(&a) * frobenius(&change),
            1e-7,
        )
    });
}

/// T31 where the rank is not full: the norm is not differentiable, its one-sided derivatives
/// differ.
#[test]
fn counter_nuclear_norm_subgradient_is_the_polar_factor() {
    property(draws(2), |draw, _| {
        let (values, right) = (
            vec![1.0, 0.0],
            orthogonal(draw.d.max(2), &mut draw.random()),
        );
        let j: Matrix = values
            .iter()
            .zip(&right)
            .map(|(v, row)| scaled(*v, row))
            .collect();
        let change = vec![vec![0.0; j[0].len()], right[1].clone()];
        let moved = |t: f64| nuclear(&plus(&j, t, &change));
        let (right, left) = (one_sided(moved, 1e-3), -one_sided(|t| moved(-t), 1e-3));
        prop_assert!((right - 1.0).abs() < 1e-6 && (left + 1.0).abs() < 1e-6);
        Ok(())
    });
}

/// `φ = rᵀGSGSGr / rᵀGr`.
fn directional(gram: &Matrix, r: &[f64], s: &Matrix) -> f64 {
    let b = times(s, &times(gram, r));
    dot(&b, &times(gram, &b)) / dot(r, &times(gram, r))
}

/// Relative error of T32 along a random change; without `through`, with `z` held constant.
fn directional_error(draw: &Draw, through: bool) -> f64 {
    let ((j, r), mut random) = (draw.numbers(), draw.random());
    let (gram, s) = (gram_of(&j), symmetric(draw.k, &mut random));
    let (dg, ds, dr) = (
        symmetric(draw.k, &mut random),
        symmetric(draw.k, &mut random),
        entries(draw.k, 1.0, &mut random),
    );
    let a = times(&gram, &r);
    let (omega, b) = (dot(&r, &a), times(&s, &a));
    let c = times(&gram, &b);
    let (d, value) = (times(&s, &c), dot(&b, &c) / omega);
    let g_bar = plus(
        &plus(&symmetric_part(&outer(&r, &d)), 1.0, &outer(&b, &b)),
        -value,
        &outer(&r, &r),
    );
    let r_bar = scaled(2.0, &add(&times(&gram, &d), -value, &a));
    let mut exact =
        inner(&g_bar, &dg) / omega + inner(&symmetric_part(&outer(&a, &c)), &ds) / omega;
    if through {
        exact += dot(&r_bar, &dr) / omega;
    }
    let moved = |t: f64| directional(&plus(&gram, t, &dg), &add(&r, t, &dr), &plus(&s, t, &ds));
    let (found, estimate) = slope(moved, 1e-3 * omega / (1.0 + omega));
    let size = (frobenius(&g_bar) + frobenius(&outer(&a, &c)) + norm(&r_bar)) / omega;
    if estimate > 1e-9 * size {
        return f64::NAN;
    }
    (found - exact).abs() / size
}

/// **T32.** The derivative of the directional curvature in `G`, `r` and `S`.
#[test]
fn derivative_of_directional_curvature() {
    property(draws(2), |draw, residual| {
        let error = directional_error(&draw, true);
        prop_assume!(!error.is_nan());
        residual.within("dφ", error, 1.0, 1e-7)
    });
}

/// T32 with the direction held constant, that is without `r̄`: another derivative.
#[test]
fn counter_derivative_of_directional_curvature() {
    property(draws(2), |draw, _| {
        let error = directional_error(&draw, false);
        prop_assume!(error > 1e-5);
        prop_assert!(error > 1e-7);
        Ok(())
    });
}

/// `Σ_k w_k ‖Jᵀ(p − e_k)‖²`.
fn expected_gradient(at: &Setting, weights: &[f64]) -> f64 {
    let gradient = |k: usize| {
        let mut r = at.p.clone();
        r[k] -= 1.0;
        norm(&transposed_times(&at.j, &r)).powi(2)
    };
    (0..at.k).map(|k| weights[k] * gradient(k)).sum()
}

pub(crate) fn t33(case: &Case, residual: &Residual) -> Outcome {
    let at = Setting::new(case);
    let found = at.value(&Penalty::CurvatureTrace);
    residual.equal(
        "tr H",
        (found, expected_gradient(&at, &at.p)),
        at.a * at.a,
        at.units,
    )
}

/// **T33.** `tr H = E_{y∼p} ‖∇ₓℓ(x, y)‖²`.
#[test]
fn trace_curvature_is_the_expected_input_gradient_under_the_model() {
    property(softmax(), |case, residual| t33(&case, residual));
}

/// T33 with labels drawn uniformly: unequal.
#[test]
fn counter_trace_curvature_is_the_expected_input_gradient_under_the_model() {
    property(draws(3), |draw, _| {
        let (j, f) = draw.numbers();
        let at = Setting::new(&affine(&j, &f, draw.label));
        let uniform = vec![1.0 / draw.k as f64; draw.k];
        let exact = at.value(&Penalty::CurvatureTrace);
        prop_assert!((expected_gradient(&at, &uniform) / exact - 1.0).abs() > 1e-6);
        Ok(())
    });
}

/// `½ Σ p_j p_k ‖J_j − J_k‖²`.
fn weighted(j: &Matrix, p: &[f64]) -> f64 {
    let pair = |a: usize, b: usize| p[a] * p[b] * norm(&add(&j[a], -1.0, &j[b])).powi(2);
    (0..p.len())
        .flat_map(|a| (0..p.len()).map(move |b| (a, b)))
        .map(|(a, b)| 0.5 * pair(a, b))
        .sum()
}

pub(crate) fn t34(case: &Case, residual: &Residual) -> Outcome {
    let at = Setting::new(case);
    let found = at.value(&Penalty::CurvatureTrace);
    residual.equal(
        "tr H",
        (found, weighted(&at.j, &at.p)),
        at.h_size(),
        at.units,
    )
}

/// **T34.** `tr H = ½ Σ p_j p_k ‖J_j − J_k‖²`; at uniform `p` it is `X/(2K²)`.
#[test]
fn trace_curvature_is_confidence_weighted_cross_lipschitz() {
    property(softmax(), |case, residual| t34(&case, residual));
    property(draws(2), |draw, residual| {
        let at = Setting::new(&affine(&draw.numbers().0, &vec![0.3; draw.k], draw.label));
        let (x, k) = (at.value(&Penalty::CrossLipschitz), draw.k as f64);
        residual.equal(
            "uniform",
            (at.value(&Penalty::CurvatureTrace), x / (2.0 * k * k)),
            x,
            at.units,
        )
    });
}

/// T34 for the squared error: unequal.
#[test]
fn counter_trace_curvature_is_confidence_weighted_cross_lipschitz() {
    property(squared(), |case, _| {
        let at = Setting::new(&case);
        prop_assume!(at.generic());
        let found = at.value(&Penalty::CurvatureTrace);
        prop_assert!(weighted(&at.j, &probabilities(&at.f)) < 0.999 * found);
        Ok(())
    });
}

/// `vᵀ S v`.
fn form(p: &[f64], v: &[f64]) -> f64 {
    dot(v, &times(&softmax_hessian(p), v))
}

/// **T35.** `p_min C ⪯ S ⪯ min(p_max, ½) C`, with the equality cases on classes of equal
/// probability.
#[test]
fn softmax_hessian_lies_between_multiples_of_the_centring() {
    property(draws(2), |draw, residual| {
        let ((_, f), mut random) = (draw.numbers(), draw.random());
        let p = probabilities(&f);
        let (upper, lower) = extremes(&p);
        let v = times(&centring(draw.k), &entries(draw.k, 1.0, &mut random));
        let (found, square) = (form(&p, &v), dot(&v, &v));
        residual.at_most("lower", (lower * square, found), square, 8.0 * EPSILON)?;
        residual.at_most("upper", (found, upper * square), square, 8.0 * EPSILON)?;
        for (value, bound) in [(3.0, true), (-3.0, false)] {
            let mut f = f.clone();
            (f[0], f[1]) = (value, value);
            let p = probabilities(&f);
            let (mut v, (_, least)) = (vec![0.0; draw.k], extremes(&p));
            (v[0], v[1]) = (1.0, -1.0);
            let most = p.iter().copied().fold(0.0, f64::max);
            let expected = 2.0 * if bound { most } else { least };
            residual.equal("equality", (form(&p, &v), expected), 1.0, 8.0 * EPSILON)?;
        }
        residual.equal(
            "K = 2",
            (form(&[0.5, 0.5], &[1.0, -1.0]), 1.0),
            1.0,
            4.0 * EPSILON,
        )
    });
}

/// T35 for a vector that is not orthogonal to 1: below the lower bound.
#[test]
fn counter_softmax_hessian_lies_between_multiples_of_the_centring() {
    property(draws(2), |draw, _| {
        let p = probabilities(&draw.numbers().1);
        let ones = vec![1.0; draw.k];
        prop_assert!(form(&p, &ones) < 0.5 * extremes(&p).1 * dot(&ones, &ones));
        Ok(())
    });
}

pub(crate) fn t36(case: &Case, residual: &Residual) -> Outcome {
    let at = Setting::new(case);
    let (trace, x, k) = (
        at.value(&Penalty::CurvatureTrace),
        at.value(&Penalty::CrossLipschitz),
        at.k as f64,
    );
    let (upper, lower) = extremes(&at.p);
    let size = at.a * at.a;
    residual.at_most("lower", (lower * x / (2.0 * k), trace), size, at.units)?;
    residual.at_most("upper", (trace, upper * x / (2.0 * k)), size, at.units)?;
    residual.at_most("X/4K", (trace, x / (4.0 * k)), size, at.units)
}

/// **T36.** `p_min X/2K ≤ tr H ≤ κ X/2K ≤ X/4K`; equalities at uniform `p`, and for two equally
/// likely classes.
#[test]
fn trace_curvature_is_bounded_by_cross_lipschitz_on_both_sides() {
    property(softmax(), |case, residual| t36(&case, residual));
    property(draws(2), |draw, residual| {
        let (j, _) = draw.numbers();
        let at = Setting::new(&affine(&j, &vec![0.0; draw.k], draw.label));
        let (k, x) = (draw.k as f64, at.value(&Penalty::CrossLipschitz));
        residual.equal(
            "uniform",
            (at.value(&Penalty::CurvatureTrace), x / (2.0 * k * k)),
            x,
            at.units,
        )?;
        let at = Setting::new(&affine(&j[..2].to_vec(), &[0.0; 2], 0));
        let x = at.value(&Penalty::CrossLipschitz);
        residual.equal(
            "K = 2",
            (at.value(&Penalty::CurvatureTrace), x / 8.0),
            x,
            at.units,
        )
    });
}

/// T36 for the squared error: the upper bound fails.
#[test]
fn counter_trace_curvature_is_bounded_by_cross_lipschitz_on_both_sides() {
    property(squared(), |case, _| {
        let at = Setting::new(&case);
        prop_assume!(at.generic());
        let bound = at.value(&Penalty::CrossLipschitz) / (4.0 * at.k as f64);
        prop_assert!(at.value(&Penalty::CurvatureTrace) > 1.5 * bound);
        Ok(())
    });
}

/// Number of eigenvalues that are not rounding.
fn rank(m: &Matrix) -> usize {
    let (values, _) = eigen(m);
    values
        .iter()
        .filter(|v| **v > 1e-9 * values[0].max(f64::MIN_POSITIVE))
        .count()
}

/// **T37.** `rank H = rank C J ≤ min(K − 1, D)`, for Jacobians of a chosen rank and moderate
/// logits.
#[test]
fn curvature_has_the_rank_of_the_centred_jacobian() {
    property((draws(2), 1..=6_usize), |(draw, inner), _| {
        let mut random = draw.random();
        let j = product(
            &uniform(draw.k, inner, 1.0, &mut random),
            &uniform(inner, draw.d, 1.0, &mut random),
        );
        let at = Setting::new(&affine(&j, &entries(draw.k, 1.0, &mut random), draw.label));
        let centred = gram_of(&product(&centring(draw.k), &j));
        prop_assume!(eigen(&centred).0[0] > 1e-6 && clear_rank(&centred) && clear_rank(&at.h));
        prop_assert_eq!(rank(&at.h), rank(&centred));
        prop_assert!(rank(&at.h) <= (draw.k - 1).min(draw.d));
        Ok(())
    });
}

/// Whether no eigenvalue lies between rounding and what counts.
fn clear_rank(m: &Matrix) -> bool {
    let (values, _) = eigen(m);
    values
        .iter()
        .all(|v| *v > 1e-7 * values[0] || *v < 1e-11 * values[0])
}

/// T37 for the squared error: the rank can be `K`.
#[test]
fn counter_curvature_has_the_rank_of_the_centred_jacobian() {
    property(draws(2), |draw, _| {
        let draw = Draw {
            d: draw.d.max(draw.k),
            ..draw
        };
        let (j, f) = draw.numbers();
        prop_assume!(clear_rank(&gram_of(&j)) && rank(&gram_of(&j)) == draw.k);
        let at = Setting::new(&affine_with(Loss::SquaredError, &j, &f, draw.label));
        prop_assert_eq!(rank(&at.h), draw.k);
        Ok(())
    });
}

pub(crate) fn t38(case: &Case, residual: &Residual) -> Outcome {
    let at = Setting::new(case);
    let (spectral, frobenius) = (
        at.value(&Penalty::CurvatureSpectral),
        at.value(&Penalty::CurvatureFrobenius).sqrt(),
    );
    let (trace, rank) = (
        at.value(&Penalty::CurvatureTrace),
        (at.k as f64 - 1.0).max(1.0),
    );
    let size = at.h_size() * rank;
    residual.at_most("‖H‖₂ ≤ ‖H‖_F", (spectral, frobenius), size, at.units)?;
    residual.at_most("‖H‖_F ≤ tr H", (frobenius, trace), size, at.units)?;
    residual.at_most(
        "tr H ≤ √ρ ‖H‖_F",
        (trace, rank.sqrt() * frobenius),
        size,
        at.units,
    )?;
    residual.at_most(
        "√ρ ‖H‖_F ≤ ρ ‖H‖₂",
        (rank.sqrt() * frobenius, rank * spectral),
        size,
        at.units,
    )
}

/// **T38.** `‖H‖₂ ≤ ‖H‖_F ≤ tr H ≤ √(K−1) ‖H‖_F ≤ (K−1) ‖H‖₂`: all equal for two classes, and the
/// last two for uniform `p` and orthonormal rows, where all `K − 1` eigenvalues are equal.
#[test]
fn curvature_norms_are_ordered() {
    property(softmax(), |case, residual| t38(&case, residual));
    property(draws(2), |draw, residual| {
        let rows = orthogonal(draw.k, &mut draw.random());
        let at = Setting::new(&affine(&rows, &vec![0.0; draw.k], draw.label));
        let (rank, trace) = (draw.k as f64 - 1.0, at.value(&Penalty::CurvatureTrace));
        let frobenius = at.value(&Penalty::CurvatureFrobenius).sqrt();
        residual.equal(
            "√ρ ‖H‖_F",
            (rank.sqrt() * frobenius, trace),
            trace,
            at.units,
        )?;
        residual.equal(
            "ρ ‖H‖₂",
            (rank * at.value(&Penalty::CurvatureSpectral), trace),
            trace,
            at.units,
        )
    });
}

/// T38 for an indefinite `S`: the trace is less than the Frobenius norm.
#[test]
fn counter_curvature_norms_are_ordered() {
    property(draws(2), |draw, _| {
        let (j, _) = draw.numbers();
        let mut s = identity(draw.k);
        s[0][0] = -1.0;
        let j: Matrix = j
            .iter()
            .enumerate()
            .map(|(i, row)| scaled(if i == 0 { 3.0 } else { 0.3 }, row))
            .collect();
        let h = chain(&[&transpose(&j), &s, &j]);
        prop_assume!(norm(&j[0]) > 1.0);
        prop_assert!(trace(&h) < frobenius(&h));
        Ok(())
    });
}

pub(crate) fn t39(case: &Case, residual: &Residual) -> Outcome {
    let at = Setting::new(case);
    let centred = singular_values(&product(&centring(at.k), &at.j))[0].powi(2);
    let found = at.value(&Penalty::CurvatureSpectral);
    residual.at_most(
        "κ ‖CJ‖₂²",
        (found, extremes(&at.p).0 * centred),
        at.a * at.a,
        at.units,
    )
}

/// **T39.** `λ_max(H) ≤ κ ‖C J‖₂²`; with `p_max`, an equality if the top singular vector lies on
/// classes of maximal probability, and with ½ for two equally likely classes.
#[test]
fn largest_curvature_is_at_most_half_the_squared_centred_spectral_norm() {
    property(softmax(), |case, residual| t39(&case, residual));
    property(draws(3), |draw, residual| {
        let direction = unit(&entries(draw.d, 1.0, &mut draw.random()));
        let mut f = draw.numbers().1;
        (f[0], f[1]) = (2.5, 2.5);
        let mut j = zeros(draw.k, draw.d);
        (j[0], j[1]) = (direction.clone(), scaled(-1.0, &direction));
        let at = Setting::new(&affine(&j, &f, draw.label));
        residual.equal(
            "p_max",
            (at.value(&Penalty::CurvatureSpectral), 2.0 * at.p[0]),
            2.0,
            at.units,
        )?;
        let at = Setting::new(&affine(&j[..2].to_vec(), &[0.1, 0.1], 0));
        residual.equal(
            "½",
            (at.value(&Penalty::CurvatureSpectral), 1.0),
            1.0,
            at.units,
        )
    });
}

/// T39 for the squared error: the bound fails.
#[test]
fn counter_largest_curvature_is_at_most_half_the_squared_centred_spectral_norm() {
    property(squared(), |case, _| {
        let at = Setting::new(&case);
        prop_assume!(at.generic());
        let centred = singular_values(&product(&centring(at.k), &at.j))[0].powi(2);
        prop_assert!(at.value(&Penalty::CurvatureSpectral) > 0.9 * centred);
        Ok(())
    });
}

/// **T40.** Squared error: `H = JᵀJ`, and its norms are those of `J`.
#[test]
fn squared_error_curvature_is_the_jacobian_gram() {
    property(squared(), |case, residual| {
        let at = Setting::new(&case);
        let size = at.a * at.a;
        let exact = product(&transpose(&at.j), &at.j).concat();
        residual.equal_all("JᵀJ", &at.h.concat(), &exact, size, at.units)?;
        let pairs = [
            (Penalty::CurvatureTrace, at.value(&Penalty::Jacobian), size),
            (
                Penalty::CurvatureSpectral,
                at.value(&Penalty::JacobianSpectral),
                size,
            ),
            (
                Penalty::CurvatureFrobenius,
                inner(&at.gram, &at.gram),
                size * size,
            ),
        ];
        for (penalty, expected, size) in pairs {
            residual.equal(
                penalty.name(),
                (at.value(&penalty), expected),
                size,
                at.units,
            )?;
        }
        Ok(())
    });
}

/// T40 for a loss without the factor ½: twice the value.
#[test]
fn counter_squared_error_curvature_is_the_jacobian_gram() {
    property(squared(), |case, _| {
        let at = Setting::new(&case);
        prop_assume!(at.generic());
        let twice = trace(&chain(&[
            &transpose(&at.j),
            &multiple(2.0, &identity(at.k)),
            &at.j,
        ]));
        prop_assert!((twice / at.value(&Penalty::CurvatureTrace) - 2.0).abs() < 1e-9);
        Ok(())
    });
}

/// The two bounds of T41 on `KL / δᵀHδ` for a range `ρ` of `Jδ`.
fn fisher_bounds(range: f64) -> (f64, f64) {
    let square = range * range;
    (
        ((-range).exp_m1() + range) / square,
        (range.exp_m1() - range) / square,
    )
}

pub(crate) fn t41(case: &Case, residual: &Residual) -> Outcome {
    let at = Setting::new(case);
    let v = unit(&entries(at.d, 1.0, &mut case.random()));
    let step =
        next_kink(&case.graph, &case.graph.at(at.x()), &v).map_or(1.0, |(step, _)| step.min(1.0));
    let delta = scaled(step, &v);
    let e = times(&at.j, &delta);
    let range =
        e.iter().copied().fold(f64::MIN, f64::max) - e.iter().copied().fold(f64::MAX, f64::min);
    let metric = dot(&delta, &times(&at.h, &delta));
    prop_assume!(range > 1e-2 && metric > 1e-6);
    let there = case.graph.logits(&add(at.x(), 1.0, &delta));
    let found = divergence(&at.f, &there);
    let (lower, upper) = fisher_bounds(range);
    let size = 1.0 + case.sizes().0;
    residual.at_most("lower", (lower * metric, found), size, at.units)?;
    residual.at_most("upper", (found, upper * metric), size, at.units)
}

/// **T41.** `KL(p(x) ‖ p(x+δ)) / δᵀHδ` lies between `(e^{−ρ} − 1 + ρ)/ρ²` and `(e^ρ − 1 − ρ)/ρ²`,
/// which tend to ½.
#[test]
fn curvature_is_the_fisher_metric_of_the_prediction() {
    property(labels(), |case, residual| t41(&case, residual));
    property(draws(2), |draw, residual| {
        let (j, f) = draw.numbers();
        let at = Setting::new(&affine(&j, &f, draw.label));
        let e = scaled(
            1e-3,
            &times(&j, &unit(&entries(draw.d, 1.0, &mut draw.random()))),
        );
        let metric = dot(&e, &times(&at.s, &e));
        prop_assume!(metric > 1e-9);
        residual.equal(
            "½ δᵀHδ",
            (divergence(&f, &add(&f, 1.0, &e)), 0.5 * metric),
            metric,
            2e-3,
        )
    });
}

/// T41 with a step across a kink: a ReLU that is inactive at `x` and active at `x + δ`, so that
/// `H = 0` here.
#[test]
fn counter_curvature_is_the_fisher_metric_of_the_prediction() {
    property(0.01..1.0_f64, |start, _| {
        let layers = vec![
            Op::Gate {
                from: 0,
                kind: GateKind::Relu,
            },
            Op::Dense {
                from: 0,
                weight: vec![vec![1.0], vec![0.0]],
                bias: None,
            },
        ];
        let mut case = affine(&vec![vec![1.0], vec![0.0]], &[0.0, 0.0], 0);
        (case.graph, case.inputs) = (Graph::chain(1, layers), vec![vec![-start]]);
        let at = Setting::new(&case);
        let found = divergence(&at.f, &case.graph.logits(&[start]));
        prop_assert!(at.h[0][0] == 0.0 && found > 1e-6);
        Ok(())
    });
}
