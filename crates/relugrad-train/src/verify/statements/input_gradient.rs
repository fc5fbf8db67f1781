//! T46 to T51: the input gradient and the other families.

use ndarray::Array1;
use relugrad::{Penalty, Result, Scalar};

use super::super::point::{Point, norm};
use super::{Check, Scope, Statement, excess, relative, worst};

#[rustfmt::skip]
pub(super) fn statements<T: Scalar>() -> Vec<Statement<T>> {
    vec![
        Statement::new("T46", Scope::Softmax, 2.0, mean_difference, "‖∇ₓℓ‖² + tr H = Σ p_k ‖J_k − J_y‖²"),
        Statement::new("T47", Scope::Softmax, 2.0, average, "∇ₓℓ = Σ p_k (J_k − J_y), ‖∇ₓℓ‖² ≤ (1 − p_y) Σ p_k ‖J_k − J_y‖²"),
        Statement::new("T48", Scope::Softmax, 2.0, residual_bound, "‖∇ₓℓ‖² ≤ ‖p − e_y‖² ‖C J‖₂², ‖p − e_y‖² ≤ 2 (1 − p_y)²"),
        Statement::new("T49", Scope::Softmax, 2.0, odds, "‖H‖₂ ≥ p_y / (1 − p_y) ‖∇ₓℓ‖²"),
        Statement::new("T50", Scope::TwoLogits, 2.0, two_classes, "with two classes every penalty is one number times a confidence"),
        Statement::new("T51", Scope::OneLogit, 2.0, single_logit, "a single logit behaves as two opposite ones"),
    ]
}

/// `Σ p_k ‖J_k − J_y‖²`.
fn squared_differences<T: Scalar>(at: &Point<T>) -> f64 {
    let label = at.j.row(at.label());
    let terms = at.j.rows().into_iter().zip(&at.at.p);
    terms
        .map(|(row, p)| p * norm(&(&row - &label)).powi(2))
        .sum()
}

fn scale<T: Scalar>(at: &Point<T>) -> f64 {
    at.gradient_size().powi(2) + at.curvature_size()
}

fn mean_difference<T: Scalar>(at: &Point<T>) -> Result<Check> {
    let sum = at.penalty(&Penalty::InputGradient)? + at.penalty(&Penalty::CurvatureTrace)?;
    Ok(worst([relative(sum - squared_differences(at), scale(at))]))
}

fn average<T: Scalar>(at: &Point<T>) -> Result<Check> {
    let label = at.j.row(at.label());
    let mut mean = Array1::zeros(at.x.len());
    for (row, &p) in at.j.rows().into_iter().zip(&at.at.p) {
        mean.scaled_add(p, &(&row - &label));
    }
    let squared = at.penalty(&Penalty::InputGradient)?;
    let bound = at.at.missing * squared_differences(at);
    Ok(worst([
        relative(norm(&(&at.g - &mean)), at.gradient_size()),
        excess(squared, bound, at.gradient_size().powi(2)),
    ]))
}

fn residual_bound<T: Scalar>(at: &Point<T>) -> Result<Check> {
    let (r, missing) = (norm(&at.at.r).powi(2), at.at.missing);
    let bound = r * at.centred_spectral()?;
    let found = at.penalty(&Penalty::InputGradient)?;
    let limit = 2.0 * missing * missing;
    Ok(worst([
        excess(found, bound, at.gradient_size().powi(2)),
        excess(r, limit, limit),
    ]))
}

/// Rejected where the label is certain to the last bit, and the odds are infinite.
fn odds<T: Scalar>(at: &Point<T>) -> Result<Check> {
    let odds = at.at.p[at.label()] / at.at.missing;
    if !odds.is_finite() {
        return Ok(Check::Rejected);
    }
    let bound = odds * at.penalty(&Penalty::InputGradient)?;
    let found = at.penalty(&Penalty::CurvatureSpectral)?;
    // Squares of small gradients are rounded as the smallest numbers of full accuracy are, and the
    // odds magnify that.
    let squared = at.gradient_size().powi(2) + f64::MIN_POSITIVE;
    let scale = at.curvature_size() + odds * squared;
    Ok(worst([excess(bound, found, scale)]))
}

/// With `q = J₁ − J₂`: `‖g‖² = (1 − p_y)² ‖q‖²`, cross-Lipschitz `2 ‖q‖²`, all norms of `H`
/// `p₁ p₂ ‖q‖²`, and `‖J‖_F² ≥ ½ ‖q‖²`.
fn two_classes<T: Scalar>(at: &Point<T>) -> Result<Check> {
    if at.curvature_underflows() {
        return Ok(Check::Rejected);
    }
    let q = norm(&(&at.j.row(0) - &at.j.row(1))).powi(2);
    let jacobian = at.jacobian_size().powi(2);
    let weight = at.at.s[(0, 0)];
    let curvature = at.curvature_size();
    let gradient = at.missing_squared() * q;
    Ok(worst([
        relative(
            at.penalty(&Penalty::InputGradient)? - gradient,
            at.gradient_size().powi(2),
        ),
        relative(
            at.penalty(&Penalty::CrossLipschitz)? - 2.0 * q,
            4.0 * jacobian,
        ),
        relative(
            at.penalty(&Penalty::CurvatureTrace)? - weight * q,
            curvature,
        ),
        relative(
            at.penalty(&Penalty::CurvatureFrobenius)?.max(0.0).sqrt() - weight * q,
            curvature,
        ),
        relative(
            at.penalty(&Penalty::CurvatureSpectral)? - weight * q,
            curvature,
        ),
        excess(0.5 * q, at.penalty(&Penalty::Jacobian)?, jacobian),
    ]))
}

/// `‖g‖² = r² ‖J‖²`, and all norms of `H` are `σ(1 − σ) ‖J‖²`.
fn single_logit<T: Scalar>(at: &Point<T>) -> Result<Check> {
    if at.curvature_underflows() {
        return Ok(Check::Rejected);
    }
    let jacobian = at.jacobian_norm().powi(2);
    let (gradient, curvature) = (at.missing_squared() * jacobian, at.at.s[(0, 0)] * jacobian);
    let sizes = (at.gradient_size().powi(2), at.curvature_size());
    let of_gradient = |found: f64| relative(found - gradient, sizes.0);
    let of_curvature = |found: f64| relative(found - curvature, sizes.1);
    Ok(worst([
        of_gradient(at.penalty(&Penalty::InputGradient)?),
        of_curvature(at.penalty(&Penalty::CurvatureTrace)?),
        of_curvature(at.penalty(&Penalty::CurvatureFrobenius)?.max(0.0).sqrt()),
        of_curvature(at.penalty(&Penalty::CurvatureSpectral)?),
    ]))
}

impl<T> Point<'_, T> {
    /// `(1 − p_y)²`.
    fn missing_squared(&self) -> f64 {
        self.at.missing * self.at.missing
    }
}
