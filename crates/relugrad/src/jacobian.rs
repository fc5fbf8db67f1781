//! Jacobians `J = ∂f/∂x`, sample by sample.

use std::ops::Range;

use ndarray::{Array3, ArrayView3, s};

use crate::buffer::Kept;
use crate::error::{Error, Result, check_array, check_shape};
use crate::operator::LinearOperator;
use crate::parallel::{all_finite, blocks};
use crate::scalar::Scalar;
use crate::sweep::{LinearizedBatch, RowBatch, Seeds};
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

impl<'n, T: Scalar> Trace<'n, T> {
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
        let (shape, mut sweep) = (jacobian.dim(), Kept::<RowBatch<T>>::take());
        sweep
            .buffers
            .resize_with(self.network.slot_widths.len(), Vec::new);
        sweep.buffers[0] = std::mem::take(jacobian).into_raw_vec_and_offset().0;
        sweep.backward(&self.part(self.all()), Seeds::identity(shape.1), 0..1);
        let rows = std::mem::take(&mut sweep.buffers[0]);
        *jacobian = Array3::from_shape_vec(shape, rows).expect("K rows of D for each sample");
    }

    /// The Jacobian `J: [K, D]` of each sample as a [`LinearOperator`], which is never formed.
    /// Cost: one row of a sweep for each product.
    pub fn jacobian_operator(&self) -> JacobianOperator<'_, 'n, T> {
        JacobianOperator(self)
    }

    /// Calls `visit` with the Jacobians in blocks, in order, using at most `memory` bytes of sweep
    /// buffers.
    ///
    /// A block holds all rows of as many samples as fit, or some rows of one sample if not all of
    /// them do. Where `D < K` the `D` columns are swept forward instead, if those of a sample fit.
    ///
    /// # Errors
    /// [`Error::MemoryBound`] if `memory` is less than [`row_bytes`](Self::row_bytes), and
    /// [`Error::NotFinite`] before a block is visited that overflows.
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
        let mut sweep = Kept::<RowBatch<T>>::take();
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
            return Ok(());
        }
        for samples in blocks(self.samples(), (fit / k).max(1)) {
            let linearized = self.part(samples.clone());
            for rows in blocks(k, fit.min(k)) {
                let (first, count) = (rows.start, rows.len());
                sweep.backward(&linearized, Seeds::Unit { first, count }, 0..1);
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
        Ok(())
    }

    pub(crate) fn part(&self, samples: Range<usize>) -> LinearizedBatch<'_, T> {
        LinearizedBatch::new(self.network, &self.state.pattern, samples)
    }
}

/// The Jacobian of each sample as a [`LinearOperator`].
#[derive(Clone, Copy, Debug)]
pub struct JacobianOperator<'t, 'n, T>(&'t Trace<'n, T>);

impl<T: Scalar> LinearOperator<T> for JacobianOperator<'_, '_, T> {
    fn samples(&self) -> usize {
        self.0.samples()
    }

    fn shape(&self) -> (usize, usize) {
        (self.0.network.outputs(), self.0.network.inputs())
    }

    fn apply_block(&self, v: ArrayView3<T>) -> Result<Array3<T>> {
        let ((k, d), rows) = (self.shape(), v.shape()[1]);
        check_shape("tangents", &[self.samples(), rows, d], v.shape())?;
        block("J v", (self.samples(), rows, k), self.0.carry_forward(v))
    }

    fn apply_transpose_block(&self, u: ArrayView3<T>) -> Result<Array3<T>> {
        let ((k, d), rows) = (self.shape(), u.shape()[1]);
        check_shape("cotangents", &[self.samples(), rows, k], u.shape())?;
        block("Jᵀu", (self.samples(), rows, d), self.0.carry_backward(u))
    }
}

/// Rows of samples, if they are finite.
fn block<T: Scalar>(
    what: &str,
    shape: (usize, usize, usize),
    entries: Vec<T>,
) -> Result<Array3<T>> {
    check_array(what, &[shape.0, shape.1, shape.2], &entries)?;
    Ok(Array3::from_shape_vec(shape, entries).expect("rows of each sample"))
}

#[cfg(test)]
pub(crate) mod tests {
    use crate::{Error, Gate, Mlp, Network, Trace};
    use approx::assert_abs_diff_eq;
    use ndarray::{Array2, Array3, s};

    /// Random ReLU networks with few logits, and with few inputs.
    pub(crate) fn networks() -> [Network<f64>; 2] {
        let gate = Gate::LeakyRelu { slope: 0.1 };
        let build = |widths: &[usize]| Mlp::new(widths).gate(gate).build(3).unwrap();
        [build(&[5, 7, 4]), build(&[3, 7, 9])]
    }

    pub(crate) fn inputs(network: &Network<f64>) -> Array2<f64> {
        Array2::from_shape_fn((6, network.inputs()), |(i, j)| ((i * 5 + j) as f64).sin())
    }

    /// The Jacobian by single vectors, which take no decision.
    pub(crate) fn by_vectors(trace: &Trace<f64>) -> Array3<f64> {
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
            assert_abs_diff_eq!(jacobian, by_vectors(&trace), epsilon = 1e-15);
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
                assert_abs_diff_eq!(streamed, jacobian, epsilon = 1e-15);
            }
            let error = trace.for_each_jacobian_block(trace.row_bytes() - 1, |_| ());
            assert!(matches!(error, Err(Error::MemoryBound { .. })));
        }
    }
}
