//! The keys that a configuration may have.

use std::collections::BTreeMap;

use relugrad::{Loss, Penalty};
use toml::{Table, Value};

use super::{Change, Configuration, LossSettings, PenaltySettings};
use crate::error::{Error, Result};
use crate::number::{parse_number, parse_numbers};
use crate::optimizer::OPTIMIZERS;
use crate::options::{Adversarial, BestBy, Training};
use crate::spec::{did_you_mean, find};

/// A configuration in which nothing is left out.
pub(super) fn complete() -> Configuration {
    let mut configuration = Configuration {
        start: Some("start.onnx".into()),
        training: Training {
            clip: Some(1.0),
            adversarial: Some(Adversarial {
                step_size: Some(0.1),
                ..Adversarial::default()
            }),
            ..Training::default()
        },
        loss: Some(LossSettings::new(&Loss::SoftmaxCrossEntropy {
            label_smoothing: 0.5,
        })),
        checkpoint_steps: Some(1),
        penalties: vec![PenaltySettings {
            name: "jacobian".into(),
            lambda: 1.0,
            formula: Some("tr(G)".into()),
            options: Penalty::catalogue()
                .flat_map(|entry| entry.options)
                .map(|option| (option.name.to_owned(), option.default.clone().into()))
                .collect(),
            constants: BTreeMap::from([("eps".into(), 1.0)]),
        }],
        changes: vec![Change {
            step: 1,
            key: "clip".into(),
            before: Some(Value::Float(2.0)),
            after: Some(Value::Float(1.0)),
        }],
        ..Configuration::default()
    };
    configuration.mean = vec![0.5];
    configuration.std = vec![0.25];
    configuration.data.labels = Some("y.npy".into());
    configuration.data.label_column = Some("class".into());
    configuration.data.targets = Some("y.npy".into());
    configuration.data.target_columns = vec!["price".into()];
    configuration.data.weights = Some("w.npy".into());
    configuration.data.weight_column = Some("weight".into());
    configuration.training.stopping.patience = Some(1);
    configuration.training.stopping.metric = Some(BestBy::Loss);
    configuration
}

/// All keys, in the tables that hold them.
fn known() -> Table {
    let mut known: Table = toml::from_str(&complete().to_toml()).expect("our own text");
    // An optimizer has only some of these, which is told when its name is known.
    if let Some(Value::Table(optimizer)) = known.get_mut("optimizer") {
        for option in OPTIMIZERS.iter().flat_map(|entry| entry.options) {
            optimizer.insert(option.name.into(), Value::Boolean(true));
        }
    }
    // A weight has two names.
    let penalties = known.get_mut("penalties").and_then(Value::as_array_mut);
    if let Some(Value::Table(penalty)) = penalties.and_then(|all| all.first_mut()) {
        penalty.insert("weight".into(), Value::Float(1.0));
    }
    known
}

/// Makes numbers of texts such as `8/255` that stand where a number should be.
pub(super) fn read_fractions(table: &mut Table) {
    read_in(table, &known());
}

fn read_in(table: &mut Table, known: &Table) {
    for (key, value) in table {
        if let Some(known) = known.get(key) {
            read_value(value, known);
        }
    }
}

fn read_value(value: &mut Value, known: &Value) {
    match (&mut *value, known) {
        // The options of an optimizer or a loss stand for any number.
        (Value::String(text), Value::Float(_) | Value::Boolean(_)) => {
            if let Some(number) = parse_number(text) {
                *value = Value::Float(number);
            }
        }
        (Value::Table(inner), Value::Table(known)) => read_in(inner, known),
        (Value::String(text), Value::Array(known)) if is_numbers(known) => {
            if let Some(numbers) = parse_numbers(text) {
                *value = numbers.into();
            }
        }
        (Value::Float(_) | Value::Integer(_), Value::Array(known)) if is_numbers(known) => {
            *value = Value::Array(vec![value.clone()]);
        }
        (Value::Array(entries), Value::Array(known)) => {
            let Some(known) = known.first() else { return };
            entries
                .iter_mut()
                .for_each(|entry| read_value(entry, known));
        }
        _ => {}
    }
}

/// Whether a list is one of numbers.
fn is_numbers(known: &[Value]) -> bool {
    matches!(known.first(), Some(Value::Float(_)))
}

/// The part of a table that is about the training itself.
pub(super) fn of_training(table: &Table) -> Table {
    let known = Table::try_from(complete().training).expect("all of it can be written");
    let own = table.iter().filter(|(key, _)| known.contains_key(*key));
    own.map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// Refuses keys that no configuration has.
///
/// # Errors
/// [`Error::Configuration`] with the nearest known key.
pub(super) fn check(table: &Table) -> Result<()> {
    check_table(table, &known(), "")?;
    CHOICES.iter().try_for_each(|(what, key, names)| {
        let mut keys = key.split('.');
        let first = keys.next().and_then(|key| table.get(key));
        match keys.fold(first, |value, key| value?.get(key)) {
            Some(Value::String(name)) => find(what, names, |name| *name, name).map(drop),
            _ => Ok(()),
        }
    })
}

/// What has one of a few names: the thing, its key, the names.
const CHOICES: [(&str, &str, &[&str]); 5] = [
    (
        "schedule",
        "schedule.name",
        &["constant", "step", "cosine", "one-cycle"],
    ),
    ("ramp", "ramp.name", &["constant", "linear", "cosine"]),
    ("precision", "precision", &["f32", "f64"]),
    ("norm", "adversarial.norm", &["l1", "l2", "linf"]),
    ("metric", "early-stopping.metric", &["accuracy", "loss"]),
];

fn check_table(table: &Table, known: &Table, path: &str) -> Result<()> {
    for (key, value) in table {
        match (value, known.get(key)) {
            (_, None) => return Err(unknown(key, known, path)),
            // The names of constants are the user's own.
            (Value::Table(_), _) if path == "penalties." && key == "constants" => {}
            (Value::Table(inner), Some(Value::Table(known))) => {
                check_table(inner, known, &format!("{path}{key}."))?;
            }
            (Value::Array(entries), Some(Value::Array(known))) => {
                let Some(Value::Table(known)) = known.first() else {
                    continue;
                };
                for entry in entries.iter().filter_map(Value::as_table) {
                    check_table(entry, known, &format!("{path}{key}."))?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn unknown(key: &str, known: &Table, path: &str) -> Error {
    let names: Vec<String> = known.keys().map(|name| format!("{path}{name}")).collect();
    let key = format!("{path}{key}");
    let hint = did_you_mean(&key, names.iter().map(String::as_str));
    Error::Configuration {
        problem: format!("there is no key `{key}`; {hint}"),
    }
}
