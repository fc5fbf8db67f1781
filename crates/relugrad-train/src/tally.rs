//! Scores from sums over samples.

use ndarray::{ArrayView1, ArrayView2};
use relugrad::{Scalar, Targets};
use serde::{Deserialize, Serialize};

use crate::prediction::prediction;
use crate::samples::Samples;
use crate::score::{Quality, Score};

/// Sums over samples from which a score follows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Tally {
    /// Number of samples, each as often as its weight says.
    pub(crate) samples: f64,
    pub(crate) loss: f64,
    /// Number of samples of which the class is predicted.
    correct: f64,
    /// `Σ ‖f − y‖²`.
    squares: f64,
}

/// What scores of values are measured by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    /// Values of a sample; none with classes.
    outputs: Option<usize>,
    /// `Σ ‖y − ȳ‖²`.
    squares: f64,
}

impl Spread {
    /// That of all of these samples.
    pub(crate) fn of<T: Scalar>(samples: &Samples<T>) -> Spread {
        let Targets::Values(values) = samples.truth.targets() else {
            return Spread {
                outputs: None,
                squares: 0.0,
            };
        };
        let weight = |i: usize| samples.weight(i);
        let total: f64 = (0..samples.len()).map(weight).sum();
        let column = |column: ArrayView1<T>| {
            let weighted = || {
                column
                    .iter()
                    .enumerate()
                    .map(|(i, y)| (weight(i), y.into_f64()))
            };
            let mean = weighted().map(|(w, y)| w * y).sum::<f64>() / total;
            weighted().map(|(w, y)| w * (y - mean).powi(2)).sum::<f64>()
        };
        Spread {
            outputs: Some(values.ncols()),
            squares: values.columns().into_iter().map(column).sum(),
        }
    }
}

impl Tally {
    /// Adds predictions; `logits: [B, K]`, the weight of each sample, and the sum of their losses.
    pub(crate) fn add<T: Scalar>(
        &mut self,
        logits: ArrayView2<T>,
        targets: &Targets<T>,
        weights: &[f64],
        loss: f64,
    ) {
        let rows = || logits.rows().into_iter();
        match targets {
            Targets::Classes(labels) => {
                let right = rows()
                    .zip(*labels)
                    .map(|(f, &label)| prediction(f) == label);
                self.count(right, weights, loss);
            }
            Targets::Probabilities(likely) => {
                let right = rows()
                    .zip(likely.rows())
                    .map(|(f, p)| prediction(f) == prediction(p));
                self.count(right, weights, loss);
            }
            Targets::Values(values) => {
                self.loss += loss;
                for ((f, y), &w) in rows().zip(values.rows()).zip(weights) {
                    let errors = f.iter().zip(y);
                    let squares = errors.map(|(f, y)| (f.into_f64() - y.into_f64()).powi(2));
                    self.add_error(w, 0.0, squares.sum());
                }
            }
        }
    }

    /// Adds a sample with values, by its loss and `‖f − y‖²`.
    pub(crate) fn add_error(&mut self, weight: f64, loss: f64, square: f64) {
        self.samples += weight;
        self.loss += weight * loss;
        self.squares += weight * square;
    }

    /// Adds samples of which it is known whether their class is predicted.
    pub(crate) fn count(&mut self, right: impl Iterator<Item = bool>, weights: &[f64], loss: f64) {
        self.loss += loss;
        for (right, w) in right.zip(weights) {
            self.samples += w;
            self.correct += w * f64::from(right);
        }
    }

    pub(crate) fn score(&self, spread: Spread) -> Score {
        Score {
            loss: self.loss / self.samples,
            quality: match spread.outputs {
                None => Quality::Classes {
                    accuracy: self.correct / self.samples,
                },
                Some(outputs) => Quality::Values {
                    mse: self.squares / (self.samples * outputs as f64),
                    r2: match spread.squares > 0.0 {
                        true => 1.0 - self.squares / spread.squares,
                        false => f64::from(self.squares == 0.0),
                    },
                },
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Truth;
    use ndarray::array;

    fn score(truth: Truth<f64>, weights: Vec<f64>, logits: ndarray::Array2<f64>) -> Quality {
        let images = ndarray::Array2::zeros((truth.len(), 1));
        let samples = Samples {
            weights,
            ..Samples::of(images, truth)
        };
        let all: Vec<f64> = (0..samples.len()).map(|i| samples.weight(i)).collect();
        let mut tally = Tally::default();
        tally.add(logits.view(), &samples.truth.targets(), &all, 0.0);
        tally.score(Spread::of(&samples)).quality
    }

    #[test]
    fn errors_of_values_by_hand() {
        let truth = || Truth::Values(array![[1.0], [2.0], [6.0]]);
        let found = score(truth(), vec![], array![[1.0], [3.0], [4.0]]);
        // Squares 0, 1, 4; around the mean 3 they are 4, 1, 9.
        let (mse, r2) = (5.0 / 3.0, 1.0 - 5.0 / 14.0);
        assert_eq!(found, Quality::Values { mse, r2 });
        let weighted = score(truth(), vec![0.0, 1.0, 1.0], array![[9.0], [3.0], [4.0]]);
        // Around the mean 4 they are 4 and 4.
        let r2 = 1.0 - 5.0 / 8.0;
        assert_eq!(weighted, Quality::Values { mse: 2.5, r2 });
        let mean = score(truth(), vec![], array![[3.0], [3.0], [3.0]]);
        assert_eq!(mean.metrics()[1], ("r2", 0.0));
    }

    #[test]
    fn constant_values_have_no_spread() {
        let r2 = |f: f64| {
            let truth = Truth::Values(array![[2.0], [2.0]]);
            score(truth, vec![], array![[2.0], [f]]).metrics()[1].1
        };
        assert_eq!((r2(2.0), r2(3.0)), (1.0, 0.0));
    }

    #[test]
    fn weights_count_in_the_accuracy() {
        let logits = || array![[1.0, 0.0], [1.0, 0.0]];
        let accuracy = |weights| score(Truth::Classes(vec![0, 1]), weights, logits()).accuracy();
        assert_eq!(accuracy(vec![]), Some(0.5));
        assert_eq!(accuracy(vec![3.0, 1.0]), Some(0.75));
    }
}
