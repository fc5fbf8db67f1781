//! The search that chose the default weight of every penalty for `relugrad compare`.
//!
//! The digits' training part (that of `compare`'s default split) is split again, 80 to 20; networks
//! are trained on the larger part with three weights for each penalty and judged on the smaller
//! one, so the test samples have no say. Of the weights that cost at most two points of clean
//! accuracy, that of the highest accuracy under PGD and Auto-PGD (ℓ∞, ε = 0.1) is taken.
//!
//! `cargo run --release -p relugrad-train --example lambda_search` prints the table of
//! `docs/results.md`.

use std::ops::ControlFlow;

use relugrad::Penalty;
use relugrad_train::attack::{Attacker, Norm, Union};
use relugrad_train::compare::{Plan, Run, Variant, compare};
use relugrad_train::data::{digits, stratified_split};
use relugrad_train::{Event, Result};

/// Largest loss of clean accuracy against plain training.
const CLEAN_LOSS: f64 = 0.02;

/// Weights to try for each penalty.
const GRID: [(&str, [f64; 3]); 16] = [
    ("input-gradient", [0.1, 0.3, 1.0]),
    ("input-gradient-l2", [0.3, 1.0, 3.0]),
    ("input-gradient-l1", [0.1, 0.3, 1.0]),
    ("input-gradient-linf", [1.0, 3.0, 10.0]),
    ("jacobian", [0.003, 0.01, 0.03]),
    ("jacobian-spectral", [0.01, 0.03, 0.1]),
    ("jacobian-nuclear", [0.01, 0.03, 0.1]),
    ("jacobian-projected", [0.003, 0.01, 0.03]),
    ("jacobian-probabilities", [0.1, 0.3, 1.0]),
    ("cross-lipschitz", [0.0001, 0.0003, 0.001]),
    ("curvature-trace", [0.03, 0.1, 0.3]),
    ("curvature-frobenius", [0.01, 0.03, 0.1]),
    ("curvature-spectral", [0.1, 0.3, 1.0]),
    ("curvature-directional", [0.01, 0.03, 0.1]),
    ("cure", [0.03, 0.1, 0.3]),
    ("cure-gradient", [0.1, 0.3, 1.0]),
];

/// Means over the seeds of one row of the table.
struct Row {
    clean: f64,
    robust: f64,
    own: f64,
    plain: f64,
}

/// Shows one line per run.
fn show(event: Event<'_>) -> ControlFlow<()> {
    if let Event::Finished(comparison, _) = event {
        let run = comparison.runs.last().expect("one is finished");
        eprintln!("{} {} seed {}", run.regularizer, run.lambda, run.seed);
    }
    ControlFlow::Continue(())
}

fn main() -> Result<()> {
    let training = stratified_split(&digits(), 0.2, 0)?.train;
    let mut variants = Vec::new();
    for (name, weights) in GRID {
        let penalty: Penalty = name.parse()?;
        variants.extend(weights.map(|lambda| Variant::Penalty(penalty.clone(), lambda)));
    }
    let plan = Plan {
        seeds: vec![0, 1],
        attacks: vec![(Attacker::new(Union {}, Norm::Linf, 0.1, 20, 1), true)],
        ..Plan::new(stratified_split(&training, 0.2, 1)?, variants)
    };
    let comparison = compare(&plan, None, &mut show, &|| true)?;
    let plain = row(&comparison.runs, "none", 0.0);
    println!(
        "plain: clean {:.4}, under attack {:.4}\n",
        plain.clean, plain.robust
    );
    println!("| penalty | λ | clean | attack 0.1 | its mean, plain | its mean | chosen |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: | --- |");
    for (name, weights) in GRID {
        let rows = weights.map(|lambda| row(&comparison.runs, name, lambda));
        let allowed = |row: &Row| row.clean >= plain.clean - CLEAN_LOSS;
        let mut candidates: Vec<usize> = (0..3).filter(|&i| allowed(&rows[i])).collect();
        candidates.sort_by(|&a, &b| rows[a].robust.total_cmp(&rows[b].robust));
        for (i, (row, lambda)) in rows.iter().zip(weights).enumerate() {
            println!(
                "| {name} | {lambda} | {:.4} | {:.4} | {:.3e} | {:.3e} | {} |",
                row.clean,
                row.robust,
                row.plain,
                row.own,
                if candidates.last() == Some(&i) {
                    "yes"
                } else {
                    ""
                }
            );
        }
    }
    Ok(())
}

fn row(runs: &[Run], name: &str, lambda: f64) -> Row {
    let mean = |name: &str, lambda: f64, value: &dyn Fn(&Run) -> f64| {
        let chosen = runs
            .iter()
            .filter(|run| run.regularizer == name && run.lambda == lambda);
        let values: Vec<f64> = chosen.map(value).collect();
        values.iter().sum::<f64>() / values.len() as f64
    };
    let own = |run: &Run| {
        let found = run.evaluation.penalties.iter().find(|p| p.name == name);
        found.map_or(0.0, |penalty| penalty.mean)
    };
    Row {
        clean: mean(name, lambda, &|run| run.evaluation.quality.clean()),
        robust: mean(name, lambda, &|run| run.evaluation.quality.robust()[0]),
        own: mean(name, lambda, &own),
        plain: mean("none", 0.0, &own),
    }
}
