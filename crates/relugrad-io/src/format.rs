//! The kinds of files that hold models, told apart by the ending of their name.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::model::Model;
#[cfg(feature = "onnx")]
use crate::onnx;
use crate::selection::Selection;
use crate::{native, nnet};

/// How many models of a folder an error lists.
const MOST_LISTED: usize = 20;

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

/// Reads a model of any format; the ending of its name tells which. Of a folder it is
/// `best.safetensors`, which a training leaves there, or the only model in it or in its folder
/// `models`.
///
/// # Errors
/// [`Error::Ending`], [`Error::Pickled`], [`Error::NoModel`], [`Error::Read`], and what is wrong with the file within [`Error::InFile`]:
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
    if path.is_dir() {
        let file = model_in(path)?;
        let mut model = load_model_with(&file, selection)?;
        model.note(&format!("the model is {}", file.display()));
        return Ok(model);
    }
    check_pickled(path)?;
    let format = Format::of(path)?;
    if format != Format::Onnx && *selection != Selection::default() {
        return Err(Error::OneMap.in_file(path));
    }
    match format {
        Format::Safetensors => native::load_model(path),
        #[cfg(feature = "onnx")]
        Format::Onnx => onnx::load_onnx_with(path, selection),
        #[cfg(not(feature = "onnx"))]
        Format::Onnx => Err(Error::WithoutOnnx.in_file(path)),
        Format::NNet => nnet::load_nnet(path),
    }
}

/// Refuses a file whose ending is one that PyTorch's have.
pub(crate) fn check_pickled(path: &Path) -> Result<()> {
    let ending = path.extension().and_then(|ending| ending.to_str());
    let endings = ["pt", "pth", "pkl", "pickle", "ckpt", "bin"];
    match ending.is_some_and(|ending| endings.contains(&&*ending.to_ascii_lowercase())) {
        false => Ok(()),
        true => Err(Error::Pickled {
            path: path.to_owned(),
        }),
    }
}

/// The file of the model in a folder.
fn model_in(folder: &Path) -> Result<PathBuf> {
    let best = folder.join("best.safetensors");
    if best.is_file() {
        return Ok(best);
    }
    let folders = [folder.to_owned(), folder.join("models")].into_iter();
    let entries = folders
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flatten();
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut found: Vec<PathBuf> = paths
        .filter(|path| Format::of(path).is_ok() && path.is_file())
        .collect();
    found.sort_unstable();
    match found.len() {
        1 => Ok(found.swap_remove(0)),
        _ => Err(Error::NoModel {
            path: folder.to_owned(),
            found: found
                .iter()
                .take(MOST_LISTED)
                .map(|path| path.display().to_string())
                .collect(),
        }),
    }
}
