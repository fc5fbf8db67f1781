//! What a training tells of itself.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a training step found, before it changed the parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// The epoch, from 1.
    pub epoch: usize,
    /// The step in all epochs, from 1.
    pub step: u64,
    /// Number of steps in all epochs.
    pub steps: u64,
    /// Mean loss of the batch.
    pub loss: f64,
    /// Mean of each penalty over the batch, before its weight; empty in a step without penalties.
    pub penalties: Vec<f64>,
    /// The objective that was differentiated.
    pub objective: f64,
    /// The ℓ2 norm of its gradient, before clipping.
    pub gradient_norm: f64,
    /// The learning rate of the step.
    pub learning_rate: f64,
}

/// Metrics of an epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochReport {
    /// The epoch, from 1.
    pub epoch: usize,
    /// Steps taken so far.
    pub step: u64,
    /// Learning rate of its last step.
    pub learning_rate: f64,
    /// Mean loss of the training samples, each at the step that used it and as that step changed it.
    pub train_loss: f64,
    /// Accuracy on the training samples, likewise; in `[0, 1]`.
    pub train_accuracy: f64,
    /// Mean of each penalty, before its weight, over the samples of steps with penalties.
    pub train_penalties: Vec<f64>,
    /// Mean loss on the validation samples after the epoch, if there are any.
    pub validation_loss: Option<f64>,
    /// Accuracy on them; in `[0, 1]`.
    pub validation_accuracy: Option<f64>,
    /// Whether no epoch before was as good.
    pub best: bool,
}

/// What one step brought.
#[derive(Clone, Debug, PartialEq)]
pub struct StepOutcome {
    /// The step.
    pub step: StepReport,
    /// The epoch, if the step was its last.
    pub epoch: Option<EpochReport>,
}

/// Where a training left the finite numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Divergence {
    /// The step in all epochs, from 1.
    pub step: u64,
    /// Its epoch, from 1.
    pub epoch: usize,
    /// What is not finite, such as `the loss` or `the parameters`.
    pub quantity: String,
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}: {} is not finite", self.place(), self.quantity)
    }
}

impl Divergence {
    /// Such as `diverged at step 120 (epoch 3)`.
    pub fn place(&self) -> String {
        format!("diverged at step {} (epoch {})", self.step, self.epoch)
    }
}

/// What a training left besides the network.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    /// Metrics of the finished epochs.
    pub epochs: Vec<EpochReport>,
    /// Median time of a step: taking the batch, the objective with its gradient, and the optimizer.
    pub step_time: Duration,
    /// Whether training came to its end; false if the watcher ended it.
    pub complete: bool,
}
