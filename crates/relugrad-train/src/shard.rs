//! Shards: a comparison whose runs are made by several processes.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// One of `of` equal shares of the runs of a command, written `3/20` and counted from 1.
///
/// Runs are dealt like cards, one to each shard in turn, and all seeds of one regularizer before
/// those of the next. So the runs of two shards differ by at most one, and so do those of one
/// regularizer, whose runs take about the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Shard {
    of: usize,
    number: usize,
}

impl Shard {
    /// Shard `number` of `of`.
    ///
    /// # Errors
    /// [`Error::Shard`] unless `1 ≤ number ≤ of`.
    pub fn new(number: usize, of: usize) -> Result<Shard> {
        let problem = match (number, of) {
            (_, 0) => "there is at least one shard".to_owned(),
            (0, _) => format!("shards are counted from 1: the first is 1/{of}"),
            _ if number > of => format!("of {of} shards the last is {of}/{of}"),
            _ => return Ok(Shard { of, number }),
        };
        Err(Error::Shard { problem })
    }

    /// Its number, from 1.
    pub fn number(self) -> usize {
        self.number
    }

    /// How many shards there are.
    pub fn of(self) -> usize {
        self.of
    }

    /// The one of `of` shards that has the run at a place of the deal.
    fn at(place: usize, of: usize) -> Shard {
        let number = place % of + 1;
        Shard { of, number }
    }
}

impl FromStr for Shard {
    type Err = Error;

    fn from_str(text: &str) -> Result<Shard> {
        let numbers = text.split_once('/');
        let numbers = numbers.and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        let (number, of) = numbers.ok_or_else(|| Error::Shard {
            problem: "a shard is its number and how many there are, such as 3/20".into(),
        })?;
        Shard::new(number, of)
    }
}

impl TryFrom<String> for Shard {
    type Error = Error;

    fn try_from(text: String) -> Result<Shard> {
        text.parse()
    }
}

impl From<Shard> for String {
    fn from(shard: Shard) -> String {
        shard.to_string()
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

/// A shard of a command that makes one comparison or several, and where this one is among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Which shard.
    pub shard: Shard,
    /// Runs of the comparisons before this one, all shards counted.
    pub before: usize,
    /// Runs of all comparisons, all shards counted.
    pub total: usize,
}

impl Share {
    /// The numbers of the shard's runs among `variants · seeds` of its comparison, in the order in
    /// which one process makes them.
    pub(crate) fn runs(self, variants: usize, seeds: usize) -> Vec<usize> {
        let own = |number: &usize| self.owner(*number, variants, seeds) == self.shard;
        (0..variants * seeds).filter(own).collect()
    }

    /// The shard that has the run of a number.
    fn owner(self, number: usize, variants: usize, seeds: usize) -> Shard {
        let (seed, variant) = (number / variants, number % variants);
        Shard::at(self.before + variant * seeds + seed, self.shard.of)
    }
}

/// What the results of a shard say of the whole comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Which share of it these results are.
    #[serde(flatten)]
    pub share: Share,
    /// All that is compared, plain training first: the runs of a seed, in their order.
    pub variants: Vec<Compared>,
}

/// A regularizer with its weight, as in [`Run`](crate::compare::Run).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    /// Its name.
    pub regularizer: String,
    /// Its weight.
    pub lambda: f64,
}

/// The runs of a comparison by what they are, with their numbers from 0.
pub(crate) type Numbers<'a> = HashMap<(&'a str, u64, u64), usize>;

/// What a run is: its regularizer, the bits of its weight, its seed.
pub(crate) fn key(regularizer: &str, lambda: f64, seed: u64) -> (&str, u64, u64) {
    (regularizer, lambda.to_bits(), seed)
}

impl Part {
    /// The number of each run of the comparison.
    pub(crate) fn numbers(&self, seeds: &[u64]) -> Numbers<'_> {
        let seeds = seeds.iter();
        let runs = seeds.flat_map(|&seed| self.variants.iter().map(move |one| (one, seed)));
        runs.enumerate()
            .map(|(number, (one, seed))| (key(&one.regularizer, one.lambda, seed), number))
            .collect()
    }

    /// The one of `of` shards that has the run of a number, and what that run is.
    pub(crate) fn planned(&self, number: usize, of: usize, seeds: &[u64]) -> (Shard, String) {
        let shard = Shard {
            of,
            ..self.share.shard
        };
        let share = Share {
            shard,
            ..self.share
        };
        let variants = self.variants.len();
        let one = &self.variants[number % variants];
        let run = name(&one.regularizer, one.lambda, seeds[number / variants]);
        (share.owner(number, variants, seeds.len()), run)
    }
}

/// A run in words.
pub(crate) fn name(regularizer: &str, lambda: f64, seed: u64) -> String {
    match lambda {
        0.0 => format!("{regularizer}, seed {seed}"),
        _ => format!("{regularizer} {lambda}, seed {seed}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_read_as_it_is_written_and_others_are_refused() {
        for text in ["1/1", "3/20", "20/20"] {
            assert_eq!(text.parse::<Shard>().unwrap().to_string(), text);
        }
        let wrong = [
            ("0/3", "counted from 1"),
            ("4/3", "the last is 3/3"),
            ("3/0", "at least one"),
            ("3", "such as 3/20"),
            ("a/b", "such as 3/20"),
            ("-1/3", "such as 3/20"),
            ("1/2/3", "such as 3/20"),
            ("", "such as 3/20"),
        ];
        for (text, problem) in wrong {
            let error = text.parse::<Shard>().unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }

    /// Every run belongs to one shard, and no shard has two runs more than another: neither of all,
    /// nor of one regularizer.
    #[test]
    fn shards_part_the_runs_evenly() {
        let sizes = [(1, 1), (1, 5), (7, 1), (7, 5), (3, 4), (8, 8)];
        for (before, (variants, seeds)) in [0, 1, 5].into_iter().zip(sizes).chain([(2, (6, 9))]) {
            for of in 1..=variants * seeds + 2 {
                let runs = |number| {
                    let shard = Shard::new(number, of).unwrap();
                    let total = before + variants * seeds;
                    let share = Share {
                        shard,
                        before,
                        total,
                    };
                    share.runs(variants, seeds)
                };
                let shards: Vec<Vec<usize>> = (1..=of).map(runs).collect();
                let mut all = shards.concat();
                all.sort_unstable();
                assert_eq!(all, (0..variants * seeds).collect::<Vec<_>>());
                let even = |count: &dyn Fn(&Vec<usize>) -> usize| {
                    let counts = shards.iter().map(count);
                    counts.clone().max().unwrap() - counts.min().unwrap() <= 1
                };
                assert!(even(&Vec::len));
                for variant in 0..variants {
                    let own = |run: &&usize| **run % variants == variant;
                    assert!(even(&|runs| runs.iter().filter(own).count()));
                }
            }
        }
    }
}
