//! The stage of penalties on hyperplanes, around the samples and on the way from them.

mod boundary;
mod kinks;

use super::forward::{Adjoint, Context};
use super::workspace::{Evaluation, SweepPair};
use crate::error::Result;
use crate::loss::Magnified;
use crate::penalty::Geometric;
use crate::scalar::Scalar;

/// Buffers of the stage.
#[derive(Clone, Debug, Default)]
pub(super) struct GeometricStage<T> {
    pair: SweepPair<T>,
    magnified: Magnified,
}

impl<T: Scalar> GeometricStage<T> {
    /// Values of the stage's terms and, with an adjoint, their derivatives.
    pub(super) fn run(
        &mut self,
        at: &Context<T>,
        evaluation: &mut Evaluation,
        mut adjoint: Option<&mut Adjoint<T>>,
    ) -> Result<()> {
        for (term, penalty) in &at.objective.doors.geometric {
            let values = evaluation.term_mut(*term);
            values.fill(0.0);
            let lambda = at.lambda(*term);
            let mut adjoint = adjoint.as_deref_mut().filter(|_| lambda > 0.0);
            match penalty {
                Geometric::Kinks { step, direction } => {
                    self.kinks(at, (lambda, *step, *direction), values, adjoint)?;
                }
                Geometric::Region(hinge) => self.region(at, (lambda, hinge), values, adjoint)?,
                Geometric::Decision(hinge) => {
                    self.decision(at, (lambda, hinge), values, adjoint)?;
                }
                Geometric::Margin(hinge) => {
                    self.region(at, (lambda, hinge), values, adjoint.as_deref_mut())?;
                    self.decision(at, (lambda, hinge), values, adjoint)?;
                }
            }
        }
        Ok(())
    }
}
