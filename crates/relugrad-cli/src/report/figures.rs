//! The figures of a report: which numbers go into which chart.

use anyhow::Result;
use relugrad_train::attack::Norm;
use relugrad_train::compare::{Comparison, Run, ShownAttack};

use super::charts::{Chart, Series};
use super::html::escape;
use super::summary::{Group, predictors};
use super::table::{attack_name, penalty_names};

/// Clean accuracy against accuracy under each attack of the table: a point for every regularizer and weight, the weights
/// of a regularizer joined.
pub(super) fn pareto_charts(
    comparison: &Comparison,
    groups: &[Group],
    names: &[&str],
) -> Result<Vec<(String, String)>> {
    let mut charts = Vec::new();
    let attacks = comparison.settings.attacks.iter().enumerate();
    for (i, attack) in attacks.filter(|(_, attack)| attack.headline) {
        let point = |group: &Group| {
            let robust = group.statistic(|run| run.evaluation.robust_accuracy[i]);
            let clean = group.statistic(|run| run.evaluation.attacked_clean_accuracy);
            (100.0 * robust.mean, 100.0 * clean.mean)
        };
        let series = names.iter().enumerate().map(|(style, name)| {
            let mut same: Vec<&Group> = groups.iter().filter(|g| g.regularizer == *name).collect();
            same.sort_by(|a, b| a.lambda.total_cmp(&b.lambda));
            Series {
                style,
                points: same.into_iter().map(point).collect(),
            }
        });
        let chart = Chart {
            x: format!("accuracy under {}, %", attack_name(attack)),
            y: "clean accuracy, %".into(),
            logarithmic: (false, false),
            lines: true,
            series: series.collect(),
        };
        let caption = format!("{}.", escape(&attack_name(attack)));
        charts.extend(chart.svg()?.map(|svg| (caption, svg)));
    }
    Ok(charts)
}

/// Every measured penalty against the accuracy under the first attack of the table, a point for every run.
pub(super) fn prediction_charts(
    comparison: &Comparison,
    groups: &[Group],
    names: &[&str],
) -> Result<Vec<(String, String)>> {
    let attacks = &comparison.settings.attacks;
    let Some(attack) = attacks.iter().position(|attack| attack.headline) else {
        return Ok(Vec::new());
    };
    let penalties = penalty_names(comparison);
    let mut charts = Vec::new();
    for (name, rho) in predictors(comparison, attack) {
        let place = penalties.iter().position(|other| *other == name);
        let place = place.expect("predictors are measured penalties");
        let point = |run: &&Run| {
            let evaluation = &run.evaluation;
            let robust = 100.0 * evaluation.robust_accuracy[attack];
            (evaluation.penalties[place].mean, robust)
        };
        let series = names.iter().enumerate().map(|(style, name)| {
            let same = groups.iter().filter(|group| group.regularizer == *name);
            Series {
                style,
                points: same
                    .flat_map(|group| group.runs.iter().map(point))
                    .collect(),
            }
        });
        let chart = Chart {
            x: name.clone(),
            y: format!("accuracy under {}, %", attack_name(&attacks[attack])),
            logarithmic: (true, false),
            lines: false,
            series: series.collect(),
        };
        let caption = format!("{}: rank correlation {rho:.2}.", escape(&name));
        charts.extend(chart.svg()?.map(|svg| (caption, svg)));
    }
    Ok(charts)
}

/// A chart for each kind of attack, with its caption: accuracy against ε.
pub(super) fn attack_charts(
    comparison: &Comparison,
    groups: &[&Group],
) -> Result<Vec<(String, String)>> {
    let attacks = &comparison.settings.attacks;
    let mut kinds: Vec<(&str, Norm)> = Vec::new();
    for attack in attacks {
        let kind = (attack.attack.name.as_str(), attack.attack.options.norm);
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    let mut charts = Vec::new();
    for (name, norm) in kinds {
        let of_kind =
            |shown: &ShownAttack| shown.attack.name == name && shown.attack.options.norm == norm;
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
                points.push((attack.attack.options.epsilon, 100.0 * robust));
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
        let norm = match norm {
            Norm::L1 => "in the sum over all pixels (ℓ1)",
            Norm::Linf => "in every pixel (ℓ∞)",
            Norm::L2 => "in Euclidean length (ℓ2)",
        };
        let caption = format!("{} with changes of at most ε {norm}.", escape(name));
        charts.extend(chart.svg()?.map(|svg| (caption, svg)));
    }
    Ok(charts)
}

/// Metrics of every epoch, with captions.
pub(super) fn training_charts(groups: &[&Group]) -> Result<Vec<(String, String)>> {
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
    regularizers: &[&str],
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
        let series = regularizers.iter().enumerate().map(|(style, name)| {
            let same = groups.iter().filter(|group| group.regularizer == *name);
            Series {
                style,
                points: same
                    .flat_map(|group| group.runs.iter().map(point))
                    .collect(),
            }
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
