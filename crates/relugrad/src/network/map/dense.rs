//! The dense affine map `y = W x + b` along the last axis.

use std::borrow::Cow;

use ndarray::{Array1, Array2};
use pulp::{Arch, Simd, WithSimd};

use super::{Accumulate, AffineMap, Cost, Map, SweepContext};
#[cfg(doc)]
use crate::error::Error;
use crate::error::{Result, check_shape};
use crate::network::builder::{Builder, New, attribute};
use crate::network::{NodeId, Operation};
use crate::parallel::for_each_chunk;
use crate::product::{MaskedLhs, Rhs, rows_times, sum_of_products};
use crate::scalar::Scalar;

/// A dense layer; its weight is `[outputs, inputs]`. Parameters are slices of the flat vector.
#[derive(Clone, Debug)]
pub(crate) struct Dense {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    /// Where the weight starts in the flat vector of all parameters.
    pub(crate) weight: usize,
    /// Where the bias starts, if there is one.
    pub(crate) bias: Option<usize>,
}

impl Dense {
    fn weight<'p, T>(&self, parameters: &'p [T]) -> &'p [T] {
        &parameters[self.weight..self.weight + self.inputs * self.outputs]
    }

    /// `c W`, added to `below` if `accumulate`.
    pub(crate) fn transpose_of<T: Scalar>(
        &self,
        c: MaskedLhs<T>,
        parameters: &[T],
        accumulate: bool,
        below: &mut [T],
    ) {
        let weight = Rhs::Plain(self.weight(parameters));
        rows_times(c, self.inputs, weight, accumulate, below);
    }
}

impl<T: Scalar> AffineMap<T> for Dense {
    fn cost(&self, width: usize) -> Cost {
        Cost {
            multiply_adds: width * self.inputs,
            terms: self.inputs,
        }
    }

    fn factors<'p>(&self, parameters: &'p [T]) -> Cow<'p, [T]> {
        Cow::Borrowed(self.weight(parameters))
    }

    fn apply(&self, at: SweepContext<T>, inputs: &[&[T]], offset: bool, out: &mut [T]) {
        let parameters = at.parameters;
        let mut accumulate = false;
        if let (Some(start), true) = (self.bias, offset) {
            let bias = &parameters[start..start + self.outputs];
            let operations = out.len();
            for_each_chunk(out, self.outputs, operations, |_, row| {
                row.copy_from_slice(bias);
            });
            accumulate = true;
        }
        let weight = Rhs::Transposed(self.weight(parameters));
        let rows = MaskedLhs::of(inputs[0], at.rows, self.inputs).masked_by(at.masked_by);
        rows_times(rows, self.outputs, weight, accumulate, out);
    }

    fn transpose(&self, at: SweepContext<T>, _: usize, c: &[T], accumulate: bool, below: &mut [T]) {
        let rows = MaskedLhs::of(c, at.rows, self.outputs).masked_by(at.masked_by);
        self.transpose_of(rows, at.parameters, accumulate, below);
    }

    /// `∂/∂W += scale Σ_i c_i t_iᵀ` over all rows, and `∂/∂b += scale Σ_i c_i`.
    fn gradient(
        &self,
        at: SweepContext<T>,
        c: &[T],
        t: &[T],
        how: Accumulate<T>,
        gradient: &mut [T],
    ) {
        let range = self.weight..self.weight + self.inputs * self.outputs;
        let rows = MaskedLhs::of(c, at.rows, self.outputs).masked_by(at.masked_by);
        let weight = &mut gradient[range];
        sum_of_products(rows, self.inputs, how.scale, t, !how.overwrite, weight);
        if let Some(start) = self.bias.filter(|_| how.offset) {
            Arch::new().dispatch(AddRows {
                rows: c,
                scale: how.scale,
                sum: &mut gradient[start..start + self.outputs],
            });
        }
    }
}

/// Adds `scale` times each row to `sum`.
struct AddRows<'a, T> {
    rows: &'a [T],
    scale: T,
    sum: &'a mut [T],
}

impl<T: Scalar> WithSimd for AddRows<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for row in self.rows.chunks_exact(self.sum.len()) {
            let pairs = self.sum.iter_mut().zip(row);
            pairs.for_each(|(sum, &entry)| *sum += self.scale * entry);
        }
    }
}

impl<T: Scalar> Builder<T> {
    /// `W x + b` along the last axis of the value `x` of `node`; `weight: [outputs, inputs]`,
    /// `bias: [outputs]`.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::ZeroWidth`], [`Error::NotFinite`] for a weight or bias, and
    /// [`Error::UnknownNode`].
    pub fn dense(
        &mut self,
        node: NodeId,
        weight: Array2<T>,
        bias: Option<Array1<T>>,
    ) -> Result<NodeId> {
        let mut shape = self.shape(node)?.to_vec();
        let name = self.name("dense");
        let outputs = weight.nrows();
        let last = shape
            .last_mut()
            .ok_or_else(|| attribute(&name, "its input is a scalar"))?;
        let inputs = std::mem::replace(last, outputs);
        check_shape(
            &format!("{name}.weight"),
            &[outputs, inputs],
            weight.shape(),
        )?;
        let operation = Operation::Dense {
            bias: bias.is_some(),
        };
        let weight = self.parameter(&name, "weight", weight.view())?;
        let bias = self.bias(&name, bias, outputs)?;
        let map = Map::Dense(Dense {
            inputs,
            outputs,
            weight,
            bias,
        });
        self.push(New::named(&name, operation, map), &[node], &shape)
    }

    pub(crate) fn bias(
        &mut self,
        name: &str,
        bias: Option<Array1<T>>,
        outputs: usize,
    ) -> Result<Option<usize>> {
        let Some(bias) = bias else {
            return Ok(None);
        };
        check_shape(&format!("{name}.bias"), &[outputs], bias.shape())?;
        self.parameter(name, "bias", bias.view()).map(Some)
    }
}
