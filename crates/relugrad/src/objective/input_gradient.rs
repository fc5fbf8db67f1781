//! The stage of penalties that are functions of the input gradient `g`, and of those that compare
//! it with a second one.
//!
//! With `A = ∂φ/∂g`, one forward sweep of `A` gives tangents `t` and `u = J A` at the logits. The
//! part of the parameter gradient is `Σ δ_l t_{l−1}ᵀ` with the cotangents `δ` of `r`, and
//! `∂φ/∂r = u` adds `S u` to the derivative with respect to the logits.

use rayon::prelude::*;

use super::forward::{Adjoint, Context};
use super::pair::{First, SecondPoint};
use super::sample::{PointTools, check_fault};
use super::workspace::{Evaluation, SweepPair, per_sample, to_scalar};
use crate::buffer::Buffer;
use crate::error::{Result, check_finite};
use crate::loss::{LossBatch, LossFunction, Magnified};
use crate::network::Network;
use crate::network::map::Accumulate;
use crate::parallel::least_together;
use crate::penalty::numbers::{Numbers, Raw, RawMut};
use crate::penalty::{GradientAdjoint, GradientPoint, InputGradientPenalty, LogitAdjoint};
use crate::scalar::Scalar;
use crate::sweep::{LinearizedBatch, RowBatch, Seeds, weight_gradient};
use crate::trace::ForwardState;

/// Buffers of the stage.
#[derive(Clone, Debug, Default)]
pub(super) struct InputGradientStage<T> {
    /// The residuals, those of nearly certain samples magnified.
    magnified: Magnified,
    row: SweepPair<T>,
    second: SecondPoint<T>,
}

impl<T: Scalar> InputGradientStage<T> {
    /// Values of the stage's terms and, with an adjoint, their derivatives.
    pub(super) fn run(
        &mut self,
        at: &Context<T>,
        evaluation: &mut Evaluation,
        adjoint: Option<&mut Adjoint<T>>,
    ) -> Result<()> {
        let (objective, network, forward) = (at.objective, at.network, at.forward);
        let terms = || objective.gradient_terms(at.plan).map(|(term, _)| term);
        let pairs = || objective.doors.pair.iter().map(|(term, _)| *term);
        if terms().chain(pairs()).next().is_none() {
            return Ok(());
        }
        let (function, state) = (&*objective.function, &forward.state);
        self.magnified
            .fill(function, &forward.loss, &forward.targets);
        let residuals = &self.magnified.residuals;
        residual_row(network, state, residuals, &mut self.row.cotangents);
        let g = self.row.cotangents.at_input();
        check_finite("the input gradient", network.inputs(), g)?;
        let is_weighted = terms().chain(pairs()).any(|term| at.lambda(term) > 0.0);
        let mut adjoint = adjoint.filter(|_| is_weighted);
        let shared = objective.shared_first(at.plan, network);
        let shared = shared.filter(|_| adjoint.is_some());
        let mut a = Buffer::zeros(if adjoint.is_some() { g.len() } else { 0 });
        let first = First {
            g,
            magnified: &self.magnified,
            shared,
        };
        for (term, penalty) in objective.gradient_terms(at.plan) {
            let values = evaluation.term_mut(term);
            let adjoint = adjoint.as_deref_mut().map(|to| (&mut a[..], to));
            gradient_term(at, (term, penalty), &first, values, adjoint)?;
        }
        for (term, penalty) in &objective.doors.pair {
            let values = evaluation.term_mut(*term);
            let adjoint = adjoint.as_deref_mut().map(|to| (&mut a[..], to));
            let second = &mut self.second;
            second.run(at, (*term, &**penalty), &first, values, adjoint)?;
        }
        if let Some(adjoint) = adjoint {
            self.add_gradient(at, shared, &a, adjoint);
        }
        Ok(())
    }

    /// Adds what the derivative `a` in the magnified gradients means for parameters and logits.
    fn add_gradient(
        &mut self,
        at: &Context<T>,
        shared: Option<usize>,
        a: &[T],
        adjoint: &mut Adjoint<T>,
    ) {
        let (network, forward) = (at.network, at.forward);
        let linearized = LinearizedBatch::all(network, &forward.state);
        let (row, gradient) = (&mut self.row, &mut adjoint.parameters);
        match shared {
            None => row.tangents.forward(&linearized, 1, a),
            Some(first) => {
                let (second, magnified) = (&self.second, &self.magnified);
                let tangents = |t: &mut [T]| second.opposite_tangents(magnified, t);
                let nodes = first..linearized.nodes().end;
                row.tangents.forward_behind(&linearized, nodes, 1, tangents);
                let cotangents = (&row.cotangents, magnified);
                second.first_gradient(network, first, cotangents, gradient);
            }
        }
        let (c, t) = (&row.cotangents, &row.tangents.buffers);
        let nodes = shared.map_or(0, |first| first + 1)..linearized.nodes().end;
        weight_gradient(
            &linearized,
            c,
            t,
            Accumulate::linear(T::ONE),
            nodes,
            gradient,
        );
        let u = row.tangents.at_output(network);
        let function = &*at.objective.function;
        let magnified = Some(&self.magnified);
        add_hessian_times(function, &forward.loss, magnified, u, &mut adjoint.logits);
    }
}

/// The values of a penalty of the input gradient at all samples; with sums, its derivatives: those
/// in the magnified gradient go to the first, those with respect to the logits to the second.
fn gradient_term<T: Scalar>(
    at: &Context<T>,
    (term, penalty): (usize, &dyn InputGradientPenalty),
    first: &First<T>,
    values: &mut [f64],
    adjoint: Option<(&mut [T], &mut Adjoint<T>)>,
) -> Result<()> {
    let (k, d, lambda) = (at.network.outputs(), at.network.inputs(), at.lambda(term));
    let together = least_together(first.g.len(), values.len());
    let values = values.par_iter_mut().enumerate().with_min_len(together);
    let Some((a, adjoint)) = adjoint else {
        return values.try_for_each(|(sample, value)| {
            let found = penalty.evaluate(&first.point(at, sample), None);
            *value = found.map_err(|error| error.at_sample(sample))?;
            Ok(())
        });
    };
    let sums = a.par_chunks_mut(d).zip(adjoint.logits.par_chunks_mut(k));
    values.zip(sums).try_for_each_init(
        || PointTools::kept(k),
        |tools, ((sample, value), (a, logit_adjoint))| {
            let sums = &mut tools.sums;
            sums.reset();
            let point = first.point(at, sample);
            let mut adjoint = GradientAdjoint {
                logit: LogitAdjoint {
                    weight: at.forward.share(lambda, sample),
                    sums,
                },
                a: RawMut::of(a),
                power: point.power,
            };
            let found = penalty.evaluate(&point, Some(&mut adjoint));
            *value = found.map_err(|error| error.at_sample(sample))?;
            check_fault(penalty, sums, sample)?;
            sums.add_to(point.logit.loss, point.logit.state, logit_adjoint);
            Ok(())
        },
    )
}

/// A sample with its magnified gradient.
pub(super) fn gradient_point<'a, T: Scalar>(
    logit: crate::penalty::LogitPoint<'a>,
    g: &'a [T],
    power: f64,
) -> GradientPoint<'a> {
    GradientPoint {
        logit,
        gradient: Numbers::times(Raw::of(g), power),
        magnified: Numbers::new(Raw::of(g)),
        power,
    }
}

/// Carries residuals `[B, K]` back to the input: one row per sample, which arrives as `g`.
pub(super) fn residual_row<T: Scalar>(
    network: &Network<T>,
    state: &ForwardState<T>,
    residuals: &[f64],
    rows: &mut RowBatch<T>,
) {
    let seeds = to_scalar::<T>(residuals);
    let seeds = Seeds::PerSample(per_sample(&seeds, 1, network.outputs()));
    let linearized = LinearizedBatch::all(network, state);
    rows.backward(&linearized, seeds, linearized.nodes());
}

/// `f̄ += S u` at every sample, or `2^n S u` with what is magnified.
pub(super) fn add_hessian_times<T: Scalar>(
    function: &dyn LossFunction,
    loss: &LossBatch,
    magnified: Option<&Magnified>,
    u: &[T],
    logit_adjoint: &mut [f64],
) {
    let magnified = magnified.filter(|magnified| !magnified.is_plain());
    let k = loss.outputs;
    let mut product = Buffer::zeros(k);
    for (sample, (u, logit_adjoint)) in u
        .chunks_exact(k)
        .zip(logit_adjoint.chunks_exact_mut(k))
        .enumerate()
    {
        let u = Buffer::of(u.iter().map(|u| u.into_f64()));
        function.hessian_times(loss.state(sample), &u, &mut product);
        if let Some(magnified) = magnified {
            magnified.hessian_times(function, sample, &u, &mut product);
        }
        logit_adjoint
            .iter_mut()
            .zip(&*product)
            .for_each(|(f, s)| *f += s);
    }
}
