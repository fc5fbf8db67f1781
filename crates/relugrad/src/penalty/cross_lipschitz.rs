//! Differences of the logits' gradients.

use super::gram::{GramDerivative, GramPoint};

/// `Σ_{j,k} ‖J_j − J_k‖² = 2K tr(C G) = 2K tr G − 2 · 1ᵀG1`; `∂/∂G = 2K C = 2K I − 2 · 11ᵀ`.
pub(super) fn squared(point: &GramPoint, derivative: Option<&mut GramDerivative>) -> f64 {
    let k = point.outputs() as f64;
    if let Some(bar) = derivative {
        let weight = bar.weight;
        bar.g.iter_mut().for_each(|g| *g -= 2.0 * weight);
        let diagonal = bar.g.iter_mut().step_by(point.outputs() + 1);
        diagonal.for_each(|g| *g += 2.0 * k * weight);
    }
    2.0 * k * point.trace() - 2.0 * point.g.iter().sum::<f64>()
}
