//! T16 to T25: every penalty is the function of `J`, `r` and `S` that defines it.

use relugrad::{Penalty, Result, Scalar};

use super::super::point::{Point, largest_eigenvalue, norm};
use super::{Check, Scope, Statement, excess, relative, worst};

#[rustfmt::skip]
pub(super) fn statements<T: Scalar>() -> Vec<Statement<T>> {
    vec![
        Statement::new("T16-T25", Scope::Any, 2.0, definitions, "every penalty of J and the logits is what its definition says"),
        Statement::new("T31", Scope::Any, 1.0, nuclear, "‖J‖_F ≤ ‖J‖_* ≤ √K ‖J‖_F"),
    ]
}

fn definitions<T: Scalar>(at: &Point<T>) -> Result<Check> {
    use Penalty::*;
    let (g, j, s) = (&at.g, at.jacobian_norm(), &at.at.s);
    let gs = at.gram.dot(s);
    let sgs = s.dot(&gs);
    let squared = norm(g).powi(2);
    let (g_size, h_size) = (at.gradient_size(), at.curvature_size());
    let j_size = at.jacobian_size().powi(2);
    let largest = g.iter().fold(0.0, |a: f64, b| a.max(b.abs()));
    let sum: f64 = g.iter().map(|g| g.abs()).sum();
    let expected = [
        (InputGradient, squared, g_size.powi(2)),
        (InputGradientL2, norm(g), g_size),
        (InputGradientL1, sum, g_size * (g.len() as f64).sqrt()),
        (InputGradientLinf, largest, g_size),
        (Jacobian, j * j, j_size),
        (JacobianSpectral, largest_eigenvalue(&at.gram)?, j_size),
        // `tr S` twice: the products with `S` keep the digits of a nearly certain sample.
        (
            JacobianProbabilities,
            sgs.diag().sum(),
            h_size * s.diag().sum(),
        ),
        (CurvatureTrace, gs.diag().sum(), h_size),
    ];
    let mut residuals = Vec::new();
    for (penalty, value, scale) in expected {
        residuals.push(relative(at.penalty(&penalty)? - value, scale));
    }
    if at.curvature_underflows() {
        return Ok(worst(residuals));
    }
    let frobenius = at.penalty(&CurvatureFrobenius)? - (&sgs * &at.gram).sum();
    residuals.push(relative(frobenius, h_size.powi(2)));
    if let Some(z) = at.gradient_direction() {
        let hz = at.j.t().dot(&s.dot(&at.j.dot(&z)));
        // The quotient first: the product underflows where a sample is saturated.
        let scale = h_size.powi(2) * (g_size / norm(g));
        let found = at.penalty(&CurvatureDirectional)?;
        residuals.push(relative(found - norm(&hz).powi(2), scale));
    }
    Ok(worst(residuals))
}

fn nuclear<T: Scalar>(at: &Point<T>) -> Result<Check> {
    let (found, size) = (at.penalty(&Penalty::JacobianNuclear)?, at.jacobian_norm());
    let (k, scale) = (at.outputs() as f64, at.jacobian_size().powi(2));
    // Squares, because rounding adds to the eigenvalues of the Gram matrix and not to their roots.
    let (found, size) = (found * found, size * size);
    Ok(worst([
        excess(size, found, scale),
        excess(found, k * size, k * scale),
    ]))
}
