//! Values of options, with a word on what they must be.

use std::str::FromStr;

use clap::ValueEnum;
use relugrad::Penalty;
use relugrad::penalty::{CatalogueEntry, Given};
use relugrad_train::attack::{AnyAttack, Pgd};
use relugrad_train::parse_number;

/// The arithmetic of a computation, or the type of numbers that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Precision {
    F64,
    F32,
}

pub(crate) fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("it is out of range: it must be at least 1".into()),
        Ok(count) => Ok(count),
        Err(_) => Err(match text.parse::<i128>() {
            Ok(_) => "it is out of range: it must be at least 1".into(),
            Err(_) => "it must be a whole number of at least 1".into(),
        }),
    }
}

/// A finite number, also a fraction such as `8/255`.
pub(crate) fn number(text: &str) -> Result<f64, String> {
    parse_number(text).ok_or_else(|| "it must be a number, such as 0.1 or 8/255".into())
}

fn within(text: &str, valid: fn(f64) -> bool, expected: &str) -> Result<f64, String> {
    match parse_number(text) {
        Some(value) if valid(value) => Ok(value),
        Some(_) => Err(format!("it is out of range: it must be {expected}")),
        None => Err(format!("it must be {expected}, such as 0.1 or 8/255")),
    }
}

/// A whole number of at least 0, such as a seed.
pub(crate) fn whole<N: FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| match text.parse::<i128>() {
        Ok(_) => "it is out of range: it must be at least 0 and below 2^64".into(),
        Err(_) => "it must be a whole number of at least 0".into(),
    })
}

pub(crate) fn positive(text: &str) -> Result<f64, String> {
    within(text, |x| x > 0.0, "a positive number")
}

pub(crate) fn non_negative(text: &str) -> Result<f64, String> {
    within(text, |x| x >= 0.0, "a number of at least 0")
}

pub(crate) fn share(text: &str) -> Result<f64, String> {
    within(text, |x| x > 0.0 && x < 1.0, "a number between 0 and 1")
}

/// A number of bytes, such as `800`, `500MB` or `1.5 GiB`.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let end = text.find(|c: char| c.is_ascii_alphabetic());
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let units = ["B", "KB", "MB", "GB", "TB", "KIB", "MIB", "GIB", "TIB"];
    let unit = unit.to_ascii_uppercase();
    let place = units.iter().position(|known| *known == unit);
    let factor = match place {
        None if unit.is_empty() => Some(1.0),
        None => None,
        Some(power @ 0..5) => Some(1000f64.powi(power as i32)),
        Some(power) => Some(1024f64.powi(power as i32 - 4)),
    };
    let bytes = factor.zip(number.trim().parse::<f64>().ok());
    match bytes.map(|(factor, number)| factor * number) {
        Some(bytes) if bytes >= 1.0 && bytes < u64::MAX as f64 => Ok(bytes as u64),
        _ => Err("it must be a number of bytes, such as 500MB or 2GiB".into()),
    }
}

/// Sizes of perturbations in a norm, such as `8/255,0.1`; none for an empty text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Radii(pub(crate) Vec<f64>);

impl FromStr for Radii {
    type Err = String;

    fn from_str(text: &str) -> Result<Radii, String> {
        let parts = text.split(',').filter(|part| !part.trim().is_empty());
        let radii: Result<Vec<f64>, String> = parts.map(non_negative).collect();
        let mut radii = radii?;
        radii.sort_by(f64::total_cmp);
        radii.dedup();
        Ok(Radii(radii))
    }
}

/// Adversarial training in an option: `METHOD`, `METHOD=SIZE` or `METHOD=SIZE:SIZE`.
#[derive(Clone, Debug)]
pub(crate) struct Adversaries {
    pub(crate) method: AnyAttack,
    /// Empty for the default size.
    pub(crate) sizes: Vec<f64>,
    /// Whether a size stands alone, as earlier versions had it.
    pub(crate) bare: bool,
}

impl FromStr for Adversaries {
    type Err = String;

    fn from_str(text: &str) -> Result<Adversaries, String> {
        if parse_number(text).is_some() {
            return Ok(Adversaries {
                method: Pgd {}.into(),
                sizes: vec![non_negative(text)?],
                bare: true,
            });
        }
        let (name, sizes) = match text.split_once('=') {
            Some((name, list)) => (name, list.split(':').map(non_negative).collect()),
            None => (text, Ok(Vec::new())),
        };
        let method = name
            .trim()
            .parse()
            .map_err(|error: relugrad_train::Error| error.to_string())?;
        Ok(Adversaries {
            method,
            sizes: sizes?,
            bare: false,
        })
    }
}

/// A penalty and, if it was given, its weight.
#[derive(Clone, Debug)]
pub(crate) struct Weighted {
    pub(crate) entry: &'static CatalogueEntry,
    pub(crate) options: Vec<Given>,
    pub(crate) lambda: Option<f64>,
}

impl FromStr for Weighted {
    type Err = String;

    fn from_str(text: &str) -> Result<Weighted, String> {
        let Grid {
            entry,
            options,
            lambdas,
        } = text.parse()?;
        let lambda = match lambdas[..] {
            [] => None,
            [lambda] => Some(lambda),
            _ => return Err("give it one weight".into()),
        };
        Ok(Weighted {
            entry,
            options,
            lambda,
        })
    }
}

/// A penalty with several weights, `NAME=WEIGHT:WEIGHT:…` or `NAME(OPTION=VALUE,…)=WEIGHT:…`.
#[derive(Clone, Debug)]
pub(crate) struct Grid {
    pub(crate) entry: &'static CatalogueEntry,
    pub(crate) options: Vec<Given>,
    /// Empty for the default weight.
    pub(crate) lambdas: Vec<f64>,
}

impl Grid {
    /// A penalty with its default weight.
    pub(crate) fn default_of(name: &str) -> relugrad::Result<Grid> {
        Ok(Grid {
            entry: CatalogueEntry::named(name)?,
            options: Vec::new(),
            lambdas: Vec::new(),
        })
    }
}

impl FromStr for Grid {
    type Err = String;

    fn from_str(text: &str) -> Result<Grid, String> {
        let options_end = text.rfind(')').map_or(0, |end| end + 1);
        let (penalty, lambdas) = match text[options_end..].find('=') {
            Some(equals) => {
                let (penalty, list) = text.split_at(options_end + equals);
                let list = list[1..].split(':');
                let lambdas: Result<Vec<f64>, String> = list.map(non_negative).collect();
                (penalty, lambdas?)
            }
            None => (text, Vec::new()),
        };
        if (1..lambdas.len()).any(|i| lambdas[..i].contains(&lambdas[i])) {
            return Err("a weight is given twice".into());
        }
        let refused = |error: relugrad::Error| error.to_string();
        let (entry, options) = CatalogueEntry::parse(penalty).map_err(refused)?;
        entry.with_options(&options).map_err(refused)?;
        Ok(Grid {
            entry,
            options,
            lambdas,
        })
    }
}

/// Values separated by commas, of which those in parentheses separate nothing; `none` is none.
#[derive(Clone, Debug)]
pub(crate) struct List<T>(pub(crate) Vec<T>);

impl<T: FromStr<Err: ToString>> FromStr for List<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<List<T>, String> {
        let mut depth = 0;
        let separates = |c: char| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            c == ',' && depth <= 0
        };
        let values = text.split(separates).filter(|value| value.trim() != "none");
        let values = values.map(|value| {
            let parsed = value.parse();
            parsed.map_err(|error: T::Err| format!("`{value}`: {}", error.to_string()))
        });
        values.collect::<Result<_, _>>().map(List)
    }
}

/// All values of lists that were given one after the other.
pub(crate) fn all<T: Clone>(lists: &[List<T>]) -> Vec<T> {
    lists.iter().flat_map(|list| list.0.clone()).collect()
}

/// What is known of every penalty, for `--help`.
pub(crate) fn penalty_help(text: &str) -> String {
    let rows = Penalty::catalogue().map(|entry| {
        format!(
            "  {:<24} {:<32} {}",
            entry.name, entry.formula, entry.weight
        )
    });
    let heading = format!("  {:<24} {:<32} weight", "name", "at a sample");
    let rows: Vec<String> = std::iter::once(heading).chain(rows).collect();
    format!("{text}\n\n{}", rows.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_decimal_and_binary_units() {
        for (text, bytes) in [
            ("800", 800),
            ("500MB", 500_000_000),
            ("1.5 GiB", 3 << 29),
            ("2gib", 2 << 30),
            ("7B", 7),
            ("64kib", 1 << 16),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "0", "-1GB", "2 XB", "GB", "nan", "1e30", "inf"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
