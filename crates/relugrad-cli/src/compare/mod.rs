//! `relugrad compare`.

mod arguments;
mod merge;
mod output;
mod shard;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use relugrad_train::compare::{Comparison, Plan, Settings, compare};
use relugrad_train::{Event, Observer};

pub(crate) use arguments::Arguments;
use output::Output;

use crate::data::{describe, tell_reading};
use crate::failure::Failure;
use crate::progress::Progress;
use crate::waiting::Waiting;
use crate::{interrupt, print, report};

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let threads = arguments.threads.start()?;
    if !arguments.shards.merge.is_empty() {
        return merge::run(arguments);
    }
    arguments.check()?;
    let plans = plans(arguments)?;
    interrupt::keep();
    let mut outputs = outputs(arguments, &plans)?;
    shard::announce(&plans, &mut outputs)?;
    let mut done = Vec::new();
    for (plan, output) in plans.iter().zip(outputs) {
        if print::is_lost() && arguments.out.is_none() {
            break;
        }
        if plan.share.is_none() {
            headed(arguments, &name(plan), plans.len());
        }
        done.push(threads.run(|| run_plan(arguments, plan, output))?);
    }
    match (arguments.shards.shard, &arguments.out) {
        (Some(shard), Some(out)) => {
            if !arguments.json {
                shard::tell(shard, plans.iter().map(Plan::runs).sum(), &done, out);
            }
            Ok(())
        }
        _ => conclude(&done),
    }
}

/// What is compared: each of the data with each network.
fn plans(arguments: &Arguments) -> Result<Vec<Plan>, Failure> {
    let models = arguments.models()?;
    let mut plans = Vec::new();
    for path in &arguments.paths {
        let data = {
            let _waiting = Waiting::new(format!("reading {path}"));
            arguments.data.load(path)?
        };
        print::note(describe(&data));
        tell_reading(&data.train);
        for model in &models {
            let plan = arguments.plan(data.clone(), model.clone())?;
            plan.check().map_err(|error| Failure::Usage(error.into()))?;
            plans.push(plan);
        }
    }
    shard::deal(&mut plans, arguments.shards.shard);
    Ok(plans)
}

/// Whether comparisons that are made have come out well.
fn conclude(done: &[Comparison]) -> Result<(), Failure> {
    let finished: usize = done.iter().map(|comparison| comparison.runs.len()).sum();
    let diverged: usize = done
        .iter()
        .map(|comparison| comparison.diverged.len())
        .sum();
    match diverged {
        0 => Ok(()),
        _ => Err(Failure::Failed(anyhow!(
            "{diverged} of {} runs diverged; the table says which, and where",
            finished + diverged
        ))),
    }
}

fn name(plan: &Plan) -> String {
    format!("{} {}", plan.data.train.name(), plan.model)
}

/// The same of a comparison that is made.
fn name_of(settings: &Settings) -> String {
    format!("{} {}", settings.data, settings.model)
}

/// The heading of one of several comparisons.
fn headed(arguments: &Arguments, name: &str, comparisons: usize) {
    if comparisons > 1 && !arguments.json {
        print::line(format_args!("\n{name}"));
    }
}

/// The directory of one of the comparisons of a command.
fn place(out: &Path, name: &str, comparisons: usize) -> PathBuf {
    match comparisons {
        1 => out.to_owned(),
        // A folder's name has no separators of paths, nor of lists.
        _ => out.join(name.replace([' ', ':', ',', '/', '\\'], "-")),
    }
}

/// The directory of each comparison, which all are looked at before the first begins.
fn outputs(arguments: &Arguments, plans: &[Plan]) -> Result<Vec<Option<Output>>, Failure> {
    let Some(out) = &arguments.out else {
        return Ok(plans.iter().map(|_| None).collect());
    };
    let out = match arguments.shards.shard {
        None => out.clone(),
        Some(shard) => out.join(shard::folder(shard)),
    };
    let mut folders: Vec<PathBuf> = Vec::new();
    let mut outputs = Vec::new();
    for plan in plans {
        let folder = place(&out, &name(plan), plans.len());
        if folders.contains(&folder) {
            return Err(Failure::Usage(anyhow!(
                "two of the comparisons would go to the directory {} in that of --out; compare them by separate commands",
                folder.file_name().unwrap_or_default().display()
            )));
        }
        outputs.push(Some(Output::open(&folder, plan, arguments)?));
        folders.push(folder);
    }
    Ok(outputs)
}

fn run_plan(
    arguments: &Arguments,
    plan: &Plan,
    mut output: Option<Output>,
) -> Result<Comparison, Failure> {
    let earlier = output.as_mut().and_then(Output::earlier);
    let mut progress = Progress::new("comparing", "{percent:>3}%  {eta} left  {wide_msg}");
    let mut failure: Option<anyhow::Error> = None;
    // Each network is saved as soon as it is trained, and the comparison ends when it cannot be.
    let mut observer = |event: Event<'_>| {
        let flow = progress.on(event);
        if let (Some(output), None) = (&mut output, &failure) {
            failure = output.save(event).err();
        }
        match failure {
            None => flow,
            Some(_) => ControlFlow::Break(()),
        }
    };
    let comparison = compare(plan, earlier, &mut observer, &interrupt::go_on)?;
    progress.finish();
    if let Some(output) = &mut output
        && (plan.share.is_some() || !is_empty(&comparison))
    {
        output.save_report(&comparison)?;
    }
    failure.map_or(Ok(()), Err)?;
    if plan.share.is_none() || arguments.json {
        show(arguments, &comparison)?;
    }
    if let (Some(output), None) = (&output, plan.share) {
        print::note(format_args!("results are in {}", output.contents()));
    }
    match (comparison.complete, plan.share) {
        (true, _) => Ok(comparison),
        (false, Some(share)) => Err(shard::interrupted(
            share.shard,
            &comparison,
            plan.own_runs().len(),
        )),
        (false, None) => Err(Failure::Interrupted(format!(
            "{} of the planned runs are finished; go on with --out and --resume",
            comparison.runs.len()
        ))),
    }
}

fn show(arguments: &Arguments, comparison: &Comparison) -> Result<(), Failure> {
    if arguments.json {
        print::line(serde_json::to_string(comparison).context("cannot write JSON")?);
    } else if !is_empty(comparison) {
        print::line(report::table::text(comparison));
    }
    Ok(())
}

fn is_empty(comparison: &Comparison) -> bool {
    comparison.runs.is_empty() && comparison.diverged.is_empty()
}
