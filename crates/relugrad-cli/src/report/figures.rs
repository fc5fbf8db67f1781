//! The figures of a report: which numbers go into which chart.

use anyhow::Result;
use relugrad_train::compare::{AttackSettings, Comparison, Run};

use super::charts::{Chart, Series};
use super::html::escape;
use super::summary::Group;
use super::table::penalty_names;

/// A chart for each kind of attack, with its caption: accuracy against ε.
pub(super) fn attack_charts(
    comparison: &Comparison,
    groups: &[Group],
) -> Result<Vec<(String, String)>> {
    let attacks = &comparison.settings.attacks;
    let mut kinds: Vec<(&str, &str)> = Vec::new();
    for attack in attacks {
        let kind = (attack.name.as_str(), attack.norm.as_str());
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    let mut charts = Vec::new();
    for (name, norm) in kinds {
        let of_kind = |attack: &AttackSettings| attack.name == name && attack.norm == norm;
        let series = groups.iter().enumerate().map(|(style, group)| {
            let clean = group
                .statistic(|run| run.evaluation.attacked_clean_accuracy)
                .mean;
            let mut points = vec![(0.0, 100.0 * clean)];
            for (i, attack) in attacks
                .iter()
                .enumerate()
                .filter(|(_, attack)| of_kind(attack))
            {
                let robust = group
                    .statistic(|run| run.evaluation.robust_accuracy[i])
                    .mean;
                points.push((attack.epsilon, 100.0 * robust));
            }
            Series { style, points }
        });
        let chart = Chart {
            x: "ε".into(),
            y: "accuracy, %".into(),
            logarithmic: (false, false),
            lines: true,
            series: series.collect(),
        };
        let norm = if norm == "linf" {
            "in every pixel (ℓ∞)"
        } else {
            "in Euclidean length (ℓ2)"
        };
        let caption = format!("{} with changes of at most ε {norm}.", escape(name));
        charts.extend(chart.svg()?.map(|svg| (caption, svg)));
    }
    Ok(charts)
}

/// Metrics of every epoch, with captions.
pub(super) fn training_charts(groups: &[Group]) -> Result<Vec<(String, String)>> {
    type Metric = fn(&Run, usize) -> f64;
    let relative: Metric = |run, i| run.curve[i].train_penalty / run.curve[0].train_penalty;
    let kinds: [(&str, bool, Metric, &str); 3] = [
        (
            "accuracy, %",
            false,
            |run, i| 100.0 * run.curve[i].test_accuracy,
            "Test accuracy.",
        ),
        (
            "loss",
            true,
            |run, i| run.curve[i].test_loss,
            "Test loss (cross-entropy).",
        ),
        (
            "penalty / first epoch",
            true,
            relative,
            "The trained penalty, relative to the first epoch.",
        ),
    ];
    let mut charts = Vec::new();
    for (y, logarithmic, metric, caption) in kinds {
        let series = groups.iter().enumerate().map(|(style, group)| Series {
            style,
            points: group.curve(metric),
        });
        let chart = Chart {
            x: "epoch".into(),
            y: y.into(),
            logarithmic: (false, logarithmic),
            lines: true,
            series: series.collect(),
        };
        charts.extend(chart.svg()?.map(|svg| (caption.to_owned(), svg)));
    }
    Ok(charts)
}

/// Every other penalty against the Jacobian penalty, or the first one.
pub(super) fn penalty_charts(
    comparison: &Comparison,
    groups: &[Group],
) -> Result<Vec<(String, String)>> {
    let names = penalty_names(comparison);
    let reference = names
        .iter()
        .position(|name| name == "jacobian")
        .unwrap_or(0);
    let mut charts = Vec::new();
    for other in (0..names.len()).filter(|&i| i != reference) {
        let point = |run: &&Run| {
            let mean = |i: usize| run.evaluation.penalties[i].mean;
            (mean(reference), mean(other))
        };
        let series = groups.iter().enumerate().map(|(style, group)| Series {
            style,
            points: group.runs.iter().map(point).collect(),
        });
        let chart = Chart {
            x: names[reference].clone(),
            y: names[other].clone(),
            logarithmic: (true, true),
            lines: false,
            series: series.collect(),
        };
        let caption = format!(
            "{} against {}.",
            escape(&names[other]),
            escape(&names[reference])
        );
        charts.extend(chart.svg()?.map(|svg| (caption, svg)));
    }
    Ok(charts)
}
