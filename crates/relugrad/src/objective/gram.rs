//! The stage of penalties that are functions of the Gram matrix `G`.
//!
//! One backward sweep of seeds `V` gives the rows `V J`; one forward sweep of those rows gives `V G` at the
//! logits. With the summed derivative `Ḡ` of all penalties the part of the parameter gradient is
//! `2 Σ (V Ḡ Vᵀ c_l) t_{l−1}ᵀ`, and `r̄`, `S̄` join the derivative in the logits.

use std::cell::{Cell, RefCell};

use ndarray::Array2;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use rayon::prelude::*;

use super::first_layer::FirstLayer;
use super::plan::{Plan, Route, Rows};
use super::workspace::{Pair, Workspace, per_sample, to_scalar};
use super::{Objective, Term};
use crate::buffer::Buffer;
use crate::eigen::EigenSolver;
use crate::error::Result;
use crate::jacobian::{grams, symmetrise};
use crate::loss::LossBatch;
use crate::network::Network;
use crate::network::map::Share;
use crate::parallel::worthwhile;
use crate::penalty::Penalty;
use crate::penalty::gram::{GramDerivative, GramPoint, Shared};
use crate::penalty::input_gradient::Norm;
use crate::product::{a_b_serial, a_bt_serial, at_b_serial};
use crate::scalar::Scalar;
use crate::sweep::{Gated, Seeds, multiple_of_identity, weight_gradient};

/// What the terms make of the Gram matrices of a batch.
struct Heads<'a> {
    terms: &'a [Term],
    /// Which of them are functions of the Gram matrix.
    gram: &'a [usize],
    /// Random rows of the projected penalties among these, `[B, m, K]`, one after the other.
    projections: Buffer<f64>,
    /// The seeds `V`; `[R, K]`.
    seeds: &'a Array2<f64>,
    loss: &'a LossBatch,
    function: &'static dyn crate::loss::LossFunction,
    /// Upper bound on the rank of `G`, and the relative accuracy of its entries.
    rank: usize,
    epsilon: f64,
    derivatives: bool,
}

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
        let mut entries = Buffer::with_room(gated.samples.len() * rows * rows);
        let first = FirstLayer::of(network).filter(|first| self.through(first, &gated, rows));
        if derivatives {
            let shared = Seeds::Shared(seeds.rounded.view());
            pair.cotangents.backward(&gated, shared, first.is_none());
            if let Some(first) = &first {
                let (c, buffers) = (&pair.cotangents.slots[first.slot], &mut pair.first);
                pair.tangents
                    .forward_behind(&gated, (first.node, rows), |tangents| {
                        first.tangents(rows, c, buffers, tangents);
                    });
            } else {
                pair.tangents.forward_from(&gated, &mut pair.cotangents);
            }
            grams_from_tangents(pair.tangents.at_output(network), &seeds.exact, &mut entries);
        } else {
            let mut rounded = Buffer::uncleared(gated.samples.len() * rows * rows);
            let first = match self.route {
                Route::Fewest => FirstLayer::for_values(&gated, rows),
                Route::AllRows => None,
                Route::FirstLayerGram => FirstLayer::of(network),
            };
            grams(&gated, seeds.rounded.view(), first, &mut rounded);
            entries.extend(rounded.iter().map(|g| g.into_f64()));
        }
        let bars = self.heads(
            plan,
            &seeds.exact,
            network,
            workspace,
            derivatives,
            &entries,
        )?;
        if derivatives {
            let gated = Gated::all(network, &workspace.record);
            let gradient = workspace.gradient.as_mut().expect("it was started");
            let common = common_multiple_of_identity(&bars, rows);
            let scale = T::from_f64(2.0 * common.unwrap_or(1.0));
            if common.is_none() {
                if let Some(first) = &first {
                    pair.first.keep(&pair.cotangents.slots[first.slot]);
                }
                pair.cotangents.mix(network, &to_scalar::<T>(&bars));
            }
            let (c, t) = (&pair.cotangents, &pair.tangents.slots);
            let except = first.as_ref().map(|first| first.node);
            weight_gradient(&gated, c, t, Share::linear(scale), except, gradient);
            if let Some(first) = &first {
                let (mixed, gradient) = (&c.slots[first.slot], gradient.values_mut());
                let unmixed = common.is_some();
                first.add_gradient((rows, unmixed), mixed, scale, &mut pair.first, gradient);
            }
        }
        (workspace.gram, workspace.seeds) = (pair, seeds);
        Ok(())
    }

    /// Whether the Gram stage with `rows` rows for each sample takes the order without the Jacobian.
    pub(super) fn through<T: Scalar>(
        &self,
        first: &FirstLayer<T>,
        gated: &Gated<T>,
        rows: usize,
    ) -> bool {
        let (here, there) = first.costs(gated, rows);
        match self.route {
            Route::Fewest => here < there,
            Route::AllRows => false,
            Route::FirstLayerGram => true,
        }
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
        cotangents.backward(&gated, seeds, true);
        let at_input = cotangents.at_input().chunks_exact(rows * network.inputs());
        for (sample, rows) in at_input.enumerate() {
            let value = scale * Norm::Squared.value(rows);
            workspace.evaluation.sample_penalties[(term, sample)] = value;
        }
        if derivatives {
            tangents.forward_from(&gated, cotangents);
            let weight = 2.0 * scale * self.terms[term].lambda / samples as f64;
            let gradient = workspace.gradient.as_mut().expect("it was started");
            let weight = T::from_f64(weight);
            weight_gradient(
                &gated,
                cotangents,
                &tangents.slots,
                Share::linear(weight),
                None,
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

/// Random rows that a penalty needs for each sample.
fn random_rows(penalty: &Penalty) -> usize {
    match penalty {
        Penalty::JacobianProjected { rows, .. } => *rows,
        _ => 0,
    }
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

/// Makes a matrix that is a multiple of the identity up to rounding one exactly: most of the work with it is spared then.
fn clean(matrix: &mut [f64], size: usize) {
    let m = matrix[0];
    let near = |(i, &entry): (usize, &f64)| {
        let exact = if i % (size + 1) == 0 { m } else { 0.0 };
        (entry - exact).abs() <= 1e-14 * m.abs()
    };
    if matrix.iter().enumerate().all(near) {
        matrix.fill(0.0);
        matrix
            .iter_mut()
            .step_by(size + 1)
            .for_each(|entry| *entry = m);
    }
}

/// What a thread needs to work on one sample after another.
type Tools = (GramDerivative, RefCell<EigenSolver>);

thread_local! {
    static TOOLS: Cell<Option<Tools>> = const { Cell::new(None) };
}

/// A thread's tools while it uses them; they are kept from one evaluation to the next.
struct Desk(Option<Tools>);

impl Desk {
    /// With tools for `K` logits.
    fn new(outputs: usize) -> Desk {
        let fits = |(derivative, _): &Tools| derivative.r.len() == outputs;
        let new = || {
            let solver = RefCell::new(EigenSolver::new(outputs));
            (GramDerivative::zeros(outputs), solver)
        };
        Desk(Some(TOOLS.take().filter(fits).unwrap_or_else(new)))
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        TOOLS.set(self.0.take());
    }
}

impl Heads<'_> {
    /// Values `[B, terms]`, `V Ḡ Vᵀ` `[B, R, R]` and parts of `f̄` `[B, K]`, the last two empty without derivatives.
    fn evaluate(&self, grams: &[f64]) -> Result<[Buffer<f64>; 3]> {
        let (r, k) = self.seeds.dim();
        let samples = grams.len() / (r * r);
        let mut values = Buffer::zeros(samples * self.gram.len());
        let mut bars = Buffer::zeros(samples * r * r);
        let mut f_bars = Buffer::zeros(samples * k);
        // A term takes a few products of K×K matrices, or an eigenproblem.
        let operations = 8 * samples * k * k * k * self.gram.len();
        let together = if worthwhile(operations) { 1 } else { samples };
        let parts = values
            .par_chunks_mut(self.gram.len())
            .zip(bars.par_chunks_mut(r * r))
            .zip(f_bars.par_chunks_mut(k))
            .zip(grams.par_chunks(r * r))
            .enumerate()
            .with_min_len(together);
        parts.try_for_each_init(
            || Desk::new(k),
            |desk, (sample, (((values, bar), f_bar), gram))| {
                let mut full = Buffer::with_room(if r == k { 0 } else { k * k });
                let gram = if r == k {
                    gram
                } else {
                    full.resize(k * k, 0.0);
                    self.fill(gram, &mut full);
                    &full
                };
                let (derivative, solver) = desk.0.as_mut().expect("tools lie on it");
                derivative.reset();
                self.sample((sample, gram), solver, values, derivative)?;
                if self.derivatives {
                    self.finish(sample, derivative, bar, f_bar);
                }
                Ok(())
            },
        )?;
        Ok([values, bars, f_bars])
    }

    /// Writes `Vᵀ G̃ V`: `G` for the identity, `C G C` for centred rows.
    fn fill(&self, gram: &[f64], full: &mut [f64]) {
        let (r, k) = self.seeds.dim();
        let mut product = Buffer::zeros(r * k);
        a_b_serial((r, r, k), gram, self.seeds(), false, &mut product);
        at_b_serial((r, k, k), self.seeds(), &product, false, full);
    }

    fn seeds(&self) -> &[f64] {
        self.seeds.as_slice().expect("seeds are contiguous")
    }

    fn sample(
        &self,
        (sample, g): (usize, &[f64]),
        solver: &RefCell<EigenSolver>,
        values: &mut [f64],
        derivative: &mut GramDerivative,
    ) -> Result<()> {
        let point = GramPoint {
            g,
            r: self.loss.residual(sample),
            loss: self.function,
            state: self.loss.state(sample),
            rank: self.rank,
            epsilon: self.epsilon,
            solver,
            shared: Shared::default(),
        };
        let (samples, mut projections) = (self.loss.values.len(), &self.projections[..]);
        for (i, term) in self.gram.iter().map(|&i| &self.terms[i]).enumerate() {
            let length = random_rows(&term.penalty) * point.outputs();
            let (all, rest) = projections.split_at(samples * length);
            let rows = &all[sample * length..(sample + 1) * length];
            projections = rest;
            derivative.weight = term.lambda / samples as f64;
            let derivative = self.derivatives.then_some(&mut *derivative);
            values[i] = term.penalty.gram_value(&point, rows, derivative)?;
        }
        Ok(())
    }

    /// Writes `V Ḡ Vᵀ` and `S r̄ + ∂⟨S̄, S⟩/∂f`.
    fn finish(&self, sample: usize, bar: &GramDerivative, out: &mut [f64], f_bar: &mut [f64]) {
        let state = self.loss.state(sample);
        let (r, k) = self.seeds.dim();
        if r == k {
            out.copy_from_slice(&bar.g);
        } else {
            let mut product = Buffer::zeros(r * k);
            a_b_serial((r, k, k), self.seeds(), &bar.g, false, &mut product);
            a_bt_serial((r, k, r), &product, self.seeds(), false, out);
            clean(out, r);
        }
        self.function.hessian_pullback(state, &bar.s, f_bar);
        let product = &mut Buffer::zeros(k);
        self.function.hessian_times(state, &bar.r, product);
        f_bar.iter_mut().zip(&**product).for_each(|(f, s)| *f += s);
    }
}
