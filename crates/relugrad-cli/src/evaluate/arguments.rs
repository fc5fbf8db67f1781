//! The options of `relugrad evaluate`.

use std::path::PathBuf;

use clap::Args;
use relugrad::Penalty;
use relugrad_train::attack::{ATTACKS, Entry};
use relugrad_train::robustness::EvaluationOptions;

use crate::data::TestData;
use crate::failure::Failure;
use crate::formula::Formulas;
use crate::loss::LossOption;
use crate::model::ModelFile;
use crate::threads::ThreadOption;
use crate::values::{List, Precision, Radii, all, count, whole};

/// Evaluate the robustness of a model: attacks from above, certificates from below
///
/// The test samples are attacked by every attack below, in linf and l2 at every size; DeepFool
/// looks for the smallest perturbations, and exact certificates bound them from below. Samples
/// without a gradient to follow are told apart by their reason. Every parameter of every attack is
/// printed. Of samples with values to regress to, the attacks raise the loss, and mean squared
/// errors take the place of accuracies; what needs classes is left out and named with the reason.
#[derive(Debug, Args)]
#[command(after_long_help = help())]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(super) model: ModelFile,

    #[command(flatten)]
    pub(super) data: TestData,

    #[command(flatten)]
    pub(super) loss: LossOption,

    /// Take all samples, those for testing first, instead of the test samples alone
    #[arg(long, help_heading = "Data")]
    pub(super) all: bool,

    /// Attack at most this many samples, from the first on
    #[arg(long, value_name = "N", default_value = "1000", value_parser = count)]
    samples: usize,

    /// Sizes of perturbations in linf, in units of the data, such as 8/255,0.1; '' for none
    #[arg(long, value_name = "RADII", default_value = "0.05,0.1,0.2")]
    linf: Radii,

    /// Sizes in l2; '' for none
    #[arg(long, value_name = "RADII", default_value = "0.25,0.5,1")]
    l2: Radii,

    /// Sizes in l1
    #[arg(long, value_name = "RADII", default_value = "")]
    l1: Radii,

    /// Gradient steps of PGD
    #[arg(long, value_name = "N", default_value = "40", value_parser = count)]
    pgd_steps: usize,

    /// Random starts of PGD, and number of random points
    #[arg(long, value_name = "N", default_value = "5", value_parser = count)]
    pgd_restarts: usize,

    /// Steps of Auto-PGD
    #[arg(long, value_name = "N", default_value = "100", value_parser = count)]
    apgd_steps: usize,

    /// Random starts of Auto-PGD
    #[arg(long, value_name = "N", default_value = "5", value_parser = count)]
    apgd_restarts: usize,

    /// The most steps of DeepFool; 0 leaves it out
    #[arg(long, value_name = "N", default_value = "50", value_parser = whole::<usize>)]
    deepfool_steps: usize,

    /// Certify at most this many samples; each costs a backward row for every gate, or a forward
    /// row for every input
    #[arg(long, value_name = "N", default_value = "100", value_parser = whole::<usize>)]
    certify: usize,

    /// Penalties whose value is told for each attacked sample (the names are those of
    /// `relugrad compare`), or none
    #[arg(long, value_name = "NAMES", default_value = "input-gradient,jacobian")]
    penalties: Vec<List<Penalty>>,

    #[command(flatten)]
    formulas: Formulas,

    /// Seed of random starts
    #[arg(long, value_name = "SEED", default_value = "0", value_parser = whole::<u64>)]
    seed: u64,

    #[command(flatten)]
    pub(super) threads: ThreadOption,

    /// Precision in which the model is run
    #[arg(long, value_name = "NAME", default_value = "f32")]
    pub(super) dtype: Precision,

    /// Write the evaluation's files to this directory
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,

    /// Replace an earlier evaluation in the directory of --out
    #[arg(long, requires = "out")]
    pub(super) overwrite: bool,

    /// Print the evaluation as one line of JSON instead of tables
    #[arg(long)]
    pub(super) json: bool,
}

/// What attacks there are, and examples.
fn help() -> String {
    let attack = |entry: &Entry| format!("  {:<10} {}\n", entry.title, entry.meaning);
    format!(
        "Attacks:\n{}\n{EXAMPLES}",
        ATTACKS.iter().map(attack).collect::<String>()
    )
}

const EXAMPLES: &str = "Examples:
  relugrad evaluate run/best.safetensors
  relugrad evaluate model.onnx --data mnist/ --linf 0.1,0.2,0.3 --l2 '' --samples 500 --out evaluation
  relugrad evaluate run/best.safetensors --data prices.csv --target-columns price --scale range
  relugrad evaluate model.onnx --data x.npy --labels y.npy --all --penalties jacobian,cure --json
  relugrad evaluate mnist.onnx --data mnist/ --mean 0.1307 --std 0.3081 --linf 8/255      # trained with standardised inputs
  relugrad evaluate control.onnx --data states.csv --all --box data                      # inputs that are no images

With --out DIR: evaluation.html (tables and plots), evaluation.json, samples.csv (a line for each attacked sample) and
adversarial.npz (arrays x, labels, and one of adversarial examples for each size and norm).";

impl Arguments {
    pub(super) fn evaluation(&self) -> Result<EvaluationOptions, Failure> {
        let formulas = self.formulas.penalties()?;
        Ok(EvaluationOptions {
            loss: self
                .loss
                .given()
                .map_err(|error| Failure::Usage(error.into()))?,
            linf: self.linf.0.clone(),
            l2: self.l2.0.clone(),
            l1: self.l1.0.clone(),
            samples: self.samples,
            pgd_steps: self.pgd_steps,
            pgd_restarts: self.pgd_restarts,
            apgd_steps: self.apgd_steps,
            apgd_restarts: self.apgd_restarts,
            deepfool_steps: self.deepfool_steps,
            certified: self.certify,
            penalties: [all(&self.penalties), formulas].concat(),
            seed: self.seed,
            ..EvaluationOptions::default()
        })
    }
}
