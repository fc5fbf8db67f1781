//! Networks: static graphs of affine maps and gates in topological order.

pub(crate) mod add;
mod builder;
pub(crate) mod dense;
pub(crate) mod gate;
mod mlp;

pub use builder::Builder;
pub use gate::Gate;
pub use mlp::{Initialization, Mlp};

use dense::Dense;
use gate::GateOperation;

use crate::parameters::Parameters;
use crate::scalar::Scalar;

/// A node of the graph, numbered from 0 in topological order. Node 0 is the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub(crate) usize);

impl NodeId {
    /// Its place in [`Network::nodes`].
    pub fn index(self) -> usize {
        self.0
    }
}

/// What a node computes from the nodes before it.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Input,
    Dense(Dense),
    Add,
    Gate(GateOperation),
}

impl Operation {
    /// Where each of its parameter arrays starts in the flat vector of all parameters.
    fn parameter_starts(&self) -> Vec<usize> {
        match self {
            Operation::Input | Operation::Add => Vec::new(),
            Operation::Dense(dense) => [dense.weight].into_iter().chain(dense.bias).collect(),
            Operation::Gate(gate) => gate.slopes.iter().map(|range| range.start).collect(),
        }
    }
}

/// One operation of a network with its place in the graph.
#[derive(Clone, Debug)]
pub struct Node {
    pub(crate) name: String,
    pub(crate) operation: Operation,
    /// The nodes whose values it takes; all have smaller numbers.
    pub(crate) inputs: Vec<usize>,
    pub(crate) width: usize,
    /// Which buffer holds its value. A gate shares the buffer of its input where nothing else needs that.
    pub(crate) slot: usize,
    /// Whether a cotangent sent to `inputs[i]` is added to one that another consumer has already sent.
    pub(crate) accumulate: Vec<bool>,
}

impl Node {
    /// Its name, unique in the network, such as `dense0` or `relu1`, or what [`Builder::rename`] gave it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of its values per sample.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The gate it applies, or `None` if it is affine.
    pub fn gate(&self) -> Option<Gate> {
        match &self.operation {
            Operation::Gate(operation) => Some(operation.gate()),
            _ => None,
        }
    }

    /// What it computes, by its name in files: `input`, `dense`, `add`, or the [name](Gate::name) of its gate.
    pub fn operation(&self) -> &'static str {
        match &self.operation {
            Operation::Input => "input",
            Operation::Dense(_) => "dense",
            Operation::Add => "add",
            Operation::Gate(operation) => operation.gate().name(),
        }
    }

    /// Whether it is a dense layer.
    pub fn is_dense(&self) -> bool {
        matches!(self.operation, Operation::Dense(_))
    }

    /// The nodes whose values it takes.
    pub fn inputs(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.inputs.iter().copied().map(NodeId)
    }

    /// Whether it is a gate that overwrites its input's buffer.
    pub(crate) fn in_place(&self, nodes: &[Node]) -> bool {
        self.inputs
            .first()
            .is_some_and(|&i| nodes[i].slot == self.slot)
    }
}

/// A piecewise affine network `f : R^D → R^K`, its graph and its parameters.
///
/// Made by a [`Builder`] or, for plain multilayer perceptrons, by [`Mlp`]. Everything that can be asked about
/// a batch of inputs starts with [`trace`](Network::trace).
#[derive(Clone, Debug)]
pub struct Network<T> {
    pub(crate) nodes: Vec<Node>,
    /// Width of each buffer that a pass over the graph needs.
    pub(crate) slots: Vec<usize>,
    parameters: Parameters<T>,
}

impl<T: Scalar> Network<T> {
    /// Number of inputs `D`.
    pub fn inputs(&self) -> usize {
        self.nodes[0].width
    }

    /// Number of outputs `K`, the logits.
    pub fn outputs(&self) -> usize {
        self.output().width
    }

    /// The nodes in topological order; the first is the input and the last the output.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Number of gates (hidden units that select) of one sample: the bits of its activation pattern.
    pub fn gates(&self) -> usize {
        self.nodes
            .iter()
            .filter(|node| node.gate().is_some())
            .map(Node::width)
            .sum()
    }

    /// All weights, biases and learned slopes.
    pub fn parameters(&self) -> &Parameters<T> {
        &self.parameters
    }

    /// All weights, biases and learned slopes, to be changed in place.
    pub fn parameters_mut(&mut self) -> &mut Parameters<T> {
        &mut self.parameters
    }

    /// The same network in another precision.
    pub fn cast<U: Scalar>(&self) -> Network<U> {
        Network {
            nodes: self.nodes.clone(),
            slots: self.slots.clone(),
            parameters: self.parameters.cast(),
        }
    }

    pub(crate) fn output(&self) -> &Node {
        self.nodes.last().expect("a network has at least its input")
    }

    /// Entries that one row of one sample occupies in a sweep: the sum of all buffers' widths.
    pub(crate) fn row_entries(&self) -> usize {
        self.slots.iter().sum()
    }
}
