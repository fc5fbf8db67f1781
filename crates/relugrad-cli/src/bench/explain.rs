//! What a workload is made of: `--explain`.

use std::fmt::Write;
use std::time::Instant;

use anyhow::Result;
use ndarray::Array2;
use relugrad::{Mlp, Network, Objective, Operation, Scalar, Stage};

use super::arguments::Workload;
use super::problem::Problem;

/// Side of the dense product by which the machine's rate is measured.
const SIDE: usize = 1024;

/// The parts of a workload with their multiply-adds, as if every unit were active.
pub(super) fn stages<T: Scalar>(
    workload: Workload,
    objective: Option<&Objective>,
    problem: &Problem<T>,
) -> Result<Vec<Stage>> {
    let network = &problem.network;
    let trace = network.trace(problem.inputs.view())?;
    if let Some(objective) = objective {
        return Ok(objective.work(&trace));
    }
    let plain = Objective::new(problem.loss());
    let forward = plain.work(&trace).remove(0);
    let sweep = |name: &str, rows: usize| Stage {
        name: name.to_owned(),
        rows,
        multiply_adds: forward.multiply_adds * rows as u64,
    };
    let mut stages = vec![forward.clone()];
    match workload {
        Workload::Hvp => {
            stages.extend([sweep("tangents of v", 1), sweep("cotangents of S J v", 1)]);
        }
        Workload::FiniteDifferenceJacobian => {
            stages.push(sweep(
                "forward passes at moved inputs",
                2 * network.inputs() - 1,
            ));
        }
        Workload::HessianFrobenius => {
            // The loss sees differences of logits only, so that one row is spared.
            let rows = network.outputs().max(2) - 1;
            stages.extend(trace.gram_work(rows));
        }
        Workload::Jacobian
        | Workload::PlainStep
        | Workload::InputGradientStep
        | Workload::JacobianStep
        | Workload::CrossLipschitzStep
        | Workload::HessianFrobeniusStep
        | Workload::CureStep
        | Workload::FormulaStep
        | Workload::AllPenaltiesStep => stages.push(sweep(
            "cotangents of the Jacobian's rows",
            network.outputs(),
        )),
    }
    Ok(stages)
}

/// Floating-point operations of stages.
pub(super) fn operations(stages: &[Stage]) -> u64 {
    stages.iter().map(|stage| 2 * stage.multiply_adds).sum()
}

/// The stages, the activity of every layer of gates, and what share of the machine's rate was
/// reached.
pub(super) fn text<T: Scalar>(
    stages: &[Stage],
    problem: &Problem<T>,
    median: f64,
) -> Result<String> {
    let mut out = String::new();
    for stage in stages {
        writeln!(
            out,
            "    {:56}{:>4} rows {:>9.3} GFLOP",
            stage.name,
            stage.rows,
            2e-9 * stage.multiply_adds as f64
        )?;
    }
    let trace = problem.network.trace(problem.inputs.view())?;
    let gates = problem
        .network
        .nodes()
        .iter()
        .filter(|node| node.operation().selects());
    for (layer, node) in gates.enumerate() {
        if !matches!(node.operation(), Operation::Gate(_)) {
            continue;
        }
        let (pattern, units) = (trace.pattern(), 0..node.width());
        let active = |sample: usize| {
            units
                .clone()
                .filter(|&unit| pattern.choice(sample, layer, unit) == 1)
                .count()
        };
        let count: usize = (0..pattern.samples()).map(active).sum();
        let share = count as f64 / (pattern.samples() * node.width()) as f64;
        writeln!(
            out,
            "    {:.0} % of the gates of {} are active",
            100.0 * share,
            node.name()
        )?;
    }
    let (rate, peak) = (
        operations(stages) as f64 / median * 1e-6,
        product_rate::<T>()?,
    );
    write!(
        out,
        "    {rate:.0} GFLOP/s if every unit were active, {:.0} % of this machine's {peak:.0} GFLOP/s in a product of \
         {SIDE}x{SIDE} matrices",
        100.0 * rate / peak
    )?;
    Ok(out)
}

/// The rate of a large dense product, in GFLOP/s.
fn product_rate<T: Scalar>() -> Result<f64> {
    let network: Network<T> = Mlp::new(&[SIDE, SIDE]).build(0)?;
    let inputs = Array2::from_elem((SIDE, SIDE), T::ONE);
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let start = Instant::now();
        std::hint::black_box(network.trace(inputs.view())?);
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(2.0 * (SIDE * SIDE * SIDE) as f64 / best * 1e-9)
}
