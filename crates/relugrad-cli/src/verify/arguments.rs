//! The options of `relugrad verify`.

use clap::Args;

use crate::data::TestData;
use crate::formula::Formulas;
use crate::loss::LossOption;
use crate::model::ModelFile;
use crate::threads::ThreadOption;
use crate::values::{Precision, count, positive, whole};

/// Check the theorems on a model and data
///
/// At every sample each statement of docs/theory.md that applies is checked: that the network is
/// affine on its region, that the sweeps are adjoint, what every penalty is and how the penalties
/// bound each other, CURE inside and across regions, certificates, and the local worst case. Values
/// come from forward passes and textbook formulas, derivatives from the engine. The table shows the
/// largest and the median residual relative to the size of what is compared, and what rounding
/// explains. A statement that was checked at no sample is not checked: because it says nothing
/// about such a network, or because its hypotheses hold at none of the samples. The last line
/// counts all three. Warnings count samples on a kink or saturated to rounding. Where maxima of
/// max-pooling tie, as over equal pixels, a sample is checked at a point a little beside it.
///
/// With --formula, formulas are checked in place of the theorems, in f64: the exact parameter
/// gradient against differences of values, and what a formula's form shows; and it is found out
/// which other properties hold at the samples: invariance under a common function of all logits,
/// degree in the Jacobian, sign, gradients that are 0 in biases.
///
/// Exit code 1 if a statement does not hold. In JSON, `holds` says that every statement that is
/// about this network was checked and holds.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  relugrad compare --out result
  relugrad verify result/models/jacobian-seed0.safetensors --data digits
  relugrad verify model.safetensors --data mnist/ --samples 50 --dtype f64 --json
  relugrad verify model.safetensors --samples 20 --formula 'flat: norm2(g) + tr(S*G)'
  relugrad verify run/best.safetensors --data prices.csv --target-columns price --scale range")]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(super) model: ModelFile,

    #[command(flatten)]
    pub(super) data: TestData,

    /// Check at most this many test samples, from the first on
    #[arg(long, value_name = "N", default_value = "100", value_parser = count)]
    pub(super) samples: usize,

    /// Precisions in which the model is run
    #[arg(
        long,
        value_name = "NAMES",
        default_value = "f64,f32",
        value_delimiter = ','
    )]
    pub(super) dtype: Vec<Precision>,

    #[command(flatten)]
    pub(super) loss: LossOption,

    #[command(flatten)]
    pub(super) formulas: Formulas,

    /// Seed of the random directions
    #[arg(long, value_name = "SEED", default_value = "0", value_parser = whole::<u64>)]
    pub(super) seed: u64,

    /// Step h of CURE across regions, in input units
    #[arg(long, value_name = "H", default_value = "1.5", value_parser = positive)]
    pub(super) cure_step: f64,

    #[command(flatten)]
    pub(super) threads: ThreadOption,

    /// Print all results as one line of JSON instead of tables
    #[arg(long)]
    pub(super) json: bool,
}
