//! What a training tells of itself.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::score::{Quality, Score};

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
///
/// In files every number has a name of its own: `train_loss`, `train_accuracy`, `validation_mse`
/// and the like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Line", into = "Line")]
pub struct EpochReport {
    /// The epoch, from 1.
    pub epoch: usize,
    /// Steps taken so far.
    pub step: u64,
    /// Learning rate of its last step.
    pub learning_rate: f64,
    /// On the training samples, each at the step that used it and as that step changed it.
    pub train: Score,
    /// Mean of each penalty, before its weight, over the samples of steps with penalties.
    pub train_penalties: Vec<f64>,
    /// On the validation samples after the epoch, if there are any.
    pub validation: Option<Score>,
    /// Whether no epoch before was as good.
    pub best: bool,
}

/// An epoch in a file.
#[derive(Clone, Serialize, Deserialize)]
struct Line {
    epoch: usize,
    step: u64,
    learning_rate: f64,
    train_loss: f64,
    #[serde(flatten)]
    train: TrainQuality,
    train_penalties: Vec<f64>,
    validation_loss: Option<f64>,
    #[serde(flatten)]
    validation: ValidationQuality,
    best: bool,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum TrainQuality {
    Classes { train_accuracy: f64 },
    Values { train_mse: f64, train_r2: f64 },
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum ValidationQuality {
    Values {
        validation_mse: f64,
        validation_r2: f64,
    },
    Classes {
        validation_accuracy: Option<f64>,
    },
}

impl From<EpochReport> for Line {
    fn from(report: EpochReport) -> Line {
        let train = match report.train.quality {
            Quality::Classes { accuracy } => TrainQuality::Classes {
                train_accuracy: accuracy,
            },
            Quality::Values { mse, r2 } => TrainQuality::Values {
                train_mse: mse,
                train_r2: r2,
            },
        };
        let validation = match report.validation.map(|score| score.quality) {
            Some(Quality::Values { mse, r2 }) => ValidationQuality::Values {
                validation_mse: mse,
                validation_r2: r2,
            },
            found => ValidationQuality::Classes {
                validation_accuracy: found.and_then(|quality| quality.accuracy()),
            },
        };
        Line {
            epoch: report.epoch,
            step: report.step,
            learning_rate: report.learning_rate,
            train_loss: report.train.loss,
            train,
            train_penalties: report.train_penalties,
            validation_loss: report.validation.map(|score| score.loss),
            validation,
            best: report.best,
        }
    }
}

impl From<Line> for EpochReport {
    fn from(line: Line) -> EpochReport {
        let quality = match line.validation {
            ValidationQuality::Values {
                validation_mse: mse,
                validation_r2: r2,
            } => Some(Quality::Values { mse, r2 }),
            ValidationQuality::Classes {
                validation_accuracy,
            } => validation_accuracy.map(|accuracy| Quality::Classes { accuracy }),
        };
        let validation = line.validation_loss.zip(quality);
        EpochReport {
            epoch: line.epoch,
            step: line.step,
            learning_rate: line.learning_rate,
            train: Score {
                loss: line.train_loss,
                quality: match line.train {
                    TrainQuality::Classes { train_accuracy } => Quality::Classes {
                        accuracy: train_accuracy,
                    },
                    TrainQuality::Values {
                        train_mse: mse,
                        train_r2: r2,
                    } => Quality::Values { mse, r2 },
                },
            },
            train_penalties: line.train_penalties,
            validation: validation.map(|(loss, quality)| Score { loss, quality }),
            best: line.best,
        }
    }
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
