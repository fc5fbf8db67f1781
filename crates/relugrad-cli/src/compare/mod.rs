//! `relugrad compare`.

mod arguments;
mod output;

use std::ops::ControlFlow;

use anyhow::{Context, anyhow};
use relugrad_train::compare::{Comparison, Plan, compare};
use relugrad_train::{Event, Observer};

pub(crate) use arguments::Arguments;
use output::Output;

use crate::failure::Failure;
use crate::progress::Progress;
use crate::{interrupt, print, report};

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let threads = arguments.threads.start()?;
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
    let (mut runs, mut diverged) = (0, 0);
    let outputs = outputs(arguments, &plans)?;
    for (plan, output) in plans.iter().zip(outputs) {
        if print::is_lost() && arguments.out.is_none() {
            break;
        }
        if several && !arguments.json {
            print::line(format_args!("\n{}", name(plan)));
        }
        let comparison = threads.run(|| run_plan(arguments, plan, output))?;
        runs += comparison.runs.len() + comparison.diverged.len();
        diverged += comparison.diverged.len();
    }
    match diverged {
        0 => Ok(()),
        _ => Err(Failure::Failed(anyhow!(
            "{diverged} of {runs} runs diverged; the table says which, and where"
        ))),
    }
}

fn name(plan: &Plan) -> String {
    format!("{} {}", plan.data.train.name(), plan.model)
}

/// The directory of each comparison, which all are looked at before the first begins.
fn outputs(arguments: &Arguments, plans: &[Plan]) -> Result<Vec<Option<Output>>, Failure> {
    let Some(out) = &arguments.out else {
        return Ok(plans.iter().map(|_| None).collect());
    };
    if let [plan] = plans {
        return Ok(vec![Some(Output::open(out, plan, arguments)?)]);
    }
    let mut names: Vec<String> = Vec::new();
    let mut outputs = Vec::new();
    for plan in plans {
        // A folder's name has no separators of paths, nor of lists.
        let folder = name(plan).replace([' ', ':', ',', '/', '\\'], "-");
        if names.contains(&folder) {
            return Err(Failure::Usage(anyhow!(
                "two of the comparisons would go to the directory {folder} in that of --out; compare them by separate commands"
            )));
        }
        outputs.push(Some(Output::open(&out.join(&folder), plan, arguments)?));
        names.push(folder);
    }
    Ok(outputs)
}

fn run_plan(
    arguments: &Arguments,
    plan: &Plan,
    mut output: Option<Output>,
) -> Result<Comparison, Failure> {
    let earlier = output.as_mut().and_then(Output::earlier);
    let mut progress = Progress::new("{percent:>3}%  {eta} left  {msg}");
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
        && !(comparison.runs.is_empty() && comparison.diverged.is_empty())
    {
        output.save_report(&comparison)?;
    }
    failure.map_or(Ok(()), Err)?;
    show(arguments, &comparison)?;
    match comparison.complete {
        true => Ok(comparison),
        false => Err(Failure::Interrupted(format!(
            "{} of the planned runs are finished; go on with --out and --resume",
            comparison.runs.len()
        ))),
    }
}

fn show(arguments: &Arguments, comparison: &Comparison) -> Result<(), Failure> {
    if arguments.json {
        print::line(serde_json::to_string(comparison).context("cannot write JSON")?);
    } else if !(comparison.runs.is_empty() && comparison.diverged.is_empty()) {
        print::line(report::table::text(comparison));
    }
    Ok(())
}
