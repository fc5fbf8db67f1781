//! Do the theorems hold on this network and these samples?
//!
//! Every statement of [theory](https://docs.rs/relugrad/latest/relugrad/theory/) that can be
//! checked at a sample is checked at every sample. What it says about values comes from forward
//! passes and textbook formulas; the derivatives come from whoever claims to know them
//! ([`Derivatives`]), which is the engine unless told otherwise. A transposed matrix or a wrong
//! sign in a derivative breaks the statements that tie it to the values.

mod derivatives;
mod finding;
mod logits;
mod penalty;
mod point;
mod report;
mod statements;

use std::sync::atomic::{AtomicBool, Ordering};

use ndarray::ArrayView1;
use rand::RngExt;
use rayon::prelude::*;
use relugrad::{GoOn, Loss, Network, Node, Operation, Scalar};

pub use derivatives::Derivatives;
pub use finding::{Finding, Findings as PenaltyFindings, find};
pub use penalty::{PenaltyCheck, PenaltyReport, verify_penalty};
pub use report::{Outcome, Report, Verdict};

use crate::data::Truth;
use crate::error::{Error, Result};
use crate::samples::Samples;
use crate::stop::{ask, unless_stopped};
use point::{Point, Subject};
use report::Tally;
use statements::{Check, Statement};

/// What is chosen freely in the statements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choices {
    /// Seed of the random directions.
    pub seed: u64,
    /// CURE's step `h` across regions, in input units.
    pub cure_step: f64,
    /// The loss; none for squared error of values, and for classes the logistic loss of one logit
    /// or softmax cross-entropy.
    pub loss: Option<Loss>,
}

impl Default for Choices {
    fn default() -> Choices {
        Choices {
            seed: 0,
            cure_step: 1.5,
            loss: None,
        }
    }
}

/// What one sample says: a check per statement, whether it is on a kink, and whether it is
/// saturated.
struct Findings {
    checks: Vec<Check>,
    moved: bool,
    on_kink: bool,
    saturated: bool,
}

/// Checks all statements on a network with a built-in loss; those that are about another loss say
/// so.
///
/// `claims` are the derivatives that are checked; pass the network itself for the engine's. After
/// each sample `go_on` hears that one more is done, from any thread; if it says `false` the rest is
/// left out and the report says so.
///
/// A sample at which maxima tie, as those of a window of equal pixels do, is moved by up to a hundredth
/// of its size to where none does; [`Report::moved`] counts these.
///
/// The report is the same for any number of threads. Cost: per sample some hundred rows, `D`
/// forward rows for the margins of all gates, and `K` backward rows for each region that the step
/// of CURE crosses.
///
/// # Errors
/// [`Error::Sample`] with what the engine refuses: inputs or labels that do not fit the network,
/// values that are not finite. [`Error::EmptyDataset`] without samples, [`Error::OutOfRange`] for a
/// `cure_step` that is not positive.
pub fn verify<T: Scalar>(
    network: &Network<T>,
    claims: &dyn Derivatives<T>,
    samples: &Samples<T>,
    choices: &Choices,
    go_on: impl Fn() -> bool + Sync,
) -> Result<Report> {
    let stopped = AtomicBool::new(false);
    let progress = || stopped.store(!go_on(), Ordering::Relaxed);
    let running = || !stopped.load(Ordering::Relaxed);
    verify_while(network, claims, samples, choices, &progress, &running)
}

/// [`verify`] that asks `go_on` before every statement, and leaves samples out that are not
/// finished when it says no. `progress` hears after each sample that one more is done, from any
/// thread.
///
/// # Errors
/// As for [`verify`], and [`relugrad::Error::Stopped`] when no sample is finished.
pub fn verify_while<T: Scalar>(
    network: &Network<T>,
    claims: &dyn Derivatives<T>,
    samples: &Samples<T>,
    choices: &Choices,
    progress: &(dyn Fn() + Sync),
    go_on: GoOn,
) -> Result<Report> {
    check(samples, choices)?;
    let (kind, outputs) = (samples.truth.kind(), network.outputs());
    let loss = choices
        .loss
        .unwrap_or_else(|| Loss::for_targets(kind, outputs));
    loss.check(kind, outputs)?;
    check_loss(&loss)?;
    let subject = Subject {
        network,
        claims,
        loss,
        seed: choices.seed,
        cure_step: choices.cure_step,
    };
    let statements = statements::all::<T>();
    let find = |sample: usize| -> Result<Option<Findings>> {
        let (x, truth) = (samples.images.row(sample), samples.truth.select(&[sample]));
        let found =
            ask(go_on).and_then(|()| at_sample(&subject, (sample, x, &truth), &statements, go_on));
        let found = unless_stopped(found).map_err(|source| Error::Sample { sample, source })?;
        found.iter().for_each(|_| progress());
        Ok(found)
    };
    let found: Vec<Option<Findings>> = (0..samples.len())
        .into_par_iter()
        .map(find)
        .collect::<Result<_>>()?;
    if found.iter().all(Option::is_none) {
        return Err(relugrad::Error::Stopped.into());
    }
    Ok(summary(&subject, &statements, &found))
}

fn check_samples<T: Scalar>(samples: &Samples<T>) -> Result<()> {
    match samples.is_empty() {
        false => Ok(()),
        true => Err(Error::EmptyDataset {
            name: "to verify on".into(),
            what: "samples",
        }),
    }
}

/// Refuses losses that the statements have no textbook formulas of.
fn check_loss(loss: &Loss) -> Result<()> {
    let problem = match loss {
        Loss::SoftmaxCrossEntropy { label_smoothing } if *label_smoothing != 0.0 => {
            "the statements are about labels that are certain; leave label-smoothing out"
        }
        Loss::Own(_) => {
            "the statements are about built-in losses; verify_penalty checks gradients with any loss"
        }
        Loss::SoftmaxCrossEntropy { .. } | Loss::Logistic | Loss::SquaredError => return Ok(()),
    };
    Err(Error::Data {
        problem: problem.to_owned(),
    })
}

fn check<T: Scalar>(samples: &Samples<T>, choices: &Choices) -> Result<()> {
    check_samples(samples)?;
    if choices.cure_step.is_finite() && choices.cure_step > 0.0 {
        return Ok(());
    }
    Err(Error::OutOfRange {
        option: "step of cure",
        value: choices.cure_step,
        expected: "positive and finite",
    })
}

/// By how much an input is moved off ties, relative to its size: the first that does it is taken.
const MOVES: [f64; 3] = [1e-4, 1e-3, 1e-2];

/// What one sample says. Maxima tie wherever an image has the same value all over a window, and the
/// region is then none: such a sample is moved a little.
fn at_sample<T: Scalar>(
    subject: &Subject<T>,
    (sample, x, truth): (usize, ArrayView1<T>, &Truth<T>),
    statements: &[Statement<T>],
    go_on: GoOn,
) -> relugrad::Result<Findings> {
    let point = Point::new(subject, sample, x, truth.clone())?;
    let maxima = |node: &Node| {
        matches!(
            node.operation(),
            Operation::MaxPool { .. } | Operation::Max { .. }
        )
    };
    if !(point.on_kink() && subject.network.nodes().iter().any(maxima)) {
        return findings(&point, statements, go_on);
    }
    let mut random = point.random("off ties");
    drop(point);
    let size = x
        .iter()
        .fold(1.0, |size: f64, x| size.max(x.into_f64().abs()));
    for share in MOVES {
        ask(go_on)?;
        let moved = x.mapv(|x| x + T::from_f64(share * size * random.random_range(-1.0..1.0)));
        let point = Point::new(subject, sample, moved.view(), truth.clone())?;
        if !point.on_kink() {
            let moved = true;
            return Ok(Findings {
                moved,
                ..findings(&point, statements, go_on)?
            });
        }
    }
    let point = Point::new(subject, sample, x, truth.clone())?;
    findings(&point, statements, go_on)
}

fn findings<T: Scalar>(
    point: &Point<T>,
    statements: &[Statement<T>],
    go_on: GoOn,
) -> relugrad::Result<Findings> {
    let applies = |statement: &&Statement<T>| {
        let Subject { network, loss, .. } = point.subject;
        statement.scope.excludes(network, loss).is_none()
    };
    let checks = statements.iter().filter(applies);
    Ok(Findings {
        checks: checks
            .map(|statement| ask(go_on).and_then(|()| checked(point, statement)))
            .collect::<relugrad::Result<_>>()?,
        moved: false,
        on_kink: point.on_kink(),
        saturated: point.saturated(),
    })
}

/// What a statement says at a sample. A residual that rounding does not explain by the sizes of
/// what is compared is measured again by the sums over all paths that lead to it.
fn checked<T: Scalar>(point: &Point<T>, statement: &Statement<T>) -> relugrad::Result<Check> {
    let unexplained = |check: &Check| matches!(check, Check::Residual(residual) if *residual > statement.tolerance * point.rounding);
    let found = (statement.check)(point)?;
    if !unexplained(&found) {
        return Ok(found);
    }
    let again = point.with_path_sums(|| {
        let found = (statement.check)(point)?;
        // Which side of a kink a sample is on, rounding decides anew in every evaluation.
        let by_chance = unexplained(&found) && point.on_kink();
        Ok(if by_chance { Check::Rejected } else { found })
    });
    match again {
        // Path sums that overflow tell nothing.
        Err(relugrad::Error::NotFinite { .. }) => Ok(Check::Rejected),
        again => again,
    }
}

fn summary<T: Scalar>(
    subject: &Subject<T>,
    statements: &[Statement<T>],
    found: &[Option<Findings>],
) -> Report {
    let rounding = point::rounding(subject.network);
    let mut place = 0;
    let outcomes = statements.iter().map(|statement| {
        let tolerance = statement.tolerance * rounding;
        if let Some(reason) = statement.scope.excludes(subject.network, &subject.loss) {
            return Outcome::not_about(statement.theorem, statement.text, tolerance, reason);
        }
        let mut tally = Tally::default();
        for (sample, findings) in found.iter().enumerate() {
            if let Some(findings) = findings {
                tally.add(sample, &findings.checks[place]);
            }
        }
        place += 1;
        tally.outcome(statement.theorem, statement.text, tolerance)
    });
    let outcomes = outcomes.collect();
    let done = || found.iter().flatten();
    Report {
        precision: T::NAME,
        samples: done().count(),
        complete: found.iter().all(Option::is_some),
        moved: done().filter(|findings| findings.moved).count(),
        on_kink: done().filter(|findings| findings.on_kink).count(),
        saturated: done().filter(|findings| findings.saturated).count(),
        outcomes,
    }
}
