//! A network as plain data, from which both the engine's network and the oracle's numbers are made.

use ndarray::{Array1, Array2};
use relugrad::{Builder, Gate, Network, NodeId, Window};

use crate::linear::{Linear, pooled};
use crate::matrix::{Matrix, flatten, rows};

/// A gate with its inactive slopes.
#[derive(Clone, Debug, PartialEq)]
pub enum GateKind {
    /// `max(z, 0)`.
    Relu,
    /// One fixed slope.
    Leaky(f64),
    /// One learned slope per unit.
    Prelu(Vec<f64>),
    /// `|z|`.
    Abs,
    /// `min(max(z, lower), upper)` with `lower ≤ 0 ≤ upper`.
    Clip(f64, f64),
}

impl GateKind {
    /// Slope of an inactive unit.
    pub fn slope(&self, unit: usize) -> f64 {
        match self {
            GateKind::Relu | GateKind::Clip(..) => 0.0,
            GateKind::Leaky(slope) => *slope,
            GateKind::Prelu(slopes) => slopes[unit],
            GateKind::Abs => -1.0,
        }
    }
}

/// What a maximum is taken over.
#[derive(Clone, Debug, PartialEq)]
pub enum Maximum {
    /// Windows of an image of this shape.
    Pool([usize; 3], Window),
    /// So many neighbouring units each.
    Maxout(usize),
}

impl Maximum {
    /// The units that each output is the maximum of, for a node of this width.
    pub fn windows(&self, width: usize) -> Vec<Vec<usize>> {
        match self {
            Maximum::Pool(shape, window) => pooled(*shape, window),
            Maximum::Maxout(pieces) => {
                let starts = (0..width).step_by(*pieces);
                starts
                    .map(|start| (start..start + pieces).collect())
                    .collect()
            }
        }
    }
}

/// One operation; nodes are named by their place in the list.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// The input of this width, which is node 0.
    Input(usize),
    /// `W x + b`.
    Dense {
        /// The node `x`.
        from: usize,
        /// `W`.
        weight: Matrix,
        /// `b`.
        bias: Option<Vec<f64>>,
    },
    /// A gate on every unit.
    Gate {
        /// The node of pre-activations.
        from: usize,
        /// Which gate.
        kind: GateKind,
    },
    /// A maximum over groups of units.
    Max {
        /// The node that is read.
        from: usize,
        /// Which groups.
        maximum: Maximum,
    },
    /// The sum of nodes.
    Sum(Vec<usize>),
    /// Any other affine layer.
    Linear {
        /// The nodes that it reads.
        from: Vec<usize>,
        /// The layer with its parameters.
        layer: Linear,
    },
}

impl Op {
    /// The node that a gate or maximum reads; `None` for all others.
    pub fn selects(&self) -> Option<usize> {
        match self {
            Op::Gate { from, .. } | Op::Max { from, .. } => Some(*from),
            _ => None,
        }
    }

    fn reads(&mut self) -> &mut [usize] {
        match self {
            Op::Input(_) => &mut [],
            Op::Dense { from, .. } | Op::Gate { from, .. } | Op::Max { from, .. } => {
                std::slice::from_mut(from)
            }
            Op::Sum(nodes) | Op::Linear { from: nodes, .. } => nodes,
        }
    }
}

/// A network in topological order; the last node is the output.
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    /// The operations.
    pub nodes: Vec<Op>,
}

impl Graph {
    /// A chain of layers on `inputs` features; the `from` of each is set to the node before it.
    pub fn chain(inputs: usize, layers: Vec<Op>) -> Graph {
        let mut graph = Graph {
            nodes: vec![Op::Input(inputs)],
        };
        for mut layer in layers {
            let before = graph.nodes.len() - 1;
            if let Op::Dense { from, .. } | Op::Gate { from, .. } = &mut layer {
                *from = before;
            }
            graph.nodes.push(layer);
        }
        graph
    }

    /// Adds a node and returns its number.
    pub fn push(&mut self, op: Op) -> usize {
        self.nodes.push(op);
        self.nodes.len() - 1
    }

    /// The same function of `W x`.
    pub fn behind(&self, weight: Matrix) -> Graph {
        let layer = Op::Dense {
            from: 0,
            weight,
            bias: None,
        };
        let mut graph = Graph::chain(self.inputs(), vec![layer]);
        for op in &self.nodes[1..] {
            let mut op = op.clone();
            op.reads().iter_mut().for_each(|node| *node += 1);
            graph.nodes.push(op);
        }
        graph
    }

    /// Number of values of a node.
    pub fn width(&self, node: usize) -> usize {
        match &self.nodes[node] {
            Op::Input(width) => *width,
            Op::Dense { weight, .. } => weight.len(),
            Op::Gate { from, .. } => self.width(*from),
            Op::Max { from, maximum } => maximum.windows(self.width(*from)).len(),
            Op::Sum(nodes) => self.width(nodes[0]),
            Op::Linear { layer, .. } => layer.width(),
        }
    }

    /// Number of features `D`.
    pub fn inputs(&self) -> usize {
        self.width(0)
    }

    /// Number of logits `K`.
    pub fn outputs(&self) -> usize {
        self.width(self.nodes.len() - 1)
    }

    /// The engine's network.
    ///
    /// # Panics
    /// If the graph is not a network.
    pub fn network(&self) -> Network<f64> {
        let mut builder = Builder::new();
        let mut ids: Vec<NodeId> = Vec::new();
        for op in &self.nodes {
            ids.push(add(&mut builder, &ids, op));
        }
        builder.build(ids[ids.len() - 1]).unwrap()
    }

    /// All parameters in the engine's order: node by node, a weight before its bias.
    pub fn parameters(&self) -> Vec<f64> {
        let mut all = Vec::new();
        for op in &self.nodes {
            match op {
                Op::Dense { weight, bias, .. } => {
                    all.extend(flatten(weight));
                    all.extend(bias.iter().flatten());
                }
                Op::Gate {
                    kind: GateKind::Prelu(slopes),
                    ..
                } => all.extend(slopes),
                Op::Linear { layer, .. } => all.extend(&layer.parameters),
                _ => {}
            }
        }
        all
    }

    /// The same graph with other parameters.
    pub fn with_parameters(&self, mut values: &[f64]) -> Graph {
        let mut take = |count: usize| {
            let (head, tail) = values.split_at(count);
            values = tail;
            head.to_vec()
        };
        let mut graph = self.clone();
        for op in &mut graph.nodes {
            match op {
                Op::Dense { weight, bias, .. } => {
                    let (outputs, inputs) = (weight.len(), weight[0].len());
                    *weight = rows(&take(outputs * inputs), inputs);
                    if let Some(bias) = bias {
                        *bias = take(outputs);
                    }
                }
                Op::Gate {
                    kind: GateKind::Prelu(slopes),
                    ..
                } => *slopes = take(slopes.len()),
                Op::Linear { layer, .. } => layer.parameters = take(layer.parameters.len()),
                _ => {}
            }
        }
        graph
    }

    /// The graph with parameters `θ + t d`.
    pub fn moved(&self, direction: &[f64], t: f64) -> Graph {
        self.with_parameters(&crate::matrix::add(&self.parameters(), t, direction))
    }

    /// The same graph without biases; affine layers other than dense ones keep theirs.
    pub fn without_biases(&self) -> Graph {
        let mut graph = self.clone();
        for op in &mut graph.nodes {
            if let Op::Dense { bias, .. } = op {
                *bias = None;
            }
        }
        graph
    }

    /// Whether every node reads the one before it and no other.
    pub fn is_chain(&self) -> bool {
        let reads = |(node, op): (usize, &Op)| op.clone().reads().iter().all(|&read| read == node);
        self.nodes[1..].iter().enumerate().all(reads)
    }

    /// Whether a clip or an affine layer other than a dense one adds anything to its input.
    pub fn has_offsets(&self) -> bool {
        self.nodes.iter().any(|op| match op {
            Op::Gate { kind, .. } => matches!(kind, GateKind::Clip(..)),
            Op::Linear { layer, .. } => layer.has_offsets(),
            _ => false,
        })
    }
}

/// An array with these rows.
pub fn array(m: &[Vec<f64>]) -> Array2<f64> {
    let columns = m.first().map_or(0, Vec::len);
    Array2::from_shape_vec((m.len(), columns), flatten(m)).expect("equal rows")
}

fn add(builder: &mut Builder<f64>, ids: &[NodeId], op: &Op) -> NodeId {
    let added = match op {
        Op::Input(width) => builder.input(*width),
        Op::Dense { from, weight, bias } => {
            let bias = bias.as_ref().map(|b| Array1::from(b.clone()));
            builder.dense(ids[*from], array(weight), bias)
        }
        Op::Gate { from, kind } => match kind {
            GateKind::Relu => builder.relu(ids[*from]),
            GateKind::Leaky(slope) => builder.gate(ids[*from], Gate::LeakyRelu { slope: *slope }),
            GateKind::Prelu(slopes) => builder.prelu(ids[*from], Array1::from(slopes.clone())),
            GateKind::Abs => builder.gate(ids[*from], Gate::Abs),
            GateKind::Clip(min, max) => {
                let (min, max) = (*min, *max);
                builder.gate(ids[*from], Gate::Clip { min, max })
            }
        },
        Op::Max { from, maximum } => match maximum {
            Maximum::Pool(shape, window) => {
                let image = builder.reshape(ids[*from], shape).expect("it fits");
                let pooled = builder.max_pool(image, *window).expect("it fits");
                builder.flatten(pooled)
            }
            Maximum::Maxout(pieces) => builder.maxout(ids[*from], *pieces),
        },
        Op::Linear { from, layer } => {
            let from: Vec<NodeId> = from.iter().map(|&node| ids[node]).collect();
            layer.build(builder, &from)
        }
        Op::Sum(nodes) => {
            let nodes: Vec<NodeId> = nodes.iter().map(|&node| ids[node]).collect();
            builder.sum(&nodes)
        }
    };
    added.expect("the graph is a network")
}
