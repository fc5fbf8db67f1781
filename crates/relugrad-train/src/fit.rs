//! Whether data, network, loss and penalties fit each other, and which loss there is where nothing
//! is said.

use ndarray::s;
use relugrad::loss::TargetKind;
use relugrad::{Loss, Network, Objective, Penalty, Scalar, Workspace};

use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::options::{BestBy, Training};
use crate::samples::{BATCH, Samples};

/// How many training samples, from the first on, formulas are tried on before a training begins.
const TRIED: usize = 1000;

/// Refuses a network of other inputs.
///
/// # Errors
/// [`Error::Data`].
pub fn check_inputs<T: Scalar>(network: &Network<T>, data: &Dataset) -> Result<()> {
    let (inputs, features, name) = (network.inputs(), data.features(), data.name());
    match inputs == features {
        true => Ok(()),
        false => Err(Error::Data {
            problem: format!(
                "the model has {inputs} inputs but the samples of {name} have {features} features; give the data it was made for"
            ),
        }),
    }
}

/// The number of logits of a network that is made for data: one for each class or value, but one
/// for two classes if the logistic loss is `given`.
pub fn outputs_for(data: &Dataset, given: Option<Loss>) -> usize {
    match data.values() {
        Some(values) => values.ncols(),
        None => given.map_or(data.classes(), |loss| loss.outputs(data.classes())),
    }
}

/// The loss of a network on data: the one that is `given`, otherwise squared error for values, and
/// for classes the logistic loss of one logit or softmax cross-entropy of more.
///
/// # Errors
/// [`Error::Data`] for a network of other inputs, too few logits for the classes or another number
/// for the values; [`Error::Engine`] for a loss that is not defined for such samples.
pub fn loss_for<T: Scalar>(
    network: &Network<T>,
    data: &Dataset,
    given: Option<Loss>,
) -> Result<Loss> {
    check_inputs(network, data)?;
    let outputs = network.outputs();
    let loss = given.unwrap_or_else(|| Loss::for_targets(data.kind(), outputs));
    loss.check(data.kind(), outputs)?;
    let (name, answers) = (data.name(), data.answers());
    let fits = match data.values() {
        Some(values) => values.ncols() == outputs,
        None => data.classes() <= loss.classes(outputs),
    };
    let logits = if outputs == 1 { "logit" } else { "logits" };
    match fits {
        true => Ok(loss),
        false => Err(Error::Data {
            problem: format!(
                "the model has {outputs} {logits} but {name} has {answers}; give the data it was made for"
            ),
        }),
    }
}

/// Refuses a training that does not fit its network or its samples.
pub(crate) fn check_training<T: Scalar>(
    network: &Network<T>,
    data: &Dataset,
    training: &Training,
) -> Result<()> {
    let objective: &Objective = &training.objective;
    loss_for(network, data, Some(*objective.loss()))?;
    let (kind, outputs) = (data.kind(), network.outputs());
    for term in objective.terms() {
        check_penalty(&term.penalty, kind, outputs)?;
    }
    let attack = training.adversarial.as_ref().map(|own| own.attack(0));
    if let Some(problem) = attack.and_then(|attack| attack.unfit(kind, outputs)) {
        return Err(Error::Attack { problem });
    }
    check_formulas(network, data, objective)?;
    match (training.stopping.metric, kind) {
        (Some(BestBy::Accuracy), TargetKind::Values) => Err(Error::Configuration {
            problem: format!(
                "early-stopping.metric is accuracy, but {} has values; take loss, or leave it out",
                data.name()
            ),
        }),
        _ => Ok(()),
    }
}

/// Refuses formulas that are not finite, or whose derivatives are not, at one of the first samples
/// of a training that is about to begin.
fn check_formulas<T: Scalar>(
    network: &Network<T>,
    data: &Dataset,
    objective: &Objective,
) -> Result<()> {
    let mut formulas = Objective::new(*objective.loss()).penalties_only();
    for term in objective.terms() {
        if let Penalty::Formula(_) = term.penalty {
            formulas = formulas.with(term.penalty.clone(), 1.0)?;
        }
    }
    if formulas.terms().is_empty() {
        return Ok(());
    }
    let first: Vec<usize> = (0..data.samples().min(TRIED)).collect();
    let images = data.images().slice(s![..first.len(), ..]);
    let images = images.mapv(|x| T::from_f64(f64::from(x)));
    let samples = Samples::of(images, data.truth().select(&first).cast());
    let mut workspace = Workspace::new();
    for batch in samples.batches_of(BATCH) {
        let tried = formulas.gradient_into(network, batch.images, &batch.targets, &mut workspace);
        tried.map_err(|error| error.renumbered(|sample| batch.first + sample))?;
    }
    Ok(())
}

/// Refuses a penalty that needs classes where there are none, or more than there are.
///
/// # Errors
/// [`Error::Penalty`] with what to take instead, and those of [`Penalty::check_outputs`].
pub fn check_penalty(penalty: &Penalty, targets: TargetKind, outputs: usize) -> Result<()> {
    penalty.check_outputs(outputs)?;
    let Some(instead) = penalty.instead_of_classes() else {
        return Ok(());
    };
    let why = match (targets, outputs) {
        (TargetKind::Values, _) => "compares classes, but the samples have values",
        (_, 1) => "compares logits, but the network has one",
        _ => return Ok(()),
    };
    Err(Error::Penalty {
        penalty: penalty.spec().to_string(),
        problem: format!("{why}; take {instead}"),
    })
}
