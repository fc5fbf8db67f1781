//! Finite differences: the same numbers, independently.

use ndarray::Array1;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use relugrad::{Audit, FiniteDifference, Scheme};

use crate::array::{Number, to_numpy};
use crate::error::OrRaise;
use crate::given::{batch, loss, targets};
use crate::network::{AnyNetwork, PyNetwork, each};
use crate::objective::PyObjective;
use crate::region::vector;
use crate::watch::watched;

/// Estimates of derivatives by difference quotients, which know nothing of the engine's formulas:
/// `FiniteDifference.central(1e-5)` or `FiniteDifference.forward(1e-8)`.
#[pyclass(name = "FiniteDifference", module = "relugrad", frozen)]
pub(crate) struct PyFiniteDifference(FiniteDifference);

/// Computes an array from a network, a loss and a batch with targets.
macro_rules! quotient {
    ($py:ident, $network:ident, $x:ident, $y:ident, $loss:ident, ($net:ident, $l:ident, $xs:ident, $ys:ident) => $ask:expr) => {{
        let y = targets($y, $loss)?;
        each!(AnyNetwork, $network.get(), $net => {
            let $l = loss($loss, Some(&y), $net.outputs())?;
            let (x, y) = (batch("x", $x, $net.inputs())?, y.cast());
            let found = watched($py, None, |_| {
                let ($xs, $ys) = (x.view(), y.targets());
                $ask
            })?;
            Ok(to_numpy($py, found.or_raise()?))
        })
    }};
}

#[pymethods]
impl PyFiniteDifference {
    /// `(φ(x + h) − φ(x)) / h`.
    #[staticmethod]
    fn forward(step: f64) -> PyResult<PyFiniteDifference> {
        Ok(PyFiniteDifference(
            FiniteDifference::forward(step).or_raise()?,
        ))
    }

    /// `(φ(x + h) − φ(x − h)) / 2h`.
    #[staticmethod]
    fn central(step: f64) -> PyResult<PyFiniteDifference> {
        Ok(PyFiniteDifference(
            FiniteDifference::central(step).or_raise()?,
        ))
    }

    /// Its step `h`.
    #[getter]
    fn step(&self) -> f64 {
        self.0.step()
    }

    /// `∂f/∂x` of every sample; `x: [B, D]`, result `[B, K, D]`.
    fn jacobian(
        &self,
        py: Python<'_>,
        network: &PyNetwork,
        x: &Bound<'_, PyAny>,
    ) -> PyResult<Py<PyAny>> {
        each!(AnyNetwork, network.get(), network => {
            let x = batch("x", x, network.inputs())?;
            let found = watched(py, None, |_| self.0.jacobian(&network, x.view()))?;
            Ok(to_numpy(py, found.or_raise()?))
        })
    }

    /// `∂ℓ/∂x` of every sample; `[B, D]`.
    #[pyo3(signature = (network, x, y, loss = None))]
    fn input_gradient(
        &self,
        py: Python<'_>,
        network: &PyNetwork,
        x: &Bound<'_, PyAny>,
        y: &Bound<'_, PyAny>,
        loss: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        quotient!(py, network, x, y, loss, (net, l, xs, ys) => self.0.input_gradient(&net, &l, xs, &ys))
    }

    /// The Hessian of the loss in the input of every sample; `[B, D, D]`.
    #[pyo3(signature = (network, x, y, loss = None))]
    fn hessian(
        &self,
        py: Python<'_>,
        network: &PyNetwork,
        x: &Bound<'_, PyAny>,
        y: &Bound<'_, PyAny>,
        loss: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        quotient!(py, network, x, y, loss, (net, l, xs, ys) => self.0.hessian(&net, &l, xs, &ys))
    }

    /// The Hessian of the loss in the input times `v` of every sample; `v: [B, D]`, result `[B, D]`.
    #[pyo3(signature = (network, x, y, v, loss = None))]
    fn hvp(
        &self,
        py: Python<'_>,
        network: &PyNetwork,
        x: &Bound<'_, PyAny>,
        y: &Bound<'_, PyAny>,
        v: &Bound<'_, PyAny>,
        loss: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let y = targets(y, loss)?;
        each!(AnyNetwork, network.get(), network => {
            let loss = self::loss(loss, Some(&y), network.outputs())?;
            let x = batch("x", x, network.inputs())?;
            let (v, y) = (batch("v", v, network.inputs())?, y.cast());
            let found = watched(py, None, |_| {
                self.0.hvp(&network, &loss, x.view(), &y.targets(), v.view())
            })?;
            Ok(to_numpy(py, found.or_raise()?))
        })
    }

    /// The parameter gradient of an objective, one vector in the order of `Network.layout`. Two
    /// values for each parameter.
    fn parameter_gradient(
        &self,
        py: Python<'_>,
        objective: &PyObjective,
        network: &PyNetwork,
        x: &Bound<'_, PyAny>,
        y: &Bound<'_, PyAny>,
    ) -> PyResult<Py<PyAny>> {
        let y = targets(y, objective.loss.as_ref().map(|loss| loss.bind(py)))?;
        each!(AnyNetwork, network.get(), network => {
            let objective = objective.objective(py, &y, network.outputs())?;
            let (x, y) = (batch("x", x, network.inputs())?, y.cast());
            let count = network.parameters().len();
            let found = watched(py, None, |watch| {
                let mut direction = Array1::zeros(count);
                (0..count).map(|i| {
                    if !watch.go_on() {
                        return Err(relugrad::Error::Stopped);
                    }
                    direction[i] = relugrad::Scalar::from_f64(1.0);
                    let slope = self.0.along(&objective, &network, x.view(), &y.targets(), &direction);
                    direction[i] = relugrad::Scalar::from_f64(0.0);
                    slope
                }).collect::<relugrad::Result<Array1<_>>>()
            })?;
            Ok(to_numpy(py, found.or_raise()?))
        })
    }

    /// What differences along `z` at one sample straddle; `x, z: [D]`, `y` of one sample. A dict with
    /// `reported_slope`, `exact_slope`, `reported_hvp`, `exact_hvp`, `kinks` (gates that switch
    /// between the points), `smooth` and `kink_part` (which sum to `reported_hvp`), `largest_step`.
    #[pyo3(signature = (network, x, y, z, loss = None))]
    fn audit<'py>(
        &self,
        py: Python<'py>,
        network: &PyNetwork,
        x: &Bound<'py, PyAny>,
        y: &Bound<'py, PyAny>,
        z: &Bound<'py, PyAny>,
        loss: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let y = targets(y, loss)?;
        each!(AnyNetwork, network.get(), network => {
            let loss = self::loss(loss, Some(&y), network.outputs())?;
            let x = vector("x", x, network.inputs())?;
            let (z, y) = (vector("z", z, network.inputs())?, y.cast());
            let found = watched(py, None, |_| {
                self.0.audit(&network, &loss, x.view(), &y.targets(), z.view())
            })?;
            audit_dict(py, found.or_raise()?)
        })
    }

    /// The largest step along `z` at one sample that stays in its region; `x, z: [D]`.
    fn largest_step(
        &self,
        py: Python<'_>,
        network: &PyNetwork,
        x: &Bound<'_, PyAny>,
        z: &Bound<'_, PyAny>,
    ) -> PyResult<f64> {
        each!(AnyNetwork, network.get(), network => {
            let (x, z) = (vector("x", x, network.inputs())?, vector("z", z, network.inputs())?);
            let found = watched(py, None, |_| self.0.largest_step(&network, x.view(), z.view()))?;
            found.or_raise()
        })
    }

    fn __repr__(&self) -> String {
        let scheme = match self.0.scheme() {
            Scheme::Forward => "forward",
            Scheme::Central => "central",
        };
        format!("FiniteDifference.{scheme}({:e})", self.0.step())
    }
}

fn audit_dict<T: Number>(py: Python<'_>, found: Audit<T>) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("reported_slope", found.reported_slope)?;
    dict.set_item("exact_slope", found.exact_slope)?;
    dict.set_item("reported_hvp", to_numpy(py, found.reported_hvp))?;
    dict.set_item("exact_hvp", to_numpy(py, found.exact_hvp))?;
    dict.set_item("kinks", found.kinks)?;
    dict.set_item("smooth", to_numpy(py, found.parts.smooth))?;
    dict.set_item("kink_part", to_numpy(py, found.parts.kinks))?;
    dict.set_item("largest_step", found.largest_step)?;
    Ok(dict)
}
