//! Jacobians `J = ∂f/∂x` and Gram matrices `G = J Jᵀ`, sample by sample.

use std::ops::Range;

use ndarray::{Array2, Array3, ArrayView2, ArrayView3, s};

use crate::error::{Error, Result};
use crate::objective::FirstLayer;
use crate::parallel::for_each_chunk;
use crate::scalar::Scalar;
use crate::sweep::{Gated, Seeds};
use crate::trace::Trace;

/// Bytes of sweep buffers that [`Trace::jacobian`] and [`Trace::gram`] use at most, unless one sample needs
/// more.
pub const SWEEP_MEMORY: usize = 64 << 20;

/// Some rows of the Jacobians of some samples.
#[derive(Debug)]
pub struct JacobianBlock<'a, T> {
    /// Which samples of the batch.
    pub samples: Range<usize>,
    /// Which rows of their Jacobians, that is which logits.
    pub rows: Range<usize>,
    /// The rows; `[samples, rows, D]`.
    pub values: ArrayView3<'a, T>,
}

impl<T: Scalar> Trace<'_, T> {
    /// The Jacobian `J` of every sample; `[B, K, D]`.
    ///
    /// Cost: one backward sweep with `B·K` rows. Memory: the result and at most [`SWEEP_MEMORY`] bytes, or one
    /// sample's `K` rows if they need more.
    pub fn jacobian(&self) -> Array3<T> {
        let (k, d) = (self.network.outputs(), self.network.inputs());
        let mut jacobian = Array3::zeros((self.samples(), k, d));
        self.write_jacobian(&mut jacobian);
        jacobian
    }

    /// [`jacobian`](Self::jacobian) into an array that is reused if it has the right shape.
    pub fn jacobian_into(&self, jacobian: &mut Array3<T>) {
        let shape = (
            self.samples(),
            self.network.outputs(),
            self.network.inputs(),
        );
        if jacobian.dim() != shape || !jacobian.is_standard_layout() {
            *jacobian = Array3::zeros(shape);
        }
        self.write_jacobian(jacobian);
    }

    /// Writes all entries of an array of the right shape in standard layout.
    fn write_jacobian(&self, jacobian: &mut Array3<T>) {
        let k = self.network.outputs();
        let memory = SWEEP_MEMORY.max(k * self.row_bytes());
        if self.samples() * k * self.row_bytes() <= memory {
            return self.sweep_into(jacobian);
        }
        self.for_each_jacobian_block(memory, |block| {
            let rows = s![block.samples, block.rows, ..];
            jacobian.slice_mut(rows).assign(&block.values);
        })
        .expect("the memory is enough for one sample");
    }

    /// The same in one sweep, whose buffer at the input the array becomes.
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
    /// A block holds all rows of as many samples as fit, or some rows of one sample if not all of them do.
    ///
    /// # Errors
    /// [`Error::MemoryBound`] if `memory` is less than [`row_bytes`](Self::row_bytes).
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
        let (per_block, rows_per_block) = ((fit / k).max(1), fit.min(k));
        let (identity, mut sweep) = (Array2::eye(k), T::take_rows());
        for samples in blocks(self.samples(), per_block) {
            let gated = self.part(samples.clone());
            for rows in blocks(k, rows_per_block) {
                let seeds = Seeds::Shared(identity.slice(s![rows.clone(), ..]));
                sweep.backward(&gated, seeds, 0..1);
                let shape = (samples.len(), rows.len(), d);
                visit(JacobianBlock {
                    samples: samples.clone(),
                    rows,
                    values: ArrayView3::from_shape(shape, sweep.at_input()).expect("rows of D"),
                });
            }
        }
        T::put_rows(sweep);
        Ok(())
    }

    /// The Gram matrix `G = J Jᵀ` of every sample; `[B, K, K]`, exactly symmetric.
    ///
    /// Cost: that of [`jacobian`](Self::jacobian) and `K² D` per sample, or, where it is less, `W Wᵀ` of a dense first layer
    /// with `n` outputs, `K n²/2` and `K² n` per sample instead of what the first layer costs. The Jacobian is not kept.
    pub fn gram(&self) -> Array3<T> {
        let k = self.network.outputs();
        let mut gram = Array3::zeros((self.samples(), k, k));
        let entries = gram.as_slice_mut().expect("standard layout");
        let part = self.part(self.all());
        let first = FirstLayer::for_values(&part, k);
        grams(&part, Array2::eye(k).view(), first, entries);
        gram
    }

    pub(crate) fn part(&self, samples: Range<usize>) -> Gated<'_, T> {
        Gated {
            network: self.network,
            pattern: &self.record.pattern,
            samples,
        }
    }
}

/// Writes `V J Jᵀ Vᵀ` of every sample, with shared seeds `V: [R, K]`, through `W Wᵀ` of the `first` layer if there is one;
/// `grams: [B, R, R]`.
pub(crate) fn grams<T: Scalar>(
    gated: &Gated<T>,
    seeds: ArrayView2<T>,
    first: Option<FirstLayer<T>>,
    grams: &mut [T],
) {
    let (r, d) = (seeds.nrows(), gated.network.inputs());
    let row_bytes = gated.network.row_entries() * size_of::<T>();
    let per_block = (SWEEP_MEMORY / (r * row_bytes)).max(1);
    let mut sweep = T::take_rows();
    let half = first.map(|first| (first, first.half_gram()));
    for samples in blocks(gated.samples.len(), per_block) {
        let start = gated.samples.start;
        let part = Gated {
            samples: start + samples.start..start + samples.end,
            ..gated.clone()
        };
        let wanted = first.map_or(0..1, |first| 1..first.node + 1);
        sweep.backward(&part, Seeds::Shared(seeds), wanted);
        let grams = &mut grams[samples.start * r * r..samples.end * r * r];
        if let Some((first, half)) = &half {
            first.grams(&part, &sweep, half, grams);
            continue;
        }
        products_of_rows((r, d), sweep.at_input(), sweep.at_input(), grams);
    }
    T::put_rows(sweep);
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

/// Cuts `0..total` into ranges of `length`; the last may be shorter.
fn blocks(total: usize, length: usize) -> impl Iterator<Item = Range<usize>> {
    (0..total)
        .step_by(length)
        .map(move |start| start..(start + length).min(total))
}

/// `M ← (M + Mᵀ)/2`.
pub(crate) fn symmetrise<T: Scalar>(matrix: &mut [T], size: usize) {
    let half = T::from_f64(0.5);
    for_each_pair(size, |below, above| {
        let mean = half * (matrix[below] + matrix[above]);
        (matrix[below], matrix[above]) = (mean, mean);
    });
}

/// `M ← Mᵀ`.
pub(crate) fn transpose<T: Scalar>(matrix: &mut [T], size: usize) {
    for_each_pair(size, |below, above| matrix.swap(below, above));
}

/// Calls `f` with the places of each entry below the diagonal and of its mirror image, block by block for the sake of the
/// cache.
fn for_each_pair(size: usize, mut f: impl FnMut(usize, usize)) {
    const BLOCK: usize = 16;
    for top in (0..size).step_by(BLOCK) {
        for left in (0..=top).step_by(BLOCK) {
            for i in top..size.min(top + BLOCK) {
                for j in left..i.min(left + BLOCK) {
                    f(i * size + j, j * size + i);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Error, Gate, Mlp};
    use ndarray::{Array2, Array3, s};

    #[test]
    fn blocks_of_any_memory_are_the_jacobian() {
        let mlp = Mlp::new(&[5, 7, 4]).gate(Gate::LeakyRelu { slope: 0.1 });
        let network = mlp.build::<f64>(3).unwrap();
        let inputs = Array2::from_shape_fn((6, 5), |(i, j)| ((i * 5 + j) as f64).sin());
        let trace = network.trace(inputs.view()).unwrap();
        let jacobian = trace.jacobian();
        for rows in [1, 3, 4, 9, 1000] {
            let mut streamed = Array3::<f64>::zeros((6, 4, 5));
            let memory = rows * trace.row_bytes();
            trace
                .for_each_jacobian_block(memory, |block| {
                    assert!(block.samples.len() * block.rows.len() <= rows);
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
