//! The dense affine map `y = W x + b` along the last axis.

use crate::network::map::AffineMap;
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
}

impl<T: Scalar> AffineMap<T> for Dense {
    fn apply(&self, parameters: &[T], inputs: &[&[T]], offset: bool, out: &mut [T]) {
        let mut beta = T::ZERO;
        if let (Some(start), true) = (self.bias, offset) {
            let bias = &parameters[start..start + self.outputs];
            let operations = out.len();
            for_each_chunk(out, self.outputs, operations, |_, row| {
                row.copy_from_slice(bias);
            });
            beta = T::ONE;
        }
        let weight = self.weight(parameters);
        a_bt(self.inputs, self.outputs, inputs[0], weight, beta, out);
    }

    fn transpose(&self, parameters: &[T], _: usize, c: &[T], accumulate: bool, below: &mut [T]) {
        let beta = if accumulate { T::ONE } else { T::ZERO };
        let weight = self.weight(parameters);
        a_b(self.outputs, self.inputs, c, weight, beta, below);
    }

    /// `∂/∂W += scale Σ_i c_i t_iᵀ` over all rows, and `∂/∂b += scale Σ_i c_i`.
    fn gradient(&self, _: &[T], c: &[T], t: &[T], scale: T, offset: bool, gradient: &mut [T]) {
        let range = self.weight..self.weight + self.inputs * self.outputs;
        at_b(self.outputs, self.inputs, scale, c, t, &mut gradient[range]);
        let Some(start) = self.bias.filter(|_| offset) else {
            return;
        };
        let bias = &mut gradient[start..start + self.outputs];
        for row in c.chunks_exact(self.outputs) {
            for (sum, &entry) in bias.iter_mut().zip(row) {
                *sum += scale * entry;
            }
        }
    }
}
