//! `relugrad verify`.

mod arguments;
mod formulas;
mod table;

use anyhow::anyhow;
use indicatif::ProgressBar;
use relugrad::{Loss, Network, Scalar};
use relugrad_train::evaluate::Samples;
use relugrad_train::verify::{Choices, Report, Verdict, verify_while};
use relugrad_train::{Error, loss_for};
use serde_json::json;

pub(crate) use arguments::Arguments;

use crate::failure::Failure;
use crate::progress::bar;
use crate::values::Precision;
use crate::waiting::Waiting;
use crate::{interrupt, print};

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let threads = arguments.threads.start()?;
    let (network, data) = arguments.data.load(&arguments.model, false)?;
    let samples: Samples<f64> = Samples::new(&data).first(arguments.samples);
    let loss = loss_for(&network, &data, arguments.loss.given()?)?;
    threads.run(|| arguments.data.hint(&network, &data))?;
    if !arguments.formulas.is_empty() {
        return threads.run(|| formulas::run(&network, &samples, loss, arguments));
    }
    interrupt::keep();
    let bar = Checked {
        bar: bar("{pos}/{len} samples  {eta} left  {msg}"),
        waiting: Waiting::beside_a_bar("verifying"),
        samples: samples.len() * arguments.dtype.len(),
    };
    bar.bar.set_length(bar.samples as u64);
    let mut reports = Vec::new();
    for precision in &arguments.dtype {
        if !interrupt::go_on() {
            break;
        }
        let report = threads.run(|| match precision {
            Precision::F64 => verified(&network, &samples, loss, arguments, &bar),
            Precision::F32 => {
                let network = network.cast::<f32>().map_err(Error::Engine)?;
                verified(&network, &samples.cast(), loss, arguments, &bar)
            }
        });
        match report {
            Ok(report) => reports.push(report),
            Err(Error::Engine(relugrad::Error::Stopped)) => break,
            Err(error) => return Err(error.into()),
        }
    }
    bar.bar.finish_and_clear();
    drop(bar);
    if reports.is_empty() {
        return Err(Failure::nothing_finished());
    }
    let complete = reports.len() == arguments.dtype.len();
    let complete = complete && reports.iter().all(|report| report.complete);
    show(arguments, &reports, complete);
    outcome(&reports, complete)
}

/// How many samples are checked.
struct Checked {
    bar: ProgressBar,
    waiting: Option<Waiting>,
    samples: usize,
}

impl Checked {
    fn one_more(&self, precision: &str) {
        self.bar.inc(1);
        if let Some(waiting) = &self.waiting {
            let (done, all) = (self.bar.position(), self.samples);
            waiting.set(format!("verifying in {precision}: {done} of {all} samples"));
        }
    }
}

fn verified<T: Scalar>(
    network: &Network<T>,
    samples: &Samples<T>,
    loss: Loss,
    arguments: &Arguments,
    bar: &Checked,
) -> relugrad_train::Result<Report> {
    let choices = Choices {
        seed: arguments.seed,
        cure_step: arguments.cure_step,
        loss: Some(loss),
    };
    bar.bar.set_message(T::NAME);
    let (progress, go_on) = (|| bar.one_more(T::NAME), &interrupt::go_on);
    verify_while(network, network, samples, &choices, &progress, go_on)
}

fn show(arguments: &Arguments, reports: &[Report], complete: bool) {
    if arguments.json {
        let model = arguments.model.path().display().to_string();
        let holds = reports.iter().all(Report::holds);
        let count = |verdict| -> usize { reports.iter().map(|report| report.count(verdict)).sum() };
        return print::line(json!({
            "model": model,
            "complete": complete,
            "holds": holds,
            "statements_hold": count(Verdict::Holds),
            "statements_fail": count(Verdict::Fails),
            "statements_not_checked": count(Verdict::NotChecked),
            "reports": reports,
        }));
    }
    for report in reports {
        print::line(format_args!("{}\n", table::text(report)));
    }
}

fn outcome(reports: &[Report], complete: bool) -> Result<(), Failure> {
    let outcomes = reports.iter().flat_map(|report| &report.outcomes);
    let fails = outcomes
        .filter(|outcome| outcome.verdict == Verdict::Fails)
        .count();
    if fails > 0 {
        return Err(Failure::Failed(anyhow!(
            "{fails} statements do not hold; the derivatives do not belong to this model, or a tolerance is too \
             narrow for it"
        )));
    }
    match complete {
        true => Ok(()),
        false => Err(Failure::Interrupted(
            "the samples that are finished are shown".into(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use relugrad::Mlp;
    use relugrad_train::data::digits;
    use relugrad_train::verify::verify;

    /// Reports of a network against the derivatives of another.
    fn report(claims: u64) -> Report {
        let network = |seed| Mlp::new(&[64, 8, 10]).build::<f64>(seed).unwrap();
        let samples = Samples::new(&digits()).first(5);
        let (network, claims) = (network(0), network(claims));
        verify(&network, &claims, &samples, &Choices::default(), || true).unwrap()
    }

    #[test]
    fn a_statement_that_fails_is_a_failure() {
        assert!(outcome(&[report(0)], true).is_ok());
        let reports = [report(0), report(1)];
        assert!(matches!(outcome(&reports, true), Err(Failure::Failed(_))));
        assert!(table::text(&reports[1]).contains("FAILS (sample "));
    }

    #[test]
    fn an_incomplete_report_is_an_interruption() {
        let incomplete = Report {
            complete: false,
            ..report(0)
        };
        assert!(table::text(&incomplete).contains("interrupted"));
        assert!(matches!(
            outcome(&[incomplete], false),
            Err(Failure::Interrupted(_))
        ));
    }
}
