//! The elementwise sum of branches, and the copy under another shape. Both are their own linear
//! parts, and their transposes copy.

use std::borrow::Cow;

use super::{AffineMap, Cost, Map, SweepContext};
use crate::error::{Error, Result, check_shape};
use crate::network::builder::{Builder, New};
use crate::network::shapes;
use crate::network::{NodeId, Operation};
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
pub(crate) struct Add {
    /// How many there are.
    branches: usize,
}

impl<T: Scalar> AffineMap<T> for Add {
    fn cost(&self, _: usize) -> Cost {
        Cost::moving(self.branches)
    }

    fn factors<'p>(&self, _: &'p [T]) -> Cow<'p, [T]> {
        Cow::Borrowed(&[])
    }

    fn apply(&self, _: SweepContext<T>, inputs: &[&[T]], _: bool, out: &mut [T]) {
        for (i, input) in inputs.iter().enumerate() {
            add_or_copy(input, i > 0, out);
        }
    }

    fn transpose(&self, _: SweepContext<T>, _: usize, c: &[T], accumulate: bool, below: &mut [T]) {
        add_or_copy(c, accumulate, below);
    }
}

/// The same values. Where nothing else reads the input, they are not even copied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reshape;

impl<T: Scalar> AffineMap<T> for Reshape {
    fn cost(&self, _: usize) -> Cost {
        Cost::moving(1)
    }

    fn factors<'p>(&self, _: &'p [T]) -> Cow<'p, [T]> {
        Cow::Borrowed(&[])
    }

    fn apply(&self, _: SweepContext<T>, inputs: &[&[T]], _: bool, out: &mut [T]) {
        add_or_copy(inputs[0], false, out);
    }

    fn transpose(&self, _: SweepContext<T>, _: usize, c: &[T], accumulate: bool, below: &mut [T]) {
        add_or_copy(c, accumulate, below);
    }
}

impl<T: Scalar> Builder<T> {
    /// The elementwise sum of `nodes`, which must have one shape; a node may occur more than once.
    ///
    /// # Errors
    /// [`Error::UnknownNode`], [`Error::Shape`] if the shapes differ, [`Error::ZeroWidth`] without
    /// nodes.
    pub fn sum(&mut self, nodes: &[NodeId]) -> Result<NodeId> {
        let name = self.name("add");
        let Some(&first) = nodes.first() else {
            return Err(Error::ZeroWidth { node: name });
        };
        let shape = self.shape(first)?.to_vec();
        for &node in nodes {
            check_shape(&format!("a branch of {name}"), &shape, self.shape(node)?)?;
        }
        self.push(
            New::named(
                &name,
                Operation::Add,
                Map::Add(Add {
                    branches: nodes.len(),
                }),
            ),
            nodes,
            &shape,
        )
    }

    /// The same values in the same order under another shape of as many entries.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::UnknownNode`].
    pub fn reshape(&mut self, node: NodeId, shape: &[usize]) -> Result<NodeId> {
        let name = self.name("reshape");
        if shapes::width(&name, shape)? != self.node(node)?.width {
            check_shape(&name, self.shape(node)?, shape)?;
        }
        self.push(
            New::named(&name, Operation::Reshape, Map::Reshape(Reshape)),
            &[node],
            shape,
        )
    }

    /// All values as one axis; the node itself if it has only one.
    ///
    /// # Errors
    /// [`Error::UnknownNode`].
    pub fn flatten(&mut self, node: NodeId) -> Result<NodeId> {
        let node_width = self.node(node)?.width;
        if self.shape(node)? == [node_width] {
            return Ok(node);
        }
        self.reshape(node, &[node_width])
    }
}
