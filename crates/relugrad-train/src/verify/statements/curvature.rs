//! T33 to T41: the curvature of the loss.

use relugrad::{Loss, Penalty, Result, Scalar, Targets};

use super::super::logits::divergence;
use super::super::point::{Point, largest_eigenvalue, narrow, norm, wide};
use super::{Check, Scope, Statement, excess, relative, worst};

#[rustfmt::skip]
pub(super) fn statements<T: Scalar>() -> Vec<Statement<T>> {
    vec![
        Statement::new("T33", Scope::Softmax, 2.0, expected_gradient, "tr H = Σ p_y ‖∇ₓℓ(x, y)‖² over the labels y"),
        Statement::new("T34", Scope::Softmax, 2.0, weighted_differences, "tr H = ½ Σ p_j p_k ‖J_j − J_k‖²"),
        Statement::new("T36", Scope::Softmax, 1.0, trace_bound, "tr H ≤ cross-Lipschitz / 4K"),
        Statement::new("T37", Scope::Softmax, 1.0, rank, "rank H ≤ K − 1"),
        Statement::new("T38", Scope::Softmax, 1.0, norms, "‖H‖₂ ≤ ‖H‖_F ≤ tr H ≤ √(K−1) ‖H‖_F ≤ (K−1) ‖H‖₂"),
        Statement::new("T39", Scope::Softmax, 1.0, spectral_bound, "‖H‖₂ ≤ ½ ‖C J‖₂²"),
        Statement::new("T40", Scope::Any, 2.0, squared_error, "for the squared error H = JᵀJ"),
        Statement::new("T41", Scope::Softmax, 2.0, fisher, "KL(p(x) ‖ p(x + δ)) = ½ δᵀHδ up to O(‖δ‖³), with bounds"),
    ]
}

fn expected_gradient<T: Scalar>(at: &Point<T>) -> Result<Check> {
    let (mut mean, loss) = (0.0, &at.subject.loss);
    for (label, p) in at.at.p.iter().enumerate() {
        let g = wide(
            at.claims()
                .input_gradient(at.x, loss, &Targets::Classes(&[label]))?,
        );
        mean += p * norm(&g).powi(2);
    }
    let found = at.penalty(&Penalty::CurvatureTrace)?;
    Ok(worst([relative(found - mean, at.curvature_size())]))
}

/// `Σ p_j p_k ‖J_j − J_k‖²` over ordered pairs.
fn pairs<T>(at: &Point<T>) -> f64 {
    let (rows, p) = (at.j.nrows(), &at.at.p);
    let pair = |j: usize, k: usize| p[j] * p[k] * norm(&(&at.j.row(j) - &at.j.row(k))).powi(2);
    (0..rows)
        .map(|j| (0..rows).map(|k| pair(j, k)).sum::<f64>())
        .sum()
}

fn weighted_differences<T: Scalar>(at: &Point<T>) -> Result<Check> {
    let found = at.penalty(&Penalty::CurvatureTrace)?;
    let error = found - 0.5 * pairs(at);
    Ok(worst([relative(error, at.curvature_size())]))
}

fn trace_bound<T: Scalar>(at: &Point<T>) -> Result<Check> {
    let pairs = 4.0 * at.outputs() as f64;
    let bound = at.penalty(&Penalty::CrossLipschitz)? / pairs;
    let found = at.penalty(&Penalty::CurvatureTrace)?;
    let scale = 0.5 * at.jacobian_size().powi(2);
    Ok(worst([excess(found, bound, scale)]))
}

fn rank<T: Scalar>(at: &Point<T>) -> Result<Check> {
    let values = at.claims().hessian_eigenvalues(at.x, &at.subject.loss)?;
    // With fewer inputs than logits there are no more eigenvalues than K − 1.
    let Some(beyond) = values
        .as_slice()
        .and_then(|all| all.get(at.outputs() - 1..))
    else {
        return Ok(Check::Rejected);
    };
    if beyond.is_empty() {
        return Ok(Check::Rejected);
    }
    let beyond = beyond.iter();
    Ok(worst(
        beyond.map(|&value| relative(value, at.curvature_size())),
    ))
}

/// `‖H‖₂`, `‖H‖_F`, `tr H`; none of them depends on the label.
fn sizes<T: Scalar>(at: &Point<T>, loss: &Loss) -> Result<[f64; 3]> {
    let penalty = |penalty| {
        at.claims()
            .penalty(at.x, loss, &Targets::Classes(&[0]), &penalty)
    };
    Ok([
        penalty(Penalty::CurvatureSpectral)?,
        penalty(Penalty::CurvatureFrobenius)?.max(0.0).sqrt(),
        penalty(Penalty::CurvatureTrace)?,
    ])
}

fn norms<T: Scalar>(at: &Point<T>) -> Result<Check> {
    if at.curvature_underflows() {
        return Ok(Check::Rejected);
    }
    let [spectral, frobenius, trace] = sizes(at, &at.subject.loss)?;
    let (rank, scale) = ((at.outputs() - 1) as f64, at.curvature_size());
    let values = at.claims().hessian_eigenvalues(at.x, &at.subject.loss)?;
    Ok(worst([
        excess(spectral, frobenius, scale),
        excess(frobenius, trace, scale),
        excess(trace, rank.sqrt() * frobenius, rank * scale),
        excess(frobenius, rank.sqrt() * spectral, rank * scale),
        relative(values.sum() - trace, scale),
        relative(values[0] - spectral, scale),
    ]))
}

fn spectral_bound<T: Scalar>(at: &Point<T>) -> Result<Check> {
    let bound = 0.5 * at.centred_spectral()?;
    let found = at.penalty(&Penalty::CurvatureSpectral)?;
    let scale = 0.5 * at.jacobian_size().powi(2);
    Ok(worst([excess(found, bound, scale)]))
}

fn squared_error<T: Scalar>(at: &Point<T>) -> Result<Check> {
    let [spectral, frobenius, trace] = sizes(at, &Loss::SquaredError)?;
    let size = at.jacobian_size().powi(2);
    Ok(worst([
        relative(trace - at.penalty(&Penalty::Jacobian)?, size),
        relative(frobenius - norm(&at.gram), size),
        relative(spectral - largest_eigenvalue(&at.gram)?, size),
    ]))
}

/// `(e^s − 1 − s) / s²`.
pub(super) fn psi(s: f64) -> f64 {
    if s.abs() < 1e-2 {
        0.5 + s / 6.0 + s * s / 24.0 + s.powi(3) / 120.0 + s.powi(4) / 720.0
    } else {
        (s.exp_m1() - s) / (s * s)
    }
}

/// Half way to the first kink along a random direction, but not so far that the logits move by more
/// than 1.
fn fisher<T: Scalar>(at: &Point<T>) -> Result<Check> {
    if at.on_kink() {
        return Ok(Check::Rejected);
    }
    let v = at.unit(at.x.len(), &mut at.random("fisher"));
    let near = at.first_kink(&v).map_or(1.0, |(step, _)| 0.5 * step);
    let speed = norm(&at.j.dot(&v));
    let there = at.moved(&v, near.min(1.0 / speed.max(f64::MIN_POSITIVE)))?;
    let change = &there.f - &at.f;
    let ends = change.iter().fold((f64::MAX, f64::MIN), |(low, high), &e| {
        (low.min(e), high.max(e))
    });
    let range = ends.1 - ends.0;
    let loss = &at.subject.loss;
    let delta = wide(narrow::<T>(&there.delta));
    let hd = wide(
        at.claims()
            .hessian_times(at.x, loss, narrow(&delta).view())?,
    );
    let form = delta.dot(&hd);
    let found = divergence(&at.f, &there.f);
    let scale = at.loss_size(&there) + form;
    Ok(worst([
        excess(psi(-range) * form, found, scale),
        excess(found, psi(range) * form, scale),
    ]))
}
