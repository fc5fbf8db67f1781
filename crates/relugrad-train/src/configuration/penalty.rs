//! A penalty as configurations and results write it.

use std::collections::BTreeMap;

use relugrad::Penalty;
use relugrad::penalty::{OptionValue, PenaltySpec};
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// A penalty with its weight and options, which are those of its row in [`Penalty::catalogue`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PenaltySettings {
    /// Its name.
    pub name: String,
    /// Its weight.
    pub lambda: f64,
    /// Its options, such as CURE's `step`; those that are left out have their defaults.
    #[serde(flatten)]
    pub options: BTreeMap<String, OptionSetting>,
}

/// The value of an option in a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OptionSetting {
    /// Yes or no.
    Flag(bool),
    /// A number of things, or a seed.
    Count(u64),
    /// A real number.
    Number(f64),
    /// A word, such as the name of a norm.
    Word(String),
}

impl From<OptionValue> for OptionSetting {
    fn from(value: OptionValue) -> OptionSetting {
        match value {
            OptionValue::Flag(value) => OptionSetting::Flag(value),
            OptionValue::Count(value) => OptionSetting::Count(value),
            OptionValue::Number(value) => OptionSetting::Number(value),
            OptionValue::Word(value) => OptionSetting::Word(value.into_owned()),
        }
    }
}

impl From<OptionSetting> for OptionValue {
    fn from(value: OptionSetting) -> OptionValue {
        match value {
            OptionSetting::Flag(value) => OptionValue::Flag(value),
            OptionSetting::Count(value) => OptionValue::Count(value),
            OptionSetting::Number(value) => OptionValue::Number(value),
            OptionSetting::Word(value) => OptionValue::Word(value.into()),
        }
    }
}

impl PenaltySettings {
    /// A penalty and its weight. Flags that are off are left out.
    pub fn new(penalty: &Penalty, lambda: f64) -> PenaltySettings {
        let spec = penalty.spec();
        let options = spec.options.into_iter();
        let options = options.filter(|(_, value)| *value != OptionValue::Flag(false));
        PenaltySettings {
            name: spec.name,
            lambda,
            options: options
                .map(|(name, v)| (name.into_owned(), v.into()))
                .collect(),
        }
    }

    /// The penalty.
    ///
    /// # Errors
    /// The engine's error for an unknown name, an option that the penalty does not have, or a value
    /// out of range.
    pub fn penalty(&self) -> Result<Penalty> {
        let given = self.options.iter();
        let given: Vec<(&str, OptionValue)> =
            given.map(|(k, v)| (k.as_str(), v.clone().into())).collect();
        Ok(Penalty::named(&self.name, &given)?)
    }
}

/// What a penalty is called among others: its name, with the options in which it differs from one
/// of that name.
pub(crate) fn distinct_name<'p>(
    penalty: &Penalty,
    others: impl IntoIterator<Item = &'p Penalty>,
) -> String {
    let others = others.into_iter();
    let namesakes = others.filter(|other| other.name() == penalty.name());
    let namesakes: Vec<PenaltySpec> = namesakes.map(Penalty::spec).collect();
    let mut spec = penalty.spec();
    spec.options.retain(|(name, value)| {
        let mut others = namesakes.iter().map(|other| other.option(name));
        others.any(|other| other.as_ref() != Some(value))
    });
    spec.to_string()
}

/// What each of the penalties is called in logs.
pub(crate) fn penalty_names(settings: &[PenaltySettings]) -> Vec<String> {
    let penalties: Result<Vec<Penalty>> = settings.iter().map(PenaltySettings::penalty).collect();
    match penalties {
        Ok(penalties) => {
            let name = |penalty| distinct_name(penalty, &penalties);
            penalties.iter().map(name).collect()
        }
        Err(_) => settings.iter().map(|one| one.name.clone()).collect(),
    }
}
