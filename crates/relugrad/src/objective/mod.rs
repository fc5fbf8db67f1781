//! `loss + Σ_i λ_i penalty_i` over a batch: value, every term, and the exact parameter gradient.

mod culprit;
mod forward;
mod geometric;
mod gram;
mod input_gradient;
mod logits;
mod mean;
mod moved;
mod pair;
mod pass;
mod plan;
mod rows;
mod sample;
mod scale;
mod work;
mod workspace;

use std::fmt;

use ndarray::ArrayView2;

use crate::error::{Error, Result, check_non_negative};
use crate::loss::{Function, Loss, Targets};
use crate::network::Network;
use crate::parallel::on_pool;
use crate::parameters::Parameters;
use crate::penalty::Penalty;
use crate::scalar::Scalar;
use forward::Context;
use plan::Doors;
use scale::Scale;

pub use pass::Pass;
pub use plan::SweepStrategy;
pub use work::Stage;
pub use workspace::{Evaluation, Workspace};

/// A penalty and its weight.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// The penalty.
    pub penalty: Penalty,
    /// Its weight `λ ≥ 0`.
    pub lambda: f64,
}

/// The objective `mean_b ℓ + Σ_i λ_i mean_b penalty_i` of a batch.
///
/// The parameter gradient is exact (off the region boundaries) and needs no second-order
/// differentiation: the penalties' part comes from one backward and one forward sweep with a few
/// rows per sample, and joins the loss in one ordinary backward pass ([theory](crate::theory),
/// section 3). All penalties that are functions of the Gram matrix share one pair of sweeps, and
/// all that are functions of the input gradient another.
///
/// | option | default | purpose |
/// | --- | --- | --- |
/// | `loss` | | the loss `ℓ` on the logits |
/// | [`with`](Self::with) | no penalty | adds a penalty with weight `λ ≥ 0` |
/// | [`penalties_only`](Self::penalties_only) | no | leaves the loss out |
/// | [`with_strategy`](Self::with_strategy) | [`SweepStrategy::Fewest`] | how sweeps are evaluated |
/// | [`set_draw`](Self::set_draw) | 0 | the random stream of projected penalties |
///
/// ```
/// use ndarray::array;
/// use relugrad::{Loss, Mlp, Objective, Penalty, Targets};
///
/// let network = Mlp::new(&[2, 8, 3]).build::<f64>(1)?;
/// let objective = Objective::new(Loss::softmax_cross_entropy())
///     .with(Penalty::Jacobian, 0.01)?
///     .with(Penalty::CurvatureTrace, 0.1)?;
/// let inputs = array![[0.5, -1.0], [0.25, 2.0]];
/// let (evaluation, gradient) = objective.gradient(&network, inputs.view(), &Targets::Classes(&[0, 2]))?;
/// let [jacobian, curvature] = evaluation.penalties[..] else { unreachable!() };
/// let expected = evaluation.loss + 0.01 * jacobian + 0.1 * curvature;
/// assert!((evaluation.value - expected).abs() < 1e-12);
/// assert_eq!(gradient.len(), network.parameters().len());
/// # Ok::<(), relugrad::Error>(())
/// ```
#[derive(Clone)]
pub struct Objective {
    loss: Loss,
    function: Function,
    terms: Vec<Term>,
    doors: Doors,
    strategy: SweepStrategy,
    draw: u64,
    penalties_only: bool,
    /// Weights of the samples, or none if all count alike.
    sample_weights: Vec<f64>,
}

impl fmt::Debug for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut objective = f.debug_struct("Objective");
        objective
            .field("loss", &self.loss)
            .field("terms", &self.terms)
            .field("strategy", &self.strategy)
            .field("draw", &self.draw)
            .field("penalties_only", &self.penalties_only)
            .finish()
    }
}

impl PartialEq for Objective {
    fn eq(&self, other: &Objective) -> bool {
        self.loss == other.loss
            && self.terms == other.terms
            && (self.strategy, self.draw, self.penalties_only)
                == (other.strategy, other.draw, other.penalties_only)
            && self.sample_weights == other.sample_weights
    }
}

impl Objective {
    /// The loss alone.
    pub fn new(loss: Loss) -> Objective {
        Objective {
            function: loss.function(),
            loss,
            terms: Vec::new(),
            doors: Doors::default(),
            strategy: SweepStrategy::Fewest,
            draw: 0,
            penalties_only: false,
            sample_weights: Vec::new(),
        }
    }

    /// Adds `lambda · penalty`.
    ///
    /// # Errors
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) for a negative or non-finite `lambda`, or an
    /// option of the penalty that is out of range.
    pub fn with(mut self, penalty: Penalty, lambda: f64) -> Result<Objective> {
        penalty.check()?;
        check_non_negative(&format!("lambda of {penalty}"), lambda)?;
        self.doors.add(self.terms.len(), penalty.door());
        self.terms.push(Term { penalty, lambda });
        Ok(self)
    }

    /// The same with other terms, which have been checked.
    fn with_terms(&self, terms: Vec<Term>) -> Objective {
        let mut doors = Doors::default();
        for (i, term) in terms.iter().enumerate() {
            doors.add(i, term.penalty.door());
        }
        Objective {
            terms,
            doors,
            ..self.clone()
        }
    }

    /// Selects the evaluation strategy; the results are the same up to rounding.
    pub fn with_strategy(mut self, strategy: SweepStrategy) -> Objective {
        self.strategy = strategy;
        self
    }

    /// Leaves the loss out of the sum, so that value and gradient are those of `Σ λ_i penalty_i`
    /// alone.
    pub fn penalties_only(mut self) -> Objective {
        self.penalties_only = true;
        self
    }

    fn loss_weight(&self) -> f64 {
        if self.penalties_only { 0.0 } else { 1.0 }
    }

    /// Sets the random stream of projected penalties, such as the index of the training step.
    pub fn set_draw(&mut self, draw: u64) {
        self.draw = draw;
    }

    /// Gives each sample `b` of the following batches a weight `w_b ≥ 0`: means over the batch
    /// become `Σ_b w_b φ_b / Σ_b w_b`, of the loss and of every penalty. Values at single samples
    /// stay as they are. Without weights, or with equal ones, all samples count alike.
    ///
    /// # Errors
    /// [`Error::SampleWeights`] if one is negative or not finite, or if all are 0.
    pub fn set_sample_weights(&mut self, weights: &[f64]) -> Result<()> {
        let bad = weights.iter().position(|w| !(w.is_finite() && *w >= 0.0));
        if let Some(sample) = bad {
            return Err(Error::SampleWeights {
                problem: format!(
                    "the weight of sample {sample} is {} but must be finite and at least 0",
                    weights[sample]
                ),
            });
        }
        let total: f64 = weights.iter().sum();
        let has_mean = total > 0.0 && total.is_finite();
        if !weights.is_empty() && !has_mean {
            return Err(Error::SampleWeights {
                problem: format!("the sum of the samples' weights is {total}"),
            });
        }
        self.sample_weights.clear();
        self.sample_weights.extend_from_slice(weights);
        Ok(())
    }

    /// Changes the weight of the `index`-th term.
    ///
    /// # Errors
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) for a negative or non-finite weight or no
    /// such term.
    pub fn set_lambda(&mut self, index: usize, lambda: f64) -> Result<()> {
        let missing = Error::OutOfRange {
            option: "index of the term".into(),
            value: index as f64,
            expected: "less than the number of terms",
        };
        let term = self.terms.get_mut(index).ok_or(missing)?;
        check_non_negative(&format!("lambda of {}", term.penalty), lambda)?;
        term.lambda = lambda;
        Ok(())
    }

    /// The loss.
    pub fn loss(&self) -> &Loss {
        &self.loss
    }

    /// The penalties with their weights, in the order in which they were added.
    pub fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// The objective and each of its terms; `inputs: [B, D]`.
    ///
    /// # Errors
    /// Those of [`Network::trace`] and of the targets, [`Error::Loss`](crate::Error::Loss),
    /// [`Error::Eigenvalues`](crate::Error::Eigenvalues),
    /// [`Error::NotFinite`](crate::Error::NotFinite) if a term overflows, and
    /// [`Error::Underflow`](crate::Error::Underflow) if the network's scale is below what `f64`
    /// holds.
    pub fn value<T: Scalar>(
        &self,
        network: &Network<T>,
        inputs: ArrayView2<T>,
        targets: &Targets<T>,
    ) -> Result<Evaluation> {
        let mut workspace = Workspace::new();
        self.value_into(network, inputs, targets, &mut workspace)?;
        Ok(workspace.into_parts().0)
    }

    /// The objective, each of its terms, and its parameter gradient; `inputs: [B, D]`.
    ///
    /// # Errors
    /// As for [`value`](Self::value), and [`Error::Gradient`](crate::Error::Gradient) for an entry
    /// that is not finite.
    pub fn gradient<T: Scalar>(
        &self,
        network: &Network<T>,
        inputs: ArrayView2<T>,
        targets: &Targets<T>,
    ) -> Result<(Evaluation, Parameters<T>)> {
        let mut workspace = Workspace::new();
        self.gradient_into(network, inputs, targets, &mut workspace)?;
        let (evaluation, gradient) = workspace.into_parts();
        Ok((evaluation, gradient.expect("it was just computed")))
    }

    /// [`value`](Self::value) into a workspace whose buffers are reused.
    ///
    /// # Errors
    /// As for [`value`](Self::value).
    pub fn value_into<T: Scalar>(
        &self,
        network: &Network<T>,
        inputs: ArrayView2<T>,
        targets: &Targets<T>,
        workspace: &mut Workspace<T>,
    ) -> Result<()> {
        self.evaluate(network, inputs, targets, workspace, false)
    }

    /// [`gradient`](Self::gradient) into a workspace whose buffers are reused, for training.
    ///
    /// # Errors
    /// As for [`gradient`](Self::gradient).
    pub fn gradient_into<T: Scalar>(
        &self,
        network: &Network<T>,
        inputs: ArrayView2<T>,
        targets: &Targets<T>,
        workspace: &mut Workspace<T>,
    ) -> Result<()> {
        self.evaluate(network, inputs, targets, workspace, true)
    }

    fn evaluate<T: Scalar>(
        &self,
        network: &Network<T>,
        inputs: ArrayView2<T>,
        targets: &Targets<T>,
        workspace: &mut Workspace<T>,
        derivatives: bool,
    ) -> Result<()> {
        workspace.forget();
        self.doors.check_outputs(network.outputs())?;
        let scale = Scale::of(network, &inputs);
        let is_wide = T::EPSILON.into_f64() == f64::EPSILON;
        if is_wide {
            scale.check(network, !self.terms.is_empty())?;
        } else if !scale.fits::<T>(!self.terms.is_empty()) {
            return self.evaluate_wide(network, inputs, targets, workspace, derivatives);
        }
        let found = self.evaluate_here(network, inputs, targets, workspace, derivatives);
        let found = found.and_then(|()| match &workspace.adjoint {
            Some(adjoint) if derivatives && !workspace.is_finite => {
                let finite = |g: T| g.is_finite();
                self.check_gradient((network, inputs, targets), &adjoint.parameters, &finite)
            }
            _ => Ok(()),
        });
        match found {
            Err(Error::NotFinite { .. } | Error::Gradient { .. }) if !is_wide => {
                self.evaluate_wide(network, inputs, targets, workspace, derivatives)
            }
            found => {
                found?;
                workspace.finish(network, derivatives);
                Ok(())
            }
        }
    }

    /// The evaluation in the network's own type, which may leave a gradient that is not finite.
    fn evaluate_here<T: Scalar>(
        &self,
        network: &Network<T>,
        inputs: ArrayView2<T>,
        targets: &Targets<T>,
        workspace: &mut Workspace<T>,
        derivatives: bool,
    ) -> Result<()> {
        let operations = inputs.nrows() * network.parameters().len();
        on_pool(operations, || {
            workspace.start(self, network, inputs, targets, derivatives)?;
            let Workspace {
                forward,
                evaluation,
                adjoint,
                stages,
                ..
            } = workspace;
            let at = Context {
                objective: self,
                network,
                forward,
                plan: self.plan(network.outputs()),
            };
            let mut adjoint = adjoint.as_mut().filter(|_| derivatives);
            logits::run(&at, evaluation, adjoint.as_deref_mut())?;
            stages
                .input_gradient
                .run(&at, evaluation, adjoint.as_deref_mut())?;
            stages.gram.run(&at, evaluation, adjoint.as_deref_mut())?;
            stages.rows.run(&at, evaluation, adjoint.as_deref_mut())?;
            stages.geometric.run(&at, evaluation, adjoint)?;
            if derivatives {
                workspace.finish_gradient(network, self.terms.is_empty());
            }
            workspace.finish_value(self)
        })
    }
}
