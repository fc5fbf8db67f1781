//! The door of penalties that compare a sample with a second point near it.

use super::numbers::{Numbers, RawMut};
use super::{Described, GradientAdjoint, GradientPoint, LogitAdjoint, LogitSums};
use crate::error::Result;

/// A penalty `φ(f, y, g; f', g')` of logits and input gradients at `x` and at `x' = x + δ`.
///
/// Two forward passes; at each point one row a sample is swept back and forth. The displacement `δ`
/// is a function of the first point. Either it counts as a constant, or its author carries the
/// derivative with respect to `δ` back to `g`.
///
/// ```
/// use ndarray::array;
/// use relugrad::penalty::{Described, GradientPoint, PairAdjoint, PairPenalty, PairPoint};
/// use relugrad::{Loss, Mlp, Objective, Penalty, Result, Targets};
///
/// /// `(ℓ(x + ε sign g) − ℓ(x) − ε ‖g‖₁)²`: how far the loss is from linear over a step of FGSM.
/// #[derive(Debug)]
/// struct Linearity(f64);
///
/// impl Described for Linearity {
///     fn name(&self) -> &str {
///         "linearity"
///     }
/// }
///
/// impl PairPenalty for Linearity {
///     fn displace(&self, at: &GradientPoint, displacement: &mut [f64]) {
///         for (d, g) in displacement.iter_mut().zip(at.gradient()) {
///             *d = if *g == 0.0 { 0.0 } else { self.0 * g.signum() };
///         }
///     }
///
///     fn evaluate(&self, at: &PairPoint, adjoint: Option<&mut PairAdjoint>) -> Result<f64> {
///         let step = at.displacement();
///         let along: f64 = step.iter().zip(at.first().gradient()).map(|(d, g)| d * g).sum();
///         let error = at.second().loss() - at.first().loss() - along;
///         if let Some(adjoint) = adjoint {
///             let (before, after) = (at.first().residual(), at.second().residual());
///             adjoint.second_logits().add_logits(2.0 * error, after);
///             adjoint.first_logits().add_logits(-2.0 * error, before);
///             adjoint.add_first_gradient(-2.0 * error, step);
///         }
///         Ok(error * error)
///     }
/// }
///
/// let network = Mlp::new(&[2, 8, 3]).build::<f64>(1)?;
/// let objective = Objective::new(Loss::softmax_cross_entropy())
///     .with(Penalty::pair(Linearity(0.1)), 1.0)?;
/// let (x, targets) = (array![[0.5, -1.0]], Targets::Classes(&[2]));
/// let (value, gradient) = objective.gradient(&network, x.view(), &targets)?;
/// assert!(value.penalties[0] > 0.0 && gradient.len() == network.parameters().len());
/// # Ok::<(), relugrad::Error>(())
/// ```
pub trait PairPenalty: Described {
    /// Writes the displacement `δ = x' − x` of a sample; `[D]`.
    fn displace(&self, at: &GradientPoint, displacement: &mut [f64]);

    /// Its value. With an adjoint it also adds its derivatives at both points, with `δ` constant.
    ///
    /// # Errors
    /// Whatever the author sees; a value that is not finite need not be reported.
    fn evaluate(&self, at: &PairPoint, adjoint: Option<&mut PairAdjoint>) -> Result<f64>;

    /// Whether `δ` counts as a constant in the parameter gradient, which is exact where it is
    /// locally constant or a maximiser.
    fn is_held(&self) -> bool {
        true
    }

    /// Where `δ` is not held: adds to the derivative with respect to `g` what the derivative
    /// `∂φ/∂δ` of the objective means for it.
    fn pull_back(&self, at: &GradientPoint, derivative: &[f64], adjoint: &mut GradientAdjoint) {
        let _ = (at, derivative, adjoint);
    }

    /// Whether it is a function of `g' − g` and the target alone, so that the two points share the
    /// work of the first layer. It is a promise: its derivatives then go through
    /// [`PairAdjoint::add_change`] only.
    fn is_function_of_change(&self) -> bool {
        false
    }
}

/// A sample and its second point.
#[derive(Debug)]
pub struct PairPoint<'a> {
    pub(crate) first: &'a GradientPoint<'a>,
    pub(crate) second: GradientPoint<'a>,
    pub(crate) displacement: Numbers<'a>,
    pub(crate) change: Numbers<'a>,
}

impl PairPoint<'_> {
    /// The sample at `x`.
    pub fn first(&self) -> &GradientPoint<'_> {
        self.first
    }

    /// The sample at `x' = x + δ`.
    pub fn second(&self) -> &GradientPoint<'_> {
        &self.second
    }

    /// `δ`; `[D]`.
    pub fn displacement(&self) -> &[f64] {
        self.displacement.get()
    }

    /// `‖g' − g‖₂²`.
    pub fn squared_change(&self) -> f64 {
        self.change.squared_length()
    }

    /// `g' − g`; `[D]`.
    pub fn change(&self) -> &[f64] {
        self.change.get()
    }
}

/// Where a penalty of two points puts its derivatives, each multiplied by its weight here.
#[derive(Debug)]
pub struct PairAdjoint<'a> {
    first_logits: LogitAdjoint<'a>,
    /// `∂φ/∂ĝ` with `g = q ĝ`, and `q`; nothing if nobody reads it.
    first: (Option<RawMut<'a>>, f64),
    second: GradientAdjoint<'a>,
}

impl<'a> PairAdjoint<'a> {
    pub(crate) fn new(
        weight: f64,
        (first_sums, second_sums): (&'a mut LogitSums, &'a mut LogitSums),
        first: (Option<RawMut<'a>>, f64),
        second: RawMut<'a>,
    ) -> PairAdjoint<'a> {
        let logit = |sums| LogitAdjoint { weight, sums };
        PairAdjoint {
            first_logits: logit(first_sums),
            first,
            second: GradientAdjoint {
                logit: logit(second_sums),
                a: second,
                power: 1.0,
            },
        }
    }

    /// Adds `scale · v` to `∂φ/∂g'` and `−scale · v` to `∂φ/∂g`; `v: [D]`.
    pub fn add_change(&mut self, scale: f64, v: &[f64]) {
        self.second.add_gradient(scale, v);
        let (first, power) = &mut self.first;
        if let Some(first) = first
            && first.len() == v.len()
        {
            first.add(0, -self.first_logits.weight * scale * *power, v);
        }
    }

    /// Adds `scale · (g' − g)` to `∂φ/∂g'` and its negative to `∂φ/∂g`, where these are those of
    /// the sample.
    pub fn add_own_change(&mut self, scale: f64, at: &PairPoint) {
        let weight = self.first_logits.weight * scale;
        self.second.a.add_numbers(weight, &at.change);
        if let (Some(first), power) = &mut self.first {
            first.add_numbers(-weight * *power, &at.change);
        }
    }

    /// Adds `scale · v` to `∂φ/∂g`; `v: [D]`.
    pub fn add_first_gradient(&mut self, scale: f64, v: &[f64]) {
        let (first, power) = &mut self.first;
        match first {
            Some(first) if first.len() == v.len() => {
                first.add(0, self.first_logits.weight * scale * *power, v);
            }
            Some(_) => self.second.add_gradient(scale, v),
            None => self.second.blame(
                "promises to be a function of the gradients' change but has a derivative in one"
                    .to_owned(),
            ),
        }
    }

    /// Adds `scale · v` to `∂φ/∂g'`; `v: [D]`.
    pub fn add_second_gradient(&mut self, scale: f64, v: &[f64]) {
        match self.first.0 {
            Some(_) => self.second.add_gradient(scale, v),
            None => self.add_first_gradient(scale, v),
        }
    }

    /// The derivatives at the logits of `x`, as far as they do not come through `g`.
    pub fn first_logits(&mut self) -> &mut LogitAdjoint<'a> {
        &mut self.first_logits
    }

    /// The derivatives at the logits of `x'`, as far as they do not come through `g'`.
    pub fn second_logits(&mut self) -> &mut LogitAdjoint<'a> {
        &mut self.second.logit
    }
}
