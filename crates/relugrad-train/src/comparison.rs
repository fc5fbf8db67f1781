//! What a comparison measures, in a form that can be written to a file and read back.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::attack::AttackSettings;
use crate::configuration::PenaltySettings;
use crate::options::Adversarial;
use crate::report::Divergence;

/// The outcome of a comparison: its settings, and one run for each regularizer and seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// What every run had in common.
    pub settings: Settings,
    /// The finished runs, in the order in which they were trained: all regularizers of the first seed,
    /// then all of the second.
    pub runs: Vec<Run>,
    /// The runs whose training diverged, in the same order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diverged: Vec<Diverged>,
    /// Whether every planned run is in `runs` or `diverged`; false after an interrupt.
    pub complete: bool,
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
    /// One entry for each epoch before that.
    pub curve: Vec<EpochMetrics>,
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
    /// Checksums of the training and of the test samples, by which other contents are noticed; earlier versions had none.
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
    /// All that is common to the trainings: a [`Training`](crate::Training) without its objective. Earlier versions have a text
    /// here, by which nothing can be gone on with.
    #[serde(default)]
    pub training: Value,
    /// The penalties that are compared, each with all of its weights.
    pub penalties: Vec<PenaltySettings>,
    /// The adversarial trainings that they are compared with.
    #[serde(default)]
    pub adversarial: Vec<Adversarial>,
    /// Threads that computed it. They change the time, never the numbers.
    pub threads: usize,
    /// Attacks of the evaluation, in the order of [`Measured::robust_accuracy`].
    pub attacks: Vec<ShownAttack>,
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
    /// Weight of the penalty in the objective; 0 for plain training, the size of examples for adversarial training.
    pub lambda: f64,
    /// Seed of the initialisation and of the order of the samples.
    pub seed: u64,
    /// One entry for each epoch.
    pub curve: Vec<EpochMetrics>,
    /// Measured after the last epoch, on the test samples.
    pub evaluation: Measured,
    /// Median time of a training step in milliseconds.
    pub step_milliseconds: f64,
}

/// Metrics of one training epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochMetrics {
    /// Number of the epoch, from 1.
    pub epoch: usize,
    /// Mean cross-entropy over the samples of the epoch, each at the step that used it.
    pub train_loss: f64,
    /// Accuracy over the samples of the epoch, each at the step that used it; in `[0, 1]`.
    pub train_accuracy: f64,
    /// Mean of the penalty before λ, over the same samples; 0 for plain training.
    pub train_penalty: f64,
    /// Mean cross-entropy on the test samples after the epoch.
    pub test_loss: f64,
    /// Accuracy on the test samples after the epoch; in `[0, 1]`.
    pub test_accuracy: f64,
}

/// What is measured on the test samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Share of test samples classified correctly; in `[0, 1]`.
    pub clean_accuracy: f64,
    /// Mean cross-entropy.
    pub loss: f64,
    /// Share of the attacked samples classified correctly before the attack; in `[0, 1]`.
    pub attacked_clean_accuracy: f64,
    /// Share of the attacked samples still classified correctly under each attack of [`Settings::attacks`].
    pub robust_accuracy: Vec<f64>,
    /// Mean over the test samples of every compared penalty, whichever one was trained; over the attacked samples of
    /// those on hyperplanes.
    pub penalties: Vec<PenaltyMean>,
    /// Certified radii, if they were wanted.
    #[serde(default)]
    pub certified: Option<Certified>,
    /// Test samples with a pre-activation exactly at a kink, where derivatives follow a convention.
    pub samples_on_kink: usize,
}

/// Medians of the radii within which no perturbation changes the class: the distance to the nearest kink or to the
/// decision boundary of the region, and 0 where the class is wrong.
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
