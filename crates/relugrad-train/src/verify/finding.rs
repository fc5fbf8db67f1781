//! What holds of a penalty that promises nothing, such as a formula: found out, not assumed.

use std::fmt;

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use relugrad::{Loss, Network, Objective, Penalty, Targets};
use serde::Serialize;

use super::check_samples;
use crate::error::{Error, Result};
use crate::evaluate::Samples;

/// How far equal values may be apart, relative to the larger.
const ROUNDING: f64 = 1e-7;

/// How small a gradient in an array is to be 0, relative to the whole.
const VANISHING: f64 = 1e-12;

/// The factor of the Jacobian by which a degree is seen.
const FACTOR: f64 = 3.0;

/// Random points tried around each sample.
const POINTS: usize = 4;

/// A property and whether it holds at all points that were tried.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// The property.
    pub property: &'static str,
    /// Whether it holds everywhere.
    pub holds: bool,
    /// What was found, in words: numbers, or where it does not hold.
    pub detail: String,
}

/// What was found about a penalty. Nothing of it is proved; what fails is refuted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Findings {
    /// Name and options of the penalty.
    pub penalty: String,
    /// Number of samples.
    pub samples: usize,
    /// One for each property.
    pub findings: Vec<Finding>,
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            let verdict = if finding.holds { "yes" } else { "no" };
            writeln!(
                f,
                "  {verdict:<11} {} ({})",
                finding.property, finding.detail
            )?;
        }
        Ok(())
    }
}

/// A sample as a penalty sees it.
struct Point<'a> {
    targets: Targets<'a, f64>,
    logits: Vec<f64>,
    jacobian: Array2<f64>,
    value: f64,
}

/// Finds out at samples of a network, and at random points around them, which properties a penalty
/// has: whether a common function added to all logits changes it, its degree in the Jacobian,
/// whether it depends on the logits, its sign, and in which arrays of parameters its gradient is 0.
///
/// # Errors
/// [`Error::Sample`] with what the engine refuses, [`Error::EmptyDataset`] without samples.
pub fn find(
    network: &Network<f64>,
    penalty: &Penalty,
    loss: &Loss,
    samples: &Samples<f64>,
    seed: u64,
) -> Result<Findings> {
    check_samples(samples)?;
    let subject = Subject {
        network,
        penalty,
        loss,
    };
    let mut points = Vec::new();
    for sample in 0..samples.len() {
        let (x, targets) = samples.sample(sample);
        let found = subject.point(x, targets);
        let found = found.map_err(|source| Error::Sample { sample, source })?;
        points.extend(found);
    }
    let mut findings = Vec::new();
    if !points.is_empty() {
        let random = &mut ChaCha8Rng::seed_from_u64(seed);
        findings.push(subject.invariance(&points, random));
        findings.push(subject.degree(&points));
        findings.push(subject.of_jacobian(&points, random));
        findings.push(subject.sign(&points, random));
    }
    findings.push(subject.zero_gradients(samples)?);
    Ok(Findings {
        penalty: penalty.spec().to_string(),
        samples: samples.len(),
        findings,
    })
}

struct Subject<'a> {
    network: &'a Network<f64>,
    penalty: &'a Penalty,
    loss: &'a Loss,
}

impl Subject<'_> {
    /// Nothing for a penalty that sees more than logits and Jacobian.
    fn point<'s>(
        &self,
        x: ArrayView2<f64>,
        targets: Targets<'s, f64>,
    ) -> relugrad::Result<Option<Point<'s>>> {
        let trace = self.network.trace(x)?;
        let logits = trace.logits().row(0).to_vec();
        let jacobian = trace.jacobian()?.index_axis(Axis(0), 0).to_owned();
        let value = self
            .penalty
            .value_at(self.loss, &targets, &logits, jacobian.view())?;
        Ok(value.map(|value| Point {
            targets,
            logits,
            jacobian,
            value,
        }))
    }

    /// The value at other logits and another Jacobian; NaN where it is not finite.
    fn value(&self, at: &Point, logits: &[f64], jacobian: ArrayView2<f64>) -> f64 {
        let found = self
            .penalty
            .value_at(self.loss, &at.targets, logits, jacobian);
        found.ok().flatten().unwrap_or(f64::NAN)
    }

    fn invariance(&self, points: &[Point], random: &mut ChaCha8Rng) -> Finding {
        let error = |point: &Point| {
            let size = size(&point.jacobian);
            let mut normal = |size: f64| size * random.sample::<f64, _>(StandardNormal);
            let shift = normal(1.0);
            let logits: Vec<f64> = point.logits.iter().map(|f| f + shift).collect();
            let row: Vec<f64> = (0..point.jacobian.ncols()).map(|_| normal(size)).collect();
            let jacobian = &point.jacobian + &ArrayView1::from(&row);
            apart(self.value(point, &logits, jacobian.view()), point.value)
        };
        unchanged(
            "a common function added to all logits changes nothing",
            points.iter().map(error),
        )
    }

    fn of_jacobian(&self, points: &[Point], random: &mut ChaCha8Rng) -> Finding {
        let error = |point: &Point| {
            let mut normal = || random.sample::<f64, _>(StandardNormal);
            let logits: Vec<f64> = point.logits.iter().map(|f| f + normal()).collect();
            apart(
                self.value(point, &logits, point.jacobian.view()),
                point.value,
            )
        };
        unchanged(
            "it does not depend on the logits, and so is constant in a region",
            points.iter().map(error),
        )
    }

    fn degree(&self, points: &[Point]) -> Finding {
        let degree = |point: &Point| {
            let larger: Array2<f64> = FACTOR * &point.jacobian;
            let value = self.value(point, &point.logits, larger.view());
            (value / point.value).ln() / FACTOR.ln()
        };
        let degrees: Vec<f64> = points
            .iter()
            .filter(|point| point.value != 0.0)
            .map(degree)
            .collect();
        let (least, most) = bounds(&degrees);
        let holds = most - least <= ROUNDING * (1.0 + most.abs());
        let round = |x: f64| (x * 1e4).round() / 1e4 + 0.0;
        Finding {
            property: "it is homogeneous in the Jacobian",
            holds,
            detail: match (degrees.is_empty(), holds) {
                (true, _) => "it is 0 at all samples".to_owned(),
                (false, true) => format!("of degree {}", round(most)),
                (false, false) if least.is_nan() || most.is_nan() => {
                    "its sign or its domain changes".to_owned()
                }
                (false, false) => {
                    format!(
                        "it grows as powers from {} to {}",
                        round(least),
                        round(most)
                    )
                }
            },
        }
    }

    fn sign(&self, points: &[Point], random: &mut ChaCha8Rng) -> Finding {
        let mut values: Vec<f64> = points.iter().map(|point| point.value).collect();
        for point in points {
            let size = size(&point.jacobian);
            for _ in 0..POINTS {
                let mut normal = || random.sample::<f64, _>(StandardNormal);
                let logits: Vec<f64> = point.logits.iter().map(|f| f + normal()).collect();
                let jacobian = point.jacobian.mapv(|x| x + size * normal());
                values.push(self.value(point, &logits, jacobian.view()));
            }
        }
        let finite: Vec<f64> = values.iter().copied().filter(|x| x.is_finite()).collect();
        let (least, most) = bounds(&finite);
        let mut detail = format!("values from {least:.3e} to {most:.3e}");
        if finite.len() < values.len() {
            detail += &format!(
                "; not finite at {} of {} points around the samples",
                values.len() - finite.len(),
                values.len()
            );
        }
        Finding {
            property: "it is never negative",
            holds: least >= 0.0,
            detail,
        }
    }

    /// The arrays of parameters in which the gradient is 0 at every sample.
    fn zero_gradients(&self, samples: &Samples<f64>) -> Result<Finding> {
        let objective = Objective::new(*self.loss)
            .with(self.penalty.clone(), 1.0)?
            .penalties_only();
        let layout = self.network.parameters().layout();
        let biases = || layout.iter().filter(|info| info.shape().len() == 1);
        let mut zero: Vec<bool> = biases().map(|_| true).collect();
        for sample in 0..samples.len() {
            let (x, targets) = samples.sample(sample);
            let found = objective.gradient(self.network, x, &targets);
            let (_, gradient) = found.map_err(|source| Error::Sample { sample, source })?;
            let length = |values: &[f64]| {
                Array1::from(values.to_vec())
                    .dot(&ArrayView1::from(values))
                    .sqrt()
            };
            let whole = length(gradient.values());
            for (zero, info) in zero.iter_mut().zip(biases()) {
                *zero &= length(&gradient.values()[info.range()]) <= VANISHING * whole;
            }
        }
        let names = biases().zip(&zero).filter(|(_, zero)| **zero);
        let names: Vec<&str> = names.map(|(info, _)| info.name()).collect();
        Ok(Finding {
            property: "its gradient is 0 in biases",
            holds: !zero.is_empty() && zero.iter().all(|zero| *zero),
            detail: match (zero.len(), names.len()) {
                (0, _) => "there are none".to_owned(),
                (all, none) if none == all => "in all of them".to_owned(),
                (_, 0) => "in none of them".to_owned(),
                _ => format!("in {} alone", names.join(", ")),
            },
        })
    }
}

/// The root mean square of a matrix.
fn size(m: &Array2<f64>) -> f64 {
    (m.iter().map(|x| x * x).sum::<f64>() / m.len() as f64).sqrt()
}

/// The difference of two values relative to the larger.
fn apart(a: f64, b: f64) -> f64 {
    match a == b {
        true => 0.0,
        false => (a - b).abs() / a.abs().max(b.abs()),
    }
}

/// The smallest and the largest; NaN if one is no number or there is none.
fn bounds(values: &[f64]) -> (f64, f64) {
    let fold = |f: fn(f64, f64) -> f64| values.iter().copied().reduce(f).unwrap_or(f64::NAN);
    match values.iter().any(|x| x.is_nan()) {
        true => (f64::NAN, f64::NAN),
        false => (fold(f64::min), fold(f64::max)),
    }
}

/// A property that holds if all relative errors are rounding.
fn unchanged(property: &'static str, errors: impl Iterator<Item = f64>) -> Finding {
    let (_, worst) = bounds(&errors.collect::<Vec<f64>>());
    Finding {
        property,
        holds: worst <= ROUNDING,
        detail: match worst.is_nan() {
            true => "it is not finite after a change".to_owned(),
            false => format!("worst relative change {worst:.1e}"),
        },
    }
}
