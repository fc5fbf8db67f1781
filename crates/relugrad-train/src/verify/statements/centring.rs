//! T42 to T44: what the loss cannot see of the logits.

use ndarray::Axis;
use relugrad::{Penalty, Result, Scalar};

use super::super::point::{Point, norm};
use super::{Check, Scope, Statement, excess, relative, worst};

#[rustfmt::skip]
pub(super) fn statements<T: Scalar>() -> Vec<Statement<T>> {
    vec![
        Statement::new("T42", Scope::Softmax, 1.0, centred, "cross-Lipschitz = 2K ‖C J‖² ≤ 2K ‖J‖²"),
        Statement::new("T43", Scope::Softmax, 1.0, minimum, "cross-Lipschitz = min over rows c of 2K ‖J − 1cᵀ‖²"),
        Statement::new("T44", Scope::Softmax, 2.0, common_function, "a function added to all logits changes only the Jacobian penalty"),
    ]
}

fn centred<T: Scalar>(at: &Point<T>) -> Result<Check> {
    let k = at.outputs() as f64;
    let found = at.penalty(&Penalty::CrossLipschitz)?;
    let jacobian = 2.0 * k * at.penalty(&Penalty::Jacobian)?;
    let expected = 2.0 * k * norm(&at.centred()).powi(2);
    let scale = 2.0 * k * at.jacobian_size().powi(2);
    Ok(worst([
        relative(found - expected, scale),
        excess(found, jacobian, scale),
    ]))
}

fn minimum<T: Scalar>(at: &Point<T>) -> Result<Check> {
    let k = at.outputs() as f64;
    let found = at.penalty(&Penalty::CrossLipschitz)?;
    let scale = 2.0 * k * at.jacobian_size().powi(2);
    let mean = at.j.mean_axis(Axis(0)).expect("there are logits");
    let random = at.unit(at.x.len(), &mut at.random("minimum")) * at.jacobian_norm() / k.sqrt();
    let around = |c| 2.0 * k * norm(&(&at.j - c)).powi(2);
    Ok(worst([
        relative(found - around(&mean), scale),
        excess(found, around(&random), scale),
        excess(found, around(&(&mean + &(1e-3 * &random))), scale),
    ]))
}

/// The claims at `f` are what the definitions give for `f + φ(x) 1` with a random gradient of `φ`.
fn common_function<T: Scalar>(at: &Point<T>) -> Result<Check> {
    let k = at.outputs() as f64;
    let unit = at.unit(at.x.len(), &mut at.random("common function"));
    let j = &at.j + &(unit * at.jacobian_norm() / k.sqrt());
    let (r, s, size) = (&at.at.r, &at.at.s, norm(&j).max(at.jacobian_size()));
    let mean = j.mean_axis(Axis(0)).expect("there are logits");
    let gradient = norm(&j.t().dot(r)).powi(2);
    let trace = (&j.dot(&j.t()) * s).sum();
    let lipschitz = 2.0 * k * norm(&(&j - &mean)).powi(2);
    let expected = [
        (Penalty::InputGradient, gradient, (size * norm(r)).powi(2)),
        (
            Penalty::CurvatureTrace,
            trace,
            size.powi(2) * s.diag().sum(),
        ),
        (Penalty::CrossLipschitz, lipschitz, 2.0 * k * size.powi(2)),
    ];
    let mut residuals = Vec::new();
    for (penalty, value, scale) in expected {
        residuals.push(relative(at.penalty(&penalty)? - value, scale));
    }
    Ok(worst(residuals))
}
