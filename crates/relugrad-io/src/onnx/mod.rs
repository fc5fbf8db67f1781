//! Reading and writing ONNX files.

mod attributes;
mod element;
mod export;
mod external;
mod import;
#[allow(missing_docs, unreachable_pub, clippy::all)]
#[rustfmt::skip]
mod proto;
mod tensor;
#[cfg(test)]
mod tests;
mod values;
mod wire;

use std::path::Path;

use prost::Message;

use crate::error::{Error, Result};
use crate::file::read_file;
use crate::limits::{Budget, Limits};
use crate::model::Model;
use external::Beside;
use proto::{ModelProto, TensorProto};

pub use export::onnx_to_bytes;

/// The oldest version of ONNX's operators that is read.
const OLDEST_OPSET: i64 = 7;

/// Reads the network of an ONNX file; tensors in files beside it are found.
///
/// Weights are read as `f64`, in which those of `f32` are exact. The batch axis of the input may be
/// fixed at 1, symbolic or, for an input of one axis, absent; the network is the map of one sample,
/// its logits flattened. A final Softmax or LogSoftmax over all of them, or Sigmoid, is dropped,
/// and [`Model::notes`] says so.
///
/// # Errors
/// [`Error::Read`], [`Error::NotReadable`], and what is wrong with the file within
/// [`Error::InFile`].
pub fn load_onnx(path: impl AsRef<Path>) -> Result<Model> {
    let path = path.as_ref();
    let (bytes, budget) = read_file(path, |bytes, _| match wire::begins_like_a_model(bytes) {
        true => Ok(()),
        false => Err(not_onnx("its first bytes are no field of a model")),
    })?;
    let beside = Beside::new(path, &budget);
    read(&bytes, &budget, &|tensor, bytes| {
        beside.bytes(tensor, bytes)
    })
    .map_err(|problem| problem.in_file(path))
}

/// Reads the network of the bytes of an ONNX file, which must hold all tensors itself.
///
/// # Errors
/// [`Error::NotOnnx`], [`Error::OnnxGraph`], [`Error::OnnxNode`], [`Error::OnnxTensor`],
/// [`Error::Memory`], and [`Error::Network`].
pub fn onnx_from_bytes(bytes: &[u8]) -> Result<Model> {
    let budget = Limits::of_process().budget(bytes.len() as u64);
    read(bytes, &budget, &|tensor, _| {
        Err(Error::OnnxTensor {
            tensor: tensor.name.clone(),
            problem: "its numbers are in another file; read the model from its path".into(),
        })
    })
}

fn read(
    bytes: &[u8],
    budget: &Budget,
    external: &dyn Fn(&TensorProto, u64) -> Result<Vec<u8>>,
) -> Result<Model> {
    budget.take(wire::decoded_size(bytes), || {
        "the decoded graph with its tensors".into()
    })?;
    let model = ModelProto::decode(bytes).map_err(not_onnx)?;
    let Some(graph) = &model.graph else {
        return Err(not_onnx("it holds no graph"));
    };
    budget.nodes(graph.node.len())?;
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

fn not_onnx(reason: impl ToString) -> Error {
    Error::NotOnnx {
        reason: reason.to_string(),
    }
}

fn graph_error(problem: impl Into<String>) -> Error {
    Error::OnnxGraph {
        problem: problem.into(),
    }
}
