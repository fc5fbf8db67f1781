//! The catalogue: everything that is said about a built-in penalty, once. Help texts, glossaries,
//! configurations and default weights are read from here.

use std::str::FromStr;

use super::{AT_SAMPLE, Formula, GEOMETRIC, OptionValue, Penalty, PenaltySpec};
use crate::error::{Error, Result};

/// How alike a name must be to be suggested; 1 is equal.
const ALIKE: f64 = 0.75;

/// What is known about a built-in penalty.
#[derive(Debug)]
pub struct CatalogueEntry {
    /// Its name in options, files and tables.
    pub name: &'static str,
    /// Its definition at a sample.
    pub formula: &'static str,
    /// What it measures, in words.
    pub meaning: &'static str,
    /// The weight λ that is a good start for inputs in `[0, 1]`; `docs/results.md` tells how it was
    /// found.
    pub weight: f64,
    /// Its options.
    pub options: &'static [PenaltyOption],
    /// Makes it with some options.
    pub(super) make: fn(&Options) -> Penalty,
}

/// An option of a penalty.
#[derive(Debug)]
pub struct PenaltyOption {
    /// Its name.
    pub name: &'static str,
    /// Its value if none is given, which also tells its kind.
    pub default: OptionValue,
    /// Which values it may have.
    pub range: &'static str,
    /// What it is.
    pub meaning: &'static str,
}

/// The options of a penalty that is about to be made: what was given, and defaults.
pub(super) struct Options<'a> {
    entry: &'static CatalogueEntry,
    given: &'a [(&'a str, OptionValue)],
}

impl Options<'_> {
    fn value(&self, name: &str) -> OptionValue {
        let given = self.given.iter().find(|(option, _)| *option == name);
        let default = || {
            let mut options = self.entry.options.iter();
            let option = options.find(|option| option.name == name);
            option.expect("it is in its own list").default
        };
        given.map_or_else(default, |(_, value)| *value)
    }

    pub(super) fn number(&self, name: &str) -> f64 {
        match self.value(name) {
            OptionValue::Number(value) => value,
            OptionValue::Count(value) => value as f64,
            OptionValue::Flag(_) => f64::NAN,
        }
    }

    pub(super) fn count(&self, name: &str) -> u64 {
        match self.value(name) {
            OptionValue::Count(value) => value,
            OptionValue::Number(_) | OptionValue::Flag(_) => 0,
        }
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        self.value(name) == OptionValue::Flag(true)
    }
}

impl CatalogueEntry {
    /// The entry of a name.
    ///
    /// # Errors
    /// [`Error::UnknownPenalty`] with the nearest name.
    pub fn named(name: &str) -> Result<&'static CatalogueEntry> {
        find(name)
    }

    /// The penalty with its default options.
    pub fn penalty(&'static self) -> Penalty {
        (self.make)(&Options {
            entry: self,
            given: &[],
        })
    }

    /// The penalty with some options and the defaults of the others.
    ///
    /// # Errors
    /// [`Error::PenaltyOption`] for an option that it does not have, or a value that is no such
    /// option's or out of range.
    pub fn with_options(&'static self, given: &[(&str, OptionValue)]) -> Result<Penalty> {
        for (name, value) in given {
            let problem = match self.options.iter().find(|option| option.name == *name) {
                None => self.unknown(name),
                Some(option) if fits(option.default, *value) => continue,
                Some(option) => format!("{name} is {value} but must be {}", option.range),
            };
            return Err(Error::PenaltyOption {
                penalty: self.name.to_owned(),
                problem,
            });
        }
        let penalty = (self.make)(&Options { entry: self, given });
        penalty.check()?;
        Ok(penalty)
    }

    fn unknown(&self, name: &str) -> String {
        let names: Vec<&str> = self.options.iter().map(|option| option.name).collect();
        match names.len() {
            0 => format!("it has no option `{name}`, nor any other"),
            _ => format!(
                "it has no option `{name}`; its options are {}",
                names.join(", ")
            ),
        }
    }
}

/// Whether a value is of the kind of a default.
fn fits(default: OptionValue, value: OptionValue) -> bool {
    use OptionValue::*;
    match (default, value) {
        (Number(_), Number(_) | Count(_)) | (Count(_), Count(_)) | (Flag(_), Flag(_)) => true,
        (Number(_), Flag(_))
        | (Count(_), Number(_) | Flag(_))
        | (Flag(_), Number(_) | Count(_)) => false,
    }
}

impl Penalty {
    /// All built-in penalties, those on hyperplanes last.
    pub fn catalogue() -> impl Iterator<Item = &'static CatalogueEntry> {
        AT_SAMPLE.iter().chain(&GEOMETRIC).copied()
    }

    /// Every built-in penalty on the derivatives at a sample, with its default options.
    pub fn all() -> Vec<Penalty> {
        AT_SAMPLE.iter().map(|entry| entry.penalty()).collect()
    }

    /// Every built-in penalty on the hyperplanes around a sample, with its default options. They
    /// cost much more than the others, and are in no list of all.
    pub fn geometric() -> Vec<Penalty> {
        GEOMETRIC.iter().map(|entry| entry.penalty()).collect()
    }

    /// The built-in penalty of a name, with some options and the defaults of the others.
    ///
    /// # Errors
    /// [`Error::UnknownPenalty`] with the nearest name, and [`Error::PenaltyOption`].
    pub fn named(name: &str, options: &[(&str, OptionValue)]) -> Result<Penalty> {
        find(name)?.with_options(options)
    }

    /// The built-in penalty of a name and options, or the formula.
    ///
    /// # Errors
    /// [`Error::UnknownPenalty`], [`Error::PenaltyOption`] and [`Error::Formula`].
    pub fn from_spec(spec: &PenaltySpec) -> Result<Penalty> {
        if let Some(text) = &spec.formula {
            let number = |value: &OptionValue| match value {
                OptionValue::Number(value) => *value,
                OptionValue::Count(value) => *value as f64,
                OptionValue::Flag(_) => f64::NAN,
            };
            let constants = spec.options.iter();
            let constants = constants.map(|(name, v)| (name.to_string(), number(v)));
            return Formula::parse(&spec.name, text, constants.collect()).map(Penalty::Formula);
        }
        let given = spec.options.iter();
        let given: Vec<(&str, OptionValue)> = given.map(|(name, v)| (&**name, *v)).collect();
        Penalty::named(&spec.name, &given)
    }
}

fn find(name: &str) -> Result<&'static CatalogueEntry> {
    if let Some(entry) = Penalty::catalogue().find(|entry| entry.name == name) {
        return Ok(entry);
    }
    let alike = |entry: &&CatalogueEntry| strsim::jaro_winkler(entry.name, name);
    let best = Penalty::catalogue().max_by(|a, b| alike(a).total_cmp(&alike(b)));
    Err(Error::UnknownPenalty {
        name: name.to_owned(),
        nearest: best
            .filter(|entry| alike(entry) >= ALIKE)
            .map(|entry| entry.name),
        known: Penalty::catalogue().map(|entry| entry.name).collect(),
    })
}

impl FromStr for Penalty {
    type Err = Error;

    /// The built-in penalty of that name with its default options: `m = 1` and seed 0 for
    /// `jacobian-projected`, `h = 1.5` for `cure` and `cure-kinks` (`z = sign(g)/‖sign(g)‖`) and
    /// `cure-gradient` and `cure-gradient-kinks` (`z = g/‖g‖`), the 50 nearest hyperplanes and a
    /// radius of 2 in ℓ1, 0.5 in ℓ2 and 0.1 in ℓ∞ for boundaries and the margin.
    fn from_str(name: &str) -> Result<Penalty> {
        Ok(find(name)?.penalty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Direction;

    #[test]
    fn names_and_options_read_back() {
        for penalty in [Penalty::all(), Penalty::geometric()].concat() {
            assert_eq!(penalty.name().parse::<Penalty>().unwrap(), penalty);
            assert_eq!(Penalty::from_spec(&penalty.spec()).unwrap(), penalty);
        }
        let held = Penalty::Cure {
            step: 0.25,
            direction: Direction::Gradient { held: true },
        };
        assert_eq!(Penalty::from_spec(&held.spec()).unwrap(), held);
        assert_eq!(held.to_string(), "cure-gradient");
        assert_eq!(
            held.spec().to_string(),
            "cure-gradient(step=0.25, held=true)"
        );
    }

    #[test]
    fn a_misspelt_name_is_answered_with_the_near_one() {
        let message = |name: &str| name.parse::<Penalty>().unwrap_err().to_string();
        assert_eq!(
            message("jacobain"),
            "no penalty is called `jacobain`; did you mean `jacobian`?"
        );
        assert!(message("zzz").contains("the names are input-gradient, "));
    }

    #[test]
    fn an_option_that_is_not_there_or_out_of_range_is_named() {
        let cure = find("cure").unwrap();
        let message = |name, value| cure.with_options(&[(name, value)]).unwrap_err().to_string();
        assert_eq!(
            message("rows", OptionValue::Count(3)),
            "penalty cure: it has no option `rows`; its options are step"
        );
        assert!(message("step", OptionValue::Flag(true)).contains("step is true"));
        let negative = message("step", OptionValue::Number(-1.0));
        assert!(negative.starts_with("step of cure is -1"), "{negative}");
    }
}
