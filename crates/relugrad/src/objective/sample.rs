//! What a thread needs to work on one sample after another.

use std::cell::{Cell, RefCell};
use std::thread::LocalKey;

use crate::eigen::EigenSolver;
use crate::error::{Error, Result};
use crate::penalty::{Described, GramSums, LogitSums};

/// Tools for samples with `K` logits, which a thread keeps from one evaluation to the next.
pub(super) trait Tools: Sized + 'static {
    fn new(outputs: usize) -> Self;
    /// The `K` that they are for.
    fn outputs(&self) -> usize;
    fn kept() -> &'static LocalKey<Cell<Option<Self>>>;
}

/// Sums of derivatives at the logits of a sample and of its second point.
pub(super) struct PointTools {
    pub(super) sums: LogitSums,
    pub(super) second: LogitSums,
}

/// Sums of derivatives in the Gram matrix of a sample, and a solver of its eigenproblems.
pub(super) struct GramTools {
    pub(super) sums: GramSums,
    pub(super) solver: RefCell<EigenSolver>,
}

thread_local! {
    static POINT: Cell<Option<PointTools>> = const { Cell::new(None) };
    static GRAM: Cell<Option<GramTools>> = const { Cell::new(None) };
}

impl Tools for PointTools {
    fn new(outputs: usize) -> PointTools {
        PointTools {
            sums: LogitSums::zeros(outputs),
            second: LogitSums::zeros(outputs),
        }
    }

    fn outputs(&self) -> usize {
        self.sums.outputs()
    }

    fn kept() -> &'static LocalKey<Cell<Option<PointTools>>> {
        &POINT
    }
}

impl Tools for GramTools {
    fn new(outputs: usize) -> GramTools {
        GramTools {
            sums: GramSums::zeros(outputs),
            solver: RefCell::new(EigenSolver::new(outputs)),
        }
    }

    fn outputs(&self) -> usize {
        self.sums.logit.outputs()
    }

    fn kept() -> &'static LocalKey<Cell<Option<GramTools>>> {
        &GRAM
    }
}

/// A thread's tools while it uses them.
pub(super) struct ThreadTools<X: Tools>(Option<X>);

impl<X: Tools> ThreadTools<X> {
    /// With tools for `K` logits.
    pub(super) fn new(outputs: usize) -> ThreadTools<X> {
        let kept = X::kept().take().filter(|kept| kept.outputs() == outputs);
        ThreadTools(Some(kept.unwrap_or_else(|| X::new(outputs))))
    }

    pub(super) fn get(&mut self) -> &mut X {
        self.0
            .as_mut()
            .expect("they are given back when it is dropped")
    }
}

impl<X: Tools> Drop for ThreadTools<X> {
    fn drop(&mut self) {
        X::kept().set(self.0.take());
    }
}

/// Refuses what a penalty has done wrong at a sample.
pub(super) fn check_fault(
    penalty: &(impl Described + ?Sized),
    sums: &LogitSums,
    sample: usize,
) -> Result<()> {
    match &sums.fault {
        None => Ok(()),
        Some(problem) => Err(Error::Penalty {
            penalty: penalty.name().to_owned(),
            sample: Some(sample),
            problem: problem.clone(),
        }),
    }
}
