//! The figures of a report: which numbers go into which chart.

use anyhow::Result;
use relugrad_io::printable;
use relugrad_train::attack::Norm;
use relugrad_train::compare::{Comparison, Run, ShownAttack};

use super::charts::{Chart, Series};
use super::curves::penalty;
use super::measure::Measure;
use super::summary::{Group, predictors};
use super::table::{attack_name, penalty_names};

/// Clean accuracy against accuracy under each attack of the table: a point for every regularizer
/// and weight, the weights of a regularizer joined.
pub(super) fn pareto_charts(
    comparison: &Comparison,
    groups: &[Group],
    names: &[&str],
) -> Result<Vec<(String, String)>> {
    let (mut charts, measure) = (Vec::new(), Measure::of(comparison));
    let attacks = comparison.settings.attacks.iter().enumerate();
    for (i, attack) in attacks.filter(|(_, attack)| attack.headline) {
        let point = |group: &Group| {
            let robust = group.statistic(|run| measure.robust(run, i));
            let clean = group.statistic(|run| measure.attacked_clean(run));
            (robust.mean, clean.mean)
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
            x: measure.axis("", &format!(" under {}", attack_name(attack))),
            y: measure.axis("clean ", ""),
            logarithmic: (false, false),
            lines: true,
            series: series.collect(),
        };
        let caption = format!("{}.", printable(&attack_name(attack)));
        charts.extend(chart.svg()?.map(|svg| (caption, svg)));
    }
    Ok(charts)
}

/// A series for each regularizer, with a point for every run.
fn clouds(groups: &[Group], names: &[&str], point: impl Fn(&Run) -> (f64, f64)) -> Vec<Series> {
    let series = names.iter().enumerate().map(|(style, name)| {
        let same = groups.iter().filter(|group| group.regularizer == *name);
        let runs = same.flat_map(|group| &group.runs);
        Series {
            style,
            points: runs.map(|run| point(run)).collect(),
        }
    });
    series.collect()
}

/// Every measured penalty against the accuracy under the first attack of the table, a point for
/// every run.
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
    let (mut charts, measure) = (Vec::new(), Measure::of(comparison));
    for (name, rho) in predictors(comparison, attack) {
        let place = penalties.iter().position(|other| *other == name);
        let place = place.expect("predictors are measured penalties");
        let point = |run: &Run| {
            let penalty = run.evaluation.penalties[place].mean;
            (penalty, measure.robust(run, attack))
        };
        let series = clouds(groups, names, point);
        let chart = Chart {
            x: name.clone(),
            y: measure.axis("", &format!(" under {}", attack_name(&attacks[attack]))),
            logarithmic: (true, false),
            lines: false,
            series,
        };
        let caption = format!("{}: rank correlation {rho:.2}.", printable(&name));
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
    let (mut charts, measure) = (Vec::new(), Measure::of(comparison));
    for (name, norm) in kinds {
        let of_kind =
            |shown: &ShownAttack| shown.attack.name == name && shown.attack.options.norm == norm;
        let series = groups.iter().enumerate().map(|(style, group)| {
            let clean = group.statistic(|run| measure.attacked_clean(run));
            let mut points = vec![(0.0, clean.mean)];
            for (i, attack) in attacks
                .iter()
                .enumerate()
                .filter(|(_, attack)| of_kind(attack))
            {
                let robust = group.statistic(|run| measure.robust(run, i));
                points.push((attack.attack.options.epsilon, robust.mean));
            }
            Series { style, points }
        });
        let chart = Chart {
            x: "ε".into(),
            y: measure.axis("", ""),
            logarithmic: (false, false),
            lines: true,
            series: series.collect(),
        };
        let norm = match norm {
            Norm::L1 => "in the sum over all pixels (ℓ1)",
            Norm::Linf => "in every pixel (ℓ∞)",
            Norm::L2 => "in Euclidean length (ℓ2)",
        };
        let caption = format!("{} with changes of at most ε {norm}.", printable(name));
        charts.extend(chart.svg()?.map(|svg| (caption, svg)));
    }
    Ok(charts)
}

/// Metrics of every epoch, with captions.
pub(super) fn training_charts(
    comparison: &Comparison,
    groups: &[&Group],
) -> Result<Vec<(String, String)>> {
    let measure = Measure::of(comparison);
    let quality = |run: &Run, i: usize| measure.test(run, i);
    let loss = |run: &Run, i: usize| run.curve[i].validation.map_or(f64::NAN, |score| score.loss);
    let relative = |run: &Run, i: usize| penalty(&run.curve[i]) / penalty(&run.curve[0]);
    type Metric<'m> = &'m dyn Fn(&Run, usize) -> f64;
    let kinds: [(String, bool, Metric, String); 3] = [
        (
            measure.axis("", ""),
            measure == Measure::Error,
            &quality,
            format!("Test {}.", measure.name()),
        ),
        (
            "loss".into(),
            true,
            &loss,
            format!("Test loss ({}).", comparison.settings.loss),
        ),
        (
            "penalty / first epoch".into(),
            true,
            &relative,
            "The trained penalty, relative to the first epoch.".into(),
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
            y,
            logarithmic: (false, logarithmic),
            lines: true,
            series: series.collect(),
        };
        charts.extend(chart.svg()?.map(|svg| (caption, svg)));
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
        let point = |run: &Run| {
            let mean = |i: usize| run.evaluation.penalties[i].mean;
            (mean(reference), mean(other))
        };
        let series = clouds(groups, regularizers, point);
        let chart = Chart {
            x: names[reference].clone(),
            y: names[other].clone(),
            logarithmic: (true, true),
            lines: false,
            series,
        };
        let caption = format!(
            "{} against {}.",
            printable(&names[other]),
            printable(&names[reference])
        );
        charts.extend(chart.svg()?.map(|svg| (caption, svg)));
    }
    Ok(charts)
}
