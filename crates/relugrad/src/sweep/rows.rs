//! Rows at every node of a network, and the three ways in which they are carried and joined.

use std::ops::Range;

use ndarray::ArrayView2;

use super::Seeds;
use crate::network::add::add_or_copy;
use crate::network::{Network, Node, Operation};
use crate::parameters::Parameters;
use crate::pattern::ActivationPattern;
use crate::product::a_b;
use crate::scalar::Scalar;
use crate::trace::{Record, resize_slots};

/// `R` rows per sample at every node of a network; `[samples, R, width]` for each slot.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rows<T> {
    pub(crate) samples: usize,
    pub(crate) rows: usize,
    pub(crate) slots: Vec<Vec<T>>,
}

/// The pattern of some samples of a batch: which linear network each of them sees.
#[derive(Clone)]
pub(crate) struct Gated<'a, T> {
    pub(crate) network: &'a Network<T>,
    pub(crate) pattern: &'a ActivationPattern,
    pub(crate) samples: Range<usize>,
}

impl<'a, T: Scalar> Gated<'a, T> {
    /// All samples of a batch.
    pub(crate) fn all(network: &'a Network<T>, record: &'a Record<T>) -> Gated<'a, T> {
        Gated {
            network,
            pattern: &record.pattern,
            samples: 0..record.samples,
        }
    }

    fn words(&self, gate: usize) -> &'a [u64] {
        self.pattern.words(gate, &self.samples)
    }
}

impl<T: Scalar> Rows<T> {
    fn resize(&mut self, network: &Network<T>, samples: usize, rows: usize) {
        (self.samples, self.rows) = (samples, rows);
        resize_slots(&mut self.slots, network, samples * rows);
    }

    /// The rows at the input; `[samples, R, D]`.
    pub(crate) fn at_input(&self) -> &[T] {
        &self.slots[0]
    }

    /// The rows at the logits; `[samples, R, K]`.
    pub(crate) fn at_output(&self, network: &Network<T>) -> &[T] {
        &self.slots[network.output().slot]
    }

    /// Carries cotangents from the logits backward, down to the input only if `to_input`.
    pub(crate) fn backward(&mut self, gated: &Gated<T>, seeds: Seeds<T>, to_input: bool) {
        let network = gated.network;
        self.resize(network, gated.samples.len(), seeds.rows());
        let last = network.nodes.len() - 1;
        let known = match seeds {
            Seeds::Shared(seeds) => self.shared_seeds(network, seeds, to_input),
            Seeds::PerSample(seeds) => {
                fill(&mut self.slots[network.output().slot], seeds.iter());
                false
            }
        };
        for (i, node) in network.nodes.iter().enumerate().rev() {
            if !(known && i == last) {
                self.node_backward(gated, node, to_input);
            }
        }
    }

    /// Writes shared seeds at the output. If that is a dense layer, their product with its weight is the same
    /// for every sample, so it is formed once; the result tells whether that was done.
    fn shared_seeds(&mut self, network: &Network<T>, seeds: ArrayView2<T>, to_input: bool) -> bool {
        let output = network.output();
        let seeds: Vec<T> = seeds.iter().copied().collect();
        repeat(&seeds, &mut self.slots[output.slot]);
        let Operation::Dense(dense) = &output.operation else {
            return false;
        };
        let input = output.inputs[0];
        if input == 0 && !to_input {
            return true;
        }
        let mut product = vec![T::ZERO; self.rows * dense.inputs];
        dense.cotangent(network.parameters().values(), &seeds, false, &mut product);
        repeat(&product, &mut self.slots[network.nodes[input].slot]);
        true
    }

    fn node_backward(&mut self, gated: &Gated<T>, node: &Node, to_input: bool) {
        let (network, rows) = (gated.network, self.rows);
        let parameters = network.parameters().values();
        if let Operation::Gate(gate) = &node.operation
            && node.in_place(&network.nodes)
        {
            let words = gated.words(gate.index);
            return gate.scale(parameters, words, rows, &mut self.slots[node.slot]);
        }
        let out = std::mem::take(&mut self.slots[node.slot]);
        for (&input, &accumulate) in node.inputs.iter().zip(&node.accumulate) {
            if input == 0 && !to_input {
                continue;
            }
            let slot = network.nodes[input].slot;
            let mut below = std::mem::take(&mut self.slots[slot]);
            match &node.operation {
                Operation::Input => {}
                Operation::Dense(d) => d.cotangent(parameters, &out, accumulate, &mut below),
                Operation::Add => add_or_copy(&out, accumulate, &mut below),
                Operation::Gate(gate) => {
                    let mut scaled = out.clone();
                    gate.scale(parameters, gated.words(gate.index), rows, &mut scaled);
                    add_or_copy(&scaled, accumulate, &mut below);
                }
            }
            self.slots[slot] = below;
        }
        self.slots[node.slot] = out;
    }

    /// Carries tangents from the input forward; `input: [samples, R, D]` is copied.
    pub(crate) fn forward<'i>(
        &mut self,
        gated: &Gated<T>,
        rows: usize,
        input: impl Iterator<Item = &'i T>,
    ) {
        self.resize(gated.network, gated.samples.len(), rows);
        fill(&mut self.slots[0], input);
        self.carry(gated);
    }

    /// Like [`forward`](Self::forward) from the rows that `from` has at the input, which it gives away.
    pub(crate) fn forward_from(&mut self, gated: &Gated<T>, from: &mut Rows<T>) {
        self.resize(gated.network, gated.samples.len(), from.rows);
        std::mem::swap(&mut self.slots[0], &mut from.slots[0]);
        self.carry(gated);
    }

    fn carry(&mut self, gated: &Gated<T>) {
        for node in &gated.network.nodes {
            self.node_forward(gated, node);
        }
    }

    fn node_forward(&mut self, gated: &Gated<T>, node: &Node) {
        let nodes = &gated.network.nodes;
        let parameters = gated.network.parameters().values();
        let mut out = std::mem::take(&mut self.slots[node.slot]);
        let below = |input: usize| &self.slots[nodes[input].slot][..];
        match &node.operation {
            Operation::Input => {}
            Operation::Dense(dense) => dense.tangent(parameters, below(node.inputs[0]), &mut out),
            Operation::Add => {
                for (i, &input) in node.inputs.iter().enumerate() {
                    add_or_copy(below(input), i > 0, &mut out);
                }
            }
            Operation::Gate(gate) => {
                if !node.in_place(nodes) {
                    out.copy_from_slice(below(node.inputs[0]));
                }
                gate.scale(parameters, gated.words(gate.index), self.rows, &mut out);
            }
        }
        self.slots[node.slot] = out;
    }

    /// Replaces the rows `c` of each sample by `M c`, with one `R×R` matrix per sample, at every node that
    /// has parameters. `matrices: [samples, R, R]`.
    pub(crate) fn mix(&mut self, network: &Network<T>, matrices: &[T]) {
        let rows = self.rows;
        for node in network.nodes.iter().filter(|node| has_parameters(node)) {
            let slot = &mut self.slots[node.slot];
            let operations = slot.len() * rows;
            let length = rows * node.width;
            crate::parallel::for_each_chunk(slot, length, operations, |sample, c| {
                let matrix = &matrices[sample * rows * rows..(sample + 1) * rows * rows];
                let old = c.to_vec();
                a_b(rows, node.width, matrix, &old, T::ZERO, c);
            });
        }
    }
}

/// `gradient += scale · ∂⟨A, V J⟩/∂θ`, with cotangents of seeds `V` and tangents of `A` (or, with `affine`,
/// activations instead of tangents and the derivative of `⟨V, f⟩`, which biases have a part in).
pub(crate) fn weight_gradient<T: Scalar>(
    gated: &Gated<T>,
    cotangents: &Rows<T>,
    tangents: &[Vec<T>],
    scale: T,
    affine: bool,
    gradient: &mut Parameters<T>,
) {
    let gradient = gradient.values_mut();
    for node in &gated.network.nodes {
        let Some(&input) = node.inputs.first() else {
            continue;
        };
        let c = &cotangents.slots[node.slot];
        let t = &tangents[gated.network.nodes[input].slot];
        match &node.operation {
            Operation::Input | Operation::Add => {}
            Operation::Dense(dense) => {
                dense.weight_gradient(c, t, scale, gradient);
                if affine {
                    dense.bias_gradient(c, gradient);
                }
            }
            Operation::Gate(gate) => {
                let words = gated.words(gate.index);
                gate.slope_gradient(words, cotangents.rows, (c, t), scale, gradient);
            }
        }
    }
}

fn has_parameters(node: &Node) -> bool {
    match &node.operation {
        Operation::Input | Operation::Add => false,
        Operation::Dense(_) => true,
        Operation::Gate(gate) => gate.slopes.is_some(),
    }
}

fn fill<'i, T: Scalar>(to: &mut [T], from: impl Iterator<Item = &'i T>) {
    for (to, &from) in to.iter_mut().zip(from) {
        *to = from;
    }
}

/// Fills `to` with copies of `block`.
fn repeat<T: Scalar>(block: &[T], to: &mut [T]) {
    for copy in to.chunks_exact_mut(block.len()) {
        copy.copy_from_slice(block);
    }
}
