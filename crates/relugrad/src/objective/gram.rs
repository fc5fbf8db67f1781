//! The stage of penalties that are functions of the Gram matrix `G`.
//!
//! One backward sweep of seeds `V` gives the rows `V J`; one forward sweep of those rows gives `V G` at the
//! logits. With the summed derivative `Ḡ` of all penalties the part of the parameter gradient is
//! `2 Σ (V Ḡ Vᵀ c_l) t_{l−1}ᵀ`, and `r̄`, `S̄` join the derivative in the logits.

use ndarray::Array2;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

use super::Objective;
use super::first_layer::FirstLayer;
use super::heads::{Heads, random_rows};
use super::order::Order;
use super::plan::{Plan, Route, Rows, SharedSeeds};
use super::workspace::{Pair, Workspace, per_sample, to_scalar};
use crate::buffer::Buffer;
use crate::error::Result;
use crate::jacobian::{grams, symmetrise};
use crate::network::Network;
use crate::network::map::Share;
use crate::parameters::Parameters;
use crate::penalty::Penalty;
use crate::penalty::input_gradient::Norm;
use crate::product::a_bt_serial;
use crate::scalar::Scalar;
use crate::sweep::{Gated, Seeds, multiple_of_identity, weight_gradient};

impl Objective {
    /// Values of the plan's Gram terms and, with `derivatives`, their parts of `f̄` and of the gradient.
    pub(super) fn gram_stage<T: Scalar>(
        &self,
        plan: &Plan,
        network: &Network<T>,
        workspace: &mut Workspace<T>,
        derivatives: bool,
    ) -> Result<()> {
        if plan.gram.is_empty() {
            return Ok(());
        }
        let derivatives = derivatives && plan.gram.iter().any(|&i| self.terms[i].lambda > 0.0);
        if plan.rows == Rows::Projected {
            self.projected_stage(plan.gram[0], network, workspace, derivatives);
            return Ok(());
        }
        let mut pair = std::mem::take(&mut workspace.gram);
        let mut seeds = std::mem::take(&mut workspace.seeds);
        seeds.fill(plan.rows, network.outputs());
        let gated = Gated::all(network, &workspace.record);
        let rows = seeds.exact.nrows();
        let order = Order::of(self, network, &gated, rows);
        let mut entries = Buffer::with_room(gated.samples.len() * rows * rows);
        if derivatives {
            pair.sweep(&gated, &order, &seeds, &mut entries);
        } else {
            let first = match self.route {
                Route::Fewest | Route::SubsetSums => FirstLayer::for_values(&gated, rows),
                Route::AllRows => None,
                Route::FirstLayerGram => FirstLayer::of(network),
            };
            let grams_into =
                |rounded: &mut [T]| grams(&gated, seeds.rounded.view(), first, rounded);
            exact(gated.samples.len() * rows * rows, grams_into, &mut entries);
        }
        let exact_seeds = &seeds.exact;
        let bars = self.heads(plan, exact_seeds, network, workspace, derivatives, &entries)?;
        if derivatives {
            let gated = Gated::all(network, &workspace.record);
            let gradient = workspace.gradient.as_mut().expect("it was started");
            pair.add_gradient(&gated, &order, &seeds, &bars, gradient);
        }
        (workspace.gram, workspace.seeds) = (pair, seeds);
        Ok(())
    }

    /// Evaluates all Gram terms on `grams: [B, R, R]`, adds to `f̄`, and returns `V Ḡ Vᵀ: [B, R, R]`.
    fn heads<T: Scalar>(
        &self,
        plan: &Plan,
        seeds: &Array2<f64>,
        network: &Network<T>,
        workspace: &mut Workspace<T>,
        derivatives: bool,
        grams: &[f64],
    ) -> Result<Buffer<f64>> {
        let (samples, outputs) = (workspace.samples(), network.outputs());
        let rows = plan
            .gram
            .iter()
            .map(|&i| random_rows(&self.terms[i].penalty));
        let mut projections = Buffer::with_room(rows.sum::<usize>() * samples * outputs);
        for &term in &plan.gram {
            projections.extend_from_slice(&self.projection(term, samples, outputs));
        }
        let heads = Heads {
            terms: &self.terms,
            gram: &plan.gram,
            projections,
            seeds,
            loss: &workspace.loss,
            function: self.loss.function(),
            rank: outputs.min(network.inputs()),
            epsilon: T::EPSILON.into_f64(),
            derivatives,
        };
        let [values, bars, f_bars] = heads.evaluate(grams)?;
        for (sample, values) in values.chunks_exact(plan.gram.len()).enumerate() {
            for (&term, &value) in plan.gram.iter().zip(values) {
                workspace.evaluation.sample_penalties[(term, sample)] = value;
            }
        }
        if derivatives {
            let pairs = workspace.f_bar.iter_mut().zip(&*f_bars);
            pairs.for_each(|(f, &bar)| *f += bar);
        }
        Ok(bars)
    }

    /// The projected Jacobian alone: its random rows are the seeds, and the derivative in `V J` is `2(K/m) V J`.
    fn projected_stage<T: Scalar>(
        &self,
        term: usize,
        network: &Network<T>,
        workspace: &mut Workspace<T>,
        derivatives: bool,
    ) {
        let (samples, k) = (workspace.samples(), network.outputs());
        let projection = to_scalar::<T>(&self.projection(term, samples, k));
        let rows = projection.len() / (samples * k);
        let scale = k as f64 / rows as f64;
        let gated = Gated::all(network, &workspace.record);
        let Pair {
            cotangents,
            tangents,
            ..
        } = &mut workspace.gram;
        let seeds = Seeds::PerSample(per_sample(&projection, rows, k));
        cotangents.backward(&gated, seeds, gated.nodes());
        let at_input = cotangents.at_input().chunks_exact(rows * network.inputs());
        for (sample, rows) in at_input.enumerate() {
            let value = scale * Norm::Squared.value(rows);
            workspace.evaluation.sample_penalties[(term, sample)] = value;
        }
        if derivatives {
            tangents.forward_from(&gated, cotangents, gated.nodes().end);
            let weight = 2.0 * scale * self.terms[term].lambda / samples as f64;
            let gradient = workspace.gradient.as_mut().expect("it was started");
            let weight = T::from_f64(weight);
            weight_gradient(
                &gated,
                cotangents,
                &tangents.slots,
                Share::linear(weight),
                gated.nodes(),
                gradient,
            );
        }
    }

    /// The random unit rows of a projected term, `[B, m, K]`; nothing for other terms.
    fn projection(&self, term: usize, samples: usize, outputs: usize) -> Buffer<f64> {
        let Penalty::JacobianProjected { rows, seed } = self.terms[term].penalty else {
            return Buffer::with_room(0);
        };
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(self.draw);
        let entries = 0..samples * rows * outputs;
        let mut vectors = Buffer::of(entries.map(|_| random.sample(StandardNormal)));
        for vector in vectors.chunks_exact_mut(outputs) {
            let norm = Norm::L2.value(vector);
            vector.iter_mut().for_each(|v| *v /= norm);
        }
        vectors
    }
}

impl<T: Scalar> Pair<T> {
    /// Carries the rows of all seeds backward and forward, as far as the `order` wants them, and appends the Gram matrices of
    /// those at the input, `[B, R, R]`.
    fn sweep(
        &mut self,
        gated: &Gated<T>,
        order: &Order<T>,
        seeds: &SharedSeeds<T>,
        entries: &mut Buffer<f64>,
    ) {
        let Pair {
            cotangents,
            tangents,
            first: buffers,
            ..
        } = self;
        let (rows, end) = (seeds.exact.nrows(), order.others(gated.network).end);
        let shared = Seeds::Shared(seeds.rounded.view());
        let start = usize::from(order.first.is_some());
        cotangents.backward(gated, shared, start..end);
        if let Some(first) = &order.first {
            tangents.forward_behind(gated, first.node..end, rows, |tangents| {
                first.tangents(gated, cotangents, buffers, tangents);
            });
        } else {
            tangents.forward_from(gated, cotangents, end);
        }
        match &order.last {
            Some(last) => {
                let grams = |rounded: &mut [T]| last.grams(cotangents, tangents, rounded);
                exact(gated.samples.len() * rows * rows, grams, entries);
            }
            None => grams_from_tangents(tangents.at_output(gated.network), &seeds.exact, entries),
        }
    }

    /// Adds the penalties' part of the gradient, with `bars: V Ḡ Vᵀ`.
    fn add_gradient(
        &mut self,
        gated: &Gated<T>,
        order: &Order<T>,
        seeds: &SharedSeeds<T>,
        bars: &[f64],
        gradient: &mut Parameters<T>,
    ) {
        let rows = seeds.exact.nrows();
        let common = common_multiple_of_identity(bars, rows);
        let scale = T::from_f64(2.0 * common.unwrap_or(1.0));
        let nodes = order.others(gated.network);
        if common.is_none() {
            if let Some(first) = &order.first {
                self.first.keep(&self.cotangents.slots[first.slot]);
            }
            let matrices = to_scalar::<T>(bars);
            self.cotangents
                .mix(&gated.network.nodes[..nodes.end], &matrices);
            if let Some(last) = &order.last {
                last.mix(&mut self.tangents, &matrices);
            }
        }
        let (c, t) = (&self.cotangents, &self.tangents.slots);
        weight_gradient(gated, c, t, Share::linear(scale), nodes, gradient);
        let gradient = gradient.values_mut();
        if let Some(first) = &order.first {
            let mixed = (c, common.is_some());
            first.add_gradient(gated, mixed, scale, &mut self.first, gradient);
        }
        if let Some(last) = &order.last {
            let (seeds, selected) = (seeds.rounded.view(), &mut self.selected);
            last.add_gradient(gated, seeds, &self.tangents, scale, selected, gradient);
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
