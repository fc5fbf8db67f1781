//! The dense affine map `y = W x + b`.

use crate::parallel::for_each_chunk;
use crate::product::{a_b, a_bt, at_b};
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

    /// `y_i = W x_i + b` for each row `x_i` of `x`.
    pub(crate) fn forward<T: Scalar>(&self, parameters: &[T], x: &[T], y: &mut [T]) {
        let Some(start) = self.bias else {
            return self.tangent(parameters, x, y);
        };
        let bias = &parameters[start..start + self.outputs];
        let operations = y.len();
        for_each_chunk(y, self.outputs, operations, |_, row| {
            row.copy_from_slice(bias);
        });
        let weight = self.weight(parameters);
        a_bt(self.inputs, self.outputs, x, weight, T::ONE, y);
    }

    /// `t'_i = W t_i` for each row of `t`: the linear part alone.
    pub(crate) fn tangent<T: Scalar>(&self, parameters: &[T], t: &[T], out: &mut [T]) {
        let weight = self.weight(parameters);
        a_bt(self.inputs, self.outputs, t, weight, T::ZERO, out);
    }

    /// `c'_i = Wᵀ c_i` for each row of `c`, added to `out` if `accumulate`.
    pub(crate) fn cotangent<T: Scalar>(
        &self,
        parameters: &[T],
        c: &[T],
        accumulate: bool,
        out: &mut [T],
    ) {
        let beta = if accumulate { T::ONE } else { T::ZERO };
        let weight = self.weight(parameters);
        a_b(self.outputs, self.inputs, c, weight, beta, out);
    }

    /// `∂/∂W += scale Σ_i c_i t_iᵀ` over all rows.
    pub(crate) fn weight_gradient<T: Scalar>(
        &self,
        c: &[T],
        t: &[T],
        scale: T,
        gradient: &mut [T],
    ) {
        let range = self.weight..self.weight + self.inputs * self.outputs;
        at_b(self.outputs, self.inputs, scale, c, t, &mut gradient[range]);
    }

    /// `∂/∂b += Σ_i c_i` over all rows; nothing without a bias.
    pub(crate) fn bias_gradient<T: Scalar>(&self, c: &[T], gradient: &mut [T]) {
        let Some(start) = self.bias else { return };
        let bias = &mut gradient[start..start + self.outputs];
        for row in c.chunks_exact(self.outputs) {
            for (sum, &entry) in bias.iter_mut().zip(row) {
                *sum += entry;
            }
        }
    }
}
