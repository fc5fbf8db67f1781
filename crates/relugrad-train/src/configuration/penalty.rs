//! A penalty as configurations and results write it.

use std::collections::BTreeMap;

use relugrad::Penalty;
use relugrad::penalty::{Formula, OptionValue, PenaltySpec};
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// A penalty with its weight: a built-in one with options, which are those of its row in
/// [`Penalty::catalogue`], or a [`Formula`] with constants.
///
/// ```
/// use relugrad_train::Configuration;
///
/// let configuration = Configuration::from_toml(
///     r#"
///     [[penalties]]
///     name = "margin"
///     weight = 0.1                # or lambda
///     formula = "lse(f - one*dot(y, f) + eps*rownorms1(J - one*(y^T*J)))"
///     constants = { eps = 0.1 }
///     "#,
/// )?;
/// assert_eq!(configuration.penalties[0].penalty()?.name(), "margin");
/// # Ok::<(), relugrad_train::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PenaltySettings {
    /// Its name.
    pub name: String,
    /// Its weight.
    #[serde(alias = "weight")]
    pub lambda: f64,
    /// Its text, if it is a formula.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub formula: Option<String>,
    /// Its options, such as CURE's `step`; those that are left out have their defaults.
    #[serde(flatten)]
    pub options: BTreeMap<String, OptionSetting>,
    /// The constants of a formula.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub constants: BTreeMap<String, f64>,
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
        if let Penalty::Formula(formula) = penalty {
            return PenaltySettings {
                name: penalty.name().to_owned(),
                lambda,
                formula: Some(formula.text().to_owned()),
                options: BTreeMap::new(),
                constants: formula.constants().clone(),
            };
        }
        let spec = penalty.spec();
        let options = spec.options.into_iter();
        let options = options.filter(|(_, value)| *value != OptionValue::Flag(false));
        PenaltySettings {
            name: spec.name,
            lambda,
            formula: None,
            options: options
                .map(|(name, v)| (name.into_owned(), v.into()))
                .collect(),
            constants: BTreeMap::new(),
        }
    }

    /// The penalty.
    ///
    /// # Errors
    /// The engine's error for an unknown name, an option that the penalty does not have, a value
    /// out of range, or a formula that is none.
    pub fn penalty(&self) -> Result<Penalty> {
        let refuse = |problem: String| {
            let penalty = self.name.clone();
            Err(relugrad::Error::PenaltyOption { penalty, problem }.into())
        };
        if let Some(text) = &self.formula {
            if let Some(option) = self.options.keys().next() {
                return refuse(format!(
                    "a formula has no option `{option}`; give its constants as constants"
                ));
            }
            let formula = Formula::parse(&self.name, text, self.constants.clone());
            return Ok(Penalty::Formula(formula?));
        }
        if let Some(constant) = self.constants.keys().next() {
            return refuse(format!("it has the constant `{constant}` but no formula"));
        }
        let given = self.options.iter();
        let given: Vec<(&str, OptionValue)> =
            given.map(|(k, v)| (k.as_str(), v.clone().into())).collect();
        Ok(Penalty::named(&self.name, &given)?)
    }
}

/// What a penalty is called among others: its name, with the options in which it differs from one
/// of that name, or the formula.
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
    if namesakes.iter().all(|other| other.formula == spec.formula) {
        spec.formula = None;
    }
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
