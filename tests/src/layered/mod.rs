//! Random networks of every operation: convolutions, pooling, maxima, clips, batch normalisation,
//! rearrangements, branches that join, nodes that are read twice, inputs that skip to the output,
//! gates on the output.

mod attributes;

pub use attributes::every_attribute;

use ndarray::{Array, Array2, ArrayD, Dimension, IxDyn, ShapeBuilder};
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use relugrad::{BatchNorm, Builder, Gate, Network, NodeId, Window};

/// Operations between input and logits.
const OPERATIONS: std::ops::RangeInclusive<usize> = 3..=8;

/// A network of random operations and parameters; equal seeds give equal networks.
///
/// # Panics
/// If an operation is put where it does not fit, which is a fault of this module.
pub fn network(seed: u64) -> Network<f64> {
    let mut draft = Draft::new(seed);
    for _ in 0..draft.random.random_range(OPERATIONS) {
        draft.step();
    }
    draft.finish()
}

/// A batch of inputs for a network.
pub fn inputs(network: &Network<f64>, seed: u64, samples: usize) -> Array2<f64> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let shape = (samples, network.inputs());
    Array2::from_shape_simple_fn(shape, || random.random_range(-1.0..1.0))
}

/// A network in the making: images first, vectors once it has been flattened.
struct Draft {
    builder: Builder<f64>,
    random: ChaCha8Rng,
    /// Every node so far.
    nodes: Vec<NodeId>,
    /// How often each has been read.
    read: Vec<usize>,
    last: NodeId,
}

impl Draft {
    fn new(seed: u64) -> Draft {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let shape = [1..=2, 3..=5, 3..=5].map(|range| random.random_range(range));
        Draft::on(random, &shape)
    }

    /// An input of this shape alone.
    fn on(random: ChaCha8Rng, shape: &[usize]) -> Draft {
        let mut builder = Builder::new();
        let last = builder.input_shaped(shape).unwrap();
        Draft {
            builder,
            random,
            nodes: vec![last],
            read: vec![0],
            last,
        }
    }

    fn shape(&self, node: NodeId) -> Vec<usize> {
        self.builder.shape(node).unwrap().to_vec()
    }

    fn array<D: Dimension>(
        &mut self,
        shape: impl ShapeBuilder<Dim = D>,
        size: f64,
    ) -> Array<f64, D> {
        Array::from_shape_simple_fn(shape, || self.random.random_range(-size..size))
    }

    /// Makes a node the last one.
    fn push(&mut self, inputs: &[NodeId], node: NodeId) {
        for id in self.builder.nodes().skip(self.nodes.len()) {
            self.nodes.push(id);
            self.read.push(usize::from(id != node));
        }
        inputs
            .iter()
            .for_each(|input| self.read[input.index()] += 1);
        self.last = node;
    }

    fn step(&mut self) {
        let (x, shape) = (self.last, self.shape(self.last));
        let image = shape.len() == 3;
        match self.random.random_range(0..12) {
            0..=2 if image => self.convolution(x, &shape),
            3 if image && shape[1] * shape[2] > 1 => self.pooling(x, &shape),
            4 => self.normalisation(x, &shape),
            5 => self.branch(x, &shape),
            6 => self.rearrangement(x, &shape),
            7 => {
                let learned = self.random.random();
                let (factor, summand) = (
                    self.array(IxDyn(&shape[..1]), 1.5),
                    self.array(IxDyn(&[]), 0.5),
                );
                let axes: Vec<usize> = [shape[0]]
                    .into_iter()
                    .chain(vec![1; shape.len() - 1])
                    .collect();
                let factor = factor.into_shape_with_order(IxDyn(&axes)).unwrap();
                let scaled = self.builder.scale(x, factor, learned).unwrap();
                let shifted = self.builder.shift(scaled, summand, !learned).unwrap();
                self.push(&[x], shifted);
            }
            8 if shape[0] > 1 => {
                let pieces = if shape[0].is_multiple_of(2) {
                    2
                } else {
                    shape[0]
                };
                let largest = self.builder.maxout(x, pieces).unwrap();
                self.push(&[x], largest);
            }
            9..=10 => self.gate(x),
            _ => self.dense(x, &shape),
        }
        if self.random.random_range(0..3) > 0 {
            self.gate(self.last);
        }
    }

    fn convolution(&mut self, x: NodeId, shape: &[usize]) {
        let (groups, outputs) = (
            if shape[0] == 2 {
                self.random.random_range(1..=2)
            } else {
                1
            },
            2 * self.random.random_range(1..=2),
        );
        let mut side = |length: usize| self.random.random_range(1..=length.min(3));
        let kernel = [side(shape[1]), side(shape[2])];
        let mut number = |range: std::ops::Range<usize>| self.random.random_range(range);
        let window = Window::new(kernel)
            .stride([number(1..3), number(1..3)])
            .padding([[number(0..2), number(0..2)], [number(0..2), number(0..2)]]);
        let weight = self.array((outputs, shape[0] / groups, kernel[0], kernel[1]), 1.0);
        let bias = self
            .random
            .random::<bool>()
            .then(|| self.array(outputs, 0.5));
        let z = self
            .builder
            .conv2d(x, weight, bias, window, groups)
            .unwrap();
        self.push(&[x], z);
    }

    fn pooling(&mut self, x: NodeId, shape: &[usize]) {
        let kernel = [shape[1].min(2), shape[2].min(2)];
        let pad = kernel.map(|k| {
            [
                self.random.random_range(0..k),
                self.random.random_range(0..k),
            ]
        });
        let stride = [
            self.random.random_range(1..=2),
            self.random.random_range(1..=2),
        ];
        let window = Window::new(kernel)
            .stride(stride)
            .padding(pad)
            .ceil(self.random.random());
        let pooled = match self.random.random_range(0..3) {
            0 => {
                let count = self.random.random();
                self.builder.average_pool(x, window, count).unwrap()
            }
            _ => self.builder.max_pool(x, window).unwrap(),
        };
        self.push(&[x], pooled);
    }

    fn normalisation(&mut self, x: NodeId, shape: &[usize]) {
        let axis = self.random.random_range(0..shape.len());
        let norm = BatchNorm {
            scale: self.array(shape[axis], 1.5),
            shift: self.array(shape[axis], 0.5),
            mean: self.array(shape[axis], 0.5),
            variance: self.array(shape[axis], 1.0).mapv(f64::abs),
            epsilon: 0.1,
        };
        let y = self.builder.batch_norm(x, axis, norm).unwrap();
        self.push(&[x], y);
    }

    /// A sum or concatenation with an earlier node, or with itself.
    fn branch(&mut self, x: NodeId, shape: &[usize]) {
        let same: Vec<NodeId> = self
            .nodes
            .iter()
            .copied()
            .filter(|&node| self.shape(node) == shape)
            .collect();
        let other = *same.choose(&mut self.random).unwrap();
        let joined = if self.random.random() {
            self.builder.sum(&[x, other]).unwrap()
        } else {
            let axis = self.random.random_range(0..shape.len());
            self.builder.concat(&[other, x], axis).unwrap()
        };
        self.push(&[x, other], joined);
    }

    fn rearrangement(&mut self, x: NodeId, shape: &[usize]) {
        let axis = self.random.random_range(0..shape.len());
        let b = &mut self.builder;
        let y = match self.random.random_range(0..3) {
            0 => b
                .transpose(x, &(0..shape.len()).rev().collect::<Vec<_>>())
                .unwrap(),
            1 => b
                .slice(x, axis, shape[axis] - 1, -1, shape[axis].div_ceil(2))
                .unwrap(),
            _ => b.pad(x, axis, [1, 0], 0.25).unwrap(),
        };
        self.push(&[x], y);
    }

    fn gate(&mut self, x: NodeId) {
        let shape = self.shape(x);
        let gate = match self.random.random_range(0..6) {
            0 => Gate::LeakyRelu { slope: 0.2 },
            1 => Gate::Abs,
            2 => Gate::Clip {
                min: -0.75,
                max: 1.0,
            },
            3 => {
                let slopes: ArrayD<f64> = self.array(IxDyn(&shape[shape.len() - 1..]), 0.5);
                let a = self.builder.prelu_shared(x, slopes).unwrap();
                return self.push(&[x], a);
            }
            _ => Gate::Relu,
        };
        let a = self.builder.gate(x, gate).unwrap();
        self.push(&[x], a);
    }

    fn dense(&mut self, x: NodeId, shape: &[usize]) {
        let inputs = *shape.last().unwrap();
        let outputs = self.random.random_range(1..=6);
        let weight = self.array((outputs, inputs), 1.0);
        let bias = self
            .random
            .random::<bool>()
            .then(|| self.array(outputs, 0.5));
        let z = self.builder.dense(x, weight, bias).unwrap();
        self.push(&[x], z);
    }

    /// Logits from everything that nothing has read yet, sometimes with the input, sometimes behind
    /// a gate.
    fn finish(mut self) -> Network<f64> {
        let loose = self
            .nodes
            .iter()
            .copied()
            .filter(|node| self.read[node.index()] == 0);
        let mut loose: Vec<NodeId> = loose.collect();
        if self.random.random() && !loose.contains(&self.nodes[0]) {
            loose.push(self.nodes[0]);
        }
        let flat: Vec<NodeId> = loose
            .iter()
            .map(|&node| self.builder.flatten(node).unwrap())
            .collect();
        let all = if flat.len() > 1 {
            self.builder.concat(&flat, 0).unwrap()
        } else {
            flat[0]
        };
        let (inputs, outputs) = (self.shape(all)[0], self.random.random_range(2..=5));
        let size = 2.0 / (inputs as f64).sqrt();
        let (weight, bias) = (
            self.array((outputs, inputs), size),
            self.array(outputs, 0.5),
        );
        let mut f = self.builder.dense(all, weight, Some(bias)).unwrap();
        if self.random.random_range(0..4) == 0 {
            f = self
                .builder
                .gate(f, Gate::LeakyRelu { slope: -0.5 })
                .unwrap();
        }
        self.builder.build(f).unwrap()
    }
}
