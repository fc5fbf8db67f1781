//! `report.html`: one page that explains itself and needs nothing else.

use std::fmt::Write;

use anyhow::Result;
use relugrad::penalty::CatalogueEntry;
use relugrad_train::compare::{ADVERSARIAL, Comparison, ShownAttack};

use super::charts::legend_mark;
use super::figures::{
    attack_charts, pareto_charts, penalty_charts, prediction_charts, training_charts,
};
use super::measure::Measure;
use super::summary::{Group, groups, representatives};
use super::table::{Cells, cells, divergences, penalty_names, predictions};

/// The whole page.
pub(super) fn page(comparison: &Comparison) -> Result<String> {
    let title = format!(
        "Regularizers compared on {}",
        escape(&comparison.settings.data)
    );
    let words = words(Measure::of(comparison));
    let groups = groups(comparison);
    let best = representatives(comparison, &groups);
    let names: Vec<&str> = best.iter().map(|group| group.regularizer).collect();
    let plain_names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let best_names: Vec<String> = best.iter().map(|group| label(&groups, group)).collect();
    let parts = [
        introduction(comparison, &title),
        table(&cells(comparison)),
        list(&divergences(comparison)),
        list(&predictions(comparison)),
        section(
            words[0].0,
            words[0].1,
            &plain_names,
            pareto_charts(comparison, &groups, &names)?,
        ),
        section(
            words[1].0,
            words[1].1,
            &best_names,
            attack_charts(comparison, &best)?,
        ),
        section(
            "Training",
            "Measured on the test samples after every epoch; with several seeds, their mean. The last chart follows the \
             penalty that each network was trained with, relative to its value in the first epoch.",
            &best_names,
            training_charts(comparison, &best)?,
        ),
        section(
            words[2].0,
            words[2].1,
            &plain_names,
            prediction_charts(comparison, &groups, &names)?,
        ),
        section(
            "Penalties against each other",
            "Each point is one trained network, with the means of two penalties over the test samples on logarithmic \
             axes. Points along a straight line mean that lowering one penalty lowers the other in proportion.",
            &plain_names,
            penalty_charts(comparison, &groups, &names)?,
        ),
        definitions(comparison),
        reproduction(comparison),
    ];
    Ok(format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n<style>\n{}</style>\n</head>\n<body>\n{}\
         </body>\n</html>\n",
        include_str!("style.css"),
        parts.concat()
    ))
}

/// Titles and texts of the sections about robustness.
fn words(measure: Measure) -> [(&'static str, &'static str); 3] {
    match measure {
        Measure::Accuracy => [
            (
                "Accuracy against robustness",
                "A point for every regularizer and weight; the weights of a regularizer are joined, from the smallest to the \
                 largest. The best trade-offs are at the upper right.",
            ),
            (
                "Accuracy under attack",
                "Share of the attacked samples that stay classified correctly when each may be changed by at most ε. At \
                 ε = 0 it is their clean accuracy. Of several weights of a regularizer, the one of the highest accuracy under the \
                 first attack of the table is shown. Higher is more robust; a stronger attack can only lower these curves. FGSM takes one \
                 step, PGD many.",
            ),
            (
                "Penalties as predictors of robustness",
                "Each point is one trained network: the mean of a penalty over the test samples, and its accuracy under attack. \
                 The rank correlation (Spearman's) is −1 where less of the penalty always goes with more robustness.",
            ),
        ],
        Measure::Error => [
            (
                "Error against robustness",
                "A point for every regularizer and weight; the weights of a regularizer are joined, from the smallest to the \
                 largest. The best trade-offs are at the lower left.",
            ),
            (
                "Error under attack",
                "Mean squared error of the attacked samples when each may be changed by at most ε, where the attack found the \
                 highest loss. At ε = 0 it is their clean error. Of several weights of a regularizer, the one of the lowest error under \
                 the first attack of the table is shown. Lower is more robust; a stronger attack can only raise these curves. FGSM takes \
                 one step, PGD many.",
            ),
            (
                "Penalties as predictors of robustness",
                "Each point is one trained network: the mean of a penalty over the test samples, and its error under attack. \
                 The rank correlation (Spearman's) is 1 where less of the penalty always goes with more robustness.",
            ),
        ],
    }
}

/// Text in which no character is taken for markup.
pub(crate) fn escape(text: &str) -> String {
    let text = relugrad_io::printable(text)
        .replace('&', "&amp;")
        .replace('<', "&lt;");
    text.replace('>', "&gt;").replace('"', "&quot;")
}

fn introduction(comparison: &Comparison, title: &str) -> String {
    let s = &comparison.settings;
    let interrupted = if comparison.complete {
        ""
    } else {
        "<p class=\"warning\">The comparison was interrupted: only finished runs are shown.</p>\n"
    };
    let diverged = match comparison.diverged.len() {
        0 => String::new(),
        count => format!(
            "<p class=\"warning\">{count} of {} runs diverged: their numbers were no longer finite. No mean, chart or rank \
             correlation has them.</p>\n",
            count + comparison.runs.len()
        ),
    };
    format!(
        "<h1>{title}</h1>\n{interrupted}{diverged}<p>The same ReLU network (<code>{}</code>, {} parameters) was trained on {} samples of \
         <em>{}</em> for {} epochs, from the same initial weights and in the same order of samples: once without a \
         regularizer (<code>none</code>, the baseline) and once with each of the penalties below added to the loss \
         (<code>{}</code>) with weight λ.{} Each network was then tested on {} samples that it had not seen, and attacked \
         on {} of them. {}</p>\n",
        escape(&s.model),
        s.parameters,
        s.train_samples,
        escape(&s.data),
        s.epochs,
        escape(&s.loss.to_string()),
        match s.adversarial.is_empty() {
            true => "",
            false =>
                " For comparison <code>pgd-training</code> learned from adversarial examples of size ε instead.",
        },
        s.test_samples,
        s.attack_samples,
        match s.seeds.len() {
            1 => "One random seed was used, so small differences may be chance.".to_owned(),
            n => format!(
                "All of it was repeated with {n} random seeds; mean ± standard deviation are shown."
            ),
        }
    )
}

fn table(cells: &Cells) -> String {
    let best = best_cells(cells);
    let mut html = String::from("<h2>Results</h2>\n<div class=\"scroll\"><table>\n<thead><tr>");
    for heading in &cells.headings {
        let heading = escape(heading).replace('-', "-<wbr>");
        write!(html, "<th>{heading}</th>").expect("a String takes all");
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    for (i, row) in cells.rows.iter().enumerate() {
        html.push_str(if row[0].split(' ').next() == Some("none") {
            "<tr class=\"baseline\">"
        } else {
            "<tr>"
        });
        for (j, cell) in row.iter().enumerate() {
            let class = if best[j] == Some(i) {
                " class=\"best\""
            } else {
                ""
            };
            write!(html, "<td{class}>{}</td>", escape(cell)).expect("a String takes all");
        }
        html.push_str("</tr>\n");
    }
    html.push_str(
        "</tbody></table></div>\n<p class=\"note\">Accuracies in percent (MSE is the mean squared error), the best of each column \
         marked. Penalties are means over the test samples, whichever penalty was trained. <em>time</em> is that of a training step relative to \
         plain training in the same run.</p>\n",
    );
    html
}

/// For each column of accuracies the row with the highest one, of errors that with the lowest; the first of equals.
fn best_cells(cells: &Cells) -> Vec<Option<usize>> {
    let value = |row: &[String], j: usize| -> f64 {
        let number = row[j].split(' ').next().unwrap_or_default();
        number.parse().unwrap_or(f64::NAN)
    };
    let best = |j: usize, sign: f64| {
        let numbers = cells
            .rows
            .iter()
            .map(|row| sign * value(row, j))
            .enumerate();
        let numbers = numbers.filter(|(_, number)| number.is_finite()).rev();
        numbers.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(i, _)| i)
    };
    let columns = cells.headings.iter().enumerate();
    columns
        .map(|(j, heading)| match heading {
            heading if heading.ends_with('%') || heading.ends_with("R²") => best(j, 1.0),
            heading if heading.ends_with("MSE") => best(j, -1.0),
            _ => None,
        })
        .collect()
}

/// A list, unless it is empty.
fn list(lines: &[String]) -> String {
    let lines = lines
        .iter()
        .map(|line| format!("<li>{}</li>\n", escape(line)));
    let lines: String = lines.collect();
    match lines.is_empty() {
        true => lines,
        false => format!("<ul>\n{lines}</ul>\n"),
    }
}

/// A heading, what to see, the legend, and charts with captions.
fn section(title: &str, text: &str, names: &[String], charts: Vec<(String, String)>) -> String {
    if charts.is_empty() {
        return String::new();
    }
    let mut html = format!("<h2>{title}</h2>\n<p>{text}</p>\n<ul class=\"legend\">");
    for (style, name) in names.iter().enumerate() {
        let mark = legend_mark(style);
        write!(html, "<li>{mark}{}</li>", escape(name)).expect("a String takes all");
    }
    html.push_str("</ul>\n<div class=\"charts\">\n");
    for (caption, svg) in charts {
        writeln!(
            html,
            "<figure>{svg}<figcaption>{caption}</figcaption></figure>"
        )
        .expect("a String takes all");
    }
    html.push_str("</div>\n");
    html
}

/// The regularizer, with its weight where there are several.
fn label(groups: &[Group], group: &Group) -> String {
    let same = groups
        .iter()
        .filter(|other| other.regularizer == group.regularizer);
    if same.count() > 1 {
        let letter = if group.regularizer == ADVERSARIAL {
            "ε"
        } else {
            "λ"
        };
        format!("{} {letter}={}", group.regularizer, group.lambda)
    } else {
        group.regularizer.to_owned()
    }
}

fn definitions(comparison: &Comparison) -> String {
    let mut html = String::from(
        "<h2>What the names mean</h2>\n<p>f are the logits (the network's outputs), J their Jacobian in the \
         input x, ℓ the loss, H its Hessian in x. All are exact and per sample; tables show means.</p>\n<dl>\n",
    );
    for name in penalty_names(comparison) {
        let entry = CatalogueEntry::named(&name).ok();
        let (formula, meaning) = entry.map_or(("", ""), |entry| (entry.formula, entry.meaning));
        let name = escape(&name);
        writeln!(
            html,
            "<dt>{name} <code>{formula}</code></dt><dd>{meaning}.</dd>"
        )
        .expect("a String takes all");
    }
    html.push_str("</dl>\n");
    html
}

fn reproduction(comparison: &Comparison) -> String {
    let s = &comparison.settings;
    let seeds: Vec<String> = s.seeds.iter().map(u64::to_string).collect();
    let mut html = format!(
        "<h2>How to repeat it</h2>\n<p>relugrad {}, optimizer {}, learning rate {}, batches of {}, λ raised linearly over \
         the first {} epochs, seeds {}. All numbers except times depend on these alone, not on the {} threads that were \
         used.</p>\n<p>Attacks, all within features of [0, 1]; a sample counts as fooled if any iterate of any restart \
         is misclassified, and of values the iterate with the highest loss counts:</p>\n<ul>\n",
        escape(&s.version),
        escape(&s.optimizer),
        s.learning_rate,
        s.batch_size,
        s.warmup_epochs,
        seeds.join(", "),
        s.threads
    );
    for ShownAttack { attack, .. } in &s.attacks {
        let options = attack.options;
        writeln!(
            html,
            "<li>{} {}, ε = {}: {} steps of {}, {} start(s)</li>",
            escape(&attack.name),
            options.norm.name(),
            options.epsilon,
            options.steps,
            options.step_size,
            options.restarts
        )
        .expect("a String takes all");
    }
    html.push_str("</ul>\n");
    html
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    /// Whether every element is closed in order; void elements are known.
    fn balanced(html: &str) -> bool {
        let mut open: Vec<&str> = Vec::new();
        for tag in html
            .split('<')
            .skip(1)
            .filter_map(|rest| rest.split('>').next())
        {
            let name = tag
                .trim_start_matches('/')
                .split([' ', '\n', '/'])
                .next()
                .unwrap_or("");
            let void =
                matches!(name, "meta" | "wbr" | "br") || tag.starts_with('!') || tag.ends_with('/');
            if tag.starts_with('/') {
                if open.pop() != Some(name) {
                    return false;
                }
            } else if !void {
                open.push(name);
            }
        }
        open.is_empty()
    }

    #[test]
    fn pages_are_well_formed() {
        assert!(balanced("<p>a<br></p>") && !balanced("<p><b></p></b>"));
        for seeds in [&[0][..], &[0, 1, 2]] {
            for comparison in [fixture::comparison(seeds), fixture::regression(seeds)] {
                let page = page(&comparison).unwrap();
                assert!(balanced(&page) && page.matches("<svg").count() > 4);
            }
        }
    }

    #[test]
    fn odd_values_do_not_break_a_page() {
        let mut comparison = fixture::comparison(&[0]);
        comparison.settings.data = "<b> & \"co\"".into();
        comparison.runs[0].evaluation.penalties[0].mean = 0.0;
        comparison.runs[1].evaluation.penalties[0].mean = f64::NAN;
        comparison.runs[1].curve.clear();
        comparison.complete = false;
        let page = page(&comparison).unwrap();
        assert!(balanced(&page) && page.contains("&lt;b&gt; &amp; &quot;co&quot;"));
        assert!(page.contains("interrupted"));
    }

    #[test]
    fn a_page_says_which_runs_diverged() {
        let mut comparison = fixture::comparison(&[0, 1]);
        for number in [2, 0, 1, 3] {
            fixture::diverge(&mut comparison, number);
            let page = page(&comparison).unwrap();
            let count = comparison.diverged.len();
            assert!(balanced(&page) && page.contains(&format!("{count} of 4 runs diverged")));
            assert_eq!(page.matches("the loss is not finite</li>").count(), count);
        }
    }

    #[test]
    fn a_page_without_runs_has_no_charts() {
        let mut comparison = fixture::comparison(&[0]);
        comparison.runs.clear();
        assert!(!page(&comparison).unwrap().contains("<figure>"));
    }

    #[test]
    fn the_best_of_equals_is_the_first() {
        let cells = cells(&fixture::comparison(&[0]));
        assert_eq!(best_cells(&cells)[2], Some(1));
        let best = best_cells(&super::cells(&fixture::regression(&[0])));
        assert_eq!(best[2..6], [Some(0), Some(0), Some(0), None]);
    }
}
