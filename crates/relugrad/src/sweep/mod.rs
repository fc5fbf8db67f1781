//! The three sweeps through the linearized network, which are the whole differentiation engine.
//!
//! With its pattern fixed a network is linear in its inputs up to an offset. A sweep carries `R`
//! rows per sample through that linear network: *cotangents* from the logits back to the input,
//! *tangents* from the input forward to the logits. One of each gives the gradient of the weights
//! ([theory](crate::theory), section 3): if `c` are the cotangents of `V J` and `t` the tangents of
//! `A`, then the derivative of `⟨A, V J⟩` with respect to `W_l` is `Σ c_l t_{l−1}ᵀ`.

mod backward;
mod rows;

use ndarray::{Array2, ArrayView2, ArrayView3, Axis};

use crate::buffer::Kept;
use crate::error::{Error, Result, check_array, check_finite, check_shape};
use crate::network::map::Accumulate;
use crate::parameters::Parameters;
use crate::scalar::Scalar;
use crate::trace::Trace;

pub(crate) use backward::Source;
pub(crate) use rows::{LinearizedBatch, RowBatch, multiple_of_identity, weight_gradient};

/// Where the rows of a backward sweep start, at the logits.
#[derive(Clone, Copy, Debug)]
pub enum Seeds<'a, T> {
    /// The same rows for every sample; `[R, K]`.
    Shared(ArrayView2<'a, T>),
    /// Each sample's own rows; `[B, R, K]`.
    PerSample(ArrayView3<'a, T>),
    /// Rows of the identity, the same for every sample, so that rows of the Jacobian itself arrive
    /// at the input.
    Unit {
        /// The logit of the first of them.
        first: usize,
        /// How many they are.
        count: usize,
    },
}

impl<T: Scalar> Seeds<'_, T> {
    /// The identity for `K` logits: all rows of the Jacobian.
    pub fn identity(outputs: usize) -> Self {
        Seeds::Unit {
            first: 0,
            count: outputs,
        }
    }

    /// Number of rows `R`.
    pub fn rows(&self) -> usize {
        match self {
            Seeds::Shared(seeds) => seeds.nrows(),
            Seeds::PerSample(seeds) => seeds.shape()[1],
            Seeds::Unit { count, .. } => *count,
        }
    }

    fn check(&self, samples: usize, outputs: usize) -> Result<()> {
        match self {
            Seeds::Shared(s) => check_shape("seeds", &[s.nrows(), outputs], s.shape()),
            Seeds::PerSample(s) => {
                check_shape("seeds", &[samples, s.shape()[1], outputs], s.shape())
            }
            Seeds::Unit { first, count } => {
                let end = first.saturating_add(*count);
                if end <= outputs {
                    return Ok(());
                }
                Err(Error::OutOfRange {
                    option: "end of the unit seeds".into(),
                    value: end as f64,
                    expected: "at most the number of logits",
                })
            }
        }
    }
}

/// Cotangents `V J` of a batch at every node, with `R` rows per sample. Buffers are reused by
/// [`Trace::cotangents_into`].
#[derive(Clone, Debug, Default)]
pub struct Cotangents<T>(RowBatch<T>);

impl<T: Scalar> Cotangents<T> {
    /// The rows at the input, `V J`; `[B, R, D]`.
    pub fn at_input(&self) -> ArrayView3<'_, T> {
        at(&self.0, 0)
    }
}

/// Tangents of rows `A` at every node, with `R` rows per sample. Buffers are reused by
/// [`Trace::tangents_into`].
#[derive(Clone, Debug, Default)]
pub struct Tangents<T> {
    rows: RowBatch<T>,
    output: usize,
}

impl<T: Scalar> Tangents<T> {
    /// The rows at the logits, `A Jᵀ`; `[B, R, K]`.
    pub fn at_output(&self) -> ArrayView3<'_, T> {
        at(&self.rows, self.output)
    }
}

fn at<T>(rows: &RowBatch<T>, slot: usize) -> ArrayView3<'_, T> {
    let data: &[T] = rows.buffers.get(slot).map_or(&[], |slot| slot);
    let width = data
        .len()
        .checked_div(rows.samples * rows.rows)
        .unwrap_or(0);
    ArrayView3::from_shape((rows.samples, rows.rows, width), data).expect("a slot holds all rows")
}

/// Refuses rows that have overflown in a slot, and forgets them.
fn checked<T: Scalar>(what: &str, slot: usize, rows: &mut RowBatch<T>) -> Result<()> {
    let found = at(rows, slot);
    let values = found.as_slice().expect("standard layout");
    let result = check_array(what, found.shape(), values);
    if result.is_err() {
        *rows = RowBatch::default();
    }
    result
}

impl<T: Scalar> Trace<'_, T> {
    fn linearized(&self) -> LinearizedBatch<'_, T> {
        LinearizedBatch::all(self.network, &self.state)
    }

    /// Backward sweep: carries the rows `V` of `seeds` from the logits to the input.
    ///
    /// Cost: one matrix product a layer with `B·R` rows. Memory: `R` times that of the trace.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape), and [`Error::NotFinite`](crate::Error::NotFinite) if
    /// they overflow at the input.
    pub fn cotangents(&self, seeds: Seeds<T>) -> Result<Cotangents<T>> {
        let mut cotangents = Cotangents::default();
        self.cotangents_into(seeds, &mut cotangents)?;
        Ok(cotangents)
    }

    /// [`cotangents`](Self::cotangents) into buffers that are reused; after an error they hold no
    /// rows.
    ///
    /// # Errors
    /// As for [`cotangents`](Self::cotangents).
    pub fn cotangents_into(&self, seeds: Seeds<T>, into: &mut Cotangents<T>) -> Result<()> {
        seeds.check(self.samples(), self.network.outputs())?;
        let linearized = self.linearized();
        into.0.backward(&linearized, seeds, linearized.nodes());
        checked("V J", 0, &mut into.0)
    }

    /// Forward sweep: carries the rows `A` from the input to the logits; `rows: [B, R, D]`.
    ///
    /// Cost and memory as for [`cotangents`](Self::cotangents).
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape), and [`Error::NotFinite`](crate::Error::NotFinite) if
    /// they overflow at the logits.
    pub fn tangents(&self, rows: ArrayView3<T>) -> Result<Tangents<T>> {
        let mut tangents = Tangents::default();
        self.tangents_into(rows, &mut tangents)?;
        Ok(tangents)
    }

    /// [`tangents`](Self::tangents) into buffers that are reused; after an error they hold no rows.
    ///
    /// # Errors
    /// As for [`tangents`](Self::tangents).
    pub fn tangents_into(&self, rows: ArrayView3<T>, into: &mut Tangents<T>) -> Result<()> {
        let count = rows.shape()[1];
        let expected = [self.samples(), count, self.network.inputs()];
        check_shape("rows", &expected, rows.shape())?;
        into.output = self.network.output().slot;
        let rows = rows.as_standard_layout();
        let rows = rows.as_slice().expect("standard layout");
        into.rows.forward(&self.linearized(), count, rows);
        checked("A Jᵀ", into.output, &mut into.rows)
    }

    /// Weight gradient of the pair: `Σ_samples ∂⟨A, V J⟩/∂θ`, with cotangents of seeds `V` and
    /// tangents of rows `A` held constant. Its entries for biases are 0.
    ///
    /// For a function `φ(J)` take `V = I` and `A = ∂φ/∂J`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the pair does not come from this trace's network
    /// and batch with equal numbers of rows, and [`Error::NotFinite`](crate::Error::NotFinite) if
    /// it overflows.
    pub fn weight_gradient(
        &self,
        cotangents: &Cotangents<T>,
        tangents: &Tangents<T>,
    ) -> Result<Parameters<T>> {
        let lengths = |rows: &RowBatch<T>| rows.buffers.iter().map(Vec::len).collect::<Vec<_>>();
        let scale = self.samples() * cotangents.0.rows;
        let expected: Vec<usize> = self.network.slot_widths.iter().map(|w| w * scale).collect();
        check_shape("cotangents", &expected, &lengths(&cotangents.0))?;
        check_shape("tangents", &expected, &lengths(&tangents.rows))?;
        let mut gradient = self.parameters().zeros_like();
        let (c, t) = (&cotangents.0, &tangents.rows.buffers);
        let (linearized, accumulate) = (self.linearized(), Accumulate::linear(T::ONE));
        linearized.weight_gradient(c, t, accumulate, &mut gradient);
        gradient.check("the weight gradient")?;
        Ok(gradient)
    }

    /// `J v` for each sample; `tangent: [B, D]`, result `[B, K]`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape), and [`Error::NotFinite`](crate::Error::NotFinite) if
    /// it overflows.
    pub fn jvp(&self, tangent: ArrayView2<T>) -> Result<Array2<T>> {
        check_shape(
            "tangent",
            &[self.samples(), self.network.inputs()],
            tangent.shape(),
        )?;
        let output = self.carry_forward(tangent.insert_axis(Axis(1)));
        check_finite("J v", self.network.outputs(), &output)?;
        Ok(one_row(output, self.network.outputs()))
    }

    /// `Jᵀ u` for each sample; `cotangent: [B, K]`, result `[B, D]`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape), and [`Error::NotFinite`](crate::Error::NotFinite) if
    /// it overflows.
    pub fn vjp(&self, cotangent: ArrayView2<T>) -> Result<Array2<T>> {
        let expected = [self.samples(), self.network.outputs()];
        check_shape("cotangent", &expected, cotangent.shape())?;
        let input = self.carry_backward(cotangent.insert_axis(Axis(1)));
        check_finite("Jᵀu", self.network.inputs(), &input)?;
        Ok(one_row(input, self.network.inputs()))
    }

    /// `A Jᵀ` for rows `A: [B, R, D]` of each sample; `[B, R, K]`.
    pub(crate) fn carry_forward(&self, rows: ArrayView3<T>) -> Vec<T> {
        let mut sweep = Kept::<RowBatch<T>>::take();
        let (count, rows) = (rows.shape()[1], rows.as_standard_layout());
        let rows = rows.as_slice().expect("standard layout");
        sweep.forward(&self.linearized(), count, rows);
        sweep.at_output(self.network).to_vec()
    }

    /// `V J` for rows `V: [B, R, K]` of each sample; `[B, R, D]`.
    pub(crate) fn carry_backward(&self, seeds: ArrayView3<T>) -> Vec<T> {
        let mut sweep = Kept::<RowBatch<T>>::take();
        sweep.backward(&self.linearized(), Seeds::PerSample(seeds), 0..1);
        sweep.at_input().to_vec()
    }

    /// `Σ_samples ∂⟨u, f(x)⟩/∂θ`, the ordinary backward pass; `cotangent: [B, K]`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape), and [`Error::NotFinite`](crate::Error::NotFinite) if
    /// it overflows.
    pub fn parameter_vjp(&self, cotangent: ArrayView2<T>) -> Result<Parameters<T>> {
        let expected = [self.samples(), self.network.outputs()];
        check_shape("cotangent", &expected, cotangent.shape())?;
        let (linearized, mut rows) = (self.linearized(), RowBatch::default());
        let seeds = Seeds::PerSample(cotangent.insert_axis(Axis(1)));
        rows.backward(&linearized, seeds, linearized.behind_input());
        let mut gradient = self.parameters().zeros_like();
        linearized.weight_gradient(
            &rows,
            &self.state.buffers,
            Accumulate::affine(),
            &mut gradient,
        );
        gradient.check("the parameter gradient")?;
        Ok(gradient)
    }
}

fn one_row<T: Scalar>(values: Vec<T>, width: usize) -> Array2<T> {
    Array2::from_shape_vec((values.len() / width, width), values).expect("one row per sample")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Gate, Mlp};
    use approx::assert_abs_diff_eq;

    #[test]
    fn unit_seeds_are_rows_of_the_identity() {
        for (widths, gate) in [(&[5, 7, 4][..], Gate::Relu), (&[3, 4], Gate::Abs)] {
            let network = Mlp::new(widths).gate(gate).build::<f64>(2).unwrap();
            let inputs = Array2::from_shape_fn((6, widths[0]), |(i, j)| ((3 * i + j) as f64).sin());
            let trace = network.trace(inputs.view()).unwrap();
            let identity = Array2::<f64>::eye(4);
            for (first, count) in [(0, 4), (1, 2), (3, 1)] {
                let rows = identity.slice(ndarray::s![first..first + count, ..]);
                let expected = trace.cotangents(Seeds::Shared(rows)).unwrap();
                let found = trace.cotangents(Seeds::Unit { first, count }).unwrap();
                assert_eq!(found.at_input(), expected.at_input());
                assert_eq!(
                    at(&found.0, found.0.buffers.len() - 1),
                    at(&expected.0, found.0.buffers.len() - 1)
                );
            }
            let beyond = trace.cotangents(Seeds::Unit { first: 3, count: 2 });
            assert!(matches!(beyond, Err(Error::OutOfRange { .. })));
        }
    }

    #[test]
    fn operators_are_transposes_of_each_other_and_blocks_of_vectors() {
        use crate::LinearOperator;
        let network = Mlp::new(&[5, 7, 4]).build::<f64>(2).unwrap();
        let inputs = Array2::from_shape_fn((3, 5), |(i, j)| ((3 * i + j) as f64).sin());
        let trace = network.trace(inputs.view()).unwrap();
        let (jacobian, operator) = (trace.jacobian().unwrap(), trace.jacobian_operator());
        let v = ndarray::Array3::from_shape_fn((3, 2, 5), |(b, r, i)| {
            ((b + 7 * r + 2 * i) as f64).cos()
        });
        let products = operator.apply_block(v.view()).unwrap();
        for (sample, j) in jacobian.outer_iter().enumerate() {
            let (v, products) = (
                v.index_axis(Axis(0), sample),
                products.index_axis(Axis(0), sample),
            );
            assert_abs_diff_eq!(products, v.dot(&j.t()), epsilon = 1e-14);
        }
        let back = operator.apply_transpose_block(products.view()).unwrap();
        let (forth, square) = ((&back * &v).sum(), (&products * &products).sum());
        assert_abs_diff_eq!(forth, square, epsilon = 1e-12 * square);
        let one = operator.apply(v.index_axis(Axis(1), 1)).unwrap();
        assert_abs_diff_eq!(one, products.index_axis(Axis(1), 1), epsilon = 1e-14);
        let wrong = operator.apply_transpose(Array2::zeros((3, 5)).view());
        assert!(matches!(wrong, Err(Error::Shape { .. })));
    }
}
