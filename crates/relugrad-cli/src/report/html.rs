//! `report.html`: one page that explains itself and needs nothing else.

use anyhow::Result;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use relugrad::penalty::CatalogueEntry;
use relugrad_io::printable;
use relugrad_train::compare::{ADVERSARIAL, Comparison, ShownAttack};

use super::charts::legend_mark;
use super::figures::{
    attack_charts, pareto_charts, penalty_charts, prediction_charts, training_charts,
};
use super::measure::Measure;
use super::summary::{Group, groups, representatives};
use super::table::{Cells, cells, divergences, penalty_names, predictions};

/// A page with a title, and the style that all pages have.
pub(crate) fn document(title: &str, body: &Markup) -> String {
    let style = PreEscaped(include_str!("style.css"));
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (style) }
            }
            body { (body) }
        }
    };
    page.into_string() + "\n"
}

/// Names of series with the marks that charts give them.
pub(crate) fn legend(names: &[String]) -> Markup {
    html! {
        ul.legend {
            @for (style, name) in names.iter().enumerate() {
                li { (PreEscaped(legend_mark(style))) (printable(name)) }
            }
        }
    }
}

/// The whole page.
pub(super) fn page(comparison: &Comparison) -> Result<String> {
    let title = format!(
        "Regularizers compared on {}",
        printable(&comparison.settings.data)
    );
    let [robustness, attacked, predicted] = words(Measure::of(comparison));
    let groups = groups(comparison);
    let best = representatives(comparison, &groups);
    let names: Vec<&str> = best.iter().map(|group| group.regularizer).collect();
    let plain_names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let best_names: Vec<String> = best.iter().map(|group| label(&groups, group)).collect();
    let pareto = pareto_charts(comparison, &groups, &names)?;
    let attacks = attack_charts(comparison, &best)?;
    let training = training_charts(comparison, &best)?;
    let predictors = prediction_charts(comparison, &groups, &names)?;
    let penalties = penalty_charts(comparison, &groups, &names)?;
    let body = html! {
        h1 { (title) }
        (introduction(comparison))
        (table(&cells(comparison)))
        (list(&divergences(comparison)))
        (list(&predictions(comparison)))
        (section(robustness, &plain_names, &pareto))
        (section(attacked, &best_names, &attacks))
        (section(TRAINING, &best_names, &training))
        (section(predicted, &plain_names, &predictors))
        (section(PENALTIES, &plain_names, &penalties))
        (definitions(comparison))
        (reproduction(comparison))
    };
    Ok(document(&title, &body))
}

/// A title, and what to see.
type Words = (&'static str, &'static str);

const TRAINING: Words = (
    "Training",
    "Measured on the test samples after every epoch; with several seeds, their mean. The last chart follows the penalty that      each network was trained with, relative to its value in the first epoch.",
);

const PENALTIES: Words = (
    "Penalties against each other",
    "Each point is one trained network, with the means of two penalties over the test samples on logarithmic axes. Points      along a straight line mean that lowering one penalty lowers the other in proportion.",
);

/// Titles and texts of the sections about robustness.
fn words(measure: Measure) -> [Words; 3] {
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
                 step; PGD and Auto-PGD take many, one after the other on the samples that still stand.",
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
                 one step; PGD and Auto-PGD take many, one after the other on the samples that still stand.",
            ),
            (
                "Penalties as predictors of robustness",
                "Each point is one trained network: the mean of a penalty over the test samples, and its error under attack. \
                 The rank correlation (Spearman's) is 1 where less of the penalty always goes with more robustness.",
            ),
        ],
    }
}

fn introduction(comparison: &Comparison) -> Markup {
    let s = &comparison.settings;
    let diverged = comparison.diverged.len();
    html! {
        @if !comparison.complete {
            p.warning { "The comparison was interrupted: only finished runs are shown." }
        }
        @if diverged > 0 {
            p.warning {
                (diverged) " of " (diverged + comparison.runs.len()) " runs diverged: their numbers were no longer finite. No \
                mean, chart or rank correlation has them."
            }
        }
        p {
            "The same ReLU network (" code { (printable(&s.model)) } ", " (s.parameters) " parameters) was trained on "
            (s.train_samples) " samples of " em { (printable(&s.data)) } " for " (s.epochs) " epochs, from the same initial \
            weights and in the same order of samples: once without a regularizer (" code { "none" } ", the baseline) and once \
            with each of the penalties below added to the loss (" code { (printable(&s.loss.to_string())) } ") with weight λ."
            @if !s.adversarial.is_empty() {
                " For comparison " code { "pgd-training" } " learned from adversarial examples of size ε instead."
            }
            " Each network was then tested on " (s.test_samples) " samples that it had not seen, and attacked on "
            (s.attack_samples) " of them. "
            @match s.seeds.len() {
                1 => "One random seed was used, so small differences may be chance.",
                n => {
                    "All of it was repeated with " (n) " random seeds; mean ± standard deviation are shown."
                }
            }
        }
    }
}

fn table(cells: &Cells) -> Markup {
    let best = best_cells(cells);
    let baseline = |row: &[String]| row[0].split(' ').next() == Some("none");
    html! {
        h2 { "Results" }
        div.scroll {
            table {
                thead {
                    tr {
                        @for heading in &cells.headings {
                            // A line may be broken behind each hyphen.
                            th {
                                @for (i, word) in printable(heading).split('-').enumerate() {
                                    @if i > 0 { "-" wbr; }
                                    (word)
                                }
                            }
                        }
                    }
                }
                tbody {
                    @for (i, row) in cells.rows.iter().enumerate() {
                        tr.baseline[baseline(row)] {
                            @for (j, cell) in row.iter().enumerate() {
                                td.best[best[j] == Some(i)] { (printable(cell)) }
                            }
                        }
                    }
                }
            }
        }
        p.note {
            "Accuracies in percent (MSE is the mean squared error), the best of each column marked. Penalties are means over the \
            test samples, whichever penalty was trained. " em { "time" } " is that of a training step relative to plain training in the same run."
        }
    }
}

/// For each column of accuracies the row with the highest one, of errors that with the lowest; the
/// first of equals.
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
fn list(lines: &[String]) -> Markup {
    html! {
        @if !lines.is_empty() {
            ul {
                @for line in lines {
                    li { (printable(line)) }
                }
            }
        }
    }
}

/// A heading, what to see, the legend, and charts with captions.
fn section((title, text): Words, names: &[String], charts: &[(String, String)]) -> Markup {
    html! {
        @if !charts.is_empty() {
            h2 { (title) }
            p { (text) }
            (legend(names))
            div.charts {
                @for (caption, svg) in charts {
                    figure {
                        (PreEscaped(svg))
                        figcaption { (printable(caption)) }
                    }
                }
            }
        }
    }
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

fn definitions(comparison: &Comparison) -> Markup {
    html! {
        h2 { "What the names mean" }
        p {
            "f are the logits (the network's outputs), J their Jacobian with respect to the input x, ℓ the loss, H its Hessian \
            with respect to x. All are exact and per sample; tables show means."
        }
        dl {
            @for name in penalty_names(comparison) {
                @let (formula, meaning) = definition(&name, comparison);
                dt { (printable(&name)) " " code { (printable(&formula)) } }
                dd { (meaning) "." }
            }
        }
    }
}

/// The formula of a penalty, and what it measures.
fn definition(name: &str, comparison: &Comparison) -> (String, &'static str) {
    if let Ok(entry) = CatalogueEntry::named(name) {
        return (entry.formula.to_owned(), entry.meaning);
    }
    let mut penalties = comparison.settings.penalties.iter();
    let formula = penalties.find_map(|one| {
        let text = one.formula.as_ref().filter(|_| one.name == name)?;
        let constants = one.constants.iter();
        let constants = constants.map(|(constant, value)| format!(", {constant} = {value}"));
        Some(text.clone() + &constants.collect::<String>())
    });
    match formula {
        Some(formula) => (formula, "A formula of this comparison"),
        None => (String::new(), ""),
    }
}

fn reproduction(comparison: &Comparison) -> Markup {
    let s = &comparison.settings;
    let seeds: Vec<String> = s.seeds.iter().map(u64::to_string).collect();
    html! {
        h2 { "How to repeat it" }
        p {
            "relugrad " (printable(&s.version)) ", optimizer " (printable(&s.optimizer)) ", learning rate " (s.learning_rate)
            ", batches of " (s.batch_size) ", λ raised linearly over the first " (s.warmup_epochs) " epochs, seeds "
            (seeds.join(", ")) ". All numbers except times depend on these alone, not on the " (s.threads)
            " threads that were used."
        }
        p {
            "Attacks, all within the box " (s.bounds.as_deref().unwrap_or("[0, 1]")) " of the features; a sample counts as fooled if any iterate of any restart is misclassified, and \
            of values the iterate with the highest loss counts:"
        }
        ul {
            @for ShownAttack { attack, .. } in &s.attacks {
                @let options = attack.options;
                li {
                    (printable(&attack.name)) " " (options.norm.name()) ", ε = " (options.epsilon) ": " (options.steps)
                    " steps of " (options.step_size) ", " (options.restarts) " start(s)"
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn pages_have_charts() {
        for seeds in [&[0][..], &[0, 1, 2]] {
            for comparison in [fixture::comparison(seeds), fixture::regression(seeds)] {
                let page = page(&comparison).unwrap();
                assert!(page.matches("<svg").count() > 4);
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
        assert!(page.contains("&lt;b&gt; &amp; &quot;co&quot;"));
        assert!(page.contains("interrupted"));
    }

    #[test]
    fn a_page_says_which_runs_diverged() {
        let mut comparison = fixture::comparison(&[0, 1]);
        for number in [2, 0, 1, 3] {
            fixture::diverge(&mut comparison, number);
            let page = page(&comparison).unwrap();
            let count = comparison.diverged.len();
            assert!(page.contains(&format!("{count} of 4 runs diverged")));
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
