//! Branches side by side along an axis.

use std::borrow::Cow;

use super::{AffineMap, Cost, Map, SweepContext};
use crate::error::{Error, Result, check_shape};
use crate::network::builder::{Builder, New, length_of};
use crate::network::{NodeId, Operation};
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
    fn cost(&self, _: usize) -> Cost {
        Cost::moving(1)
    }

    fn factors<'p>(&self, _: &'p [T]) -> Cow<'p, [T]> {
        Cow::Borrowed(&[])
    }

    fn apply(&self, _: SweepContext<T>, inputs: &[&[T]], _: bool, out: &mut [T]) {
        let operations = out.len();
        for_each_chunk(out, self.total(), operations, |piece, mut out| {
            for (input, &length) in inputs.iter().zip(&self.lengths) {
                let (head, tail) = out.split_at_mut(length);
                head.copy_from_slice(&input[piece * length..(piece + 1) * length]);
                out = tail;
            }
        });
    }

    fn transpose(
        &self,
        _: SweepContext<T>,
        branch: usize,
        c: &[T],
        accumulate: bool,
        below: &mut [T],
    ) {
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

impl<T: Scalar> Builder<T> {
    /// `nodes` side by side along `axis`; their other axes must agree. A node may occur more than
    /// once.
    ///
    /// # Errors
    /// [`Error::UnknownNode`], [`Error::Attribute`] for no such axis, [`Error::Shape`],
    /// [`Error::ZeroWidth`] without nodes.
    pub fn concat(&mut self, nodes: &[NodeId], axis: usize) -> Result<NodeId> {
        let name = self.name("concat");
        let Some(&first) = nodes.first() else {
            return Err(Error::ZeroWidth { node: name });
        };
        let mut shape = self.shape(first)?.to_vec();
        length_of(&name, axis, &shape)?;
        let inner: usize = shape[axis + 1..].iter().product();
        let (outer, mut lengths, mut total) = (shape[..axis].iter().product(), Vec::new(), 0usize);
        for &node in nodes {
            let branch = self.shape(node)?;
            let length = branch.get(axis).copied().unwrap_or(0);
            shape[axis] = length;
            check_shape(&format!("a branch of {name}"), &shape, branch)?;
            lengths.push(length * inner);
            total += length;
        }
        shape[axis] = total;
        let map = Map::Concat(Concat::new(lengths, outer));
        self.push(
            New::named(&name, Operation::Concat { axis }, map),
            nodes,
            &shape,
        )
    }
}
