//! What a trained network is worth on samples that it has not seen.
//!
//! All of it asks before every batch whether to go on, and ends with [`relugrad::Error::Stopped`] if not.

use ndarray::{Array2, ArrayView2, s};
use relugrad::{GoOn, Loss, Network, Objective, Penalty, Scalar, Targets, Workspace};

use crate::attack::Attack;
use crate::data::Dataset;
use crate::stop::ask;

/// Samples that are evaluated together.
const BATCH: usize = 256;

/// A data set in the precision of a network.
#[derive(Clone, Debug)]
pub struct Samples<T> {
    /// `[n, D]`, in `[0, 1]`.
    pub images: Array2<T>,
    /// `[n]`.
    pub labels: Vec<usize>,
}

impl<T: Scalar> Samples<T> {
    /// All samples of a data set.
    pub fn new(data: &Dataset) -> Samples<T> {
        Samples {
            images: data.images().mapv(|x| T::from_f64(f64::from(x))),
            labels: data.labels().to_vec(),
        }
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The first `count` samples, or all if there are fewer.
    pub fn first(&self, count: usize) -> Samples<T> {
        let count = count.min(self.len());
        Samples {
            images: self.images.slice(s![..count, ..]).to_owned(),
            labels: self.labels[..count].to_vec(),
        }
    }

    /// Consecutive batches with the index of their first sample.
    pub(crate) fn batches(&self) -> impl Iterator<Item = (usize, ArrayView2<'_, T>, &[usize])> {
        (0..self.len()).step_by(BATCH).map(|start| {
            let end = (start + BATCH).min(self.len());
            (
                start,
                self.images.slice(s![start..end, ..]),
                &self.labels[start..end],
            )
        })
    }
}

/// For each sample whether its largest logit is that of its label; of equal logits the first counts.
pub(crate) fn correct<T: Scalar>(logits: &[T], labels: &[usize]) -> impl Iterator<Item = bool> {
    let classes = logits.len() / labels.len();
    logits
        .chunks_exact(classes)
        .zip(labels)
        .map(|(f, &label)| prediction(f) == label)
}

pub(crate) fn prediction<T: Scalar>(logits: &[T]) -> usize {
    (1..logits.len()).fold(0, |best, k| if logits[k] > logits[best] { k } else { best })
}

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
/// Those of [`Attack::stand_while`].
pub fn robust_accuracy<T: Scalar>(
    network: &Network<T>,
    loss: &Loss,
    attack: &Attack,
    samples: &Samples<T>,
    go_on: GoOn,
) -> relugrad::Result<f64> {
    let mut survivors = 0;
    for (first, images, labels) in samples.batches() {
        let misled = attack.stand_while(network, loss, images, labels, first, go_on)?;
        survivors += misled.iter().filter(|misled| misled.is_none()).count();
    }
    Ok(survivors as f64 / samples.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_logits_the_first_counts() {
        let found: Vec<bool> = correct(&[1.0, 1.0, 0.0, 2.0], &[0, 0]).collect();
        assert_eq!(found, [true, false]);
    }
}
