//! The door of penalties that are functions of the input gradient `g = Jᵀ r`, and the norms of `g`.

use std::ops::{Deref, DerefMut};

use super::catalogue::CatalogueEntry;
use super::described::described;
use super::gram::{Alone, GramAdjoint, GramPenalty, GramPoint};
use super::numbers::{Numbers, RawMut};
use super::{Described, LogitAdjoint, LogitPoint, Penalty, Promises};
use crate::buffer::Buffer;
use crate::error::Result;
use crate::linalg::dot;
use crate::norm::{Norm, sign};

/// A penalty `φ(f, y, g)` of the gradient `g = ∂ℓ/∂x = Jᵀ r` of the loss with respect to the input.
///
/// One row a sample is swept back and forth, whatever the number of logits: with `ḡ = ∂φ/∂g`, the
/// tangents of `ḡ` give the parameter gradient, and `S (J ḡ)` joins the derivative with respect to
/// the logits, which is done for the author.
pub trait InputGradientPenalty: Described {
    /// Its value at a sample. With an adjoint it also adds its derivatives with respect to `g`
    /// there, and those with respect to the logits that do not come through `g`.
    ///
    /// # Errors
    /// Whatever the author sees; a value that is not finite need not be reported.
    fn evaluate(&self, at: &GradientPoint, adjoint: Option<&mut GradientAdjoint>) -> Result<f64>;
}

/// One sample as a penalty of its input gradient sees it. It is a [`LogitPoint`] too.
#[derive(Debug)]
pub struct GradientPoint<'a> {
    pub(crate) logit: LogitPoint<'a>,
    pub(crate) gradient: Numbers<'a>,
    pub(crate) magnified: Numbers<'a>,
    pub(crate) power: f64,
}

impl<'a> Deref for GradientPoint<'a> {
    type Target = LogitPoint<'a>;

    fn deref(&self) -> &LogitPoint<'a> {
        &self.logit
    }
}

impl GradientPoint<'_> {
    /// The input gradient `g`; `[D]`.
    pub fn gradient(&self) -> &[f64] {
        self.gradient.get()
    }

    /// `‖g‖₂²`.
    pub fn squared_length(&self) -> f64 {
        self.power.powi(2) * self.magnified.squared_length()
    }

    /// `ĝ` and `q` with `g = q ĝ`: where the loss of a sample is nearly certain, `g` may be too
    /// small to be a number while `ĝ` still has its direction, and `q` is a power of two, or 0 if
    /// that underflows as well. Elsewhere `q = 1`.
    pub fn magnified(&self) -> (&[f64], f64) {
        (self.magnified.get(), self.power)
    }
}

/// Where a penalty of the input gradient puts its derivatives, each multiplied by its weight here.
/// It is a [`LogitAdjoint`] too.
#[derive(Debug)]
pub struct GradientAdjoint<'a> {
    pub(crate) logit: LogitAdjoint<'a>,
    /// `∂φ/∂ĝ`.
    pub(crate) a: RawMut<'a>,
    pub(crate) power: f64,
}

impl<'a> Deref for GradientAdjoint<'a> {
    type Target = LogitAdjoint<'a>;

    fn deref(&self) -> &LogitAdjoint<'a> {
        &self.logit
    }
}

impl DerefMut for GradientAdjoint<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.logit
    }
}

impl GradientAdjoint<'_> {
    /// Adds `scale · v` to `∂φ/∂g`; `v: [D]`.
    pub fn add_gradient(&mut self, scale: f64, v: &[f64]) {
        self.add_magnified(scale * self.power, v);
    }

    /// Adds `scale · v` to `∂φ/∂ĝ`, the derivative in what [`GradientPoint::magnified`] gives;
    /// `v: [D]`.
    pub fn add_magnified(&mut self, scale: f64, v: &[f64]) {
        let d = self.a.len();
        if v.len() != d {
            return self.blame(format!(
                "gives the derivative with respect to the input gradient {} entries, not {d}",
                v.len()
            ));
        }
        self.a.add(0, self.logit.weight * scale, v);
    }

    /// Adds `scale · g` to `∂φ/∂g`, where `g` is that of the sample.
    pub fn add_own_gradient(&mut self, scale: f64, at: &GradientPoint) {
        let weight = self.logit.weight * scale * self.power * at.power;
        self.a.add_numbers(weight, &at.magnified);
    }

    /// Adds a derivative of the objective with respect to `ĝ`, which has the weight in it already.
    pub fn add_objective(&mut self, v: &[f64]) {
        let weight = std::mem::replace(&mut self.logit.weight, 1.0);
        self.add_magnified(1.0, v);
        self.logit.weight = weight;
    }

    /// Adds `scale` to one entry of `∂φ/∂ĝ`.
    fn add_magnified_entry(&mut self, scale: f64, place: usize) {
        self.a.add(place, self.logit.weight, &[scale]);
    }
}

/// What all norms of `g` promise: loss and penalty see only differences of logits.
const fn of_degree(degree: i32) -> Promises {
    Promises::logit_differences().with_degree(degree)
}

pub(super) static SQUARED: CatalogueEntry = CatalogueEntry {
    name: "input-gradient",
    formula: "‖∇ₓℓ‖₂²",
    meaning: "squared length of the gradient of the loss in the input: how fast the loss grows with small changes",
    weight: 1.0,
    options: &[],
    make: |_| Penalty::InputGradient,
};

/// `‖g‖² = rᵀ G r`; `∂/∂G = r rᵀ`, `∂/∂r = 2 G r`.
#[derive(Debug)]
pub(super) struct Squared;

described!(Squared, SQUARED, of_degree(2));

impl GramPenalty for Squared {
    fn evaluate(&self, at: &GramPoint, adjoint: Option<&mut GramAdjoint>) -> Result<f64> {
        let gr = at.gram_times(at.residual());
        if let Some(adjoint) = adjoint {
            adjoint.add_gram_square(1.0, at.residual());
            adjoint.add_residual(2.0, &gr);
        }
        Ok(dot(at.residual(), &gr))
    }

    fn alone(&self) -> Alone<'_> {
        Alone::InputGradient(self)
    }
}

/// `‖g‖²`; `∂/∂g = 2 g`.
impl InputGradientPenalty for Squared {
    fn evaluate(&self, at: &GradientPoint, adjoint: Option<&mut GradientAdjoint>) -> Result<f64> {
        if let Some(adjoint) = adjoint {
            adjoint.add_own_gradient(2.0, at);
        }
        Ok(at.squared_length())
    }
}

pub(super) static L2: CatalogueEntry = CatalogueEntry {
    name: "input-gradient-l2",
    formula: "‖∇ₓℓ‖₂",
    meaning: "length of the gradient of the loss in the input",
    weight: 1.0,
    options: &[],
    make: |_| Penalty::InputGradientL2,
};

pub(super) static L1: CatalogueEntry = CatalogueEntry {
    name: "input-gradient-l1",
    formula: "‖∇ₓℓ‖₁",
    meaning: "first-order growth of the loss when every pixel may change by the same amount",
    weight: 0.3,
    options: &[],
    make: |_| Penalty::InputGradientL1,
};

pub(super) static LINF: CatalogueEntry = CatalogueEntry {
    name: "input-gradient-linf",
    formula: "‖∇ₓℓ‖_∞",
    meaning: "first-order growth of the loss when one pixel may change",
    weight: 3.0,
    options: &[],
    make: |_| Penalty::InputGradientLinf,
};

/// `‖g‖` in a norm. Its derivative is `g/‖g‖` in ℓ2, `sign g` in ℓ1 with 0 for zero entries, and
/// that of the first largest entry in ℓ∞.
#[derive(Debug)]
pub(super) struct Length(pub(super) Norm);

impl Described for Length {
    fn name(&self) -> &str {
        let entry = match self.0 {
            Norm::L1 => &L1,
            Norm::L2 => &L2,
            Norm::Linf => &LINF,
        };
        entry.name
    }

    fn promises(&self) -> Promises {
        of_degree(1)
    }
}

impl InputGradientPenalty for Length {
    fn evaluate(&self, at: &GradientPoint, adjoint: Option<&mut GradientAdjoint>) -> Result<f64> {
        let (g, power) = at.magnified();
        let length = self.0.of(g);
        let Some(adjoint) = adjoint else {
            return Ok(power * length);
        };
        match self.0 {
            Norm::L1 => adjoint.add_magnified(power, &Buffer::of(g.iter().map(|&g| sign(g)))),
            Norm::L2 if length > 0.0 => {
                adjoint.add_magnified(power, &Buffer::of(g.iter().map(|g| g / length)));
            }
            Norm::L2 => {}
            Norm::Linf => {
                if let Some(first) = g.iter().position(|g| g.abs() == length) {
                    adjoint.add_magnified_entry(power * sign(g[first]), first);
                }
            }
        }
        Ok(power * length)
    }
}
