//! Does a penalty do what its author says?

use std::fmt;

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, s};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use rayon::prelude::*;
use relugrad::penalty::Invariance;
use relugrad::{FiniteDifference, Loss, Network, Objective, Parameters, Penalty, Targets};
use serde::Serialize;

use super::check_samples;
use crate::error::{Error, Result};
use crate::evaluate::Samples;

/// Steps of central differences in the parameters, relative to the root mean square of each array.
/// The first at which halves agree counts: a kink may be nearer than a larger one.
const STEPS: [f64; 4] = [1e-3, 1e-4, 1e-5, 1e-6];

/// How far differences of a step and of its half may be apart, relative to the sum of the sizes of
/// all terms of the derivative.
const AGREEMENT: f64 = 1e-5;

/// How far values that are promised to be equal may be apart, relative to the larger.
const ROUNDING: f64 = 1e-7;

/// The factor of the Jacobian by which a degree is seen.
const FACTOR: f64 = 3.0;

/// What was found about one statement on a penalty.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PenaltyCheck {
    /// The statement.
    pub statement: &'static str,
    /// At how many samples it was checked.
    pub samples: usize,
    /// At how many it could not be: a kink is too near, or the penalty sees more than logits and
    /// Jacobian.
    pub not_checked: usize,
    /// The largest error, in units of what is allowed.
    pub worst: f64,
    /// The sample with that error.
    pub sample: Option<usize>,
}

impl PenaltyCheck {
    /// Whether it was checked and holds.
    pub fn holds(&self) -> bool {
        self.samples > 0 && self.worst <= 1.0
    }
}

/// What was found about a penalty: its gradient, and every promise that it makes.
#[derive(Clone, Debug, PartialEq)]
pub struct PenaltyReport {
    /// Name and options of the penalty.
    pub penalty: String,
    /// One for the gradient, and one for each promise.
    pub checks: Vec<PenaltyCheck>,
}

impl PenaltyReport {
    /// Whether all statements were checked and hold.
    pub fn holds(&self) -> bool {
        self.checks.iter().all(PenaltyCheck::holds)
    }
}

impl fmt::Display for PenaltyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.penalty)?;
        for check in &self.checks {
            let verdict = match (check.samples, check.holds()) {
                (0, _) => "not checked",
                (_, true) => "holds",
                (_, false) => "FAILS",
            };
            write!(
                f,
                "  {verdict:<11} {} ({} samples, {} not checked, worst {:.2e} of what is allowed",
                check.statement, check.samples, check.not_checked, check.worst
            )?;
            match check.sample {
                Some(sample) => writeln!(f, " at sample {sample})")?,
                None => writeln!(f, ")")?,
            }
        }
        Ok(())
    }
}

/// Checks a penalty, which may be one's own, at samples of a network: its exact parameter gradient
/// against central differences along a random direction, and every promise that it makes
/// ([`Promises`](relugrad::penalty::Promises)) on the logits and Jacobians found there.
///
/// Cost: about ten evaluations of the penalty for each sample.
///
/// # Errors
/// [`Error::Sample`] with what the engine refuses, [`Error::EmptyDataset`] without samples.
pub fn verify_penalty(
    network: &Network<f64>,
    penalty: &Penalty,
    loss: &Loss,
    samples: &Samples<f64>,
    seed: u64,
) -> Result<PenaltyReport> {
    check_samples(samples)?;
    let objective = Objective::new(*loss)
        .with(penalty.clone(), 1.0)?
        .penalties_only();
    let subject = Subject {
        network,
        penalty,
        loss,
        objective,
    };
    let at = |sample: usize| {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(sample as u64);
        let (x, targets) = samples.sample(sample);
        let found = subject.errors(x, &targets, &mut random);
        found.map_err(|source| Error::Sample { sample, source })
    };
    let found: Vec<Vec<Option<f64>>> = (0..samples.len())
        .into_par_iter()
        .map(at)
        .collect::<Result<_>>()?;
    let checks = subject.statements().into_iter().enumerate();
    Ok(PenaltyReport {
        penalty: penalty.spec().to_string(),
        checks: checks
            .map(|(i, statement)| summary(statement, found.iter().map(|errors| errors[i])))
            .collect(),
    })
}

fn summary(statement: &'static str, errors: impl Iterator<Item = Option<f64>>) -> PenaltyCheck {
    let mut check = PenaltyCheck {
        statement,
        samples: 0,
        not_checked: 0,
        worst: 0.0,
        sample: None,
    };
    for (sample, error) in errors.enumerate() {
        let Some(error) = error else {
            check.not_checked += 1;
            continue;
        };
        check.samples += 1;
        if error > check.worst {
            (check.worst, check.sample) = (error, Some(sample));
        }
    }
    check
}

struct Subject<'a> {
    network: &'a Network<f64>,
    penalty: &'a Penalty,
    loss: &'a Loss,
    objective: Objective,
}

impl Subject<'_> {
    /// Whether it is promised that only differences of logits count: with a loss that sees more,
    /// nothing is.
    fn invariant(&self) -> bool {
        let promised = self.penalty.promises().invariance == Invariance::LogitDifferences;
        promised && self.loss.sees_only_differences()
    }

    fn statements(&self) -> Vec<&'static str> {
        let promises = self.penalty.promises();
        let mut statements = vec!["the parameter gradient agrees with differences"];
        if self.invariant() {
            statements.push("a common function added to all logits changes nothing");
        }
        if promises.degree.is_some() {
            statements.push("it is homogeneous in the Jacobian, of its degree");
        }
        if promises.function_of_jacobian {
            statements.push("it does not depend on the logits");
        }
        statements
    }

    /// The error of each statement at a sample, in units of what is allowed.
    fn errors(
        &self,
        x: ArrayView2<f64>,
        targets: &Targets<f64>,
        random: &mut ChaCha8Rng,
    ) -> relugrad::Result<Vec<Option<f64>>> {
        let mut errors = vec![self.gradient_error(x, targets, random)?];
        let trace = self.network.trace(x)?;
        let (f, j) = (trace.logits().row(0).to_vec(), trace.jacobian()?);
        let j = j.index_axis(Axis(0), 0);
        let at = |f: &[f64], j: ArrayView2<f64>| self.penalty.value_at(self.loss, targets, f, j);
        let value = at(&f, j)?;
        let promises = self.penalty.promises();
        let size = (j.iter().map(|x| x * x).sum::<f64>() / j.len() as f64).sqrt();
        let mut normal = |size: f64| size * random.sample::<f64, _>(StandardNormal);
        if self.invariant() {
            let shift = normal(1.0);
            let shifted: Vec<f64> = f.iter().map(|f| f + shift).collect();
            let row: Vec<f64> = (0..j.ncols()).map(|_| normal(size)).collect();
            let moved = &j + &ArrayView1::from(&row);
            errors.push(error(value, at(&shifted, moved.view())?));
        }
        if let Some(degree) = promises.degree {
            let larger: Array2<f64> = FACTOR * &j;
            let expected = value.map(|value| value * FACTOR.powi(degree));
            errors.push(error(expected, at(&f, larger.view())?));
        }
        if promises.function_of_jacobian {
            let others: Vec<f64> = f.iter().map(|f| f + normal(1.0)).collect();
            errors.push(error(value, at(&others, j)?));
        }
        Ok(errors)
    }

    fn gradient_error(
        &self,
        x: ArrayView2<f64>,
        targets: &Targets<f64>,
        random: &mut ChaCha8Rng,
    ) -> relugrad::Result<Option<f64>> {
        let (_, gradient) = self.objective.gradient(self.network, x, targets)?;
        let direction = direction(self.network.parameters(), random);
        let terms = gradient.values().iter().zip(&direction);
        let terms = terms.map(|(g, u)| g * u);
        let (exact, size) = terms.fold((0.0, 0.0), |(sum, size), t: f64| (sum + t, size + t.abs()));
        let along = |step: f64| {
            let difference = FiniteDifference::central(step)?;
            difference.along(&self.objective, self.network, x, targets, &direction)
        };
        for step in STEPS {
            let (whole, half) = (along(step)?, along(0.5 * step)?);
            // Where nothing depends on the parameters, there is nothing that the step could be
            // compared with.
            let allowed = AGREEMENT * size.max(half.abs());
            if (whole - half).abs() <= allowed {
                let distance = (exact - half).abs();
                return Ok(Some(if distance == 0.0 {
                    0.0
                } else {
                    distance / (2.0 * allowed)
                }));
            }
        }
        Ok(None)
    }
}

/// A random direction in which every array of parameters changes by as much as it is large.
fn direction(parameters: &Parameters<f64>, random: &mut ChaCha8Rng) -> Array1<f64> {
    let mut direction = Array1::zeros(parameters.len());
    for info in parameters.layout() {
        let values = &parameters.values()[info.range()];
        let squares: f64 = values.iter().map(|v| v * v).sum();
        let size = match (squares / values.len() as f64).sqrt() {
            0.0 => 1.0,
            size => size,
        };
        for entry in direction.slice_mut(s![info.range()]) {
            *entry = size * random.sample::<f64, _>(StandardNormal);
        }
    }
    direction
}

/// The difference of two values that should be equal, in units of what is allowed.
fn error(expected: Option<f64>, found: Option<f64>) -> Option<f64> {
    let (expected, found) = (expected?, found?);
    if expected == found {
        return Some(0.0);
    }
    Some((expected - found).abs() / (ROUNDING * expected.abs().max(found.abs())))
}
