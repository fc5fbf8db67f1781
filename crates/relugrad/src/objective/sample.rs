//! What a thread needs to work on one sample after another.

use std::cell::{Cell, RefCell};

use crate::eigen::EigenSolver;
use crate::error::{Error, Result};
use crate::penalty::{Described, GramSums, LogitSums};

/// Sums of derivatives of a sample, and a solver of eigenproblems.
pub(super) struct Tools {
    pub(super) sums: GramSums,
    /// Sums at a second point.
    pub(super) second: LogitSums,
    pub(super) solver: RefCell<EigenSolver>,
}

thread_local! {
    static TOOLS: Cell<Option<Tools>> = const { Cell::new(None) };
}

/// A thread's tools while it uses them; they are kept from one evaluation to the next.
pub(super) struct ThreadTools(Option<Tools>);

impl ThreadTools {
    /// With tools for `K` logits.
    pub(super) fn new(outputs: usize) -> ThreadTools {
        let new = || Tools {
            sums: GramSums::zeros(outputs),
            second: LogitSums::zeros(outputs),
            solver: RefCell::new(EigenSolver::new(outputs)),
        };
        let fits = |tools: &Tools| tools.sums.logit.outputs() == outputs;
        ThreadTools(Some(TOOLS.take().filter(fits).unwrap_or_else(new)))
    }

    pub(super) fn get(&mut self) -> &mut Tools {
        self.0
            .as_mut()
            .expect("they are given back when it is dropped")
    }
}

impl Drop for ThreadTools {
    fn drop(&mut self) {
        TOOLS.set(self.0.take());
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
