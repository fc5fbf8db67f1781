//! The trainer: training in a folder, evaluation, verification.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use numpy::Element;
use pyo3::prelude::*;
use relugrad::penalty::Formula;
use relugrad::{Network, Penalty, Scalar};
use relugrad_train::data::{Dataset, Source};
use relugrad_train::evaluate::Samples;
use relugrad_train::experiment::Experiment;
use relugrad_train::robustness::{EvaluationOptions, evaluate as evaluated};
use relugrad_train::verify::{Choices, verify_while};
use relugrad_train::{Configuration, LossSettings, Result, loss_for};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::array::to_numpy;
use crate::error::{Error, OrRaise};
use crate::network::{AnyNetwork, PyNetwork, each};
use crate::watch::{to_python, watched};

/// What Python writes as JSON.
fn read<T: DeserializeOwned>(what: &str, text: &str) -> PyResult<T> {
    serde_json::from_str(text).map_err(|error| Error::new_err(format!("{what}: {error}")))
}

/// Trains in a folder. `configuration` is JSON with the keys of a configuration's file, or `file`
/// its path; `data` a source as JSON. With `resume` the folder's training goes on, and
/// `configuration` has the values to change. Returns a dict; the networks are in the folder.
#[pyfunction]
#[pyo3(signature = (out, *, configuration = None, file = None, data = None, overwrite = false, resume = false, on_event = None))]
#[expect(clippy::too_many_arguments, reason = "they are named in Python")]
pub(crate) fn train(
    py: Python<'_>,
    out: PathBuf,
    configuration: Option<&str>,
    file: Option<PathBuf>,
    data: Option<&str>,
    overwrite: bool,
    resume: bool,
    on_event: Option<&Bound<'_, PyAny>>,
) -> PyResult<Py<PyAny>> {
    let table: toml::Table = read("the configuration", configuration.unwrap_or("{}"))?;
    let mut experiment = match resume {
        true => Experiment::resume(&out, &table.into_iter().collect::<Vec<_>>()).or_raise()?,
        false => {
            let configuration = match file {
                Some(file) => Configuration::load(&file),
                None => Configuration::from_table(table),
            };
            let mut configuration = configuration.or_raise()?;
            if let Some(data) = data {
                configuration.data = read("data", data)?;
            }
            Experiment::create(out, configuration, overwrite).or_raise()?
        }
    };
    let outcome = watched(py, on_event, |mut watch| {
        let go_on = || watch.go_on();
        experiment.run(&mut watch, &go_on)
    })?;
    let outcome = outcome.or_raise()?;
    let record = json!({
        "complete": outcome.complete, "steps": outcome.steps, "epochs": outcome.epochs,
        "best": experiment.best(), "last": experiment.last(),
        "best_test": outcome.best_test, "last_test": outcome.last_test,
        "warnings": outcome.warnings, "precision": experiment.configuration().precision,
    });
    to_python(py, &record)
}

/// The samples of a source: those for testing, or all.
fn samples(source: &str, all: bool) -> PyResult<Dataset> {
    let source: Source = read("data", source)?;
    match all {
        true => source.load_all(),
        false => source.load().map(|split| split.test),
    }
    .or_raise()
}

/// A penalty as it is given: by name, or as a formula.
#[derive(Deserialize)]
#[serde(untagged)]
enum PenaltyGiven {
    Name(String),
    Formula {
        name: String,
        formula: String,
        #[serde(default)]
        constants: BTreeMap<String, f64>,
    },
}

impl PenaltyGiven {
    fn penalty(self) -> relugrad::Result<Penalty> {
        match self {
            PenaltyGiven::Name(name) => Penalty::named(&name, &[]),
            PenaltyGiven::Formula {
                name,
                formula,
                constants,
            } => Formula::parse(&name, &formula, constants).map(Penalty::Formula),
        }
    }
}

/// The options of an evaluation, by the names of `EvaluationOptions`.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    linf: Vec<f64>,
    l2: Vec<f64>,
    samples: usize,
    pgd_steps: usize,
    pgd_restarts: usize,
    apgd_steps: usize,
    apgd_restarts: usize,
    deepfool_steps: usize,
    certified: usize,
    penalties: Vec<PenaltyGiven>,
    loss: Option<LossSettings>,
    seed: u64,
}

impl Default for Options {
    fn default() -> Options {
        let usual = EvaluationOptions::default();
        Options {
            linf: usual.linf,
            l2: usual.l2,
            samples: usual.samples,
            pgd_steps: usual.pgd_steps,
            pgd_restarts: usual.pgd_restarts,
            apgd_steps: usual.apgd_steps,
            apgd_restarts: usual.apgd_restarts,
            deepfool_steps: usual.deepfool_steps,
            certified: usual.certified,
            penalties: Vec::new(),
            loss: None,
            seed: usual.seed,
        }
    }
}

impl Options {
    fn evaluation(self) -> PyResult<EvaluationOptions> {
        let penalties = self.penalties.into_iter().map(PenaltyGiven::penalty);
        let loss = self.loss.as_ref().map(LossSettings::loss).transpose();
        Ok(EvaluationOptions {
            linf: self.linf,
            l2: self.l2,
            samples: self.samples,
            pgd_steps: self.pgd_steps,
            pgd_restarts: self.pgd_restarts,
            apgd_steps: self.apgd_steps,
            apgd_restarts: self.apgd_restarts,
            deepfool_steps: self.deepfool_steps,
            certified: self.certified,
            penalties: penalties.collect::<relugrad::Result<_>>().or_raise()?,
            loss: loss.or_raise()?,
            seed: self.seed,
            ..EvaluationOptions::default()
        })
    }
}

/// Evaluates robustness: a report, and adversarial examples for each of its `worst`.
#[pyfunction]
#[pyo3(signature = (network, data, *, options = "{}", all = false, on_event = None))]
pub(crate) fn evaluate(
    py: Python<'_>,
    network: &PyNetwork,
    data: &str,
    options: &str,
    all: bool,
    on_event: Option<&Bound<'_, PyAny>>,
) -> PyResult<(Py<PyAny>, Vec<Py<PyAny>>)> {
    let options: Options = read("the evaluation", options)?;
    let (options, data) = (options.evaluation()?, samples(data, all)?);
    each!(AnyNetwork, network.get(), network => {
        let data = data.for_outputs(network.outputs());
        let found = watched(py, on_event, |mut watch| {
            let go_on = || watch.go_on();
            evaluated(&network, &data, &options, &mut watch, &go_on)
        })?;
        let found = found.or_raise()?;
        let adversarial = found.adversarial.into_iter().map(|x| to_numpy(py, x));
        Ok((to_python(py, &found.report)?, adversarial.collect()))
    })
}

/// Checks the theorems on a network and the first `samples` samples: a report.
#[pyfunction]
#[pyo3(signature = (network, data, *, samples, seed = 0, cure_step = 1.5, loss = None, all = false, on_event = None))]
#[expect(clippy::too_many_arguments, reason = "they are named in Python")]
pub(crate) fn verify(
    py: Python<'_>,
    network: &PyNetwork,
    data: &str,
    samples: usize,
    seed: u64,
    cure_step: f64,
    loss: Option<&str>,
    all: bool,
    on_event: Option<&Bound<'_, PyAny>>,
) -> PyResult<Py<PyAny>> {
    let data = self::samples(data, all)?;
    let loss: Option<LossSettings> = loss.map(|text| read("the loss", text)).transpose()?;
    let loss = loss.map(|loss| loss.loss()).transpose().or_raise()?;
    each!(AnyNetwork, network.get(), network => {
        let data = data.for_outputs(network.outputs());
        let choices = Choices { seed, cure_step, loss: Some(loss_for(&network, &data, loss).or_raise()?) };
        verified(py, &network, &Samples::new(&data).first(samples), &choices, on_event)
    })
}

fn verified<T: Scalar + Element>(
    py: Python<'_>,
    network: &Network<T>,
    samples: &Samples<T>,
    choices: &Choices,
    on_event: Option<&Bound<'_, PyAny>>,
) -> PyResult<Py<PyAny>> {
    let report: Result<_> = watched(py, on_event, |watch| {
        let done = AtomicUsize::new(0);
        let progress = || watch.part(done.fetch_add(1, Ordering::Relaxed) + 1, samples.len());
        let go_on = || watch.go_on();
        verify_while(network, network, samples, choices, &progress, &go_on)
    })?;
    let report = report.or_raise()?;
    let mut record = json!(report);
    record["holds"] = report.holds().into();
    to_python(py, &record)
}
