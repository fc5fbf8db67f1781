//! Penalties on the derivatives of a network, and how to add one's own.
//!
//! Per sample, `f` are the logits, `J = ∂f/∂x`, `G = J Jᵀ`, `r = ∂ℓ/∂f`, `S = ∂²ℓ/∂f²`,
//! `g = ∇ₓℓ = Jᵀ r` and `H = ∇²ₓℓ = Jᵀ S J`. Every penalty is reported unscaled, per sample or as
//! the mean over a batch.
//!
//! # A penalty of one's own
//!
//! A penalty is a function of a sample's derivatives together with its own derivatives in these;
//! the engine makes of them the exact parameter gradient. There are five doors, each a trait with
//! an example. Take the first that fits:
//!
//! | door | the penalty sees | rows a sample that are swept |
//! | --- | --- | --- |
//! | [`LogitPenalty`] | `f, y` | none |
//! | [`InputGradientPenalty`] | `f, y, g` | 1 |
//! | [`GramPenalty`] | `f, y, G`, and through it `tr H`, `‖H‖`, `‖S J‖` | `K`, or `K − 1` by promise; shared by all of them |
//! | [`JacobianPenalty`] | `f, y, J` | `K`, or as many combinations of them as it asks for |
//! | [`PairPenalty`] | `f, y, g` and `f', g'` at `x + δ` | 1 at each point, and a second forward pass |
//!
//! [`Described`] gives it a name, options and promises. [`Penalty::logits`],
//! [`Penalty::input_gradient`], [`Penalty::gram`], [`Penalty::rows`] and [`Penalty::pair`] make a
//! [`Penalty`] of it, which can do whatever a built-in one can: the built-in ones come through the
//! same doors. Or write it as a [`Formula`], which finds derivatives and door by itself. Loss functions of
//! one's own are the matter of [`loss`](crate::loss).
//!
//! A derivative is handed to an *adjoint*, which multiplies it by the weight `λ` of the penalty and
//! the share of the sample. Where a penalty is not differentiable its author says what is taken: 0
//! for a norm at 0, the first of tied maxima, one eigenvector of a repeated eigenvalue.

mod at_point;
mod catalogue;
mod cross_lipschitz;
mod cure;
mod curvature;
mod described;
mod formula;
mod geometric;
mod gram;
mod input_gradient;
mod jacobian;
mod logits;
pub(crate) mod numbers;
mod pair;
mod point;
mod rows;
mod worst_case;

use std::fmt;
use std::sync::Arc;

use crate::error::Result;
use crate::norm::Norm;
pub(crate) use geometric::Geometric;
pub(crate) use gram::{GramSums, Shared, random_rows};
pub(crate) use point::LogitSums;

pub use crate::buffer::Buffer;
pub use at_point::PointDerivatives;
pub use catalogue::{CatalogueEntry, Given, PenaltyOption};
pub use cure::Direction;
pub use described::{Described, Invariance, OptionValue, PenaltySpec, Promises};
pub use formula::{Formula, FormulaError, FormulaFunction, FormulaName};
pub use geometric::Hinge;
pub use gram::{Alone, GramAdjoint, GramPenalty, GramPoint, Needs};
pub use input_gradient::{GradientAdjoint, GradientPoint, InputGradientPenalty};
pub use logits::LogitPenalty;
pub use pair::{PairAdjoint, PairPenalty, PairPoint};
pub use point::{LogitAdjoint, LogitPoint};
pub use rows::{JacobianAdjoint, JacobianPenalty, JacobianPoint};
pub use worst_case::Ball;

/// A function of the derivatives of a network at a sample, to be made small in training.
///
/// The definitions are per sample and unscaled; published codes differ by factors, which
/// [theory](crate::theory) lists.
#[derive(Clone, Debug, PartialEq)]
pub enum Penalty {
    /// `‖g‖²`, *double backpropagation* (Drucker & LeCun 1992; Ross & Doshi-Velez 2018).
    InputGradient,
    /// `‖g‖₂`. At `g = 0` its derivative is taken to be 0.
    InputGradientL2,
    /// `‖g‖₁`, to first order the growth of the loss under an ℓ∞ perturbation.
    InputGradientL1,
    /// `‖g‖_∞`, to first order the growth of the loss under an ℓ1 perturbation. The first largest
    /// entry counts.
    InputGradientLinf,
    /// `‖J‖_F² = tr G` (Jakubovitz & Giryes 2018 use its root, Hoffman et al. 2019 half of it).
    Jacobian,
    /// `‖J‖₂² = λ_max(G)`. At a repeated eigenvalue the derivative follows one of its eigenvectors.
    JacobianSpectral,
    /// `‖J‖_* = Σ_i √λ_i(G)`. Eigenvalues that are 0 to rounding contribute no derivative.
    JacobianNuclear,
    /// `(K/m) Σ_i ‖Jᵀ v_i‖²` with `m` random unit vectors `v_i` for each sample: an unbiased
    /// estimate of `‖J‖_F²` (Hoffman et al. 2019, algorithm 1).
    JacobianProjected {
        /// Number `m` of random vectors, from 1 to 65 536.
        rows: usize,
        /// Seed of the vectors; [`Objective::set_draw`](crate::Objective::set_draw) chooses among
        /// its draws.
        seed: u64,
    },
    /// `‖S J‖_F² = tr(S G S)`; for softmax, `S J` is the Jacobian of the probabilities.
    JacobianProbabilities,
    /// `Σ_{j,k} ‖J_j − J_k‖² = 2K tr(C G)` over ordered pairs of logits (Hein & Andriushchenko 2017
    /// divide it by `K²`).
    CrossLipschitz,
    /// `tr H = tr(S G)`.
    CurvatureTrace,
    /// `‖H‖_F² = tr(S G S G)`.
    CurvatureFrobenius,
    /// `‖H‖₂ = λ_max(S^½ G S^½)`. At a repeated eigenvalue the derivative follows one of its
    /// eigenvectors.
    CurvatureSpectral,
    /// `‖H z‖²` along `z = g/‖g‖`. At `g = 0` it and its derivative are 0.
    CurvatureDirectional,
    /// `‖∇ₓℓ(x + h z) − ∇ₓℓ(x)‖²` (Moosavi-Dezfooli et al. 2019, *Robustness via curvature
    /// regularization*). It is not divided by `h²`. At `g = 0`, `z = 0`.
    Cure {
        /// The step `h ≥ 0`, in input units.
        step: f64,
        /// How `z` follows from `g`.
        direction: Direction,
    },
    /// `log Σ_k p_k exp(ε ‖J_k − J_y‖•)`, with the softmax `p` of the logits and the label `y`: by
    /// how much the softmax cross-entropy of the label can grow in a ball of radius `ε` inside the
    /// region, or a bound on it for more than two classes (T70). With weight 1 it makes of that
    /// loss `log Σ_k exp(f_k − f_y + ε ‖J_k − J_y‖•)`.
    ///
    /// With fewer rivals the others enter with `ε = 0`. With a step `s` it is taken at `x'`, which
    /// lies `sε` along the steepest ascent of the loss and counts as constant, with radius
    /// `(1 − s)ε` and the change of the loss from `x` to `x'` added. Swept are as many rows as
    /// there are rivals.
    WorstCase(Ball),
    /// `ε ‖g‖• + (ε²/8) max_{j,k} ‖J_j − J_k‖•²`, by which the softmax cross-entropy grows at most
    /// in a ball of radius `ε` inside the region (T69). The first of the most distant pairs counts.
    WorstCaseQuadratic {
        /// The radius `ε ≥ 0` of the ball, in input units.
        epsilon: f64,
        /// Its norm; `‖·‖•` is the dual one.
        norm: Norm,
    },
    /// The part of CURE that jumps at the kinks, `‖Σ_i (J_{i+1} − J_i)ᵀ r(t_i)‖²` over all gates
    /// that switch between `x` and `x + h z`, at `t_i` (T54). At `g = 0` it is 0.
    ///
    /// Its derivative moves the crossings with the parameters. It jumps itself where a kink enters
    /// or leaves the segment.
    CureKinks {
        /// The step `h ≥ 0`, in input units.
        step: f64,
        /// How `z` follows from `g`.
        direction: Direction,
    },
    /// `(1/k) Σ_j max(0, 1 − d_j/γ)` over the `k` nearest hyperplanes of the region, at distances
    /// `d_j`: the first half of the maximum margin regularizer (Croce, Andriushchenko & Hein 2019,
    /// *Provable robustness of ReLU networks via maximization of linear regions*, equation 7).
    RegionBoundary(Hinge),
    /// The same with the signed distances `(f_y − f_c)/‖J_y − J_c‖` to the `k` nearest of the
    /// hyperplanes where the region's affine map decides between the target `y` and another class:
    /// the second half.
    DecisionBoundary(Hinge),
    /// The sum of both, the maximum margin regularizer.
    MaximumMargin(Hinge),
    /// A penalty that is written as a formula.
    Formula(Formula),
    /// A penalty from outside this crate, made by [`Penalty::logits`], [`Penalty::gram`],
    /// [`Penalty::rows`], [`Penalty::input_gradient`] or [`Penalty::pair`].
    Own(OwnPenalty),
}

/// A penalty from outside this crate, behind its door. Two are equal if their names and options
/// are.
#[derive(Clone)]
pub struct OwnPenalty(Door);

impl fmt::Debug for OwnPenalty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.described().fmt(f)
    }
}

impl PartialEq for OwnPenalty {
    fn eq(&self, other: &OwnPenalty) -> bool {
        PenaltySpec::of(self.0.described()) == PenaltySpec::of(other.0.described())
    }
}

/// How a penalty comes into the engine.
#[derive(Clone, Debug)]
pub(crate) enum Door {
    /// From `f` and `y` alone.
    Logits(Arc<dyn LogitPenalty>),
    /// From `f`, `y` and the Gram matrix.
    Gram(Arc<dyn GramPenalty>),
    /// From `f`, `y` and the input gradient.
    InputGradient(Arc<dyn InputGradientPenalty>),
    /// From `f`, `y` and the rows of the Jacobian.
    Rows(Arc<dyn JacobianPenalty>),
    /// From input gradients at two points.
    Pair(Arc<dyn PairPenalty>),
    /// From the hyperplanes around the sample or on the way from it.
    Geometric(Geometric),
}

impl Door {
    pub(crate) fn described(&self) -> &dyn Described {
        match self {
            Door::Logits(penalty) => &**penalty,
            Door::Gram(penalty) => &**penalty,
            Door::InputGradient(penalty) => &**penalty,
            Door::Rows(penalty) => &**penalty,
            Door::Pair(penalty) => &**penalty,
            Door::Geometric(penalty) => penalty,
        }
    }

    /// Whether the author promises that the penalty sees only differences of logits where the loss
    /// does.
    pub(crate) fn sees_only_differences(&self) -> bool {
        self.described().promises().invariance == Invariance::LogitDifferences
    }
}

impl Penalty {
    /// A penalty of one's own that is a function of the logits.
    pub fn logits(penalty: impl LogitPenalty + 'static) -> Penalty {
        Penalty::Own(OwnPenalty(Door::Logits(Arc::new(penalty))))
    }

    /// A penalty of one's own that is a function of the Gram matrix `J Jᵀ`.
    pub fn gram(penalty: impl GramPenalty + 'static) -> Penalty {
        Penalty::Own(OwnPenalty(Door::Gram(Arc::new(penalty))))
    }

    /// A penalty of one's own that is a function of the rows of the Jacobian.
    pub fn rows(penalty: impl JacobianPenalty + 'static) -> Penalty {
        Penalty::Own(OwnPenalty(Door::Rows(Arc::new(penalty))))
    }

    /// A penalty of one's own that is a function of the input gradient.
    pub fn input_gradient(penalty: impl InputGradientPenalty + 'static) -> Penalty {
        Penalty::Own(OwnPenalty(Door::InputGradient(Arc::new(penalty))))
    }

    /// A penalty of one's own that compares a sample with a second point.
    pub fn pair(penalty: impl PairPenalty + 'static) -> Penalty {
        Penalty::Own(OwnPenalty(Door::Pair(Arc::new(penalty))))
    }

    /// Its door, the only way into the engine.
    pub(crate) fn door(&self) -> Door {
        match *self {
            Penalty::InputGradient => Door::Gram(Arc::new(input_gradient::Squared)),
            Penalty::InputGradientL2 => {
                Door::InputGradient(Arc::new(input_gradient::Length(Norm::L2)))
            }
            Penalty::InputGradientL1 => {
                Door::InputGradient(Arc::new(input_gradient::Length(Norm::L1)))
            }
            Penalty::InputGradientLinf => {
                Door::InputGradient(Arc::new(input_gradient::Length(Norm::Linf)))
            }
            Penalty::Jacobian => Door::Gram(Arc::new(jacobian::Frobenius)),
            Penalty::JacobianSpectral => Door::Gram(Arc::new(jacobian::Spectral)),
            Penalty::JacobianNuclear => Door::Gram(Arc::new(jacobian::Nuclear)),
            Penalty::JacobianProjected { rows, seed } => {
                Door::Gram(Arc::new(jacobian::Projected { rows, seed }))
            }
            Penalty::JacobianProbabilities => Door::Gram(Arc::new(jacobian::Probabilities)),
            Penalty::CrossLipschitz => Door::Gram(Arc::new(cross_lipschitz::CrossLipschitz)),
            Penalty::CurvatureTrace => Door::Gram(Arc::new(curvature::Trace)),
            Penalty::CurvatureFrobenius => Door::Gram(Arc::new(curvature::Frobenius)),
            Penalty::CurvatureSpectral => Door::Gram(Arc::new(curvature::Spectral)),
            Penalty::CurvatureDirectional => Door::Gram(Arc::new(curvature::Directional)),
            Penalty::Cure { step, direction } => {
                Door::Pair(Arc::new(cure::Cure { step, direction }))
            }
            Penalty::WorstCase(ball) => Door::Rows(Arc::new(ball)),
            Penalty::WorstCaseQuadratic { epsilon, norm } => {
                Door::Rows(Arc::new(worst_case::Quadratic { epsilon, norm }))
            }
            Penalty::CureKinks { step, direction } => {
                Door::Geometric(Geometric::Kinks { step, direction })
            }
            Penalty::RegionBoundary(hinge) => Door::Geometric(Geometric::Region(hinge)),
            Penalty::DecisionBoundary(hinge) => Door::Geometric(Geometric::Decision(hinge)),
            Penalty::MaximumMargin(hinge) => Door::Geometric(Geometric::Margin(hinge)),
            Penalty::Formula(ref formula) => formula.door(),
            Penalty::Own(ref own) => own.0.clone(),
        }
    }

    /// Its row of the catalogue; none for a formula and a penalty from outside this crate.
    pub fn entry(&self) -> Option<&'static CatalogueEntry> {
        Some(match self {
            Penalty::InputGradient => &input_gradient::SQUARED,
            Penalty::InputGradientL2 => &input_gradient::L2,
            Penalty::InputGradientL1 => &input_gradient::L1,
            Penalty::InputGradientLinf => &input_gradient::LINF,
            Penalty::Jacobian => &jacobian::FROBENIUS,
            Penalty::JacobianSpectral => &jacobian::SPECTRAL,
            Penalty::JacobianNuclear => &jacobian::NUCLEAR,
            Penalty::JacobianProjected { .. } => &jacobian::PROJECTED,
            Penalty::JacobianProbabilities => &jacobian::PROBABILITIES,
            Penalty::CrossLipschitz => &cross_lipschitz::ENTRY,
            Penalty::CurvatureTrace => &curvature::TRACE,
            Penalty::CurvatureFrobenius => &curvature::FROBENIUS,
            Penalty::CurvatureSpectral => &curvature::SPECTRAL,
            Penalty::CurvatureDirectional => &curvature::DIRECTIONAL,
            Penalty::Cure { direction, .. } => cure::entry(*direction),
            Penalty::WorstCase(_) => &worst_case::WORST_CASE,
            Penalty::WorstCaseQuadratic { .. } => &worst_case::QUADRATIC,
            Penalty::CureKinks { direction, .. } => geometric::kinks(*direction),
            Penalty::RegionBoundary(hinge) => hinge.entry(&geometric::REGION),
            Penalty::DecisionBoundary(hinge) => hinge.entry(&geometric::DECISION),
            Penalty::MaximumMargin(hinge) => hinge.entry(&geometric::MARGIN),
            Penalty::Formula(_) | Penalty::Own(_) => return None,
        })
    }

    /// Its name, such as `curvature-trace`.
    pub fn name(&self) -> &str {
        if let Penalty::Own(own) = self {
            return own.0.described().name();
        }
        if let Penalty::Formula(formula) = self {
            return formula.name();
        }
        self.entry().expect("it is built in").name
    }

    /// Its name and options, which are its identity in files, tables and when work is resumed.
    pub fn spec(&self) -> PenaltySpec {
        let spec = PenaltySpec::of(self.door().described());
        if let Penalty::Formula(formula) = self {
            return spec.with_formula(formula);
        }
        spec
    }

    /// What is promised of it.
    pub fn promises(&self) -> Promises {
        self.door().described().promises()
    }

    /// What to take in its place where there are no classes to compare (values to regress to, or a
    /// single logit), if it compares classes.
    pub fn instead_of_classes(&self) -> Option<&'static str> {
        self.door().described().instead_of_classes()
    }

    /// Whether it comes through the Gram matrix `J Jᵀ` of each sample. All such penalties of an
    /// objective share one pair of sweeps.
    pub fn is_function_of_gram(&self) -> bool {
        matches!(self.door(), Door::Gram(_))
    }

    /// Whether it sees the hyperplanes where gates switch, and not only the derivatives at the
    /// sample. Its cost for each sample is that of a [`Region`](crate::Region) or a
    /// [`Walk`](crate::Walk).
    pub fn is_geometric(&self) -> bool {
        matches!(self.door(), Door::Geometric(_))
    }

    /// Whether it is a function of the Jacobian alone, so that it is constant in every activation
    /// region.
    pub fn is_function_of_jacobian(&self) -> bool {
        self.promises().function_of_jacobian
    }

    /// Whether it is defined, with its options, where there are `K` logits.
    ///
    /// # Errors
    /// [`Error::PenaltyOption`](crate::Error::PenaltyOption) or whatever its author gives.
    pub fn check_outputs(&self, outputs: usize) -> Result<()> {
        self.door().described().check_outputs(outputs)
    }

    /// Whether its options are in range.
    pub(crate) fn check(&self) -> Result<()> {
        self.door().described().check()
    }
}

impl fmt::Display for Penalty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The penalties on the derivatives at a sample, in the order of every list.
static AT_SAMPLE: [&CatalogueEntry; 18] = [
    &input_gradient::SQUARED,
    &input_gradient::L2,
    &input_gradient::L1,
    &input_gradient::LINF,
    &jacobian::FROBENIUS,
    &jacobian::SPECTRAL,
    &jacobian::NUCLEAR,
    &jacobian::PROJECTED,
    &jacobian::PROBABILITIES,
    &cross_lipschitz::ENTRY,
    &curvature::TRACE,
    &curvature::FROBENIUS,
    &curvature::SPECTRAL,
    &curvature::DIRECTIONAL,
    &cure::SIGN,
    &cure::GRADIENT,
    &worst_case::WORST_CASE,
    &worst_case::QUADRATIC,
];

/// The penalties on the hyperplanes around a sample.
static GEOMETRIC: [&CatalogueEntry; 11] = [
    &geometric::KINKS,
    &geometric::GRADIENT_KINKS,
    &geometric::REGION[0],
    &geometric::REGION[1],
    &geometric::REGION[2],
    &geometric::DECISION[0],
    &geometric::DECISION[1],
    &geometric::DECISION[2],
    &geometric::MARGIN[0],
    &geometric::MARGIN[1],
    &geometric::MARGIN[2],
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variant_is_in_the_catalogue() {
        use Penalty::*;
        // A new variant is a new arm here, and then one more below.
        let variant = |penalty: &Penalty| match penalty {
            InputGradient => 0,
            InputGradientL2 => 1,
            InputGradientL1 => 2,
            InputGradientLinf => 3,
            Jacobian => 4,
            JacobianSpectral => 5,
            JacobianNuclear => 6,
            JacobianProjected { .. } => 7,
            JacobianProbabilities => 8,
            CrossLipschitz => 9,
            CurvatureTrace => 10,
            CurvatureFrobenius => 11,
            CurvatureSpectral => 12,
            CurvatureDirectional => 13,
            Cure { .. } => 14,
            WorstCase(_) => 15,
            WorstCaseQuadratic { .. } => 16,
            CureKinks { .. } => 17,
            RegionBoundary(_) => 18,
            DecisionBoundary(_) => 19,
            MaximumMargin(_) => 20,
            Formula(_) => 21,
            Own(_) => 22,
        };
        let all = Penalty::catalogue().map(|entry| variant(&entry.penalty()));
        let all: std::collections::BTreeSet<usize> = all.collect();
        assert!(all.into_iter().eq(0..21));
    }
}
