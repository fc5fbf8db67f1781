//! The door of penalties that are functions of the rows of the Jacobian.

use std::ops::{Deref, DerefMut};

use ndarray::ArrayView2;

use super::numbers::RawMut;
use super::{Described, GradientPoint, LogitAdjoint, LogitPoint};
use crate::error::Result;

/// A penalty `φ(f, y, J)` that sees the rows of a sample's Jacobian `J` themselves, one for each
/// logit.
///
/// With `A = ∂φ/∂J` the parameter gradient is one pair of sweeps with `K` rows a sample. Samples go
/// through in blocks, in order, so that memory is that of a few Jacobians, whatever the batch. One
/// that needs only some rows, or some combinations `V J` of them, says so by
/// [`combines`](Self::combines) and sees these in place of `J`; its sweeps then have as many rows
/// as `V`. One that takes them at a point `x + δ` says so by [`moves`](Self::moves). A function of
/// `J Jᵀ` costs less as a [`GramPenalty`](super::GramPenalty), one of `Jᵀ r` as an
/// [`InputGradientPenalty`](super::InputGradientPenalty).
///
/// ```
/// use ndarray::{Axis, array};
/// use relugrad::penalty::{Described, JacobianAdjoint, JacobianPenalty, JacobianPoint};
/// use relugrad::{FiniteDifference, Loss, Mlp, Objective, Penalty, Result, Targets};
///
/// /// `‖J‖_{1,1} = Σ_{k,d} |J_kd|` (Wu & Li, arXiv 2412.12449).
/// #[derive(Debug)]
/// struct Entries;
///
/// impl Described for Entries {
///     fn name(&self) -> &str {
///         "jacobian-entries"
///     }
/// }
///
/// impl JacobianPenalty for Entries {
///     fn evaluate(&self, at: &JacobianPoint, adjoint: Option<&mut JacobianAdjoint>) -> Result<f64> {
///         let j = at.jacobian();
///         if let Some(adjoint) = adjoint {
///             let signs = j.mapv(|x| if x == 0.0 { 0.0 } else { x.signum() });
///             adjoint.add_jacobian(1.0, signs.view());
///         }
///         Ok(j.iter().map(|x| x.abs()).sum())
///     }
/// }
///
/// let network = Mlp::new(&[2, 8, 3]).build::<f64>(1)?;
/// let objective =
///     Objective::new(Loss::softmax_cross_entropy()).with(Penalty::rows(Entries), 0.1)?;
/// let (x, targets) = (array![[0.5, -1.0]], Targets::Classes(&[2]));
/// let (value, gradient) = objective.gradient(&network, x.view(), &targets)?;
/// let jacobian = network.trace(x.view())?.jacobian()?;
/// let expected: f64 = jacobian.iter().map(|x| x.abs()).sum();
/// assert!((value.penalties[0] - expected).abs() < 1e-14);
/// let check = FiniteDifference::central(1e-5)?;
/// let estimate = check.parameter_gradient(&objective, &network, x.view(), &targets)?;
/// for (exact, estimate) in gradient.values().iter().zip(estimate.values()) {
///     assert!((exact - estimate).abs() < 1e-8);
/// }
/// # Ok::<(), relugrad::Error>(())
/// ```
pub trait JacobianPenalty: Described {
    /// Its value at a sample. With an adjoint it also adds its derivatives with respect to `J`,
    /// `f`, `r` and `S` there.
    ///
    /// # Errors
    /// Whatever the author sees; a value that is not finite need not be reported.
    fn evaluate(&self, at: &JacobianPoint, adjoint: Option<&mut JacobianAdjoint>) -> Result<f64>;

    /// The number `R` of rows `V J` that it sees in place of `J` where there are `K` logits;
    /// nothing if it sees `J` itself.
    fn combines(&self, outputs: usize) -> Option<usize> {
        let _ = outputs;
        None
    }

    /// Writes `V`, `[R, K]`, row-major, into zeros. `V` counts as constant in the parameter
    /// gradient, which is exact where it is locally constant, such as a choice of rows.
    fn combine(&self, at: &LogitPoint, v: &mut [f64]) {
        let _ = (at, v);
    }

    /// Whether it is taken at a second point `x + δ`, at the price of an input gradient, a forward
    /// and a backward pass.
    fn moves(&self) -> bool {
        false
    }

    /// Writes the displacement `δ` of a sample `x` into zeros; `x, δ: [D]`. It counts as constant
    /// in the parameter gradient.
    fn displace(&self, x: &[f64], at: &GradientPoint, displacement: &mut [f64]) {
        let _ = (x, at, displacement);
    }
}

/// One sample as a penalty of the rows of its Jacobian sees it. It is a [`LogitPoint`] too.
#[derive(Debug)]
pub struct JacobianPoint<'a> {
    pub(crate) logit: LogitPoint<'a>,
    pub(crate) origin: LogitPoint<'a>,
    pub(crate) jacobian: ArrayView2<'a, f64>,
}

impl<'a> JacobianPoint<'a> {
    /// The Jacobian `J = ∂f/∂x`, `[K, D]`, or the rows `V J`, `[R, D]`, of a penalty that combines
    /// them.
    pub fn jacobian(&self) -> ArrayView2<'a, f64> {
        self.jacobian
    }

    /// The logits of the sample itself, where those of this point are at `x + δ`; otherwise the
    /// same.
    pub fn origin(&self) -> LogitPoint<'a> {
        self.origin
    }
}

impl<'a> Deref for JacobianPoint<'a> {
    type Target = LogitPoint<'a>;

    fn deref(&self) -> &LogitPoint<'a> {
        &self.logit
    }
}

/// Where a penalty of the rows puts its derivatives, each multiplied by its weight here. It is a
/// [`LogitAdjoint`] too.
#[derive(Debug)]
pub struct JacobianAdjoint<'a> {
    pub(crate) logit: LogitAdjoint<'a>,
    /// That of the sample itself, where `logit` is at a second point.
    pub(crate) origin: Option<LogitAdjoint<'a>>,
    pub(crate) rows: usize,
    /// `[R, D]`.
    pub(crate) a: RawMut<'a>,
}

impl<'a> Deref for JacobianAdjoint<'a> {
    type Target = LogitAdjoint<'a>;

    fn deref(&self) -> &LogitAdjoint<'a> {
        &self.logit
    }
}

impl DerefMut for JacobianAdjoint<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.logit
    }
}

impl<'a> JacobianAdjoint<'a> {
    /// The derivatives at the logits of the sample itself, where those of this point are at
    /// `x + δ`; otherwise the same.
    pub fn origin_logits(&mut self) -> &mut LogitAdjoint<'a> {
        self.origin.as_mut().unwrap_or(&mut self.logit)
    }

    /// Adds `scale · M` to `∂φ/∂J`, `M: [K, D]`, or to `∂φ/∂(V J)`, `[R, D]`.
    pub fn add_jacobian(&mut self, scale: f64, m: ArrayView2<f64>) {
        let expected = (self.rows, self.a.len() / self.rows);
        if m.dim() != expected {
            let found = m.dim();
            return self.blame(format!(
                "gives the derivative with respect to J the shape {found:?}, not {expected:?}"
            ));
        }
        for (row, entries) in m.outer_iter().enumerate() {
            match entries.as_slice() {
                Some(entries) => self.add_row(scale, row, entries),
                None => self.add_row(scale, row, &entries.to_vec()),
            }
        }
    }

    /// Adds `scale · v` to `∂φ/∂J_k`, the derivative with respect to the gradient of one logit, or
    /// to that with respect to a row of `V J`; `v: [D]`.
    pub fn add_row(&mut self, scale: f64, k: usize, v: &[f64]) {
        let rows = self.rows;
        let d = self.a.len() / rows;
        if k >= rows || v.len() != d {
            return self.blame(format!(
                "gives {} entries for row {k} of the derivative with respect to J, which is {rows}x{d}",
                v.len()
            ));
        }
        self.a.add(k * d, self.logit.weight * scale, v);
    }
}
