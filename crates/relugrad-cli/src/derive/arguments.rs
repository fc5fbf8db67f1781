//! The options of `relugrad derive`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum, value_parser};
use relugrad::{Loss, Objective};

use crate::data::Standardisation;
use crate::failure::Failure;
use crate::formula::Formulas;
use crate::loss::LossOption;
use crate::model::ModelFile;
use crate::threads::ThreadOption;
use crate::values::{List, Precision, all};

/// Write exact derivatives of a model at given inputs to an .npz file
///
/// Arrays, n being the number of inputs, D that of their features and K that of the logits:
/// `logits` [n, K], `loss` [n], `jacobian` J [n, K, D], `jvp` J v [n, K] and `vjp` Jᵀu [n, D] if v
/// and u are given, `input_gradient` g [n, D], `hvp` H v [n, D] if v is given,
/// `jacobian_frobenius_squared`, `jacobian_spectral` (the largest singular value),
/// `cross_lipschitz` (sum of ‖J_j − J_k‖² over ordered pairs), `hessian_trace`, `hessian_frobenius`
/// and `hessian_spectral` (norms) [n] each, `hessian_eigenvalues` [n, min(K, D)] in falling order,
/// and `near_kink` [n], the number of gates within rounding of a kink. The loss is that of --loss:
/// of classes softmax cross-entropy, or logistic for one logit, and with --targets squared error.
///
/// With --parameter-gradients also `value/NAME` and `grad/NAME/PARAMETER`, the mean over all inputs
/// and its gradient in the name and layout that the parameter has in the model's file. Of an ONNX
/// file these are all initialisers and Constant nodes that the logits depend on, also those from
/// which weights are computed; what has no gradient, such as the bounds of a clip, is named with
/// the reason.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  relugrad derive model.onnx --input x.npy --out derived.npz
  relugrad derive model.onnx --input x.npy --labels y.npy --vector v.npy --skip jacobian --out derived.npz
  relugrad derive model.onnx --input x.npy --targets y.npy --parameter-gradients loss,jacobian --out derived.npz
  relugrad derive model.onnx --input x.npy --parameter-gradients loss,jacobian,cure --out derived.npz
  relugrad derive model.onnx --input x.npy --formula 'flat: norm2(g) + tr(S*G)' --out derived.npz")]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(super) model: ModelFile,

    #[command(flatten)]
    pub(super) standardisation: Standardisation,

    /// Inputs, .npy of the model's input shape with or without a leading batch axis, or with all
    /// axes of a sample as one
    #[arg(long, value_name = "FILE")]
    pub(super) input: PathBuf,

    /// Class of each input, .npy of whole numbers; by default the predicted class
    #[arg(long, value_name = "FILE")]
    pub(super) labels: Option<PathBuf>,

    /// Values that each input is regressed to, .npy of shape [n] or [n, K]
    #[arg(long, value_name = "FILE", conflicts_with = "labels")]
    pub(super) targets: Option<PathBuf>,

    #[command(flatten)]
    pub(super) loss: LossOption,

    /// v of the products J v and H v, .npy of shape [D] or [n, D]
    #[arg(long, value_name = "FILE")]
    pub(super) vector: Option<PathBuf>,

    /// u of the product Jᵀu, .npy of shape [K] or [n, K]
    #[arg(long, value_name = "FILE")]
    pub(super) cotangent: Option<PathBuf>,

    /// Precision of the computation and of the arrays
    #[arg(long, value_name = "NAME", default_value = "f64")]
    pub(super) dtype: Precision,

    /// `loss`, or penalties as in `relugrad compare --help`, whose values and parameter gradients
    /// are added, besides those of --formula
    #[arg(long, value_name = "NAMES")]
    parameter_gradients: Vec<List<String>>,

    #[command(flatten)]
    pub(super) formulas: Formulas,

    /// Arrays to leave out, such as the Jacobian of a large network
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(super) skip: Vec<Array>,

    /// Memory for sweeps, in MiB; inputs are taken in groups that fit, rows of a Jacobian too. A
    /// parameter gradient for which not even one input fits is refused
    #[arg(long, value_name = "MIB", default_value = "512", value_parser = value_parser!(u32).range(1..))]
    pub(super) memory: u32,

    /// The .npz file to write
    #[arg(long, value_name = "FILE")]
    pub(super) out: PathBuf,

    /// Replace the file of --out if it exists
    #[arg(long)]
    pub(super) overwrite: bool,

    #[command(flatten)]
    pub(super) threads: ThreadOption,
}

impl Arguments {
    /// Of what parameter gradients are wanted: names of penalties, formulas among them.
    pub(super) fn gradients(&self) -> Result<Vec<String>, Failure> {
        let mut names = all(&self.parameter_gradients);
        for formula in self.formulas.all()? {
            if !names.contains(&formula.name()) {
                names.push(formula.name());
            }
        }
        Ok(names)
    }

    /// The loss of a name's meaning alone.
    pub(super) fn objective(&self, name: &str, loss: Loss) -> Result<Objective, Failure> {
        let objective = Objective::new(loss);
        if name == "loss" {
            return Ok(objective);
        }
        let usage = |error: relugrad::Error| Failure::Usage(error.into());
        let mut formulas = self.formulas.all()?.iter();
        let penalty = match formulas.find(|formula| formula.name() == name) {
            Some(formula) => formula.penalty(),
            None => name.parse().map_err(usage)?,
        };
        Ok(objective
            .with(penalty, 1.0)
            .map_err(usage)?
            .penalties_only())
    }

    /// The files that are read.
    pub(super) fn inputs(&self) -> Vec<&Path> {
        let given = [&self.labels, &self.targets, &self.vector, &self.cotangent];
        let given = given.into_iter().filter_map(|path| path.as_deref());
        self.model
            .files()
            .chain([&*self.input])
            .chain(given)
            .collect()
    }
}

/// What can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(super) enum Array {
    Logits,
    Loss,
    Jacobian,
    Jvp,
    Vjp,
    InputGradient,
    Hvp,
    JacobianFrobeniusSquared,
    JacobianSpectral,
    CrossLipschitz,
    HessianTrace,
    HessianFrobenius,
    HessianSpectral,
    HessianEigenvalues,
    NearKink,
}

impl Array {
    /// Its name in the file, which is that on the command line.
    pub(super) fn name(self) -> String {
        let value = self.to_possible_value().expect("no array is hidden");
        value.get_name().to_owned()
    }
}
