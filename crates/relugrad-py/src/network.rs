//! Networks.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use ndarray::{Ix1, IxDyn};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use relugrad::{Network, NodeId, Pass};

use crate::array::{Number, array, to_numpy};
use crate::error::{Error, OrRaise};
use crate::given::batch;
use crate::line::{self, PySlice};
use crate::nodes::{NodeTuple, built};
use crate::process::work;
use crate::region::{PyRegion, vector};
use crate::trace::PyTrace;

/// A network in one of the two types of number. What has been traced keeps the network that it was
/// traced with: new parameters go to a copy, if there is still a trace.
#[derive(Clone, Debug)]
pub(crate) enum AnyNetwork {
    F32(Arc<Network<f32>>),
    F64(Arc<Network<f64>>),
}

/// Does the same with a network or a pass of either type.
macro_rules! each {
    ($kind:ident, $value:expr, $inner:ident => $body:expr) => {
        match $value {
            $kind::F32($inner) => $body,
            $kind::F64($inner) => $body,
        }
    };
}
pub(crate) use each;

/// Either type of number as the one that is known.
pub(crate) trait Wrap: Number {
    fn wrap(network: Arc<Network<Self>>) -> AnyNetwork;
    fn spare(spare: &Spare) -> &Mutex<Vec<Pass<Self>>>;
}

impl Wrap for f32 {
    fn wrap(network: Arc<Network<f32>>) -> AnyNetwork {
        AnyNetwork::F32(network)
    }
    fn spare(spare: &Spare) -> &Mutex<Vec<Pass<f32>>> {
        &spare.f32
    }
}

impl Wrap for f64 {
    fn wrap(network: Arc<Network<f64>>) -> AnyNetwork {
        AnyNetwork::F64(network)
    }
    fn spare(spare: &Spare) -> &Mutex<Vec<Pass<f64>>> {
        &spare.f64
    }
}

/// Passes that nobody needs any more, whose buffers the next ones take.
#[derive(Debug, Default)]
pub(crate) struct Spare {
    f32: Mutex<Vec<Pass<f32>>>,
    f64: Mutex<Vec<Pass<f64>>>,
}

impl Spare {
    /// How many are kept: a step has one or two at a time.
    const KEPT: usize = 2;

    pub(crate) fn take<T: Wrap>(&self) -> Option<Pass<T>> {
        let mut spare = T::spare(self)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        spare.pop()
    }

    pub(crate) fn give<T: Wrap>(&self, pass: Pass<T>) {
        let mut spare = T::spare(self)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if spare.len() < Self::KEPT {
            spare.push(pass);
        }
    }
}

/// A piecewise-linear network: a graph of affine maps and gates.
#[pyclass(name = "Network", module = "relugrad", frozen, weakref)]
#[derive(Debug)]
pub(crate) struct PyNetwork {
    network: Mutex<AnyNetwork>,
    spare: Arc<Spare>,
    notes: Vec<String>,
}

impl PyNetwork {
    pub(crate) fn new(network: AnyNetwork, notes: Vec<String>) -> PyNetwork {
        PyNetwork {
            network: Mutex::new(network),
            spare: Arc::default(),
            notes,
        }
    }

    /// The network as it is now.
    pub(crate) fn get(&self) -> AnyNetwork {
        let network = self.network.lock().unwrap_or_else(PoisonError::into_inner);
        network.clone()
    }

    pub(crate) fn spare(&self) -> &Arc<Spare> {
        &self.spare
    }

    /// Changes parameters, of this network alone.
    fn change<R>(&self, change: impl FnOnce(&mut AnyNetwork) -> R) -> R {
        let mut network = self.network.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut network)
    }
}

#[pymethods]
impl PyNetwork {
    /// The network of a list of nodes, each
    /// `(name, operation, inputs, shape, parameters, constants)`: the operation as JSON, as in
    /// .toml architectures; the numbers of the nodes that it reads; the shape of its value for one
    /// sample; arrays in the order of the operation.
    #[staticmethod]
    fn from_nodes(nodes: Vec<NodeTuple<'_>>, dtype: &str) -> PyResult<PyNetwork> {
        let network = match dtype {
            "float32" => built::<f32>(nodes)?,
            "float64" => built::<f64>(nodes)?,
            other => return Err(unknown_type(other)),
        };
        Ok(PyNetwork::new(network, Vec::new()))
    }

    /// Type of its numbers, "float32" or "float64".
    #[getter]
    fn dtype(&self) -> &'static str {
        match self.get() {
            AnyNetwork::F32(_) => f32::DTYPE,
            AnyNetwork::F64(_) => f64::DTYPE,
        }
    }

    /// The same network with numbers of another type.
    fn astype(&self, dtype: &str) -> PyResult<PyNetwork> {
        let network = each!(AnyNetwork, self.get(), network => match dtype {
            "float32" => AnyNetwork::F32(Arc::new(network.cast().or_raise()?)),
            "float64" => AnyNetwork::F64(Arc::new(network.cast().or_raise()?)),
            other => return Err(unknown_type(other)),
        });
        Ok(PyNetwork::new(network, self.notes.clone()))
    }

    /// Number `D` of inputs.
    #[getter]
    fn inputs(&self) -> usize {
        each!(AnyNetwork, self.get(), network => network.inputs())
    }

    /// Shape of the input for one sample.
    #[getter]
    fn input_shape(&self) -> Vec<usize> {
        each!(AnyNetwork, self.get(), network => network.input_shape().to_vec())
    }

    /// Number `K` of logits.
    #[getter]
    fn outputs(&self) -> usize {
        each!(AnyNetwork, self.get(), network => network.outputs())
    }

    /// Number of gates.
    #[getter]
    fn gates(&self) -> usize {
        each!(AnyNetwork, self.get(), network => network.gates())
    }

    /// What reading its file had to say, such as a softmax that was left out.
    #[getter]
    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    /// Its nodes, each a dict with `name`, `operation`, `shape` and the numbers of the nodes that
    /// it reads, `inputs`.
    #[getter]
    fn nodes(&self, py: Python<'_>) -> PyResult<Vec<Py<PyAny>>> {
        each!(AnyNetwork, self.get(), network => network.nodes().iter().map(|node| {
            let row = PyDict::new(py);
            row.set_item("name", node.name())?;
            row.set_item("operation", node.operation().name())?;
            row.set_item("shape", node.shape())?;
            row.set_item("inputs", node.inputs().map(NodeId::index).collect::<Vec<_>>())?;
            let lengths = network.parameters_of(node).map(|info| info.range().len());
            row.set_item("parameters", lengths.sum::<usize>())?;
            Ok(row.into_any().unbind())
        }).collect())
    }

    /// The layout of the parameters in one flat vector: `(name, shape)` in order.
    #[getter]
    fn layout(&self) -> Vec<(String, Vec<usize>)> {
        each!(AnyNetwork, self.get(), network => {
            let arrays = network.parameters().layout().iter();
            arrays.map(|info| (info.name().to_owned(), info.shape().to_vec())).collect()
        })
    }

    /// All parameters as one vector, a copy.
    #[getter]
    fn parameters(&self, py: Python<'_>) -> Py<PyAny> {
        each!(AnyNetwork, self.get(), network => {
            to_numpy(py, ndarray::Array1::from(network.parameters().values().to_vec()))
        })
    }

    /// Sets all parameters from one vector.
    #[setter]
    fn set_parameters(&self, given: &Bound<'_, PyAny>) -> PyResult<()> {
        self.change(|network| {
            each!(AnyNetwork, network, network => {
                let values = array("parameters", given)?;
                set_all(Arc::make_mut(network), &values)
            })
        })
    }

    /// Takes over the parameters that differ from `arrays`, one for each of `layout` in order;
    /// returns whether any did. Numbers that are the same are not copied.
    fn update(&self, arrays: Vec<Bound<'_, PyAny>>) -> PyResult<bool> {
        self.change(|network| each!(AnyNetwork, network, network => update(network, &arrays)))
    }

    /// Runs a batch, `x: [B, D]`: what it then answers is in `Trace`.
    fn trace(&self, py: Python<'_>, x: &Bound<'_, PyAny>) -> PyResult<PyTrace> {
        PyTrace::run(py, self, x)
    }

    /// The logits of a batch; `x: [B, D]`, result `[B, K]`.
    fn forward(&self, py: Python<'_>, x: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        each!(AnyNetwork, self.get(), network => forward(py, &network, x))
    }

    /// The activation region of an input, `x: [D]`.
    fn region(&self, x: &Bound<'_, PyAny>) -> PyResult<PyRegion> {
        PyRegion::of(self, x)
    }

    /// The distance of an input from its nearest kink by norm, `l1`, `l2` and `linf`: how far it can
    /// be moved in any direction before a gate switches; `x: [D]`.
    fn distance<'py>(
        &self,
        py: Python<'py>,
        x: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyDict>> {
        PyRegion::of(self, x)?.kink_distances(py)
    }

    /// Walks from `x` along `z` to `x + length z`, from region to region; `x, z: [D]`. A list of
    /// dicts, one for each region: `start`, `end`, `logits_start`, `logits_end`, `jacobian` if
    /// `jacobians`, and `crossing`, where it ends and which gate switches there, None at the end.
    #[pyo3(signature = (x, z, length = 1.0, *, jacobians = false))]
    fn walk<'py>(
        &self,
        py: Python<'py>,
        x: &Bound<'py, PyAny>,
        z: &Bound<'py, PyAny>,
        length: f64,
        jacobians: bool,
    ) -> PyResult<Vec<Bound<'py, PyDict>>> {
        line::walk(py, self, x, z, length, jacobians)
    }

    /// All activation regions in a window of the plane through three points, exactly; `points:
    /// [3, D]`. The window is `((a_min, a_max), (b_min, b_max))` in the plane's coordinates, by
    /// default around the points. At most `limit` regions are looked for.
    #[pyo3(signature = (points, window = None, *, limit = line::LIMIT))]
    fn slice(
        &self,
        py: Python<'_>,
        points: Vec<Bound<'_, PyAny>>,
        window: Option<[[f64; 2]; 2]>,
        limit: usize,
    ) -> PyResult<PySlice> {
        PySlice::of(py, self, &points, window, limit)
    }

    /// Integrated gradients of a logit (Sundararajan et al. 2017), exact by a walk from the baseline
    /// to `x`; `x, baseline: [D]`, result `[D]`.
    fn integrated_gradients(
        &self,
        py: Python<'_>,
        x: &Bound<'_, PyAny>,
        baseline: &Bound<'_, PyAny>,
        label: usize,
    ) -> PyResult<Py<PyAny>> {
        each!(AnyNetwork, self.get(), network => {
            let x = vector("x", x, network.inputs())?;
            let baseline = vector("baseline", baseline, network.inputs())?;
            let found = work(py, || network.integrated_gradients(x.view(), baseline.view(), label))?;
            Ok(to_numpy(py, found.or_raise()?))
        })
    }

    fn _repr_html_(slf: &Bound<'_, PyNetwork>) -> PyResult<Py<PyAny>> {
        let show = slf.py().import("relugrad._show")?;
        Ok(show.call_method1("network_html", (slf,))?.unbind())
    }

    fn __repr__(&self) -> String {
        each!(AnyNetwork, self.get(), network => format!(
            "Network({} inputs, {} logits, {} gates, {} parameters, {})",
            network.inputs(), network.outputs(), network.gates(), network.parameters().len(), self.dtype(),
        ))
    }

    fn __call__(&self, py: Python<'_>, x: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        self.forward(py, x)
    }
}

fn forward<T: Number>(
    py: Python<'_>,
    network: &Network<T>,
    x: &Bound<'_, PyAny>,
) -> PyResult<Py<PyAny>> {
    let x = batch::<T>("x", x, network.inputs())?;
    let logits = work(py, || network.forward(x.view()))?.or_raise()?;
    Ok(to_numpy(py, logits))
}

fn set_all<T: Number>(
    network: &mut Network<T>,
    values: &numpy::PyReadonlyArray<'_, T, Ix1>,
) -> PyResult<()> {
    let values = values.as_array();
    let values = values.as_standard_layout();
    let parameters = network.parameters_mut();
    parameters
        .assign(values.as_slice().unwrap_or_default())
        .or_raise()
}

fn update<T: Number>(network: &mut Arc<Network<T>>, arrays: &[Bound<'_, PyAny>]) -> PyResult<bool> {
    let layout = network.parameters().layout().to_vec();
    if arrays.len() != layout.len() {
        return Err(Error::new_err(format!(
            "{} arrays are given but the network has {} parameters",
            arrays.len(),
            layout.len()
        )));
    }
    let mut has_changed = false;
    for (given, info) in arrays.iter().zip(&layout) {
        let new = array::<T, IxDyn>(info.name(), given)?;
        let new = new.as_array();
        if new.shape() != info.shape() {
            return Err(Error::new_err(format!(
                "{} has shape {:?} but {:?} is needed",
                info.name(),
                new.shape(),
                info.shape()
            )));
        }
        let new = new.as_standard_layout();
        let new = new.as_slice().unwrap_or_default();
        if new != &network.parameters().values()[info.range()] {
            let network = Arc::make_mut(network);
            network.parameters_mut().values_mut()[info.range()].copy_from_slice(new);
            has_changed = true;
        }
    }
    Ok(has_changed)
}

pub(crate) fn unknown_type(found: &str) -> PyErr {
    Error::new_err(format!(
        "dtype is {found:?} but must be \"float32\" or \"float64\""
    ))
}

/// Reads a network from a file: ONNX, NNet, .npz or relugrad's own .safetensors, told by its name.
///
/// `dtype` is "float32" or "float64". Raises `relugrad.Error` for what is not piecewise linear, and
/// for files that cannot be read, with the place.
#[pyfunction]
#[pyo3(signature = (path, dtype = "float64"))]
pub(crate) fn load(py: Python<'_>, path: PathBuf, dtype: &str) -> PyResult<PyNetwork> {
    let model = py.detach(|| relugrad_io::load_model(&path)).or_raise()?;
    let notes = model.notes().to_vec();
    let network = PyNetwork::new(AnyNetwork::F64(Arc::new(model.into_network())), notes);
    match dtype {
        "float64" => Ok(network),
        other => network.astype(other),
    }
}
