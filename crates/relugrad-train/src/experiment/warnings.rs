//! What to warn of after a training that came to its end.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::data::Dataset;
use crate::report::EpochReport;

/// A reason to doubt that a training has learned anything.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Warning {
    /// The last network is right no more often than one that always says the commonest class, but for chance: its accuracy
    /// `a` on `n` test samples, `p` of which are of that class, is at most `p + 2 √(p (1 − p)/n)`.
    AtChance {
        /// `a`.
        accuracy: f64,
        /// `p`.
        chance: f64,
        /// `n`.
        samples: usize,
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
            Warning::LossGrew { first, last } => write!(
                f,
                "the training loss grew from {first:.4} in the first epoch to {last:.4} in the last"
            ),
        }
    }
}

/// What to warn of, by the accuracy of the last network on the test samples.
pub(super) fn warnings(epochs: &[EpochReport], accuracy: f64, test: &Dataset) -> Vec<Warning> {
    let mut counts = vec![0usize; test.classes()];
    test.labels().iter().for_each(|&label| counts[label] += 1);
    let samples = test.samples();
    let chance = counts.into_iter().max().unwrap_or(0) as f64 / samples as f64;
    let error = (chance * (1.0 - chance) / samples as f64).sqrt();
    let at_chance = (accuracy <= chance + 2.0 * error).then_some(Warning::AtChance {
        accuracy,
        chance,
        samples,
    });
    let ends = epochs.first().zip(epochs.last());
    let grew = ends.filter(|(first, last)| last.train_loss > first.train_loss);
    let grew = grew.map(|(first, last)| Warning::LossGrew {
        first: first.train_loss,
        last: last.train_loss,
    });
    at_chance.into_iter().chain(grew).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::digits;

    fn epoch(train_loss: f64) -> EpochReport {
        EpochReport {
            epoch: 1,
            step: 1,
            learning_rate: 1.0,
            train_loss,
            train_accuracy: 0.5,
            train_penalties: Vec::new(),
            validation_loss: None,
            validation_accuracy: None,
            best: true,
        }
    }

    #[test]
    fn chance_is_the_share_of_the_commonest_class_and_its_error() {
        // 183 of the 1797 digits are threes: 10.18 %, with an error of 0.71 %.
        let found = warnings(&[epoch(1.0)], 0.116, &digits());
        assert!(matches!(
            found[..],
            [Warning::AtChance { samples: 1797, .. }]
        ));
        assert!(found[0].to_string().contains("10.18 % of the 1797 samples"));
        assert!(warnings(&[epoch(1.0)], 0.117, &digits()).is_empty());
    }

    #[test]
    fn a_loss_that_grows_is_told() {
        let grown = [epoch(2.0), epoch(1.0), epoch(2.5)];
        let expected = Warning::LossGrew {
            first: 2.0,
            last: 2.5,
        };
        assert_eq!(warnings(&grown, 0.9, &digits()), [expected]);
        assert!(warnings(&grown[..2], 0.9, &digits()).is_empty());
    }
}
