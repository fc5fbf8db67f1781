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
    /// Samples with a pre-activation that is 0, or would be but for rounding. Statements about the region reject them.
    pub on_kink: usize,
    /// Samples whose likeliest class is certain to rounding: `1 − p < ε`.
    pub saturated: usize,
    /// One for each statement, in a fixed order.
    pub outcomes: Vec<Outcome>,
}

impl Report {
    /// Whether no statement failed.
    pub fn holds(&self) -> bool {
        let fails = |outcome: &Outcome| outcome.verdict == Verdict::Fails;
        !self.outcomes.iter().any(fails)
    }
}

/// One statement.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Its number in `docs/theory.md`.
    pub theorem: &'static str,
    /// What it says.
    pub statement: &'static str,
    /// Samples at which it was checked.
    pub cases: usize,
    /// Samples at which its hypotheses do not hold, or only to rounding.
    pub rejected: usize,
    /// The largest residual, relative to the size of what is compared; infinite if a number is NaN (`null` in JSON).
    pub worst: f64,
    /// The median residual.
    pub median: f64,
    /// The sample with the largest residual.
    pub worst_sample: Option<usize>,
    /// What rounding explains.
    pub tolerance: f64,
    /// Whether it holds.
    pub verdict: Verdict,
    /// Why it was not tested, if it was not.
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
    /// It says nothing about this network or these samples.
    Untested,
}

impl Outcome {
    pub(super) fn untested(
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
            verdict: Verdict::Untested,
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
        let untested = Outcome {
            rejected: self.rejected,
            ..Outcome::untested(
                theorem,
                statement,
                tolerance,
                "its hypotheses hold at no sample",
            )
        };
        let Some(&(worst, sample)) = self.residuals.last() else {
            return untested;
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
            ..untested
        }
    }
}
