//! Other values for some keys, and which keys differ.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::Configuration;
use crate::error::{Error, Result};

/// A value that was changed when a training was resumed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// Steps that had been taken with the value before.
    pub step: u64,
    /// Which key, such as `optimizer.beta1`.
    pub key: String,
    /// The value before, if it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// The value from there on, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |value: &Option<Value>| value.as_ref().map_or("unset".into(), Value::to_string);
        let (before, after) = (text(&self.before), text(&self.after));
        write!(f, "{} is {after} instead of {before}", self.key)
    }
}

/// Keys that a training cannot change on its way, and why.
const FIXED: [(&str, &str); 10] = [
    ("loss", "the logs have means of another loss"),
    ("loss.", "the logs have means of another loss"),
    ("model", "the checkpoint holds a network of other layers"),
    (
        "standardise",
        "the checkpoint holds a network of other layers",
    ),
    ("mean", "the checkpoint holds a network of other layers"),
    ("std", "the checkpoint holds a network of other layers"),
    ("start", "the training has begun from another model"),
    (
        "precision",
        "the checkpoint holds numbers of another precision",
    ),
    ("seed", "an epoch would no longer have every sample once"),
    (
        "batch-size",
        "an epoch would no longer have every sample once",
    ),
];

impl Configuration {
    /// This configuration with other values for some keys, such as `optimizer.beta1`.
    ///
    /// # Errors
    /// As for [`from_toml`](Self::from_toml).
    pub fn with(&self, values: &[(String, Value)]) -> Result<Configuration> {
        let mut table = self.table();
        for (key, value) in values {
            set_key(&mut table, key, value.clone())?;
        }
        Configuration::from_table(table)
    }

    /// The keys whose values another configuration changes, the history of changes aside.
    pub fn differences(&self, other: &Configuration, step: u64) -> Vec<Change> {
        let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
        flatten(&self.table(), "", &mut before);
        flatten(&other.table(), "", &mut after);
        let keys: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        let changed = keys
            .into_iter()
            .filter(|key| before.get(*key) != after.get(*key));
        let change = |key: &String| Change {
            step,
            key: key.clone(),
            before: before.get(key).cloned(),
            after: after.get(key).cloned(),
        };
        changed
            .filter(|key| *key != "changes")
            .map(change)
            .collect()
    }

    /// Refuses changes that a training cannot take on its way.
    pub(crate) fn check_changes(&self, other: &Configuration) -> Result<()> {
        let changes = self.differences(other, 0);
        let fixed = FIXED.iter().find_map(|(key, reason)| {
            let change = changes.iter().find(|change| match key.ends_with('.') {
                true => change.key.starts_with(key),
                false => change.key == *key,
            })?;
            Some((change, *reason))
        });
        let names = |all: &Configuration| -> Vec<(String, Option<String>)> {
            let all = all.penalties.iter();
            all.map(|one| (one.name.clone(), one.formula.clone()))
                .collect()
        };
        let penalties = changes
            .iter()
            .find(|change| change.key == "penalties" && names(self) != names(other))
            .map(|change| (change, "the logs have the means of other penalties"));
        match fixed.or(penalties) {
            None => Ok(()),
            Some((change, reason)) => Err(Error::FixedKey {
                change: change.to_string(),
                reason,
            }),
        }
    }

    fn table(&self) -> Table {
        Table::try_from(self).expect("all of it can be written")
    }
}

/// Values by their keys with dots; lists are one value.
fn flatten(table: &Table, path: &str, values: &mut BTreeMap<String, Value>) {
    for (key, value) in table {
        let key = format!("{path}{key}");
        if let Value::Table(inner) = value {
            flatten(inner, &format!("{key}."), values);
        } else {
            values.insert(key, value.clone());
        }
    }
}

/// Sets a key such as `optimizer.momentum`.
///
/// # Errors
/// [`Error::Configuration`] if there is a value where a table should be.
pub fn set_key(table: &mut Table, key: &str, value: Value) -> Result<()> {
    let Some((section, rest)) = key.split_once('.') else {
        table.insert(key.into(), value);
        return Ok(());
    };
    // Another optimizer does not have the options of the one before.
    if key == "optimizer.name" && table.get(section).and_then(|o| o.get(rest)) != Some(&value) {
        table.remove(section);
    }
    let inner = table
        .entry(section)
        .or_insert_with(|| Value::Table(Table::new()));
    match inner.as_table_mut() {
        Some(inner) => set_key(inner, rest, value),
        None => Err(Error::Configuration {
            problem: format!("`{section}` is no table of options"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(values: &[(&str, Value)]) -> Result<Configuration> {
        let values = values.iter().cloned();
        let values: Vec<(String, Value)> = values.map(|(k, v)| (k.to_owned(), v)).collect();
        Configuration::default().with(&values)
    }

    #[test]
    fn differences_are_told_by_key() {
        let changed = with(&[
            ("learning-rate", Value::Float(0.5)),
            ("optimizer.beta1", Value::Float(0.5)),
            ("clip", Value::Float(1.0)),
        ]);
        let changed = changed.unwrap();
        let changes = Configuration::default().differences(&changed, 7);
        let texts: Vec<String> = changes.iter().map(Change::to_string).collect();
        assert_eq!(
            texts,
            [
                "clip is 1.0 instead of unset",
                "learning-rate is 0.5 instead of 0.001",
                "optimizer.beta1 is 0.5 instead of 0.9"
            ]
        );
        let mut recorded = changed;
        recorded.changes = changes;
        let read = Configuration::from_toml(&recorded.to_toml()).unwrap();
        assert_eq!(read, recorded);
        assert!(read.differences(&with(&[]).unwrap(), 0).len() == 3);
    }

    #[test]
    fn what_a_training_is_made_of_cannot_change() {
        let default = Configuration::default();
        for (key, value) in [
            ("model", Value::String("mlp:9".into())),
            ("seed", Value::Integer(3)),
            ("batch-size", Value::Integer(3)),
            ("precision", Value::String("f64".into())),
            ("standardise", Value::Boolean(true)),
            ("start", Value::String("a.onnx".into())),
            ("loss", Value::String("squared-error".into())),
        ] {
            let error = default.check_changes(&with(&[(key, value)]).unwrap());
            assert!(error.unwrap_err().to_string().contains(key));
        }
        let rate = with(&[("learning-rate", Value::Float(0.5))]).unwrap();
        default.check_changes(&rate).unwrap();
        let penalty = Configuration::from_toml("[[penalties]]\nname = \"jacobian\"\nlambda = 1.0");
        assert!(default.check_changes(&penalty.unwrap()).is_err());
    }

    #[test]
    fn another_optimizer_has_options_of_its_own() {
        let other = with(&[("optimizer.name", Value::String("sgd".into()))]).unwrap();
        assert_eq!(other.training.optimizer, crate::Sgd::default().into());
        assert!(with(&[("optimizer.beta3", Value::Float(0.5))]).is_err());
        assert!(with(&[("epochs.all", Value::Float(0.5))]).is_err());
    }
}
