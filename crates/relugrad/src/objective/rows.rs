//! The stage of penalties that are functions of the rows of the Jacobian.
//!
//! With `A = ∂φ/∂J` the part of the parameter gradient is `Σ c_l t_{l−1}ᵀ` with the cotangents `c`
//! of all `K` unit rows and the tangents `t` of `A`. Samples are taken in blocks, one after the
//! other, so that memory is that of a few Jacobians.

use ndarray::ArrayView2;
use rayon::prelude::*;

use super::forward::{Adjoint, Context};
use super::sample::{PointTools, check_fault};
use super::workspace::{Evaluation, SweepPair};
use crate::error::{Result, check_finite};
use crate::jacobian::SWEEP_MEMORY;
use crate::network::map::Accumulate;
use crate::parallel::{blocks, least_together};
use crate::penalty::numbers::{Numbers, Raw, RawMut};
use crate::penalty::{JacobianAdjoint, JacobianPenalty, JacobianPoint, LogitAdjoint};
use crate::scalar::Scalar;
use crate::sweep::{LinearizedBatch, Seeds};

/// Buffers of the stage.
#[derive(Clone, Debug, Default)]
pub(super) struct RowsStage<T> {
    pair: SweepPair<T>,
    /// `A` of a block's samples; `[samples, K, D]`.
    a: Vec<T>,
}

impl<T: Scalar> RowsStage<T> {
    /// Values of the stage's terms and, with an adjoint, their derivatives.
    pub(super) fn run(
        &mut self,
        at: &Context<T>,
        evaluation: &mut Evaluation,
        mut adjoint: Option<&mut Adjoint<T>>,
    ) -> Result<()> {
        let terms = &at.objective.doors.rows;
        if terms.is_empty() {
            return Ok(());
        }
        let (network, k, d) = (at.network, at.network.outputs(), at.network.inputs());
        let row_bytes = network.row_entries() * size_of::<T>();
        let together = (SWEEP_MEMORY / (k * row_bytes)).max(1);
        for samples in blocks(at.forward.samples(), together) {
            let pattern = &at.forward.state.pattern;
            let linearized = LinearizedBatch::new(network, pattern, samples.clone());
            let cotangents = &mut self.pair.cotangents;
            cotangents.backward(&linearized, Seeds::identity(k), linearized.nodes());
            check_finite("the Jacobian", k * d, self.pair.cotangents.at_input())?;
            self.a.clear();
            self.a.resize(samples.len() * k * d, T::ZERO);
            for (term, penalty) in terms {
                let values = &mut evaluation.term_mut(*term)[samples.clone()];
                let logits = adjoint
                    .as_deref_mut()
                    .map(|adjoint| &mut adjoint.logits[samples.start * k..samples.end * k]);
                self.term(at, (*term, &**penalty), samples.start, values, logits)?;
            }
            if let Some(adjoint) = adjoint.as_deref_mut() {
                let (c, tangents) = (&self.pair.cotangents, &mut self.pair.tangents);
                tangents.forward(&linearized, k, &self.a);
                let (accumulate, gradient) = (Accumulate::linear(T::ONE), &mut adjoint.parameters);
                linearized.weight_gradient(c, &tangents.buffers, accumulate, gradient);
            }
        }
        Ok(())
    }

    /// The values of a term at a block of samples, of which the first has the number `start`; its
    /// derivatives are added to `a` and to those with respect to the logits, if these are wanted.
    fn term(
        &mut self,
        at: &Context<T>,
        (term, penalty): (usize, &dyn JacobianPenalty),
        start: usize,
        values: &mut [f64],
        logits: Option<&mut [f64]>,
    ) -> Result<()> {
        let (k, d) = (at.network.outputs(), at.network.inputs());
        let jacobians = self.pair.cotangents.at_input().par_chunks(k * d);
        let together = least_together(values.len() * k * d, values.len());
        let samples = values.par_iter_mut().zip(jacobians).enumerate();
        let samples = samples.with_min_len(together);
        let Some(logits) = logits else {
            return samples.try_for_each(|(sample, (value, jacobian))| {
                let jacobian = Numbers::new(Raw::of(jacobian));
                let point = jacobian_point(at, start + sample, jacobian.get());
                let found = penalty.evaluate(&point, None);
                *value = found.map_err(|error| error.at_sample(start + sample))?;
                Ok(())
            });
        };
        let lambda = at.lambda(term);
        let sums = self.a.par_chunks_mut(k * d).zip(logits.par_chunks_mut(k));
        samples.zip(sums).try_for_each_init(
            || PointTools::kept(k),
            |tools, ((sample, (value, jacobian)), (a, logit_adjoint))| {
                let sums = &mut tools.sums;
                sums.reset();
                let jacobian = Numbers::new(Raw::of(jacobian));
                let point = jacobian_point(at, start + sample, jacobian.get());
                let mut adjoint = JacobianAdjoint {
                    logit: LogitAdjoint {
                        weight: at.forward.share(lambda, start + sample),
                        sums,
                    },
                    a: RawMut::of(a),
                };
                let found = penalty.evaluate(&point, Some(&mut adjoint));
                *value = found.map_err(|error| error.at_sample(start + sample))?;
                check_fault(penalty, sums, start + sample)?;
                sums.add_to(point.logit.loss, point.logit.state, logit_adjoint);
                Ok(())
            },
        )
    }
}

/// A sample with its Jacobian, `[K, D]`.
fn jacobian_point<'a, T: Scalar>(
    at: &'a Context<T>,
    sample: usize,
    jacobian: &'a [f64],
) -> JacobianPoint<'a> {
    let shape = (at.network.outputs(), at.network.inputs());
    JacobianPoint {
        logit: at.point(sample),
        jacobian: ArrayView2::from_shape(shape, jacobian).expect("K rows of D"),
    }
}
