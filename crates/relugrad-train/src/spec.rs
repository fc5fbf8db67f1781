//! Options of what a user can add: what they are called, which numbers they may have, and how files
//! keep them.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use toml::Table;

use crate::error::{Error, Result};

/// A range of numbers, in words and as a question.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// Such as `in [0, 1)`.
    pub words: &'static str,
    holds: fn(f64) -> bool,
}

impl Range {
    /// `x ≥ 0`.
    pub const AT_LEAST_ZERO: Range =
        Range::new("finite and at least 0", |x| x >= 0.0 && x.is_finite());
    /// `x > 0`.
    pub const POSITIVE: Range = Range::new("positive and finite", |x| x > 0.0 && x.is_finite());
    /// `x ≥ 1`.
    pub const AT_LEAST_ONE: Range = Range::new("at least 1", |x| x >= 1.0);
    /// `0 ≤ x ≤ 1`.
    pub const SHARE: Range = Range::new("in [0, 1]", |x| (0.0..=1.0).contains(&x));
    /// `0 ≤ x < 1`.
    pub const BELOW_ONE: Range = Range::new("in [0, 1)", |x| (0.0..1.0).contains(&x));
    /// True or false, which every number is as good as.
    pub const FLAG: Range = Range::new("true or false", |_| true);

    /// A range of one's own.
    pub const fn new(words: &'static str, holds: fn(f64) -> bool) -> Range {
        Range { words, holds }
    }

    /// Refuses a number that is outside.
    ///
    /// # Errors
    /// [`Error::OutOfRange`].
    pub fn check(&self, option: &'static str, value: f64) -> Result<()> {
        match (self.holds)(value) {
            true => Ok(()),
            false => Err(Error::OutOfRange {
                option,
                value,
                expected: self.words,
            }),
        }
    }
}

/// An option of an optimizer or of an attack, as help, files and checks know it. Its default is in
/// the `Default` of what has it.
#[derive(Clone, Copy, Debug)]
pub struct OptionInfo {
    /// Its key.
    pub name: &'static str,
    /// What it is.
    pub meaning: &'static str,
    /// What it may be.
    pub range: Range,
}

/// Refuses numbers outside the ranges of their options.
pub(crate) fn check_options(table: &Table, options: &[OptionInfo]) -> Result<()> {
    options.iter().try_for_each(|option| {
        let value = match table.get(option.name) {
            Some(toml::Value::Float(value)) => *value,
            Some(toml::Value::Integer(value)) => *value as f64,
            _ => return Ok(()),
        };
        option.range.check(option.name, value)
    })
}

/// Kind and options: what an optimizer or an attack is in a file, and when two of them are the
/// same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// The kind.
    pub name: String,
    /// Its options.
    #[serde(flatten)]
    pub options: Table,
}

/// A kind and options that a file has as a name alone if there are no options.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NameAlone(pub(crate) Spec);

impl Serialize for NameAlone {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self.0.options.is_empty() {
            true => self.0.name.serialize(serializer),
            false => self.0.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for NameAlone {
    fn deserialize<D: Deserializer<'de>>(source: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Name(String),
            Spec(Spec),
        }
        Ok(NameAlone(match Written::deserialize(source)? {
            Written::Spec(spec) => spec,
            Written::Name(name) => Spec {
                name,
                options: Table::new(),
            },
        }))
    }
}

/// The options of something that has been written with serde; none for a struct without fields.
pub(crate) fn table(value: &impl Serialize) -> std::result::Result<Table, toml::ser::Error> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::Null) => Ok(Table::new()),
        _ => Table::try_from(value),
    }
}

/// The entry of a catalogue that has a name.
///
/// # Errors
/// [`Error::UnknownName`] with the nearest one.
pub(crate) fn find<'c, E>(
    what: &'static str,
    catalogue: &'c [E],
    name_of: fn(&E) -> &'static str,
    name: &str,
) -> Result<&'c E> {
    let found = catalogue.iter().find(|entry| name_of(entry) == name);
    found.ok_or_else(|| Error::UnknownName {
        what,
        name: name.to_owned(),
        hint: did_you_mean(name, catalogue.iter().map(name_of)),
    })
}

/// The nearest of some names to one that does not exist, as a hint, or all of them.
pub(crate) fn did_you_mean<'n>(name: &str, known: impl Iterator<Item = &'n str> + Clone) -> String {
    /// Names that differ more than this are not proposed.
    const SIMILAR: f64 = 0.7;
    let typo = |other: &str| strsim::osa_distance(name, other) <= 1 + name.len() / 8;
    let near = known
        .clone()
        .map(|other| (strsim::jaro_winkler(name, other), other))
        .filter(|(similarity, other)| *similarity >= SIMILAR || typo(other))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match near {
        Some((_, other)) => format!("did you mean `{other}`?"),
        None => format!("the names are {}", known.collect::<Vec<_>>().join(", ")),
    }
}
