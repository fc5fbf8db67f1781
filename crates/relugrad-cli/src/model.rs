//! The model that a command works on.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Error;
use clap::Args;
use ndarray::{ArrayD, IxDyn};
use relugrad_io::{Model, Selection, StateDict, load_model_with, load_npy};
use relugrad_train::Architecture;

use crate::failure::Failure;
use crate::values::count;

/// A model's file, and what it is made of if the file does not say.
#[derive(Debug, Args)]
pub(crate) struct ModelFile {
    /// The model: .safetensors of relugrad, .onnx or .nnet, or a folder of `relugrad train`, whose
    /// best.safetensors it is
    #[arg(value_name = "MODEL")]
    path: PathBuf,

    /// What a .safetensors file with the state_dict of a PyTorch module alone is made of:
    /// mlp:WIDTHS, lenet, resnet:WIDTHS or a .toml file, as for `relugrad compare`; the weights
    /// give the number of logits, and go to the layers by the order of their names and by shape
    #[arg(long = "model", value_name = "DESCRIPTION", requires = "input_shape")]
    description: Option<String>,

    /// Shape of one input of that model, such as 784 or 1,28,28; of an .onnx file whose input leaves
    /// lengths open, or whose axis 0 is no batch
    #[arg(long, value_name = "SHAPE", value_delimiter = ',', value_parser = count)]
    input_shape: Vec<usize>,

    /// The input of an .onnx file with several that the network is a function of
    #[arg(long, value_name = "NAME")]
    input_name: Option<String>,

    /// The logits of an .onnx file with several outputs: one of them, or the value of any node
    #[arg(long, value_name = "NAME")]
    output: Option<String>,

    /// What another input of an .onnx file is: a number for all of its entries, or an array
    #[arg(long, value_name = "NAME=VALUE|FILE.npy")]
    constant: Vec<Constant>,
}

/// What an input is that is none of the network's.
#[derive(Clone, Debug)]
struct Constant {
    input: String,
    value: Value,
}

#[derive(Clone, Debug)]
enum Value {
    Number(f64),
    File(PathBuf),
}

impl FromStr for Constant {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Constant, &'static str> {
        // A name may have any character, and a file's name hardly ever has this one.
        let parts = text.rsplit_once('=').filter(|(name, _)| !name.is_empty());
        let (input, value) = parts
            .ok_or("it must be the input's name, = and a number or the path of an .npy file")?;
        let value = match value.parse::<f64>() {
            Ok(number) if number.is_finite() => Value::Number(number),
            _ if value.ends_with(".npy") => Value::File(value.into()),
            _ => return Err("what follows = must be a finite number or the path of an .npy file"),
        };
        let input = input.to_owned();
        Ok(Constant { input, value })
    }
}

impl Constant {
    fn load(&self) -> Result<(String, ArrayD<f64>), Error> {
        let array = match &self.value {
            Value::Number(number) => ArrayD::from_elem(IxDyn(&[]), *number),
            Value::File(path) => load_npy(path)?.values,
        };
        Ok((self.input.clone(), array))
    }
}

impl ModelFile {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The files that are read.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        let constants = self.constant.iter().filter_map(|given| match &given.value {
            Value::File(path) => Some(path.as_path()),
            Value::Number(_) => None,
        });
        [&*self.path]
            .into_iter()
            .chain(self.description.as_ref().map(Path::new))
            .chain(constants)
    }

    /// Which map of the file is meant.
    fn selection(&self) -> Result<Selection, Failure> {
        let constants = self.constant.iter().map(Constant::load);
        let shape = Some(self.input_shape.clone());
        Ok(Selection {
            input: self.input_name.clone(),
            output: self.output.clone(),
            input_shape: shape.filter(|shape| !shape.is_empty() && self.description.is_none()),
            constants: constants.collect::<Result<_, _>>()?,
        })
    }

    /// Reads the model.
    pub(crate) fn load(&self) -> Result<Model, Failure> {
        let selection = self.selection()?;
        let Some(description) = &self.description else {
            return Ok(load_model_with(&self.path, &selection).map_err(Error::from)?);
        };
        if selection != Selection::default() {
            return Err(Failure::Usage(relugrad_io::Error::OneMap.into()));
        }
        let architecture =
            Architecture::parse(description).map_err(|e| Failure::Usage(e.into()))?;
        let state = StateDict::load(&self.path).map_err(Error::from)?;
        let outputs = state.outputs().map_err(Error::from)?;
        let model = |&outputs: &usize| {
            let network = architecture.build(&self.input_shape, outputs, 0)?;
            Ok::<Model, Error>(state.clone().into_model(network)?)
        };
        let mut models = outputs.iter().map(model);
        let first = models.next().expect("there is a number of outputs");
        let found = first.or_else(|error| models.find_map(Result::ok).ok_or(error));
        Ok(found?)
    }
}
