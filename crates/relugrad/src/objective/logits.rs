//! The stage of penalties that are functions of the logits: nothing is swept.

use super::forward::{Adjoint, Context};
use super::sample::{PointTools, check_fault};
use super::workspace::Evaluation;
use crate::error::Result;
use crate::penalty::LogitAdjoint;
use crate::scalar::Scalar;

/// Values of the stage's terms and, with an adjoint, their derivatives.
pub(super) fn run<T: Scalar>(
    at: &Context<T>,
    evaluation: &mut Evaluation,
    mut adjoint: Option<&mut Adjoint<T>>,
) -> Result<()> {
    let k = at.network.outputs();
    for (term, penalty) in &at.objective.doors.logits {
        let mut tools = PointTools::kept(k);
        for (sample, value) in evaluation.term_mut(*term).iter_mut().enumerate() {
            let point = at.point(sample);
            let Some(adjoint) = adjoint.as_deref_mut() else {
                *value = penalty
                    .evaluate(&point, None)
                    .map_err(|e| e.at_sample(sample))?;
                continue;
            };
            let sums = &mut tools.sums;
            sums.reset();
            let mut of_logits = LogitAdjoint {
                weight: at.forward.share(at.lambda(*term), sample),
                sums,
            };
            let found = penalty.evaluate(&point, Some(&mut of_logits));
            *value = found.map_err(|error| error.at_sample(sample))?;
            check_fault(&**penalty, sums, sample)?;
            let to = &mut adjoint.logits[sample * k..(sample + 1) * k];
            sums.add_to(point.loss, point.state, to);
        }
    }
    Ok(())
}
