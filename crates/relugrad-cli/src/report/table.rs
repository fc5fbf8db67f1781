//! The table of a comparison, as text and as cells for the page.

use relugrad_train::compare::{ADVERSARIAL, Certified, Comparison, Diverged, ShownAttack};

use super::measure::Measure;
use super::summary::{Group, Statistic, groups, predictors, relative_time};
use crate::table::table;

/// Characters of a heading that may stand in one line of the text, if it can be broken.
const HEADING: usize = 10;

/// Headings and rows; every row has a cell for each heading.
pub(super) struct Cells {
    pub(super) headings: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

/// The cells of the table.
pub(super) fn cells(comparison: &Comparison) -> Cells {
    let measure = Measure::of(comparison);
    let mut headings = vec![
        "regularizer".to_owned(),
        "λ".to_owned(),
        measure.heading("clean"),
    ];
    if measure == Measure::Error {
        headings.push("clean R²".to_owned());
    }
    headings.extend(headline(comparison).map(|(_, attack)| measure.heading(&attack_name(attack))));
    if certified(comparison) {
        headings.extend(["certified linf".to_owned(), "certified l2".to_owned()]);
    }
    headings.extend(penalty_names(comparison));
    headings.push("time".to_owned());
    let groups = groups(comparison);
    let width = headings.len();
    let row = |group: &Group| match group.runs.is_empty() {
        true => diverged_row(group, width),
        false => row(comparison, group),
    };
    Cells {
        rows: groups.iter().map(row).collect(),
        headings,
    }
}

/// The table as aligned text, of about 125 columns for the families that are compared by default.
pub(crate) fn text(comparison: &Comparison) -> String {
    let cells = cells(comparison);
    let headings: Vec<String> = cells.headings.iter().map(|h| broken(h)).collect();
    let cell = |cell: &String| match cell.contains(DIVERGED) {
        true => broken(cell),
        false => cell.replace(" ± ", "\n± "),
    };
    let rows = cells
        .rows
        .iter()
        .map(|row| row.iter().map(cell).collect::<Vec<String>>());
    let mut text = table(headings, rows, 1, |column| column > 0);
    for line in divergences(comparison)
        .into_iter()
        .chain(predictions(comparison))
    {
        text += &format!("\n{}", wrapped(&line));
    }
    text
}

/// Characters of a line of text.
const LINE: usize = 118;

/// A long line in several, broken after commas.
fn wrapped(line: &str) -> String {
    let (mut lines, mut last) = (Vec::new(), String::new());
    for part in line.split_inclusive(", ") {
        if last.chars().count() + part.trim_end().chars().count() > LINE {
            lines.push(last.trim_end().to_owned());
            last = "  ".into();
        }
        last.push_str(part);
    }
    lines.push(last);
    lines.join("\n")
}

/// What cells of runs that have diverged hold.
const DIVERGED: &str = "diverged";

/// A line for each run that has diverged.
pub(super) fn divergences(comparison: &Comparison) -> Vec<String> {
    let line = |run: &Diverged| {
        let weight = match &*run.regularizer {
            "none" => String::new(),
            ADVERSARIAL => format!(" ε {}", run.lambda),
            _ => format!(" λ {}", run.lambda),
        };
        format!("{}{weight}, seed {}, {}", run.regularizer, run.seed, run.at)
    };
    comparison.diverged.iter().map(line).collect()
}

/// So few runs have no ranks to speak of.
const RANKED: usize = 5;

/// For each attack of the table which penalties predict robustness, from [`RANKED`] runs on.
pub(super) fn predictions(comparison: &Comparison) -> Vec<String> {
    if comparison.runs.len() < RANKED {
        return Vec::new();
    }
    let left_out = match comparison.diverged.len() {
        0 => String::new(),
        count => format!(" (without {count} that {DIVERGED})"),
    };
    let told = Measure::of(comparison).name();
    let line = |(i, attack): (usize, &ShownAttack)| {
        let found = predictors(comparison, i);
        if found.iter().all(|(_, rho)| rho.is_nan()) {
            let name = attack_name(attack);
            return format!(
                "rank correlation with {name} {told}{left_out}: none, it is the same in all runs"
            );
        }
        let found = found.iter().map(|(name, rho)| format!("{name} {rho:.2}"));
        let found: Vec<String> = found.collect();
        let name = attack_name(attack);
        format!(
            "rank correlation with {name} {told}{left_out}: {}",
            found.join(", ")
        )
    };
    headline(comparison).map(line).collect()
}

/// A long heading in lines that break after spaces and hyphens.
fn broken(heading: &str) -> String {
    let (mut lines, mut line) = (Vec::new(), String::new());
    for part in heading.split_inclusive([' ', '-']) {
        if !line.is_empty() && line.chars().count() + part.trim_end().chars().count() > HEADING {
            lines.push(std::mem::take(&mut line).trim_end().to_owned());
        }
        line.push_str(part);
    }
    lines.push(line);
    lines.join("\n")
}

/// The attacks that the table shows, with their place among all attacks.
fn headline(comparison: &Comparison) -> impl Iterator<Item = (usize, &ShownAttack)> {
    let attacks = comparison.settings.attacks.iter().enumerate();
    attacks.filter(|(_, attack)| attack.headline)
}

/// Such as `PGD linf 0.1`.
pub(super) fn attack_name(attack: &ShownAttack) -> String {
    let options = attack.attack.options;
    format!(
        "{} {} {}",
        attack.attack.name,
        options.norm.name(),
        options.epsilon
    )
}

/// The penalties that were measured, by the first run.
pub(super) fn penalty_names(comparison: &Comparison) -> Vec<String> {
    let first = comparison.runs.first();
    let penalties = first
        .map(|run| &run.evaluation.penalties[..])
        .unwrap_or_default();
    penalties
        .iter()
        .map(|penalty| penalty.name.clone())
        .collect()
}

/// A row without numbers.
fn diverged_row(group: &Group, width: usize) -> Vec<String> {
    let place = group.diverged[0].at.place();
    let mut row = vec![group.regularizer.to_owned(), lambda(group), place];
    row.resize(width, "–".into());
    row
}

/// The regularizer, and how many of its runs are in no mean.
fn name(group: &Group) -> String {
    let name = group.regularizer;
    match group.diverged.len() {
        0 => name.to_owned(),
        lost => format!("{name} ({lost} of {} {DIVERGED})", lost + group.runs.len()),
    }
}

fn row(comparison: &Comparison, group: &Group) -> Vec<String> {
    let measure = Measure::of(comparison);
    let shown = |statistic| match measure {
        Measure::Accuracy => fixed(statistic, 1),
        Measure::Error => significant(statistic),
    };
    let clean = group.statistic(|run| measure.clean(run));
    let mut row = vec![name(group), lambda(group), shown(clean)];
    row.extend(measure.r2(group).map(|r2| fixed(r2, 4)));
    for (i, _) in headline(comparison) {
        row.push(shown(group.statistic(|run| measure.robust(run, i))));
    }
    if certified(comparison) {
        let radius = |of: fn(&Certified) -> f64| {
            group.statistic(|run| run.evaluation.certified.as_ref().map_or(f64::NAN, of))
        };
        row.push(significant(radius(|certified| certified.linf)));
        row.push(significant(radius(|certified| certified.l2)));
    }
    for i in 0..penalty_names(comparison).len() {
        row.push(significant(
            group.statistic(|run| run.evaluation.penalties[i].mean),
        ));
    }
    let time = group.statistic(|run| relative_time(comparison, run));
    row.push(if time.mean.is_nan() {
        "–".into()
    } else {
        format!("{:.2}×", time.mean)
    });
    row
}

/// Whether certified radii were measured.
fn certified(comparison: &Comparison) -> bool {
    let mut runs = comparison.runs.iter();
    runs.any(|run| run.evaluation.certified.is_some())
}

fn lambda(group: &Group) -> String {
    match group.regularizer {
        "none" => "–".into(),
        ADVERSARIAL => format!("ε {}", group.lambda),
        _ => group.lambda.to_string(),
    }
}

fn fixed(statistic: Statistic, digits: usize) -> String {
    with_deviation(statistic, |value| format!("{value:.digits$}"))
}

/// Three significant digits.
fn significant(statistic: Statistic) -> String {
    with_deviation(statistic, short)
}

fn with_deviation(statistic: Statistic, show: impl Fn(f64) -> String) -> String {
    match statistic.deviation {
        None => show(statistic.mean),
        Some(deviation) => format!("{} ± {}", show(statistic.mean), show(deviation)),
    }
}

/// A number in three significant digits: plain if that is short, otherwise scientific.
pub(crate) fn short(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    let scientific = format!("{value:.2e}");
    let exponent: i32 = scientific
        .split_once('e')
        .map_or(0, |(_, e)| e.parse().unwrap_or(0));
    match exponent {
        -3..=4 => format!("{value:.*}", (2 - exponent).max(0) as usize),
        _ => scientific,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn three_digits_plain_or_scientific() {
        let cases = [
            (0.0, "0"),
            (12.3456, "12.3"),
            (1234.5, "1234"),
            (0.0012345, "0.00123"),
            (123456.0, "1.23e5"),
            (1.5e-7, "1.50e-7"),
            (f64::NAN, "NaN"),
        ];
        for (value, expected) in cases {
            assert_eq!(short(value), expected);
        }
    }

    #[test]
    fn the_text_is_aligned() {
        let expected = "\
 regularizer     λ  clean %    PGD linf  jacobian   time
                              0.1 %
─────────────────────────────────────────────────────────";
        let text = text(&fixture::comparison(&[0]));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), expected.lines().count() + 2, "{text}");
        assert!(
            lines[3].contains("none") && lines[3].ends_with("1.00×"),
            "{text}"
        );
        assert!(
            lines[4].contains("12.5") && lines[4].ends_with("1.50×"),
            "{text}"
        );
        let ends: Vec<usize> = lines[3..].iter().map(|line| line.chars().count()).collect();
        assert_eq!(ends[0], ends[1], "{text}");
    }

    #[test]
    fn several_seeds_have_deviations() {
        let cells = cells(&fixture::comparison(&[0, 1]));
        assert_eq!(cells.rows[0][2], "76.0 ± 1.4");
        assert_eq!(cells.rows[1][4], "12.5 ± 0");
        assert!(
            cells
                .rows
                .iter()
                .all(|row| row.len() == cells.headings.len())
        );
    }

    #[test]
    fn long_lines_are_broken_after_commas() {
        let line = format!("a: {}last", "0123456789, ".repeat(12));
        let found = wrapped(&line);
        assert!(found.lines().all(|line| line.chars().count() <= LINE));
        assert_eq!(found.replace("\n ", ""), line);
        assert_eq!(wrapped("short"), "short");
    }

    #[test]
    fn a_run_that_diverged_has_a_row_that_says_where() {
        let mut comparison = fixture::comparison(&[0]);
        fixture::diverge(&mut comparison, 1);
        let cells = cells(&comparison);
        assert_eq!(cells.rows[1][..2], ["jacobian", "0.01"]);
        assert_eq!(cells.rows[1][2], "diverged at step 30 (epoch 2)");
        assert!(cells.rows[1][3..].iter().all(|cell| cell == "–"));
        let text = text(&comparison);
        let last = text.lines().last().unwrap();
        let expected =
            "jacobian λ 0.01, seed 0, diverged at step 30 (epoch 2): the loss is not finite";
        assert_eq!(last, expected);
        assert!(
            text.lines().all(|line| line.chars().count() < 100),
            "{text}"
        );
    }

    #[test]
    fn means_and_ranks_say_what_they_leave_out() {
        let mut comparison = fixture::comparison(&[0, 1, 2]);
        fixture::diverge(&mut comparison, 5);
        let cells = cells(&comparison);
        assert_eq!(cells.rows[0][0], "none");
        assert_eq!(cells.rows[1][0], "jacobian (1 of 3 diverged)");
        assert_eq!(cells.rows[1][2], "86.5 ± 1.4");
        let line = &predictions(&comparison)[0];
        assert!(
            line.contains("accuracy (without 1 that diverged): "),
            "{line}"
        );
    }

    #[test]
    fn a_regression_has_errors_for_accuracies() {
        let cells = cells(&fixture::regression(&[0]));
        let headings = [
            "regularizer",
            "λ",
            "clean MSE",
            "clean R²",
            "PGD linf 0.1 MSE",
            "jacobian",
        ];
        assert_eq!(cells.headings[..6], headings);
        assert_eq!(cells.rows[0][..5], ["none", "–", "0.750", "0.2500", "1.50"]);
        let line = &predictions(&fixture::regression(&[0, 1, 2]))[0];
        assert!(
            line.starts_with("rank correlation with PGD linf 0.1 error: "),
            "{line}"
        );
    }

    #[test]
    fn no_run_gives_no_row() {
        let mut comparison = fixture::comparison(&[0]);
        comparison.runs.clear();
        assert!(cells(&comparison).rows.is_empty());
    }
}
