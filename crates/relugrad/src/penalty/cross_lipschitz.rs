//! Differences of the logits' gradients.

use super::catalogue::CatalogueEntry;
use super::gram::{GramAdjoint, GramPenalty, GramPoint};
use super::{Described, Penalty, Promises};
use crate::error::Result;

pub(super) static ENTRY: CatalogueEntry = CatalogueEntry {
    name: "cross-lipschitz",
    formula: "Σ_jk ‖J_j − J_k‖²",
    meaning: "how differently the logits of any two classes change with the input; common changes do not count",
    weight: 0.0003,
    options: &[],
    make: |_| Penalty::CrossLipschitz,
};

/// `Σ_{j,k} ‖J_j − J_k‖² = 2K tr(C G) = 2K tr G − 2 · 1ᵀG1`; `∂/∂G = 2K C = 2K I − 2 · 11ᵀ`.
#[derive(Debug)]
pub(super) struct CrossLipschitz;

impl Described for CrossLipschitz {
    fn name(&self) -> &str {
        ENTRY.name
    }

    fn promises(&self) -> Promises {
        Promises::logit_differences().with_degree(2).of_jacobian()
    }

    fn instead_of_classes(&self) -> Option<&'static str> {
        Some("jacobian")
    }
}

impl GramPenalty for CrossLipschitz {
    fn evaluate(&self, at: &GramPoint, adjoint: Option<&mut GramAdjoint>) -> Result<f64> {
        let k = at.outputs() as f64;
        if let Some(adjoint) = adjoint {
            adjoint.add_gram_ones(-2.0);
            adjoint.add_gram_identity(2.0 * k);
        }
        Ok(2.0 * k * at.trace() - 2.0 * at.gram().iter().sum::<f64>())
    }
}
