//! The frugal baseline, and how far a result is from the truth.

use ndarray::{Array3, Axis};
use relugrad::{Result, Scalar};

use crate::Problem;

/// The Jacobian by forward differences with the unmoved logits computed once; `[B, K, D]`.
///
/// Cost: `D + 1` forward passes, half of the engine's forward differences, which compute the logits
/// anew for each column. The inputs are moved in place.
///
/// # Errors
/// Those of [`Network::forward`](relugrad::Network::forward).
pub fn forward_jacobian<T: Scalar>(problem: &Problem<T>, step: f64) -> Result<Array3<T>> {
    let (network, h) = (&problem.network, T::from_f64(step));
    let unmoved = network.forward(problem.inputs.view())?;
    let mut moved = problem.inputs.clone();
    let (samples, d) = moved.dim();
    let mut jacobian = Array3::zeros((samples, network.outputs(), d));
    for feature in 0..d {
        moved.column_mut(feature).mapv_inplace(|x| x + h);
        let column = (network.forward(moved.view())? - &unmoved) / h;
        jacobian.index_axis_mut(Axis(2), feature).assign(&column);
        let restored = problem.inputs.column(feature);
        moved.column_mut(feature).assign(&restored);
    }
    Ok(jacobian)
}

/// `‖found − truth‖₂ / ‖truth‖₂` of two vectors of one length.
pub fn relative_error<T: Scalar>(
    found: impl IntoIterator<Item = T>,
    truth: impl IntoIterator<Item = f64>,
) -> f64 {
    let (mut error, mut norm) = (0.0, 0.0);
    for (found, truth) in found.into_iter().zip(truth) {
        error += (found.into_f64() - truth).powi(2);
        norm += truth * truth;
    }
    (error / norm).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SMALL;

    #[test]
    fn the_baseline_is_near_the_exact_jacobian() {
        let problem = Problem::<f64>::new(SMALL);
        let trace = problem.network.trace(problem.inputs.view()).unwrap();
        let exact = trace.jacobian().unwrap();
        let found = forward_jacobian(&problem, 1e-8).unwrap();
        assert!(relative_error(found, exact.iter().copied()) < 1e-6);
    }

    #[test]
    fn a_derivative_wrong_by_a_thousandth_shows() {
        let truth = [3.0, -4.0];
        let found = relative_error([3.0 * 1.001, -4.0 * 1.001], truth);
        assert!((found - 1e-3).abs() < 1e-12);
        assert_eq!(relative_error([3.0f32, -4.0], truth), 0.0);
    }
}
