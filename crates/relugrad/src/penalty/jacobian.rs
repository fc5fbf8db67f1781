//! Norms of the Jacobian `J`, all of them functions of `G = J Jᵀ`.

use super::gram::{GramDerivative, GramPoint, add, add_outer, dot, trace, transposed};
use crate::buffer::Buffer;
use crate::error::Result;
use crate::product::at_b_serial;

/// `‖J‖_F² = tr G`; `∂/∂G = I`.
pub(super) fn frobenius(point: &GramPoint, derivative: Option<&mut GramDerivative>) -> f64 {
    if let Some(bar) = derivative {
        let diagonal = bar.g.iter_mut().step_by(point.outputs() + 1);
        diagonal.for_each(|g| *g += bar.weight);
    }
    point.trace()
}

/// `‖J‖₂² = λ_max(G)`; `∂/∂G = u uᵀ` with its unit eigenvector.
pub(super) fn spectral(point: &GramPoint, derivative: Option<&mut GramDerivative>) -> Result<f64> {
    point.with_largest(|value, u| {
        if let Some(bar) = derivative {
            add_outer(&mut bar.g, bar.weight, u, u);
        }
        value.max(0.0)
    })
}

/// `‖J‖_* = Σ √λ_i(G)`; `∂/∂G = ½ Σ λ_i^{−½} u_i u_iᵀ` over the eigenvalues that are not 0 to rounding:
/// singular values below about `√(K ε) ‖J‖₂` count as 0.
pub(super) fn nuclear(point: &GramPoint, derivative: Option<&mut GramDerivative>) -> Result<f64> {
    let eigen = point.eigen()?;
    let count = eigen.nonzero(point.rank, point.epsilon);
    let roots = eigen.values[..count].iter().map(|value| value.sqrt());
    if let Some(bar) = derivative {
        let (k, u) = (point.outputs(), eigen.vectors(count));
        let mut scaled = Buffer::with_room(u.len());
        for (u, root) in u.chunks_exact(k).zip(roots.clone()) {
            let factor = 0.5 * bar.weight / root;
            scaled.extend(u.iter().map(|u| factor * u));
        }
        at_b_serial((count, k, k), &scaled, u, true, &mut bar.g);
    }
    Ok(roots.sum())
}

/// `(K/m) Σ_i v_iᵀ G v_i` for the `m` rows of `v`; `∂/∂G = (K/m) Σ_i v_i v_iᵀ`.
pub(super) fn projected(
    point: &GramPoint,
    v: &[f64],
    derivative: Option<&mut GramDerivative>,
) -> f64 {
    let k = point.outputs();
    let scale = (k * k) as f64 / v.len() as f64;
    let rows = v.chunks_exact(k);
    if let Some(bar) = derivative {
        for v in rows.clone() {
            add_outer(&mut bar.g, scale * bar.weight, v, v);
        }
    }
    scale * rows.map(|v| dot(v, &point.g_times(v))).sum::<f64>()
}

/// `‖S J‖_F² = tr(S G S)`; `∂/∂G = S²`, `∂/∂S = S G + G S`.
pub(super) fn probabilities(point: &GramPoint, derivative: Option<&mut GramDerivative>) -> f64 {
    let k = point.outputs();
    if let Some(bar) = derivative {
        add(&mut bar.g, bar.weight, &point.times_s(point.s()));
        add(&mut bar.s, bar.weight, point.gs());
        add(&mut bar.s, bar.weight, &transposed(point.gs(), k));
    }
    trace(point.sgs(), k)
}
