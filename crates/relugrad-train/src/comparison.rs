//! What a comparison measures, in a form that can be written to a file and read back.

use relugrad::Loss;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::attack::AttackSettings;
use crate::configuration::{LossSettings, PenaltySettings};
use crate::options::Adversarial;
use crate::report::{Divergence, EpochReport};
use crate::score::{Quality, Score};
use crate::shard::Part;

/// The outcome of a comparison: its settings, and one run for each regularizer and seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// What every run had in common.
    pub settings: Settings,
    /// The finished runs, in the order in which they were trained: all regularizers of the first
    /// seed, then all of the second.
    pub runs: Vec<Run>,
    /// The runs whose training diverged, in the same order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diverged: Vec<Diverged>,
    /// Whether every planned run, or every one of the shard, is in `runs` or `diverged`; false after
    /// an interrupt.
    pub complete: bool,
    /// Which shard of a comparison this is, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
}

/// A run that has no evaluation, because its numbers left the finite ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Diverged {
    /// Its number among the planned runs, from 0.
    pub number: usize,
    /// As in [`Run`].
    pub regularizer: String,
    /// As in [`Run`].
    pub lambda: f64,
    /// As in [`Run`].
    pub seed: u64,
    /// Where, and which number.
    #[serde(flatten)]
    pub at: Divergence,
    /// The epochs before that; validation is on the test samples.
    pub curve: Vec<EpochReport>,
}

/// What every run of a comparison had in common.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Version of relugrad that made the comparison.
    pub version: String,
    /// Name of the data set, such as `digits` or `mnist`.
    pub data: String,
    /// Number of training samples.
    pub train_samples: usize,
    /// Number of test samples.
    pub test_samples: usize,
    /// Checksums of the training and of the test samples, by which other contents are noticed;
    /// earlier versions had none.
    #[serde(default)]
    pub data_checksums: Vec<String>,
    /// Number of test samples that the attacks were run on, from the first on.
    pub attack_samples: usize,
    /// Number of these that were certified.
    #[serde(default)]
    pub certified_samples: usize,
    /// The network, such as `mlp:128,128`.
    pub model: String,
    /// Number of trained parameters.
    pub parameters: usize,
    /// The loss.
    #[serde(default = "cross_entropy")]
    pub loss: LossSettings,
    /// Whether the samples have values to regress to, and not classes.
    #[serde(default)]
    pub regression: bool,
    /// The box that attacks do not leave, if it is not `[0, 1]`.
    #[serde(default, rename = "box", skip_serializing_if = "Option::is_none")]
    pub bounds: Option<String>,
    /// Means and deviations of the channels in a first layer of the networks that standardises.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standardised: Option<[Vec<f64>; 2]>,
    /// Passes over the training samples.
    pub epochs: usize,
    /// Samples in a mini-batch.
    pub batch_size: usize,
    /// Name of the optimizer: `sgd` or `adam`.
    pub optimizer: String,
    /// Learning rate.
    pub learning_rate: f64,
    /// Epochs over which λ grows linearly from 0 to its value.
    pub warmup_epochs: f64,
    /// Seeds of the planned runs.
    pub seeds: Vec<u64>,
    /// All that is common to the trainings: a [`Training`](crate::Training) without its objective.
    /// Earlier versions have a text here, by which nothing can be gone on with.
    #[serde(default)]
    pub training: Value,
    /// The penalties that are compared, each with all of its weights.
    pub penalties: Vec<PenaltySettings>,
    /// The adversarial trainings that they are compared with.
    #[serde(default)]
    pub adversarial: Vec<Adversarial>,
    /// Threads that computed it. They change the time, never the numbers.
    pub threads: usize,
    /// Attacks of the evaluation, in the order of [`Measures::robust`].
    pub attacks: Vec<ShownAttack>,
}

/// The loss of earlier versions.
fn cross_entropy() -> LossSettings {
    LossSettings::new(&Loss::softmax_cross_entropy())
}

/// One attack of the evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShownAttack {
    /// The attack.
    #[serde(flatten)]
    pub attack: AttackSettings,
    /// Whether the table of the comparison shows it. The others only draw curves.
    pub headline: bool,
}

/// One training run and its evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Name of the penalty, `none` for plain training, or `pgd-training`.
    pub regularizer: String,
    /// Weight of the penalty in the objective; 0 for plain training, the size of examples for
    /// adversarial training.
    pub lambda: f64,
    /// Seed of the initialisation and of the order of the samples.
    pub seed: u64,
    /// All epochs; validation is on the test samples.
    pub curve: Vec<EpochReport>,
    /// Measured after the last epoch, on the test samples.
    pub evaluation: Measured,
    /// Median time of a training step in milliseconds.
    pub step_milliseconds: f64,
}

/// What is measured on the test samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// How good predictions are, and how good they stay under each attack of [`Settings::attacks`].
    #[serde(flatten)]
    pub quality: Measures,
    /// Mean loss.
    pub loss: f64,
    /// Mean over the test samples of every compared penalty, whichever one was trained; over the
    /// attacked samples of those on hyperplanes.
    pub penalties: Vec<PenaltyMean>,
    /// Certified radii, if they were wanted.
    #[serde(default)]
    pub certified: Option<Certified>,
    /// Test samples with a pre-activation exactly at a kink, where derivatives follow a convention.
    pub samples_on_kink: usize,
}

/// How good predictions are before and under attacks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Measures {
    /// Of classes.
    Classes {
        /// Share of test samples classified correctly; in `[0, 1]`.
        clean_accuracy: f64,
        /// Share of the attacked samples classified correctly before the attack.
        attacked_clean_accuracy: f64,
        /// Share of the attacked samples still classified correctly under each attack.
        robust_accuracy: Vec<f64>,
    },
    /// Of values; see [`Quality::Values`].
    Values {
        /// Mean squared error on the test samples.
        clean_mse: f64,
        /// `R²` on them.
        clean_r2: f64,
        /// Mean squared error on the attacked samples before the attack.
        attacked_clean_mse: f64,
        /// The same under each attack.
        robust_mse: Vec<f64>,
        /// `R²` of the attacked samples under each attack.
        robust_r2: Vec<f64>,
        /// Mean loss of the attacked samples under each attack.
        robust_loss: Vec<f64>,
    },
}

impl Measures {
    /// Those of scores on all test samples, on the attacked ones, and on these under each attack;
    /// all are of one kind.
    pub fn new(clean: Quality, attacked: Quality, robust: &[Score]) -> Measures {
        let headlines = || robust.iter().map(|score| score.quality.headline());
        match clean {
            Quality::Classes { accuracy } => Measures::Classes {
                clean_accuracy: accuracy,
                attacked_clean_accuracy: attacked.headline(),
                robust_accuracy: headlines().collect(),
            },
            Quality::Values { mse, r2 } => Measures::Values {
                clean_mse: mse,
                clean_r2: r2,
                attacked_clean_mse: attacked.headline(),
                robust_mse: headlines().collect(),
                robust_r2: robust
                    .iter()
                    .map(|score| score.quality.metrics()[1].1)
                    .collect(),
                robust_loss: robust.iter().map(|score| score.loss).collect(),
            },
        }
    }

    /// Accuracy or mean squared error on the test samples.
    pub fn clean(&self) -> f64 {
        match self {
            Measures::Classes { clean_accuracy, .. } => *clean_accuracy,
            Measures::Values { clean_mse, .. } => *clean_mse,
        }
    }

    /// Accuracy or mean squared error on the attacked samples before the attack.
    pub fn attacked_clean(&self) -> f64 {
        match self {
            Measures::Classes {
                attacked_clean_accuracy,
                ..
            } => *attacked_clean_accuracy,
            Measures::Values {
                attacked_clean_mse, ..
            } => *attacked_clean_mse,
        }
    }

    /// Accuracy or mean squared error under each attack.
    pub fn robust(&self) -> &[f64] {
        match self {
            Measures::Classes {
                robust_accuracy, ..
            } => robust_accuracy,
            Measures::Values { robust_mse, .. } => robust_mse,
        }
    }
}

/// Medians of the radii within which no perturbation changes the class: the distance to the nearest
/// kink or to the decision boundary of the region, and 0 where the class is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Certified {
    /// Test samples that were certified, from the first on.
    pub samples: usize,
    /// Median in ℓ∞; infinite for a network that tells no classes apart (`null` in JSON).
    #[serde(deserialize_with = "infinite_if_null")]
    pub linf: f64,
    /// Median in ℓ2.
    #[serde(deserialize_with = "infinite_if_null")]
    pub l2: f64,
}

/// JSON has no infinity.
fn infinite_if_null<'de, D: Deserializer<'de>>(source: D) -> Result<f64, D::Error> {
    let radius = Option::<f64>::deserialize(source)?;
    Ok(radius.unwrap_or(f64::INFINITY))
}

/// Mean of one penalty over a set of samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PenaltyMean {
    /// Name of the penalty.
    pub name: String,
    /// Mean of its per-sample values, before λ.
    pub mean: f64,
}
