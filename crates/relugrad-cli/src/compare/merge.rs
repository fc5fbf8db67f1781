//! `relugrad compare --merge`.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use relugrad_io::read_result;
use relugrad_train::compare::{
    Comparison, MergeError, Merged, MissingShard, ShardResults, Share, merge,
};

use super::output::{MODELS, Output, RESULTS, model_in};
use super::{Arguments, conclude, headed, name_of, place, shard, show};
use crate::failure::Failure;

/// Models that are in memory at one time.
const BATCH: usize = 64;

/// The shards of one of the comparisons of a command.
#[derive(Default)]
struct Group {
    folders: Vec<PathBuf>,
    results: Vec<ShardResults>,
}

/// Joins shards.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let given = arguments.given_keys();
    shard::merging_alone(given)?;
    let groups = groups(&arguments.shards.merge)?;
    let merged = merge_all(&groups)?;
    let names = merged.iter().map(|one| name_of(&one.comparison.settings));
    let names: Vec<String> = names.collect();
    let mut outputs = Vec::new();
    for ((group, one), name) in groups.iter().zip(&merged).zip(&names) {
        let Some(out) = &arguments.out else { break };
        let folder = place(out, name, merged.len());
        let output = Output::open_merged(&folder, &one.comparison, arguments, &inputs(group))?;
        outputs.push(output);
    }
    for ((group, one), output) in groups.iter().zip(&merged).zip(&mut outputs) {
        write(group, one, output)?;
    }
    let comparisons: Vec<Comparison> = merged.into_iter().map(|one| one.comparison).collect();
    for (comparison, name) in comparisons.iter().zip(&names) {
        headed(arguments, name, comparisons.len());
        show(arguments, comparison)?;
    }
    conclude(&comparisons)
}

/// The files of a group's shards that no output may replace.
fn inputs(group: &Group) -> Vec<PathBuf> {
    let files = group.folders.iter().zip(&group.results);
    files
        .flat_map(|(folder, results)| {
            let runs = results.comparison.runs.iter();
            let models = runs.map(|run| model_in(run, &results.comparison));
            let names = models.chain([RESULTS.to_owned()]);
            names.map(|name| folder.join(name)).collect::<Vec<_>>()
        })
        .collect()
}

/// Writes the networks of a comparison first, as they come in making it, and then its tables.
fn write(group: &Group, merged: &Merged, output: &mut Output) -> Result<()> {
    let Merged {
        comparison,
        sources,
    } = merged;
    let runs: Vec<_> = comparison.runs.iter().zip(sources).collect();
    for batch in runs.chunks(BATCH) {
        let mut files = Vec::new();
        for (run, sources) in batch {
            let name = model_in(run, comparison);
            let bytes = network(group, &name, sources)?;
            files.push((name, bytes));
        }
        let files: Vec<(&str, &[u8])> = files.iter().map(|(n, b)| (&**n, &**b)).collect();
        output.write(&files)?;
    }
    output.save_report(comparison)
}

/// A run's network, which all of its shards have alike.
fn network(group: &Group, name: &str, sources: &[usize]) -> Result<Vec<u8>> {
    let mut networks = sources.iter().map(|&source| {
        let folder = &group.folders[source];
        read_result(folder, "compare", name).map(|bytes| (folder.join(name), bytes))
    });
    let (path, bytes) = networks.next().context("a run is in no shard")??;
    for other in networks {
        let (other, others) = other?;
        if others != bytes {
            bail!(
                "{} and {} are different networks of one run; leave one of their folders out",
                path.display(),
                other.display()
            );
        }
    }
    Ok(bytes)
}

/// Joins the shards of each comparison, if all runs of all are there.
fn merge_all(groups: &[Group]) -> Result<Vec<Merged>> {
    let (mut merged, mut missing, mut planned) = (Vec::new(), Vec::new(), 0);
    for group in groups {
        match merge(&group.results) {
            Ok(one) => {
                planned += one.comparison.runs.len() + one.comparison.diverged.len();
                merged.push(one);
            }
            Err(MergeError::Missing {
                planned: of,
                shards,
            }) => {
                planned += of;
                missing.extend(shards);
            }
            Err(error) => return Err(error.into()),
        }
    }
    let shards = groups.iter().flat_map(|group| &group.results);
    for shard in shards {
        let total = share(&shard.comparison).map_or(planned, |share| share.total);
        if total != planned {
            bail!(
                "{} is of a command with {total} runs, but the comparisons in these folders have {planned}; give the folders \
                 of all shards of one command, with all that is in them",
                shard.from
            );
        }
    }
    match missing.is_empty() {
        true => Ok(merged),
        false => Err(tell_missing(groups, missing, planned)),
    }
}

fn share(comparison: &Comparison) -> Option<Share> {
    comparison.part.as_ref().map(|part| part.share)
}

/// Which runs are missing, and the commands that make them.
fn tell_missing(groups: &[Group], missing: Vec<MissingShard>, planned: usize) -> anyhow::Error {
    let mut shards: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for MissingShard { shard, runs, .. } in missing {
        shards.entry(shard).or_default().extend(runs);
    }
    let count: usize = shards.values().map(Vec::len).sum();
    let lines = shards.iter().map(|(&shard, runs)| {
        let out = out_of(groups, shard);
        format!(
            "\n  relugrad compare … --shard {shard} --out {} --resume   makes {}",
            out.display(),
            runs.join("; ")
        )
    });
    anyhow!(
        "{count} of the {planned} runs are missing; with the options of the other shards{}",
        lines.collect::<String>()
    )
}

/// The folder of `--out` of a shard, or where the others have theirs.
fn out_of(groups: &[Group], wanted: relugrad_train::compare::Shard) -> PathBuf {
    let folders = groups.iter().flat_map(|group| &group.folders);
    let roots = folders.filter_map(|folder| {
        let named = |path: &&Path| shard_of(path).is_some();
        let root = folder.ancestors().find(named);
        let root = root.unwrap_or(folder);
        Some((shard_of(root), root.parent()?.to_owned()))
    });
    let roots: Vec<_> = roots.collect();
    let own = roots.iter().find(|(shard, _)| *shard == Some(wanted));
    match own.or(roots.first()) {
        Some((_, out)) if *out != *"" => out.clone(),
        _ => PathBuf::from("."),
    }
}

fn shard_of(folder: &Path) -> Option<relugrad_train::compare::Shard> {
    shard::of_folder(folder.file_name()?.to_str()?)
}

/// The shards in the given folders: those of each comparison by themselves, in the command's order.
fn groups(given: &[PathBuf]) -> Result<Vec<Group>> {
    let mut seen = HashSet::new();
    let mut groups: BTreeMap<usize, Group> = BTreeMap::new();
    for directory in given {
        let folders = results_in(directory)?;
        if folders.is_empty() {
            bail!(
                "{} holds no shard of a comparison: no {RESULTS} of `relugrad compare --shard`",
                directory.display()
            );
        }
        for folder in folders {
            let whole = folder.canonicalize().unwrap_or_else(|_| folder.clone());
            if !seen.insert(whole) {
                continue;
            }
            let comparison = results(&folder)?;
            let before = share(&comparison).map_or(0, |share| share.before);
            let group = groups.entry(before).or_default();
            group.results.push(ShardResults {
                from: folder.display().to_string(),
                comparison,
            });
            group.folders.push(folder);
        }
    }
    Ok(groups.into_values().collect())
}

fn results(folder: &Path) -> Result<Comparison> {
    let bytes = read_result(folder, "compare", RESULTS)?;
    serde_json::from_slice(&bytes).with_context(|| {
        format!(
            "{} is no result of this version of relugrad",
            folder.join(RESULTS).display()
        )
    })
}

/// The folders of results in a folder that was given: its shards', or its own.
fn results_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let children = folders(directory)?;
    let shards: Vec<PathBuf> = children
        .iter()
        .filter(|path| shard_of(path).is_some())
        .cloned()
        .collect();
    let shards = match shards.is_empty() {
        true => vec![directory.to_owned()],
        false => shards,
    };
    let mut found = Vec::new();
    for shard in shards {
        if shard.join(RESULTS).symlink_metadata().is_ok() {
            found.push(shard);
            continue;
        }
        let inner = folders(&shard)?.into_iter();
        found.extend(inner.filter(|path| path.join(RESULTS).symlink_metadata().is_ok()));
    }
    Ok(found)
}

/// The folders in a folder, in order.
fn folders(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory)
        .with_context(|| format!("cannot read the folder {}", directory.display()))?;
    let paths = entries.map(|entry| Ok(entry?.path()));
    let mut paths: Vec<PathBuf> = paths.collect::<std::io::Result<_>>()?;
    paths.retain(|path| path.is_dir() && !path.ends_with(MODELS));
    paths.sort();
    Ok(paths)
}
