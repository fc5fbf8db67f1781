//! From a text to an expression, and back.

use std::fmt;
use std::ops::Range;

use winnow::ascii::{digit1, multispace0};
use winnow::combinator::{
    Infix, Postfix, Prefix, alt, delimited, expression as operators, not, opt, preceded, separated,
};
use winnow::error::ParserError;
use winnow::stream::{LocatingSlice, Location, Stateful, Stream};
use winnow::token::{one_of, take_while};
use winnow::{Parser, Result};

use crate::formula_error::Fault;

/// Bytes of a text, levels of brackets, and levels of an expression, of which a sum of `n` terms
/// has `n`.
const MAX_BYTES: usize = 10_000;
const MAX_BRACKETS: usize = 40;
const MAX_LEVELS: usize = 200;

/// An expression and its place in the text.
#[derive(Clone, Debug)]
pub(super) struct Expr {
    pub(super) kind: Kind,
    pub(super) place: Range<usize>,
    levels: usize,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Number(f64),
    Name(String),
    Call(String, Vec<Expr>),
    Negative(Box<Expr>),
    Transposed(Box<Expr>),
    Binary(Binary, Box<Expr>, Box<Expr>),
}

/// What stands between two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binary {
    Add,
    Subtract,
    /// `*`: a matrix product, or a scalar times anything.
    Times,
    /// `/`: divided by a scalar.
    Over,
    /// `.*`
    TimesEach,
    /// `./`
    OverEach,
    /// `^`
    Power,
}

impl Binary {
    /// All operators, those first that begin like others.
    const ALL: [(&'static str, Binary); 8] = [
        (".*", Binary::TimesEach),
        ("./", Binary::OverEach),
        (".^", Binary::Power),
        ("*", Binary::Times),
        ("/", Binary::Over),
        ("+", Binary::Add),
        ("-", Binary::Subtract),
        ("^", Binary::Power),
    ];

    pub(super) fn symbol(self) -> &'static str {
        let last = Binary::ALL.iter().rev().find(|(_, one)| *one == self);
        last.expect("all are there").0
    }

    /// How strongly it binds.
    fn strength(self) -> i64 {
        match self {
            Binary::Add | Binary::Subtract => SUM,
            Binary::Times | Binary::Over | Binary::TimesEach | Binary::OverEach => PRODUCT,
            Binary::Power => POWER,
        }
    }
}

const SUM: i64 = 1;
const PRODUCT: i64 = 3;
const SIGN: i64 = 5;
const POWER: i64 = 7;
const TRANSPOSE: i64 = 9;
const OPERAND: i64 = 11;

impl Expr {
    fn new(kind: Kind, place: Range<usize>) -> Result<Expr, Failure> {
        let inner = match &kind {
            Kind::Number(_) | Kind::Name(_) => 0,
            Kind::Call(_, arguments) => arguments.iter().map(|one| one.levels).max().unwrap_or(0),
            Kind::Negative(one) | Kind::Transposed(one) => one.levels,
            Kind::Binary(_, a, b) => a.levels.max(b.levels),
        };
        match inner < MAX_LEVELS {
            true => Ok(Expr {
                kind,
                place,
                levels: inner + 1,
            }),
            false => Err(Failure::cut(
                place,
                format!("the expression has more than {MAX_LEVELS} levels"),
            )),
        }
    }

    /// Reads all of a text.
    pub(super) fn parse(text: &str) -> Result<Expr, Fault> {
        if text.len() > MAX_BYTES {
            let problem = format!("the text has more than {MAX_BYTES} bytes");
            return Err(Fault::new(0..1, problem));
        }
        let mut input = Stateful {
            input: LocatingSlice::new(text),
            state: 0,
        };
        let whole = |input: &mut Input| {
            let expr = expression(input)?;
            nothing_else(input).map(|()| expr)
        };
        whole(&mut input).map_err(|failure| failure.into_fault(&input))
    }

    /// How strongly its outermost operation binds.
    fn strength(&self) -> i64 {
        match &self.kind {
            Kind::Number(_) | Kind::Name(_) | Kind::Call(..) => OPERAND,
            Kind::Negative(_) => SIGN,
            Kind::Transposed(_) => TRANSPOSE,
            Kind::Binary(operator, ..) => operator.strength(),
        }
    }
}

/// The text, and how many brackets are open.
type Input<'t> = Stateful<LocatingSlice<&'t str>, usize>;

/// Why a part could not be read: nothing of its kind begins here, or it is wrong.
#[derive(Debug)]
enum Failure {
    Absent,
    Wrong(Fault),
}

impl Failure {
    fn cut(place: Range<usize>, problem: impl Into<String>) -> Failure {
        Failure::Wrong(Fault::new(place, problem))
    }

    fn into_fault(self, input: &Input) -> Fault {
        match self {
            Failure::Wrong(fault) => fault,
            Failure::Absent => {
                let here = input.current_token_start();
                let rest = input.input.as_ref().trim_start();
                let here = here + input.input.as_ref().len() - rest.len();
                let problem = match rest.chars().next() {
                    None => "the formula ends where a number, a name or a bracket is missing",
                    Some(_) => "a number, a name or a bracket is missing",
                };
                Fault::new(
                    here..here + rest.chars().next().map_or(1, char::len_utf8),
                    problem,
                )
            }
        }
    }
}

impl ParserError<Input<'_>> for Failure {
    type Inner = Failure;

    fn from_input(_: &Input<'_>) -> Failure {
        Failure::Absent
    }

    fn is_backtrack(&self) -> bool {
        matches!(self, Failure::Absent)
    }

    fn into_inner(self) -> Result<Failure, Failure> {
        Ok(self)
    }
}

fn expression(input: &mut Input) -> Result<Expr, Failure> {
    let mut whole = operators(operand)
        .prefix(signs)
        .postfix(transposition)
        .infix(operator);
    let found = whole.parse_next(input);
    found.map_err(|failure| Failure::Wrong(failure.into_fault(input)))
}

/// An odd or even number of minus signs.
fn signs<'t>(input: &mut Input<'t>) -> Result<Prefix<Input<'t>, Expr, Failure>, Failure> {
    let minus = preceded(multispace0, '-').take();
    let signs: &str = (
        minus,
        take_while(0.., |c: char| c == '-' || c.is_whitespace()),
    )
        .take()
        .parse_next(input)?;
    let odd = signs.matches('-').count() % 2 == 1;
    Ok(Prefix(
        SIGN,
        if odd {
            |_, one: Expr| {
                let place = one.place.clone();
                Expr::new(Kind::Negative(Box::new(one)), place)
            }
        } else {
            |_, one| Ok(one)
        },
    ))
}

/// `'` or `^T`.
fn transposition<'t>(input: &mut Input<'t>) -> Result<Postfix<Input<'t>, Expr, Failure>, Failure> {
    let letter = ('^', multispace0, 'T', not(one_of(is_of_name))).void();
    preceded(multispace0, alt(('\''.void(), letter))).parse_next(input)?;
    Ok(Postfix(TRANSPOSE, |input, one| {
        let place = one.place.start..input.previous_token_end();
        Expr::new(Kind::Transposed(Box::new(one)), place)
    }))
}

fn operator<'t>(input: &mut Input<'t>) -> Result<Infix<Input<'t>, Expr, Failure>, Failure> {
    multispace0.parse_next(input)?;
    for (symbol, one) in Binary::ALL {
        if opt(symbol).parse_next(input)?.is_some() {
            return Ok(match one {
                Binary::Add => Infix::Left(SUM, |_, a, b| binary(Binary::Add, a, b)),
                Binary::Subtract => Infix::Left(SUM, |_, a, b| binary(Binary::Subtract, a, b)),
                Binary::Times => Infix::Left(PRODUCT, |_, a, b| binary(Binary::Times, a, b)),
                Binary::Over => Infix::Left(PRODUCT, |_, a, b| binary(Binary::Over, a, b)),
                Binary::TimesEach => {
                    Infix::Left(PRODUCT, |_, a, b| binary(Binary::TimesEach, a, b))
                }
                Binary::OverEach => Infix::Left(PRODUCT, |_, a, b| binary(Binary::OverEach, a, b)),
                Binary::Power => Infix::Neither(POWER, |_, a, b| binary(Binary::Power, a, b)),
            });
        }
    }
    Err(Failure::Absent)
}

fn binary(operator: Binary, a: Expr, b: Expr) -> Result<Expr, Failure> {
    let place = a.place.start..b.place.end;
    Expr::new(Kind::Binary(operator, Box::new(a), Box::new(b)), place)
}

/// A number, a name, a call, or an expression in brackets.
fn operand(input: &mut Input) -> Result<Expr, Failure> {
    multispace0.parse_next(input)?;
    alt((number, name_or_call, bracketed)).parse_next(input)
}

fn number(input: &mut Input) -> Result<Expr, Failure> {
    let fraction = ('.', digit1).void();
    let mantissa = alt(((digit1, opt(fraction)).void(), ('.', digit1).void()));
    let exponent = (one_of(['e', 'E']), opt(one_of(['+', '-'])), digit1).void();
    let (text, place) = (mantissa, opt(exponent))
        .take()
        .with_span()
        .parse_next(input)?;
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Expr::new(Kind::Number(value), place),
        _ => Err(Failure::cut(place, "the number is too large")),
    }
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Whether a text can be the name of a constant.
pub(super) fn is_name(text: &str) -> bool {
    text.chars().all(is_of_name) && text.starts_with(|c: char| !c.is_ascii_digit())
}

fn name_or_call(input: &mut Input) -> Result<Expr, Failure> {
    let first = one_of(|c: char| is_of_name(c) && !c.is_ascii_digit());
    let name = (first, take_while(0.., is_of_name)).take();
    let (name, place) = name.with_span().parse_next(input)?;
    let name = name.to_owned();
    let before = input.checkpoint();
    if opt(preceded(multispace0, '(')).parse_next(input)?.is_none() {
        return Expr::new(Kind::Name(name), place);
    }
    input.reset(&before);
    let (arguments, end) = brackets(input, |input| {
        separated(1.., expression, preceded(multispace0, ',')).parse_next(input)
    })?;
    Expr::new(Kind::Call(name, arguments), place.start..end)
}

fn bracketed(input: &mut Input) -> Result<Expr, Failure> {
    let start = input.current_token_start();
    let (inner, end) = brackets(input, expression)?;
    Ok(Expr {
        place: start..end,
        ..inner
    })
}

/// What is between brackets, and where they end.
fn brackets<'t, O>(
    input: &mut Input<'t>,
    inner: impl FnMut(&mut Input<'t>) -> Result<O, Failure>,
) -> Result<(O, usize), Failure> {
    let (_, open) = preceded(multispace0, '(').with_span().parse_next(input)?;
    let open = open.end - 1..open.end;
    if input.state == MAX_BRACKETS {
        let problem = format!("more than {MAX_BRACKETS} brackets are open");
        return Err(Failure::cut(open, problem));
    }
    input.state += 1;
    let found = delimited(multispace0, inner, multispace0).parse_next(input)?;
    input.state -= 1;
    match opt(')').parse_next(input)? {
        Some(_) => Ok((found, input.previous_token_end())),
        None if input.input.is_empty() => Err(Failure::cut(open, "this bracket is not closed")),
        None => Err(unexpected(input)),
    }
}

/// Refuses what is left of a text.
fn nothing_else(input: &mut Input) -> Result<(), Failure> {
    multispace0.parse_next(input)?;
    match input.input.is_empty() {
        true => Ok(()),
        false => Err(unexpected(input)),
    }
}

/// What is wrong with the next character behind an expression.
fn unexpected(input: &Input) -> Failure {
    let start = input.current_token_start();
    let next = input.input.chars().next().unwrap_or(' ');
    let problem = match next {
        ')' => "there is no bracket that this one closes".to_owned(),
        ',' => "a comma stands only between the arguments of a function".to_owned(),
        '^' => "put brackets around one of the two powers".to_owned(),
        '(' => "an operator is missing before this bracket".to_owned(),
        next if is_of_name(next) || next == '.' => "an operator is missing here".to_owned(),
        next => format!("no formula has the character {next:?}"),
    };
    Failure::cut(start..start + next.len_utf8(), problem)
}

/// One text for all texts of the same meaning, whatever their spaces and brackets.
impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Number(value) if (1e-5..1e15).contains(value) || *value == 0.0 => {
                write!(f, "{value}")
            }
            Kind::Number(value) => write!(f, "{value:e}"),
            Kind::Name(name) => f.write_str(name),
            Kind::Call(name, arguments) => {
                write!(f, "{name}(")?;
                for (i, argument) in arguments.iter().enumerate() {
                    write!(f, "{}{argument}", if i == 0 { "" } else { ", " })?;
                }
                f.write_str(")")
            }
            Kind::Negative(one) => write!(f, "-{}", Within(one, SIGN)),
            Kind::Transposed(one) => write!(f, "{}^T", Within(one, TRANSPOSE)),
            Kind::Binary(operator, a, b) => {
                let strength = operator.strength();
                // A power of a power has brackets on either side.
                let left = strength + i64::from(*operator == Binary::Power);
                let space = if strength == SUM { " " } else { "" };
                let (a, b) = (Within(a, left), Within(b, strength + 1));
                write!(f, "{a}{space}{}{space}{b}", operator.symbol())
            }
        }
    }
}

/// An expression that has brackets if it binds less than this.
struct Within<'e>(&'e Expr, i64);

impl fmt::Display for Within<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.strength() < self.1 {
            true => write!(f, "({})", self.0),
            false => self.0.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        let once = Expr::parse(text).unwrap().to_string();
        assert_eq!(Expr::parse(&once).unwrap().to_string(), once);
        once
    }

    #[test]
    fn one_text_stands_for_all_of_a_meaning() {
        for (text, expected) in [
            ("tr( G )", "tr(G)"),
            ("a-(b-c)-d", "a - (b - c) - d"),
            ("(a*b)*c", "a*b*c"),
            ("a*(b*c)", "a*(b*c)"),
            ("a .* b ./ c", "a.*b./c"),
            ("2.*a", "2.*a"),
            ("-a^2", "-a^2"),
            ("(-a)^2", "(-a)^2"),
            ("a.^-2", "a^(-2)"),
            ("(a^2)^3", "(a^2)^3"),
            ("a^(2^3)", "a^(2^3)"),
            ("--a", "a"),
            ("a - - -b", "a - b"),
            ("a--b", "a - -b"),
            ("J'*r", "J^T*r"),
            ("(a + b) ^ T", "(a + b)^T"),
            ("a''", "a^T^T"),
            ("a^2'", "a^2^T"),
            ("(a^2)'", "(a^2)^T"),
            ("a^Tau", "a^Tau"),
            ("1e3 + 1E-7+.5", "1000 + 1e-7 + 0.5"),
            ("f( a,b )", "f(a, b)"),
            ("a\n + b", "a + b"),
        ] {
            assert_eq!(canonical(text), expected, "{text}");
        }
    }

    #[track_caller]
    fn fault(text: &str) -> (Range<usize>, String) {
        let fault = Expr::parse(text).unwrap_err();
        (fault.place, fault.problem)
    }

    #[test]
    fn faults_are_where_they_are() {
        for (text, place, words) in [
            ("", 0..1, "ends"),
            ("a + ", 4..5, "ends"),
            ("a + *b", 4..5, "is missing"),
            ("tr(G", 2..3, "not closed"),
            ("tr(G))", 5..6, "no bracket that this one closes"),
            ("a b", 2..3, "operator is missing"),
            ("2f", 1..2, "operator is missing"),
            ("2(f)", 1..2, "before this bracket"),
            ("a, b", 1..2, "comma"),
            ("a^b^c", 3..4, "brackets"),
            ("f()", 2..3, "is missing"),
            ("f(a,)", 4..5, "is missing"),
            ("a @ b", 2..3, "character '@'"),
            ("a + ‖J‖", 4..7, "is missing"),
            ("1e999", 0..5, "too large"),
        ] {
            let (found, problem) = fault(text);
            assert_eq!(found, place, "{text}: {problem}");
            assert!(problem.contains(words), "{text}: {problem}");
        }
    }

    #[test]
    fn what_is_too_deep_or_too_long_is_refused() {
        for (text, words) in [
            ("(".repeat(5000) + "a", "brackets are open"),
            ("f(".repeat(3000), "brackets are open"),
            ("a+".repeat(3000) + "a", "levels"),
            ("a".to_owned() + &"'".repeat(3000), "levels"),
            ("-(".repeat(3000), "brackets are open"),
            ("a^(".repeat(3000), "brackets are open"),
            (" ".repeat(20_000), "bytes"),
        ] {
            let problem = fault(&text).1;
            assert!(problem.contains(words), "{problem}");
        }
        assert!(Expr::parse(&("-".repeat(5000) + "a")).is_ok());
        assert!(Expr::parse(&("a+".repeat(150) + "a")).is_ok());
        let nested = "(".repeat(MAX_BRACKETS) + "a" + &")".repeat(MAX_BRACKETS);
        assert_eq!(canonical(&nested), "a");
    }
}
