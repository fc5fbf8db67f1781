//! What the stages of an evaluation share: the forward pass, which they read, and the derivatives,
//! to which they add.

use super::Objective;
use super::plan::StagePlan;
use crate::loss::LossBatch;
use crate::network::Network;
use crate::parameters::Parameters;
use crate::penalty::LogitPoint;
use crate::scalar::Scalar;
use crate::trace::ForwardState;

/// A batch that has gone through the network and the loss.
#[derive(Clone, Debug, Default)]
pub(super) struct Forward<T> {
    pub(super) state: ForwardState<T>,
    /// `[B, K]`.
    pub(super) targets: Vec<f64>,
    pub(super) loss: LossBatch,
    /// Weights of the samples, or none if all count alike, and their sum.
    pub(super) weights: Vec<f64>,
    pub(super) total: f64,
}

/// One evaluation, as its stages read it.
pub(super) struct Context<'a, T> {
    pub(super) objective: &'a Objective,
    pub(super) network: &'a Network<T>,
    pub(super) forward: &'a Forward<T>,
    pub(super) plan: StagePlan,
}

/// The derivatives that an evaluation collects.
#[derive(Clone, Debug)]
pub(super) struct Adjoint<T> {
    /// The derivative of the objective with respect to the logits; `[B, K]`.
    pub(super) logits: Vec<f64>,
    pub(super) parameters: Parameters<T>,
}

impl<T: Scalar> Forward<T> {
    pub(super) fn samples(&self) -> usize {
        self.state.samples
    }

    /// The weight of a sample beside the others.
    pub(super) fn weight(&self, sample: usize) -> f64 {
        self.weights.get(sample).copied().unwrap_or(1.0)
    }

    /// `λ w_b / Σ w`, the weight of a term at a sample.
    pub(super) fn share(&self, lambda: f64, sample: usize) -> f64 {
        lambda * self.weight(sample) / self.total
    }

    /// The weighted mean of one value for each sample.
    pub(super) fn mean<'v>(&self, values: impl Iterator<Item = &'v f64>) -> f64 {
        let weighted = values.enumerate().map(|(b, value)| self.weight(b) * value);
        weighted.sum::<f64>() / self.total
    }
}

impl<T: Scalar> Context<'_, T> {
    /// A sample at its logits.
    pub(super) fn point(&self, sample: usize) -> LogitPoint<'_> {
        let forward = self.forward;
        let function = &*self.objective.function;
        let inputs = self.network.inputs();
        LogitPoint::of(function, &forward.loss, &forward.targets, sample, inputs)
    }

    /// The weight `λ` of a term.
    pub(super) fn lambda(&self, term: usize) -> f64 {
        self.objective.terms[term].lambda
    }
}
