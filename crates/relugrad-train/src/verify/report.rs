//! What a verification found.

use serde::Serialize;

use super::statements::Check;

/// All statements in one precision.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// `f32` or `f64`.
    pub precision: &'static str,
    /// Number of samples that were looked at.
    pub samples: usize,
    /// Whether these are all.
    pub complete: bool,
    /// Samples that were moved a little, off a tie of maxima.
    pub moved: usize,
    /// Samples with a pre-activation that is 0, or would be but for rounding. Statements about the
    /// region reject them.
    pub on_kink: usize,
    /// Samples whose likeliest class is certain to rounding: `1 − p < ε`.
    pub saturated: usize,
    /// One for each statement, in a fixed order.
    pub outcomes: Vec<Outcome>,
}

impl Report {
    /// Whether every statement that is about this network was checked and holds.
    ///
    /// A statement that says nothing about the network, such as one on two logits about a network
    /// of ten, does not count; one whose hypotheses hold at no sample does.
    pub fn holds(&self) -> bool {
        let holds = |outcome: &Outcome| !outcome.applies || outcome.verdict == Verdict::Holds;
        self.outcomes.iter().all(holds)
    }

    /// How many statements have a verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        let outcomes = self.outcomes.iter();
        outcomes
            .filter(|outcome| outcome.verdict == verdict)
            .count()
    }
}

/// One statement.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Its number in [theory](https://docs.rs/relugrad/latest/relugrad/theory/).
    pub theorem: &'static str,
    /// What it says.
    pub statement: &'static str,
    /// Samples at which it was checked.
    pub cases: usize,
    /// Samples at which its hypotheses do not hold, or only to rounding.
    pub rejected: usize,
    /// The largest residual, relative to the size of what is compared; infinite if a number is NaN
    /// (`null` in JSON).
    pub worst: f64,
    /// The median residual.
    pub median: f64,
    /// The sample with the largest residual.
    pub worst_sample: Option<usize>,
    /// What rounding explains.
    pub tolerance: f64,
    /// Whether it holds.
    pub verdict: Verdict,
    /// Whether it is about this network.
    pub applies: bool,
    /// Why it was not checked, if it was not.
    pub reason: Option<&'static str>,
}

/// Whether a statement holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// No residual exceeds the tolerance.
    Holds,
    /// One does.
    Fails,
    /// It was checked at no sample: it says nothing about this network, or its hypotheses hold at
    /// none of them.
    NotChecked,
}

impl Outcome {
    /// A statement that says nothing about the network.
    pub(super) fn not_about(
        theorem: &'static str,
        statement: &'static str,
        tolerance: f64,
        reason: &'static str,
    ) -> Outcome {
        Outcome {
            theorem,
            statement,
            cases: 0,
            rejected: 0,
            worst: 0.0,
            median: 0.0,
            worst_sample: None,
            tolerance,
            verdict: Verdict::NotChecked,
            applies: false,
            reason: Some(reason),
        }
    }
}

/// The checks of one statement.
#[derive(Default)]
pub(super) struct Tally {
    residuals: Vec<(f64, usize)>,
    rejected: usize,
}

impl Tally {
    pub(super) fn add(&mut self, sample: usize, check: &Check) {
        match check {
            Check::Residual(residual) => self.residuals.push((*residual, sample)),
            Check::Rejected => self.rejected += 1,
        }
    }

    pub(super) fn outcome(
        mut self,
        theorem: &'static str,
        statement: &'static str,
        tolerance: f64,
    ) -> Outcome {
        self.residuals.sort_by(|a, b| a.0.total_cmp(&b.0));
        let reason = "its hypotheses hold at no sample, or only to rounding";
        let not_checked = Outcome {
            rejected: self.rejected,
            applies: true,
            ..Outcome::not_about(theorem, statement, tolerance, reason)
        };
        let Some(&(worst, sample)) = self.residuals.last() else {
            return not_checked;
        };
        Outcome {
            cases: self.residuals.len(),
            worst,
            median: self.residuals[self.residuals.len() / 2].0,
            worst_sample: Some(sample),
            verdict: if worst <= tolerance {
                Verdict::Holds
            } else {
                Verdict::Fails
            },
            reason: None,
            ..not_checked
        }
    }
}
