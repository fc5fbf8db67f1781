//! `evaluation.html`: one page that needs nothing else.

use anyhow::Result;
use maud::{PreEscaped, html};
use relugrad_io::printable;
use relugrad_train::attack::{Attack, Fgsm, Noise, Norm, Pgd};
use relugrad_train::robustness::{Report, Standing, WORST};

use super::tables;
use crate::report::charts::{Chart, Series};
use crate::report::{document, legend};

/// The series of [`sandwich`].
const SERIES: [&str; 5] = [
    "random points",
    Fgsm::TITLE,
    Pgd::TITLE,
    "worst of all attacks",
    "certified",
];

/// The whole page.
pub(super) fn page(model: &str, report: &Report) -> Result<String> {
    let title = format!("Robustness of {}", printable(model));
    let (headings, rows) = tables::cells(report);
    let mut charts = Vec::new();
    for norm in [Norm::Linf, Norm::L2, Norm::L1] {
        charts.extend(sandwich(report, norm)?.map(|svg| (norm, svg)));
    }
    let body = html! {
        h1 { (title) }
        p {
            (report.clean.samples()) " test samples of " em { (printable(&report.data)) } ", "
            (report.attacked_clean.samples()) " of them attacked. "
            @match report.clean {
                Standing::Share(_) => "Accuracy under attack bounds the robust accuracy from above, certificates from below: the \
                    truth lies between.",
                Standing::Fit(_) => "The error under attack bounds the worst error from below: a stronger attack may find more.",
            }
        }
        @for warning in &report.warnings {
            p.warning { (printable(warning)) }
        }
        @for (norm, svg) in charts {
            h2 { (measure(&report.clean).0) " against size in " (norm.name()) }
            (legend(&SERIES.map(str::to_owned)))
            div.charts { figure { (PreEscaped(svg)) } }
        }
        h2 { "All attacks" }
        div.scroll {
            table {
                thead {
                    tr {
                        @for heading in headings { th { (printable(&heading)) } }
                    }
                }
                tbody {
                    @for row in rows {
                        tr.baseline[matches!(row[2].as_str(), WORST | "certified")] {
                            @for cell in row { td { (printable(&cell)) } }
                        }
                    }
                }
            }
        }
        h2 { "All of it as text" }
        pre { (tables::text(report)) }
    };
    Ok(document(&title, &body))
}

/// What a chart shows of a standing, in words and as a number.
fn measure(standing: &Standing) -> (&'static str, f64) {
    match standing {
        Standing::Share(share) => ("Accuracy", 100.0 * share.share),
        Standing::Fit(fit) => ("Error", fit.mse),
    }
}

/// Accuracy or error against size: attacks from above, certificates from below.
fn sandwich(report: &Report, norm: Norm) -> Result<Option<String>> {
    if !report
        .worst
        .iter()
        .any(|worst| worst.attack.options.norm == norm)
    {
        return Ok(None);
    }
    let clean = measure(&report.attacked_clean).1;
    let of = |name: &str, all: &[relugrad_train::robustness::Attacked]| {
        let named = all.iter();
        let named = named.filter(|a| a.attack.options.norm == norm && a.attack.name == name);
        // PGD comes with one restart and then with several; the last of a size counts.
        let mut points = vec![(0.0, clean)];
        for attacked in named {
            let point = (
                attacked.attack.options.epsilon,
                measure(&attacked.standing).1,
            );
            match points.last_mut() {
                Some(last) if last.0 == point.0 => *last = point,
                _ => points.push(point),
            }
        }
        points
    };
    let certified = report.certificates.iter().filter(|(of, ..)| *of == norm);
    let mut lower: Vec<(f64, f64)> = certified
        .map(|(_, size, share)| (*size, 100.0 * share.share))
        .collect();
    // The curve falls most below the smallest size, so each certified radius is a point.
    lower.extend(radii_curve(report, norm, &lower));
    lower.sort_by(|a, b| a.0.total_cmp(&b.0));
    let series = [
        of(Noise::TITLE, &report.attacks),
        of(Fgsm::TITLE, &report.attacks),
        of(Pgd::TITLE, &report.attacks),
        of(WORST, &report.worst),
        lower,
    ];
    let series = series.into_iter().enumerate();
    Chart {
        x: format!("size in {}", norm.name()),
        y: match report.clean {
            Standing::Share(_) => "accuracy, %".into(),
            Standing::Fit(_) => "mean squared error".into(),
        },
        logarithmic: (false, false),
        lines: true,
        series: series
            .map(|(style, points)| Series { style, points })
            .collect(),
    }
    .svg()
}

/// The share of certified samples with at least each of their radii, up to the largest size.
fn radii_curve(report: &Report, norm: Norm, sizes: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let largest = sizes.iter().map(|point| point.0).fold(0.0, f64::max);
    let place = usize::from(norm == Norm::L2);
    let certified: Vec<_> = report
        .samples
        .iter()
        .filter(|s| s.radii.is_some())
        .collect();
    let correct = certified.iter().filter(|s| s.is_right());
    let mut radii: Vec<f64> = correct
        .filter_map(|s| s.radii.map(|r| r[place].lower))
        .collect();
    radii.sort_by(f64::total_cmp);
    let n = certified.len().max(1) as f64;
    let count = radii.len();
    let points = radii.into_iter().enumerate();
    let points = points.filter(|(_, radius)| *radius <= largest);
    let share = move |i: usize| 100.0 * (count - i) as f64 / n;
    points.map(|(i, radius)| (radius, share(i))).collect()
}
