//! The table of a verification.

use relugrad_train::verify::{Outcome, Report, Verdict};

use crate::table::table;

const HEADINGS: [&str; 7] = ["", "statement", "cases", "worst", "median", "allowed", ""];

/// A title, a line for each statement, and warnings.
pub(super) fn text(report: &Report) -> String {
    let mut lines = vec![format!("{}, {} samples", report.precision, report.samples)];
    let rows = report.outcomes.iter().map(row);
    lines.push(table(HEADINGS, rows, 1, |column| (2..6).contains(&column)));
    lines.push(total(report));
    lines.extend(warnings(report));
    lines.join("\n")
}

fn row(outcome: &Outcome) -> Vec<String> {
    let number = |value: f64| match outcome.cases {
        0 => String::new(),
        _ => format!("{value:.1e}"),
    };
    let sample = outcome.worst_sample.unwrap_or_default();
    let verdict = match outcome.verdict {
        Verdict::Holds => "holds".to_owned(),
        Verdict::Fails => format!("FAILS (sample {sample})"),
        Verdict::NotChecked => format!("not checked: {}", outcome.reason.unwrap_or_default()),
    };
    vec![
        outcome.theorem.to_owned(),
        outcome.statement.to_owned(),
        outcome.cases.to_string(),
        number(outcome.worst),
        number(outcome.median),
        number(outcome.tolerance),
        verdict,
    ]
}

/// How many statements hold, fail, and were not checked.
fn total(report: &Report) -> String {
    let all = report.outcomes.len();
    let [holds, fails, not_checked] =
        [Verdict::Holds, Verdict::Fails, Verdict::NotChecked].map(|verdict| report.count(verdict));
    let mut line = format!("{holds} of {all} statements hold");
    for (count, what) in [(fails, "fail"), (not_checked, "not checked")] {
        if count > 0 {
            line += &format!(", {count} {what}");
        }
    }
    let unmet = report.outcomes.iter();
    let unmet = unmet.filter(|o| o.applies && o.verdict == Verdict::NotChecked);
    match unmet.count() {
        0 => line,
        count => format!("{line} ({count} of them about this network)"),
    }
}

fn warnings(report: &Report) -> Vec<String> {
    let mut warnings = Vec::new();
    if report.moved > 0 {
        warnings.push(format!(
            "note: {} of {} samples had ties of maxima, and were checked at a point beside them: each number moved at \
             random, by 1e-4 of the largest or, if that does not do, 1e-3 or 1e-2",
            report.moved, report.samples
        ));
    }
    if report.on_kink > 0 {
        warnings.push(format!(
            "warning: {} of {} samples are on a kink, to rounding; statements about the region leave them out",
            report.on_kink, report.samples
        ));
    }
    if report.saturated > 0 {
        warnings.push(format!(
            "warning: {} of {} samples are saturated, 1 − p < ε; their gradients and curvatures are tiny",
            report.saturated, report.samples
        ));
    }
    if !report.complete {
        warnings.push("warning: interrupted; the other samples were not checked".to_owned());
    }
    warnings
}
