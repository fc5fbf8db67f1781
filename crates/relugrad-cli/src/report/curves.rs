//! `curves.csv`: the metrics of every epoch of every run.

use std::fmt::Write;

use relugrad_train::compare::Comparison;

const HEADER: &str =
    "regularizer,lambda,seed,epoch,train_loss,train_accuracy,train_penalty,test_loss,test_accuracy";

/// One line for each run and epoch, those that diverged last. Names of regularizers hold no character that needs quoting.
pub(super) fn csv(comparison: &Comparison) -> String {
    let finished = comparison.runs.iter();
    let finished = finished.map(|run| (&run.regularizer, run.lambda, run.seed, &run.curve));
    let diverged = comparison.diverged.iter();
    let diverged = diverged.map(|run| (&run.regularizer, run.lambda, run.seed, &run.curve));
    let mut csv = format!("{HEADER}\n");
    for (regularizer, lambda, seed, curve) in finished.chain(diverged) {
        for epoch in curve {
            writeln!(
                csv,
                "{regularizer},{lambda},{seed},{},{},{},{},{},{}",
                epoch.epoch,
                epoch.train_loss,
                epoch.train_accuracy,
                epoch.train_penalty,
                epoch.test_loss,
                epoch.test_accuracy,
            )
            .expect("a String takes all");
        }
    }
    csv
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn a_line_for_each_run_and_epoch() {
        let csv = csv(&fixture::comparison(&[0]));
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!(lines.len(), 5);
        assert_eq!(lines[0], HEADER);
        let mut comparison = fixture::comparison(&[0]);
        fixture::diverge(&mut comparison, 0);
        let csv = super::csv(&comparison);
        assert_eq!(csv.lines().last(), Some("none,0,0,1,1,0.5,0,1.25,0.75"));
        assert_eq!(csv.lines().count(), 4);
        assert_eq!(lines[4], "jacobian,0.01,0,2,0.5,0.5,0.0625,0.625,0.875");
    }
}
