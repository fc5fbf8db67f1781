//! Norms of the input Hessian `H = Jᵀ S J`, all of them functions of `G` and the logits.

use super::catalogue::CatalogueEntry;
use super::described::described;
use super::gram::{GramAdjoint, GramPenalty, GramPoint};
use super::{Described, Penalty, Promises};
use crate::buffer::Buffer;
use crate::eigen::power_of_two;
use crate::error::Result;
use crate::linalg::{dot, trace, transposed};
use crate::product::a_b_serial;

pub(super) static TRACE: CatalogueEntry = CatalogueEntry {
    name: "curvature-trace",
    formula: "tr H",
    meaning: "sum of the eigenvalues of the Hessian H of the loss in the input: total curvature",
    weight: 0.3,
    options: &[],
    make: |_| Penalty::CurvatureTrace,
};

/// `tr H = tr(S G)`; `∂/∂G = S`, `∂/∂S = G`.
#[derive(Debug)]
pub(super) struct Trace;

described!(Trace, TRACE, Promises::logit_differences().with_degree(2));

impl GramPenalty for Trace {
    fn evaluate(&self, at: &GramPoint, adjoint: Option<&mut GramAdjoint>) -> Result<f64> {
        if let Some(adjoint) = adjoint {
            adjoint.add_gram(1.0, at.hessian());
            adjoint.add_hessian(1.0, at.gram());
        }
        Ok(trace(at.gram_hessian(), at.outputs()))
    }
}

pub(super) static FROBENIUS: CatalogueEntry = CatalogueEntry {
    name: "curvature-frobenius",
    formula: "‖H‖_F²",
    meaning: "sum of the squared eigenvalues of the Hessian H of the loss in the input",
    weight: 0.03,
    options: &[],
    make: |_| Penalty::CurvatureFrobenius,
};

/// `‖H‖_F² = tr(S G S G)`; `∂/∂G = 2 S G S`, `∂/∂S = 2 G S G`.
#[derive(Debug)]
pub(super) struct Frobenius;

described!(
    Frobenius,
    FROBENIUS,
    Promises::logit_differences().with_degree(4)
);

impl GramPenalty for Frobenius {
    fn evaluate(&self, at: &GramPoint, adjoint: Option<&mut GramAdjoint>) -> Result<f64> {
        let (k, sgs) = (at.outputs(), at.hessian_gram_hessian());
        if let Some(adjoint) = adjoint {
            let mut gsg = Buffer::zeros(k * k);
            a_b_serial((k, k, k), at.gram_hessian(), at.gram(), false, &mut gsg);
            adjoint.add_gram(2.0, sgs);
            adjoint.add_hessian(1.0, &gsg);
            adjoint.add_hessian(1.0, &transposed(&gsg, k));
        }
        Ok(dot(sgs, at.gram()))
    }
}

pub(super) static SPECTRAL: CatalogueEntry = CatalogueEntry {
    name: "curvature-spectral",
    formula: "‖H‖₂",
    meaning: "largest eigenvalue of the Hessian H of the loss in the input: curvature in the worst direction",
    weight: 0.3,
    options: &[],
    make: |_| Penalty::CurvatureSpectral,
};

/// `‖H‖₂ = λ_max(Lᵀ G L)`, `S = L Lᵀ`. With its unit eigenvector `u` and `q = L u`: `∂/∂G = q qᵀ`
/// and `∂/∂S = (G q)(G q)ᵀ / λ`.
#[derive(Debug)]
pub(super) struct Spectral;

described!(
    Spectral,
    SPECTRAL,
    Promises::logit_differences().with_degree(2)
);

impl GramPenalty for Spectral {
    fn evaluate(&self, at: &GramPoint, adjoint: Option<&mut GramAdjoint>) -> Result<f64> {
        at.with_largest_curvature(|value, u| {
            let largest = value.max(0.0);
            if let Some(adjoint) = adjoint
                && largest > 0.0
            {
                let q = at.hessian_factor_times(u);
                // Divided before it is squared: 1/λ can overflow for a saturated sample.
                let (mut gq, root) = (at.gram_times(&q), largest.sqrt());
                gq.iter_mut().for_each(|entry| *entry /= root);
                adjoint.add_gram_square(1.0, &q);
                adjoint.add_hessian_outer(0.5, &gq, &gq);
            }
            largest
        })
    }
}

pub(super) static DIRECTIONAL: CatalogueEntry = CatalogueEntry {
    name: "curvature-directional",
    formula: "‖H z‖², z = g/‖g‖",
    meaning: "curvature along the gradient itself",
    weight: 0.1,
    options: &[],
    make: |_| Penalty::CurvatureDirectional,
};

/// `‖H z‖² = N/D` along `z = g/‖g‖`, with `a = G r`, `b = S a`, `c = G b`, `d = S c`, `N = bᵀc`,
/// `D = rᵀa`.
///
/// `N` has the derivatives `b bᵀ + d rᵀ + r dᵀ` in `G`, `2 G d` in `r` and `a cᵀ + c aᵀ` in `S`;
/// `D` has `r rᵀ` in `G` and `2 a` in `r`. Everything is computed from `r/√D`, because `N`
/// underflows long before `N/D`, and so does `D` of a saturated sample unless `r` is scaled first.
#[derive(Debug)]
pub(super) struct Directional;

described!(
    Directional,
    DIRECTIONAL,
    Promises::logit_differences().with_degree(4)
);

impl GramPenalty for Directional {
    fn evaluate(&self, at: &GramPoint, adjoint: Option<&mut GramAdjoint>) -> Result<f64> {
        let scale = power_of_two(at.residual().iter().fold(0.0, |a: f64, r| a.max(r.abs())));
        let scaled = Buffer::of(at.residual().iter().map(|r| r / scale));
        let denominator = dot(&scaled, &at.gram_times(&scaled));
        if denominator <= 0.0 {
            return Ok(0.0);
        }
        if !denominator.is_finite() {
            return Ok(f64::NAN);
        }
        let root = denominator.sqrt();
        let r = Buffer::of(scaled.iter().map(|r| r / root));
        let root = scale * root;
        let a = at.gram_times(&r);
        let b = at.hessian_times(&a);
        let c = at.gram_times(&b);
        let value = dot(&b, &c);
        if let Some(adjoint) = adjoint {
            let d = at.hessian_times(&c);
            adjoint.add_gram_square(1.0, &b);
            adjoint.add_gram_outer(1.0, &d, &r);
            adjoint.add_gram_square(-value, &r);
            adjoint.add_residual(2.0 / root, &at.gram_times(&d));
            adjoint.add_residual(-2.0 * value / root, &a);
            adjoint.add_hessian_outer(1.0, &a, &c);
        }
        Ok(value)
    }
}
