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
use prost::bytes::Bytes;

use crate::error::{Error, Result};
use crate::file::read_file;
use crate::limits::{Budget, Limits};
use crate::model::Model;
use crate::selection::Selection;
use external::Beside;
use proto::{GraphProto, ModelProto, TensorProto};

pub use export::{onnx_runs_in_double, onnx_to_bytes};

/// A graph, and how it is to be read.
struct Graph<'a> {
    proto: &'a GraphProto,
    /// The version of ONNX's operators.
    opset: i64,
    selection: &'a Selection,
    /// The bytes of a tensor that are in another file, so many.
    external: &'a dyn Fn(&TensorProto, u64) -> Result<Vec<u8>>,
}

/// Reads the network of an ONNX file; tensors in files beside it are found.
///
/// Weights are read as `f64`, in which those of `f32` are exact. The network is the map of one
/// sample, its logits flattened. The batch axis of the input, its first of several, may be symbolic
/// or fixed at 1. Fixed at more, it is a batch if the graph maps every sample by itself, and else
/// belongs to the sample. A final Softmax or LogSoftmax over all logits, or Sigmoid, is dropped.
/// [`Model::notes`] says so.
///
/// # Errors
/// [`Error::Read`], [`Error::NotReadable`], and what is wrong with the file within
/// [`Error::InFile`].
pub fn load_onnx(path: impl AsRef<Path>) -> Result<Model> {
    load_onnx_with(path, &Selection::default())
}

/// Reads the network of an ONNX file that is the given map of its graph.
///
/// # Errors
/// As [`load_onnx`]; [`Error::OnnxGraph`] also for a choice that the graph does not have.
pub fn load_onnx_with(path: impl AsRef<Path>, selection: &Selection) -> Result<Model> {
    let path = path.as_ref();
    let (bytes, budget) = read_file(path, |bytes, _| match wire::begins_like_a_model(bytes) {
        true => Ok(()),
        false => Err(not_onnx("its first bytes are no field of a model")),
    })?;
    let beside = Beside::new(path, &budget);
    // Tensors share the file's bytes.
    let bytes = Bytes::from(bytes);
    read(bytes, &budget, selection, &|tensor, bytes| {
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
    let bytes = Bytes::copy_from_slice(bytes);
    read(bytes, &budget, &Selection::default(), &|tensor, _| {
        Err(Error::OnnxTensor {
            tensor: tensor.name.clone(),
            problem: "its numbers are in another file; read the model from its path".into(),
        })
    })
}

fn read(
    bytes: Bytes,
    budget: &Budget,
    selection: &Selection,
    external: &dyn Fn(&TensorProto, u64) -> Result<Vec<u8>>,
) -> Result<Model> {
    budget.take(wire::decoded_size(&bytes), || {
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
    let graph = Graph {
        proto: graph,
        opset,
        selection,
        external,
    };
    import::read(&graph, budget)
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
