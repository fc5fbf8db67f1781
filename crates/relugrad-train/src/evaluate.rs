//! What a trained network is worth on samples that it has not seen.
//!
//! All of it asks before every batch whether to go on, and ends with [`relugrad::Error::Stopped`]
//! if not.

use ndarray::{ArrayView1, ArrayView2, Axis};
use relugrad::{GoOn, Loss, Network, Objective, Penalty, Scalar, Targets, Workspace};

use crate::attack::Attacker;
use crate::prediction::prediction;
use crate::samples::BATCH;
pub use crate::samples::Samples;
pub use crate::score::{Quality, Score};
use crate::stop::ask;
use crate::tally::{Spread, Tally};

/// How good the network's predictions are.
///
/// # Errors
/// Those of [`Objective::value`].
pub fn score<T: Scalar>(
    network: &Network<T>,
    loss: &Loss,
    samples: &Samples<T>,
    go_on: GoOn,
) -> relugrad::Result<Score> {
    let mut tally = Tally::default();
    for batch in samples.batches() {
        ask(go_on)?;
        let trace = network.trace(batch.images)?;
        let losses = trace.losses(loss, &batch.targets);
        let losses = losses.map_err(|error| error.renumbered(|sample| batch.first + sample))?;
        let weights = samples.batch_weights(&batch);
        let sum = (&losses * &ArrayView1::from(&weights)).sum();
        tally.add(trace.logits(), &batch.targets, &weights, sum);
    }
    Ok(tally.score(Spread::of(samples)))
}

/// The predicted class of each input; `images: [n, D]`.
///
/// # Errors
/// Those of [`Network::forward`].
pub fn predicted<T: Scalar>(
    network: &Network<T>,
    images: ArrayView2<T>,
) -> relugrad::Result<Vec<usize>> {
    let mut classes = Vec::with_capacity(images.nrows());
    for batch in images.axis_chunks_iter(Axis(0), BATCH) {
        let logits = network.forward(batch)?;
        classes.extend(logits.rows().into_iter().map(prediction));
    }
    Ok(classes)
}

/// Means of penalties over the samples, and the number of samples with a pre-activation exactly at
/// a kink.
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
    let (mut sums, mut kinks, mut total) = (vec![0.0; penalties.len()], 0, 0.0);
    let mut workspace = Workspace::new();
    for batch in samples.batches() {
        ask(go_on)?;
        objective
            .value_into(network, batch.images, &batch.targets, &mut workspace)
            .map_err(|error| error.renumbered(|sample| batch.first + sample))?;
        let evaluation = workspace.evaluation().expect("it was just computed");
        kinks += evaluation.samples_on_kink;
        let weights = samples.batch_weights(&batch);
        let weights = ArrayView1::from(&weights);
        total += weights.sum();
        for (sum, row) in sums.iter_mut().zip(evaluation.sample_penalties.rows()) {
            *sum += (&row * &weights).sum();
        }
    }
    Ok((sums.iter().map(|sum| sum / total).collect(), kinks))
}

/// How good predictions stay under the attack, in the box of the samples. Of classes, the share of samples that are classified
/// correctly and stay so, and the mean loss of what the attack has found; of values, the errors
/// where the loss is the highest that it has found.
///
/// # Errors
/// Those of [`Attacker::stand_while`].
pub fn score_under_attack<T: Scalar>(
    network: &Network<T>,
    loss: &Loss,
    attacker: &Attacker,
    samples: &Samples<T>,
    go_on: GoOn,
) -> relugrad::Result<Score> {
    let (mut tally, attacker) = (Tally::default(), attacker.within(&samples.bounds));
    for batch in samples.batches() {
        let range: Vec<usize> = (batch.first..batch.first + batch.images.nrows()).collect();
        let truth = samples.truth.select(&range);
        let found = attacker.stand_while(network, loss, batch.images, truth, batch.first, go_on)?;
        let weights = samples.batch_weights(&batch);
        let losses = found.losses.iter().zip(&weights).map(|(loss, w)| loss * w);
        match batch.targets {
            Targets::Classes(_) | Targets::Probabilities(_) => {
                let stands = found.fooled.iter().map(|fooled| !fooled);
                tally.count(stands, &weights, losses.sum());
            }
            Targets::Values(_) => {
                let logits = network.forward(found.adversarial.view())?;
                tally.add(logits.view(), &batch.targets, &weights, losses.sum());
            }
        }
    }
    Ok(tally.score(Spread::of(samples)))
}
