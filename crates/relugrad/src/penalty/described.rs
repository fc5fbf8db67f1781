//! What every penalty says about itself, whichever door it comes through.

use std::borrow::Cow;
use std::fmt;

use super::Formula;
use crate::error::Result;

/// Name, options and promises of a penalty.
pub trait Described: fmt::Debug + Send + Sync {
    /// Its name in messages, tables and files, in small letters with hyphens.
    fn name(&self) -> &str;

    /// Its options with their values. With the name they are its identity: two penalties are the
    /// same if both agree.
    fn options(&self) -> Vec<(&'static str, OptionValue)> {
        Vec::new()
    }

    /// What its author promises. The default promises nothing and is always right.
    fn promises(&self) -> Promises {
        Promises::default()
    }

    /// What to take in its place where there are no classes to compare (values to regress to, or a
    /// single logit), if it compares classes.
    fn instead_of_classes(&self) -> Option<&'static str> {
        None
    }

    /// Whether its options are in range.
    ///
    /// # Errors
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) or whatever tells which option is not, and
    /// what it may be.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// Whether it is defined, with its options, where there are `K` logits.
    ///
    /// # Errors
    /// Whatever tells why it is not, and what would do.
    fn check_outputs(&self, outputs: usize) -> Result<()> {
        let _ = outputs;
        Ok(())
    }
}

/// What the author of a penalty `φ(f, y, J)` promises about it, so that less work is enough.
/// `relugrad verify` refutes promises that are not kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Promises {
    /// Under which changes of all logits together its value stays the same.
    pub invariance: Invariance,
    /// `p` if `φ(f, y, c J) = c^p φ(f, y, J)` for all `c > 0`.
    pub degree: Option<i32>,
    /// Whether it is a function of `J` alone, and so constant in every activation region.
    pub function_of_jacobian: bool,
}

/// Under which changes a penalty's value stays the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Invariance {
    /// None that is known: all `K` rows of the Jacobian are swept.
    #[default]
    None,
    /// `φ(f + c 1, y, J + 1 vᵀ) = φ(f, y, J)` for all `c` and `v`, if the loss sees only
    /// differences of logits too: `K − 1` centred rows are enough.
    LogitDifferences,
}

impl Promises {
    /// The invariance [`Invariance::LogitDifferences`] and no other promise.
    pub const fn logit_differences() -> Promises {
        Promises {
            invariance: Invariance::LogitDifferences,
            degree: None,
            function_of_jacobian: false,
        }
    }

    /// With a degree in `J`.
    pub const fn with_degree(self, degree: i32) -> Promises {
        Promises {
            degree: Some(degree),
            ..self
        }
    }

    /// With the promise that it is a function of `J` alone.
    pub const fn of_jacobian(self) -> Promises {
        Promises {
            function_of_jacobian: true,
            ..self
        }
    }
}

/// The value of an option of a penalty.
#[derive(Clone, Debug, PartialEq)]
pub enum OptionValue {
    /// A real number.
    Number(f64),
    /// A number of things, or a seed.
    Count(u64),
    /// Yes or no.
    Flag(bool),
    /// A word, such as the name of a norm.
    Word(Cow<'static, str>),
}

impl OptionValue {
    /// A word that is known to the program.
    pub const fn word(word: &'static str) -> OptionValue {
        OptionValue::Word(Cow::Borrowed(word))
    }
}

impl fmt::Display for OptionValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OptionValue::Number(value) => value.fmt(f),
            OptionValue::Count(value) => value.fmt(f),
            OptionValue::Flag(value) => value.fmt(f),
            OptionValue::Word(value) => value.fmt(f),
        }
    }
}

/// The identity of a penalty: its name and options, of a formula its text and constants. It is
/// printed as `cure(step=1.5)`.
#[derive(Clone, Debug, PartialEq)]
pub struct PenaltySpec {
    /// The name.
    pub name: String,
    /// All options, in the order in which the penalty gives them.
    pub options: Vec<(Cow<'static, str>, OptionValue)>,
    /// The text of a formula; its options are the constants.
    pub formula: Option<String>,
}

impl PenaltySpec {
    pub(crate) fn of(penalty: &(impl Described + ?Sized)) -> PenaltySpec {
        let options = penalty.options().into_iter();
        PenaltySpec {
            name: penalty.name().to_owned(),
            options: options.map(|(name, value)| (name.into(), value)).collect(),
            formula: None,
        }
    }

    /// With the text and the constants of a formula.
    pub(crate) fn with_formula(self, formula: &Formula) -> PenaltySpec {
        let constants = formula.constants().iter();
        let constants = constants.map(|(name, v)| (name.clone().into(), OptionValue::Number(*v)));
        PenaltySpec {
            options: constants.collect(),
            formula: Some(formula.text().to_owned()),
            ..self
        }
    }

    /// The value of an option.
    pub fn option(&self, name: &str) -> Option<OptionValue> {
        let found = self.options.iter().find(|(option, _)| option == name);
        found.map(|(_, value)| value.clone())
    }
}

impl fmt::Display for PenaltySpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = self.options.iter();
        let options = options.map(|(name, value)| format!("{name}={value}"));
        let parts: Vec<String> = self.formula.iter().cloned().chain(options).collect();
        f.write_str(&self.name)?;
        match parts.is_empty() {
            true => Ok(()),
            false => write!(f, "({})", parts.join(", ")),
        }
    }
}

/// Describes a built-in penalty without options: its catalogue entry has the name.
macro_rules! described {
    ($penalty:ty, $entry:expr, $promises:expr) => {
        impl Described for $penalty {
            fn name(&self) -> &str {
                $entry.name
            }

            fn promises(&self) -> Promises {
                $promises
            }
        }
    };
}
pub(super) use described;
