//! Whether a network fits data.

use relugrad::{Network, Scalar};

use crate::data::Dataset;
use crate::error::{Error, Result};

/// What of a network must fit the data that it is used on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// The number of inputs.
    Inputs,
    /// That, and as many classes as it can tell apart; one logit tells two.
    Classes,
    /// The number of inputs, and a logit for each class.
    Logits,
}

/// Refuses a network for data of another kind.
///
/// # Errors
/// [`Error::Data`].
pub fn check_fit<T: Scalar>(network: &Network<T>, data: &Dataset, fit: Fit) -> Result<()> {
    let (inputs, outputs) = (network.inputs(), network.outputs());
    let (features, classes, name) = (data.features(), data.classes(), data.name());
    let problem = |problem: String| Err(Error::Data { problem });
    if inputs != features {
        return problem(format!(
            "the model has {inputs} inputs but the samples of {name} have {features} features; give the data it was made for"
        ));
    }
    let told_apart = match fit {
        Fit::Inputs => usize::MAX,
        Fit::Classes => outputs.max(2),
        Fit::Logits => outputs,
    };
    match classes <= told_apart {
        true => Ok(()),
        false => problem(format!(
            "the model has {outputs} logits but {name} has {classes} classes; give the data it was made for"
        )),
    }
}
