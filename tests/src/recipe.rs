//! How a random network is made from a few numbers that shrink well and a seed.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::graph::{GateKind, Graph, Op};
use crate::images;
use crate::matrix::Matrix;

/// Which gate follows a layer; slopes are drawn from the seed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum GateChoice {
    /// ReLU.
    Relu,
    /// Leaky ReLU with a slope between −1 and 1.
    Leaky,
    /// PReLU with a slope between −1 and 1 for each unit.
    Prelu,
    /// The absolute value.
    Abs,
    /// A clip with bounds around 0.
    Clip,
}

/// Which extra nodes a network has beside its chain of layers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Extras {
    /// Layers on images between the input and the chain, and maxima and gates on them.
    pub images: usize,
    /// A gate directly on the input.
    pub gate_on_input: bool,
    /// A gate on the output.
    pub gate_on_output: bool,
    /// After every hidden layer a block `a + dense(a)`.
    pub residual: bool,
    /// A sum that reads the last hidden layer's pre-activation twice.
    pub twice: bool,
    /// A dense map from the input to the output, added there.
    pub skip: bool,
}

/// A random network's shape.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Number of features.
    pub inputs: usize,
    /// Width and gate of each hidden layer.
    pub hidden: Vec<(usize, GateChoice)>,
    /// Number of logits.
    pub outputs: usize,
    /// Whether layers have biases.
    pub bias: bool,
    /// Nodes beside the chain.
    pub extras: Extras,
    /// Whether some units are dead and some rows are equal.
    pub unusual: bool,
    /// Factor on the last layer.
    pub gain: f64,
    /// Seed of all entries.
    pub seed: u64,
}

/// The bias of a dead unit: no input or weight here outweighs it.
const DEAD: f64 = -60.0;

impl Recipe {
    /// The network.
    pub fn graph(&self) -> Graph {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        let mut graph = Graph::chain(self.inputs, Vec::new());
        let mut node = 0;
        if self.extras.gate_on_input {
            node = gate(&mut graph, node, self.first_gate(), &mut random);
        }
        for _ in 0..self.extras.images {
            node = images::step(&mut graph, node, &mut random);
        }
        for &(width, choice) in &self.hidden {
            node = self.layer(&mut graph, node, width, &mut random);
            let z = node;
            node = gate(&mut graph, node, choice, &mut random);
            if self.extras.twice {
                node = graph.push(Op::Sum(vec![z, node, z]));
            }
            if self.extras.residual {
                let branch = self.layer(&mut graph, node, width, &mut random);
                node = graph.push(Op::Sum(vec![node, branch]));
            }
        }
        node = self.last(&mut graph, node, &mut random);
        if self.extras.gate_on_output {
            gate(&mut graph, node, GateChoice::Leaky, &mut random);
        }
        graph
    }

    fn first_gate(&self) -> GateChoice {
        self.hidden
            .first()
            .map_or(GateChoice::Abs, |&(_, choice)| choice)
    }

    fn last(&self, graph: &mut Graph, node: usize, random: &mut ChaCha8Rng) -> usize {
        let mut last = self.dense(graph, node, self.outputs, self.gain, random);
        if self.extras.skip {
            let skip = self.dense(graph, 0, self.outputs, self.gain, random);
            last = graph.push(Op::Sum(vec![last, skip]));
        }
        last
    }

    /// A hidden dense layer, some of whose units may be dead or equal.
    fn layer(
        &self,
        graph: &mut Graph,
        node: usize,
        width: usize,
        random: &mut ChaCha8Rng,
    ) -> usize {
        let added = self.dense(graph, node, width, 1.5, random);
        let Op::Dense { weight, bias, .. } = &mut graph.nodes[added] else {
            unreachable!("it was just added");
        };
        if self.unusual && width > 2 {
            weight[width - 1] = weight[0].clone();
            if let Some(bias) = bias {
                bias[width - 1] = bias[0];
                bias[width / 2] = DEAD;
            }
        }
        added
    }

    fn dense(
        &self,
        graph: &mut Graph,
        from: usize,
        width: usize,
        gain: f64,
        random: &mut ChaCha8Rng,
    ) -> usize {
        let inputs = graph.width(from);
        let size = gain * (3.0 / inputs as f64).sqrt();
        let weight = uniform(width, inputs, size, random);
        let bias = self.bias.then(|| entries(width, 0.5, random));
        graph.push(Op::Dense { from, weight, bias })
    }
}

/// Adds a gate.
pub fn gate(graph: &mut Graph, from: usize, choice: GateChoice, random: &mut ChaCha8Rng) -> usize {
    let kind = match choice {
        GateChoice::Relu => GateKind::Relu,
        GateChoice::Leaky => GateKind::Leaky(random.random_range(-1.0..1.0)),
        GateChoice::Prelu => GateKind::Prelu(entries(graph.width(from), 1.0, random)),
        GateChoice::Abs => GateKind::Abs,
        GateChoice::Clip => GateKind::Clip(
            random.random_range(-1.5..-0.2),
            random.random_range(0.2..1.5),
        ),
    };
    graph.push(Op::Gate { from, kind })
}

/// Entries uniform on `[−size, size]`.
pub fn entries(count: usize, size: f64, random: &mut ChaCha8Rng) -> Vec<f64> {
    (0..count)
        .map(|_| size * random.random_range(-1.0..1.0))
        .collect()
}

/// A matrix with entries uniform on `[−size, size]`.
pub fn uniform(rows: usize, columns: usize, size: f64, random: &mut ChaCha8Rng) -> Matrix {
    (0..rows).map(|_| entries(columns, size, random)).collect()
}
