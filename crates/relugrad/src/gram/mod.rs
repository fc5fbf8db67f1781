//! Gram matrices `G = J Jᵀ`, sample by sample.

mod first_layer;

use ndarray::{Array2, Array3, ArrayView2, s};

use crate::buffer::{Buffer, Kept};
use crate::error::{Result, check_array};
use crate::jacobian::SWEEP_MEMORY;
use crate::linalg::symmetrise;
use crate::parallel::{blocks, for_each_chunk};
use crate::product::a_bt;
use crate::scalar::Scalar;
use crate::sweep::{LinearizedBatch, RowBatch, Seeds};
use crate::trace::Trace;
use crate::tuning::SPARSE;

pub(crate) use first_layer::{FirstLayer, FirstLayerBuffers, first_affine};

impl<T: Scalar> Trace<'_, T> {
    /// The Gram matrix `G = J Jᵀ` of every sample; `[B, K, K]`, exactly symmetric.
    ///
    /// Cost: that of [`jacobian`](Self::jacobian) and `K² D` per sample, or, where it is less,
    /// `W Wᵀ` of a dense first layer with `n` outputs, `K n²/2` and `K² n` per sample instead of
    /// what the first layer costs. The Jacobian is not kept. Memory: the result and at most
    /// [`SWEEP_MEMORY`] bytes, or one sample's Jacobian if it needs more.
    ///
    /// # Errors
    /// [`Error::NotFinite`](crate::Error::NotFinite) if it overflows.
    pub fn gram(&self) -> Result<Array3<T>> {
        let k = self.network.outputs();
        let mut gram = Array3::zeros((self.samples(), k, k));
        let entries = gram.as_slice_mut().expect("standard layout");
        let part = self.part(self.all());
        let first = FirstLayer::for_values(&part, k);
        grams(&part, Array2::eye(k).view(), first, entries);
        check_array("the Gram matrix", &[self.samples(), k, k], entries)?;
        Ok(gram)
    }
}

/// Writes `V J Jᵀ Vᵀ` of every sample, with shared seeds `V: [R, K]`, through `W Wᵀ` of the `first`
/// layer if there is one; `grams: [B, R, R]`.
///
/// Where `D < R` the columns of `J` are swept forward; where the rows of a sample do not fit into
/// [`SWEEP_MEMORY`], `V J` is collected from several sweeps.
pub(crate) fn grams<T: Scalar>(
    linearized: &LinearizedBatch<T>,
    seeds: ArrayView2<T>,
    first: Option<FirstLayer<T>>,
    grams: &mut [T],
) {
    let (r, d) = (seeds.nrows(), linearized.network.inputs());
    let fit = SWEEP_MEMORY / (linearized.network.row_entries() * size_of::<T>());
    let mut sweep = Kept::<RowBatch<T>>::take();
    let first = first.filter(|_| r <= fit && r <= d);
    let half = first.map(|first| (first, first.half_gram()));
    for samples in blocks(linearized.samples.len(), (fit / r.min(d)).max(1)) {
        let start = linearized.samples.start;
        let part = LinearizedBatch {
            samples: start + samples.start..start + samples.end,
            ..linearized.clone()
        };
        let grams = &mut grams[samples.start * r * r..samples.end * r * r];
        if let Some((first, half)) = &half {
            sweep.backward(&part, Seeds::Shared(seeds), 1..first.node + 1);
            first.grams(&part, &sweep, half, grams);
        } else if d < r {
            products_of_columns(&part, seeds, &mut sweep, grams);
        } else if r > fit {
            let rows = collected(&part, seeds, fit.max(1), &mut sweep);
            products_of_rows((r, d), &rows, &rows, grams);
        } else {
            sweep.backward(&part, Seeds::Shared(seeds), 0..1);
            products_of_rows((r, d), sweep.at_input(), sweep.at_input(), grams);
        }
    }
}

/// Writes `V J Jᵀ Vᵀ` of every sample from the columns of `J`; `seeds: [R, K]`,
/// `grams: [samples, R, R]`.
fn products_of_columns<T: Scalar>(
    linearized: &LinearizedBatch<T>,
    seeds: ArrayView2<T>,
    sweep: &mut RowBatch<T>,
    grams: &mut [T],
) {
    let ((r, k), d) = (seeds.dim(), linearized.network.inputs());
    sweep.forward_units(linearized);
    let seeds = seeds.as_standard_layout();
    let seeds = seeds.as_slice().expect("standard layout");
    let mut rows = Buffer::uncleared(linearized.samples.len() * r * d);
    let columns = sweep.at_output(linearized.network).chunks_exact(d * k);
    for (rows, columns) in rows.chunks_exact_mut(r * d).zip(columns) {
        a_bt((k, d), seeds, columns, false, rows);
    }
    products_of_rows((r, d), &rows, &rows, grams);
}

/// `V J` of one sample, swept backward with `fit` rows at a time; `[R, D]`.
fn collected<T: Scalar>(
    linearized: &LinearizedBatch<T>,
    seeds: ArrayView2<T>,
    fit: usize,
    sweep: &mut RowBatch<T>,
) -> Buffer<T> {
    let mut all = Buffer::with_room(seeds.nrows() * linearized.network.inputs());
    for rows in blocks(seeds.nrows(), fit) {
        sweep.backward(linearized, Seeds::Shared(seeds.slice(s![rows, ..])), 0..1);
        all.extend_from_slice(sweep.at_input());
    }
    all
}

/// Writes `A Bᵀ` of every sample, which is known to be symmetric; `a, b: [samples, R, width]`,
/// `grams: [samples, R, R]`.
pub(crate) fn products_of_rows<T: Scalar>(
    (r, width): (usize, usize),
    a: &[T],
    b: &[T],
    grams: &mut [T],
) {
    for_each_chunk(grams, r * r, a.len() * r, |sample, gram| {
        let rows = sample * r * width..(sample + 1) * r * width;
        a_bt((width, r), &a[rows.clone()], &b[rows], false, gram);
        symmetrise(gram, r);
    });
}

/// What a product with units as columns costs beside a dense one: as much as the share of them that
/// are active, and a little more.
pub(crate) fn sparse_cost(active: f64) -> f64 {
    (SPARSE * active).min(1.0)
}

/// The share of a buffer's units that are active behind gates that close the others; 1 behind any
/// others.
pub(crate) fn active_share<T: Scalar>(linearized: &LinearizedBatch<T>, slot: usize) -> f64 {
    let gates = linearized.closing(slot);
    gates.map_or(1.0, |gates| gates.active_share())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jacobian::tests::{by_vectors, inputs, networks};
    use approx::assert_abs_diff_eq;
    use ndarray::Axis;

    #[test]
    fn gram_matrices_by_columns_and_by_collected_rows_are_the_same() {
        for network in networks() {
            let inputs = inputs(&network);
            let trace = network.trace(inputs.view()).unwrap();
            let part = trace.part(0..1);
            let (k, d) = (network.outputs(), network.inputs());
            let j = by_vectors(&trace);
            let j = j.index_axis(Axis(0), 0);
            // Neither the identity nor square, so that a transposition shows.
            let seeds = Array2::from_shape_fn((k - 1, k), |(i, j)| ((i * k + j) as f64).cos());
            let vj = seeds.dot(&j);
            let mut sweep = RowBatch::default();
            for fit in [1, 2, k] {
                let rows = collected(&part, seeds.view(), fit, &mut sweep);
                let rows = ArrayView2::from_shape((k - 1, d), &rows).unwrap();
                assert_abs_diff_eq!(rows, vj, epsilon = 1e-14);
            }
            let mut grams = vec![0.0; (k - 1) * (k - 1)];
            products_of_columns(&part, seeds.view(), &mut sweep, &mut grams);
            let grams = ArrayView2::from_shape((k - 1, k - 1), &grams).unwrap();
            assert_abs_diff_eq!(grams, vj.dot(&vj.t()), epsilon = 1e-13);
            let gram = trace.gram().unwrap();
            let gram = gram.index_axis(Axis(0), 0);
            assert_abs_diff_eq!(gram, j.dot(&j.t()), epsilon = 1e-14);
        }
    }
}
