//! The options of `relugrad bench`.

use std::fmt;
use std::path::PathBuf;

use anyhow::anyhow;
use clap::{Args, ValueEnum};

use crate::failure::Failure;
use crate::formula::Formulas;
use crate::threads::ThreadOption;
use crate::values::{Precision, count, non_negative, positive, whole};

/// Time exact derivatives and training steps on this machine
///
/// A `step` is the value and all parameter gradients of softmax cross-entropy plus lambda times a
/// penalty, means over the batch, with buffers reused from step to step; the others compute their
/// arrays from the inputs on. Weights, inputs and labels are random unless --weights gives them.
/// The first runs are not counted. MiB is the most memory in use beyond network and data.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  relugrad bench
  relugrad bench --net 3072-1024-512-10 --workload jacobian-step,hvp --threads 2
  relugrad bench --net lenet --batch 64 --workload jacobian-step --json
  relugrad bench --workload plain-step,jacobian-step --formula 'tr(G)'
  relugrad bench --net model.onnx --workload all-penalties-step --explain

Files of --weights, little-endian: w0.bin, b0.bin, w1.bin, ... the parameters in the order of the layers (dense [out, in],
convolutions [out, in, height, width]), x.bin [batch, features] and v.bin [batch, features] as f32, y.bin [batch] as i64.
v.bin and y.bin are read if the workload needs them.")]
pub(crate) struct Arguments {
    /// Widths of a ReLU network with dashes, `lenet` (1x28x28, convolutions of 5x5 to 16 and 32
    /// channels with max-pooling, dense layers of 512 and 10), or a model file
    #[arg(long, value_name = "NET", default_value = "784-512-512-10")]
    pub(super) net: String,

    /// Samples at a time
    #[arg(long, value_name = "N", default_value = "128", value_parser = count)]
    pub(super) batch: usize,

    /// What to time
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = "plain-step,jacobian,jacobian-step"
    )]
    pub(super) workload: Vec<Workload>,

    #[command(flatten)]
    pub(super) formulas: Formulas,

    /// Precision of the computation
    #[arg(long, value_name = "NAME", default_value = "f32")]
    pub(super) dtype: Precision,

    #[command(flatten)]
    pub(super) threads: ThreadOption,

    /// Timed runs of each workload, after two that make its buffers and a tenth of a second of
    /// others
    #[arg(long, value_name = "N", default_value = "21", value_parser = count)]
    pub(super) repeat: usize,

    /// Seed of random weights, inputs and labels
    #[arg(long, value_name = "SEED", default_value = "0", value_parser = whole::<u64>)]
    pub(super) seed: u64,

    /// Weight lambda of the penalty in a step
    #[arg(long, value_name = "WEIGHT", default_value = "0.1", value_parser = non_negative)]
    pub(super) lambda: f64,

    /// CURE's step h, along z = sign(g)/‖sign(g)‖ held constant
    #[arg(long, value_name = "H", default_value = "1.5", value_parser = positive)]
    pub(super) cure_step: f64,

    /// Directory of parameters and inputs in raw files
    #[arg(long, value_name = "DIR")]
    pub(super) weights: Option<PathBuf>,

    /// One line of JSON for each workload
    #[arg(long)]
    pub(super) json: bool,

    /// Add to the JSON [value of the objective or null, norm of all outputs, Σ over arrays Σ_i a_i
    /// cos(0.7 i)]
    #[arg(long, requires = "json")]
    pub(super) check: bool,

    /// Also print what a step is made of: rows, orders, operations, activity, share of the
    /// machine's product rate
    #[arg(long, conflicts_with = "json")]
    pub(super) explain: bool,
}

impl Arguments {
    /// What is timed: a step with formulas too, if there are some.
    pub(super) fn workloads(&self) -> Result<Vec<Workload>, Failure> {
        let mut workloads = self.workload.clone();
        let asked = workloads.contains(&Workload::FormulaStep);
        match (asked, self.formulas.is_empty()) {
            (true, true) => Err(Failure::Usage(anyhow!(
                "--workload formula-step is that of a formula; give --formula"
            ))),
            (false, false) => {
                workloads.push(Workload::FormulaStep);
                Ok(workloads)
            }
            (true, false) | (false, true) => Ok(workloads),
        }
    }
}

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Workload {
    /// Loss and its parameter gradient
    PlainStep,
    /// The same with the squared norm of the input gradient
    InputGradientStep,
    /// The Jacobians of the batch
    Jacobian,
    /// Loss and squared Frobenius norm of the Jacobian
    JacobianStep,
    /// Loss and the cross-Lipschitz penalty
    CrossLipschitzStep,
    /// Hessian of the loss in the input times a vector, for each sample
    Hvp,
    /// Frobenius norm of that Hessian, for each sample
    HessianFrobenius,
    /// Loss and the squared Frobenius norm of the Hessian
    HessianFrobeniusStep,
    /// Loss and CURE
    CureStep,
    /// Loss and the formulas of --formula
    FormulaStep,
    /// Loss and all penalties that are functions of the Gram matrix
    AllPenaltiesStep,
    /// The Jacobians by forward differences, one feature at a time
    FiniteDifferenceJacobian,
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let value = self.to_possible_value().expect("no workload is hidden");
        f.pad(value.get_name())
    }
}
