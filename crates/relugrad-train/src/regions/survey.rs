//! Statistics of regions over a data set.

use std::collections::HashSet;
use std::ops::ControlFlow;

use ndarray::ArrayView1;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use relugrad::{ActivationPattern, Metric, Network};
use serde::{Deserialize, Serialize};

use super::cure::{CureParts, CureStep, cure_parts, cure_step};
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::evaluate::{Samples, prediction};

/// Samples that go through the network together.
const BATCH: usize = 64;

/// What is surveyed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Survey {
    /// How many samples, from the first on, are told into regions.
    pub samples: usize,
    /// For how many of these the distances to all hyperplanes are computed.
    pub measured: usize,
    /// How many pairs of the same class, and as many of different classes, are joined by segments.
    pub pairs: usize,
    /// Seed of the choice of pairs.
    pub seed: u64,
    /// CURE's step, which is split into its smooth part and its kinks for the samples that are measured.
    pub cure_step: f64,
}

/// Quantiles of a quantity over samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// The least value.
    pub least: f64,
    /// A quarter of the values is below.
    pub quarter: f64,
    /// Half of the values is below.
    pub median: f64,
    /// Three quarters of the values are below.
    pub three_quarters: f64,
    /// The largest value.
    pub largest: f64,
}

impl Quantiles {
    /// Those of some values, or `None` without any; between two values they are interpolated.
    pub fn of(mut values: Vec<f64>) -> Option<Quantiles> {
        values.sort_by(f64::total_cmp);
        let last = values.len().checked_sub(1)?;
        let at = |share: f64| {
            let place = share * last as f64;
            let (low, part) = (place.floor() as usize, place.fract());
            if part == 0.0 {
                return values[low];
            }
            (1.0 - part) * values[low] + part * values[low + 1]
        };
        Some(Quantiles {
            least: values[0],
            quarter: at(0.25),
            median: at(0.5),
            three_quarters: at(0.75),
            largest: values[last],
        })
    }
}

/// Distances in one norm.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Distances {
    /// To the nearest kink.
    pub kink: Quantiles,
    /// To the decision boundary in the region's affine map, for the predicted class.
    pub boundary: Quantiles,
    /// The smaller of both, and 0 where the prediction is wrong.
    pub certified: Quantiles,
}

/// Crossings on the segments between samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pairs {
    /// Number of pairs.
    pub pairs: usize,
    /// Gates that switch between the two samples.
    pub crossings: Quantiles,
    /// Crossings per unit of ℓ2 distance.
    pub density: Quantiles,
}

/// What a survey has found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Name of the data.
    pub data: String,
    /// Samples that were told into regions.
    pub samples: usize,
    /// Regions that they lie in.
    pub regions: usize,
    /// Samples within rounding of a kink.
    pub near_kink: usize,
    /// Gates of the network.
    pub gates: usize,
    /// Samples whose distances were measured.
    pub measured: usize,
    /// Distances in ℓ1, ℓ2 and ℓ∞; `None` if no sample was measured.
    pub distances: Option<[Distances; 3]>,
    /// CURE's parts; `None` if no sample was measured.
    pub cure: Option<CureParts>,
    /// Between samples of one class; `None` without such pairs.
    pub same_class: Option<Pairs>,
    /// Between samples of different classes.
    pub different_classes: Option<Pairs>,
}

/// Surveys the regions around samples. `follow` is called with parts done and parts in all; `Break` ends the survey
/// without a report.
///
/// Cost: a forward pass for each sample, a [`Region`](relugrad::Region) for each that is measured, and a
/// [`Walk`](relugrad::Walk) for each pair.
///
/// # Errors
/// [`Error::EmptyDataset`], and those of [`Network::trace`].
pub fn survey(
    network: &Network<f64>,
    data: &Dataset,
    survey: &Survey,
    follow: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Option<Report>> {
    let samples: Samples<f64> = Samples::new(data).first(survey.samples);
    if samples.is_empty() {
        return Err(Error::EmptyDataset {
            name: data.name().to_owned(),
            what: "samples",
        });
    }
    let measured = survey.measured.min(samples.len());
    let (same, different) = pairs(&samples.labels, survey.pairs, survey.seed);
    let total = samples.len() + measured + same.len() + different.len();
    let mut done = 0;
    let mut step = |count: usize| {
        done += count;
        follow(done, total).is_break()
    };
    let (mut patterns, mut near_kink) = (HashSet::<ActivationPattern>::new(), 0);
    for (_, images, _) in samples.batches() {
        let trace = network.trace(images)?;
        patterns.extend((0..images.nrows()).map(|i| trace.pattern().of_sample(i)));
        near_kink += network
            .near_kinks(images)?
            .iter()
            .filter(|&&count| count > 0)
            .count();
        if step(images.nrows()) {
            return Ok(None);
        }
    }
    let mut found = Vec::new();
    for block in (0..measured).collect::<Vec<usize>>().chunks(BATCH) {
        let measure = |&i: &usize| {
            let (x, label) = (samples.images.row(i), samples.labels[i]);
            let cure = cure_step(network, x, label, survey.cure_step)?;
            Ok((measure(network, x, label)?, cure))
        };
        let block: Vec<_> = block
            .par_iter()
            .map(measure)
            .collect::<relugrad::Result<_>>()?;
        let count = block.len();
        found.extend(block);
        if step(count) {
            return Ok(None);
        }
    }
    let steps: Vec<CureStep> = found.iter().map(|(_, step)| *step).collect();
    let found: Vec<Measured> = found.into_iter().map(|(measured, _)| measured).collect();
    let mut walked = Vec::new();
    for pairs in [&same, &different] {
        let mut counts = Vec::new();
        for block in pairs.chunks(BATCH) {
            let count = |&(a, b): &(usize, usize)| crossings(network, &samples, a, b);
            counts.extend(
                block
                    .par_iter()
                    .map(count)
                    .collect::<relugrad::Result<Vec<_>>>()?,
            );
            if step(block.len()) {
                return Ok(None);
            }
        }
        walked.push(of_pairs(&counts));
    }
    Ok(Some(Report {
        data: data.name().to_owned(),
        samples: samples.len(),
        regions: patterns.len(),
        near_kink,
        gates: network.gates(),
        measured,
        distances: distances(&found),
        cure: cure_parts(&steps, survey.cure_step),
        different_classes: walked.pop().flatten(),
        same_class: walked.pop().flatten(),
    }))
}

/// Kink, boundary and certificate in each metric.
type Measured = [[f64; 3]; 3];

/// The norms of a report.
const METRICS: [Metric; 3] = [Metric::L1, Metric::L2, Metric::Linf];

fn measure(network: &Network<f64>, x: ArrayView1<f64>, label: usize) -> relugrad::Result<Measured> {
    let region = network.region(x)?;
    let class = prediction(&region.logits().to_vec());
    let mut found = [[0.0; 3]; 3];
    for (found, metric) in found.iter_mut().zip(METRICS) {
        let boundary = region
            .rivals(class, metric)?
            .first()
            .map_or(f64::INFINITY, |r| r.distance);
        let certified = region.certified_radius(label, metric)?;
        *found = [region.kink_distances().get(metric), boundary, certified];
    }
    Ok(found)
}

fn distances(found: &[Measured]) -> Option<[Distances; 3]> {
    let quantiles = |metric: usize, kind: usize| {
        Quantiles::of(found.iter().map(|found| found[metric][kind]).collect())
    };
    let of = |metric: usize| {
        Some(Distances {
            kink: quantiles(metric, 0)?,
            boundary: quantiles(metric, 1)?,
            certified: quantiles(metric, 2)?,
        })
    };
    Some([of(0)?, of(1)?, of(2)?])
}

/// Two samples, by their numbers.
type Pair = (usize, usize);

/// Random pairs of the same and of different classes, up to `count` of each, without repetition of a pair in one order.
fn pairs(labels: &[usize], count: usize, seed: u64) -> (Vec<Pair>, Vec<Pair>) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let (mut same, mut different) = (Vec::new(), Vec::new());
    let mut seen = HashSet::new();
    for _ in 0..count.saturating_mul(64) {
        if same.len() == count && different.len() == count || labels.len() < 2 {
            break;
        }
        let pair = (
            random.random_range(0..labels.len()),
            random.random_range(0..labels.len()),
        );
        let kind = if labels[pair.0] == labels[pair.1] {
            &mut same
        } else {
            &mut different
        };
        if pair.0 != pair.1 && kind.len() < count && seen.insert(pair) {
            kind.push(pair);
        }
    }
    (same, different)
}

/// Crossings between two samples, and per unit of distance.
fn crossings(
    network: &Network<f64>,
    samples: &Samples<f64>,
    a: usize,
    b: usize,
) -> relugrad::Result<(f64, f64)> {
    let (x, y) = (samples.images.row(a), samples.images.row(b));
    let z = &y - &x;
    let mut walk = network.walk(x, z.view(), 1.0)?;
    let mut count = 0.0;
    while walk.cross().is_some() {
        count += 1.0;
    }
    let length = z.dot(&z).sqrt();
    Ok((count, if length > 0.0 { count / length } else { 0.0 }))
}

fn of_pairs(counts: &[(f64, f64)]) -> Option<Pairs> {
    Some(Pairs {
        pairs: counts.len(),
        crossings: Quantiles::of(counts.iter().map(|count| count.0).collect())?,
        density: Quantiles::of(counts.iter().map(|count| count.1).collect())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::digits;
    use relugrad::Mlp;

    #[test]
    fn quantiles_are_interpolated() {
        let found = Quantiles::of(vec![3.0, 1.0, 2.0, 5.0]).unwrap();
        let all = [
            found.least,
            found.quarter,
            found.median,
            found.three_quarters,
            found.largest,
        ];
        assert_eq!(all, [1.0, 1.75, 2.5, 3.5, 5.0]);
        assert_eq!(
            Quantiles::of(vec![f64::INFINITY; 2]).unwrap().median,
            f64::INFINITY
        );
        assert!(Quantiles::of(Vec::new()).is_none());
    }

    #[test]
    fn a_survey_counts_what_patterns_and_walks_tell() {
        let (network, data) = (Mlp::new(&[64, 20, 10]).build::<f64>(0).unwrap(), digits());
        let plan = Survey {
            samples: 80,
            measured: 5,
            pairs: 6,
            seed: 1,
            cure_step: 1.5,
        };
        let report = survey(
            &network,
            &data,
            &plan,
            &mut |_, _| ControlFlow::Continue(()),
        );
        let report = report.unwrap().unwrap();
        let samples: Samples<f64> = Samples::new(&data).first(80);
        let trace = network.trace(samples.images.view()).unwrap();
        let new = |&i: &usize| (0..i).all(|j| !trace.pattern().same_region(i, trace.pattern(), j));
        assert_eq!(report.regions, (0..80).filter(new).count());
        assert!(report.regions > 20);
        let distances = report.distances.unwrap();
        let nearest = |i: usize| network.kink_distances(samples.images.row(i)).unwrap().l2;
        let least = (0..5).map(nearest).fold(f64::INFINITY, f64::min);
        assert_eq!(distances[1].kink.least, least);
        assert!(
            distances
                .iter()
                .all(|d| d.certified.largest <= d.kink.largest)
        );
        let cure = report.cure.unwrap();
        assert!(cure.crossings.largest > 0.0 && cure.share.is_finite());
        assert!(cure.kink_curvature.largest > 0.0);
        let pairs = [
            report.same_class.unwrap(),
            report.different_classes.unwrap(),
        ];
        assert!(
            pairs
                .iter()
                .all(|p| p.pairs == 6 && p.crossings.largest <= 20.0)
        );
        let stopped = survey(&network, &data, &plan, &mut |_, _| ControlFlow::Break(()));
        assert!(stopped.unwrap().is_none());
    }
}
