//! The catalogue: everything that is said about a built-in penalty, once. Help texts, glossaries,
//! configurations and default weights are read from here.

use std::str::FromStr;

use super::{AT_SAMPLE, Formula, GEOMETRIC, OptionValue, Penalty, PenaltySpec};
use crate::error::{Error, Result};

/// The word that stands for the largest possible number of things.
pub(super) const ALL: &str = "all";

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

/// An option that is given, with its value.
pub type Given = (&'static str, OptionValue);

/// An option of a penalty.
#[derive(Debug)]
pub struct PenaltyOption {
    /// Its name.
    pub name: &'static str,
    /// Its value if none is given, which also tells its kind.
    pub default: OptionValue,
    /// Which values it may have.
    pub range: &'static str,
    /// The words that it may be, if any.
    pub words: &'static [&'static str],
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
            option.expect("it is in its own list").default.clone()
        };
        given.map_or_else(default, |(_, value)| value.clone())
    }

    pub(super) fn number(&self, name: &str) -> f64 {
        match self.value(name) {
            OptionValue::Number(value) => value,
            OptionValue::Count(value) => value as f64,
            OptionValue::Flag(_) | OptionValue::Word(_) => f64::NAN,
        }
    }

    pub(super) fn count(&self, name: &str) -> u64 {
        match self.value(name) {
            OptionValue::Count(value) => value,
            OptionValue::Number(_) | OptionValue::Flag(_) | OptionValue::Word(_) => 0,
        }
    }

    /// Which of the words of an option was given; nothing for a number in its place.
    pub(super) fn word(&self, name: &str) -> Option<&'static str> {
        let option = self
            .entry
            .options
            .iter()
            .find(|option| option.name == name)?;
        let OptionValue::Word(given) = self.value(name) else {
            return None;
        };
        option.words.iter().copied().find(|word| *word == given)
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

    /// The entry and the options of a text such as `cure` or `cure(step=0.5)`, which is also how a
    /// [`PenaltySpec`] is printed. Options that are left out have their defaults.
    ///
    /// # Errors
    /// [`Error::UnknownPenalty`] with the nearest name, and [`Error::PenaltyOption`] for an option
    /// that it does not have, or that is written otherwise.
    pub fn parse(text: &str) -> Result<(&'static CatalogueEntry, Vec<Given>)> {
        let text = text.trim();
        let Some((name, rest)) = text.split_once('(') else {
            return Ok((find(text)?, Vec::new()));
        };
        let entry = find(name.trim())?;
        let refused = |problem: String| Error::PenaltyOption {
            penalty: entry.name.to_owned(),
            problem,
        };
        let inside = rest
            .strip_suffix(')')
            .ok_or_else(|| refused(format!("`{text}` does not end with a closing parenthesis")))?;
        let mut given: Vec<Given> = Vec::new();
        for setting in inside
            .split(',')
            .filter(|setting| !setting.trim().is_empty())
        {
            let (name, value) = setting
                .split_once('=')
                .ok_or_else(|| refused(format!("`{}` is not OPTION=VALUE", setting.trim())))?;
            let option = entry.option(name.trim()).map_err(refused)?;
            if given.iter().any(|(other, _)| *other == option.name) {
                return Err(refused(format!("{} is given twice", option.name)));
            }
            given.push((option.name, option.read(value.trim())));
        }
        Ok((entry, given))
    }

    /// Its option of a name, or what is wrong.
    fn option(&self, name: &str) -> Result<&'static PenaltyOption, String> {
        let found = self.options.iter().find(|option| option.name == name);
        found.ok_or_else(|| self.unknown(name))
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
            let problem = match self.option(name) {
                Err(problem) => problem,
                Ok(option) if option.fits(value) => continue,
                Ok(option) => format!("{name} is {value} but must be {}", option.range),
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

impl PenaltyOption {
    /// Whether it may have a value, as far as its kind tells.
    fn fits(&self, value: &OptionValue) -> bool {
        use OptionValue::*;
        match (&self.default, value) {
            (_, Word(word)) => self.words.contains(&&**word),
            (Word(default), Count(_)) => default == ALL,
            (Number(_), Number(_) | Count(_)) | (Count(_), Count(_)) | (Flag(_), Flag(_)) => true,
            (Number(_), Flag(_))
            | (Count(_), Number(_) | Flag(_))
            | (Flag(_) | Word(_), Number(_))
            | (Flag(_), Count(_))
            | (Word(_), Flag(_)) => false,
        }
    }

    /// The value that a text stands for: `true` or `false`, a number, or else a word.
    fn read(&self, text: &str) -> OptionValue {
        let number = || text.parse().ok().map(OptionValue::Number);
        let count = || text.parse().ok().map(OptionValue::Count);
        let flag = || text.parse().ok().map(OptionValue::Flag);
        let word = || OptionValue::Word(text.to_owned().into());
        flag().or_else(count).or_else(number).unwrap_or_else(word)
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
                OptionValue::Flag(_) | OptionValue::Word(_) => f64::NAN,
            };
            let constants = spec.options.iter();
            let constants = constants.map(|(name, v)| (name.to_string(), number(v)));
            return Formula::parse(&spec.name, text, constants.collect()).map(Penalty::Formula);
        }
        let given = spec.options.iter();
        let given: Vec<(&str, OptionValue)> = given.map(|(name, v)| (&**name, v.clone())).collect();
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

    /// The built-in penalty of a text such as `cure` or `cure(step=0.5)`. The defaults are `m = 1` and seed 0 for
    /// `jacobian-projected`, `h = 1.5` for `cure` and `cure-kinks` (`z = sign(g)/‖sign(g)‖`) and
    /// `cure-gradient` and `cure-gradient-kinks` (`z = g/‖g‖`), the 50 nearest hyperplanes and a
    /// radius of 2 in ℓ1, 0.5 in ℓ2 and 0.1 in ℓ∞ for boundaries and the margin.
    fn from_str(text: &str) -> Result<Penalty> {
        let (entry, given) = CatalogueEntry::parse(text)?;
        entry.with_options(&given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ball, Direction, Norm};

    #[test]
    fn names_and_options_read_back() {
        for penalty in [Penalty::all(), Penalty::geometric()].concat() {
            assert_eq!(penalty.name().parse::<Penalty>().unwrap(), penalty);
            assert_eq!(Penalty::from_spec(&penalty.spec()).unwrap(), penalty);
            assert_eq!(
                penalty.spec().to_string().parse::<Penalty>().unwrap(),
                penalty
            );
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
    fn options_in_a_text_are_read_or_refused_by_name() {
        let ball = Ball {
            rivals: Some(2),
            ..Ball::new(Norm::L2, 0.25)
        };
        let text = " worst-case( epsilon = 0.25,norm=l2 , rivals=2)";
        assert_eq!(text.parse::<Penalty>().unwrap(), Penalty::WorstCase(ball));
        for (text, problem) in [
            ("cure(step=1", "closing parenthesis"),
            ("cure(step)", "`step` is not OPTION=VALUE"),
            ("cure(stop=1)", "no option `stop`; its options are step"),
            ("cure(step=1,step=2)", "step is given twice"),
            (
                "cure(step=high)",
                "step is high but must be a finite number",
            ),
            (
                "worst-case(norm=l3)",
                "norm is l3 but must be l1, l2 or linf",
            ),
            (
                "worst-case(rivals=0)",
                "from 1 to the number of classes less 1",
            ),
            ("worst-case(rivals=few)", "rivals is few but must be all"),
            ("worst-case(step=1)", "in [0, 1)"),
            ("worst-case(epsilon=nan)", "epsilon of worst-case is NaN"),
            ("worst(epsilon=1)", "did you mean `worst-case`"),
        ] {
            let message = text.parse::<Penalty>().unwrap_err().to_string();
            assert!(message.contains(problem), "{text}: {message}");
        }
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
