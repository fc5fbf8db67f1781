//! Objectives: a loss with weighted penalties.

use ndarray::Array1;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use relugrad::penalty::Described;
use relugrad::{Evaluation, Objective, Penalty};

use crate::array::to_numpy;
use crate::error::{Error, OrRaise};
use crate::given::{batch, loss, penalty, targets};
use crate::network::{AnyNetwork, PyNetwork, each};
use crate::process::work;

/// The objective `mean ℓ + Σ λ_i mean penalty_i` of a batch, and its exact parameter gradient.
///
/// `penalties` is a list of `(name, weight)` or `(name, weight, options)`, such as
/// `[("jacobian", 0.01), ("cure", 1.0, {"step": 1.5})]`; `relugrad.penalties()` lists them all. A
/// penalty of one's own is a formula: `("flat", 0.1, {"formula": "norm2(g) + b*tr(S*G)",
/// "constants": {"b": 0.5}})`; `relugrad train --help` explains the language.
/// `loss` is a name, or a dict of `name` and options; by default that of the targets.
#[pyclass(name = "Objective", module = "relugrad", frozen)]
pub(crate) struct PyObjective {
    pub(crate) loss: Option<Py<PyAny>>,
    penalties: Vec<(String, f64, Option<Py<PyDict>>)>,
    penalties_only: bool,
    draw: u64,
}

/// A penalty as it is given.
#[derive(FromPyObject)]
enum PenaltyGiven<'py> {
    Full((String, f64, Bound<'py, PyDict>)),
    Plain((String, f64)),
}

impl PyObjective {
    pub(crate) fn objective(
        &self,
        py: Python<'_>,
        y: &crate::given::OwnedTargets<f64>,
        outputs: usize,
    ) -> PyResult<Objective> {
        let given = self.loss.as_ref().map(|loss| loss.bind(py));
        let mut objective = Objective::new(loss(given, Some(y), outputs)?);
        for (name, lambda, options) in &self.penalties {
            let options = options.as_ref().map(|options| options.bind(py));
            objective = objective
                .with(penalty(name, options)?, *lambda)
                .or_raise()?;
        }
        objective.set_draw(self.draw);
        Ok(match self.penalties_only {
            true => objective.penalties_only(),
            false => objective,
        })
    }

    fn evaluate<'py>(
        &self,
        py: Python<'py>,
        network: &PyNetwork,
        x: &Bound<'py, PyAny>,
        y: &Bound<'py, PyAny>,
        wants_gradient: bool,
    ) -> PyResult<(Bound<'py, PyDict>, Option<Py<PyAny>>)> {
        let y = targets(y, self.loss.as_ref().map(|loss| loss.bind(py)))?;
        each!(AnyNetwork, network.get(), network => {
            let objective = self.objective(py, &y, network.outputs())?;
            let (x, y) = (batch("x", x, network.inputs())?, y.cast());
            let found = work(py, || match wants_gradient {
                true => objective
                    .gradient(&network, x.view(), &y.targets())
                    .map(|(evaluation, gradient)| (evaluation, Some(gradient))),
                false => objective
                    .value(&network, x.view(), &y.targets())
                    .map(|evaluation| (evaluation, None)),
            })?;
            let (evaluation, gradient) = found.or_raise()?;
            let gradient = gradient.map(|g| to_numpy(py, Array1::from(g.into_values())));
            Ok((as_dict(py, &objective, evaluation)?, gradient))
        })
    }
}

/// What an evaluation found.
fn as_dict<'py>(
    py: Python<'py>,
    objective: &Objective,
    found: Evaluation,
) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("value", found.value)?;
    dict.set_item("loss", found.loss)?;
    let penalties = PyDict::new(py);
    let rows = found.sample_penalties.rows().into_iter();
    let samples = PyDict::new(py);
    for ((term, mean), row) in objective.terms().iter().zip(&found.penalties).zip(rows) {
        let name = match &term.penalty {
            Penalty::Formula(formula) => formula.name().to_owned(),
            penalty => penalty.spec().to_string(),
        };
        penalties.set_item(&name, mean)?;
        samples.set_item(&name, to_numpy(py, row.to_owned()))?;
    }
    dict.set_item("penalties", penalties)?;
    dict.set_item(
        "sample_losses",
        to_numpy(py, Array1::from(found.sample_losses)),
    )?;
    dict.set_item("sample_penalties", samples)?;
    dict.set_item("samples_on_kink", found.samples_on_kink)?;
    Ok(dict)
}

#[pymethods]
impl PyObjective {
    #[new]
    #[pyo3(signature = (penalties = Vec::new(), *, loss = None, penalties_only = false, draw = 0))]
    fn new(
        py: Python<'_>,
        penalties: Vec<PenaltyGiven<'_>>,
        loss: Option<Py<PyAny>>,
        penalties_only: bool,
        draw: u64,
    ) -> PyResult<PyObjective> {
        let penalties = penalties.into_iter().map(|given| match given {
            PenaltyGiven::Full((name, lambda, options)) => (name, lambda, Some(options.unbind())),
            PenaltyGiven::Plain((name, lambda)) => (name, lambda, None),
        });
        let penalties: Vec<_> = penalties.collect();
        for (name, lambda, options) in &penalties {
            penalty(name, options.as_ref().map(|options| options.bind(py)))?;
            if !(lambda.is_finite() && *lambda >= 0.0) {
                return Err(Error::new_err(format!(
                    "the weight of {name} is {lambda} but must be finite and at least 0"
                )));
            }
        }
        Ok(PyObjective {
            loss: loss.filter(|loss| !loss.is_none(py)),
            penalties,
            penalties_only,
            draw,
        })
    }

    /// The objective and each of its terms, as a dict: `value`, `loss`, `penalties` by name,
    /// `sample_losses` and `sample_penalties`, `samples_on_kink`.
    fn value<'py>(
        &self,
        py: Python<'py>,
        network: &PyNetwork,
        x: &Bound<'py, PyAny>,
        y: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyDict>> {
        Ok(self.evaluate(py, network, x, y, false)?.0)
    }

    /// The same with its parameter gradient, one vector in the order of `Network.layout`.
    fn gradient<'py>(
        &self,
        py: Python<'py>,
        network: &PyNetwork,
        x: &Bound<'py, PyAny>,
        y: &Bound<'py, PyAny>,
    ) -> PyResult<(Bound<'py, PyDict>, Option<Py<PyAny>>)> {
        self.evaluate(py, network, x, y, true)
    }
}

/// All penalties: a list of dicts with `name`, `formula`, `meaning` and `options` with their
/// defaults.
#[pyfunction]
pub(crate) fn penalties(py: Python<'_>) -> PyResult<Vec<Bound<'_, PyDict>>> {
    let entries = relugrad::Penalty::catalogue().map(|entry| {
        let row = PyDict::new(py);
        row.set_item("name", entry.name)?;
        row.set_item("formula", entry.formula)?;
        row.set_item("meaning", entry.meaning)?;
        let options = PyDict::new(py);
        for option in entry.options {
            options.set_item(option.name, option.default.to_string())?;
        }
        row.set_item("options", options)?;
        Ok(row)
    });
    entries.collect()
}
