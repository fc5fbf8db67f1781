//! `relugrad compare`.

mod arguments;
mod follower;
mod output;
mod progress;

use std::path::PathBuf;

use anyhow::Context;
use relugrad_train::compare::{Comparison, Plan, compare};

pub(crate) use arguments::Arguments;
use follower::Follower;
use output::Output;

use crate::failure::Failure;
use crate::{interrupt, print, report};

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(arguments.threads.into())
        .build()
        .context("cannot start threads")?;
    arguments.check()?;
    let models = arguments.models()?;
    let several = arguments.paths.len() * models.len() > 1;
    let mut plans = Vec::new();
    for path in &arguments.paths {
        let data = arguments.data.load(path)?;
        for model in &models {
            let plan = arguments.plan(data.clone(), model.clone())?;
            plan.check().map_err(|error| Failure::Usage(error.into()))?;
            plans.push(plan);
        }
    }
    interrupt::keep();
    for plan in &plans {
        if print::is_lost() && arguments.out.is_none() {
            break;
        }
        let name = format!("{} {}", plan.data.train.name(), plan.model);
        if several && !arguments.json {
            print::line(format_args!("\n{name}"));
        }
        // A folder's name has no separators of paths, nor of lists.
        let folder = name.replace([' ', ':', ',', '/', '\\'], "-");
        let out = arguments.out.as_ref();
        let out = out.map(|out| {
            if several {
                out.join(folder)
            } else {
                out.clone()
            }
        });
        pool.install(|| run_plan(arguments, plan, out))?;
    }
    Ok(())
}

fn run_plan(arguments: &Arguments, plan: &Plan, out: Option<PathBuf>) -> Result<(), Failure> {
    let (mut output, mut earlier) = (None, None);
    if let Some(directory) = &out {
        let opened = Output::open(directory, arguments.overwrite, arguments.resume)?;
        earlier = opened.earlier()?;
        output = Some(opened);
    }
    let mut follower = Follower::new(output);
    let comparison = compare(plan, earlier, &mut follower, &interrupt::go_on)?;
    follower.finish(&comparison)?;
    show(arguments, &comparison)?;
    match comparison.complete {
        true => Ok(()),
        false => Err(Failure::Interrupted(format!(
            "{} of the planned runs are finished; go on with --out and --resume",
            comparison.runs.len()
        ))),
    }
}

fn show(arguments: &Arguments, comparison: &Comparison) -> Result<(), Failure> {
    if arguments.json {
        print::line(serde_json::to_string(comparison).context("cannot write JSON")?);
    } else if !comparison.runs.is_empty() {
        print::line(report::table::text(comparison));
    }
    Ok(())
}
