//! A network with the names and layouts of the file that it came from.

use std::path::Path;

use ndarray::{ArrayD, IxDyn};
use relugrad::{Network, ParameterInfo, Parameters, Scalar};

use crate::error::{Error, Result};
use crate::native::Metadata;

/// The kinds of files that hold models, told apart by the ending of their name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// relugrad's own: safetensors with the graph in the header.
    Safetensors,
    /// ONNX.
    Onnx,
    /// The text format of the ACAS Xu networks.
    NNet,
}

impl Format {
    /// The format of a path by its ending, `.safetensors`, `.onnx` or `.nnet`.
    ///
    /// # Errors
    /// [`Error::Ending`] for any other.
    pub fn of(path: impl AsRef<Path>) -> Result<Format> {
        let path = path.as_ref();
        let ending = path
            .extension()
            .and_then(|e| e.to_str())
            .unwrap_or_default();
        match ending.to_ascii_lowercase().as_str() {
            "safetensors" => Ok(Format::Safetensors),
            "onnx" => Ok(Format::Onnx),
            "nnet" => Ok(Format::NNet),
            _ => Err(Error::Ending {
                path: path.to_owned(),
            }),
        }
    }
}

/// Reads a model of any format; the ending of its name tells which.
///
/// # Errors
/// [`Error::Ending`], [`Error::Read`], and what is wrong with the file within [`Error::InFile`].
pub fn load_model(path: impl AsRef<Path>) -> Result<Model> {
    match Format::of(path.as_ref())? {
        Format::Safetensors => {
            let (network, metadata) = crate::native::load(path)?;
            Ok(Model::own(network, metadata, Vec::new()))
        }
        Format::Onnx => crate::onnx::load_onnx(path),
        Format::NNet => crate::nnet::load_nnet(path),
    }
}

/// A network as a file describes it.
#[derive(Clone, Debug)]
pub struct Model {
    network: Network<f64>,
    /// For each parameter array, which array of the file it is made of; `None` if it was computed from several.
    weights: Vec<Option<Weight>>,
    notes: Vec<String>,
    metadata: Metadata,
}

/// How the entries of a parameter array come from an initialiser.
#[derive(Clone, Debug)]
pub(crate) struct Weight {
    /// Name of the array in the file; of an ONNX file, the initialiser.
    pub(crate) initializer: String,
    pub(crate) dims: Vec<usize>,
    /// Which entry of the initialiser each entry is made of; the same if `None`.
    pub(crate) places: Option<Vec<u32>>,
    pub(crate) contribution: Contribution,
}

/// What becomes of an entry `c` of an initialiser.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Contribution {
    /// `factor · c`.
    Times(f64),
    /// `1/c`.
    Reciprocal,
}

impl Model {
    pub(crate) fn new(
        network: Network<f64>,
        weights: Vec<Option<Weight>>,
        notes: Vec<String>,
    ) -> Model {
        debug_assert_eq!(network.parameters().layout().len(), weights.len());
        Model {
            network,
            weights,
            notes,
            metadata: Metadata::new(),
        }
    }

    /// A model whose arrays are called and laid out as the network's own.
    pub(crate) fn own(network: Network<f64>, metadata: Metadata, notes: Vec<String>) -> Model {
        let weight = |info: &ParameterInfo| {
            Some(Weight {
                initializer: info.name().to_owned(),
                dims: info.shape().to_vec(),
                places: None,
                contribution: Contribution::Times(1.0),
            })
        };
        let weights = network.parameters().layout().iter().map(weight).collect();
        Model {
            network,
            weights,
            notes,
            metadata,
        }
    }

    /// The network.
    pub fn network(&self) -> &Network<f64> {
        &self.network
    }

    /// The network alone.
    pub fn into_network(self) -> Network<f64> {
        self.network
    }

    /// What was left out or changed on reading, such as a final softmax.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The strings saved with it.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// A gradient with respect to the network's parameters as gradients with respect to the arrays of the file (of an
    /// ONNX file, the initialisers), by their names, in their layouts, and in the order of their first use.
    ///
    /// An array that is used several times gets the sum. Constants that an ONNX file computes from several
    /// initialisers, or holds in its nodes, have no name and are left out.
    ///
    /// # Panics
    /// If the gradient belongs to another network.
    pub fn file_gradients<T: Scalar>(
        &self,
        gradient: &Parameters<T>,
    ) -> Vec<(String, ArrayD<f64>)> {
        assert_eq!(gradient.layout(), self.network.parameters().layout());
        let mut named: Vec<(String, ArrayD<f64>)> = Vec::new();
        let values = self.network.parameters().values();
        for (info, weight) in gradient.layout().iter().zip(&self.weights) {
            let Some(weight) = weight else { continue };
            let place = named
                .iter()
                .position(|(name, _)| *name == weight.initializer);
            let place = place.unwrap_or_else(|| {
                let zeros = ArrayD::zeros(IxDyn(&weight.dims));
                named.push((weight.initializer.clone(), zeros));
                named.len() - 1
            });
            let sums = named[place]
                .1
                .as_slice_mut()
                .expect("a new array is contiguous");
            for (i, entry) in info.range().enumerate() {
                let rate = match weight.contribution {
                    Contribution::Times(factor) => factor,
                    Contribution::Reciprocal => -values[entry] * values[entry],
                };
                let to = weight
                    .places
                    .as_ref()
                    .map_or(i, |places| places[i] as usize);
                sums[to] += rate * gradient.values()[entry].into_f64();
            }
        }
        named
    }
}
