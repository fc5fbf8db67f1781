//! What a trained network is worth on samples that it has not seen.
//!
//! All of it asks before every batch whether to go on, and ends with [`relugrad::Error::Stopped`] if not.

use relugrad::{GoOn, Loss, Network, Objective, Penalty, Scalar, Targets, Workspace};

use crate::attack::Attacker;
use crate::prediction::correct;
pub use crate::samples::Samples;
use crate::stop::ask;

/// Accuracy in `[0, 1]` and mean loss.
///
/// # Errors
/// Those of [`Objective::value`].
pub fn accuracy_and_loss<T: Scalar>(
    network: &Network<T>,
    loss: &Loss,
    samples: &Samples<T>,
    go_on: GoOn,
) -> relugrad::Result<(f64, f64)> {
    let (mut right, mut sum) = (0, 0.0);
    for (_, images, labels) in samples.batches() {
        ask(go_on)?;
        let trace = network.trace(images)?;
        sum += trace.losses(loss, &Targets::Classes(labels))?.sum();
        let logits: Vec<T> = trace.logits().iter().copied().collect();
        right += correct(&logits, labels).filter(|&right| right).count();
    }
    let n = samples.len() as f64;
    Ok((right as f64 / n, sum / n))
}

/// Means of penalties over the samples, and the number of samples with a pre-activation exactly at a kink.
///
/// # Errors
/// Those of [`Objective::value`].
pub fn penalty_means<T: Scalar>(
    network: &Network<T>,
    loss: &Loss,
    penalties: &[Penalty],
    samples: &Samples<T>,
    go_on: GoOn,
) -> relugrad::Result<(Vec<f64>, usize)> {
    let objective = penalties
        .iter()
        .try_fold(Objective::new(*loss), |objective, penalty| {
            objective.with(penalty.clone(), 0.0)
        })?;
    let (mut sums, mut kinks) = (vec![0.0; penalties.len()], 0);
    let mut workspace = Workspace::new();
    for (start, images, labels) in samples.batches() {
        ask(go_on)?;
        let targets = Targets::Classes(labels);
        objective
            .value_into(network, images, &targets, &mut workspace)
            .map_err(|error| error.renumbered(|sample| start + sample))?;
        let evaluation = workspace.evaluation().expect("it was just computed");
        kinks += evaluation.samples_on_kink;
        for (sum, row) in sums.iter_mut().zip(evaluation.sample_penalties.rows()) {
            *sum += row.sum();
        }
    }
    let n = samples.len() as f64;
    Ok((sums.iter().map(|sum| sum / n).collect(), kinks))
}

/// Share of the samples that are classified correctly and stay so under the attack; in `[0, 1]`.
///
/// # Errors
/// Those of [`Attacker::stand_while`].
pub fn robust_accuracy<T: Scalar>(
    network: &Network<T>,
    loss: &Loss,
    attacker: &Attacker,
    samples: &Samples<T>,
    go_on: GoOn,
) -> relugrad::Result<f64> {
    let mut survivors = 0;
    for (first, images, labels) in samples.batches() {
        let examples = attacker.stand_while(network, loss, images, labels, first, go_on)?;
        survivors += examples.iter().filter(|found| found.is_none()).count();
    }
    Ok(survivors as f64 / samples.len() as f64)
}
