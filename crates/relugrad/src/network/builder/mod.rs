//! Building a network node by node, with every shape checked on the way.

mod finish;
mod gates;

pub(super) use finish::check_name;

use std::collections::HashMap;

use ndarray::{ArrayD, ArrayView, Dimension};

use super::map::Map;
use super::shapes::{self, MAX_WIDTH};
use super::{Constant, Node, NodeId, Operation};
use crate::error::{Error, Result};
use crate::parameters::ParameterInfo;
use crate::scalar::Scalar;

/// Builds a [`Network`](crate::Network) as a graph: each call adds a node that reads nodes made
/// before it.
///
/// Shapes are those of one sample; there is no batch axis. Images are `[channels, height, width]`.
///
/// ```
/// use ndarray::array;
/// use relugrad::Builder;
///
/// let mut builder = Builder::new();
/// let x = builder.input(2)?;
/// let z = builder.dense(x, array![[1.0, -1.0], [2.0, 0.0]], Some(array![0.0, -1.0]))?;
/// let a = builder.relu(z)?;
/// let f = builder.dense(a, array![[1.0, 1.0]], None)?;
/// let network = builder.build(f)?;
/// assert_eq!((network.inputs(), network.outputs()), (2, 1));
/// # Ok::<(), relugrad::Error>(())
/// ```
///
/// Convolution, pooling and a residual sum:
///
/// ```
/// use ndarray::Array4;
/// use relugrad::{Builder, Window};
///
/// let mut builder = Builder::new();
/// let x = builder.input_shaped(&[1, 8, 8])?;
/// let same = Window::new([3, 3]).padding([[1, 1], [1, 1]]);
/// let z = builder.conv2d(x, Array4::from_elem((4, 1, 3, 3), 0.1), None, same, 1)?;
/// let a = builder.relu(z)?;
/// let z = builder.conv2d(a, Array4::from_elem((4, 4, 3, 3), -0.1), None, same, 1)?;
/// let sum = builder.sum(&[a, z])?;
/// let pooled = builder.max_pool(sum, Window::new([2, 2]).stride([2, 2]))?;
/// let f = builder.mean(pooled, &[1, 2])?;
/// assert_eq!(builder.build(f)?.outputs(), 4);
/// # Ok::<(), relugrad::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Builder<T> {
    nodes: Vec<Node>,
    layout: Vec<ParameterInfo>,
    values: Vec<T>,
    gates: usize,
    /// Entries of all tables of places so far.
    tables: usize,
    /// How many entries they may have, if not the most that a network may have.
    room: Option<usize>,
    /// How many nodes of each kind there are.
    kinds: HashMap<&'static str, usize>,
    /// What the node that is being added is to be called, if not by its kind.
    pub(super) called: Option<String>,
}

impl<T: Scalar> Builder<T> {
    /// A graph without nodes.
    pub fn new() -> Builder<T> {
        Builder::default()
    }

    /// A graph without nodes, whose tables of places together (of broadcast factors, windows and
    /// moved values) may have so many entries of four bytes; for graphs that somebody else has
    /// written.
    pub fn with_room(entries: usize) -> Builder<T> {
        Builder {
            room: Some(entries),
            ..Builder::default()
        }
    }

    /// The input of `width` features. It must be the first node, and there is one only.
    ///
    /// # Errors
    /// [`Error::ZeroWidth`], [`Error::TooWide`], or [`Error::InputNodes`] if there is already a
    /// node.
    pub fn input(&mut self, width: usize) -> Result<NodeId> {
        self.input_shaped(&[width])
    }

    /// The input of a shape, such as `[channels, height, width]`.
    ///
    /// # Errors
    /// As for [`input`](Self::input).
    pub fn input_shaped(&mut self, shape: &[usize]) -> Result<NodeId> {
        if !self.nodes.is_empty() {
            return Err(Error::InputNodes { found: 2 });
        }
        let name = self.called.clone().unwrap_or_else(|| "input".into());
        self.push(New::named(&name, Operation::Input, Map::Input), &[], shape)
    }

    /// The nodes made so far, in order.
    pub fn nodes(&self) -> impl DoubleEndedIterator<Item = NodeId> + ExactSizeIterator + use<T> {
        (0..self.nodes.len()).map(NodeId)
    }

    /// The shape of a node's value for one sample.
    ///
    /// # Errors
    /// [`Error::UnknownNode`].
    pub fn shape(&self, node: NodeId) -> Result<&[usize]> {
        self.node(node).map(|node| node.shape.as_slice())
    }

    pub(super) fn node(&self, node: NodeId) -> Result<&Node> {
        let unknown = Error::UnknownNode {
            id: node.0,
            nodes: self.nodes.len(),
        };
        self.nodes.get(node.0).ok_or(unknown)
    }

    /// The name of the next node of a kind: the kind and how many of it there are, unless it has a
    /// name already.
    pub(super) fn name(&self, operation: &str) -> String {
        if let Some(name) = &self.called {
            return name.clone();
        }
        let same = self.kinds.get(operation).copied().unwrap_or(0);
        format!("{operation}{same}")
    }

    pub(super) fn push(&mut self, new: New, inputs: &[NodeId], shape: &[usize]) -> Result<NodeId> {
        let width = shapes::width(&new.name, shape)?;
        let inputs: Vec<usize> = inputs.iter().map(|node| node.0).collect();
        let before = inputs.iter().any(|&i| self.nodes[i].depends_on_parameters);
        *self.kinds.entry(new.operation.name()).or_default() += 1;
        self.nodes.push(Node {
            depends_on_parameters: before || new.map.has_parameters(),
            name: new.name,
            operation: new.operation,
            map: new.map,
            inputs,
            shape: shape.to_vec(),
            width,
            constants: new.constants,
            slot: 0,
            accumulate: Vec::new(),
        });
        Ok(NodeId(self.nodes.len() - 1))
    }

    /// Counts the entries of a table of places that a node needs.
    pub(super) fn table(&mut self, node: &str, entries: &[usize]) -> Result<()> {
        let product = entries.iter().try_fold(1usize, |p, &n| p.checked_mul(n));
        let total = product.and_then(|p| p.checked_add(self.tables));
        let limit = self.room.unwrap_or(MAX_WIDTH).min(MAX_WIDTH);
        match total.filter(|&total| total <= limit) {
            Some(total) => {
                self.tables = total;
                Ok(())
            }
            None => Err(Error::TooWide {
                node: node.to_owned(),
                shape: entries.to_vec(),
                limit,
            }),
        }
    }

    /// Appends an array to the parameters and returns where it starts.
    pub(super) fn parameter<D: Dimension>(
        &mut self,
        node: &str,
        array: &str,
        values: ArrayView<T, D>,
    ) -> Result<usize> {
        let start = self.values.len();
        let name = format!("{node}.{array}");
        check_finite(&name, values.view())?;
        self.values.extend(values.iter());
        let shape = values.shape().to_vec();
        self.layout.push(ParameterInfo::new(name, shape, start));
        Ok(start)
    }
}

/// A node to be added.
pub(super) struct New {
    name: String,
    operation: Operation,
    map: Map,
    pub(super) constants: Vec<Constant>,
}

impl New {
    pub(super) fn named(name: &str, operation: Operation, map: Map) -> New {
        New {
            name: name.to_owned(),
            operation,
            map,
            constants: Vec::new(),
        }
    }
}

pub(super) fn check_finite<T: Scalar, D: Dimension>(
    what: &str,
    values: ArrayView<T, D>,
) -> Result<()> {
    let values: ArrayD<T> = values.to_owned().into_dyn();
    match values.indexed_iter().find(|(_, v)| !v.is_finite()) {
        None => Ok(()),
        Some((index, _)) => Err(Error::NotFinite {
            what: what.to_owned(),
            index: (0..values.ndim()).map(|axis| index[axis]).collect(),
        }),
    }
}

pub(super) fn attribute(node: &str, problem: impl Into<String>) -> Error {
    Error::Attribute {
        node: node.to_owned(),
        problem: problem.into(),
    }
}

/// The length of an axis.
pub(super) fn length_of(node: &str, axis: usize, shape: &[usize]) -> Result<usize> {
    let none = || attribute(node, format!("axis {axis} does not exist in {shape:?}"));
    shape.get(axis).copied().ok_or_else(none)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Gate;
    use ndarray::{Array2, array};

    #[test]
    fn gates_share_the_buffer_of_an_input_that_nothing_else_reads() {
        let mut builder = Builder::new();
        let x = builder.input(2).unwrap();
        let g = builder.gate(x, Gate::Abs).unwrap();
        let z = builder.dense(g, array![[1.0, 2.0]], None).unwrap();
        let a = builder.relu(z).unwrap();
        let p = builder.prelu(a, array![0.5]).unwrap();
        let network = builder.build(p).unwrap();
        let slots: Vec<usize> = network.nodes.iter().map(|node| node.slot).collect();
        assert_eq!(slots, [0, 1, 2, 2, 3]);
        assert_eq!(network.slot_widths, [2, 2, 1, 1]);
    }

    #[test]
    fn a_node_read_twice_keeps_its_buffer_and_accumulates() {
        let mut builder = Builder::new();
        let x = builder.input(1).unwrap();
        let z = builder.dense(x, array![[1.0]], None).unwrap();
        let a = builder.relu(z).unwrap();
        let f = builder.sum(&[z, a, z]).unwrap();
        let network = builder.build(f).unwrap();
        assert_eq!(network.slot_widths.len(), 4);
        assert_eq!(network.nodes[3].accumulate, [false, false, true]);
        assert_eq!(network.nodes[2].accumulate, [true]);
    }

    #[test]
    fn mistakes_are_named() {
        let mut builder = Builder::<f64>::new();
        assert!(matches!(builder.input(0), Err(Error::ZeroWidth { .. })));
        let x = builder.input(2).unwrap();
        assert_eq!(builder.input(2), Err(Error::InputNodes { found: 2 }));
        let error = builder.dense(x, array![[1.0]], None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "dense0.weight has shape [1, 1] but [1, 2] is needed"
        );
        let error = builder.dense(x, array![[1.0, f64::NAN]], None).unwrap_err();
        assert!(matches!(error, Error::NotFinite { index, .. } if index == [0, 1]));
        let empty = Array2::zeros((0, 2));
        assert!(matches!(
            builder.dense(x, empty, None),
            Err(Error::ZeroWidth { .. })
        ));
    }

    #[test]
    fn a_node_without_a_reader_is_refused() {
        let mut builder = Builder::new();
        let x = builder.input(1).unwrap();
        builder.dense(x, array![[1.0]], None).unwrap();
        let f = builder.dense(x, array![[2.0]], None).unwrap();
        let error = builder.build(f).unwrap_err();
        assert_eq!(
            error,
            Error::UnusedNode {
                node: "dense0".into()
            }
        );
    }

    #[test]
    fn renaming_reaches_the_parameters_of_that_node_only() {
        let mut builder = Builder::new();
        let x = builder.input(1).unwrap();
        let z = builder.dense(x, array![[1.0]], Some(array![0.0])).unwrap();
        builder.rename(z, "dense1").unwrap();
        let a = builder.prelu(z, array![0.5]).unwrap();
        let f = builder.dense(a, array![[2.0]], None).unwrap();
        let taken = builder.clone().build(f).unwrap_err();
        assert_eq!(
            taken.to_string(),
            "a node cannot be called `dense1`: another node has this name"
        );
        builder.rename(f, "head").unwrap();
        builder.rename(a, "gate.1").unwrap();
        let network = builder.build(f).unwrap();
        let layout = network.parameters().layout().iter();
        let names: Vec<&str> = layout.map(|info| info.name()).collect();
        let expected = [
            "dense1.weight",
            "dense1.bias",
            "gate.1.slope",
            "head.weight",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn an_empty_name_is_refused() {
        let mut builder = Builder::<f32>::new();
        let x = builder.input(1).unwrap();
        assert!(matches!(builder.rename(x, ""), Err(Error::NodeName { .. })));
    }
}
