//! Losses, targets and penalties as Python gives them.

use std::collections::BTreeMap;

use ndarray::{Array2, ArrayView2, Ix2, IxDyn};
use numpy::PyArrayDescrMethods;
use numpy::PyUntypedArray;
use numpy::PyUntypedArrayMethods;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt};
use relugrad::loss::TargetKind;
use relugrad::penalty::{Formula, OptionValue};
use relugrad::{Loss, Penalty, Scalar, Targets};

use crate::array::{Number, array};
use crate::error::{ArrayTypeError, Error, OrRaise};

/// A batch of inputs, `[B, D]` or `[B, …]` with the shape of the network's input.
pub(crate) fn batch<T: Number>(
    what: &str,
    given: &Bound<'_, PyAny>,
    width: usize,
) -> PyResult<Array2<T>> {
    let array = array::<T, IxDyn>(what, given)?;
    let view = array.as_array();
    let samples = view.shape().first().copied().unwrap_or(0);
    if view.ndim() < 2 || view.len() != samples * width {
        return Err(Error::new_err(format!(
            "{what} has shape {:?} but [B, {width}] is needed, or axes that come to {width} behind the first",
            view.shape()
        )));
    }
    let rows = view.to_shape((samples, width));
    Ok(rows
        .map_err(|error| Error::new_err(error.to_string()))?
        .into_owned())
}

/// A loss by its name or, with options, as a dict of its `name` and them; by default what the
/// targets and the number of logits say.
pub(crate) fn loss(
    given: Option<&Bound<'_, PyAny>>,
    targets: Option<&OwnedTargets<f64>>,
    outputs: usize,
) -> PyResult<Loss> {
    let Some(given) = given.filter(|given| !given.is_none()) else {
        let kind = targets.map_or(TargetKind::Classes, OwnedTargets::kind);
        return Ok(Loss::for_targets(kind, outputs));
    };
    let json = given.py().import("json")?.call_method1("dumps", (given,))?;
    let settings: relugrad_train::LossSettings = serde_json::from_str(&json.extract::<String>()?)
        .map_err(|_| {
        Error::new_err(format!(
            "the loss {given} is neither a name nor a dict of name and options"
        ))
    })?;
    settings
        .loss()
        .map_err(|error| Error::new_err(error.to_string()))
}

/// A penalty written as a formula, with the constants that are given.
fn formula(name: &str, text: &Bound<'_, PyAny>, options: &Bound<'_, PyDict>) -> PyResult<Penalty> {
    let text: String = text.extract().map_err(|_| {
        ArrayTypeError::new_err(format!("{name}: formula is {text} but must be a str"))
    })?;
    let mut constants = BTreeMap::new();
    for (key, value) in options {
        let key: String = key.extract()?;
        match &*key {
            "formula" => {}
            "constants" if value.is_none() => {}
            "constants" => {
                constants = value.extract().map_err(|_| {
                    ArrayTypeError::new_err(format!(
                        "{name}: constants is {value} but must be a dict of names and numbers"
                    ))
                })?;
            }
            other => {
                return Err(Error::new_err(format!(
                    "{name}: a formula has no option {other}; give its constants as constants"
                )));
            }
        }
    }
    let formula = Formula::parse(name, &text, constants).or_raise()?;
    Ok(Penalty::Formula(formula))
}

/// A penalty by its name and options, of which a formula's are its text and constants.
pub(crate) fn penalty(name: &str, options: Option<&Bound<'_, PyDict>>) -> PyResult<Penalty> {
    if let Some(options) = options
        && let Some(text) = options.get_item("formula")?
    {
        return formula(name, &text, options);
    }
    let mut given: Vec<(String, OptionValue)> = Vec::new();
    for (key, value) in options.into_iter().flatten() {
        let key: String = key.extract()?;
        let key = key.replace('_', "-");
        let value = if value.is_instance_of::<PyBool>() {
            OptionValue::Flag(value.extract()?)
        } else if value.is_instance_of::<PyInt>() {
            let count = value.extract::<u64>();
            OptionValue::Count(count.map_err(|_| {
                Error::new_err(format!("{name}: {key} is {value} but must be at least 0"))
            })?)
        } else if value.is_instance_of::<PyFloat>() {
            OptionValue::Number(value.extract()?)
        } else if let Ok(word) = value.extract::<String>() {
            OptionValue::Word(word.into())
        } else {
            return Err(ArrayTypeError::new_err(format!(
                "{name}: {key} is {value} but must be a number, a bool or a str"
            )));
        };
        given.push((key, value));
    }
    let given: Vec<(&str, OptionValue)> =
        given.iter().map(|(key, v)| (&**key, v.clone())).collect();
    Penalty::named(name, &given).or_raise()
}

/// Targets in memory of their own.
#[derive(Clone, Debug)]
pub(crate) enum OwnedTargets<T> {
    Classes(Vec<usize>),
    Probabilities(Array2<T>),
    Values(Array2<T>),
}

impl<T: Scalar> OwnedTargets<T> {
    pub(crate) fn kind(&self) -> TargetKind {
        match self {
            OwnedTargets::Classes(_) => TargetKind::Classes,
            OwnedTargets::Probabilities(_) => TargetKind::Probabilities,
            OwnedTargets::Values(_) => TargetKind::Values,
        }
    }

    pub(crate) fn targets(&self) -> Targets<'_, T> {
        match self {
            OwnedTargets::Classes(classes) => Targets::Classes(classes),
            OwnedTargets::Probabilities(p) => Targets::Probabilities(p.view()),
            OwnedTargets::Values(values) => Targets::Values(values.view()),
        }
    }

    pub(crate) fn cast<U: Scalar>(&self) -> OwnedTargets<U> {
        let cast = |a: &ArrayView2<T>| a.mapv(|x| U::from_f64(x.into_f64()));
        match self {
            OwnedTargets::Classes(classes) => OwnedTargets::Classes(classes.clone()),
            OwnedTargets::Probabilities(p) => OwnedTargets::Probabilities(cast(&p.view())),
            OwnedTargets::Values(values) => OwnedTargets::Values(cast(&values.view())),
        }
    }
}

/// Targets of a batch: whole numbers `[B]` are classes; real numbers `[B, K]` are values to regress
/// to, or probabilities of the classes for a loss of classes, and `[B]` values of a single output.
pub(crate) fn targets(
    given: &Bound<'_, PyAny>,
    loss: Option<&Bound<'_, PyAny>>,
) -> PyResult<OwnedTargets<f64>> {
    let py = given.py();
    let numpy = py.import("numpy")?;
    let given = match given.cast::<PyUntypedArray>() {
        Ok(array) => array.clone().into_any(),
        Err(_) => numpy.call_method1("asarray", (given,))?,
    };
    let found = given.cast::<PyUntypedArray>().map_err(PyErr::from)?;
    let axes = found.ndim();
    let kind = found.dtype().kind();
    match (kind, axes) {
        (b'i' | b'u' | b'b', 1) => {
            let whole = given.call_method1("astype", ("int64",))?;
            let whole: Vec<i64> = whole.call_method0("tolist")?.extract()?;
            let classes = whole.iter().enumerate().map(|(sample, &y)| {
                let negative = |_| {
                    Error::new_err(format!(
                        "the class of sample {sample} is {y} but must be at least 0"
                    ))
                };
                usize::try_from(y).map_err(negative)
            });
            Ok(OwnedTargets::Classes(classes.collect::<PyResult<_>>()?))
        }
        (b'f', 1 | 2) => {
            let wide = given.call_method1("astype", ("float64",))?;
            let shape = found.shape().to_vec();
            let columns = shape.get(1).copied().unwrap_or(1);
            let wide = wide.call_method1("reshape", ((shape[0], columns),))?;
            let values = array::<f64, Ix2>("targets", &wide)?.as_array().to_owned();
            let name = loss.map(|loss| match loss.get_item("name") {
                Ok(name) => name.to_string(),
                Err(_) => loss.to_string(),
            });
            match name.as_deref() {
                None | Some("squared-error" | "None") => Ok(OwnedTargets::Values(values)),
                Some(_) => Ok(OwnedTargets::Probabilities(values)),
            }
        }
        _ => Err(Error::new_err(format!(
            "targets of type {} and shape {:?} are neither classes, whole numbers [B], nor values or probabilities, real numbers [B, K]",
            found.dtype(),
            found.shape()
        ))),
    }
}
