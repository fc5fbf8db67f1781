//! Running a property many times, and remembering its worst residual.
//!
//! | variable | default | purpose |
//! | --- | --- | --- |
//! | `RELUGRAD_CASES` | 256 | cases of each property |
//! | `RELUGRAD_SEED` | 0 | seed of the cases; equal seeds give equal cases |
//! | `RELUGRAD_RESIDUALS` | | file to which each property appends `name,cases,rejected,worst,bound` |

use std::any::type_name;
use std::cell::Cell;
use std::io::Write;

use proptest::strategy::Strategy;
use proptest::test_runner::{
    Config, RngSeed, TestCaseError, TestCaseResult, TestError, TestRunner,
};

/// Distance from 1 to the next larger number.
pub const EPSILON: f64 = f64::EPSILON;

/// The worst residual that a property has seen, relative to what it may be.
#[derive(Debug, Default)]
pub struct Residual {
    worst: Cell<f64>,
    share: Cell<f64>,
}

impl Residual {
    /// Records `error / scale` and fails unless it is at most `bound`.
    ///
    /// # Errors
    /// A failed case, which says by how much; an error that is NaN always fails.
    pub fn within(&self, what: &str, error: f64, scale: f64, bound: f64) -> TestCaseResult {
        let relative = if error == 0.0 {
            0.0
        } else {
            error.abs() / scale
        };
        let relative = if relative.is_nan() {
            f64::INFINITY
        } else {
            relative
        };
        self.worst.set(self.worst.get().max(relative));
        self.share.set(self.share.get().max(relative / bound));
        if relative <= bound {
            return Ok(());
        }
        let message =
            format!("{what}: {error:e} is {relative:e} of {scale:e}, more than {bound:e}");
        Err(TestCaseError::fail(message))
    }

    /// [`within`](Self::within) for `found − expected`.
    ///
    /// # Errors
    /// A failed case.
    pub fn equal(
        &self,
        what: &str,
        (found, expected): (f64, f64),
        scale: f64,
        bound: f64,
    ) -> TestCaseResult {
        let what = format!("{what} ({found:e} is not {expected:e})");
        self.within(&what, found - expected, scale, bound)
    }

    /// [`within`](Self::within) for the largest difference of two arrays.
    ///
    /// # Errors
    /// A failed case.
    pub fn equal_all(
        &self,
        what: &str,
        found: &[f64],
        expected: &[f64],
        scale: f64,
        bound: f64,
    ) -> TestCaseResult {
        if found.len() != expected.len() {
            return Err(TestCaseError::fail(format!("{what}: lengths differ")));
        }
        let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
        let error = differences.fold(
            0.0,
            |worst: f64, d| if d.is_nan() { d } else { worst.max(d) },
        );
        self.within(what, error, scale, bound)
    }

    /// `small ≤ large` up to `bound · scale`.
    ///
    /// # Errors
    /// A failed case.
    pub fn at_most(
        &self,
        what: &str,
        (small, large): (f64, f64),
        scale: f64,
        bound: f64,
    ) -> TestCaseResult {
        let what = format!("{what} ({small:e} exceeds {large:e})");
        let error = small - large;
        self.within(&what, if error < 0.0 { 0.0 } else { error }, scale, bound)
    }
}

/// Number of cases of each property.
pub fn case_count() -> u32 {
    variable("RELUGRAD_CASES").unwrap_or(256)
}

fn variable<N: std::str::FromStr>(name: &str) -> Option<N> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().ok().expect("a number"))
}

/// The configuration of all properties.
///
/// Failing cases are not written to a file: equal seeds find them again. Cases that a property
/// rejects may be at most four times as many as those that it runs, and 1000 more; [`Residual`]
/// files say how many there were. Those that a strategy filters, for lying too close to a kink, may
/// be as many.
pub fn config() -> Config {
    Config {
        cases: case_count(),
        max_global_rejects: 4 * case_count() + 1000,
        max_local_rejects: 4 * case_count() + 65_536,
        max_shrink_iters: 2000,
        rng_seed: RngSeed::Fixed(variable("RELUGRAD_SEED").unwrap_or(0)),
        failure_persistence: None,
        ..Config::default()
    }
}

/// Runs a property on [`case_count`] cases; `test` is a closure in the test function, whose name it
/// carries.
///
/// # Panics
/// If a case fails, with the smallest failing case found, or if too many are rejected.
pub fn property<S: Strategy, F>(strategy: S, test: F)
where
    F: Fn(S::Value, &Residual) -> TestCaseResult,
{
    named(
        type_name::<F>().trim_end_matches("::{{closure}}"),
        strategy,
        test,
    );
}

/// [`property`] for one of several properties that share a function.
///
/// # Panics
/// As for [`property`].
pub fn named<S: Strategy>(
    name: &str,
    strategy: S,
    test: impl Fn(S::Value, &Residual) -> TestCaseResult,
) {
    let residual = Residual::default();
    let mut runner = TestRunner::new(config());
    let rejected = Cell::new(0_u32);
    let outcome = runner.run(&strategy, |case| {
        let result = test(case, &residual);
        let reject = matches!(result, Err(TestCaseError::Reject(_)));
        rejected.set(rejected.get() + u32::from(reject));
        result
    });
    match outcome {
        Ok(()) => record(name, case_count(), rejected.get(), &residual),
        Err(TestError::Fail(reason, case)) => {
            panic!("{name} fails: {reason}\nsmallest case: {case:#?}")
        }
        Err(TestError::Abort(reason)) => panic!("{name} gives up: {reason}"),
    }
}

/// Runs a check on each of some given cases.
///
/// # Panics
/// If a case fails, if more are rejected than run, or if fewer than 256 run.
pub fn each<C>(name: &str, cases: &[C], test: impl Fn(&C, &Residual) -> TestCaseResult) {
    let (residual, mut run, mut rejected) = (Residual::default(), 0, 0);
    for (i, case) in cases.iter().enumerate() {
        match test(case, &residual) {
            Ok(()) => run += 1,
            Err(TestCaseError::Reject(_)) => rejected += 1,
            Err(TestCaseError::Fail(reason)) => panic!("{name} fails on case {i}: {reason}"),
        }
    }
    assert!(
        run >= 256 && run >= rejected,
        "{name} runs on {run} cases and rejects {rejected}"
    );
    record(name, run, rejected, &residual);
}

fn record(name: &str, cases: u32, rejected: u32, residual: &Residual) {
    let Some(path) = std::env::var_os("RELUGRAD_RESIDUALS") else {
        return;
    };
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path);
    let (worst, share) = (residual.worst.get(), residual.share.get());
    let line = format!("{name},{cases},{rejected},{worst:.1e},{share:.1e}\n");
    file.and_then(|mut file| file.write_all(line.as_bytes()))
        .expect("the file can be written");
}
