//! Norms of the input Hessian `H = Jᵀ S J`, all of them functions of `G` and the logits.

use super::gram::{GramDerivative, GramPoint, add_outer, add_symmetric, inner};
use crate::error::Result;

/// `tr H = tr(S G)`; `∂/∂G = S`, `∂/∂S = G`.
pub(super) fn trace(point: &GramPoint, derivative: Option<&mut GramDerivative>) -> f64 {
    if let Some(bar) = derivative {
        bar.g.scaled_add(bar.weight, point.s());
        bar.s.scaled_add(bar.weight, &point.g);
    }
    point.gs().diag().sum()
}

/// `‖H‖_F² = tr(S G S G)`; `∂/∂G = 2 S G S`, `∂/∂S = 2 G S G`.
pub(super) fn frobenius(point: &GramPoint, derivative: Option<&mut GramDerivative>) -> f64 {
    let sgs = point.sgs();
    if let Some(bar) = derivative {
        let gsg = point.gs().dot(&point.g);
        bar.g.scaled_add(2.0 * bar.weight, sgs);
        bar.s.scaled_add(bar.weight, &gsg);
        bar.s.scaled_add(bar.weight, &gsg.t());
    }
    inner(sgs.view(), point.g)
}

/// `‖H‖₂ = λ_max(Lᵀ G L)`, `S = L Lᵀ`. With its unit eigenvector `u` and `q = L u`: `∂/∂G = q qᵀ` and
/// `∂/∂S = (G q)(G q)ᵀ / λ`.
pub(super) fn spectral(point: &GramPoint, derivative: Option<&mut GramDerivative>) -> Result<f64> {
    let eigen = point.reduced_eigen()?;
    let largest = eigen.values[0].max(0.0);
    if let Some(bar) = derivative
        && largest > 0.0
    {
        let q = point.factor_times(eigen.vector(0));
        // Divided before it is squared: 1/λ can overflow for a saturated sample.
        let gq = point.g.dot(&q) / largest.sqrt();
        add_outer(&mut bar.g, bar.weight, q.view(), q.view());
        add_outer(&mut bar.s, bar.weight, gq.view(), gq.view());
    }
    Ok(largest)
}

/// `‖H z‖² = N/D` along `z = g/‖g‖`, with `a = G r`, `b = S a`, `c = G b`, `d = S c`, `N = bᵀc`, `D = rᵀa`.
///
/// `N` has the derivatives `b bᵀ + d rᵀ + r dᵀ` in `G`, `2 G d` in `r` and `a cᵀ + c aᵀ` in `S`; `D` has `r rᵀ` in
/// `G` and `2 a` in `r`. Everything is computed from `r/√D`, because `N` underflows long before `N/D`.
pub(super) fn directional(point: &GramPoint, derivative: Option<&mut GramDerivative>) -> f64 {
    let denominator = point.r.dot(&point.g.dot(&point.r));
    if denominator <= 0.0 {
        return 0.0;
    }
    let root = denominator.sqrt();
    let r = &point.r / root;
    let a = point.g.dot(&r);
    let b = point.s_times(&a);
    let c = point.g.dot(&b);
    let value = b.dot(&c);
    if let Some(bar) = derivative {
        let d = point.s_times(&c);
        let weight = bar.weight;
        add_outer(&mut bar.g, weight, b.view(), b.view());
        add_symmetric(&mut bar.g, weight, d.view(), r.view());
        add_outer(&mut bar.g, -weight * value, r.view(), r.view());
        bar.r.scaled_add(2.0 * weight / root, &point.g.dot(&d));
        bar.r.scaled_add(-2.0 * weight * value / root, &a);
        add_symmetric(&mut bar.s, weight, a.view(), c.view());
    }
    value
}
