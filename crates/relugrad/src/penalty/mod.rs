//! Penalties on the derivatives of a network: names, definitions, and their derivatives in `G`, `r`, `S` or `g`.
//!
//! Per sample, `f` are the logits, `J = ∂f/∂x`, `G = J Jᵀ`, `r = ∂ℓ/∂f`, `S = ∂²ℓ/∂f²`, `g = ∇ₓℓ = Jᵀ r` and
//! `H = ∇²ₓℓ = Jᵀ S J`. Every penalty is reported unscaled, per sample or as the mean over a batch.

mod cross_lipschitz;
pub(crate) mod cure;
mod curvature;
pub(crate) mod gram;
pub(crate) mod input_gradient;
mod jacobian;
mod name;

pub use cure::Direction;

use crate::error::{Error, Result, check_non_negative};
use crate::region::Metric;
use gram::{GramDerivative, GramPoint};
use input_gradient::Norm;

/// A function of the derivatives of a network at a sample, to be made small in training.
///
/// The definitions are per sample and unscaled; published codes differ by factors, which `docs/theory.md` lists.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Penalty {
    /// `‖g‖²`, *double backpropagation* (Drucker & LeCun 1992; Ross & Doshi-Velez 2018).
    InputGradient,
    /// `‖g‖₂`. At `g = 0` its derivative is taken to be 0.
    InputGradientL2,
    /// `‖g‖₁`, to first order the growth of the loss under an ℓ∞ perturbation.
    InputGradientL1,
    /// `‖g‖_∞`, to first order the growth of the loss under an ℓ1 perturbation. The first largest entry counts.
    InputGradientLinf,
    /// `‖J‖_F² = tr G` (Jakubovitz & Giryes 2018 use its root, Hoffman et al. 2019 half of it).
    Jacobian,
    /// `‖J‖₂² = λ_max(G)`. At a repeated eigenvalue the derivative follows one of its eigenvectors.
    JacobianSpectral,
    /// `‖J‖_* = Σ_i √λ_i(G)`. Eigenvalues that are 0 to rounding contribute no derivative.
    JacobianNuclear,
    /// `(K/m) Σ_i ‖Jᵀ v_i‖²` with `m` random unit vectors `v_i` for each sample: an unbiased estimate of
    /// `‖J‖_F²` (Hoffman et al. 2019, algorithm 1).
    JacobianProjected {
        /// Number `m` of random vectors, from 1 to 65 536.
        rows: usize,
        /// Seed of the vectors; [`Objective::set_draw`](crate::Objective::set_draw) chooses among its draws.
        seed: u64,
    },
    /// `‖S J‖_F² = tr(S G S)`; for softmax, `S J` is the Jacobian of the probabilities.
    JacobianProbabilities,
    /// `Σ_{j,k} ‖J_j − J_k‖² = 2K tr(C G)` over ordered pairs of logits (Hein & Andriushchenko 2017 divide it by
    /// `K²`).
    CrossLipschitz,
    /// `tr H = tr(S G)`.
    CurvatureTrace,
    /// `‖H‖_F² = tr(S G S G)`.
    CurvatureFrobenius,
    /// `‖H‖₂ = λ_max(S^½ G S^½)`. At a repeated eigenvalue the derivative follows one of its eigenvectors.
    CurvatureSpectral,
    /// `‖H z‖²` along `z = g/‖g‖`. At `g = 0` it and its derivative are 0.
    CurvatureDirectional,
    /// `‖∇ₓℓ(x + h z) − ∇ₓℓ(x)‖²` (Moosavi-Dezfooli et al. 2019, *Robustness via curvature regularization*). It
    /// is not divided by `h²`. At `g = 0`, `z = 0`.
    Cure {
        /// The step `h ≥ 0`, in input units.
        step: f64,
        /// How `z` follows from `g`.
        direction: Direction,
    },
    /// The part of CURE that jumps at the kinks, `‖Σ_i (J_{i+1} − J_i)ᵀ r(t_i)‖²` over all gates that switch between `x`
    /// and `x + h z`, at `t_i` (T54). At `g = 0` it is 0.
    ///
    /// Its derivative moves the crossings with the parameters. It jumps itself where a kink enters or leaves the segment.
    CureKinks {
        /// The step `h ≥ 0`, in input units.
        step: f64,
        /// How `z` follows from `g`.
        direction: Direction,
    },
    /// `(1/k) Σ_j max(0, 1 − d_j/γ)` over the `k` nearest hyperplanes of the region, at distances `d_j`: the first half of
    /// the maximum margin regularizer (Croce, Andriushchenko & Hein 2019, *Provable robustness of ReLU networks via
    /// maximization of linear regions*, equation 7).
    RegionBoundary(Hinge),
    /// The same with the signed distances `(f_y − f_c)/‖J_y − J_c‖` to the `k` nearest of the hyperplanes where the
    /// region's affine map decides between the target `y` and another class: the second half.
    DecisionBoundary(Hinge),
    /// The sum of both, the maximum margin regularizer.
    MaximumMargin(Hinge),
}

/// How distances to hyperplanes are made a penalty, `(1/k) Σ_{j ≤ k} max(0, 1 − d_j/γ)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hinge {
    /// The norm of the distances.
    pub metric: Metric,
    /// How many hyperplanes `k ≥ 1` count, the nearest ones; all if there are fewer.
    pub nearest: usize,
    /// The distance `γ > 0` from which on there is no penalty, in input units.
    pub radius: f64,
}

impl Hinge {
    /// The value at a distance.
    pub(crate) fn value(&self, distance: f64) -> f64 {
        (1.0 - distance / self.radius).max(0.0)
    }

    fn check(&self, name: &str) -> Result<()> {
        if !(self.radius.is_finite() && self.radius > 0.0) {
            return Err(Error::OutOfRange {
                option: format!("radius of {name}"),
                value: self.radius,
                expected: "finite and positive",
            });
        }
        if self.nearest == 0 {
            return Err(Error::OutOfRange {
                option: format!("nearest of {name}"),
                value: 0.0,
                expected: "at least 1",
            });
        }
        Ok(())
    }
}

/// The most random rows per sample; the mean square error of the estimate falls as `1/m`.
const MAX_PROJECTIONS: usize = 1 << 16;

/// How a penalty is computed.
pub(crate) enum Form {
    /// From `f`, `y` and the Gram matrix alone.
    Gram,
    /// From the input gradient.
    Gradient(Norm),
    /// From input gradients at two points.
    FiniteStep(f64, Direction),
    /// From the hyperplanes around the sample or on the way from it.
    Geometry,
}

impl Penalty {
    /// Its mean and derivative for every sample of a batch come by this route.
    pub(crate) fn form(&self) -> Form {
        match self {
            Penalty::InputGradientL2 => Form::Gradient(Norm::L2),
            Penalty::InputGradientL1 => Form::Gradient(Norm::L1),
            Penalty::InputGradientLinf => Form::Gradient(Norm::Linf),
            Penalty::Cure { step, direction } => Form::FiniteStep(*step, *direction),
            Penalty::CureKinks { .. }
            | Penalty::RegionBoundary(_)
            | Penalty::DecisionBoundary(_)
            | Penalty::MaximumMargin(_) => Form::Geometry,
            Penalty::InputGradient
            | Penalty::Jacobian
            | Penalty::JacobianSpectral
            | Penalty::JacobianNuclear
            | Penalty::JacobianProjected { .. }
            | Penalty::JacobianProbabilities
            | Penalty::CrossLipschitz
            | Penalty::CurvatureTrace
            | Penalty::CurvatureFrobenius
            | Penalty::CurvatureSpectral
            | Penalty::CurvatureDirectional => Form::Gram,
        }
    }

    /// Whether it is a function of the logits and the Gram matrix `J Jᵀ` of each sample. All such penalties of an
    /// objective share one pair of sweeps.
    pub fn is_function_of_gram(&self) -> bool {
        matches!(self.form(), Form::Gram)
    }

    /// Whether it sees the hyperplanes where gates switch, and not only the derivatives at the sample. Its cost for each
    /// sample is that of a [`Region`](crate::Region) or a [`Walk`](crate::Walk).
    pub fn is_geometric(&self) -> bool {
        matches!(self.form(), Form::Geometry)
    }

    /// Whether it is a function of the Jacobian alone, so that it is constant in every activation region.
    pub fn is_function_of_jacobian(&self) -> bool {
        use Penalty::*;
        matches!(
            self,
            Jacobian
                | JacobianSpectral
                | JacobianNuclear
                | JacobianProjected { .. }
                | CrossLipschitz
        )
    }

    /// Whether it depends on `G` only through `C G C` when the loss sees only differences of logits.
    pub(crate) fn sees_only_differences(&self) -> bool {
        use Penalty::*;
        match self {
            Jacobian | JacobianSpectral | JacobianNuclear | JacobianProjected { .. } => false,
            InputGradient
            | InputGradientL2
            | InputGradientL1
            | InputGradientLinf
            | JacobianProbabilities
            | CrossLipschitz
            | CurvatureTrace
            | CurvatureFrobenius
            | CurvatureSpectral
            | CurvatureDirectional
            | Cure { .. }
            | CureKinks { .. }
            | RegionBoundary(_)
            | DecisionBoundary(_)
            | MaximumMargin(_) => true,
        }
    }

    /// Whether its options are in range.
    pub(crate) fn check(&self) -> Result<()> {
        match self {
            Penalty::JacobianProjected { rows, .. } if !(1..=MAX_PROJECTIONS).contains(rows) => {
                Err(Error::OutOfRange {
                    option: "rows of jacobian-projected".into(),
                    value: *rows as f64,
                    expected: "from 1 to 65536",
                })
            }
            Penalty::Cure { step, .. } | Penalty::CureKinks { step, .. } => {
                check_non_negative(&format!("step of {self}"), *step)
            }
            Penalty::RegionBoundary(hinge)
            | Penalty::DecisionBoundary(hinge)
            | Penalty::MaximumMargin(hinge) => hinge.check(self.name()),
            _ => Ok(()),
        }
    }

    /// Value at one sample from its Gram matrix; adds its weighted derivative to `derivative` if there is one.
    ///
    /// `projection` are the random rows of a projected penalty, `[m, K]`, and empty for others. Only for penalties whose [`form`](Self::form) is [`Form::Gram`].
    pub(crate) fn gram_value(
        &self,
        point: &GramPoint,
        projection: &[f64],
        derivative: Option<&mut GramDerivative>,
    ) -> Result<f64> {
        match self {
            Penalty::InputGradient => Ok(input_gradient::squared(point, derivative)),
            Penalty::Jacobian => Ok(jacobian::frobenius(point, derivative)),
            Penalty::JacobianSpectral => jacobian::spectral(point, derivative),
            Penalty::JacobianNuclear => jacobian::nuclear(point, derivative),
            Penalty::JacobianProjected { .. } => {
                Ok(jacobian::projected(point, projection, derivative))
            }
            Penalty::JacobianProbabilities => Ok(jacobian::probabilities(point, derivative)),
            Penalty::CrossLipschitz => Ok(cross_lipschitz::squared(point, derivative)),
            Penalty::CurvatureTrace => Ok(curvature::trace(point, derivative)),
            Penalty::CurvatureFrobenius => Ok(curvature::frobenius(point, derivative)),
            Penalty::CurvatureSpectral => curvature::spectral(point, derivative),
            Penalty::CurvatureDirectional => Ok(curvature::directional(point, derivative)),
            Penalty::InputGradientL2
            | Penalty::InputGradientL1
            | Penalty::InputGradientLinf
            | Penalty::Cure { .. }
            | Penalty::CureKinks { .. }
            | Penalty::RegionBoundary(_)
            | Penalty::DecisionBoundary(_)
            | Penalty::MaximumMargin(_) => unreachable!("not a Gram penalty"),
        }
    }
}
