//! `curves.csv`: the metrics of every epoch of every run.

use anyhow::Result;
use relugrad_train::EpochReport;
use relugrad_train::compare::Comparison;

/// One line for each run and epoch, those that diverged last.
pub(super) fn csv(comparison: &Comparison) -> Result<String> {
    let finished = comparison.runs.iter();
    let finished = finished.map(|run| (&run.regularizer, run.lambda, run.seed, &run.curve));
    let diverged = comparison.diverged.iter();
    let diverged = diverged.map(|run| (&run.regularizer, run.lambda, run.seed, &run.curve));
    let metrics: &[&str] = match comparison.settings.regression {
        true => &["loss", "mse", "r2"],
        false => &["loss", "accuracy"],
    };
    let mut csv = csv::Writer::from_writer(Vec::new());
    let mut heading = ["regularizer", "lambda", "seed", "epoch"]
        .map(str::to_owned)
        .to_vec();
    heading.extend(metrics.iter().map(|name| format!("train_{name}")));
    heading.push("train_penalty".to_owned());
    heading.extend(metrics.iter().map(|name| format!("test_{name}")));
    csv.write_record(heading)?;
    for (regularizer, lambda, seed, curve) in finished.chain(diverged) {
        for epoch in curve {
            let mut cells = vec![regularizer.clone(), lambda.to_string(), seed.to_string()];
            cells.extend(numbers(epoch));
            csv.write_record(cells)?;
        }
    }
    Ok(String::from_utf8(csv.into_inner()?)?)
}

/// The numbers of an epoch, its own the first.
fn numbers(epoch: &EpochReport) -> Vec<String> {
    let train = epoch.train.metrics();
    let test = epoch
        .validation
        .map_or_else(Vec::new, |score| score.metrics());
    let mut numbers = vec![epoch.epoch.to_string()];
    numbers.extend(train.iter().map(|(_, value)| value.to_string()));
    numbers.push(penalty(epoch).to_string());
    numbers.extend(test.iter().map(|(_, value)| value.to_string()));
    numbers
}

/// The trained penalty before its weight; 0 for plain training.
pub(super) fn penalty(epoch: &EpochReport) -> f64 {
    // The sum of none is −0.
    epoch.train_penalties.iter().sum::<f64>() + 0.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn a_line_for_each_run_and_epoch() {
        let csv = csv(&fixture::comparison(&[0])).unwrap();
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!(lines.len(), 5);
        assert_eq!(
            lines[0],
            "regularizer,lambda,seed,epoch,train_loss,train_accuracy,train_penalty,test_loss,test_accuracy"
        );
        let mut comparison = fixture::comparison(&[0]);
        fixture::diverge(&mut comparison, 0);
        let csv = super::csv(&comparison).unwrap();
        assert_eq!(csv.lines().last(), Some("none,0,0,1,1,0.5,0,1.25,0.75"));
        assert_eq!(csv.lines().count(), 4);
        assert_eq!(lines[4], "jacobian,0.01,0,2,0.5,0.5,0.0625,0.625,0.875");
        let csv = super::csv(&fixture::regression(&[0])).unwrap();
        assert!(csv.starts_with(
            "regularizer,lambda,seed,epoch,train_loss,train_mse,train_r2,train_penalty,"
        ));
        assert_eq!(
            csv.lines().nth(1),
            Some("none,0,0,1,1,0.5,0.5,0,1.25,0.75,0.25")
        );
    }
}
