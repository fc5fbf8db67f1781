//! A loss as configurations, checkpoints and options write it.

use std::fmt;
use std::str::FromStr;

use relugrad::Loss;
use relugrad::loss::LossEntry;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::error::{Error, Result};
use crate::number::parse_number;
use crate::spec::{NameAlone, Spec, did_you_mean, find};

/// A loss by its name and options, which are those of its row in [`Loss::catalogue`]; the name
/// alone if it has none to tell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LossSettings(NameAlone);

impl LossSettings {
    /// Those of a loss. Options that are 0 are left out.
    pub fn new(loss: &Loss) -> LossSettings {
        let given = loss
            .options()
            .into_iter()
            .filter(|(_, value)| *value != 0.0);
        let options = given.map(|(name, value)| (name.to_owned(), Value::Float(value)));
        LossSettings(NameAlone(Spec {
            name: loss.name().to_owned(),
            options: options.collect(),
        }))
    }

    /// The loss.
    ///
    /// # Errors
    /// [`Error::UnknownName`] with the nearest name, [`Error::Configuration`] for an option that
    /// the loss does not have or a value that is no number, and the engine's error for one out of
    /// range.
    pub fn loss(&self) -> Result<Loss> {
        let LossSettings(NameAlone(spec)) = self;
        let entry: &LossEntry = find("loss", Loss::catalogue(), |entry| entry.name, &spec.name)?;
        let mut values: Vec<f64> = entry.options.iter().map(|(_, default)| *default).collect();
        for (name, value) in &spec.options {
            let place = entry.options.iter().position(|(known, _)| known == name);
            values[place.ok_or_else(|| unknown(entry, name))?] = number(entry, name, value)?;
        }
        let loss = (entry.make)(&values);
        check_options(&loss)?;
        Ok(loss)
    }
}

/// Refuses options that are out of range.
fn check_options(loss: &Loss) -> Result<()> {
    // Whatever else the loss says is about targets, of which there are none yet.
    match loss.check(relugrad::loss::TargetKind::Classes, 1) {
        Err(error @ relugrad::Error::OutOfRange { .. }) => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn unknown(entry: &LossEntry, name: &str) -> Error {
    let known = entry.options.iter().map(|(name, _)| *name);
    let hint = match entry.options {
        [] => "it has none".to_owned(),
        _ => did_you_mean(name, known),
    };
    Error::Configuration {
        problem: format!("the loss {} has no option `{name}`; {hint}", entry.name),
    }
}

fn number(entry: &LossEntry, name: &str, value: &Value) -> Result<f64> {
    let number = value.as_float().or(value.as_integer().map(|n| n as f64));
    number.ok_or_else(|| Error::Configuration {
        problem: format!("{name} of the loss {} is {value}, no number", entry.name),
    })
}

/// A name, and options in brackets: `softmax-cross-entropy`,
/// `softmax-cross-entropy(label-smoothing=0.1)`.
impl FromStr for LossSettings {
    type Err = Error;

    fn from_str(text: &str) -> Result<LossSettings> {
        let (name, inner) = match text.strip_suffix(')').and_then(|text| text.split_once('(')) {
            Some((name, inner)) => (name, inner),
            None => (text, ""),
        };
        let pairs = inner.split(',').filter(|pair| !pair.trim().is_empty());
        let option = |pair: &str| {
            let (key, value) = pair.split_once('=')?;
            Some((key.trim().to_owned(), Value::Float(parse_number(value)?)))
        };
        let options: Option<Table> = pairs.map(option).collect();
        let options = options.ok_or_else(|| Error::Configuration {
            problem: format!(
                "`{text}` is no loss; its options are numbers, as in NAME(OPTION=0.1)"
            ),
        })?;
        let name = name.trim().to_owned();
        let settings = LossSettings(NameAlone(Spec { name, options }));
        settings.loss()?;
        Ok(settings)
    }
}

impl fmt::Display for LossSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LossSettings(NameAlone(spec)) = self;
        f.write_str(&spec.name)?;
        let options = spec
            .options
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        match spec.options.is_empty() {
            true => Ok(()),
            false => write!(f, "({})", options.collect::<Vec<_>>().join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_loss_is_written_and_read() {
        for entry in Loss::catalogue() {
            let loss = (entry.make)(&entry.options.iter().map(|_| 0.25).collect::<Vec<_>>());
            let settings = LossSettings::new(&loss);
            assert_eq!(settings.loss().unwrap(), loss);
            assert_eq!(
                settings.to_string().parse::<LossSettings>().unwrap(),
                settings
            );
            let json = serde_json::to_string(&settings).unwrap();
            assert_eq!(
                serde_json::from_str::<LossSettings>(&json).unwrap(),
                settings
            );
            assert!(json.starts_with('"') == entry.options.is_empty(), "{json}");
        }
    }

    #[test]
    fn mistakes_are_answered_with_what_is_near() {
        let message = |text: &str| text.parse::<LossSettings>().unwrap_err().to_string();
        assert!(message("squared-eror").contains("did you mean `squared-error`?"));
        assert!(
            message("softmax-cross-entropy(label-smooting=0.1)")
                .contains("did you mean `label-smoothing`?")
        );
        assert!(message("logistic(a=1)").contains("it has none"));
        assert!(message("softmax-cross-entropy(label-smoothing=2)").contains("must be in [0, 1]"));
        assert!(message("softmax-cross-entropy(label-smoothing)").contains("no loss"));
    }
}
