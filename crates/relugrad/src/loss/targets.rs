//! What the logits of a batch should have been.

use std::ops::Range;

use ndarray::{ArrayView2, s};

use super::{Loss, LossFunction};
use crate::error::{Error, Result, check_shape};
use crate::scalar::Scalar;

/// The targets of a batch of `B` samples.
#[derive(Clone, Copy, Debug)]
pub enum Targets<'a, T> {
    /// One class index per sample, from 0; for the logistic loss 0 or 1.
    Classes(&'a [usize]),
    /// Probabilities of the classes; `[B, K]`, rows with sum 1 up to rounding in `f32` (they are
    /// divided by their sum). For the logistic loss `[B, 1]`, the probability of class 1.
    Probabilities(ArrayView2<'a, T>),
    /// Values to regress to, for squared error; `[B, K]`.
    Values(ArrayView2<'a, T>),
}

/// What targets are, without their values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetKind {
    /// One class index per sample.
    Classes,
    /// Probabilities of the classes.
    Probabilities,
    /// Values to regress to.
    Values,
}

impl TargetKind {
    /// Refuses values.
    pub(super) fn are_classes(self) -> std::result::Result<(), String> {
        match self {
            TargetKind::Classes | TargetKind::Probabilities => Ok(()),
            TargetKind::Values => Err(
                "needs classes or probabilities as targets, not values; use squared error"
                    .to_owned(),
            ),
        }
    }
}

/// How far the sum of target probabilities may be from 1, in units of `K·ε`.
const SUM_TOLERANCE: f64 = 16.0;

impl<T: Scalar> Targets<'_, T> {
    /// Those of some of the samples.
    pub(crate) fn part(&self, samples: Range<usize>) -> Targets<'_, T> {
        match self {
            Targets::Classes(labels) => Targets::Classes(&labels[samples]),
            Targets::Probabilities(rows) => Targets::Probabilities(rows.slice(s![samples, ..])),
            Targets::Values(rows) => Targets::Values(rows.slice(s![samples, ..])),
        }
    }

    /// Writes each sample's target vector in `f64` into `out: [B, K]`.
    pub(crate) fn resolve(
        &self,
        loss: &Loss,
        samples: usize,
        outputs: usize,
        out: &mut Vec<f64>,
    ) -> Result<()> {
        let (function, kind) = (loss.function(), self.kind());
        loss.check(kind, outputs)?;
        out.clear();
        out.resize(samples * outputs, 0.0);
        match self {
            Targets::Classes(labels) => {
                check_shape("labels", &[samples], &[labels.len()])?;
                let classes = function.classes(outputs);
                for (sample, (&label, row)) in
                    labels.iter().zip(out.chunks_mut(outputs)).enumerate()
                {
                    if label >= classes {
                        return Err(Error::Label {
                            sample,
                            label,
                            classes,
                        });
                    }
                    function.class_target(label, row);
                }
                Ok(())
            }
            Targets::Probabilities(values) | Targets::Values(values) => {
                check_shape("targets", &[samples, outputs], values.shape())?;
                copy_finite(values, out)?;
                match kind {
                    TargetKind::Probabilities => normalise(&*function, outputs, out),
                    TargetKind::Classes | TargetKind::Values => Ok(()),
                }
            }
        }
    }

    /// What they are.
    pub fn kind(&self) -> TargetKind {
        match self {
            Targets::Classes(_) => TargetKind::Classes,
            Targets::Probabilities(_) => TargetKind::Probabilities,
            Targets::Values(_) => TargetKind::Values,
        }
    }
}

fn copy_finite<T: Scalar>(values: &ArrayView2<T>, out: &mut [f64]) -> Result<()> {
    for (((sample, k), value), out) in values.indexed_iter().zip(out) {
        *out = value.into_f64();
        if !out.is_finite() {
            return Err(Error::NotFinite {
                what: "targets".into(),
                index: vec![sample, k],
            });
        }
    }
    Ok(())
}

/// Makes rows exact distributions; where there is a class more than logits, a row leaves the first
/// one out.
fn normalise(loss: &dyn LossFunction, outputs: usize, values: &mut [f64]) -> Result<()> {
    let tolerance = SUM_TOLERANCE * outputs as f64 * f64::from(f32::EPSILON);
    let binary = loss.classes(outputs) > outputs;
    for (sample, row) in values.chunks_mut(outputs).enumerate() {
        let sum: f64 = row.iter().sum();
        let total = if binary {
            sum <= 1.0
        } else {
            (sum - 1.0).abs() <= tolerance
        };
        if !total || row.iter().any(|&t| t < 0.0) {
            return Err(Error::TargetProbabilities { sample, sum });
        }
        if !binary {
            row.iter_mut().for_each(|t| *t /= sum);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    fn resolve(targets: Targets<f64>, loss: Loss, outputs: usize) -> Result<Vec<f64>> {
        let mut out = Vec::new();
        targets.resolve(&loss, 2, outputs, &mut out).map(|()| out)
    }

    #[test]
    fn labels_become_smoothed_distributions() {
        let loss = Loss::SoftmaxCrossEntropy {
            label_smoothing: 0.5,
        };
        let found = resolve(Targets::Classes(&[1, 0]), loss, 2).unwrap();
        assert_eq!(found, [0.25, 0.75, 0.75, 0.25]);
    }

    #[test]
    fn mistakes_are_named() {
        let cross_entropy = Loss::softmax_cross_entropy();
        let error = resolve(Targets::Classes(&[0, 3]), cross_entropy, 3).unwrap_err();
        assert_eq!(
            error.to_string(),
            "sample 1 has label 3 but there are 3 classes, 0 to 2"
        );
        let short = resolve(Targets::Classes(&[0]), cross_entropy, 3);
        assert!(matches!(short, Err(Error::Shape { .. })));
        let wide = resolve(Targets::Classes(&[0, 1]), Loss::Logistic, 3);
        assert!(matches!(wide, Err(Error::Loss { .. })));
        let half = array![[0.5, 0.5], [0.5, 0.4]];
        let error = resolve(Targets::Probabilities(half.view()), cross_entropy, 2);
        assert!(matches!(
            error,
            Err(Error::TargetProbabilities { sample: 1, .. })
        ));
        let nan = array![[0.5, 0.5], [f64::NAN, 0.4]];
        let error = resolve(Targets::Values(nan.view()), Loss::SquaredError, 2);
        assert!(matches!(error, Err(Error::NotFinite { .. })));
    }
}
