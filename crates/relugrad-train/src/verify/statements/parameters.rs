//! T59 and T60: what the parameters do to penalties of the Jacobian.

use ndarray::Array1;
use relugrad::{Penalty, Result, Scalar};

use super::super::point::{Point, norm, wide};
use super::{Check, Scope, Statement, relative, worst};

#[rustfmt::skip]
pub(super) fn statements<T: Scalar>() -> Vec<Statement<T>> {
    vec![
        Statement::new("T59", Scope::Biases, 0.0, biases, "∂‖J‖²/∂b = 0 for every bias, as bits"),
        Statement::new("T60", Scope::Chain, 2.0, euler, "⟨W, ∂φ/∂W⟩ = 2 φ for every layer, φ = ‖J‖² and cross-Lipschitz"),
    ]
}

/// One of the network's parameter arrays, flat, and the gradient of a penalty in it.
struct Part {
    name: String,
    value: Array1<f64>,
    slope: Array1<f64>,
}

fn parts<T: Scalar>(at: &Point<T>, penalty: &Penalty) -> Result<Vec<Part>> {
    let gradient = at.claims().parameter_gradient(at.x, penalty)?;
    let parameters = at.subject.network.parameters();
    let layout = parameters.layout().iter();
    let parts = layout.map(|info| Part {
        name: info.name().to_owned(),
        value: wide(parameters.values()[info.range()].iter().copied()),
        slope: wide(gradient[info.range()].iter().copied()),
    });
    Ok(parts.collect())
}

fn biases<T: Scalar>(at: &Point<T>) -> Result<Check> {
    let parts = parts(at, &Penalty::Jacobian)?;
    let biases = parts.iter().filter(|part| part.name.ends_with("bias"));
    let mut slopes = biases.map(|part| norm(&part.slope)).peekable();
    if slopes.peek().is_none() {
        return Ok(Check::Rejected);
    }
    Ok(worst(slopes))
}

fn euler<T: Scalar>(at: &Point<T>) -> Result<Check> {
    let mut residuals = Vec::new();
    let pairs = 2.0 * at.outputs() as f64;
    for (penalty, times) in [(Penalty::Jacobian, 1.0), (Penalty::CrossLipschitz, pairs)] {
        let value = at.penalty(&penalty)?;
        // To this the terms of `⟨W, ∂φ/∂W⟩` add up before anything cancels.
        let size = times * at.jacobian_size().powi(2);
        for part in parts(at, &penalty)? {
            if part.name.ends_with("weight") {
                let scale = norm(&part.value) * norm(&part.slope) + 2.0 * value.max(size);
                let product = part.value.dot(&part.slope);
                residuals.push(relative(product - 2.0 * value, scale));
            }
        }
    }
    if residuals.is_empty() {
        return Ok(Check::Rejected);
    }
    Ok(worst(residuals))
}
