//! Statistics of regions over a data set.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use ndarray::ArrayView1;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use relugrad::{ActivationPattern, GoOn, Loss, Network, Norm};
use serde::{Deserialize, Serialize};

use super::cure::{CureParts, CureStep, cure_parts, cure_step};
use crate::data::{Dataset, Truth};
use crate::error::{Error, Result};
use crate::fit::loss_for;
use crate::observer::{Event, Observer};
use crate::prediction::prediction;
use crate::samples::{Batch, Samples};
use crate::statistics::Quantiles;
use crate::stop::{ask, unless_stopped};

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
    /// The loss of CURE; none for the usual one of such data.
    pub loss: Option<Loss>,
    /// CURE's step, which is split into its smooth part and its kinks for the samples that are
    /// measured.
    pub cure_step: f64,
}

/// Distances in one norm.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Distances {
    /// To the nearest kink.
    pub kink: Quantiles,
    /// To the decision boundary in the region's affine map, for the predicted class; none where
    /// samples have values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boundary: Option<Quantiles>,
    /// The smaller of both, and 0 where the prediction is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certified: Option<Quantiles>,
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
    /// Whether all that was planned is in it; false after an interrupt.
    pub complete: bool,
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
    /// Between samples of one class, or any samples with values; `None` without such pairs.
    pub same_class: Option<Pairs>,
    /// Between samples of different classes.
    pub different_classes: Option<Pairs>,
}

/// Surveys the regions around samples. `observer` hears how many parts are done. When it or `go_on`
/// says no, the report is of the samples and pairs that are finished, and not
/// [complete](Report::complete).
///
/// Cost: a forward pass for each sample, a [`Region`](relugrad::Region) for each that is measured,
/// and a [`Walk`](relugrad::Walk) for each pair.
///
/// # Errors
/// [`Error::EmptyDataset`], those of [`Network::trace`], and [`relugrad::Error::Stopped`] when
/// nothing is finished.
pub fn survey(
    network: &Network<f64>,
    data: &Dataset,
    survey: &Survey,
    observer: &mut dyn Observer,
    go_on: GoOn,
) -> Result<Report> {
    let samples: Samples<f64> = Samples::new(data).first(survey.samples);
    if samples.is_empty() {
        return Err(Error::EmptyDataset {
            name: data.name().to_owned(),
            what: "samples",
        });
    }
    let loss = loss_for(network, data, survey.loss)?;
    let measured = survey.measured.min(samples.len());
    let (same, different) = match &samples.truth {
        Truth::Classes(labels) => pairs(labels, survey.pairs, survey.seed),
        // All are of one kind.
        Truth::Values(values) => pairs(&vec![0; values.nrows()], survey.pairs, survey.seed),
    };
    let total = samples.len() + measured + same.len() + different.len();
    let mut done = 0;
    let stopped = AtomicBool::new(false);
    let running = || go_on() && !stopped.load(Ordering::Relaxed);
    let go_on: GoOn = &running;
    let mut advance = |count: usize| {
        done += count;
        let parts = total;
        let flow = observer.on(Event::Part { done, parts });
        stopped.fetch_or(flow.is_break(), Ordering::Relaxed);
    };
    let told = patterns(network, &samples, &mut advance, go_on)?;
    let found = each(measured, &mut advance, |i| {
        ask(go_on)?;
        let (x, targets) = (samples.images.row(i), samples.truth.part(i..i + 1));
        let cure = cure_step(network, &loss, x, &targets, survey.cure_step)?;
        let label = samples.truth.labels().get(i).copied();
        Ok((measure(network, x, label)?, cure))
    })?;
    let (found, steps): (Vec<Measured>, Vec<CureStep>) = found.into_iter().unzip();
    let mut walked = |pairs: &[Pair]| {
        each(pairs.len(), &mut advance, |i| {
            crossings(network, &samples, pairs[i], go_on)
        })
    };
    let (same, different) = (walked(&same)?, walked(&different)?);
    Ok(Report {
        data: data.name().to_owned(),
        complete: done == total,
        samples: told.samples,
        regions: told.patterns.len(),
        near_kink: told.near_kink,
        gates: network.gates(),
        measured: found.len(),
        distances: distances(&found),
        cure: cure_parts(&steps, survey.cure_step),
        same_class: of_pairs(&same),
        different_classes: of_pairs(&different),
    })
}

/// The regions of samples.
#[derive(Default)]
struct Told {
    samples: usize,
    patterns: HashSet<ActivationPattern>,
    near_kink: usize,
}

/// Tells samples into regions; of a survey that is stopped, as many as are finished, but at least
/// some.
fn patterns(
    network: &Network<f64>,
    samples: &Samples<f64>,
    advance: &mut dyn FnMut(usize),
    go_on: GoOn,
) -> relugrad::Result<Told> {
    let mut told = Told::default();
    for Batch { images, .. } in samples.batches() {
        match ask(go_on) {
            Err(error) if told.samples == 0 => return Err(error),
            Err(_) => break,
            Ok(()) => {}
        }
        let trace = network.trace(images)?;
        let rows = 0..images.nrows();
        told.patterns
            .extend(rows.map(|i| trace.pattern().of_sample(i)));
        let near = network.near_kinks(images)?;
        told.near_kink += near.iter().filter(|&&count| count > 0).count();
        told.samples += images.nrows();
        advance(images.nrows());
    }
    Ok(told)
}

/// What is found for each number below `count`, without those that were stopped.
fn each<V: Send>(
    count: usize,
    advance: &mut dyn FnMut(usize),
    find: impl Fn(usize) -> relugrad::Result<V> + Sync,
) -> relugrad::Result<Vec<V>> {
    let mut found = Vec::with_capacity(count);
    for start in (0..count).step_by(BATCH) {
        let block = (start..count.min(start + BATCH)).into_par_iter();
        let block = block.map(|i| unless_stopped(find(i)));
        let block: Vec<Option<V>> = block.collect::<relugrad::Result<_>>()?;
        let before = found.len();
        found.extend(block.into_iter().flatten());
        advance(found.len() - before);
    }
    Ok(found)
}

/// Kink, boundary and certificate in each norm; the latter two are NaN of samples with values.
type Measured = [[f64; 3]; 3];

fn measure(
    network: &Network<f64>,
    x: ArrayView1<f64>,
    label: Option<usize>,
) -> relugrad::Result<Measured> {
    let region = network.region(x)?;
    let class = prediction(region.logits());
    let mut found = [[f64::NAN; 3]; 3];
    for (found, norm) in found.iter_mut().zip(Norm::ALL) {
        found[0] = region.kink_distances().get(norm);
        let Some(label) = label else {
            continue;
        };
        let boundary = region
            .rivals(class, norm)?
            .first()
            .map_or(f64::INFINITY, |r| r.distance);
        let certified = region.certified_radius(label, norm)?;
        (found[1], found[2]) = (boundary, certified);
    }
    Ok(found)
}

fn distances(found: &[Measured]) -> Option<[Distances; 3]> {
    let quantiles = |norm: usize, kind: usize| {
        let values = found.iter().map(|found| found[norm][kind]);
        Quantiles::of(values.filter(|value| !value.is_nan()).collect())
    };
    let of = |norm: usize| {
        Some(Distances {
            kink: quantiles(norm, 0)?,
            boundary: quantiles(norm, 1),
            certified: quantiles(norm, 2),
        })
    };
    Some([of(0)?, of(1)?, of(2)?])
}

/// Two samples, by their numbers.
type Pair = (usize, usize);

/// Random pairs of the same and of different classes, up to `count` of each, without repetition of
/// a pair in one order.
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
    (a, b): Pair,
    go_on: GoOn,
) -> relugrad::Result<(f64, f64)> {
    ask(go_on)?;
    let (x, y) = (samples.images.row(a), samples.images.row(b));
    let z = &y - &x;
    let mut walk = network.walk(x, z.view(), 1.0)?;
    let mut count = 0.0;
    while walk.cross()?.is_some() {
        ask(go_on)?;
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
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn a_survey_counts_what_patterns_and_walks_tell() {
        let (network, data) = (Mlp::new(&[64, 20, 10]).build::<f64>(0).unwrap(), digits());
        let plan = Survey {
            samples: 80,
            measured: 5,
            pairs: 6,
            seed: 1,
            loss: None,
            cure_step: 1.5,
        };
        let report = survey(&network, &data, &plan, &mut (), &|| true).unwrap();
        assert!(report.complete);
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
                .all(|d| d.certified.unwrap().largest <= d.kink.largest)
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
    }

    #[test]
    fn a_survey_that_is_stopped_keeps_what_is_finished() {
        let (network, data) = (Mlp::new(&[64, 20, 10]).build::<f64>(0).unwrap(), digits());
        let plan = Survey {
            samples: 300,
            measured: 4,
            pairs: 3,
            seed: 1,
            loss: None,
            cure_step: 1.5,
        };
        let asked = AtomicUsize::new(0);
        let stopped_after = |questions: usize| {
            asked.store(0, Ordering::SeqCst);
            let go_on = || asked.fetch_add(1, Ordering::SeqCst) < questions;
            survey(&network, &data, &plan, &mut (), &go_on)
        };
        let whole = stopped_after(usize::MAX).unwrap();
        let all = asked.load(Ordering::SeqCst);
        assert!(whole.complete && whole.measured == 4);
        let none = stopped_after(0);
        assert!(matches!(none, Err(Error::Engine(relugrad::Error::Stopped))));
        let first = stopped_after(1).unwrap();
        assert_eq!((first.samples, first.measured), (256, 0));
        assert!(!first.complete && first.distances.is_none() && first.same_class.is_none());
        // Two batches of samples, then two of the four that are measured.
        let some = stopped_after(4).unwrap();
        assert_eq!(
            (some.samples, some.measured, some.regions),
            (300, 2, whole.regions)
        );
        let last = stopped_after(all - 1).unwrap();
        assert!(!last.complete && last.same_class == whole.same_class);
        assert_eq!(last.different_classes.unwrap().pairs, 2);
    }
}
