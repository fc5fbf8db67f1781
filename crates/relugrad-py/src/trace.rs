//! Traces: a batch that has gone through a network, and what it answers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ndarray::{Array2, Ix2, Ix3};
use pyo3::prelude::*;
use relugrad::{ActivationPattern, Network, Pass};

use crate::array::{Number, array, to_numpy};
use crate::curvature::PyCurvature;
use crate::error::{Error, OrRaise};
use crate::given::{batch, loss, targets};
use crate::network::{AnyNetwork, PyNetwork, Spare, Wrap, each};
use crate::process::work;

/// A pass in one of the two types of number.
#[derive(Debug)]
pub(crate) enum AnyPass {
    F32(Held<f32>),
    F64(Held<f64>),
}

/// A pass, which goes back to where its buffers are used again.
#[derive(Debug)]
pub(crate) struct Held<T: Wrap> {
    pass: Mutex<Option<Pass<T>>>,
    spare: Arc<Spare>,
    network: Arc<Network<T>>,
}

impl<T: Wrap> Held<T> {
    fn run(
        py: Python<'_>,
        network: &Arc<Network<T>>,
        spare: &Arc<Spare>,
        x: &Bound<'_, PyAny>,
    ) -> PyResult<Held<T>> {
        let mut spared = spare.take::<T>();
        let mut run = |x: ndarray::ArrayView2<T>| {
            let network = Arc::clone(network);
            match spared.take() {
                Some(mut pass) => pass.run(network, x).map(|()| pass),
                None => Pass::new(network, x),
            }
        };
        let plain = array::<T, Ix2>("x", x).ok();
        let pass = match &plain {
            Some(x) => {
                let x = x.as_array();
                work(py, || run(x))?
            }
            None => {
                let x = batch::<T>("x", x, network.inputs())?;
                work(py, || run(x.view()))?
            }
        };
        Ok(Held {
            pass: Mutex::new(Some(pass.or_raise()?)),
            spare: Arc::clone(spare),
            network: Arc::clone(network),
        })
    }

    /// Number of inputs.
    pub(crate) fn inputs(&self) -> usize {
        self.network.inputs()
    }

    /// Work with the pass, one thread at a time.
    pub(crate) fn with<R: Send>(
        &self,
        py: Python<'_>,
        run: impl FnOnce(&mut Pass<T>) -> R + Send,
    ) -> PyResult<R> {
        work(py, || {
            let mut pass: MutexGuard<'_, Option<Pass<T>>> =
                self.pass.lock().unwrap_or_else(PoisonError::into_inner);
            pass.as_mut().map(run)
        })?
        .ok_or_else(|| Error::new_err("this trace has been given up"))
    }
}

impl<T: Wrap> Drop for Held<T> {
    fn drop(&mut self) {
        let pass = self.pass.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(pass) = pass.take() {
            self.spare.give(pass);
        }
    }
}

/// A batch that has gone through a network. It holds the values of all units and the activation
/// pattern, and keeps the network as it was.
#[pyclass(name = "Trace", module = "relugrad", frozen)]
#[derive(Debug)]
pub(crate) struct PyTrace {
    pub(crate) pass: AnyPass,
}

impl PyTrace {
    pub(crate) fn run(
        py: Python<'_>,
        network: &PyNetwork,
        x: &Bound<'_, PyAny>,
    ) -> PyResult<PyTrace> {
        let spare = network.spare();
        let pass = match network.get() {
            AnyNetwork::F32(network) => AnyPass::F32(Held::run(py, &network, spare, x)?),
            AnyNetwork::F64(network) => AnyPass::F64(Held::run(py, &network, spare, x)?),
        };
        Ok(PyTrace { pass })
    }
}

/// The parameter gradient, and the derivatives with respect to the inputs and to `u` that are wanted.
type Gradients = (Py<PyAny>, Option<Py<PyAny>>, Option<Py<PyAny>>);

/// A derivative that may be missing, as an array.
fn given<'py, T: Number, D: ndarray::Dimension>(
    what: &str,
    bar: Option<&Bound<'py, PyAny>>,
) -> PyResult<Option<numpy::PyReadonlyArray<'py, T, D>>> {
    bar.map(|bar| array(what, bar)).transpose()
}

#[pymethods]
impl PyTrace {
    /// Number `B` of samples.
    #[getter]
    fn samples(&self, py: Python<'_>) -> PyResult<usize> {
        each!(AnyPass, &self.pass, held => held.with(py, |pass| pass.trace().samples()))
    }

    /// The logits `f`; `[B, K]`.
    #[getter]
    fn logits(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        each!(AnyPass, &self.pass, held => {
            let logits = held.with(py, |pass| pass.logits().to_owned())?;
            Ok(to_numpy(py, logits))
        })
    }

    /// The inputs; `[B, D]`.
    #[getter]
    fn inputs(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        each!(AnyPass, &self.pass, held => {
            let inputs = held.with(py, |pass| pass.trace().inputs().to_owned())?;
            Ok(to_numpy(py, inputs))
        })
    }

    /// Number of units of each sample that are exactly on a kink, where derivatives follow the
    /// convention that a unit at 0 is inactive; `[B]`.
    #[getter]
    fn kinks(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        each!(AnyPass, &self.pass, held => {
            let kinks = held.with(py, |pass| ndarray::Array1::from(pass.trace().kinks().to_vec()))?;
            Ok(to_numpy(py, kinks))
        })
    }

    /// The activation pattern: for each layer of gates an array `[B, units]`, 1 where a unit is
    /// active and 0 where it is not; of maxima, which of the entries won, and of clips 2 at the
    /// upper bound.
    #[getter]
    fn pattern(&self, py: Python<'_>) -> PyResult<Vec<Py<PyAny>>> {
        each!(AnyPass, &self.pass, held => {
            let layers = held.with(py, |pass| {
                let trace = pass.trace();
                let pattern = trace.pattern();
                let layer = |layer: usize| Array2::from_shape_fn(
                    (pattern.samples(), pattern.width(layer)),
                    |(sample, unit)| pattern.choice(sample, layer, unit) as u32,
                );
                (0..pattern.layers()).map(layer).collect::<Vec<_>>()
            })?;
            Ok(layers.into_iter().map(|layer| to_numpy(py, layer)).collect())
        })
    }

    /// Whether each sample lies in the region of the same sample of another trace; `[B]`.
    fn same_region(&self, py: Python<'_>, other: &PyTrace) -> PyResult<Py<PyAny>> {
        let pattern = |trace: &PyTrace| each!(AnyPass, &trace.pass, held => held.with(py, |pass| pass.trace().pattern().clone()));
        let (ours, theirs) = (pattern(self)?, pattern(other)?);
        let widths =
            |p: &ActivationPattern| (0..p.layers()).map(|l| p.width(l)).collect::<Vec<_>>();
        if ours.samples() != theirs.samples() || widths(&ours) != widths(&theirs) {
            return Err(Error::new_err(format!(
                "the patterns have {} and {} samples and layers of {:?} and {:?} gates, but must be alike",
                ours.samples(),
                theirs.samples(),
                widths(&ours),
                widths(&theirs),
            )));
        }
        let same = (0..ours.samples()).map(|sample| ours.same_region(sample, &theirs, sample));
        Ok(to_numpy(py, same.collect::<ndarray::Array1<bool>>()))
    }

    /// The Jacobian of one sample as a `scipy.sparse.linalg.LinearOperator`, `[K, D]`, which is never
    /// formed.
    #[pyo3(signature = (sample = 0))]
    fn jacobian_operator(slf: &Bound<'_, PyTrace>, sample: usize) -> PyResult<Py<PyAny>> {
        let operators = slf.py().import("relugrad._operators")?;
        Ok(operators.call_method1("jacobian", (slf, sample))?.unbind())
    }

    /// Type of its numbers.
    #[getter]
    fn dtype(&self) -> &'static str {
        match &self.pass {
            AnyPass::F32(_) => f32::DTYPE,
            AnyPass::F64(_) => f64::DTYPE,
        }
    }

    /// `(B, K, D)`: samples, logits and inputs.
    #[getter]
    fn shape(&self, py: Python<'_>) -> PyResult<(usize, usize, usize)> {
        each!(AnyPass, &self.pass, held => {
            Ok((held.with(py, |pass| pass.trace().samples())?, held.network.outputs(), held.network.inputs()))
        })
    }

    /// The Jacobian of every sample, `J = ∂f/∂x`; `[B, K, D]`. One backward sweep with `B·K` rows.
    fn jacobian(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        each!(AnyPass, &self.pass, held => {
            let jacobian = held.with(py, |pass| pass.trace().jacobian())?.or_raise()?;
            Ok(to_numpy(py, jacobian))
        })
    }

    /// The Gram matrix `G = J Jᵀ` of every sample; `[B, K, K]`.
    fn gram(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        each!(AnyPass, &self.pass, held => {
            let gram = held.with(py, |pass| pass.trace().gram())?.or_raise()?;
            Ok(to_numpy(py, gram))
        })
    }

    /// Jacobians block by block, with at most `memory` bytes of buffers: a list of
    /// `(samples, rows, values)` with slices and `[samples, rows, D]`. `visit` is called with each
    /// instead, if it is given, so that no more than one is held.
    fn jacobian_blocks(
        &self,
        py: Python<'_>,
        memory: usize,
        visit: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        each!(AnyPass, &self.pass, held => jacobian_blocks(py, held, memory, visit))
    }

    /// `J v` of every sample; `v: [B, D]`, result `[B, K]`. One forward sweep.
    fn jvp(&self, py: Python<'_>, v: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        each!(AnyPass, &self.pass, held => {
            let v = batch("v", v, held.network.inputs())?;
            let product = held.with(py, |pass| pass.trace().jvp(v.view()))?.or_raise()?;
            Ok(to_numpy(py, product))
        })
    }

    /// `Jᵀ u` of every sample; `u: [B, K]`, result `[B, D]`. One backward sweep.
    fn vjp(&self, py: Python<'_>, u: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        each!(AnyPass, &self.pass, held => {
            let u = array::<_, Ix2>("u", u)?;
            let u = u.as_array();
            let product = held.with(py, |pass| pass.trace().vjp(u))?.or_raise()?;
            Ok(to_numpy(py, product))
        })
    }

    /// The input gradient `g = ∂ℓ/∂x` of every sample; `[B, D]`. `y` are classes `[B]`, or values
    /// or probabilities `[B, K]`; `loss` a name, or a dict of `name` and options.
    #[pyo3(signature = (y, loss = None))]
    fn input_gradient(
        &self,
        py: Python<'_>,
        y: &Bound<'_, PyAny>,
        loss: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let y = targets(y, loss)?;
        each!(AnyPass, &self.pass, held => {
            let loss = self::loss(loss, Some(&y), held.network.outputs())?;
            let y = y.cast();
            let gradient = held.with(py, |pass| pass.trace().input_gradient(&loss, &y.targets()))?;
            Ok(to_numpy(py, gradient.or_raise()?))
        })
    }

    /// The curvature `H = Jᵀ S J` of the loss in the input, which stays factored. Targets are
    /// needed only by losses whose Hessian depends on them.
    #[pyo3(signature = (loss = None, y = None))]
    fn curvature(
        slf: &Bound<'_, PyTrace>,
        loss: Option<&Bound<'_, PyAny>>,
        y: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<PyCurvature> {
        let y = y.map(|y| targets(y, loss)).transpose()?;
        let outputs = each!(AnyPass, &slf.get().pass, held => held.network.outputs());
        let loss = self::loss(loss, y.as_ref(), outputs)?;
        PyCurvature::new(slf.clone().unbind(), loss, y)
    }

    /// Gram matrices whose rows are kept for `gradient`; `[B, K, K]`.
    fn gram_kept(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        each!(AnyPass, &self.pass, held => {
            Ok(to_numpy(py, held.with(py, Pass::gram)?.or_raise()?))
        })
    }

    /// Jacobians whose rows are kept for `gradient`; `[B, K, D]`.
    fn jacobian_kept(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        each!(AnyPass, &self.pass, held => {
            Ok(to_numpy(py, held.with(py, Pass::jacobian)?.or_raise()?))
        })
    }

    /// `Jᵀ u`, whose rows are kept for `gradient`; `[B, D]`.
    fn vjp_kept(&self, py: Python<'_>, u: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        each!(AnyPass, &self.pass, held => {
            let u = array::<_, Ix2>("u", u)?;
            let u = u.as_array();
            Ok(to_numpy(py, held.with(py, |pass| pass.vjp(u))?.or_raise()?))
        })
    }

    /// The parameter gradient of `Σ ⟨f̄, f⟩ + ⟨Ḡ, G⟩ + ⟨J̄, J⟩ + ⟨ḡ, Jᵀu⟩`, as one vector, from the
    /// derivatives that are given: `logits: [B, K]`, `gram: [B, K, K]`, `jacobian: [B, K, D]`,
    /// `vjp: ([B, K], [B, D])` for `u` and `ḡ`. Returns it with the derivative with respect to the
    /// inputs, `[B, D]`, if `inputs`, and with respect to `u`, `[B, K]`.
    #[pyo3(signature = (*, logits = None, gram = None, jacobian = None, vjp = None, inputs = false))]
    fn gradient(
        &self,
        py: Python<'_>,
        logits: Option<&Bound<'_, PyAny>>,
        gram: Option<&Bound<'_, PyAny>>,
        jacobian: Option<&Bound<'_, PyAny>>,
        vjp: Option<(Bound<'_, PyAny>, Bound<'_, PyAny>)>,
        inputs: bool,
    ) -> PyResult<Gradients> {
        each!(AnyPass, &self.pass, held => {
            let logits = given::<_, Ix2>("the derivative with respect to the logits", logits)?;
            let gram = given::<_, Ix3>("the derivative with respect to G", gram)?;
            let jacobian = given::<_, Ix3>("the derivative with respect to J", jacobian)?;
            let vjp = match &vjp {
                None => None,
                Some((u, bar)) => {
                    let what = "the derivative with respect to Jᵀu";
                    Some((array::<_, Ix2>("u", u)?, array::<_, Ix2>(what, bar)?))
                }
            };
            let logits = logits.as_ref().map(|bar| bar.as_array());
            let gram = gram.as_ref().map(|bar| bar.as_array());
            let jacobian = jacobian.as_ref().map(|bar| bar.as_array());
            let vjp = vjp.as_ref().map(|(u, bar)| (u.as_array(), bar.as_array()));
            let found = held.with(py, |pass| -> relugrad::Result<_> {
                let mut gradient = pass.network().parameters().zeros_like();
                let (mut x_bar, mut u_bar) = (None, None);
                if let Some(bar) = gram {
                    pass.add_gram_gradient(bar, &mut gradient)?;
                }
                if let Some(bar) = jacobian {
                    pass.add_jacobian_gradient(bar, &mut gradient)?;
                }
                if let Some((u, bar)) = vjp {
                    u_bar = Some(pass.add_vjp_gradient(u, bar, &mut gradient)?);
                }
                if let Some(bar) = logits {
                    x_bar = pass.add_logits_gradient(bar, &mut gradient, inputs)?;
                }
                Ok((ndarray::Array1::from(gradient.into_values()), x_bar, u_bar))
            })?;
            let (gradient, x_bar, u_bar) = found.or_raise()?;
            let numpy = |array| to_numpy(py, array);
            Ok((to_numpy(py, gradient), x_bar.map(numpy), u_bar.map(numpy)))
        })
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let samples = self.samples(py)?;
        Ok(each!(AnyPass, &self.pass, held => format!(
            "Trace({samples} samples, {} inputs, {} logits)",
            held.network.inputs(), held.network.outputs(),
        )))
    }
}

fn jacobian_blocks<T: Wrap>(
    py: Python<'_>,
    held: &Held<T>,
    memory: usize,
    visit: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let visit = visit.clone().unbind();
    let mut failed: Option<PyErr> = None;
    let result = held.with(py, |pass| {
        pass.trace().for_each_jacobian_block(memory, |block| {
            if failed.is_some() {
                return;
            }
            let values = block.values.as_standard_layout().into_owned();
            failed = Python::attach(|py| {
                let values = to_numpy(py, values);
                let slice = |range: std::ops::Range<usize>| {
                    pyo3::types::PySlice::new(py, range.start as isize, range.end as isize, 1)
                };
                visit
                    .call1(py, (slice(block.samples), slice(block.rows), values))
                    .err()
            });
        })
    });
    match failed {
        Some(error) => Err(error),
        None => result?.or_raise(),
    }
}
