//! Penalties of two points, `x` and `x' = x + δ`.
//!
//! With `A' = ∂φ/∂g'` the second point has a gradient stage of its own, and `∂φ/∂x'`, which is also
//! `∂φ/∂δ`, is what its backward pass leaves at the input. `A = ∂φ/∂g` joins the stage of the first
//! point, with what `∂φ/∂δ` means for `g`.
//!
//! If the only such term is a function of `g' − g`, as CURE is, the tangents at the two points, of
//! `A'` and of `−A'`, are opposite up to the first gates. So the layer with weight `W` that all
//! paths from the input pass multiplies `A'` once, and its part of the gradient is one product,
//! `Σ (c' − c) A'ᵀ` with the cotangents `c'` and `c` that arrive at it from the two points.

use ndarray::ArrayView2;
use rayon::prelude::*;

use super::Objective;
use super::forward::{Adjoint, Context};
use super::input_gradient::{add_hessian_times, gradient_point, residual_row};
use super::plan::{StagePlan, SweepStrategy};
use super::sample::{PointTools, check_fault};
use super::workspace::{per_sample, to_scalar};
use crate::buffer::Buffer;
use crate::error::{Result, check_finite};
use crate::gram::first_affine;
use crate::loss::{LossBatch, Magnified};
use crate::network::Network;
use crate::network::map::{Accumulate, SweepContext};
use crate::parallel::{for_each_chunk, least_together};
use crate::parameters::Parameters;
use crate::penalty::numbers::{Numbers, Raw, RawMut};
use crate::penalty::{
    GradientAdjoint, GradientPoint, LogitAdjoint, LogitPoint, PairAdjoint, PairPenalty, PairPoint,
};
use crate::scalar::Scalar;
use crate::sweep::{LinearizedBatch, RowBatch, Seeds, weight_gradient};
use crate::trace::ForwardState;

/// Entries that a thread works on at a time.
const PIECE: usize = 1 << 12;

/// Writes `f` of each pair of entries.
fn write_each<T: Scalar>(to: &mut [T], (a, b): (&[T], &[T]), f: impl Fn(T, T) -> T + Sync) {
    let operations = to.len();
    for_each_chunk(to, PIECE, operations, |i, to| {
        let piece = i * PIECE..i * PIECE + to.len();
        let pairs = a[piece.clone()].iter().zip(&b[piece]);
        to.iter_mut()
            .zip(pairs)
            .for_each(|(to, (&a, &b))| *to = f(a, b));
    });
}

/// Calls `f` with `2^−n`, the place and each entry of the rows of the samples whose residuals are
/// magnified by `2^n`.
fn for_each_magnified<T: Scalar>(
    magnified: &Magnified,
    to: &mut [T],
    f: impl Fn(T, usize, &mut T),
) {
    let width = to.len() / magnified.powers.len();
    let samples = to.chunks_exact_mut(width).zip(&magnified.powers);
    for (sample, (to, &power)) in samples.enumerate() {
        if power != 1.0 {
            let power = T::from_f64(power);
            let entries = to.iter_mut().enumerate();
            entries.for_each(|(i, to)| f(power, sample * width + i, to));
        }
    }
}

/// What is known of the first point.
pub(super) struct First<'a, T> {
    /// Its input gradients, magnified; `[B, D]`.
    pub(super) g: &'a [T],
    pub(super) magnified: &'a Magnified,
    /// The first layer, if the two points share its work.
    pub(super) shared: Option<usize>,
}

/// The second point as penalties see it.
#[derive(Clone, Debug, Default)]
struct Second<T> {
    /// `δ`; `[B, D]`.
    displacement: Vec<T>,
    state: ForwardState<T>,
    loss: LossBatch,
    cotangents: RowBatch<T>,
    /// `g' − g`; `[B, D]`.
    change: Vec<T>,
}

/// Buffers of a term of two points.
#[derive(Clone, Debug, Default)]
pub(super) struct SecondPoint<T> {
    second: Second<T>,
    tangents: RowBatch<T>,
    loss_rows: RowBatch<T>,
    /// `A'`; `[B, D]`.
    a: Vec<T>,
    /// The derivative with respect to the second logits; `[B, K]`.
    logits: Vec<f64>,
    /// The tangents of `A'` at the shared first layer, before its gates.
    first: Vec<T>,
}

impl Objective {
    /// The first layer, where the derivative with respect to `g` is that of one term that is a
    /// function of `g' − g` with `δ` held.
    pub(super) fn shared_first<T: Scalar>(
        &self,
        plan: StagePlan,
        network: &Network<T>,
    ) -> Option<usize> {
        let [(_, pair)] = &self.doors.pair[..] else {
            return None;
        };
        let alone = self.gradient_terms(plan).next().is_none();
        let shared = pair.is_held()
            && pair.is_function_of_change()
            && self.strategy != SweepStrategy::AllRows;
        first_affine(network).filter(|_| shared && alone)
    }
}

impl<T: Scalar> First<'_, T> {
    /// A sample as a penalty of the input gradient sees it.
    pub(super) fn point<'p>(&'p self, at: &'p Context<T>, sample: usize) -> GradientPoint<'p> {
        let (d, power) = (at.network.inputs(), self.magnified.powers[sample]);
        gradient_point(
            at.point(sample),
            &self.g[sample * d..(sample + 1) * d],
            power,
        )
    }
}

/// Traces `x + δ`, with the `δ` that `write` makes for each sample.
pub(super) fn displace<T: Scalar>(
    at: &Context<T>,
    write: impl Fn(usize, &mut [f64]) + Sync,
    displacement: &mut Vec<T>,
    state: &mut ForwardState<T>,
) -> Result<()> {
    let (x, d) = (&at.forward.state.buffers[0], at.network.inputs());
    displacement.resize(x.len(), T::ZERO);
    for_each_chunk(displacement, d, x.len(), |sample, displacement| {
        let mut wide = Buffer::zeros(d);
        write(sample, &mut wide);
        let pairs = displacement.iter_mut().zip(&*wide);
        pairs.for_each(|(to, &from)| *to = T::from_f64(from));
    });
    check_finite("the displacement of the second point", d, displacement)?;
    let mut moved = Buffer::uncleared(x.len());
    write_each(&mut moved, (x, displacement), |x, d| x + d);
    let inputs = ArrayView2::from_shape((x.len() / d, d), &moved).expect("whole samples");
    state.fill(at.network, inputs)
}

impl<T: Scalar> Second<T> {
    fn fill(&mut self, at: &Context<T>, penalty: &dyn PairPenalty, first: &First<T>) -> Result<()> {
        let (network, function) = (at.network, &*at.objective.function);
        let write = |sample: usize, displacement: &mut [f64]| {
            penalty.displace(&first.point(at, sample), displacement);
        };
        displace(at, write, &mut self.displacement, &mut self.state)?;
        let logits = self.state.logits(network);
        self.loss
            .fill(function, logits, &at.forward.targets, network.outputs());
        let (state, residuals) = (&self.state, &self.loss.residuals);
        residual_row(network, state, residuals, &mut self.cotangents);
        self.subtract(first);
        let what = "the input gradient at the second point";
        check_finite(what, network.inputs(), &self.change)
    }

    /// Leaves `g' − g` in `change`.
    fn subtract(&mut self, first: &First<T>) {
        let (second, g) = (self.cotangents.at_input(), first.g);
        self.change.resize(g.len(), T::ZERO);
        write_each(&mut self.change, (second, g), |second, g| second - g);
        for_each_magnified(first.magnified, &mut self.change, |power, entry, change| {
            *change = second[entry] - power * g[entry];
        });
    }

    /// A sample as a penalty of two points sees it.
    fn point<'p>(
        &'p self,
        at: &'p Context<T>,
        first: &'p GradientPoint<'p>,
        sample: usize,
    ) -> PairPoint<'p> {
        let d = at.network.inputs();
        let row = sample * d..(sample + 1) * d;
        let (function, targets) = (&*at.objective.function, &at.forward.targets);
        let logit = LogitPoint::of(function, &self.loss, targets, sample, d);
        let g = &self.cotangents.at_input()[row.clone()];
        PairPoint {
            first,
            second: gradient_point(logit, g, 1.0),
            displacement: Numbers::new(Raw::of(&self.displacement[row.clone()])),
            change: Numbers::new(Raw::of(&self.change[row])),
        }
    }
}

impl<T: Scalar> SecondPoint<T> {
    /// The values of a term; with sums, also its part of the parameter gradient at the second point
    /// and, added to the first sum, its derivative in the magnified `g`. A shared first layer
    /// leaves that out.
    pub(super) fn run(
        &mut self,
        at: &Context<T>,
        (term, penalty): (usize, &dyn PairPenalty),
        first: &First<T>,
        values: &mut [f64],
        adjoint: Option<(&mut [T], &mut Adjoint<T>)>,
    ) -> Result<()> {
        self.second.fill(at, penalty, first)?;
        let Some((a, adjoint)) = adjoint else {
            let second = &self.second;
            let together = least_together(first.g.len(), values.len());
            let values = values.par_iter_mut().enumerate().with_min_len(together);
            return values.try_for_each(|(sample, value)| {
                let point = first.point(at, sample);
                *value = penalty.evaluate(&second.point(at, &point, sample), None)?;
                Ok(())
            });
        };
        self.evaluate(
            at,
            (term, penalty),
            first,
            values,
            (&mut *a, &mut adjoint.logits),
        )?;
        let exact = !penalty.is_held();
        self.pull_back(at, first.shared, exact, &mut adjoint.parameters);
        if exact {
            self.turn(at, penalty, first, a)?;
        }
        Ok(())
    }

    /// Values and derivatives: `A'`, `a` and those with respect to the logits of both points.
    fn evaluate(
        &mut self,
        at: &Context<T>,
        (term, penalty): (usize, &dyn PairPenalty),
        first: &First<T>,
        values: &mut [f64],
        (a, logits): (&mut [T], &mut [f64]),
    ) -> Result<()> {
        let (k, d) = (at.network.outputs(), at.network.inputs());
        let (samples, lambda, seen) = (values.len(), at.lambda(term), &self.second);
        self.a.clear();
        self.a.resize(samples * d, T::ZERO);
        self.logits.clear();
        self.logits.resize(samples * k, 0.0);
        let together = least_together(first.g.len(), samples);
        let sums = a.par_chunks_mut(d).zip(logits.par_chunks_mut(k));
        let second_a = self.a.par_chunks_mut(d);
        let sums = sums.zip(second_a.zip(self.logits.par_chunks_mut(k)));
        let values = values.par_iter_mut().enumerate().with_min_len(together);
        values.zip(sums).try_for_each_init(
            || PointTools::kept(k),
            |tools, ((sample, value), ((a, logit_adjoint), (second_a, second_logit_adjoint)))| {
                let PointTools { sums, second } = &mut **tools;
                sums.reset();
                second.reset();
                let first_point = first.point(at, sample);
                let point = seen.point(at, &first_point, sample);
                let adjoint = &mut PairAdjoint::new(
                    at.forward.share(lambda, sample),
                    (&mut *sums, second),
                    (
                        first.shared.is_none().then(|| RawMut::of(a)),
                        first_point.power,
                    ),
                    RawMut::of(second_a),
                );
                *value = penalty.evaluate(&point, Some(adjoint))?;
                check_fault(penalty, sums, sample)?;
                check_fault(penalty, second, sample)?;
                let logit = &first_point.logit;
                sums.add_to(logit.loss, logit.state, logit_adjoint);
                let logit = &point.second.logit;
                second.add_to(logit.loss, logit.state, second_logit_adjoint);
                Ok(())
            },
        )
    }

    /// Adds the parameter gradient at this point to `gradient`; if `exact`, leaves the derivative
    /// with respect to the point itself at the input of `loss_rows`. The part of a `shared` first
    /// layer in the derivative of `g'` is left out.
    fn pull_back(
        &mut self,
        at: &Context<T>,
        shared: Option<usize>,
        exact: bool,
        gradient: &mut Parameters<T>,
    ) {
        let (network, second, tangents) = (at.network, &self.second, &mut self.tangents);
        let linearized = LinearizedBatch::all(network, &second.state);
        match shared.map(|first| (first, &network.nodes[first])) {
            Some((first, node)) => {
                let sweep = SweepContext::new(network.parameters().values(), 1);
                let map = node.map.affine().expect("it has a weight");
                self.first
                    .resize(second.state.samples * node.width, T::ZERO);
                map.apply(sweep, &[&self.a], false, &mut self.first);
                let copy = |t: &mut [T]| t.copy_from_slice(&self.first);
                tangents.forward_behind(&linearized, first..linearized.nodes().end, 1, copy);
            }
            None => tangents.forward(&linearized, 1, &self.a),
        }
        let (c, t) = (&second.cotangents, &tangents.buffers);
        let (linear, nodes) = (Accumulate::linear(T::ONE), linearized.nodes());
        let behind = shared.map_or(0, |first| first + 1)..nodes.end;
        weight_gradient(&linearized, c, t, linear, behind, gradient);
        let (u, function) = (tangents.at_output(network), &*at.objective.function);
        add_hessian_times(function, &second.loss, None, u, &mut self.logits);
        let seeds = to_scalar::<T>(&self.logits);
        let seeds = Seeds::PerSample(per_sample(&seeds, 1, network.outputs()));
        let start = usize::from(!exact);
        self.loss_rows
            .backward(&linearized, seeds, start..nodes.end);
        let (c, values) = (&self.loss_rows, &second.state.buffers);
        linearized.weight_gradient(c, values, Accumulate::affine(), gradient);
    }

    /// Adds to `a` what the derivative with respect to `δ`, which the backward pass has left at the
    /// input, means for `g`.
    fn turn(
        &self,
        at: &Context<T>,
        penalty: &dyn PairPenalty,
        first: &First<T>,
        a: &mut [T],
    ) -> Result<()> {
        let (k, d) = (at.network.outputs(), at.network.inputs());
        let at_input = self.loss_rows.at_input().par_chunks(d);
        let samples = a.par_chunks_mut(d).zip(at_input).enumerate();
        let together = least_together(first.g.len(), at.forward.samples());
        samples.with_min_len(together).try_for_each_init(
            || PointTools::kept(k),
            |tools, (sample, (a, x_bar))| {
                let sums = &mut tools.sums;
                sums.reset();
                let point = first.point(at, sample);
                let mut adjoint = GradientAdjoint {
                    logit: LogitAdjoint { weight: 1.0, sums },
                    a: RawMut::of(a),
                    power: point.power,
                };
                let derivative = Numbers::new(Raw::of(x_bar));
                penalty.pull_back(&point, derivative.get(), &mut adjoint);
                check_fault(penalty, sums, sample)
            },
        )
    }

    /// Writes the tangents of `−A'` at the shared first layer, of `−2^−n A'` where `g` is
    /// magnified.
    pub(super) fn opposite_tangents(&self, magnified: &Magnified, tangents: &mut [T]) {
        write_each(tangents, (&self.first, &self.first), |first, _| -first);
        for_each_magnified(magnified, tangents, |power, _, t| *t *= power);
    }

    /// Adds the shared first layer's part of the derivatives with respect to `g'` and `g`, where
    /// `cotangents` are those of `g`, magnified.
    pub(super) fn first_gradient(
        &self,
        network: &Network<T>,
        first: usize,
        (cotangents, magnified): (&RowBatch<T>, &Magnified),
        gradient: &mut Parameters<T>,
    ) {
        let node = &network.nodes[first];
        let second = &self.second.cotangents.buffers[node.slot];
        let mut difference = Buffer::uncleared(second.len());
        let pair = (&second[..], &cotangents.buffers[node.slot][..]);
        write_each(&mut difference, pair, |second, first| second - first);
        for_each_magnified(magnified, &mut difference, |power, entry, c| {
            *c = second[entry] - power * pair.1[entry];
        });
        let map = node.map.affine().expect("it has a weight");
        let sweep = SweepContext::new(network.parameters().values(), 1);
        let (linear, gradient) = (Accumulate::linear(T::ONE), gradient.values_mut());
        map.gradient(sweep, &difference, &self.a, linear, gradient);
    }
}
