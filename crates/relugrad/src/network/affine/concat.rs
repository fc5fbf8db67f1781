//! Branches side by side along an axis.

use crate::network::map::{AffineMap, Given};
use crate::parallel::for_each_chunk;
use crate::scalar::Scalar;

/// For each index of the axes before, the entries of every branch in turn.
#[derive(Clone, Debug)]
pub(crate) struct Concat {
    /// Entries of each branch for one index of the axes before.
    lengths: Vec<usize>,
    /// Number of indices of the axes before.
    outer: usize,
}

impl Concat {
    pub(crate) fn new(lengths: Vec<usize>, outer: usize) -> Concat {
        Concat { lengths, outer }
    }

    fn total(&self) -> usize {
        self.lengths.iter().sum()
    }

    fn start(&self, branch: usize) -> usize {
        self.lengths[..branch].iter().sum()
    }
}

impl<T: Scalar> AffineMap<T> for Concat {
    fn apply(&self, _: Given<T>, inputs: &[&[T]], _: bool, out: &mut [T]) {
        let operations = out.len();
        for_each_chunk(out, self.total(), operations, |piece, mut out| {
            for (input, &length) in inputs.iter().zip(&self.lengths) {
                let (head, tail) = out.split_at_mut(length);
                head.copy_from_slice(&input[piece * length..(piece + 1) * length]);
                out = tail;
            }
        });
    }

    fn transpose(&self, _: Given<T>, branch: usize, c: &[T], accumulate: bool, below: &mut [T]) {
        let (length, start, total) = (self.lengths[branch], self.start(branch), self.total());
        let operations = below.len();
        for_each_chunk(below, self.outer * length, operations, |row, below| {
            for (i, below) in below.chunks_exact_mut(length).enumerate() {
                let from = (row * self.outer + i) * total + start;
                let from = &c[from..from + length];
                if accumulate {
                    below.iter_mut().zip(from).for_each(|(to, &c)| *to += c);
                } else {
                    below.copy_from_slice(from);
                }
            }
        });
    }
}
