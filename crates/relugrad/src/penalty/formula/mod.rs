//! Penalties written as formulas.
//!
//! A text becomes an expression ([`text`]), whose names and shapes are checked ([`check`]) while it
//! becomes a graph in a normal form ([`graph`]). Its cheapest form is found ([`forms`]), and what
//! the form promises ([`invariance`]). A form becomes a list of steps ([`program`]), which a
//! [`machine`] runs forward for the value and backward for the derivatives. Through one of the
//! public doors these become the exact parameter gradient: nothing else in the engine knows of
//! formulas.

// Rules are about few of many operations.
#![allow(clippy::wildcard_enum_match_arm)]

mod check;
mod code;
mod forms;
mod graph;
mod invariance;
mod kernels;
mod machine;
mod names;
mod program;
mod shape;
#[cfg(test)]
mod tests;
mod text;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use ndarray::ArrayView2;

use self::code::{Code, Derivatives, Source};
use self::forms::Forms;
use self::graph::Leaf;
use self::machine::Seen;
use self::shape::Sizes;
use self::text::Expr;
use super::{
    Alone, Described, Door, GradientAdjoint, GradientPoint, GramAdjoint, GramPenalty, GramPoint,
    InputGradientPenalty, Invariance, JacobianAdjoint, JacobianPenalty, JacobianPoint,
    LogitAdjoint, LogitPenalty, LogitPoint, Penalty, Promises,
};
use crate::buffer::Buffer;
use crate::error::{Error, Result};
use crate::formula_error::Fault;
use crate::linalg::symmetrise;

pub use crate::formula_error::FormulaError;
pub use names::{FormulaFunction, FormulaName};

/// Characters of a name at most: files are called after it.
const MAX_NAME: usize = 40;

/// A penalty `φ` written as a formula of what a sample shows: logits `f`, probabilities `p`, target
/// `y`, residual `r`, input gradient `g`, Jacobian `J`, Gram matrix `G`, loss Hessian `S`, and
/// constants.
///
/// [`names`](Self::names) and [`functions`](Self::functions) list the language. Vectors are
/// columns; `A^T` or `A'` is a transpose, `*` a product of matrices or a number times anything,
/// `.*`, `./` and `^` work on entries, and a number may be added to anything. Shapes are checked
/// before anything runs.
///
/// The derivative is exact: backwards through the formula, then by the engine's sweeps. The
/// cheapest door is found by itself: no rows for a function of logits, one for one of `g = Jᵀ r`,
/// `K` for one of `G = J Jᵀ`, shared with other penalties, or `K − 1` where the form shows that only
/// differences of logits count; the Jacobian's rows otherwise. `norm2(J)^2`, `sum(J.*J)` and
/// `tr(J*J^T)` are all functions of `G`.
///
/// Where it is not differentiable: `abs` and `relu` have 0 at 0, `norm2` has 0 at 0, `max` and its
/// kin take the first of equal entries, `eigmax` one eigenvector of a repeated eigenvalue.
///
/// ```
/// use std::collections::BTreeMap;
///
/// use ndarray::array;
/// use relugrad::penalty::Formula;
/// use relugrad::{FiniteDifference, Loss, Mlp, Objective, Penalty, Targets};
///
/// let eps = BTreeMap::from([("eps".to_owned(), 0.1)]);
/// let text = "lse(f - one*dot(y, f) + eps*rownorms1(J - one*(y^T*J)))";
/// let margin = Formula::parse("margin", text, eps)?;
/// let network = Mlp::new(&[2, 8, 3]).build::<f64>(1)?;
/// let objective =
///     Objective::new(Loss::softmax_cross_entropy()).with(Penalty::Formula(margin), 0.1)?;
/// let (x, targets) = (array![[0.5, -1.0]], Targets::Classes(&[2]));
/// let (value, gradient) = objective.gradient(&network, x.view(), &targets)?;
/// assert!(value.penalties[0] > value.loss);
/// let check = FiniteDifference::central(1e-5)?;
/// let estimate = check.parameter_gradient(&objective, &network, x.view(), &targets)?;
/// for (exact, estimate) in gradient.values().iter().zip(estimate.values()) {
///     assert!((exact - estimate).abs() < 1e-8);
/// }
///
/// let error = Formula::parse("mixed", "tr(G + f)", BTreeMap::new()).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "formula mixed: + needs equal shapes: `G` is [K, K] and `f` is [K]\n  tr(G + f)\n     ^^^^^"
/// );
/// # Ok::<(), relugrad::Error>(())
/// ```
#[derive(Clone)]
pub struct Formula(Arc<Parts>);

struct Parts {
    name: String,
    /// As it was given; errors show parts of it.
    given: String,
    /// One text for all of a meaning.
    canonical: String,
    constants: BTreeMap<String, f64>,
    way: Way,
    promises: Promises,
}

/// The door of a formula, with what runs behind it.
#[derive(Debug)]
enum Way {
    Logits(Code),
    Gradient(Code),
    Gram(Code, Option<Code>),
    Rows(Code),
}

impl Formula {
    /// Reads a formula. The name is that of the penalty in tables and files: small letters, digits
    /// and hyphens; that of no built-in penalty.
    ///
    /// # Errors
    /// [`Error::Formula`](crate::Error::Formula) with the place in the text: what cannot be read,
    /// names and constants that are not known or not used, shapes that do not fit, what is no
    /// number or does not depend on the network.
    pub fn parse(name: &str, text: &str, constants: BTreeMap<String, f64>) -> Result<Formula> {
        let parts = Parts::of(name, text, constants);
        parts
            .map(|parts| Formula(Arc::new(parts)))
            .map_err(|fault| {
                let error = FormulaError {
                    name: name
                        .chars()
                        .take(MAX_NAME)
                        .filter(|c| !c.is_control())
                        .collect(),
                    text: text.to_owned(),
                    fault,
                };
                Error::Formula(Box::new(error))
            })
    }

    /// The names that formulas may use.
    pub fn names() -> impl Iterator<Item = &'static FormulaName> {
        names::NAMES.iter()
    }

    /// The functions that formulas may use.
    pub fn functions() -> impl Iterator<Item = &'static FormulaFunction> {
        names::FUNCTIONS.iter()
    }

    /// The text, with spaces and brackets as all equal formulas have them.
    pub fn text(&self) -> &str {
        &self.0.canonical
    }

    /// The constants.
    pub fn constants(&self) -> &BTreeMap<String, f64> {
        &self.0.constants
    }

    /// What it sees of a network besides the logits, which tells what it costs.
    pub fn sees(&self) -> &'static str {
        match &self.0.way {
            Way::Logits(_) => "logits",
            Way::Gradient(_) | Way::Gram(_, Some(_)) => "input gradient",
            Way::Gram(_, None) => "Gram matrix",
            Way::Rows(_) => "Jacobian",
        }
    }

    pub(super) fn door(&self) -> Door {
        let formula = Arc::new(self.clone());
        match &self.0.way {
            Way::Logits(_) => Door::Logits(formula),
            Way::Gradient(_) => Door::InputGradient(formula),
            Way::Gram(..) => Door::Gram(formula),
            Way::Rows(_) => Door::Rows(formula),
        }
    }

    /// The value with a code of this formula.
    fn run(&self, code: &Code, seen: Seen, take: Option<impl FnOnce(&Derivatives)>) -> Result<f64> {
        let logit = seen.logit;
        let sizes = Sizes {
            k: logit.outputs(),
            d: logit.inputs(),
        };
        let source = Source {
            name: &self.0.name,
            text: &self.0.given,
        };
        let missing = code.sees(Leaf::Hessian) && seen.hessian.is_empty();
        let hessian = missing.then(|| dense_hessian(&logit));
        let seen = match &hessian {
            Some(hessian) => Seen { hessian, ..seen },
            None => seen,
        };
        code.run(source, sizes, &seen, take)
    }
}

impl Parts {
    fn of(name: &str, text: &str, constants: BTreeMap<String, f64>) -> Result<Parts, Fault> {
        let whole = |problem: String| Fault::new(0..text.len(), problem);
        check_name(name).map_err(whole)?;
        check_constants(&constants).map_err(whole)?;
        let expr = Expr::parse(text)?;
        let (graph, root) = check::graph_of(&expr, &constants)?;
        let forms = Forms::of(graph, root);
        let promises = promises(&forms);
        let way = match forms {
            Forms::Logits(formed) => Way::Logits(Code::of(&formed)),
            Forms::Gradient(formed) => Way::Gradient(Code::of(&formed)),
            Forms::Gram(formed, gradient) => {
                Way::Gram(Code::of(&formed), gradient.as_ref().map(Code::of))
            }
            Forms::Rows(formed) => Way::Rows(Code::of(&formed)),
        };
        Ok(Parts {
            name: name.to_owned(),
            given: text.to_owned(),
            canonical: expr.to_string(),
            constants,
            way,
            promises,
        })
    }
}

/// What the form of a formula shows.
fn promises(forms: &Forms) -> Promises {
    let main = forms.main();
    let of_logits = [
        Leaf::Logits,
        Leaf::Residual,
        Leaf::Hessian,
        Leaf::Gradient,
        Leaf::Loss,
    ];
    let invariance = match main.sees_only_differences() {
        true => Invariance::LogitDifferences,
        false => Invariance::None,
    };
    Promises {
        invariance,
        degree: None,
        function_of_jacobian: !main.sees(&of_logits),
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase());
    if !begins || !name.chars().all(allowed) || name.len() > MAX_NAME {
        return Err(format!(
            "a name has at most {MAX_NAME} small letters, digits and hyphens, and begins with a letter"
        ));
    }
    if Penalty::catalogue().any(|entry| entry.name == name) {
        return Err("a built-in penalty has that name; take another one".to_owned());
    }
    Ok(())
}

fn check_constants(constants: &BTreeMap<String, f64>) -> Result<(), String> {
    for (name, value) in constants {
        let shown: String = name
            .chars()
            .take(MAX_NAME)
            .filter(|c| !c.is_control())
            .collect();
        if !text::is_name(name) {
            return Err(format!(
                "a constant cannot be called `{shown}`; take letters, digits and _"
            ));
        }
        if FormulaName::is_taken(name) {
            return Err(format!(
                "`{shown}` has a meaning of its own; call the constant otherwise"
            ));
        }
        if !value.is_finite() {
            return Err(format!(
                "the constant `{shown}` is {value} but must be finite"
            ));
        }
    }
    Ok(())
}

impl fmt::Debug for Formula {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Formula")
            .field("name", &self.0.name)
            .field("text", &self.0.canonical)
            .field("constants", &self.0.constants)
            .finish()
    }
}

/// Two formulas are equal if their names, canonical texts and constants are.
impl PartialEq for Formula {
    fn eq(&self, other: &Formula) -> bool {
        let key = |formula: &Formula| {
            let Parts {
                name,
                canonical,
                constants,
                ..
            } = &*formula.0;
            (name.clone(), canonical.clone(), constants.clone())
        };
        key(self) == key(other)
    }
}

impl Described for Formula {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn promises(&self) -> Promises {
        self.0.promises
    }
}

/// `S`, `[K, K]`.
fn dense_hessian(logit: &LogitPoint) -> Buffer<f64> {
    let k = logit.outputs();
    let mut identity = Buffer::zeros(k * k);
    identity
        .iter_mut()
        .step_by(k + 1)
        .for_each(|one| *one = 1.0);
    logit.hessian_times(&identity)
}

/// What a sample shows at its logits.
fn seen<'a>(logit: &LogitPoint<'a>) -> Seen<'a> {
    Seen {
        logit: *logit,
        loss: [logit.loss()],
        hessian: &[],
        gram: &[],
        jacobian: &[],
        gradient: &[],
        rank: logit.outputs(),
        epsilon: f64::EPSILON,
    }
}

/// Hands on the derivatives at the logits.
fn give(derivatives: &Derivatives, logit: &LogitPoint, adjoint: &mut LogitAdjoint) {
    if let Some(bar) = derivatives.of(Leaf::Logits) {
        adjoint.add_logits(1.0, bar);
    }
    if let Some(bar) = derivatives.of(Leaf::Residual) {
        adjoint.add_residual(1.0, bar);
    }
    if let Some(bar) = derivatives.of(Leaf::Loss) {
        adjoint.add_logits(bar[0], logit.residual());
    }
    if let Some(bar) = derivatives.of(Leaf::Hessian) {
        adjoint.add_hessian(1.0, &symmetric(bar, logit.outputs()));
    }
}

fn symmetric(bar: &[f64], size: usize) -> Buffer<f64> {
    let mut symmetric = Buffer::of(bar.iter().copied());
    symmetrise(&mut symmetric, size);
    symmetric
}

impl LogitPenalty for Formula {
    fn evaluate(&self, at: &LogitPoint, adjoint: Option<&mut LogitAdjoint>) -> Result<f64> {
        let (Way::Logits(code) | Way::Gradient(code) | Way::Gram(code, _) | Way::Rows(code)) =
            &self.0.way;
        let take = adjoint.map(|adjoint| |found: &Derivatives| give(found, at, adjoint));
        self.run(code, seen(at), take)
    }
}

impl InputGradientPenalty for Formula {
    fn evaluate(&self, at: &GradientPoint, adjoint: Option<&mut GradientAdjoint>) -> Result<f64> {
        let (Way::Gram(_, Some(code))
        | Way::Logits(code)
        | Way::Gradient(code)
        | Way::Gram(code, None)
        | Way::Rows(code)) = &self.0.way;
        let seen = Seen {
            gradient: at.gradient(),
            ..seen(at)
        };
        let take = adjoint.map(|adjoint| {
            |found: &Derivatives| {
                give(found, at, adjoint);
                if let Some(bar) = found.of(Leaf::Gradient) {
                    adjoint.add_gradient(1.0, bar);
                }
            }
        });
        self.run(code, seen, take)
    }
}

impl GramPenalty for Formula {
    fn evaluate(&self, at: &GramPoint, adjoint: Option<&mut GramAdjoint>) -> Result<f64> {
        let (Way::Logits(code) | Way::Gradient(code) | Way::Gram(code, _) | Way::Rows(code)) =
            &self.0.way;
        let seen = Seen {
            gram: at.gram(),
            hessian: if code.sees(Leaf::Hessian) {
                at.hessian()
            } else {
                &[]
            },
            rank: at.rank,
            epsilon: at.epsilon,
            ..seen(at)
        };
        let take = adjoint.map(|adjoint| {
            |found: &Derivatives| {
                give(found, at, adjoint);
                if let Some(bar) = found.of(Leaf::Gram) {
                    adjoint.add_gram(1.0, &symmetric(bar, at.outputs()));
                }
            }
        });
        self.run(code, seen, take)
    }

    fn alone(&self) -> Alone<'_> {
        match &self.0.way {
            Way::Gram(_, Some(_)) => Alone::InputGradient(self),
            Way::Gram(_, None) | Way::Logits(_) | Way::Gradient(_) | Way::Rows(_) => Alone::Gram,
        }
    }
}

impl JacobianPenalty for Formula {
    fn evaluate(&self, at: &JacobianPoint, adjoint: Option<&mut JacobianAdjoint>) -> Result<f64> {
        let (Way::Logits(code) | Way::Gradient(code) | Way::Gram(code, _) | Way::Rows(code)) =
            &self.0.way;
        let (k, d) = at.jacobian().dim();
        let jacobian = at.jacobian();
        let jacobian = jacobian.as_standard_layout();
        let seen = Seen {
            jacobian: jacobian.as_slice().expect("it is row-major"),
            ..seen(at)
        };
        let take = adjoint.map(|adjoint| {
            |found: &Derivatives| {
                give(found, at, adjoint);
                if let Some(bar) = found.of(Leaf::Jacobian) {
                    let bar = ArrayView2::from_shape((k, d), bar).expect("K rows of D");
                    adjoint.add_jacobian(1.0, bar);
                }
            }
        });
        self.run(code, seen, take)
    }
}
