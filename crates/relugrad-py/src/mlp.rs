//! Networks of dense layers.

use std::sync::Arc;

use pyo3::prelude::*;
use relugrad::{Gate, Mlp};

use crate::error::{Error, OrRaise};
use crate::network::{AnyNetwork, PyNetwork, unknown_type};

/// A network of dense layers with a gate behind each but the last, with random weights (He et al.
/// 2015).
///
/// `widths` from the inputs to the logits; `gate` is "relu", "abs", or ("leaky-relu", slope), or
/// ("clip", min, max).
#[pyclass(name = "Mlp", module = "relugrad", frozen)]
pub(crate) struct PyMlp(Mlp);

/// A gate by name, with its numbers.
#[derive(FromPyObject)]
enum GateGiven {
    Name(String),
    One((String, f64)),
    Two((String, f64, f64)),
}

impl GateGiven {
    fn gate(self) -> PyResult<Gate> {
        let (name, numbers) = match self {
            GateGiven::Name(name) => (name, vec![]),
            GateGiven::One((name, a)) => (name, vec![a]),
            GateGiven::Two((name, a, b)) => (name, vec![a, b]),
        };
        match (name.as_str(), &numbers[..]) {
            ("relu", []) => Ok(Gate::Relu),
            ("abs", []) => Ok(Gate::Abs),
            ("leaky-relu", [slope]) => Ok(Gate::LeakyRelu { slope: *slope }),
            ("clip", [min, max]) => Ok(Gate::Clip {
                min: *min,
                max: *max,
            }),
            _ => Err(Error::new_err(format!(
                "gate {name:?} with {} numbers is unknown; there are \"relu\", \"abs\", (\"leaky-relu\", slope) and (\"clip\", min, max)",
                numbers.len()
            ))),
        }
    }
}

#[pymethods]
impl PyMlp {
    #[new]
    #[pyo3(signature = (widths, *, gate = GateGiven::Name("relu".into()), bias = true))]
    fn new(widths: Vec<usize>, gate: GateGiven, bias: bool) -> PyResult<PyMlp> {
        Ok(PyMlp(Mlp::new(&widths).gate(gate.gate()?).bias(bias)))
    }

    /// The network with weights from a seed; `dtype` is "float32" or "float64".
    #[pyo3(signature = (seed = 0, dtype = "float64"))]
    fn build(&self, seed: u64, dtype: &str) -> PyResult<PyNetwork> {
        let network = match dtype {
            "float32" => AnyNetwork::F32(Arc::new(self.0.build(seed).or_raise()?)),
            "float64" => AnyNetwork::F64(Arc::new(self.0.build(seed).or_raise()?)),
            other => return Err(unknown_type(other)),
        };
        Ok(PyNetwork::new(network, Vec::new()))
    }
}
