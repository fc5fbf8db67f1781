//! How good predictions are: the loss, the accuracy of classes, and the error of values.

use std::fmt;

use relugrad::loss::TargetKind;
use serde::{Deserialize, Serialize};

/// How good predictions of some samples are. Means over samples with weights `w` are `Σ w φ / Σ w`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Mean loss.
    pub loss: f64,
    /// What is told besides.
    #[serde(flatten)]
    pub quality: Quality,
}

/// How good predictions are in the units of the task.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Quality {
    /// Of classes.
    Classes {
        /// Share of samples whose class is predicted; in `[0, 1]`.
        accuracy: f64,
    },
    /// Of values.
    Values {
        /// Mean of `(f_k − y_k)²` over samples and the `K` values of each.
        mse: f64,
        /// `1 − Σ ‖f − y‖² / Σ ‖y − ȳ‖²` with the mean `ȳ` of these samples: 1 is perfect, 0 no
        /// better than always saying `ȳ`. Where all `y` are equal it is 1 for a perfect prediction
        /// and else 0.
        r2: f64,
    },
}

impl Score {
    /// Its numbers with the names that logs have for them, the loss first.
    pub fn metrics(&self) -> Vec<(&'static str, f64)> {
        [vec![("loss", self.loss)], self.quality.metrics()].concat()
    }

    /// That of no sample.
    pub(crate) fn none(kind: TargetKind) -> Score {
        let quality = match kind {
            TargetKind::Values => Quality::Values { mse: 0.0, r2: 0.0 },
            TargetKind::Classes | TargetKind::Probabilities => Quality::Classes { accuracy: 0.0 },
        };
        Score { loss: 0.0, quality }
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.quality {
            Quality::Classes { .. } => write!(f, "{}, loss {:.4}", self.quality, self.loss),
            Quality::Values { .. } => write!(f, "{}, loss {:.4e}", self.quality, self.loss),
        }
    }
}

impl Quality {
    /// The accuracy, if it is of classes.
    pub fn accuracy(&self) -> Option<f64> {
        match self {
            Quality::Classes { accuracy } => Some(*accuracy),
            Quality::Values { .. } => None,
        }
    }

    /// The mean squared error, if it is of values.
    pub fn mse(&self) -> Option<f64> {
        match self {
            Quality::Classes { .. } => None,
            Quality::Values { mse, .. } => Some(*mse),
        }
    }

    /// The number that matters most: accuracy, or mean squared error.
    pub fn headline(&self) -> f64 {
        match self {
            Quality::Classes { accuracy } => *accuracy,
            Quality::Values { mse, .. } => *mse,
        }
    }

    /// Its numbers with the names that logs have for them.
    pub fn metrics(&self) -> Vec<(&'static str, f64)> {
        match *self {
            Quality::Classes { accuracy } => vec![("accuracy", accuracy)],
            Quality::Values { mse, r2 } => vec![("mse", mse), ("r2", r2)],
        }
    }
}

impl fmt::Display for Quality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Quality::Classes { accuracy } => write!(f, "accuracy {:.2} %", 100.0 * accuracy),
            Quality::Values { mse, r2 } => write!(f, "MSE {mse:.4e}, R² {r2:.4}"),
        }
    }
}
