//! Norms of the Jacobian `J`, all of them functions of `G = J Jᵀ`.

use ndarray::{ArrayView1, ArrayView2};

use super::gram::{GramDerivative, GramPoint, add_outer};
use crate::error::Result;

/// `‖J‖_F² = tr G`; `∂/∂G = I`.
pub(super) fn frobenius(point: &GramPoint, derivative: Option<&mut GramDerivative>) -> f64 {
    if let Some(bar) = derivative {
        let weight = bar.weight;
        bar.g.diag_mut().iter_mut().for_each(|g| *g += weight);
    }
    point.g.diag().sum()
}

/// `‖J‖₂² = λ_max(G)`; `∂/∂G = u uᵀ` with its unit eigenvector.
pub(super) fn spectral(point: &GramPoint, derivative: Option<&mut GramDerivative>) -> Result<f64> {
    let eigen = point.eigen()?;
    if let Some(bar) = derivative {
        let u = ArrayView1::from(eigen.vector(0));
        add_outer(&mut bar.g, bar.weight, u, u);
    }
    Ok(eigen.values[0].max(0.0))
}

/// `‖J‖_* = Σ √λ_i(G)`; `∂/∂G = ½ Σ λ_i^{−½} u_i u_iᵀ` over the eigenvalues that are not 0 to rounding:
/// singular values below about `√(K ε) ‖J‖₂` count as 0.
pub(super) fn nuclear(point: &GramPoint, derivative: Option<&mut GramDerivative>) -> Result<f64> {
    let eigen = point.eigen()?;
    let count = eigen.nonzero(point.rank, point.epsilon);
    let roots = eigen.values[..count].iter().map(|value| value.sqrt());
    if let Some(bar) = derivative {
        for (i, root) in roots.clone().enumerate() {
            let u = ArrayView1::from(eigen.vector(i));
            add_outer(&mut bar.g, 0.5 * bar.weight / root, u, u);
        }
    }
    Ok(roots.sum())
}

/// `(K/m) Σ_i v_iᵀ G v_i` for the `m` rows of `v`; `∂/∂G = (K/m) Σ_i v_i v_iᵀ`.
pub(super) fn projected(
    point: &GramPoint,
    v: ArrayView2<f64>,
    derivative: Option<&mut GramDerivative>,
) -> f64 {
    let scale = point.outputs() as f64 / v.nrows() as f64;
    if let Some(bar) = derivative {
        for v in v.rows() {
            add_outer(&mut bar.g, scale * bar.weight, v, v);
        }
    }
    scale
        * v.rows()
            .into_iter()
            .map(|v| v.dot(&point.g.dot(&v)))
            .sum::<f64>()
}

/// `‖S J‖_F² = tr(S G S)`; `∂/∂G = S²`, `∂/∂S = S G + G S`.
pub(super) fn probabilities(point: &GramPoint, derivative: Option<&mut GramDerivative>) -> f64 {
    if let Some(bar) = derivative {
        bar.g
            .scaled_add(bar.weight, &point.times_s(point.s().view()));
        bar.s.scaled_add(bar.weight, point.gs());
        bar.s.scaled_add(bar.weight, &point.gs().t());
    }
    point.sgs().diag().sum()
}
