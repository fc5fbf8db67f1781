//! What is verified: statements with the numbers that they have in
//! [theory](https://docs.rs/relugrad/latest/relugrad/theory/).

mod centring;
mod certificates;
mod cure;
mod curvature;
mod input_gradient;
mod parameters;
mod region;
mod sweeps;
mod table;

use relugrad::{Loss, Network, Node, Result, Scalar};

use super::point::Point;

/// What a statement says at one sample.
pub(super) enum Check {
    /// How far it is from being true, relative to the size of what it compares. An inequality that
    /// holds is at 0.
    Residual(f64),
    /// Its hypotheses do not hold at this sample, or only to rounding.
    Rejected,
}

/// Which networks a statement is about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// All of them.
    Any,
    /// At least two logits with softmax cross-entropy.
    Softmax,
    /// Two logits.
    TwoLogits,
    /// One logit with the logistic loss.
    OneLogit,
    /// At least one gate.
    Gates,
    /// At least one gate, and two logits.
    GatesSoftmax,
    /// Layers without biases and the like.
    NoBiases,
    /// Layers with biases or the like.
    Biases,
    /// One path from input to logits.
    Chain,
}

impl Scope {
    /// Why the statement says nothing about a network with a loss, if so.
    pub(super) fn excludes<T: Scalar>(
        self,
        network: &Network<T>,
        loss: &Loss,
    ) -> Option<&'static str> {
        let about = match self {
            Scope::Softmax | Scope::TwoLogits | Scope::GatesSoftmax if network.outputs() > 1 => {
                Some((
                    matches!(loss, Loss::SoftmaxCrossEntropy { .. }),
                    "is about softmax cross-entropy",
                ))
            }
            Scope::OneLogit => {
                let logistic = matches!(loss, Loss::Logistic) || network.outputs() > 1;
                Some((logistic, "is about the logistic loss"))
            }
            Scope::Any
            | Scope::Softmax
            | Scope::TwoLogits
            | Scope::Gates
            | Scope::GatesSoftmax
            | Scope::NoBiases
            | Scope::Biases
            | Scope::Chain => None,
        };
        if let Some((false, reason)) = about {
            return Some(reason);
        }
        let (k, gates) = (network.outputs(), network.gates() > 0);
        let biases = !network.is_homogeneous();
        let read: Vec<_> = network.nodes().iter().flat_map(Node::inputs).collect();
        let joins = network.nodes().iter().any(|node| node.inputs().count() > 1);
        let splits = (0..read.len()).any(|i| read[..i].contains(&read[i]));
        let (holds, reason) = match self {
            Scope::Any => (true, ""),
            Scope::Softmax => (k > 1, "needs two logits"),
            Scope::TwoLogits => (k == 2, "needs exactly two logits"),
            Scope::OneLogit => (k == 1, "needs exactly one logit"),
            Scope::Gates => (gates, "needs a gate"),
            Scope::GatesSoftmax => (k > 1 && gates, "needs two logits and a gate"),
            Scope::NoBiases => (!biases, "needs a network without biases"),
            Scope::Biases => (biases, "needs a network with biases"),
            Scope::Chain => (!joins && !splits, "needs a network without branches"),
        };
        (!holds).then_some(reason)
    }
}

/// One statement and how it is checked.
pub(super) struct Statement<T> {
    /// Its number in [theory](https://docs.rs/relugrad/latest/relugrad/theory/).
    pub(super) theorem: &'static str,
    pub(super) text: &'static str,
    pub(super) scope: Scope,
    /// The residual that rounding explains, in units of the network's rounding; 0 for what must be
    /// exact.
    pub(super) tolerance: f64,
    pub(super) check: fn(&Point<T>) -> Result<Check>,
}

impl<T> Statement<T> {
    pub(super) fn new(
        theorem: &'static str,
        scope: Scope,
        tolerance: f64,
        check: fn(&Point<T>) -> Result<Check>,
        text: &'static str,
    ) -> Statement<T> {
        Statement {
            theorem,
            text,
            scope,
            tolerance,
            check,
        }
    }
}

/// Every statement, in the order of the document.
pub(super) fn all<T: Scalar>() -> Vec<Statement<T>> {
    let parts = [
        region::statements(),
        sweeps::statements(),
        table::statements(),
        curvature::statements(),
        centring::statements(),
        input_gradient::statements(),
        cure::statements(),
        parameters::statements(),
        certificates::statements(),
    ];
    parts.into_iter().flatten().collect()
}

/// `|error| / scale`; 0 for an exact match of zeros, and infinite if anything is NaN.
pub(super) fn relative(error: f64, scale: f64) -> f64 {
    // Below this numbers have no digits left to compare.
    let residual = error.abs() / scale.max(f64::MIN_POSITIVE / f64::EPSILON);
    if error == 0.0 {
        0.0
    } else if residual.is_nan() {
        f64::INFINITY
    } else {
        residual
    }
}

/// How much `small ≤ large` is violated, relative to a scale.
pub(super) fn excess(small: f64, large: f64, scale: f64) -> f64 {
    if small <= large {
        0.0
    } else {
        relative(small - large, scale)
    }
}

/// The largest of several residuals.
pub(super) fn worst(residuals: impl IntoIterator<Item = f64>) -> Check {
    Check::Residual(residuals.into_iter().fold(0.0, f64::max))
}
