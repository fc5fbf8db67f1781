//! Values of options, with a word on what they must be.

use std::str::FromStr;

use relugrad::Penalty;

pub(crate) fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("it must be at least 1".into()),
        Ok(count) => Ok(count),
        Err(_) => Err("it must be a whole number of at least 1".into()),
    }
}

fn number(text: &str, valid: fn(f64) -> bool, expected: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if valid(value) => Ok(value),
        _ => Err(format!("it must be {expected}")),
    }
}

pub(crate) fn positive(text: &str) -> Result<f64, String> {
    number(text, |x| x.is_finite() && x > 0.0, "a positive number")
}

pub(crate) fn non_negative(text: &str) -> Result<f64, String> {
    number(
        text,
        |x| x.is_finite() && x >= 0.0,
        "a number of at least 0",
    )
}

pub(crate) fn share(text: &str) -> Result<f64, String> {
    number(text, |x| x > 0.0 && x < 1.0, "a number between 0 and 1")
}

/// A penalty and, if it was given, its weight.
#[derive(Clone, Debug)]
pub(crate) struct Weighted {
    pub(crate) penalty: Penalty,
    pub(crate) lambda: Option<f64>,
}

impl FromStr for Weighted {
    type Err = String;

    fn from_str(text: &str) -> Result<Weighted, String> {
        let Grid { penalty, lambdas } = text.parse()?;
        match lambdas[..] {
            [] => Ok(Weighted {
                penalty,
                lambda: None,
            }),
            [lambda] => Ok(Weighted {
                penalty,
                lambda: Some(lambda),
            }),
            _ => Err("give it one weight".into()),
        }
    }
}

/// A penalty with several weights, `NAME=WEIGHT:WEIGHT:…`.
#[derive(Clone, Debug)]
pub(crate) struct Grid {
    pub(crate) penalty: Penalty,
    /// Empty for the default weight.
    pub(crate) lambdas: Vec<f64>,
}

impl FromStr for Grid {
    type Err = String;

    fn from_str(text: &str) -> Result<Grid, String> {
        let (name, lambdas) = match text.split_once('=') {
            Some((name, list)) => {
                let lambdas: Result<Vec<f64>, String> = list.split(':').map(non_negative).collect();
                (name, lambdas?)
            }
            None => (text, Vec::new()),
        };
        if (1..lambdas.len()).any(|i| lambdas[..i].contains(&lambdas[i])) {
            return Err("a weight is given twice".into());
        }
        let penalty = name
            .parse()
            .map_err(|error: relugrad::Error| error.to_string())?;
        Ok(Grid { penalty, lambdas })
    }
}
