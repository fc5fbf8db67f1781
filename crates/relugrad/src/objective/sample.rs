//! What a thread needs to work on one sample after another.

use std::cell::RefCell;

use crate::buffer::Kept;
use crate::eigen::EigenSolver;
use crate::error::{Error, Result};
use crate::penalty::{Described, GramSums, LogitSums};

/// Sums of derivatives at the logits of a sample and of its second point.
pub(super) struct PointTools {
    pub(super) sums: LogitSums,
    pub(super) second: LogitSums,
}

/// Sums of derivatives with respect to the Gram matrix of a sample, and a solver of its
/// eigenproblems.
pub(super) struct GramTools {
    pub(super) sums: GramSums,
    pub(super) solver: RefCell<EigenSolver>,
}

impl PointTools {
    /// A thread's tools for samples with `K` logits.
    pub(super) fn kept(outputs: usize) -> Kept<PointTools> {
        let new = || PointTools {
            sums: LogitSums::zeros(outputs),
            second: LogitSums::zeros(outputs),
        };
        Kept::or_new(|kept| kept.sums.outputs() == outputs, new)
    }
}

impl GramTools {
    /// A thread's tools for samples with `K` logits.
    pub(super) fn kept(outputs: usize) -> Kept<GramTools> {
        let new = || GramTools {
            sums: GramSums::zeros(outputs),
            solver: RefCell::new(EigenSolver::new(outputs)),
        };
        Kept::or_new(|kept| kept.sums.logit.outputs() == outputs, new)
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
