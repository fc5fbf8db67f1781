//! What an evaluation prints.

use std::fmt::Write;

use relugrad_train::attack::Norm;
use relugrad_train::robustness::{Attacked, Report, Standing, WORST};

use crate::report::short;
use crate::table::table;

/// A table of the attacks in one norm and size each, certificates, and what else was found.
pub(super) fn text(report: &Report) -> String {
    let mut text = format!(
        "{}: {} of {} samples, loss {}{}\nattacked: {}, of which {} before the attacks\n{}",
        report.data,
        standing(&report.clean),
        report.clean.samples(),
        short(report.loss),
        match &report.bounds {
            None => String::new(),
            Some(bounds) => format!("; box of the attacks: {bounds}"),
        },
        report.attacked_clean.samples(),
        standing(&report.attacked_clean).trim_start_matches("accuracy "),
        attacks(report),
    );
    let mut line = |line: String| writeln!(text, "{line}").expect("a String takes all");
    for (norm, mean, count) in &report.deepfool {
        line(format!(
            "DeepFool in {}: mean relative perturbation {} over {count} samples",
            norm.name(),
            short(*mean)
        ));
    }
    for (norm, median) in &report.median_certified {
        line(format!(
            "median certified radius in {}: {}",
            norm.name(),
            short(*median)
        ));
    }
    let d = &report.diagnosis;
    line(format!(
        "input gradients: {} exactly 0, {} vanishing, of {} (dead paths {}, {} {}, flat regions {})",
        d.zero,
        d.vanishing,
        d.samples,
        d.dead,
        match report.clean {
            Standing::Share(_) => "saturated softmax",
            Standing::Fit(_) => "perfect predictions",
        },
        d.saturated,
        d.flat
    ));
    for (name, mean) in &report.penalties {
        line(format!("mean of {name}: {}", short(*mean)));
    }
    for reason in &report.left_out {
        line(format!("left out: {reason}"));
    }
    for warning in &report.warnings {
        line(format!("warning: {warning}"));
    }
    text.trim_end().to_owned()
}

fn standing(standing: &Standing) -> String {
    match standing {
        Standing::Share(share) => {
            let [low, high] = share.interval.map(|bound| 100.0 * bound);
            format!(
                "accuracy {:.2} % ({low:.1} to {high:.1})",
                100.0 * share.share
            )
        }
        Standing::Fit(fit) => format!("MSE {}, R² {:.4}", short(fit.mse), fit.r2),
    }
}

/// The headings of a standing, and its cells.
fn measured(standing: &Standing) -> Vec<(&'static str, String)> {
    match standing {
        Standing::Share(share) => {
            let bounds = share.interval.map(|bound| 100.0 * bound);
            vec![
                ("accuracy %", format!("{:.2}", 100.0 * share.share)),
                (
                    "95 % interval",
                    format!("{:.1} to {:.1}", bounds[0], bounds[1]),
                ),
            ]
        }
        Standing::Fit(fit) => vec![
            ("MSE", short(fit.mse)),
            ("R²", format!("{:.4}", fit.r2)),
            ("loss", short(fit.loss)),
        ],
    }
}

/// Headings and rows of the table of attacks.
pub(super) fn cells(report: &Report) -> (Vec<String>, Vec<Vec<String>>) {
    let headings = ["norm", "size", "attack", "steps", "step", "starts", "seed"];
    let measures = measured(&report.clean)
        .into_iter()
        .map(|(heading, _)| heading);
    let headings = headings.into_iter().chain(measures).map(str::to_owned);
    let values = |standing: &Standing| measured(standing).into_iter().map(|(_, cell)| cell);
    let row = |attacked: &Attacked| {
        let (name, a) = (&attacked.attack.name, attacked.attack.options);
        let worst = name == WORST;
        let unless_worst = |text: String| if worst { String::new() } else { text };
        let mut row = vec![
            a.norm.name().to_owned(),
            a.epsilon.to_string(),
            name.clone(),
            unless_worst(a.steps.to_string()),
            unless_worst(short(a.step_size)),
            unless_worst(match a.random_start {
                true => a.restarts.to_string(),
                false => "sample".into(),
            }),
            unless_worst(a.seed.to_string()),
        ];
        row.extend(values(&attacked.standing));
        row
    };
    let mut rows = Vec::new();
    for worst in &report.worst {
        let ball = |norm: Norm, size: f64| {
            let options = worst.attack.options;
            (norm, size) == (options.norm, options.epsilon)
        };
        let here = report.attacks.iter();
        rows.extend(
            here.filter(|a| ball(a.attack.options.norm, a.attack.options.epsilon))
                .map(row),
        );
        rows.push(row(worst));
        for (norm, size, share) in &report.certificates {
            if !ball(*norm, *size) {
                continue;
            }
            let mut cells = vec![norm.name().to_owned(), size.to_string(), "certified".into()];
            cells.extend(std::iter::repeat_n(String::new(), 4));
            cells.extend(values(&Standing::Share(*share)));
            rows.push(cells);
        }
    }
    (headings.collect(), rows)
}

/// The table of attacks between empty lines, or nothing without sizes to attack at.
fn attacks(report: &Report) -> String {
    let (headings, rows) = cells(report);
    if rows.is_empty() {
        return String::new();
    }
    let lines = table(headings, rows, 1, |column| column != 0 && column != 2);
    format!("\n{lines}\n\n")
}
