//! `relugrad verify --formula`.

use anyhow::anyhow;
use relugrad::{Loss, Network};
use relugrad_train::evaluate::Samples;
use relugrad_train::verify::{PenaltyReport, find, verify_penalty};
use serde_json::json;

use super::Arguments;
use crate::failure::Failure;
use crate::print;

/// Checks each formula at the samples, and finds out what holds of it.
pub(super) fn run(
    network: &Network<f64>,
    samples: &Samples<f64>,
    loss: Loss,
    arguments: &Arguments,
) -> Result<(), Failure> {
    let mut reports = Vec::new();
    for written in arguments.formulas.all()? {
        let penalty = written.penalty();
        let report = verify_penalty(network, &penalty, &loss, samples, arguments.seed)?;
        let found = find(network, &penalty, &loss, samples, arguments.seed)?;
        let sees = written.formula.sees();
        match arguments.json {
            true => print::line(json!({
                "formula": report.penalty,
                "sees": sees,
                "holds": !fails(&report),
                "checks": report.checks,
                "findings": found.findings,
            })),
            false => print::line(format_args!("{report}  sees        the {sees}\n{found}")),
        }
        reports.push(report);
    }
    match reports.iter().filter(|report| fails(report)).count() {
        0 => Ok(()),
        count => Err(Failure::Failed(anyhow!(
            "{count} of {} formulas have a gradient or a form that does not agree with their values",
            reports.len()
        ))),
    }
}

/// Whether a statement was refuted; one that could not be checked was not.
fn fails(report: &PenaltyReport) -> bool {
    let mut checks = report.checks.iter();
    checks.any(|check| check.samples > 0 && !check.holds())
}
