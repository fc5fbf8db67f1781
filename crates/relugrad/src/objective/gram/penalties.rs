//! What the Gram terms make of the Gram matrices of a batch, sample by sample: values, and
//! derivatives with respect to `G` and the logits.

use std::cell::RefCell;
use std::sync::Arc;

use ndarray::Array2;
use rayon::prelude::*;

use crate::buffer::Buffer;
use crate::eigen::EigenSolver;
use crate::error::Result;
use crate::objective::forward::Context;
use crate::objective::sample::{GramTools, check_fault};
use crate::parallel::least_together;
use crate::penalty::{GramAdjoint, GramPenalty, GramPoint, GramSums, Shared, random_rows};
use crate::product::{a_b_serial, a_bt_serial, at_b_serial};
use crate::scalar::Scalar;

/// What the terms make of the Gram matrices of a batch.
pub(super) struct GramTerms<'a, T> {
    at: &'a Context<'a, T>,
    terms: &'a [(usize, Arc<dyn GramPenalty>)],
    /// Random rows of those that need some, `[B, m, K]`, one after the other.
    random_rows: Buffer<f64>,
    /// The seeds `V`; `[R, K]`.
    seeds: &'a Array2<f64>,
    all_pairs: bool,
}

/// Makes a matrix that is a multiple of the identity up to rounding one exactly: most of the work
/// with it is spared then.
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

impl<'a, T: Scalar> GramTerms<'a, T> {
    pub(super) fn new(
        at: &'a Context<'a, T>,
        terms: &'a [(usize, Arc<dyn GramPenalty>)],
        seeds: &'a Array2<f64>,
    ) -> GramTerms<'a, T> {
        let (samples, outputs) = (at.forward.samples(), at.network.outputs());
        let all = terms.iter().map(|(_, penalty)| penalty.needs());
        let count = all.clone().map(|needs| needs.random_rows).sum::<usize>();
        let mut rows = Buffer::with_room(count * samples * outputs);
        for needs in all.clone() {
            rows.extend_from_slice(&random_rows(needs, at.objective.draw, samples, outputs));
        }
        GramTerms {
            at,
            terms,
            random_rows: rows,
            seeds,
            all_pairs: all.clone().any(|needs| needs.all_eigenpairs),
        }
    }

    /// Values `[B, terms]`, `V Ḡ Vᵀ` `[B, R, R]` and parts of `f̄` `[B, K]`, the last two zero
    /// without derivatives.
    pub(super) fn evaluate(&self, grams: &[f64], derivatives: bool) -> Result<[Buffer<f64>; 3]> {
        let (r, k) = self.seeds.dim();
        let (samples, count) = (grams.len() / (r * r), self.terms.len());
        let mut values = Buffer::zeros(samples * count);
        let mut bars = Buffer::zeros(samples * r * r);
        let mut f_bars = Buffer::zeros(samples * k);
        // A term takes a few products of K×K matrices, or an eigenproblem.
        let operations = 8 * samples * k * k * k * count;
        let together = least_together(operations, samples);
        let parts = values
            .par_chunks_mut(count)
            .zip(bars.par_chunks_mut(r * r))
            .zip(f_bars.par_chunks_mut(k))
            .zip(grams.par_chunks(r * r))
            .enumerate()
            .with_min_len(together);
        parts.try_for_each_init(
            || GramTools::kept(k),
            |tools, (sample, (((values, bar), logit_adjoint), gram))| {
                let mut full = Buffer::with_room(if r == k { 0 } else { k * k });
                let gram = if r == k {
                    gram
                } else {
                    full.resize(k * k, 0.0);
                    self.fill(gram, &mut full);
                    &full
                };
                let GramTools { sums, solver } = &mut **tools;
                sums.reset();
                let wanted = derivatives.then_some(&mut *sums);
                self.sample((sample, gram), solver, values, wanted)?;
                if derivatives {
                    self.finish(sample, sums, bar, logit_adjoint);
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
        mut sums: Option<&mut GramSums>,
    ) -> Result<()> {
        let mut point = GramPoint {
            logit: self.at.point(sample),
            g,
            random_rows: &[],
            rank: self.at.network.outputs().min(self.at.network.inputs()),
            epsilon: T::EPSILON.into_f64(),
            solver,
            all_pairs: self.all_pairs,
            shared: Shared::default(),
        };
        let (forward, mut random_rows) = (self.at.forward, &self.random_rows[..]);
        for ((term, penalty), value) in self.terms.iter().zip(values) {
            let length = penalty.needs().random_rows * point.outputs();
            let (all, rest) = random_rows.split_at(forward.samples() * length);
            point.random_rows = &all[sample * length..(sample + 1) * length];
            random_rows = rest;
            let Some(sums) = sums.as_deref_mut() else {
                let found = penalty.evaluate(&point, None);
                *value = found.map_err(|error| error.at_sample(sample))?;
                continue;
            };
            let weight = forward.share(self.at.lambda(*term), sample);
            let mut adjoint = GramAdjoint::new(weight, sums);
            let found = penalty.evaluate(&point, Some(&mut adjoint));
            *value = found.map_err(|error| error.at_sample(sample))?;
            check_fault(&**penalty, &sums.logit, sample)?;
        }
        Ok(())
    }

    /// Writes `V Ḡ Vᵀ` and the derivative with respect to the logits.
    fn finish(&self, sample: usize, sums: &GramSums, out: &mut [f64], logit_adjoint: &mut [f64]) {
        let (r, k) = self.seeds.dim();
        if r == k {
            out.copy_from_slice(&sums.g);
        } else {
            let mut product = Buffer::zeros(r * k);
            a_b_serial((r, k, k), self.seeds(), &sums.g, false, &mut product);
            a_bt_serial((r, k, r), &product, self.seeds(), false, out);
            clean(out, r);
        }
        let logit = self.at.point(sample);
        sums.logit.add_to(logit.loss, logit.state, logit_adjoint);
    }
}
