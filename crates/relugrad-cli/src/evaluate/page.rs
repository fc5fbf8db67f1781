//! `evaluation.html`: one page that needs nothing else.

use std::fmt::Write;

use anyhow::Result;
use relugrad_train::attack::{Attack, Fgsm, Noise, Norm, Pgd};
use relugrad_train::robustness::{Report, Standing, WORST};

use super::tables;
use crate::report::charts::{Chart, Series, legend_mark};
use crate::report::escape;

/// The whole page.
pub(super) fn page(model: &str, report: &Report) -> Result<String> {
    let title = format!("Robustness of {}", escape(model));
    let (headings, rows) = tables::cells(report);
    let mut body = format!(
        "<h1>{title}</h1>\n<p>{} test samples of <em>{}</em>, {} of them attacked. {}</p>\n",
        report.clean.samples(),
        escape(&report.data),
        report.attacked_clean.samples(),
        match report.clean {
            Standing::Share(_) =>
                "Accuracy under attack bounds the robust accuracy from above, certificates from below: the truth lies between.",
            Standing::Fit(_) =>
                "The error under attack bounds the worst error from below: a stronger attack may find more.",
        }
    );
    for warning in &report.warnings {
        writeln!(body, "<p class=\"warning\">{}</p>", escape(warning))?;
    }
    for norm in [Norm::Linf, Norm::L2] {
        if let Some(svg) = sandwich(report, norm)? {
            let marks = [
                "random points",
                Fgsm::TITLE,
                Pgd::TITLE,
                "worst of all attacks",
                "certified",
            ];
            let legend: String = marks
                .iter()
                .enumerate()
                .map(|(style, name)| format!("<li>{}{name}</li>", legend_mark(style)))
                .collect();
            writeln!(
                body,
                "<h2>{} against size in {}</h2>\n<ul class=\"legend\">{legend}</ul>\n<div class=\"charts\"><figure>{svg}</figure></div>",
                measure(&report.clean).0,
                norm.name()
            )?;
        }
    }
    body.push_str("<h2>All attacks</h2>\n<div class=\"scroll\"><table>\n<thead><tr>");
    for heading in headings {
        write!(body, "<th>{}</th>", escape(&heading))?;
    }
    body.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        body.push_str(match row[2].as_str() {
            WORST | "certified" => "<tr class=\"baseline\">",
            _ => "<tr>",
        });
        for cell in row {
            write!(body, "<td>{}</td>", escape(&cell))?;
        }
        body.push_str("</tr>\n");
    }
    write!(
        body,
        "</tbody></table></div>\n<h2>All of it as text</h2>\n<pre>{}</pre>\n",
        escape(&tables::text(report))
    )?;
    Ok(format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n<style>\n{}</style>\n</head>\n<body>\n\
         {body}</body>\n</html>\n",
        include_str!("../report/style.css")
    ))
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
