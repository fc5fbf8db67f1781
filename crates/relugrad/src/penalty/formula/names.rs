//! The words of the language, each described once: names of what a formula sees, and functions.

use super::graph::Leaf;
use super::shape::{Dim, Shape};

/// How alike a word must be to be suggested; 1 is equal.
const ALIKE: f64 = 0.75;

/// A name that formulas may use.
#[derive(Debug)]
pub struct FormulaName {
    /// The name.
    pub name: &'static str,
    /// Its shape, such as `[K, D]`.
    pub shape: &'static str,
    /// What it is.
    pub meaning: &'static str,
    pub(super) symbol: Symbol,
}

/// A function that formulas may use.
#[derive(Debug)]
pub struct FormulaFunction {
    /// The name.
    pub name: &'static str,
    /// What it takes.
    pub takes: &'static str,
    /// What it gives, and its derivative where that is a convention.
    pub meaning: &'static str,
    pub(super) arguments: usize,
    pub(super) function: Function,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Symbol {
    Leaf(Leaf),
    Probabilities,
    Ones,
    Identity,
    Centring,
    Size(Dim),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Exp,
    Log,
    Sqrt,
    Abs,
    Relu,
    Trace,
    Sum,
    Dot,
    Norm1,
    Norm2,
    NormInf,
    Max,
    Min,
    LogSumExp,
    RowNorms1,
    RowNorms2,
    RowNormsInf,
    Softmax,
    Diag,
    Outer,
    EigMax,
    LogDet,
    TraceRoot,
    Hold,
}

const fn name(
    name: &'static str,
    shape: &'static str,
    symbol: Symbol,
    meaning: &'static str,
) -> FormulaName {
    FormulaName {
        name,
        shape,
        meaning,
        symbol,
    }
}

const fn function(
    name: &'static str,
    takes: &'static str,
    arguments: usize,
    function: Function,
    meaning: &'static str,
) -> FormulaFunction {
    FormulaFunction {
        name,
        takes,
        meaning,
        arguments,
        function,
    }
}

#[rustfmt::skip]
pub(super) static NAMES: [FormulaName; 15] = [
    name("f", "[K]", Symbol::Leaf(Leaf::Logits), "logits"),
    name("p", "[K]", Symbol::Probabilities, "probabilities: softmax of f, or 1/(1 + exp(-f)) of a single logit"),
    name("y", "[K]", Symbol::Leaf(Leaf::Target), "target: probabilities, the unit vector of a label, or values"),
    name("r", "[K]", Symbol::Leaf(Leaf::Residual), "residual, the derivative of the loss in f"),
    name("g", "[D]", Symbol::Leaf(Leaf::Gradient), "input gradient, J^T*r"),
    name("J", "[K, D]", Symbol::Leaf(Leaf::Jacobian), "Jacobian of f in the input"),
    name("G", "[K, K]", Symbol::Leaf(Leaf::Gram), "Gram matrix, J*J^T"),
    name("S", "[K, K]", Symbol::Leaf(Leaf::Hessian), "second derivative of the loss in f"),
    name("C", "[K, K]", Symbol::Centring, "centring matrix, I - one*one^T/K"),
    name("I", "[K, K]", Symbol::Identity, "identity matrix"),
    name("one", "[K]", Symbol::Ones, "vector of ones"),
    name("loss", "a number", Symbol::Leaf(Leaf::Loss), "the loss of the sample"),
    name("K", "a number", Symbol::Size(Dim::K), "number of logits"),
    name("D", "a number", Symbol::Size(Dim::D), "number of inputs"),
    name("T", "", Symbol::Size(Dim::One), "transposes, as in J^T"),
];

#[rustfmt::skip]
pub(super) static FUNCTIONS: [FormulaFunction; 24] = [
    function("exp", "anything", 1, Function::Exp, "of each entry"),
    function("log", "anything", 1, Function::Log, "of each entry"),
    function("sqrt", "anything", 1, Function::Sqrt, "of each entry"),
    function("abs", "anything", 1, Function::Abs, "of each entry; derivative 0 at 0"),
    function("relu", "anything", 1, Function::Relu, "max(0, x) of each entry; derivative 0 at 0"),
    function("tr", "square", 1, Function::Trace, "sum of the diagonal"),
    function("sum", "anything", 1, Function::Sum, "sum of all entries"),
    function("dot", "two of one shape", 2, Function::Dot, "sum of the products of their entries"),
    function("norm1", "anything", 1, Function::Norm1, "sum of the absolute values of all entries"),
    function("norm2", "anything", 1, Function::Norm2, "root of the sum of squares of all entries; derivative 0 at 0"),
    function("norminf", "anything", 1, Function::NormInf, "largest absolute value, the first of equal ones"),
    function("max", "anything", 1, Function::Max, "largest entry, the first of equal ones"),
    function("min", "anything", 1, Function::Min, "smallest entry, the first of equal ones"),
    function("lse", "anything", 1, Function::LogSumExp, "log of the sum of exp of all entries"),
    function("rownorms1", "[m, n]", 1, Function::RowNorms1, "norm1 of each row; [m]"),
    function("rownorms2", "[m, n]", 1, Function::RowNorms2, "norm2 of each row; [m]"),
    function("rownormsinf", "[m, n]", 1, Function::RowNormsInf, "norminf of each row; [m]"),
    function("softmax", "a vector", 1, Function::Softmax, "exp(x)/sum(exp(x))"),
    function("diag", "[n] or [n, n]", 1, Function::Diag, "the diagonal matrix of a vector, or the diagonal of a matrix"),
    function("outer", "[m], [n]", 2, Function::Outer, "a*b^T"),
    function("eigmax", "symmetric", 1, Function::EigMax, "largest eigenvalue; of a repeated one, one eigenvector counts"),
    function("logdet", "symmetric", 1, Function::LogDet, "log of the determinant of a positive definite matrix"),
    function("trsqrt", "symmetric", 1, Function::TraceRoot, "sum of the roots of the eigenvalues of a positive semidefinite matrix; those that are 0 have derivative 0"),
    function("hold", "anything", 1, Function::Hold, "its argument, with derivative 0"),
];

impl FormulaName {
    /// Whether it only stands for a sign.
    fn is_sign(&self) -> bool {
        self.name == "T"
    }

    /// The shape of what it stands for.
    pub(super) fn dims(&self) -> Shape {
        match self.symbol {
            Symbol::Leaf(leaf) => leaf.shape(),
            Symbol::Probabilities | Symbol::Ones => Shape::column(Dim::K),
            Symbol::Identity | Symbol::Centring => Shape::new(Dim::K, Dim::K),
            Symbol::Size(_) => Shape::SCALAR,
        }
    }

    pub(super) fn find(name: &str) -> Option<&'static FormulaName> {
        NAMES.iter().find(|one| one.name == name && !one.is_sign())
    }

    /// Whether a constant cannot have this name.
    pub(super) fn is_taken(name: &str) -> bool {
        NAMES.iter().any(|one| one.name == name) || FormulaFunction::find(name).is_some()
    }
}

impl FormulaFunction {
    pub(super) fn find(name: &str) -> Option<&'static FormulaFunction> {
        FUNCTIONS.iter().find(|one| one.name == name)
    }
}

/// The words of the language.
pub(super) fn words<'w>() -> impl Iterator<Item = &'w str> {
    let names = NAMES.iter().filter(|one| !one.is_sign());
    let names = names.map(|one| one.name);
    names.chain(FUNCTIONS.iter().map(|one| one.name))
}

/// The word that another one resembles most, if one is near.
pub(super) fn nearest<'w>(word: &str, known: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    let alike = known.map(|one| {
        let same = one.eq_ignore_ascii_case(word);
        let alike = if same {
            1.0
        } else {
            strsim::jaro_winkler(one, word)
        };
        (alike, one)
    });
    let best = alike.max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(alike, _)| *alike >= ALIKE).map(|best| best.1)
}
