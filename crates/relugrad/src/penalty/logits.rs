//! The door of penalties that are functions of the logits.

use super::{Described, LogitAdjoint, LogitPoint};
use crate::error::Result;

/// A penalty `φ(f, y)` that sees a sample only at its logits.
///
/// No row is swept: its derivative joins the backward pass of the loss.
///
/// ```
/// use ndarray::array;
/// use relugrad::penalty::{Described, LogitAdjoint, LogitPenalty, LogitPoint};
/// use relugrad::{Loss, Mlp, Objective, Penalty, Result, Targets};
///
/// /// `‖f‖²`, which keeps logits small.
/// #[derive(Debug)]
/// struct Squeeze;
///
/// impl Described for Squeeze {
///     fn name(&self) -> &str {
///         "logit-squeezing"
///     }
/// }
///
/// impl LogitPenalty for Squeeze {
///     fn evaluate(&self, at: &LogitPoint, adjoint: Option<&mut LogitAdjoint>) -> Result<f64> {
///         if let Some(adjoint) = adjoint {
///             adjoint.add_logits(2.0, at.logits());
///         }
///         Ok(at.logits().iter().map(|f| f * f).sum())
///     }
/// }
///
/// let network = Mlp::new(&[2, 8, 3]).build::<f64>(1)?;
/// let objective =
///     Objective::new(Loss::softmax_cross_entropy()).with(Penalty::logits(Squeeze), 0.1)?;
/// let x = array![[0.5, -1.0]];
/// let value = objective.value(&network, x.view(), &Targets::Classes(&[2]))?;
/// let trace = network.trace(x.view())?;
/// let expected: f64 = trace.logits().iter().map(|f| f * f).sum();
/// assert!((value.penalties[0] - expected).abs() < 1e-14);
/// # Ok::<(), relugrad::Error>(())
/// ```
pub trait LogitPenalty: Described {
    /// Its value at a sample. With an adjoint it also adds its derivatives with respect to `f`, `r`
    /// and `S` there.
    ///
    /// # Errors
    /// Whatever the author sees; a value that is not finite need not be reported.
    fn evaluate(&self, at: &LogitPoint, adjoint: Option<&mut LogitAdjoint>) -> Result<f64>;
}
