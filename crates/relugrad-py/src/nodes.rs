//! Networks of a list of nodes.

use std::sync::Arc;

use ndarray::{ArrayD, IxDyn};
use pyo3::prelude::*;
use relugrad::{Builder, NodeId, NodeSpec, Operation};

use crate::array::array;
use crate::error::{Error, OrRaise};
use crate::network::{AnyNetwork, Wrap};

/// A node from Python: name, operation as JSON, the numbers of the nodes that it reads, shape,
/// parameters, constants.
pub(crate) type NodeTuple<'py> = (
    Option<String>,
    String,
    Vec<usize>,
    Vec<usize>,
    Vec<Bound<'py, PyAny>>,
    Vec<Bound<'py, PyAny>>,
);

/// The network whose logits are the last node.
pub(crate) fn built<T: Wrap>(nodes: Vec<NodeTuple<'_>>) -> PyResult<AnyNetwork> {
    let mut builder = Builder::<T>::new();
    let mut ids: Vec<NodeId> = Vec::new();
    for (name, operation, inputs, shape, parameters, constants) in nodes {
        let here = || {
            name.clone()
                .unwrap_or_else(|| format!("node {}", ids.len()))
        };
        let operation: Operation = serde_json::from_str(&operation)
            .map_err(|error| Error::new_err(format!("{}: {operation}: {error}", here())))?;
        let inputs = inputs.iter().map(|&input| {
            let missing = || {
                Error::new_err(format!(
                    "{}: it reads node {input}, which does not come before it",
                    here()
                ))
            };
            ids.get(input).copied().ok_or_else(missing)
        });
        let inputs = inputs.collect::<PyResult<Vec<_>>>()?;
        let what = format!("a parameter of {}", here());
        let parameters = parameters
            .iter()
            .map(|given| Ok(array::<T, IxDyn>(&what, given)?.as_array().to_owned()));
        let parameters = parameters.collect::<PyResult<Vec<ArrayD<T>>>>()?;
        let what = format!("a constant of {}", here());
        let constants = constants
            .iter()
            .map(|given| Ok(array::<f64, IxDyn>(&what, given)?.as_array().to_owned()));
        let spec = NodeSpec {
            constants: constants.collect::<PyResult<Vec<ArrayD<f64>>>>()?,
            name,
            operation,
            shape,
            parameters,
        };
        ids.push(builder.add(spec, &inputs).or_raise()?);
    }
    let last = ids
        .last()
        .ok_or_else(|| Error::new_err("a network has at least its input"))?;
    Ok(T::wrap(Arc::new(builder.build(*last).or_raise()?)))
}
