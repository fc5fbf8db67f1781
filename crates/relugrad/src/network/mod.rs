//! Networks: static graphs of affine maps and gates in topological order.

// A new operation or gate does not compile until every match has said what it means there.

mod builder;
mod constant;
pub(crate) mod gates;
pub(crate) mod map;
mod mlp;
mod operation;
mod rewrite;
mod shapes;
mod spec;
pub(crate) mod windows;

pub use builder::Builder;
pub use constant::Constant;
pub use gates::Gate;
pub use map::BatchNorm;
pub use mlp::{Initialization, Mlp};
pub use operation::{ArraySpec, Operation, Window};
pub use shapes::MAX_WIDTH;
pub use spec::NodeSpec;

use map::{Cost, Map, SweepContext};

use crate::error::Result;
use crate::parameters::{ParameterInfo, Parameters};
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

/// One operation of a network with its place in the graph.
#[derive(Clone, Debug)]
pub struct Node {
    pub(crate) name: String,
    pub(crate) operation: Operation,
    pub(crate) map: Map,
    /// The nodes whose values it takes; all have smaller numbers.
    pub(crate) inputs: Vec<usize>,
    pub(crate) shape: Vec<usize>,
    pub(crate) width: usize,
    /// Numbers that are not trained.
    pub(crate) constants: Vec<Constant>,
    /// Which buffer holds its value. A gate shares the buffer of its input where nothing else needs
    /// that.
    pub(crate) slot: usize,
    /// Whether a cotangent sent to `inputs[i]` is added to one that another consumer has already
    /// sent.
    pub(crate) accumulate: Vec<bool>,
    /// Whether it or a node before it on some way has parameters, so that their gradient needs its
    /// cotangents.
    pub(crate) depends_on_parameters: bool,
}

impl Node {
    /// Its name, unique in the network, such as `dense0` or `relu1`, or what [`Builder::rename`]
    /// gave it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of its values per sample.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The shape of its value for one sample; its product is the [`width`](Self::width).
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// What it computes.
    pub fn operation(&self) -> &Operation {
        &self.operation
    }

    /// The gate that it applies to every unit, or `None` if it does something else.
    pub fn gate(&self) -> Option<Gate> {
        if let Operation::Gate(gate) = self.operation {
            Some(gate)
        } else {
            None
        }
    }

    /// The nodes whose values it takes.
    pub fn inputs(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.inputs.iter().copied().map(NodeId)
    }

    /// The arrays that it computes with and that are not trained: statistics, factors, places.
    pub fn constants(&self) -> &[Constant] {
        &self.constants
    }

    /// Multiplications of one sample; sums of branches, gates and maxima have none.
    pub fn multiply_adds(&self) -> usize {
        self.cost().multiply_adds
    }

    /// How many products or entries each of its values is a sum of.
    pub fn terms(&self) -> usize {
        self.cost().terms
    }

    fn cost(&self) -> Cost {
        let affine = self.map.affine::<f64>();
        affine.map_or(Cost::moving(1), |map| map.cost(self.width))
    }

    /// Whether it shares the buffer of its input.
    pub(crate) fn in_place(&self, nodes: &[Node]) -> bool {
        self.inputs
            .first()
            .is_some_and(|&i| nodes[i].slot == self.slot)
    }

    /// An affine node's map of what the `buffers` hold, or its linear part; nothing is left to do
    /// for one that shares the buffer of its input.
    pub(crate) fn apply<T: Scalar>(
        &self,
        nodes: &[Node],
        at: SweepContext<T>,
        buffers: &[Vec<T>],
        affine: bool,
        out: &mut [T],
    ) {
        let Some(map) = self.map.affine().filter(|_| !self.in_place(nodes)) else {
            return;
        };
        let value = |&input: &usize| &buffers[nodes[input].slot][..];
        // Nearly all have one input, for which nothing need be allocated.
        if let [input] = &self.inputs[..] {
            map.apply(at, &[value(input)], affine, out);
        } else {
            let inputs: Vec<&[T]> = self.inputs.iter().map(value).collect();
            map.apply(at, &inputs, affine, out);
        }
    }
}

/// A piecewise affine network `f : R^D → R^K`, its graph and its parameters.
///
/// Made by a [`Builder`] or, for plain multilayer perceptrons, by [`Mlp`]. Everything that can be
/// asked about a batch of inputs starts with [`trace`](Network::trace).
#[derive(Clone, Debug)]
pub struct Network<T> {
    pub(crate) nodes: Vec<Node>,
    /// Width of each buffer that a pass over the graph needs.
    pub(crate) slot_widths: Vec<usize>,
    parameters: Parameters<T>,
}

impl<T: Scalar> Network<T> {
    /// Number of inputs `D`.
    pub fn inputs(&self) -> usize {
        self.nodes[0].width
    }

    /// The shape of one input; its product is [`inputs`](Self::inputs), and inputs are given
    /// row-major.
    pub fn input_shape(&self) -> &[usize] {
        &self.nodes[0].shape
    }

    /// Number of outputs `K`, the logits.
    pub fn outputs(&self) -> usize {
        self.output().width
    }

    /// The nodes in topological order; the first is the input and the last the output.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Number of gates (units that select) of one sample: the length of its activation pattern.
    pub fn gates(&self) -> usize {
        let selecting = self.nodes.iter().filter(|node| node.operation.selects());
        selecting.map(Node::width).sum()
    }

    /// Whether `f(t x) = t f(x)` for all `t > 0`: there are no biases, shifts, means, fillings or
    /// clips other than 0.
    pub fn is_homogeneous(&self) -> bool {
        let mut nodes = self.nodes.iter();
        nodes.all(|node| node.operation.is_homogeneous(&node.constants))
    }

    /// The parameter arrays of a node, in the order of [`Parameters::layout`].
    pub fn parameters_of(&self, node: &Node) -> impl Iterator<Item = &ParameterInfo> {
        let mut starts: Vec<usize> = node.map.parameter_starts().collect();
        starts.sort_unstable();
        let layout = self.parameters.layout();
        starts.into_iter().filter_map(move |start| {
            let found = layout.binary_search_by_key(&start, |info| info.range().start);
            found.ok().map(|place| &layout[place])
        })
    }

    /// How many values its nodes have for one input; other shapes of the same values do not count.
    pub fn values(&self) -> usize {
        let nodes = self.nodes.iter();
        let own = nodes.filter(|node| !matches!(node.operation, Operation::Reshape));
        own.map(Node::width).sum()
    }

    /// All weights, biases and learned slopes.
    pub fn parameters(&self) -> &Parameters<T> {
        &self.parameters
    }

    /// All weights, biases and learned slopes, to be changed in place.
    pub fn parameters_mut(&mut self) -> &mut Parameters<T> {
        &mut self.parameters
    }

    /// The same network in another precision, every parameter rounded to the nearest number that it
    /// has.
    ///
    /// # Errors
    /// [`Error::NotFinite`](crate::Error::NotFinite) for a parameter that is beyond the other
    /// precision's range, or that is not finite itself.
    pub fn cast<U: Scalar>(&self) -> Result<Network<U>> {
        Ok(self.with(self.parameters.cast()?))
    }

    /// The same network in `f64`, which holds the parameters of every type.
    pub(crate) fn widened(&self) -> Network<f64> {
        self.with(self.parameters.rounded())
    }

    fn with<U>(&self, parameters: Parameters<U>) -> Network<U> {
        Network {
            nodes: self.nodes.clone(),
            slot_widths: self.slot_widths.clone(),
            parameters,
        }
    }

    pub(crate) fn output(&self) -> &Node {
        self.nodes.last().expect("a network has at least its input")
    }

    /// The layers of gates, in order.
    pub(crate) fn gate_layers(&self) -> impl Iterator<Item = &map::GateMap> + Clone {
        self.nodes.iter().filter_map(|node| node.map.gate())
    }

    /// Entries that one row of one sample occupies in a sweep: the sum of all buffers' widths.
    pub(crate) fn row_entries(&self) -> usize {
        self.slot_widths.iter().sum()
    }
}
