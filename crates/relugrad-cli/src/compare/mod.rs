//! `relugrad compare`.

mod arguments;
mod follower;
mod output;
mod progress;

use std::io::Write;

use anyhow::Context;
use relugrad_train::compare::{Comparison, Plan, compare};

pub(crate) use arguments::Arguments;
use follower::Follower;
use output::Output;

use crate::failure::Failure;
use crate::{interrupt, report};

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(arguments.threads.into())
        .build()
        .context("cannot start threads")?;
    let plan = plan(arguments)?;
    let output = match &arguments.out {
        Some(directory) => Some(Output::open(directory, arguments.overwrite)?),
        None => None,
    };
    interrupt::listen()?;
    let mut follower = Follower::new(output);
    let comparison = pool.install(|| compare(&plan, &mut follower))?;
    follower.finish(&comparison)?;
    print(arguments, &comparison)?;
    if comparison.complete {
        Ok(())
    } else {
        Err(Failure::Interrupted)
    }
}

fn plan(arguments: &Arguments) -> Result<Plan, Failure> {
    arguments.check()?;
    let data = arguments.data.load()?;
    let plan = arguments.plan(data)?;
    plan.check().map_err(|error| Failure::Usage(error.into()))?;
    Ok(plan)
}

fn print(arguments: &Arguments, comparison: &Comparison) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    if arguments.json {
        let json = serde_json::to_string(comparison).context("cannot write JSON")?;
        writeln!(stdout, "{json}")?;
    } else if !comparison.runs.is_empty() {
        writeln!(stdout, "{}", report::table::text(comparison))?;
    }
    if !comparison.complete {
        eprintln!(
            "interrupted: {} of the planned runs are finished",
            comparison.runs.len()
        );
    }
    Ok(())
}
