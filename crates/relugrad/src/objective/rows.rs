//! The stage of penalties that are functions of rows of the Jacobian.
//!
//! With `A = ∂φ/∂(V J)` the part of the parameter gradient is `Σ c_l t_{l−1}ᵀ` with the cotangents
//! `c` of the rows of `V` and the tangents `t` of `A`. Penalties of all rows, `V = I`, share one
//! pair of sweeps; one that combines rows has its own. Samples are taken in blocks, one after the
//! other, so that memory is that of a few Jacobians.

use ndarray::ArrayView2;
use rayon::prelude::*;

use super::Objective;
use super::forward::{Adjoint, Context};
use super::moved::Moved;
use super::sample::{PointTools, check_fault};
use super::workspace::{Evaluation, SweepPair, per_sample};
use crate::buffer::Buffer;
use crate::error::{Error, Result, check_finite};
use crate::jacobian::SWEEP_MEMORY;
use crate::loss::LossBatch;
use crate::network::map::Accumulate;
use crate::parallel::{blocks, for_each_chunk, least_together};
use crate::parameters::Parameters;
use crate::penalty::numbers::{Numbers, Raw, RawMut};
use crate::penalty::{JacobianAdjoint, JacobianPenalty, JacobianPoint, LogitAdjoint, LogitPoint};
use crate::scalar::Scalar;
use crate::sweep::{LinearizedBatch, Seeds};
use crate::trace::ForwardState;

/// A term with its number.
pub(super) type Term<'a> = (usize, &'a dyn JacobianPenalty);

impl Objective {
    /// The penalties of rows by the sweeps that they take: those that see all `K` rows at the
    /// samples together, and each of the others alone.
    pub(super) fn row_sweeps(&self, outputs: usize) -> Vec<Vec<Term<'_>>> {
        let terms = self.doors.rows.iter();
        let terms = terms.map(|(term, penalty)| (*term, &**penalty));
        let is_plain =
            |(_, penalty): &Term| penalty.combines(outputs).is_none() && !penalty.moves();
        let (plain, others): (Vec<Term>, Vec<Term>) = terms.partition(is_plain);
        let plain = Some(plain).filter(|plain| !plain.is_empty());
        plain
            .into_iter()
            .chain(others.into_iter().map(|term| vec![term]))
            .collect()
    }
}

/// Buffers of the stage.
#[derive(Clone, Debug, Default)]
pub(super) struct RowsStage<T> {
    sweeps: Sweeps<T>,
    moved: Moved<T>,
}

/// The point of each sample where the rows are taken.
#[derive(Clone, Copy)]
pub(super) struct Site<'a, T> {
    pub(super) state: &'a ForwardState<T>,
    pub(super) loss: &'a LossBatch,
    /// Whether it is not the sample itself.
    pub(super) is_moved: bool,
}

/// The derivatives of a stage: `logits` at the point where the rows are taken and, where that is
/// another, `origin` at the sample; both `[B, K]`.
pub(super) struct RowsAdjoint<'a, T> {
    pub(super) logits: &'a mut [f64],
    pub(super) origin: &'a mut [f64],
    pub(super) parameters: &'a mut Parameters<T>,
}

impl<T: Scalar> RowsStage<T> {
    /// Values of the stage's terms and, with an adjoint, their derivatives.
    pub(super) fn run(
        &mut self,
        at: &Context<T>,
        evaluation: &mut Evaluation,
        mut adjoint: Option<&mut Adjoint<T>>,
    ) -> Result<()> {
        let k = at.network.outputs();
        let here = Site {
            state: &at.forward.state,
            loss: &at.forward.loss,
            is_moved: false,
        };
        for terms in at.objective.row_sweeps(k) {
            let adjoint = adjoint.as_deref_mut();
            if terms[0].1.moves() {
                self.moved
                    .run(at, terms[0], &mut self.sweeps, evaluation, adjoint)?;
                continue;
            }
            let mut nothing = Buffer::zeros(if adjoint.is_some() {
                at.forward.samples() * k
            } else {
                0
            });
            let adjoint = adjoint.map(|adjoint| RowsAdjoint {
                logits: &mut adjoint.logits,
                origin: &mut nothing,
                parameters: &mut adjoint.parameters,
            });
            self.sweeps.run(at, &here, &terms, evaluation, adjoint)?;
        }
        Ok(())
    }
}

/// Rows of a block of samples.
#[derive(Clone, Debug, Default)]
pub(super) struct Sweeps<T> {
    pair: SweepPair<T>,
    /// `A` of a block's samples; `[samples, R, D]`.
    a: Vec<T>,
    /// `V` of a block's samples, unless it is the identity; `[samples, R, K]`.
    seeds: Vec<T>,
}

impl<T: Scalar> Sweeps<T> {
    /// Values of some terms that see the same rows and, with an adjoint, their derivatives.
    pub(super) fn run(
        &mut self,
        at: &Context<T>,
        site: &Site<T>,
        terms: &[Term],
        evaluation: &mut Evaluation,
        mut adjoint: Option<RowsAdjoint<T>>,
    ) -> Result<()> {
        let (network, k, d) = (at.network, at.network.outputs(), at.network.inputs());
        let combined = terms[0].1.combines(k);
        let rows = combined.unwrap_or(k);
        if rows == 0 {
            return Err(Error::Penalty {
                penalty: terms[0].1.name().to_owned(),
                sample: None,
                problem: "combines the rows of the Jacobian to none".to_owned(),
            });
        }
        let row_bytes = network.row_entries() * size_of::<T>();
        let together = (SWEEP_MEMORY / (rows * row_bytes)).max(1);
        for samples in blocks(site.state.samples, together) {
            let linearized = LinearizedBatch::new(network, &site.state.pattern, samples.clone());
            let seeds = match combined {
                None => Seeds::identity(k),
                Some(rows) => {
                    self.combine(
                        at,
                        site,
                        terms[0],
                        (samples.start, samples.len() * rows * k),
                    );
                    Seeds::PerSample(per_sample(&self.seeds, rows, k))
                }
            };
            let cotangents = &mut self.pair.cotangents;
            cotangents.backward(&linearized, seeds, linearized.nodes());
            check_finite("the Jacobian", rows * d, self.pair.cotangents.at_input())?;
            self.a.clear();
            self.a.resize(samples.len() * rows * d, T::ZERO);
            for (term, penalty) in terms {
                let values = &mut evaluation.term_mut(*term)[samples.clone()];
                let logits = samples.start * k..samples.end * k;
                let sums = adjoint.as_mut().map(|adjoint| {
                    (
                        &mut adjoint.logits[logits.clone()],
                        &mut adjoint.origin[logits],
                    )
                });
                self.term(
                    at,
                    site,
                    (*term, *penalty),
                    (samples.start, rows),
                    values,
                    sums,
                )?;
            }
            if let Some(adjoint) = &mut adjoint {
                let (c, tangents) = (&self.pair.cotangents, &mut self.pair.tangents);
                tangents.forward(&linearized, rows, &self.a);
                let accumulate = Accumulate::linear(T::ONE);
                linearized.weight_gradient(c, &tangents.buffers, accumulate, adjoint.parameters);
            }
        }
        Ok(())
    }

    /// Writes the `V` of a block of samples, of which the first has the number `start`.
    fn combine(
        &mut self,
        at: &Context<T>,
        site: &Site<T>,
        (_, penalty): Term,
        (start, entries): (usize, usize),
    ) {
        let k = at.network.outputs();
        self.seeds.resize(entries, T::ZERO);
        let each = penalty.combines(k).unwrap_or(k) * k;
        for_each_chunk(&mut self.seeds, each, entries, |sample, seeds| {
            let mut exact = Buffer::zeros(each);
            penalty.combine(&site.point(at, start + sample), &mut exact);
            let pairs = seeds.iter_mut().zip(&*exact);
            pairs.for_each(|(seed, &v)| *seed = T::from_f64(v));
        });
    }

    /// The values of a term at a block of samples, of which the first has the number `start`; its
    /// derivatives are added to `a` and to those with respect to the logits, if these are wanted.
    fn term(
        &mut self,
        at: &Context<T>,
        site: &Site<T>,
        (term, penalty): Term,
        (start, rows): (usize, usize),
        values: &mut [f64],
        logits: Option<(&mut [f64], &mut [f64])>,
    ) -> Result<()> {
        let (k, d) = (at.network.outputs(), at.network.inputs());
        let jacobians = self.pair.cotangents.at_input().par_chunks(rows * d);
        let together = least_together(values.len() * rows * d, values.len());
        let samples = values.par_iter_mut().zip(jacobians).enumerate();
        let samples = samples.with_min_len(together);
        let Some((logits, origin)) = logits else {
            return samples.try_for_each(|(sample, (value, jacobian))| {
                let jacobian = Numbers::new(Raw::of(jacobian));
                let point = site.jacobian_point(at, start + sample, (rows, jacobian.get()));
                let found = penalty.evaluate(&point, None);
                *value = found.map_err(|error| error.at_sample(start + sample))?;
                Ok(())
            });
        };
        let lambda = at.lambda(term);
        let logits = logits.par_chunks_mut(k).zip(origin.par_chunks_mut(k));
        let sums = self.a.par_chunks_mut(rows * d).zip(logits);
        samples.zip(sums).try_for_each_init(
            || PointTools::kept(k),
            |tools, ((sample, (value, jacobian)), (a, (logits, origin)))| {
                let PointTools { sums, second } = &mut **tools;
                sums.reset();
                second.reset();
                let jacobian = Numbers::new(Raw::of(jacobian));
                let point = site.jacobian_point(at, start + sample, (rows, jacobian.get()));
                let weight = at.forward.share(lambda, start + sample);
                let mut adjoint = JacobianAdjoint {
                    logit: LogitAdjoint { weight, sums },
                    origin: site.is_moved.then_some(LogitAdjoint {
                        weight,
                        sums: second,
                    }),
                    rows,
                    a: RawMut::of(a),
                };
                let found = penalty.evaluate(&point, Some(&mut adjoint));
                *value = found.map_err(|error| error.at_sample(start + sample))?;
                check_fault(penalty, sums, start + sample)?;
                check_fault(penalty, second, start + sample)?;
                sums.add_to(point.logit.loss, point.logit.state, logits);
                second.add_to(point.origin.loss, point.origin.state, origin);
                Ok(())
            },
        )
    }
}

impl<T: Scalar> Site<'_, T> {
    /// The logits of a sample there.
    fn point<'p>(&'p self, at: &'p Context<T>, sample: usize) -> LogitPoint<'p> {
        let function = &*at.objective.function;
        LogitPoint::of(
            function,
            self.loss,
            &at.forward.targets,
            sample,
            at.network.inputs(),
        )
    }

    /// A sample with its rows, `[R, D]`.
    fn jacobian_point<'p>(
        &'p self,
        at: &'p Context<T>,
        sample: usize,
        (rows, jacobian): (usize, &'p [f64]),
    ) -> JacobianPoint<'p> {
        let shape = (rows, at.network.inputs());
        JacobianPoint {
            logit: self.point(at, sample),
            origin: at.point(sample),
            jacobian: ArrayView2::from_shape(shape, jacobian).expect("R rows of D"),
        }
    }
}
