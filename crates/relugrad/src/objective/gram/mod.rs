//! The stage of penalties that are functions of the Gram matrix `G`.
//!
//! One backward sweep of seeds `V` gives the rows `V J`; one forward sweep of those rows gives
//! `V G` at the logits. With the summed derivative `Ḡ` of all penalties the part of the parameter
//! gradient is `2 Σ (V Ḡ Vᵀ c_l) t_{l−1}ᵀ`, and `r̄`, `S̄` join the derivative with respect to the
//! logits.

mod last_layers;
mod order;
mod penalties;

use ndarray::Array2;

use super::forward::{Adjoint, Context};
use super::plan::{SeedBasis, SharedSeeds, SweepStrategy};
use super::workspace::{Evaluation, SweepPair, per_sample, to_scalar};
use crate::buffer::Buffer;
use crate::error::Result;
use crate::gram::{FirstLayer, FirstLayerBuffers, grams};
use crate::linalg::symmetrise;
use crate::network::map::Accumulate;
use crate::norm::squared_length;
use crate::parameters::Parameters;
use crate::penalty::{Needs, random_rows};
use crate::product::a_bt_serial;
use crate::scalar::Scalar;
use crate::sweep::{LinearizedBatch, Seeds, multiple_of_identity, weight_gradient};
use penalties::GramTerms;

pub(super) use order::ContractionOrder;

/// Buffers of the stage.
#[derive(Clone, Debug, Default)]
pub(super) struct GramStage<T> {
    seeds: SharedSeeds<T>,
    pair: GramPair<T>,
}

/// Cotangents and tangents of the rows.
#[derive(Clone, Debug, Default)]
pub(super) struct GramPair<T> {
    pub(super) rows: SweepPair<T>,
    first: FirstLayerBuffers<T>,
    /// At which samples the last layers' units are active.
    selected: Vec<u64>,
}

impl<T: Scalar> GramStage<T> {
    /// Values of the stage's terms and, with an adjoint, their derivatives.
    pub(super) fn run(
        &mut self,
        at: &Context<T>,
        evaluation: &mut Evaluation,
        adjoint: Option<&mut Adjoint<T>>,
    ) -> Result<()> {
        let terms = at.objective.gram_terms(at.plan);
        if terms.is_empty() {
            return Ok(());
        }
        let is_weighted = terms.iter().any(|(term, _)| at.lambda(*term) > 0.0);
        let adjoint = adjoint.filter(|_| is_weighted);
        if let (SeedBasis::Random(_), [(term, penalty)]) = (at.plan.basis, terms) {
            self.run_random(at, (*term, penalty.needs()), evaluation, adjoint);
            return Ok(());
        }
        let GramStage { seeds, pair } = self;
        let network = at.network;
        seeds.fill(at.plan.basis, network.outputs());
        let linearized = LinearizedBatch::all(network, &at.forward.state);
        let rows = seeds.exact.nrows();
        let order = ContractionOrder::of(at.objective.strategy, network, &linearized, rows);
        let mut entries = Buffer::with_room(linearized.samples.len() * rows * rows);
        if adjoint.is_some() {
            pair.sweep(&linearized, &order, seeds, &mut entries);
        } else {
            let first = match at.objective.strategy {
                SweepStrategy::Fewest | SweepStrategy::FourRussians => {
                    FirstLayer::for_values(&linearized, rows)
                }
                SweepStrategy::AllRows => None,
                SweepStrategy::FirstLayerGram => FirstLayer::of(network),
            };
            let grams_into =
                |rounded: &mut [T]| grams(&linearized, seeds.rounded.view(), first, rounded);
            exact(
                linearized.samples.len() * rows * rows,
                grams_into,
                &mut entries,
            );
        }
        let gram_terms = GramTerms::new(at, terms, &seeds.exact);
        let logits = adjoint.is_some();
        let [values, bars, f_bars] = gram_terms.evaluate(&entries, logits)?;
        for (sample, values) in values.chunks_exact(terms.len()).enumerate() {
            for ((term, _), &value) in terms.iter().zip(values) {
                evaluation.sample_penalties[(*term, sample)] = value;
            }
        }
        if let Some(adjoint) = adjoint {
            let pairs = adjoint.logits.iter_mut().zip(&*f_bars);
            pairs.for_each(|(f, &bar)| *f += bar);
            pair.add_gradient(&linearized, &order, seeds, &bars, &mut adjoint.parameters);
        }
        Ok(())
    }

    /// The projected Jacobian alone: its random rows are the seeds, and the derivative with respect
    /// to `V J` is `2(K/m) V J`.
    fn run_random(
        &mut self,
        at: &Context<T>,
        (term, needs): (usize, Needs),
        evaluation: &mut Evaluation,
        adjoint: Option<&mut Adjoint<T>>,
    ) {
        let (network, forward) = (at.network, at.forward);
        let (samples, k) = (forward.samples(), network.outputs());
        let projection = to_scalar::<T>(&random_rows(needs, at.objective.draw, samples, k));
        let rows = needs.random_rows;
        let scale = k as f64 / rows as f64;
        let linearized = LinearizedBatch::all(network, &forward.state);
        let SweepPair {
            cotangents,
            tangents,
        } = &mut self.pair.rows;
        let seeds = Seeds::PerSample(per_sample(&projection, rows, k));
        cotangents.backward(&linearized, seeds, linearized.nodes());
        let at_input = cotangents.at_input().chunks_exact(rows * network.inputs());
        for (value, rows) in evaluation.term_mut(term).iter_mut().zip(at_input) {
            *value = scale * squared_length(rows);
        }
        if let Some(adjoint) = adjoint {
            tangents.forward_from(&linearized, cotangents, linearized.nodes().end);
            let weight = T::from_f64(2.0 * scale * at.lambda(term) / samples as f64);
            let (accumulate, gradient) = (Accumulate::linear(weight), &mut adjoint.parameters);
            linearized.weight_gradient(cotangents, &tangents.buffers, accumulate, gradient);
        }
    }
}

impl<T: Scalar> GramPair<T> {
    /// Carries the rows of all seeds backward and forward, as far as the `order` wants them, and
    /// appends the Gram matrices of those at the input, `[B, R, R]`.
    pub(super) fn sweep(
        &mut self,
        linearized: &LinearizedBatch<T>,
        order: &ContractionOrder<T>,
        seeds: &SharedSeeds<T>,
        entries: &mut Buffer<f64>,
    ) {
        let SweepPair {
            cotangents,
            tangents,
        } = &mut self.rows;
        let buffers = &mut self.first;
        let (rows, end) = (seeds.exact.nrows(), order.others(linearized.network).end);
        let shared = Seeds::Shared(seeds.rounded.view());
        let start = usize::from(order.first.is_some());
        cotangents.backward(linearized, shared, start..end);
        if let Some(first) = &order.first {
            tangents.forward_behind(linearized, first.node..end, rows, |tangents| {
                first.tangents(linearized, cotangents, buffers, tangents);
            });
        } else {
            tangents.forward_from(linearized, cotangents, end);
        }
        match &order.last {
            Some(last) => {
                let grams = |rounded: &mut [T]| last.grams(cotangents, tangents, rounded);
                exact(linearized.samples.len() * rows * rows, grams, entries);
            }
            None => grams_from_tangents(
                tangents.at_output(linearized.network),
                &seeds.exact,
                entries,
            ),
        }
    }

    /// Adds the part of the gradient that comes through the Gram matrices, with `bars: V Ḡ Vᵀ`. The
    /// rows are no longer what was swept.
    pub(super) fn add_gradient(
        &mut self,
        linearized: &LinearizedBatch<T>,
        order: &ContractionOrder<T>,
        seeds: &SharedSeeds<T>,
        bars: &[f64],
        gradient: &mut Parameters<T>,
    ) {
        let rows = seeds.exact.nrows();
        let common = common_multiple_of_identity(bars, rows);
        let scale = T::from_f64(2.0 * common.unwrap_or(1.0));
        let nodes = order.others(linearized.network);
        if common.is_none() {
            if let Some(first) = &order.first {
                self.first.keep(&self.rows.cotangents.buffers[first.slot]);
            }
            let matrices = to_scalar::<T>(bars);
            self.rows
                .cotangents
                .mix(&linearized.network.nodes[..nodes.end], &matrices);
            if let Some(last) = &order.last {
                last.mix(&mut self.rows.tangents, &matrices);
            }
        }
        let (c, t) = (&self.rows.cotangents, &self.rows.tangents.buffers);
        weight_gradient(linearized, c, t, Accumulate::linear(scale), nodes, gradient);
        let gradient = gradient.values_mut();
        if let Some(first) = &order.first {
            let mixed = (c, common.is_some());
            first.add_gradient(linearized, mixed, scale, &mut self.first, gradient);
        }
        if let Some(last) = &order.last {
            let (seeds, selected) = (seeds.rounded.view(), &mut self.selected);
            last.add_gradient(
                linearized,
                seeds,
                &self.rows.tangents,
                scale,
                selected,
                gradient,
            );
        }
    }
}

/// Appends so many numbers that `write` writes in the network's precision.
fn exact<T: Scalar>(length: usize, write: impl FnOnce(&mut [T]), to: &mut Buffer<f64>) {
    let mut rounded = Buffer::uncleared(length);
    write(&mut rounded);
    to.extend(rounded.iter().map(|entry| entry.into_f64()));
}

/// `G̃ = V G Vᵀ` in `f64` from the tangents `V G` at the logits; `[B, R, K]` becomes `[B, R, R]`.
fn grams_from_tangents<T: Scalar>(tangents: &[T], seeds: &Array2<f64>, grams: &mut Buffer<f64>) {
    let (rows, outputs) = seeds.dim();
    for vg in tangents.chunks_exact(rows * outputs) {
        let vg = Buffer::of(vg.iter().map(|x| x.into_f64()));
        let start = grams.len();
        if rows == outputs {
            grams.extend_from_slice(&vg);
        } else {
            grams.resize(start + rows * rows, 0.0);
            let seeds = seeds.as_slice().expect("seeds are contiguous");
            a_bt_serial(
                (rows, outputs, rows),
                &vg,
                seeds,
                false,
                &mut grams[start..],
            );
        }
        symmetrise(&mut grams[start..], rows);
    }
}

/// `m` if all of the matrices `[samples, rows, rows]` are `m I`: then nothing need be mixed.
fn common_multiple_of_identity(matrices: &[f64], rows: usize) -> Option<f64> {
    let mut each = matrices.chunks_exact(rows * rows);
    let common = |matrix: &[f64]| multiple_of_identity(matrix, rows) == Some(matrices[0]);
    each.all(common).then(|| matrices[0])
}
