//! Entries of the input in other places: transposition, slices, padding, repetition.

use std::sync::Arc;

use crate::network::map::{AffineMap, Given};
use crate::parallel::for_each_chunk;
use crate::scalar::Scalar;

/// No entry of the input.
pub(crate) const NONE: u32 = u32::MAX;

/// Entry `i` of the output is entry `index[i]` of the input, or `fill` for [`NONE`].
#[derive(Clone, Debug)]
pub(crate) struct Gather {
    inputs: usize,
    index: Arc<[u32]>,
    fill: f64,
}

impl Gather {
    pub(crate) fn new(inputs: usize, index: Vec<u32>, fill: f64) -> Gather {
        let index = index.into();
        Gather {
            inputs,
            index,
            fill,
        }
    }
}

impl<T: Scalar> AffineMap<T> for Gather {
    fn apply(&self, _: Given<T>, inputs: &[&[T]], offset: bool, out: &mut [T]) {
        let fill = T::from_f64(if offset { self.fill } else { 0.0 });
        let operations = out.len();
        for_each_chunk(out, self.index.len(), operations, |row, out| {
            let input = &inputs[0][row * self.inputs..(row + 1) * self.inputs];
            for (out, &index) in out.iter_mut().zip(&*self.index) {
                *out = input.get(index as usize).copied().unwrap_or(fill);
            }
        });
    }

    fn transpose(&self, _: Given<T>, _: usize, c: &[T], accumulate: bool, below: &mut [T]) {
        let operations = c.len();
        for_each_chunk(below, self.inputs, operations, |row, below| {
            if !accumulate {
                below.fill(T::ZERO);
            }
            let c = &c[row * self.index.len()..(row + 1) * self.index.len()];
            for (&c, &index) in c.iter().zip(&*self.index) {
                if let Some(below) = below.get_mut(index as usize) {
                    *below += c;
                }
            }
        });
    }
}
