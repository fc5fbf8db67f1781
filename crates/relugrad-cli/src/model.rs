//! The model that a command works on.

use std::path::{Path, PathBuf};

use anyhow::Error;
use clap::Args;
use relugrad_io::{Model, StateDict, load_model};
use relugrad_train::Architecture;

use crate::failure::Failure;
use crate::values::count;

/// A model's file, and what it is made of if the file does not say.
#[derive(Debug, Args)]
pub(crate) struct ModelFile {
    /// The model: .safetensors of relugrad, .onnx or .nnet
    #[arg(value_name = "MODEL")]
    path: PathBuf,

    /// What a .safetensors file with the weights of PyTorch's nn.Sequential alone is made of:
    /// mlp:WIDTHS, lenet, resnet:WIDTHS or a .toml file, as for `relugrad compare`; the last layer
    /// gives the number of logits
    #[arg(long = "model", value_name = "DESCRIPTION", requires = "input_shape")]
    description: Option<String>,

    /// Shape of one input of that model, such as 784 or 1,28,28
    #[arg(long, value_name = "SHAPE", value_delimiter = ',', value_parser = count, requires = "description")]
    input_shape: Vec<usize>,
}

impl ModelFile {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The files that are read.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        [&*self.path]
            .into_iter()
            .chain(self.description.as_ref().map(Path::new))
    }

    /// Reads the model.
    pub(crate) fn load(&self) -> Result<Model, Failure> {
        let Some(description) = &self.description else {
            return Ok(load_model(&self.path).map_err(Error::from)?);
        };
        let architecture =
            Architecture::parse(description).map_err(|e| Failure::Usage(e.into()))?;
        let state = StateDict::load(&self.path).map_err(Error::from)?;
        let outputs = state.outputs().map_err(Error::from)?;
        let network = architecture.build(&self.input_shape, outputs, 0)?;
        Ok(state.into_model(network).map_err(Error::from)?)
    }
}
