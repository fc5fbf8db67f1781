//! The elementwise sum of branches, and the copy under another shape. Both are their own linear parts, and their
//! transposes copy.

use crate::network::map::{AffineMap, Given};
use crate::parallel::for_each_chunk;
use crate::scalar::Scalar;

/// Entries that one piece of elementwise work covers.
const PIECE: usize = 1 << 14;

/// `to += from`, or `to = from` unless `accumulate`.
pub(crate) fn add_or_copy<T: Scalar>(from: &[T], accumulate: bool, to: &mut [T]) {
    let operations = to.len();
    for_each_chunk(to, PIECE, operations, |piece, to| {
        let from = &from[piece * PIECE..][..to.len()];
        if accumulate {
            for (to, &from) in to.iter_mut().zip(from) {
                *to += from;
            }
        } else {
            to.copy_from_slice(from);
        }
    });
}

/// The sum of all inputs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Add;

impl<T: Scalar> AffineMap<T> for Add {
    fn apply(&self, _: Given<T>, inputs: &[&[T]], _: bool, out: &mut [T]) {
        for (i, input) in inputs.iter().enumerate() {
            add_or_copy(input, i > 0, out);
        }
    }

    fn transpose(&self, _: Given<T>, _: usize, c: &[T], accumulate: bool, below: &mut [T]) {
        add_or_copy(c, accumulate, below);
    }
}

/// The same values. Where nothing else reads the input, they are not even copied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reshape;

impl<T: Scalar> AffineMap<T> for Reshape {
    fn apply(&self, _: Given<T>, inputs: &[&[T]], _: bool, out: &mut [T]) {
        add_or_copy(inputs[0], false, out);
    }

    fn transpose(&self, _: Given<T>, _: usize, c: &[T], accumulate: bool, below: &mut [T]) {
        add_or_copy(c, accumulate, below);
    }
}
