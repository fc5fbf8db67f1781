//! Descriptions of networks, from which they are built.

use std::sync::Arc;

use pyo3::prelude::*;
use relugrad_train::Architecture;

use crate::error::{Error, OrRaise};
use crate::network::{AnyNetwork, PyNetwork, unknown_type};

/// What a network is made of, but for the shape of its inputs and the number of its logits.
///
/// `Architecture("mlp:128,128")`, `"lenet"`, `"resnet:16,32"`, the path of a .toml file, or a list of
/// layers, each a dict with the keys of such a file:
/// `[{"kind": "conv", "outputs": 8, "kernel": 3}, {"kind": "relu"}, {"kind": "max-pool", "kernel": 2}]`.
/// A dense layer to the logits ends them all.
#[pyclass(name = "Architecture", module = "relugrad", frozen)]
pub(crate) struct PyArchitecture(Architecture);

#[pymethods]
impl PyArchitecture {
    #[new]
    fn new(description: &Bound<'_, PyAny>) -> PyResult<PyArchitecture> {
        if let Ok(text) = description.extract::<String>() {
            return Ok(PyArchitecture(Architecture::parse(&text).or_raise()?));
        }
        let json = description.py().import("json")?;
        let json: String = json.call_method1("dumps", (description,))?.extract()?;
        let layers: serde_json::Value =
            serde_json::from_str(&json).map_err(|error| Error::new_err(error.to_string()))?;
        let table = serde_json::json!({ "layers": layers });
        let toml =
            toml::to_string(&table).map_err(|error| Error::new_err(format!("layers: {error}")))?;
        Ok(PyArchitecture(Architecture::from_toml(&toml).or_raise()?))
    }

    /// The network for inputs of a shape, such as `[1, 28, 28]`, with He-normal weights from a seed.
    #[pyo3(signature = (input_shape, outputs, *, seed = 0, dtype = "float64"))]
    fn build(
        &self,
        input_shape: Vec<usize>,
        outputs: usize,
        seed: u64,
        dtype: &str,
    ) -> PyResult<PyNetwork> {
        let network = match dtype {
            "float32" => AnyNetwork::F32(Arc::new(
                self.0.build(&input_shape, outputs, seed).or_raise()?,
            )),
            "float64" => AnyNetwork::F64(Arc::new(
                self.0.build(&input_shape, outputs, seed).or_raise()?,
            )),
            other => return Err(unknown_type(other)),
        };
        Ok(PyNetwork::new(network, Vec::new()))
    }

    fn __repr__(&self) -> String {
        format!("Architecture({:?})", self.0.to_string())
    }
}
