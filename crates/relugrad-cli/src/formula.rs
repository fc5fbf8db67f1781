//! `--formula`: penalties that are written on the command line.

use std::collections::BTreeMap;
use std::str::FromStr;

use anyhow::anyhow;
use clap::Args;
use relugrad::Penalty;
use relugrad::penalty::Formula;
use relugrad_train::PenaltySettings;
use toml::Value;

use crate::failure::Failure;
use crate::values::non_negative;

/// The name of a formula that is given none.
const NAMELESS: &str = "formula";

/// The formulas that are given.
#[derive(Clone, Debug, Args)]
pub(crate) struct Formulas {
    /// A penalty written as a formula, such as 'margin: norm2(C*f)^2 + eps*tr(G) @ 0.1, eps=0.5';
    /// `--help` explains the language. May be given several times
    #[arg(
        long = "formula",
        value_name = "NAME: FORMULA @ WEIGHT, CONSTANT=VALUE",
        long_help = help(),
        allow_hyphen_values = true
    )]
    given: Vec<Written>,
}

/// A formula with its weights.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) formula: Formula,
    /// Empty if none is given.
    pub(crate) lambdas: Vec<f64>,
}

impl Written {
    pub(crate) fn name(&self) -> String {
        self.penalty().name().to_owned()
    }

    pub(crate) fn penalty(&self) -> Penalty {
        Penalty::Formula(self.formula.clone())
    }
}

impl Formulas {
    pub(crate) fn is_empty(&self) -> bool {
        self.given.is_empty()
    }

    /// All of them, each with a name of its own.
    pub(crate) fn all(&self) -> Result<&[Written], Failure> {
        for (i, one) in self.given.iter().enumerate() {
            if self.given[..i]
                .iter()
                .any(|other| other.name() == one.name())
            {
                return Err(Failure::Usage(anyhow!(
                    "--formula names `{}` twice; begin each with a name of its own and a colon",
                    one.name()
                )));
            }
        }
        Ok(&self.given)
    }

    /// As penalties without weights.
    pub(crate) fn penalties(&self) -> Result<Vec<Penalty>, Failure> {
        Ok(self.all()?.iter().map(Written::penalty).collect())
    }

    /// As a configuration has them, with weight 1 where none is given.
    pub(crate) fn settings(&self) -> Result<Vec<Value>, Failure> {
        let settings = |one: &Written| match one.lambdas[..] {
            [] => Ok(PenaltySettings::new(&one.penalty(), 1.0)),
            [lambda] => Ok(PenaltySettings::new(&one.penalty(), lambda)),
            _ => Err(Failure::Usage(anyhow!(
                "--formula {}: give it one weight",
                one.name()
            ))),
        };
        let value = |one: &Written| {
            let value = Value::try_from(settings(one)?);
            value.map_err(|error| Failure::Failed(error.into()))
        };
        self.all()?.iter().map(value).collect()
    }
}

impl FromStr for Written {
    type Err = String;

    fn from_str(text: &str) -> Result<Written, String> {
        let (head, weights, constants) = parts(text)?;
        let (name, formula) = match head.split_once(':') {
            Some((name, formula)) => (name.trim(), formula),
            None => (NAMELESS, head),
        };
        let weights = weights.map_or(Ok(Vec::new()), |list| {
            let each = list.split(':').map(|weight| non_negative(weight.trim()));
            each.collect::<Result<Vec<f64>, String>>()
        });
        let lambdas = weights.map_err(|problem| format!("the weight behind @: {problem}"))?;
        if (1..lambdas.len()).any(|i| lambdas[..i].contains(&lambdas[i])) {
            return Err("a weight is given twice".into());
        }
        let formula = Formula::parse(name, formula.trim(), constants);
        Ok(Written {
            formula: formula.map_err(|error| error.to_string())?,
            lambdas,
        })
    }
}

/// What stands before the weights, the weights, and the constants.
type Parts<'t> = (&'t str, Option<&'t str>, BTreeMap<String, f64>);

fn parts(text: &str) -> Result<Parts<'_>, String> {
    let (head, weights, constants) = match text.split_once('@') {
        Some((head, tail)) => match tail.split_once(',') {
            Some((weights, constants)) => (head, Some(weights), Some(constants)),
            None => (head, Some(tail), None),
        },
        None => match outer_comma(text) {
            Some(place) => (&text[..place], None, Some(&text[place + 1..])),
            None => (text, None, None),
        },
    };
    let mut found = BTreeMap::new();
    for constant in constants.into_iter().flat_map(|all| all.split(',')) {
        let Some((name, value)) = constant.split_once('=') else {
            return Err(format!(
                "behind the weight stand constants such as eps=0.1, not `{}`",
                constant.trim()
            ));
        };
        let (name, value) = (name.trim(), value.trim());
        let number: f64 = value
            .parse()
            .map_err(|_| format!("the constant `{name}` is `{value}` but must be a number"))?;
        if found.insert(name.to_owned(), number).is_some() {
            return Err(format!("the constant `{name}` is given twice"));
        }
    }
    Ok((head, weights, found))
}

/// The first comma outside of brackets.
fn outer_comma(text: &str) -> Option<usize> {
    let mut open = 0_i64;
    let mut places = text.char_indices();
    let comma = places.find(|(_, c)| {
        open += i64::from(*c == '(') - i64::from(*c == ')');
        *c == ',' && open <= 0
    });
    comma.map(|(place, _)| place)
}

/// The language.
fn help() -> String {
    let name = |one: &relugrad::penalty::FormulaName| {
        let (name, shape, meaning) = (one.name, one.shape, one.meaning);
        format!("  {name:<12} {shape:<18} {meaning}\n")
    };
    let function = |one: &relugrad::penalty::FormulaFunction| {
        let (name, takes, meaning) = (one.name, one.takes, one.meaning);
        format!("  {name:<12} {takes:<18} {meaning}\n")
    };
    format!(
        "{HEAD}\n\n{}\n{}\n{EXAMPLES}",
        Formula::names().map(name).collect::<String>(),
        Formula::functions().map(function).collect::<String>()
    )
}

const HEAD: &str = "A penalty written as a formula, with an exact gradient: NAME: FORMULA @ WEIGHT, CONSTANT=VALUE, ... \
The name (small letters, digits, hyphens), the weight and the constants may be left out. May be given several times.

Put it in single quotes and write a transpose as A^T; A' does too where quotes allow it. A number goes with anything; * is the \
product of matrices, .* ./ and ^ work on entries, / divides by a number, vectors are columns. Shapes are checked before anything \
runs. The fewest rows of the Jacobian that the formula needs are swept: none for f, p, y, r, S, one for g, K for G, J*J^T, \
norm2(J) and the like; then J itself.";

const EXAMPLES: &str = "  --formula 'tr(G) @ 0.01'
  --formula 'margin: lse(f - one*dot(y, f) + eps*rownorms1(J - one*(y^T*J))) @ 1, eps=0.1'
  --formula 'flat: norm1(g)/(c + loss) + b*eigmax(S*G*S) @ 0.1, b=2, c=0.5'";

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Written {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn name_weights_and_constants_may_be_left_out() {
        let all = read("margin: dot(f, eps*f) + b*tr(G) @ 0.1:1, eps=0.5, b = -2e-1");
        assert_eq!(all.name(), "margin");
        assert_eq!(all.lambdas, [0.1, 1.0]);
        assert_eq!(all.formula.text(), "dot(f, eps*f) + b*tr(G)");
        assert_eq!(all.formula.constants()["b"], -0.2);
        let bare = read("tr(G)");
        assert_eq!(
            (bare.name(), bare.lambdas),
            (NAMELESS.to_owned(), Vec::new())
        );
        let constants = read("dot(f, eps*f), eps=1");
        assert_eq!(constants.formula.constants()["eps"], 1.0);
        assert_eq!(read("-tr(G)@2").lambdas, [2.0]);
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (text, words) in [
            ("tr(G) @", "the weight behind @"),
            ("tr(G) @ -1", "the weight behind @"),
            ("tr(G) @ 1:1", "twice"),
            ("tr(G) @ 1, eps", "such as eps=0.1"),
            ("tr(G) @ 1, eps=x", "must be a number"),
            ("tr(G) @ 1, eps=1, eps=2", "given twice"),
            ("tr(G) @ 1, eps=1", "not used"),
            ("Big: tr(G)", "small letters"),
            ("jacobian: tr(G)", "built-in"),
            ("tr(J)", "^^^^^"),
            ("", "ends"),
        ] {
            let error = text.parse::<Written>().unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
