//! What can be wrong with a network, an input or an option.

use crate::formula_error::FormulaError;
use crate::parallel::all_finite;
use crate::scalar::Scalar;

/// The reason why the engine refuses a request.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An array has another shape than the network or the batch asks for.
    #[error("{what} has shape {found:?} but {expected:?} is needed")]
    Shape {
        /// Which array.
        what: String,
        /// The shape that fits.
        expected: Vec<usize>,
        /// The shape that was given.
        found: Vec<usize>,
    },

    /// A layer or an input without any unit.
    #[error("{node} has width 0; every layer needs at least one unit")]
    ZeroWidth {
        /// Name of the node.
        node: String,
    },

    /// A node with more values than any network has.
    #[error(
        "{node} of shape {shape:?} has more than {limit} values per sample, or needs a table as long"
    )]
    TooWide {
        /// Name of the node.
        node: String,
        /// Its shape, or that of the table.
        shape: Vec<usize>,
        /// How many there may be.
        limit: usize,
    },

    /// An attribute of a node that does not go with its input.
    #[error("{node}: {problem}")]
    Attribute {
        /// Name of the node.
        node: String,
        /// What does not fit, and what would.
        problem: String,
    },

    /// A network whose parameters do not fit into memory.
    #[error("a network with layers of {widths:?} units does not fit into memory")]
    TooLarge {
        /// Widths from the inputs to the outputs.
        widths: Vec<usize>,
    },

    /// A node that the builder has not made.
    #[error("node {id} does not exist; the network has {nodes} nodes so far")]
    UnknownNode {
        /// The number that was given.
        id: usize,
        /// How many nodes there are.
        nodes: usize,
    },

    /// A node whose value no other node uses and that is not the output.
    #[error("{node} does not lead to the output; remove it or use its value")]
    UnusedNode {
        /// Name of the node.
        node: String,
    },

    /// A name that a node cannot have.
    #[error("a node cannot be called `{name}`: {problem}")]
    NodeName {
        /// The name that was given.
        name: String,
        /// Why not.
        problem: &'static str,
    },

    /// A network without exactly one input node.
    #[error("the network has {found} input nodes but needs exactly one, made first")]
    InputNodes {
        /// How many input nodes there are.
        found: usize,
    },

    /// A batch without samples.
    #[error("{what} has no samples; a batch needs at least one")]
    EmptyBatch {
        /// Which array.
        what: String,
    },

    /// Work that its caller did not want to go on ([`GoOn`](crate::GoOn)).
    #[error("stopped before it was finished")]
    Stopped,

    /// A NaN or an infinity.
    #[error(
        "{what} is not finite{}; look for NaN, infinity or overflow there",
        at_place(index)
    )]
    NotFinite {
        /// Which array, or which node of the network.
        what: String,
        /// Where in it, as far as known: `[sample]`, `[sample, feature]`,
        /// `[sample, logit, feature]` or `[row, column]`.
        index: Vec<usize>,
    },

    /// A parameter gradient that is not finite, or that the network's type cannot hold.
    #[error(
        "the gradient of {term} with respect to {parameter} is not finite{}; scale the weights, or leave it out",
        at_sample(*sample)
    )]
    Gradient {
        /// Which penalty, or `the loss`.
        term: String,
        /// The first parameter array with such an entry.
        parameter: String,
        /// The sample that it comes from; `None` if only the sum over samples or terms overflows.
        sample: Option<usize>,
    },

    /// Layers whose product is too small for what is computed from it.
    #[error(
        "products of layers up to {node} are about 2^{exponent}, which is too small for {precision}; scale the weights or the \
         inputs up"
    )]
    Underflow {
        /// Where the smallest product ends.
        node: String,
        /// The logarithm of its size to base 2.
        exponent: i32,
        /// The type of its numbers.
        precision: &'static str,
    },

    /// A class index that the network has no logit for.
    #[error("sample {sample} has label {label} but there are {classes} classes, 0 to {}", .classes - 1)]
    Label {
        /// Which sample.
        sample: usize,
        /// Its label.
        label: usize,
        /// How many classes there are.
        classes: usize,
    },

    /// A row of target probabilities that is not a distribution.
    #[error(
        "the target probabilities of sample {sample} must be non-negative with sum 1 (their sum is {sum})"
    )]
    TargetProbabilities {
        /// Which sample.
        sample: usize,
        /// Sum of its row.
        sum: f64,
    },

    /// A loss together with targets or a network that it is not defined for.
    #[error("{loss} {problem}")]
    Loss {
        /// Name of the loss.
        loss: String,
        /// What does not fit, and what would.
        problem: String,
    },

    /// A number outside the range of an option.
    #[error("{option} is {value} but must be {expected}")]
    OutOfRange {
        /// Name of the option.
        option: String,
        /// Its value.
        value: f64,
        /// The range in words.
        expected: &'static str,
    },

    /// A penalty's name that does not exist.
    #[error("no penalty is called `{name}`{}", suggestion(nearest, known))]
    UnknownPenalty {
        /// The name that was given.
        name: String,
        /// The name that it resembles most, if one is near.
        nearest: Option<&'static str>,
        /// All names.
        known: Vec<&'static str>,
    },

    /// An option of a penalty that it does not have, or that is out of range.
    #[error("penalty {penalty}: {problem}")]
    PenaltyOption {
        /// Name of the penalty.
        penalty: String,
        /// What is wrong, and what it may be.
        problem: String,
    },

    /// A formula that is none.
    #[error(transparent)]
    Formula(Box<FormulaError>),

    /// A penalty from outside this crate that does not do what it should.
    #[error("penalty {penalty} {problem}{}", at_sample(*sample))]
    Penalty {
        /// Name of the penalty.
        penalty: String,
        /// The sample; `None` if that does not matter.
        sample: Option<usize>,
        /// What it does.
        problem: String,
    },

    /// Weights of samples that no mean can be taken with.
    #[error("{problem}")]
    SampleWeights {
        /// What is wrong, and what they may be.
        problem: String,
    },

    /// A memory bound below what one row of one sample needs.
    #[error("a memory bound of {bound} bytes is too small; one row of one sample needs {needed}")]
    MemoryBound {
        /// The bound that was given.
        bound: usize,
        /// The smallest bound that works.
        needed: usize,
    },

    /// A slice with more regions than are wanted.
    #[error("the window meets more than {limit} regions; make it smaller or allow more")]
    TooManyRegions {
        /// How many were allowed.
        limit: usize,
    },

    /// The eigensolver gave up on the `K×K` matrix of a sample.
    #[error("the eigenvalues of a {size}x{size} Gram matrix did not converge")]
    Eigenvalues {
        /// Number of rows of the matrix.
        size: usize,
    },
}

/// A result of the engine.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// What is not finite, if that is the reason: a number of a network or a training that has
    /// grown beyond its type.
    pub fn not_finite(&self) -> Option<String> {
        if let Error::NotFinite { what, .. } = self {
            return Some(what.clone());
        }
        let Error::Gradient {
            term,
            parameter,
            sample,
        } = self
        else {
            return None;
        };
        let sample = at_sample(*sample);
        Some(format!(
            "the gradient of {term} with respect to {parameter}{sample}"
        ))
    }

    /// The same error of a sample that has another number elsewhere, as one of a batch has in its
    /// data set.
    pub fn renumbered(mut self, number: impl Fn(usize) -> usize) -> Error {
        if let Some(sample) = self.sample_mut() {
            *sample = number(*sample);
        }
        self
    }

    /// The same error, about a sample if it does not say which one.
    pub(crate) fn at_sample(mut self, number: usize) -> Error {
        if let Error::NotFinite { index, .. } = &mut self
            && index.is_empty()
        {
            index.push(number);
        }
        if let Error::Penalty { sample, .. } = &mut self {
            *sample = sample.or(Some(number));
        }
        self
    }

    /// The number of the sample that it is about.
    fn sample_mut(&mut self) -> Option<&mut usize> {
        match self {
            Error::Gradient { sample, .. } | Error::Penalty { sample, .. } => sample.as_mut(),
            Error::Label { sample, .. } | Error::TargetProbabilities { sample, .. } => Some(sample),
            Error::NotFinite { index, what } if !what.starts_with("parameter ") => {
                index.first_mut()
            }
            Error::NotFinite { .. }
            | Error::Shape { .. }
            | Error::ZeroWidth { .. }
            | Error::TooWide { .. }
            | Error::Attribute { .. }
            | Error::TooLarge { .. }
            | Error::UnknownNode { .. }
            | Error::UnusedNode { .. }
            | Error::NodeName { .. }
            | Error::InputNodes { .. }
            | Error::EmptyBatch { .. }
            | Error::Stopped
            | Error::Underflow { .. }
            | Error::Loss { .. }
            | Error::OutOfRange { .. }
            | Error::UnknownPenalty { .. }
            | Error::PenaltyOption { .. }
            | Error::Formula(_)
            | Error::SampleWeights { .. }
            | Error::MemoryBound { .. }
            | Error::TooManyRegions { .. }
            | Error::Eigenvalues { .. } => None,
        }
    }
}

fn suggestion(nearest: &Option<&'static str>, known: &[&'static str]) -> String {
    match nearest {
        Some(name) => format!("; did you mean `{name}`?"),
        None => format!("; the names are {}", known.join(", ")),
    }
}

fn at_sample(sample: Option<usize>) -> String {
    sample.map_or_else(String::new, |sample| format!(" at sample {sample}"))
}

/// Refuses rows of numbers of which one is not finite; `values: [rows, width]`.
pub(crate) fn check_finite<T: Scalar>(what: &str, width: usize, values: &[T]) -> Result<()> {
    check_array(what, &[values.len() / width, width], values)
}

/// Refuses an array, row-major, with an entry that is not finite.
pub(crate) fn check_array<T: Scalar>(what: &str, shape: &[usize], values: &[T]) -> Result<()> {
    if all_finite(values) {
        return Ok(());
    }
    let mut place = values.iter().position(|x| !x.is_finite()).unwrap_or(0);
    let mut index = vec![0; shape.len()];
    for (to, size) in index.iter_mut().zip(shape).rev() {
        (*to, place) = (place % size, place / size);
    }
    Err(Error::NotFinite {
        what: what.to_owned(),
        index,
    })
}

/// Where something is in an array, if it is anywhere.
fn at_place(index: &[usize]) -> String {
    match index {
        [] => String::new(),
        index => format!(" at {index:?}"),
    }
}

/// Refuses a number that is not finite, at a place if it has one.
pub(crate) fn check_number(what: &str, place: &[usize], value: f64) -> Result<f64> {
    if value.is_finite() {
        return Ok(value);
    }
    Err(Error::NotFinite {
        what: what.to_owned(),
        index: place.to_vec(),
    })
}

/// Refuses an array whose shape is not the expected one.
pub(crate) fn check_shape(what: &str, expected: &[usize], found: &[usize]) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(Error::Shape {
        what: what.to_owned(),
        expected: expected.to_vec(),
        found: found.to_vec(),
    })
}

/// Refuses a number that is negative, infinite or NaN.
pub(crate) fn check_non_negative(option: &str, value: f64) -> Result<()> {
    if value.is_finite() && value >= 0.0 {
        return Ok(());
    }
    Err(Error::OutOfRange {
        option: option.to_owned(),
        value,
        expected: "a finite number of at least 0",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shape_error_names_both_shapes() {
        let error = check_shape("inputs", &[2, 3], &[2, 4]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "inputs has shape [2, 4] but [2, 3] is needed"
        );
    }

    #[test]
    fn nan_is_not_in_any_range() {
        assert!(check_non_negative("lambda", f64::NAN).is_err());
        assert!(check_non_negative("lambda", -1e-300).is_err());
        assert!(check_non_negative("lambda", 0.0).is_ok());
    }
}
