//! Statistics of regions over the test samples.

use anyhow::Context;
use relugrad::Network;
use relugrad_train::data::Dataset;
use relugrad_train::regions::{Quantiles, Report, Survey, survey};

use super::Arguments;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::report::short;
use crate::{interrupt, print};

/// Surveys and prints.
pub(super) fn run(
    arguments: &Arguments,
    network: &Network<f64>,
    data: &Dataset,
) -> Result<(), Failure> {
    let plan = Survey {
        samples: arguments.samples,
        measured: arguments.measure,
        pairs: arguments.pairs as usize,
        seed: arguments.seed,
        loss: arguments.loss.given()?,
        cure_step: arguments.cure_step,
    };
    let mut progress = Progress::new("surveying samples and pairs", "{pos} of {len}, {eta} left");
    let found = survey(network, data, &plan, &mut progress, &interrupt::go_on);
    progress.finish();
    let report = found?;
    print::line(match arguments.json {
        true => serde_json::to_string(&report).context("cannot write JSON")?,
        false => text(&report),
    });
    match report.complete {
        true => Ok(()),
        false => Err(Failure::Interrupted(
            "the samples and pairs that are finished are shown".into(),
        )),
    }
}

fn text(report: &Report) -> String {
    let mut text = format!(
        "{}: {} samples in {} regions of a network with {} gates",
        report.data, report.samples, report.regions, report.gates
    );
    if !report.complete {
        text += "\nwarning: interrupted; the numbers are of what was finished";
    }
    if report.near_kink > 0 {
        text += &format!(
            "\n{} samples are within rounding of a kink",
            report.near_kink
        );
    }
    let mut rows: Vec<(String, Quantiles)> = Vec::new();
    for (norm, distances) in ["l1", "l2", "linf"]
        .iter()
        .zip(report.distances.iter().flatten())
    {
        rows.push((
            format!("distance to the nearest kink, {norm}"),
            distances.kink,
        ));
        let boundary = distances.boundary.map(|boundary| {
            let name = format!("distance to the decision boundary in the region, {norm}");
            (name, boundary)
        });
        rows.extend(boundary);
        let certified = distances.certified;
        rows.extend(certified.map(|radius| (format!("certified radius, {norm}"), radius)));
    }
    if let Some(cure) = report.cure {
        rows.push((
            format!("kinks on CURE's step of {}", cure.step),
            cure.crossings,
        ));
        rows.push((
            "    jumps of the input gradient per unit of l2".into(),
            cure.kink_curvature,
        ));
    }
    let same = match is_regression(report) {
        true => "random pairs",
        false => "the same class",
    };
    let kinds = [
        (same, report.same_class),
        ("different classes", report.different_classes),
    ];
    for (kind, pairs) in kinds {
        if let Some(pairs) = pairs {
            rows.push((format!("kinks between samples of {kind}"), pairs.crossings));
            rows.push(("    per unit of l2 distance".into(), pairs.density));
        }
    }
    if rows.is_empty() {
        return text;
    }
    format!(
        "{text}\n\n{}\n\n{}{}",
        table(&rows),
        cure(report),
        how(report)
    )
}

/// Whether the samples have values, of which no boundaries between classes are told.
fn is_regression(report: &Report) -> bool {
    let distances = report.distances.as_ref();
    distances.is_some_and(|distances| distances[0].boundary.is_none())
}

/// What CURE sees.
fn cure(report: &Report) -> String {
    let Some(cure) = report.cure else {
        return String::new();
    };
    format!(
        "CURE with h = {}: mean {}, its smooth part {}, its kinks {}; the kinks' share is {:.0} %\n",
        cure.step,
        short(cure.total),
        short(cure.smooth),
        short(cure.kinks),
        100.0 * cure.share
    )
}

/// Quantiles of every quantity.
fn table(rows: &[(String, Quantiles)]) -> String {
    let row = |(name, q): &(String, Quantiles)| {
        let values = [q.least, q.quarter, q.median, q.three_quarters, q.largest];
        let cells = values.iter().map(|&value| short(value));
        [name.clone()]
            .into_iter()
            .chain(cells)
            .collect::<Vec<String>>()
    };
    let headings = ["", "least", "25 %", "median", "75 %", "largest"];
    crate::table::table(headings, rows.iter().map(row), 2, |column| column > 0)
}

/// Of how many samples and pairs the numbers are.
fn how(report: &Report) -> String {
    let mut parts = Vec::new();
    if report.distances.is_some() {
        parts.push(format!(
            "distances of the first {} samples",
            report.measured
        ));
    }
    for (kind, pairs) in [
        ("same", report.same_class),
        ("different", report.different_classes),
    ] {
        let of = if is_regression(report) {
            String::new()
        } else {
            format!(" of {kind} class")
        };
        parts.extend(pairs.map(|p| format!("{} random pairs{of}", p.pairs)));
    }
    parts.join("; ")
}
