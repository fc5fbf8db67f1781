//! Shards of a comparison: one process makes its share of the runs.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::Args;
use relugrad_train::compare::{Comparison, Plan, Shard, Share};

use super::output::Output;
use crate::failure::Failure;
use crate::print;

/// How a comparison is divided among processes, and joined again.
#[derive(Debug, Args)]
#[command(next_help_heading = "Shards")]
pub(super) struct ShardOptions {
    /// Make only the I-th of N shares of the runs (1/N to N/N), each in a process of its own: a
    /// task of a job array, say. Results go to the directory shard-I-of-N in that of --out, so all
    /// may have the same --out, on one file system or on many
    #[arg(long, value_name = "I/N", requires = "out")]
    pub(super) shard: Option<Shard>,

    /// Join shards into what one process would have written, given all the directories of --out
    /// (or those in them): results.json, curves.csv, report.html and models/ go to --out. Shards
    /// say how they were made, so no other options are needed
    #[arg(
        long,
        value_name = "DIR",
        num_args = 1..,
        conflicts_with_all = [
            "shard", "paths", "models", "hidden", "penalties", "adversarial", "config", "ramp",
            "seeds", "first_seed", "linf", "l2", "l1", "pgd_steps", "pgd_restarts", "attack_samples",
            "cure_step", "projections", "boundary_nearest", "boundary_radius", "certify", "resume",
        ]
    )]
    pub(super) merge: Vec<PathBuf>,
}

/// The folder of a shard in that of `--out`.
pub(super) fn folder(shard: Shard) -> String {
    format!("shard-{}-of-{}", shard.number(), shard.of())
}

/// The shard that a folder is named after.
pub(super) fn of_folder(name: &str) -> Option<Shard> {
    let (number, of) = name.strip_prefix("shard-")?.split_once("-of-")?;
    let shard = Shard::new(number.parse().ok()?, of.parse().ok()?).ok()?;
    (folder(shard) == name).then_some(shard)
}

/// Gives each of the comparisons of a command its share of the runs.
pub(super) fn deal(plans: &mut [Plan], shard: Option<Shard>) {
    let total = plans.iter().map(Plan::runs).sum();
    let mut before = 0;
    for plan in plans {
        plan.share = shard.map(|shard| Share {
            shard,
            before,
            total,
        });
        before += plan.runs();
    }
}

/// Writes what every comparison of a shard is about before the first run, so that merging knows of
/// those that are never begun.
pub(super) fn announce(plans: &[Plan], outputs: &mut [Option<Output>]) -> Result<(), Failure> {
    for (plan, output) in plans.iter().zip(outputs) {
        if let (Some(output), Some(_)) = (output, plan.share) {
            output.announce(&plan.begin()?)?;
        }
    }
    Ok(())
}

/// Why a shard has ended early.
pub(super) fn interrupted(shard: Shard, comparison: &Comparison, own: usize) -> Failure {
    let finished = comparison.runs.len() + comparison.diverged.len();
    Failure::Interrupted(format!(
        "{finished} of the {own} runs of shard {shard} are finished; go on with the same command and --resume"
    ))
}

/// Says what a shard has done, what is left to the others, and what comes then.
pub(super) fn tell(shard: Shard, total: usize, done: &[Comparison], out: &Path) {
    let runs: usize = done.iter().map(|c| c.runs.len()).sum();
    let diverged: usize = done.iter().map(|c| c.diverged.len()).sum();
    let own = runs + diverged;
    let made = out.join(folder(shard));
    let mut text = match own {
        0 => format!("shard {shard} is done: it has none of the {total} runs"),
        _ => format!(
            "shard {shard} is done: {own} of the {total} runs are in {}",
            made.display()
        ),
    };
    if diverged > 0 {
        text += &format!(" ({diverged} diverged)");
    }
    if own < total {
        text += &format!("; the other shards have the other {}", total - own);
    }
    let out = out.display();
    print::line(format_args!(
        "{text}\nwhen all are done: relugrad compare --merge {out} --out {out}"
    ));
}

/// Refuses options that --merge has no use for, beside those that the parser knows of.
pub(super) fn merging_alone(given: impl IntoIterator<Item = String>) -> Result<(), Failure> {
    match given.into_iter().next() {
        None => Ok(()),
        Some(option) => Err(Failure::Usage(anyhow!(
            "--merge takes {option} from the shards; leave that option out"
        ))),
    }
}
