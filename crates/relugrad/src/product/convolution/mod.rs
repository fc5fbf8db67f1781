//! Convolutions, their transposes and the gradients of their weights.
//!
//! All three are sums of products that are kept in registers: of weights with an input that lies as
//! the taps read it ([`dense`]), or of cotangents with the input ([`filters`]). Where most
//! cotangents are zero, as behind a max-pooling, products go along lists of the others
//! ([`sparse`]). Every sum has one order, so bits do not depend on the number of threads.

mod axis;
mod channels_last;
mod dense;
mod filters;
mod kernels;
mod runs;
mod sparse;
mod taps;
mod tile;
mod unfold;

use super::lanes::Lanes;
use crate::tuning;

pub(crate) use taps::Taps;

/// A convolution.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Convolution {
    /// Channels, height and width of the input.
    pub(crate) input: [usize; 3],
    /// Channels, height and width of the output.
    pub(crate) output: [usize; 3],
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: [usize; 2],
    pub(crate) dilation: [usize; 2],
    /// Zeros before and behind each axis.
    pub(crate) padding: [[usize; 2]; 2],
    pub(crate) groups: usize,
}

impl Convolution {
    /// Entries of a row of the input.
    pub(crate) fn inputs(&self) -> usize {
        self.input.iter().product()
    }

    /// Entries of a row of the output.
    pub(crate) fn outputs(&self) -> usize {
        self.output.iter().product()
    }

    /// Positions of the kernel.
    pub(crate) fn positions(&self) -> usize {
        self.output[1] * self.output[2]
    }

    /// Channels of the input and of the output in a group.
    fn group(&self) -> [usize; 2] {
        [self.input[0], self.output[0]].map(|channels| channels / self.groups)
    }

    /// Numbers of the weight of one output channel.
    pub(crate) fn taps(&self) -> usize {
        self.group()[0] * self.kernel[0] * self.kernel[1]
    }

    /// `below ← Wᵀ c`, or with `below` added; `c: [samples, rows, outputs]`.
    pub(in crate::product) fn transpose<T: Lanes>(
        &self,
        rows: usize,
        weight: &[T],
        c: &[T],
        accumulate: bool,
        below: &mut [T],
    ) {
        if self.is_sparse(c, rows, tuning::SPARSE_COTANGENT) {
            self.transpose_sparse(rows, weight, c, accumulate, below);
        } else {
            self.transpose_dense(weight, c, accumulate, below);
        }
    }

    /// Adds `scale Σ c[o, p] t[under p]` over all rows and positions to the gradient of the weight.
    pub(in crate::product) fn gradient<T: Lanes>(
        &self,
        rows: usize,
        c: &[T],
        t: &[T],
        scale: T,
        gradient: &mut [T],
    ) {
        if self.is_sparse(c, rows, tuning::SPARSE_FILTER) {
            self.gradient_sparse(rows, c, t, scale, gradient);
        } else {
            self.gradient_dense(c, t, scale, gradient);
        }
    }
}

#[cfg(test)]
mod tests;
