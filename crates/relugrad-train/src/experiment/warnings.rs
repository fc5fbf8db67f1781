//! What to warn of after a training that came to its end.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::data::Dataset;
use crate::report::EpochReport;
use crate::score::Quality;

/// A reason to doubt that a training has learned anything.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Warning {
    /// The last network is right no more often than one that always says the commonest class, but
    /// for chance: its accuracy `a` on `n` test samples, `p` of which are of that class, is at most
    /// `p + 2 √(p (1 − p)/n)`.
    AtChance {
        /// `a`.
        accuracy: f64,
        /// `p`.
        chance: f64,
        /// `n`.
        samples: usize,
    },
    /// The last network is no better on the test samples than always saying their mean: its `R²` is
    /// not positive.
    NoBetterThanMean {
        /// `R²`.
        r2: f64,
    },
    /// The mean loss of the training samples was larger in the last epoch than in the first.
    LossGrew {
        /// In the first epoch.
        first: f64,
        /// In the last epoch.
        last: f64,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Warning::AtChance {
                accuracy,
                chance,
                samples,
            } => write!(
                f,
                "the test accuracy of the last network, {:.2} %, is at chance: {:.2} % of the {samples} samples are of one class",
                100.0 * accuracy,
                100.0 * chance
            ),
            Warning::NoBetterThanMean { r2 } => write!(
                f,
                "the last network predicts the test samples no better than their mean: R² is {r2:.4}"
            ),
            Warning::LossGrew { first, last } => write!(
                f,
                "the training loss grew from {first:.4} in the first epoch to {last:.4} in the last"
            ),
        }
    }
}

/// What to warn of, by how good the last network is on the test samples.
pub(super) fn warnings(epochs: &[EpochReport], quality: Quality, test: &Dataset) -> Vec<Warning> {
    let useless = match quality {
        Quality::Classes { accuracy } => at_chance(accuracy, test),
        Quality::Values { r2, .. } => (r2 <= 0.0).then_some(Warning::NoBetterThanMean { r2 }),
    };
    let ends = epochs.first().zip(epochs.last());
    let grew = ends.filter(|(first, last)| last.train.loss > first.train.loss);
    let grew = grew.map(|(first, last)| Warning::LossGrew {
        first: first.train.loss,
        last: last.train.loss,
    });
    useless.into_iter().chain(grew).collect()
}

fn at_chance(accuracy: f64, test: &Dataset) -> Option<Warning> {
    let mut shares = vec![0.0; test.classes()];
    let (samples, weights) = (test.samples(), test.weights());
    let weight = |i: usize| weights.get(i).copied().unwrap_or(1.0);
    let labels = test.labels().iter().enumerate();
    labels.for_each(|(i, &label)| shares[label] += weight(i));
    let total: f64 = shares.iter().sum();
    let chance = shares.into_iter().fold(0.0, f64::max) / total;
    let error = (chance * (1.0 - chance) / samples as f64).sqrt();
    (accuracy <= chance + 2.0 * error).then_some(Warning::AtChance {
        accuracy,
        chance,
        samples,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::digits;
    use crate::score::Score;

    fn right(accuracy: f64) -> Quality {
        Quality::Classes { accuracy }
    }

    fn epoch(train_loss: f64) -> EpochReport {
        EpochReport {
            epoch: 1,
            step: 1,
            learning_rate: 1.0,
            train: Score {
                loss: train_loss,
                quality: right(0.5),
            },
            train_penalties: Vec::new(),
            validation: None,
            best: true,
        }
    }

    #[test]
    fn chance_is_the_share_of_the_commonest_class_and_its_error() {
        // 183 of the 1797 digits are threes: 10.18 %, with an error of 0.71 %.
        let found = warnings(&[epoch(1.0)], right(0.116), &digits());
        assert!(matches!(
            found[..],
            [Warning::AtChance { samples: 1797, .. }]
        ));
        assert!(found[0].to_string().contains("10.18 % of the 1797 samples"));
        assert!(warnings(&[epoch(1.0)], right(0.117), &digits()).is_empty());
    }

    #[test]
    fn a_regression_that_learned_nothing_is_told() {
        let found = |r2| warnings(&[epoch(1.0)], Quality::Values { mse: 1.0, r2 }, &digits());
        assert_eq!(found(-0.5), [Warning::NoBetterThanMean { r2: -0.5 }]);
        assert!(found(0.1).is_empty());
    }

    #[test]
    fn a_loss_that_grows_is_told() {
        let grown = [epoch(2.0), epoch(1.0), epoch(2.5)];
        let expected = Warning::LossGrew {
            first: 2.0,
            last: 2.5,
        };
        assert_eq!(warnings(&grown, right(0.9), &digits()), [expected]);
        assert!(warnings(&grown[..2], right(0.9), &digits()).is_empty());
    }
}
