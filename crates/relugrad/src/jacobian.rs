//! Jacobians `J = ∂f/∂x` and Gram matrices `G = J Jᵀ`, sample by sample.

use std::ops::Range;

use ndarray::{Array2, Array3, ArrayView2, ArrayView3, s};

use crate::buffer::Buffer;
use crate::error::{Error, Result, check_array};
use crate::linalg::symmetrise;
use crate::objective::FirstLayer;
use crate::parallel::{all_finite, for_each_chunk};
use crate::scalar::Scalar;
use crate::sweep::{Gated, Rows, Seeds};
use crate::trace::Trace;

/// Bytes of sweep buffers that [`Trace::jacobian`] and [`Trace::gram`] use at most, unless the
/// `min(K, D)` rows of one sample need more.
pub const SWEEP_MEMORY: usize = 64 << 20;

/// Some rows of the Jacobians of some samples.
#[derive(Debug)]
pub struct JacobianBlock<'a, T> {
    /// Which samples of the batch.
    pub samples: Range<usize>,
    /// Which rows of their Jacobians, that is which logits.
    pub rows: Range<usize>,
    /// The rows; `[samples, rows, D]`, not in standard layout where they came column by column.
    pub values: ArrayView3<'a, T>,
}

/// What overflows, in errors.
const JACOBIAN: &str = "the Jacobian";

impl<T: Scalar> JacobianBlock<'_, T> {
    /// Refuses entries that are not finite.
    fn check(&self) -> Result<()> {
        let values = self.values.as_slice_memory_order();
        if values.is_some_and(all_finite) {
            return Ok(());
        }
        let broken = self.values.indexed_iter().find(|(_, x)| !x.is_finite());
        broken.map_or(Ok(()), |((sample, row, column), _)| {
            Err(Error::NotFinite {
                what: JACOBIAN.into(),
                index: vec![self.samples.start + sample, self.rows.start + row, column],
            })
        })
    }
}

impl<T: Scalar> Trace<'_, T> {
    /// The Jacobian `J` of every sample; `[B, K, D]`.
    ///
    /// Cost: one backward sweep with `B·K` rows or, where `D < K`, one forward sweep of the unit
    /// vectors with `B·D` rows. Memory: the result and at most [`SWEEP_MEMORY`] bytes, or one
    /// sample's rows if they need more.
    ///
    /// # Errors
    /// [`Error::NotFinite`] if it overflows.
    pub fn jacobian(&self) -> Result<Array3<T>> {
        let mut jacobian = Array3::default((0, 0, 0));
        self.jacobian_into(&mut jacobian)?;
        Ok(jacobian)
    }

    /// [`jacobian`](Self::jacobian) into an array that is reused if it has the right shape.
    ///
    /// # Errors
    /// As for [`jacobian`](Self::jacobian); then the array holds no result.
    pub fn jacobian_into(&self, jacobian: &mut Array3<T>) -> Result<()> {
        let shape = (
            self.samples(),
            self.network.outputs(),
            self.network.inputs(),
        );
        if jacobian.dim() != shape || !jacobian.is_standard_layout() {
            *jacobian = Array3::zeros(shape);
        }
        self.write_jacobian(jacobian)
    }

    /// Writes all entries of an array of the right shape in standard layout.
    fn write_jacobian(&self, jacobian: &mut Array3<T>) -> Result<()> {
        let (k, d) = (self.network.outputs(), self.network.inputs());
        let memory = SWEEP_MEMORY.max(k.min(d) * self.row_bytes());
        if k <= d && self.samples() * k * self.row_bytes() <= memory {
            self.sweep_into(jacobian);
            let values = jacobian.as_slice().expect("standard layout");
            return check_array(JACOBIAN, &[self.samples(), k, d], values);
        }
        self.for_each_jacobian_block(memory, |block| {
            let rows = s![block.samples, block.rows, ..];
            jacobian.slice_mut(rows).assign(&block.values);
        })
    }

    /// The same in one backward sweep, whose buffer at the input the array becomes.
    fn sweep_into(&self, jacobian: &mut Array3<T>) {
        let (shape, mut sweep) = (jacobian.dim(), T::take_rows());
        let identity = Array2::eye(self.network.outputs());
        sweep.slots.resize_with(self.network.slots.len(), Vec::new);
        sweep.slots[0] = std::mem::take(jacobian).into_raw_vec_and_offset().0;
        sweep.backward(&self.part(self.all()), Seeds::Shared(identity.view()), 0..1);
        let rows = std::mem::take(&mut sweep.slots[0]);
        *jacobian = Array3::from_shape_vec(shape, rows).expect("K rows of D for each sample");
        T::put_rows(sweep);
    }

    /// Calls `visit` with the Jacobians in blocks, in order, using at most `memory` bytes of sweep buffers.
    ///
    /// A block holds all rows of as many samples as fit, or some rows of one sample if not all of
    /// them do. Where `D < K` the `D` columns are swept forward instead, if those of a sample fit.
    ///
    /// # Errors
    /// [`Error::MemoryBound`] if `memory` is less than [`row_bytes`](Self::row_bytes), and [`Error::NotFinite`] before a block
    /// is visited that overflows.
    pub fn for_each_jacobian_block(
        &self,
        memory: usize,
        mut visit: impl FnMut(JacobianBlock<T>),
    ) -> Result<()> {
        let (k, d) = (self.network.outputs(), self.network.inputs());
        let fit = memory / self.row_bytes();
        if fit == 0 {
            return Err(Error::MemoryBound {
                bound: memory,
                needed: self.row_bytes(),
            });
        }
        let mut sweep = T::take_rows();
        if d < k && d <= fit {
            for samples in blocks(self.samples(), fit / d) {
                sweep.forward_units(&self.part(samples.clone()));
                let shape = (samples.len(), d, k);
                let columns = ArrayView3::from_shape(shape, sweep.at_output(self.network));
                let block = JacobianBlock {
                    samples,
                    rows: 0..k,
                    values: columns.expect("columns of K").permuted_axes([0, 2, 1]),
                };
                block.check()?;
                visit(block);
            }
            T::put_rows(sweep);
            return Ok(());
        }
        for samples in blocks(self.samples(), (fit / k).max(1)) {
            let gated = self.part(samples.clone());
            for rows in blocks(k, fit.min(k)) {
                let units = unit_rows(rows.clone(), k);
                sweep.backward(&gated, Seeds::Shared(units.view()), 0..1);
                let shape = (samples.len(), rows.len(), d);
                let block = JacobianBlock {
                    samples: samples.clone(),
                    rows,
                    values: ArrayView3::from_shape(shape, sweep.at_input()).expect("rows of D"),
                };
                block.check()?;
                visit(block);
            }
        }
        T::put_rows(sweep);
        Ok(())
    }

    /// The Gram matrix `G = J Jᵀ` of every sample; `[B, K, K]`, exactly symmetric.
    ///
    /// Cost: that of [`jacobian`](Self::jacobian) and `K² D` per sample, or, where it is less, `W Wᵀ` of a dense first layer
    /// with `n` outputs, `K n²/2` and `K² n` per sample instead of what the first layer costs. The Jacobian is not kept.
    /// Memory: the result and at most [`SWEEP_MEMORY`] bytes, or one sample's Jacobian if it needs more.
    ///
    /// # Errors
    /// [`Error::NotFinite`] if it overflows.
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

    pub(crate) fn part(&self, samples: Range<usize>) -> Gated<'_, T> {
        Gated {
            network: self.network,
            pattern: &self.record.pattern,
            samples,
        }
    }
}

/// Writes `V J Jᵀ Vᵀ` of every sample, with shared seeds `V: [R, K]`, through `W Wᵀ` of the `first`
/// layer if there is one; `grams: [B, R, R]`.
///
/// Where `D < R` the columns of `J` are swept forward; where the rows of a sample do not fit into
/// [`SWEEP_MEMORY`], `V J` is collected from several sweeps.
pub(crate) fn grams<T: Scalar>(
    gated: &Gated<T>,
    seeds: ArrayView2<T>,
    first: Option<FirstLayer<T>>,
    grams: &mut [T],
) {
    let (r, d) = (seeds.nrows(), gated.network.inputs());
    let fit = SWEEP_MEMORY / (gated.network.row_entries() * size_of::<T>());
    let mut sweep = T::take_rows();
    let first = first.filter(|_| r <= fit && r <= d);
    let half = first.map(|first| (first, first.half_gram()));
    for samples in blocks(gated.samples.len(), (fit / r.min(d)).max(1)) {
        let start = gated.samples.start;
        let part = Gated {
            samples: start + samples.start..start + samples.end,
            ..gated.clone()
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
    T::put_rows(sweep);
}

/// Writes `V J Jᵀ Vᵀ` of every sample from the columns of `J`; `seeds: [R, K]`, `grams: [samples, R, R]`.
fn products_of_columns<T: Scalar>(
    gated: &Gated<T>,
    seeds: ArrayView2<T>,
    sweep: &mut Rows<T>,
    grams: &mut [T],
) {
    let ((r, k), d) = (seeds.dim(), gated.network.inputs());
    sweep.forward_units(gated);
    let seeds = seeds.as_standard_layout();
    let seeds = seeds.as_slice().expect("standard layout");
    let mut rows = Buffer::uncleared(gated.samples.len() * r * d);
    let columns = sweep.at_output(gated.network).chunks_exact(d * k);
    for (rows, columns) in rows.chunks_exact_mut(r * d).zip(columns) {
        T::a_bt((k, d), seeds, columns, false, rows);
    }
    products_of_rows((r, d), &rows, &rows, grams);
}

/// `V J` of one sample, swept backward with `fit` rows at a time; `[R, D]`.
fn collected<T: Scalar>(
    gated: &Gated<T>,
    seeds: ArrayView2<T>,
    fit: usize,
    sweep: &mut Rows<T>,
) -> Buffer<T> {
    let mut all = Buffer::with_room(seeds.nrows() * gated.network.inputs());
    for rows in blocks(seeds.nrows(), fit) {
        sweep.backward(gated, Seeds::Shared(seeds.slice(s![rows, ..])), 0..1);
        all.extend_from_slice(sweep.at_input());
    }
    all
}

/// Writes `A Bᵀ` of every sample, which is known to be symmetric; `a, b: [samples, R, width]`, `grams: [samples, R, R]`.
pub(crate) fn products_of_rows<T: Scalar>(
    (r, width): (usize, usize),
    a: &[T],
    b: &[T],
    grams: &mut [T],
) {
    for_each_chunk(grams, r * r, a.len() * r, |sample, gram| {
        let rows = sample * r * width..(sample + 1) * r * width;
        T::a_bt((width, r), &a[rows.clone()], &b[rows], false, gram);
        symmetrise(gram, r);
    });
}

/// Some rows of the `K×K` identity.
fn unit_rows<T: Scalar>(rows: Range<usize>, k: usize) -> Array2<T> {
    let mut units = Array2::zeros((rows.len(), k));
    units.slice_mut(s![.., rows]).diag_mut().fill(T::ONE);
    units
}

/// Cuts `0..total` into ranges of `length`; the last may be shorter.
pub(crate) fn blocks(total: usize, length: usize) -> impl Iterator<Item = Range<usize>> {
    (0..total)
        .step_by(length)
        .map(move |start| start..(start + length).min(total))
}

#[cfg(test)]
mod tests {
    use super::{collected, products_of_columns};
    use crate::sweep::Rows;
    use crate::{Error, Gate, Mlp, Network, Trace};
    use ndarray::{Array2, Array3, ArrayView2, Axis, s};

    /// Random ReLU networks with few logits, and with few inputs.
    fn networks() -> [Network<f64>; 2] {
        let gate = Gate::LeakyRelu { slope: 0.1 };
        let build = |widths: &[usize]| Mlp::new(widths).gate(gate).build(3).unwrap();
        [build(&[5, 7, 4]), build(&[3, 7, 9])]
    }

    fn inputs(network: &Network<f64>) -> Array2<f64> {
        Array2::from_shape_fn((6, network.inputs()), |(i, j)| ((i * 5 + j) as f64).sin())
    }

    /// The Jacobian by single vectors, which take no decision.
    fn by_vectors(trace: &Trace<f64>) -> Array3<f64> {
        let (k, d) = (trace.network().outputs(), trace.network().inputs());
        let mut jacobian = Array3::zeros((trace.samples(), k, d));
        for row in 0..k {
            let unit = Array2::from_shape_fn((trace.samples(), k), |(_, i)| f64::from(i == row));
            let rows = trace.vjp(unit.view()).unwrap();
            jacobian.slice_mut(s![.., row, ..]).assign(&rows);
        }
        jacobian
    }

    #[test]
    fn blocks_of_any_memory_are_the_jacobian() {
        for network in networks() {
            let (k, d) = (network.outputs(), network.inputs());
            let inputs = inputs(&network);
            let trace = network.trace(inputs.view()).unwrap();
            let jacobian = trace.jacobian().unwrap();
            assert!(jacobian.abs_diff_eq(&by_vectors(&trace), 1e-15));
            for rows in [1, 2, 3, 4, 8, 9, 18, 1000] {
                let mut streamed = Array3::<f64>::zeros((6, k, d));
                let memory = rows * trace.row_bytes();
                trace
                    .for_each_jacobian_block(memory, |block| {
                        let swept = block.rows.len().min(if rows < d { k } else { d });
                        assert!(block.samples.len() * swept <= rows);
                        let place = s![block.samples, block.rows, ..];
                        streamed.slice_mut(place).assign(&block.values);
                    })
                    .unwrap();
                assert!(streamed.abs_diff_eq(&jacobian, 1e-15));
            }
            let error = trace.for_each_jacobian_block(trace.row_bytes() - 1, |_| ());
            assert!(matches!(error, Err(Error::MemoryBound { .. })));
        }
    }

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
            let mut sweep = Rows::default();
            for fit in [1, 2, k] {
                let rows = collected(&part, seeds.view(), fit, &mut sweep);
                let rows = ArrayView2::from_shape((k - 1, d), &rows).unwrap();
                assert!(rows.abs_diff_eq(&vj, 1e-14));
            }
            let mut grams = vec![0.0; (k - 1) * (k - 1)];
            products_of_columns(&part, seeds.view(), &mut sweep, &mut grams);
            let grams = ArrayView2::from_shape((k - 1, k - 1), &grams).unwrap();
            assert!(grams.abs_diff_eq(&vj.dot(&vj.t()), 1e-13));
            let gram = trace.gram().unwrap();
            let gram = gram.index_axis(Axis(0), 0);
            assert!(gram.abs_diff_eq(&j.dot(&j.t()), 1e-14));
        }
    }
}
