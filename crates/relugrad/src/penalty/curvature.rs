//! Norms of the input Hessian `H = Jᵀ S J`, all of them functions of `G` and the logits.

use super::gram::{
    GramDerivative, GramPoint, add, add_outer, add_symmetric, dot, trace as diagonal, transposed,
};
use crate::buffer::Buffer;
use crate::eigen::power_of_two;
use crate::error::Result;
use crate::product::a_b_serial;

/// `tr H = tr(S G)`; `∂/∂G = S`, `∂/∂S = G`.
pub(super) fn trace(point: &GramPoint, derivative: Option<&mut GramDerivative>) -> f64 {
    if let Some(bar) = derivative {
        add(&mut bar.g, bar.weight, point.s());
        add(&mut bar.s, bar.weight, point.g);
    }
    diagonal(point.gs(), point.outputs())
}

/// `‖H‖_F² = tr(S G S G)`; `∂/∂G = 2 S G S`, `∂/∂S = 2 G S G`.
pub(super) fn frobenius(point: &GramPoint, derivative: Option<&mut GramDerivative>) -> f64 {
    let (k, sgs) = (point.outputs(), point.sgs());
    if let Some(bar) = derivative {
        let mut gsg = Buffer::zeros(k * k);
        a_b_serial((k, k, k), point.gs(), point.g, false, &mut gsg);
        add(&mut bar.g, 2.0 * bar.weight, sgs);
        add(&mut bar.s, bar.weight, &gsg);
        add(&mut bar.s, bar.weight, &transposed(&gsg, k));
    }
    dot(sgs, point.g)
}

/// `‖H‖₂ = λ_max(Lᵀ G L)`, `S = L Lᵀ`. With its unit eigenvector `u` and `q = L u`: `∂/∂G = q qᵀ` and
/// `∂/∂S = (G q)(G q)ᵀ / λ`.
pub(super) fn spectral(point: &GramPoint, derivative: Option<&mut GramDerivative>) -> Result<f64> {
    point.with_largest_reduced(|value, u| {
        let largest = value.max(0.0);
        if let Some(bar) = derivative
            && largest > 0.0
        {
            let q = point.factor_times(u);
            // Divided before it is squared: 1/λ can overflow for a saturated sample.
            let (mut gq, root) = (point.g_times(&q), largest.sqrt());
            gq.iter_mut().for_each(|entry| *entry /= root);
            add_outer(&mut bar.g, bar.weight, &q, &q);
            add_outer(&mut bar.s, bar.weight, &gq, &gq);
        }
        largest
    })
}

/// `‖H z‖² = N/D` along `z = g/‖g‖`, with `a = G r`, `b = S a`, `c = G b`, `d = S c`, `N = bᵀc`, `D = rᵀa`.
///
/// `N` has the derivatives `b bᵀ + d rᵀ + r dᵀ` in `G`, `2 G d` in `r` and `a cᵀ + c aᵀ` in `S`; `D` has `r rᵀ` in
/// `G` and `2 a` in `r`. Everything is computed from `r/√D`, because `N` underflows long before `N/D`, and so does `D` of a
/// saturated sample unless `r` is scaled first.
pub(super) fn directional(point: &GramPoint, derivative: Option<&mut GramDerivative>) -> f64 {
    let scale = power_of_two(point.r.iter().fold(0.0, |a: f64, r| a.max(r.abs())));
    let scaled = Buffer::of(point.r.iter().map(|r| r / scale));
    let denominator = dot(&scaled, &point.g_times(&scaled));
    if denominator <= 0.0 {
        return 0.0;
    }
    if !denominator.is_finite() {
        return f64::NAN;
    }
    let root = denominator.sqrt();
    let r = Buffer::of(scaled.iter().map(|r| r / root));
    let root = scale * root;
    let a = point.g_times(&r);
    let b = point.times_s(&a);
    let c = point.g_times(&b);
    let value = dot(&b, &c);
    if let Some(bar) = derivative {
        let d = point.times_s(&c);
        let weight = bar.weight;
        add_outer(&mut bar.g, weight, &b, &b);
        add_symmetric(&mut bar.g, weight, &d, &r);
        add_outer(&mut bar.g, -weight * value, &r, &r);
        add(&mut bar.r, 2.0 * weight / root, &point.g_times(&d));
        add(&mut bar.r, -2.0 * weight * value / root, &a);
        add_symmetric(&mut bar.s, weight, &a, &c);
    }
    value
}
