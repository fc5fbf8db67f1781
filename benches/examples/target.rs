//! Do all Gram penalties in one objective cost at most 1.25 times the dearest of them alone?
//!
//! Prints one Markdown table: the median time of a training step (value and parameter gradient of
//! loss and penalties, buffers reused, `f32`) of each penalty alone and of all together. Run it in
//! release mode:
//!
//!     cargo run --release -p benches --example target

use std::time::Duration;

use benches::{Problem, SIZES, Size, interleaved, objective, readable, together};
use relugrad::{Objective, Workspace};

/// Rounds of interleaved measurements.
const ROUNDS: usize = 501;

/// The largest ratio that meets the target.
const TARGET: f64 = 1.25;

fn main() {
    let objectives = rows();
    let columns = SIZES.map(|size| times(size, &objectives));
    let line = |name: &str, cells: Vec<String>| println!("| {name} | {} |", cells.join(" | "));
    line("step with", SIZES.iter().map(Size::label).collect());
    line("---", vec!["---:".to_owned(); SIZES.len()]);
    for (row, (name, _)) in objectives.iter().enumerate() {
        let cells = columns.iter().map(|column| readable(column[row]));
        line(name, cells.collect());
    }
    let verdicts = columns.iter().map(|column| verdict(column));
    line("all / dearest alone", verdicts.collect());
}

/// The plain loss, each Gram penalty alone, and all of them.
fn rows() -> Vec<(String, Objective)> {
    let mut rows = vec![("no penalty".to_owned(), objective(&[]))];
    rows.extend(together());
    rows
}

/// Median time of a step with each objective.
fn times(size: Size, objectives: &[(String, Objective)]) -> Vec<Duration> {
    let problem = Problem::<f32>::new(size);
    let mut tasks: Vec<Box<dyn FnMut() + '_>> = Vec::new();
    for (_, objective) in objectives {
        let (problem, mut workspace) = (&problem, Workspace::new());
        tasks.push(Box::new(move || {
            let (network, inputs) = (&problem.network, problem.inputs.view());
            objective
                .gradient_into(network, inputs, &problem.targets(), &mut workspace)
                .expect("finite");
        }));
    }
    interleaved(ROUNDS, &mut tasks)
}

/// The last time by the largest of those between it and the first.
fn verdict(column: &[Duration]) -> String {
    let alone = &column[1..column.len() - 1];
    let dearest = alone.iter().max().copied().unwrap_or_default();
    let all = column.last().copied().unwrap_or_default();
    let ratio = all.as_secs_f64() / dearest.as_secs_f64();
    let verdict = if ratio <= TARGET { "met" } else { "missed" };
    format!("{ratio:.2} ({verdict})")
}
