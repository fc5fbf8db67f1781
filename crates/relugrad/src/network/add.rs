//! The elementwise sum of branches. It is its own linear part, and its transpose copies to every branch.

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
