//! Shards joined into the comparison that one process makes.

use std::collections::BTreeMap;

use super::run::differing;
use crate::comparison::{Comparison, Diverged, Run, Settings};
use crate::shard::{Part, Shard, key, name};

/// The results of a shard, and where they are from.
#[derive(Clone, Debug)]
pub struct ShardResults {
    /// Their folder, for messages.
    pub from: String,
    /// What is there.
    pub comparison: Comparison,
}

/// A whole comparison that was made in shards.
#[derive(Clone, Debug)]
pub struct Merged {
    /// As one process makes it.
    pub comparison: Comparison,
    /// For each of its [`runs`](Comparison::runs), the places of the shards that have it.
    pub sources: Vec<Vec<usize>>,
}

/// The reason why shards cannot be joined.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// There is nothing to join.
    #[error("there is no shard to merge")]
    Nothing,

    /// Results of a whole comparison among the shards.
    #[error(
        "{from} holds no shard but a whole comparison; leave it out, or make it by `compare --shard`"
    )]
    NoShard {
        /// Where it is from.
        from: String,
    },

    /// Shards of two comparisons.
    #[error(
        "{from} is of another comparison than {other}: they differ in {}; merge what one command has made with the same \
         options, data and version", .keys.join(", ")
    )]
    OtherSettings {
        /// Where it is from.
        from: String,
        /// What it was compared with.
        other: String,
        /// What differs.
        keys: Vec<String>,
    },

    /// A run that its comparison does not plan.
    #[error("{from} has a run that is not planned there ({run}); make that shard again")]
    Unplanned {
        /// Where it is from.
        from: String,
        /// The run.
        run: String,
    },

    /// A run of which there are two results.
    #[error("{from} and {other} have different results of one run ({run}); leave one of them out")]
    Conflict {
        /// The run.
        run: String,
        /// One.
        from: String,
        /// The other.
        other: String,
    },

    /// Runs that no shard has.
    #[error("{} of the {planned} runs are missing", count(.shards))]
    Missing {
        /// Of how many.
        planned: usize,
        /// The shards that have them to make.
        shards: Vec<MissingShard>,
    },
}

/// What a shard has not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingShard {
    /// Which shard.
    pub shard: Shard,
    /// Its results so far, if there are any.
    pub from: Option<String>,
    /// The runs that it has to make yet.
    pub runs: Vec<String>,
}

fn count(shards: &[MissingShard]) -> usize {
    shards.iter().map(|shard| shard.runs.len()).sum()
}

/// A run that is finished or has diverged.
#[derive(Clone)]
enum Ended<'a> {
    Finished(&'a Run),
    Diverged(&'a Diverged),
}

impl Ended<'_> {
    /// Whether both have the same numbers, whatever time they took.
    fn same(&self, other: &Ended<'_>) -> bool {
        match (self, other) {
            (Ended::Finished(one), Ended::Finished(other)) => {
                let other = Run {
                    step_milliseconds: one.step_milliseconds,
                    ..(*other).clone()
                };
                **one == other
            }
            (Ended::Diverged(one), Ended::Diverged(other)) => one == other,
            _ => false,
        }
    }

    fn key(&self) -> (&str, u64, u64) {
        match self {
            Ended::Finished(run) => key(&run.regularizer, run.lambda, run.seed),
            Ended::Diverged(run) => key(&run.regularizer, run.lambda, run.seed),
        }
    }

    fn milliseconds(&self) -> f64 {
        match self {
            Ended::Finished(run) => run.step_milliseconds,
            Ended::Diverged(_) => 0.0,
        }
    }

    fn name(&self) -> String {
        match self {
            Ended::Finished(run) => name(&run.regularizer, run.lambda, run.seed),
            Ended::Diverged(run) => name(&run.regularizer, run.lambda, run.seed),
        }
    }
}

/// Joins shards, in any order, into the comparison that one process makes: the same settings and the
/// same runs in the same order.
///
/// A run that several shards have counts once if they agree in all but its time, of which the
/// shortest is taken. The number of threads is the largest of the shards'.
///
/// # Errors
/// [`MergeError`], also if a run is missing.
pub fn merge(shards: &[ShardResults]) -> Result<Merged, MergeError> {
    let first = shards.first().ok_or(MergeError::Nothing)?;
    for shard in shards {
        check(shard, first)?;
    }
    let part = first.comparison.part.as_ref().ok_or(MergeError::Nothing)?;
    let settings = &first.comparison.settings;
    let found = collect(shards, part)?;
    let planned = part.variants.len() * settings.seeds.len();
    if found.len() < planned {
        let shards = missing(shards, &found);
        return Err(MergeError::Missing { planned, shards });
    }
    let threads = shards.iter().map(|shard| shard.comparison.settings.threads);
    let mut merged = Merged {
        comparison: Comparison {
            settings: Settings {
                threads: threads.max().unwrap_or_default(),
                ..settings.clone()
            },
            runs: Vec::new(),
            diverged: Vec::new(),
            complete: true,
            part: None,
        },
        sources: Vec::new(),
    };
    for (run, sources) in found.into_values() {
        match run {
            Ended::Finished(run) => {
                merged.comparison.runs.push(run.clone());
                merged.sources.push(sources);
            }
            Ended::Diverged(run) => merged.comparison.diverged.push(run.clone()),
        }
    }
    Ok(merged)
}

/// Refuses what is no shard of the same comparison as another one.
fn check(shard: &ShardResults, other: &ShardResults) -> Result<(), MergeError> {
    let from = || shard.from.clone();
    let (Some(own), Some(part)) = (&shard.comparison.part, &other.comparison.part) else {
        return Err(MergeError::NoShard { from: from() });
    };
    let settings = Settings {
        threads: other.comparison.settings.threads,
        ..shard.comparison.settings.clone()
    };
    let mut keys = differing(&settings, &other.comparison.settings);
    let same_place = (own.share.before, own.share.total) == (part.share.before, part.share.total);
    if own.variants != part.variants {
        keys.push("variants".into());
    } else if !same_place {
        keys.push("the comparisons beside it".into());
    }
    match keys.is_empty() {
        true => Ok(()),
        false => Err(MergeError::OtherSettings {
            from: from(),
            other: other.from.clone(),
            keys,
        }),
    }
}

/// All runs by their number, each with the places of the shards that have it.
type Found<'a> = BTreeMap<usize, (Ended<'a>, Vec<usize>)>;

/// The runs of shards that are all of one comparison.
fn collect<'a>(shards: &'a [ShardResults], part: &Part) -> Result<Found<'a>, MergeError> {
    let mut found = Found::new();
    let numbers = part.numbers(&shards[0].comparison.settings.seeds);
    for (place, shard) in shards.iter().enumerate() {
        let finished = shard.comparison.runs.iter().map(Ended::Finished);
        let diverged = shard.comparison.diverged.iter().map(Ended::Diverged);
        for run in finished.chain(diverged) {
            let number = numbers.get(&run.key());
            let number = number.copied().ok_or_else(|| MergeError::Unplanned {
                from: shard.from.clone(),
                run: run.name(),
            })?;
            add(&mut found, number, run, place, shards)?;
        }
    }
    Ok(found)
}

fn add<'a>(
    found: &mut Found<'a>,
    number: usize,
    run: Ended<'a>,
    place: usize,
    shards: &[ShardResults],
) -> Result<(), MergeError> {
    let (before, places) = found
        .entry(number)
        .or_insert_with(|| (run.clone(), Vec::new()));
    if !run.same(before) {
        return Err(MergeError::Conflict {
            run: run.name(),
            from: shards[places[0]].from.clone(),
            other: shards[place].from.clone(),
        });
    }
    if run.milliseconds() < before.milliseconds() {
        *before = run;
    }
    places.push(place);
    Ok(())
}

/// The planned runs that are not found, by the shards that have them to make, of which there are as
/// many as in the finest division.
fn missing(shards: &[ShardResults], found: &Found<'_>) -> Vec<MissingShard> {
    let parts = shards
        .iter()
        .filter_map(|shard| shard.comparison.part.as_ref());
    let of = parts.clone().map(|part| part.share.shard.of()).max();
    let (Some(part), Some(of)) = (parts.clone().next(), of) else {
        return Vec::new();
    };
    let settings = &shards[0].comparison.settings;
    let planned = part.variants.len() * settings.seeds.len();
    let mut missing: BTreeMap<Shard, Vec<String>> = BTreeMap::new();
    for number in (0..planned).filter(|number| !found.contains_key(number)) {
        let (shard, run) = part.planned(number, of, &settings.seeds);
        missing.entry(shard).or_default().push(run);
    }
    let from = |shard: Shard| {
        let same = |results: &&ShardResults| {
            let part = results.comparison.part.as_ref();
            part.is_some_and(|part| part.share.shard == shard)
        };
        shards.iter().find(same).map(|results| results.from.clone())
    };
    missing
        .into_iter()
        .map(|(shard, runs)| MissingShard {
            shard,
            from: from(shard),
            runs,
        })
        .collect()
}
