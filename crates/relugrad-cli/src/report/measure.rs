//! In which numbers a comparison tells how good predictions are.

use relugrad_train::compare::{Comparison, Measures, Run};

use super::summary::{Group, Statistic};

/// How good predictions are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    /// Accuracy in percent, of classes.
    Accuracy,
    /// Mean squared error, of values.
    Error,
}

impl Measure {
    pub(super) fn of(comparison: &Comparison) -> Measure {
        match comparison.settings.regression {
            true => Measure::Error,
            false => Measure::Accuracy,
        }
    }

    /// In a sentence.
    pub(super) fn name(self) -> &'static str {
        match self {
            Measure::Accuracy => "accuracy",
            Measure::Error => "error",
        }
    }

    /// The heading of a column, such as `clean %`.
    pub(super) fn heading(self, what: &str) -> String {
        match self {
            Measure::Accuracy => format!("{what} %"),
            Measure::Error => format!("{what} MSE"),
        }
    }

    /// The name of an axis, such as `clean accuracy, %`; `place` is as in `under PGD`.
    pub(super) fn axis(self, before: &str, place: &str) -> String {
        match self {
            Measure::Accuracy => format!("{before}accuracy{place}, %"),
            Measure::Error => format!("{before}mean squared error{place}"),
        }
    }

    /// A number as it is shown.
    pub(super) fn shown(self, value: f64) -> f64 {
        match self {
            Measure::Accuracy => 100.0 * value,
            Measure::Error => value,
        }
    }

    /// Whether one number is better than another.
    pub(super) fn is_better(self, one: f64, other: f64) -> bool {
        match self {
            Measure::Accuracy => one > other,
            Measure::Error => one < other,
        }
    }

    pub(super) fn clean(self, run: &Run) -> f64 {
        self.shown(run.evaluation.quality.clean())
    }

    pub(super) fn attacked_clean(self, run: &Run) -> f64 {
        self.shown(run.evaluation.quality.attacked_clean())
    }

    /// Under one of the attacks.
    pub(super) fn robust(self, run: &Run, attack: usize) -> f64 {
        self.shown(run.evaluation.quality.robust()[attack])
    }

    /// On the test samples after an epoch.
    pub(super) fn test(self, run: &Run, epoch: usize) -> f64 {
        let score = run.curve[epoch].validation;
        score.map_or(f64::NAN, |score| self.shown(score.quality.headline()))
    }

    /// The mean of `R²` over a group's runs, of values.
    pub(super) fn r2(self, group: &Group) -> Option<Statistic> {
        let r2 = |run: &Run| match run.evaluation.quality {
            Measures::Classes { .. } => f64::NAN,
            Measures::Values { clean_r2, .. } => clean_r2,
        };
        (self == Measure::Error).then(|| group.statistic(r2))
    }
}
