//! Curvature of the loss in the input.

use pyo3::prelude::*;
use relugrad::{Curvature, Loss, Result, Trace};

use crate::array::to_numpy;
use crate::error::OrRaise;
use crate::given::{OwnedTargets, batch};
use crate::network::each;
use crate::trace::{AnyPass, PyTrace};

/// The Hessian `H = Jᵀ S J` of the loss in the input of every sample, exact inside the sample's
/// region and factored: its cost is that of `K` rows of a sweep, not of `D`.
#[pyclass(name = "Curvature", module = "relugrad", frozen)]
#[derive(Debug)]
pub(crate) struct PyCurvature {
    trace: Py<PyTrace>,
    loss: Loss,
    targets: Option<OwnedTargets<f64>>,
}

/// Asks the curvature of a batch, in the batch's type of number.
macro_rules! ask {
    ($self:ident, $py:ident, $curvature:ident => $ask:expr) => {
        each!(AnyPass, &$self.trace.get().pass, held => {
            let targets = $self.targets.as_ref().map(OwnedTargets::cast);
            let answer = held.with($py, |pass| {
                let trace = pass.trace();
                at(&trace, &$self.loss, targets.as_ref()).and_then(|$curvature| $ask)
            })?;
            Ok(to_numpy($py, answer.or_raise()?))
        })
    };
}

fn at<'t, T: relugrad::Scalar>(
    trace: &'t Trace<'t, T>,
    loss: &Loss,
    targets: Option<&OwnedTargets<T>>,
) -> Result<Curvature<'t, 't, T>> {
    match targets {
        Some(targets) => trace.curvature_at(loss, &targets.targets()),
        None => trace.curvature(loss),
    }
}

impl PyCurvature {
    pub(crate) fn new(
        trace: Py<PyTrace>,
        loss: Loss,
        targets: Option<OwnedTargets<f64>>,
    ) -> PyResult<PyCurvature> {
        Ok(PyCurvature {
            trace,
            loss,
            targets,
        })
    }
}

#[pymethods]
impl PyCurvature {
    /// `H v` of every sample; `v: [B, D]`, result `[B, D]`. One forward and one backward sweep.
    fn apply(&self, py: Python<'_>, v: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        each!(AnyPass, &self.trace.get().pass, held => {
            let v = batch("v", v, held.inputs())?;
            let targets = self.targets.as_ref().map(OwnedTargets::cast);
            let answer = held.with(py, |pass| {
                let trace = pass.trace();
                at(&trace, &self.loss, targets.as_ref()).and_then(|curvature| curvature.apply(v.view()))
            })?;
            Ok(to_numpy(py, answer.or_raise()?))
        })
    }

    /// `tr H` of every sample; `[B]`.
    fn hessian_trace(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        ask!(self, py, curvature => curvature.hessian_trace())
    }

    /// `tr H` of every sample; `[B]`. Another name of `hessian_trace`.
    fn trace(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.hessian_trace(py)
    }

    /// `‖H‖_F` of every sample; `[B]`.
    fn frobenius_norm(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        ask!(self, py, curvature => curvature.frobenius_norm())
    }

    /// `‖H‖₂ = λ_max(H)` of every sample; `[B]`.
    fn spectral_norm(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        ask!(self, py, curvature => curvature.spectral_norm())
    }

    /// `H` of every sample as a matrix; `[B, D, D]`.
    fn to_dense(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        ask!(self, py, curvature => curvature.to_dense())
    }

    /// The nonzero eigenvalues of `H` in descending order and their unit eigenvectors:
    /// `values: [B, R]` and `vectors: [B, R, D]`.
    fn eigenpairs(&self, py: Python<'_>) -> PyResult<(Py<PyAny>, Py<PyAny>)> {
        each!(AnyPass, &self.trace.get().pass, held => {
            let targets = self.targets.as_ref().map(OwnedTargets::cast);
            let pairs = held.with(py, |pass| {
                let trace = pass.trace();
                at(&trace, &self.loss, targets.as_ref()).and_then(|curvature| curvature.eigenpairs())
            })?;
            let pairs = pairs.or_raise()?;
            Ok((to_numpy(py, pairs.values), to_numpy(py, pairs.vectors)))
        })
    }

    /// `H` of one sample as a `scipy.sparse.linalg.LinearOperator`, `[D, D]`, which is never formed.
    #[pyo3(signature = (sample = 0))]
    fn linear_operator(slf: &Bound<'_, PyCurvature>, sample: usize) -> PyResult<Py<PyAny>> {
        let operators = slf.py().import("relugrad._operators")?;
        Ok(operators.call_method1("curvature", (slf, sample))?.unbind())
    }

    /// `(B, D)`: samples, and the order of each matrix.
    #[getter]
    fn shape(&self, py: Python<'_>) -> PyResult<(usize, usize)> {
        each!(AnyPass, &self.trace.get().pass, held => {
            Ok((held.with(py, |pass| pass.trace().samples())?, held.inputs()))
        })
    }

    /// Type of its numbers.
    #[getter]
    fn dtype(&self) -> &'static str {
        match &self.trace.get().pass {
            AnyPass::F32(_) => "float32",
            AnyPass::F64(_) => "float64",
        }
    }
}
