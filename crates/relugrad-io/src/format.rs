//! The kinds of files that hold models, told apart by the ending of their name.

use std::path::Path;

use crate::error::{Error, Result};
use crate::model::Model;
#[cfg(feature = "onnx")]
use crate::onnx;
use crate::selection::Selection;
use crate::{native, nnet};

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
/// [`Error::Ending`], [`Error::Read`], and what is wrong with the file within [`Error::InFile`]:
/// also [`Error::WithoutOnnx`].
pub fn load_model(path: impl AsRef<Path>) -> Result<Model> {
    load_model_with(path, &Selection::default())
}

/// Reads a model of any format, of an ONNX file the given map; other files hold one map alone.
///
/// # Errors
/// As [`load_model`]; [`Error::OneMap`] if there is something selected that is none of ONNX.
pub fn load_model_with(path: impl AsRef<Path>, selection: &Selection) -> Result<Model> {
    let path = path.as_ref();
    let format = Format::of(path)?;
    if format != Format::Onnx && *selection != Selection::default() {
        return Err(Error::OneMap.in_file(path));
    }
    match format {
        Format::Safetensors => {
            let (network, metadata) = native::load(path)?;
            Ok(Model::own(network, metadata, Vec::new()))
        }
        #[cfg(feature = "onnx")]
        Format::Onnx => onnx::load_onnx_with(path, selection),
        #[cfg(not(feature = "onnx"))]
        Format::Onnx => Err(Error::WithoutOnnx.in_file(path)),
        Format::NNet => nnet::load_nnet(path),
    }
}
