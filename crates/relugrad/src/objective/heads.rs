//! What the Gram terms make of the Gram matrices of a batch, sample by sample: values, and derivatives in `G` and in the logits.

use std::cell::{Cell, RefCell};

use ndarray::Array2;
use rayon::prelude::*;

use super::Term;
use crate::buffer::Buffer;
use crate::eigen::EigenSolver;
use crate::error::Result;
use crate::loss::{LossBatch, LossFunction};
use crate::parallel::worthwhile;
use crate::penalty::Penalty;
use crate::penalty::gram::{GramDerivative, GramPoint, Shared};
use crate::product::{a_b_serial, a_bt_serial, at_b_serial};

/// What the terms make of the Gram matrices of a batch.
pub(super) struct Heads<'a> {
    pub(super) terms: &'a [Term],
    /// Which of them are functions of the Gram matrix.
    pub(super) gram: &'a [usize],
    /// Random rows of the projected penalties among these, `[B, m, K]`, one after the other.
    pub(super) projections: Buffer<f64>,
    /// The seeds `V`; `[R, K]`.
    pub(super) seeds: &'a Array2<f64>,
    pub(super) loss: &'a LossBatch,
    pub(super) function: &'static dyn LossFunction,
    /// Upper bound on the rank of `G`, and the relative accuracy of its entries.
    pub(super) rank: usize,
    pub(super) epsilon: f64,
    pub(super) derivatives: bool,
}

/// Random rows that a penalty needs for each sample.
pub(super) fn random_rows(penalty: &Penalty) -> usize {
    match penalty {
        Penalty::JacobianProjected { rows, .. } => *rows,
        _ => 0,
    }
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
    pub(super) fn evaluate(&self, grams: &[f64]) -> Result<[Buffer<f64>; 3]> {
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

    /// Those that are functions of the Gram matrix.
    fn terms(&self) -> impl Iterator<Item = &Term> {
        self.gram.iter().map(|&i| &self.terms[i])
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
            all_pairs: self
                .terms()
                .any(|term| term.penalty == Penalty::JacobianNuclear),
            shared: Shared::default(),
        };
        let (samples, mut projections) = (self.loss.values.len(), &self.projections[..]);
        for (i, term) in self.terms().enumerate() {
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
