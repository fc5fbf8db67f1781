//! Reading and writing ONNX files.

mod attributes;
mod export;
mod import;
#[allow(missing_docs, unreachable_pub, clippy::all)]
#[rustfmt::skip]
mod proto;
mod tensor;
#[cfg(test)]
mod tests;
mod values;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use prost::Message;

use crate::error::{Error, Result};
use crate::limits::{Budget, Limits};
use crate::model::Model;
use proto::{ModelProto, TensorProto};

pub use export::onnx_to_bytes;

/// The oldest version of ONNX's operators that is read.
const OLDEST_OPSET: i64 = 7;

/// Reads the network of an ONNX file; tensors in files beside it are found.
///
/// Weights are read as `f64`, in which those of `f32` are exact. The batch axis of the input may be fixed at 1,
/// symbolic or, for an input of one axis, absent; the network is the map of one sample, its logits flattened.
///
/// # Errors
/// [`Error::Read`], and what is wrong with the file within [`Error::InFile`].
pub fn load_onnx(path: impl AsRef<Path>) -> Result<Model> {
    let path = path.as_ref();
    let bytes = std::fs::read(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    let folder = path.parent().unwrap_or(Path::new("")).to_owned();
    let budget = Limits::of_process().budget(bytes.len() as u64);
    let external = |tensor: &TensorProto| external(&folder, tensor, &budget);
    read(&bytes, &budget, &external).map_err(|problem| problem.in_file(path))
}

/// Reads the network of the bytes of an ONNX file, which must hold all tensors itself.
///
/// # Errors
/// [`Error::NotOnnx`], [`Error::OnnxGraph`], [`Error::OnnxNode`], [`Error::OnnxTensor`], [`Error::NotFinite`], and
/// [`Error::Network`].
pub fn onnx_from_bytes(bytes: &[u8]) -> Result<Model> {
    let budget = Limits::of_process().budget(bytes.len() as u64);
    read(bytes, &budget, &|tensor| {
        Err(Error::OnnxTensor {
            tensor: tensor.name.clone(),
            problem: "its numbers are in another file; read the model from its path".into(),
        })
    })
}

fn read(
    bytes: &[u8],
    budget: &Budget,
    external: &dyn Fn(&TensorProto) -> Result<Vec<u8>>,
) -> Result<Model> {
    let model = ModelProto::decode(bytes).map_err(|error| Error::NotOnnx {
        reason: error.to_string(),
    })?;
    let Some(graph) = &model.graph else {
        return Err(Error::NotOnnx {
            reason: "it holds no graph".into(),
        });
    };
    if model.ir_version < 3 {
        return Err(graph_error(format!(
            "it is of version {} of ONNX's file format, and 3 is the oldest that is read; export it again",
            model.ir_version
        )));
    }
    if let Some(function) = model.functions.first() {
        let called = |node: &proto::NodeProto| {
            node.op_type == function.name && node.domain == function.domain
        };
        if graph.node.iter().any(called) {
            return Err(graph_error(format!(
                "its nodes call the function `{}`; inline functions when exporting",
                function.name
            )));
        }
    }
    let own = |domain: &str| matches!(domain, "" | "ai.onnx");
    let opset = model.opset_import.iter().find(|opset| own(&opset.domain));
    let opset = opset.map_or(1, |opset| opset.version);
    if opset < OLDEST_OPSET {
        return Err(graph_error(format!(
            "its operators are of version {opset}, and {OLDEST_OPSET} is the oldest that is read; export it again"
        )));
    }
    import::Importer::new(graph, opset, budget, external).run()
}

fn graph_error(problem: impl Into<String>) -> Error {
    Error::OnnxGraph {
        problem: problem.into(),
    }
}

/// The bytes of a tensor in a file beside the model.
fn external(folder: &Path, tensor: &TensorProto, budget: &Budget) -> Result<Vec<u8>> {
    let problem = |problem: String| Error::OnnxTensor {
        tensor: tensor.name.clone(),
        problem,
    };
    let entry = |key: &str| {
        tensor
            .external_data
            .iter()
            .find(|e| e.key == key)
            .map(|e| e.value.as_str())
    };
    let location = entry("location")
        .ok_or_else(|| problem("it does not say in which file its numbers are".into()))?;
    let location = PathBuf::from(location);
    if !location
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
    {
        return Err(problem(format!(
            "its file `{}` is not in the model's folder",
            location.display()
        )));
    }
    let number = |key: &str| match entry(key).map(str::parse::<u64>) {
        None => Ok(None),
        Some(Ok(number)) => Ok(Some(number)),
        Some(Err(_)) => Err(problem(format!("the {key} of its numbers is no number"))),
    };
    let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?);
    let path = folder.join(location);
    let failed = |source| Error::Read {
        path: path.clone(),
        source,
    };
    let mut file = File::open(&path).map_err(failed)?;
    let available = file
        .metadata()
        .map_err(failed)?
        .len()
        .saturating_sub(offset);
    let length = length.unwrap_or(available);
    if length > available {
        return Err(problem(format!(
            "its file ends before its {length} bytes do"
        )));
    }
    // What stands in a file beside the model counts as the model's own.
    budget.grow(length);
    budget.take(length, || {
        format!("tensor `{}` in {}", tensor.name, path.display())
    })?;
    file.seek(SeekFrom::Start(offset)).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}
