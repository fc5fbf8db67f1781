//! Rows at every node of a network, and the three ways in which they are carried and joined.

use std::ops::Range;

use ndarray::ArrayView2;

use super::Seeds;
use crate::buffer::Buffer;
use crate::network::map::{AffineMap, GateKind, Given, Map, Share};
use crate::network::{Network, Node};
use crate::parallel::{for_each_chunk, on_pool};
use crate::parameters::Parameters;
use crate::pattern::{ActivationPattern, LayerView};
use crate::product::mix_rows;
use crate::scalar::Scalar;
use crate::trace::{Record, resize_slots};

/// `R` rows per sample at every node of a network; `[samples, R, width]` for each slot.
#[derive(Clone, Debug, Default)]
pub struct Rows<T> {
    pub(crate) samples: usize,
    pub(crate) rows: usize,
    pub(crate) slots: Vec<Vec<T>>,
}

/// Where cotangents start: entries of a node's rows, `[samples, R, width]`, by their place.
#[derive(Clone, Debug, Default)]
pub(crate) struct Source<T> {
    pub(crate) node: usize,
    pub(crate) entries: Vec<(usize, T)>,
}

impl<T: Scalar> Source<T> {
    /// Those of the same node as one.
    pub(crate) fn together(sources: Vec<Source<T>>) -> Vec<Source<T>> {
        let mut joined: Vec<Source<T>> = Vec::new();
        for source in sources {
            match joined.iter_mut().find(|other| other.node == source.node) {
                Some(other) => other.entries.extend(source.entries),
                None => joined.push(source),
            }
        }
        joined
    }
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

    /// All nodes of the network.
    pub(crate) fn nodes(&self) -> Range<usize> {
        0..self.network.nodes.len()
    }

    fn layer(&self, layer: usize) -> LayerView<'a> {
        self.pattern.view(layer, &self.samples)
    }
}

impl<T: Scalar> Rows<T> {
    /// Makes room at every node, at the input only if wanted.
    fn resize(&mut self, network: &Network<T>, samples: usize, rows: usize, input: bool) {
        (self.samples, self.rows) = (samples, rows);
        resize_slots(&mut self.slots, network, samples * rows, input);
    }

    /// Multiply-adds of a sweep, if each parameter is one for each row.
    fn operations(&self, network: &Network<T>) -> usize {
        self.samples * self.rows * network.parameters().len()
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
        self.resize(network, gated.samples.len(), seeds.rows(), to_input);
        let last = network.nodes.len() - 1;
        let known = match seeds {
            Seeds::Shared(seeds) => self.shared_seeds(network, seeds, to_input),
            Seeds::PerSample(seeds) => {
                let seeds = seeds.as_standard_layout();
                let seeds = seeds.as_slice().expect("standard layout");
                self.slots[network.output().slot].copy_from_slice(seeds);
                false
            }
        };
        on_pool(self.operations(network), || {
            for (i, node) in network.nodes.iter().enumerate().rev() {
                if !(known && i == last) {
                    self.node_backward(gated, node, to_input);
                }
            }
        });
    }

    /// Writes shared seeds at the output. If that is a dense layer, their product with its weight is the same
    /// for every sample, so it is formed once; the result tells whether that was done.
    fn shared_seeds(&mut self, network: &Network<T>, seeds: ArrayView2<T>, to_input: bool) -> bool {
        let output = network.output();
        let seeds = Buffer::of(seeds.iter().copied());
        repeat(&seeds, &mut self.slots[output.slot]);
        let Map::Dense(dense) = &output.map else {
            return false;
        };
        if dense.outputs != output.width {
            return false;
        }
        let input = &network.nodes[output.inputs[0]];
        if to_input || input.depends_on_parameters {
            let mut product = Buffer::uncleared(self.rows * dense.inputs);
            let parameters = network.parameters().values();
            let given = Given {
                parameters,
                rows: self.rows,
            };
            dense.transpose(given, 0, &seeds, false, &mut product);
            repeat(&product, &mut self.slots[input.slot]);
        }
        true
    }

    /// Carries cotangents backward that start at several nodes, down to the input only if `to_input`.
    pub(crate) fn backward_from(
        &mut self,
        gated: &Gated<T>,
        rows: usize,
        sources: &[Source<T>],
        to_input: bool,
    ) {
        let network = gated.network;
        self.resize(network, gated.samples.len(), rows, to_input);
        self.clear(to_input);
        let last = sources.iter().map(|source| source.node).max();
        for i in (0..=last.unwrap_or(0)).rev() {
            let node = &network.nodes[i];
            for source in sources.iter().filter(|source| source.node == i) {
                let slot = &mut self.slots[node.slot];
                source.entries.iter().for_each(|&(at, c)| slot[at] += c);
            }
            self.node_backward(gated, node, to_input);
        }
    }

    /// Carries the derivatives of every value of one node back to the input: `[samples, width, D]` arrive there.
    ///
    /// Those of a dense layer begin with its weight, which is the same for every sample.
    pub(crate) fn backward_units(&mut self, gated: &Gated<T>, node: usize) {
        let (network, samples) = (gated.network, gated.samples.len());
        let (at, width) = (&network.nodes[node], network.nodes[node].width);
        let Some(dense) = at.map.dense().filter(|dense| dense.outputs == width) else {
            let one = |i: usize| (i * width + i % width, T::ONE);
            let entries = (0..samples * width).map(one).collect();
            return self.backward_from(gated, width, &[Source { node, entries }], true);
        };
        self.resize(network, samples, width, true);
        self.clear(true);
        let weight = dense.weight..dense.weight + width * dense.inputs;
        let below = &mut self.slots[network.nodes[at.inputs[0]].slot];
        repeat(&network.parameters().values()[weight], below);
        for below in network.nodes[..node].iter().rev() {
            self.node_backward(gated, below, true);
        }
    }

    /// Sets all rows to 0, those at the input only if `input`.
    fn clear(&mut self, input: bool) {
        let skipped = usize::from(!input);
        for slot in &mut self.slots[skipped..] {
            slot.fill(T::ZERO);
        }
    }

    fn node_backward(&mut self, gated: &Gated<T>, node: &Node, to_input: bool) {
        let (network, rows) = (gated.network, self.rows);
        let parameters = network.parameters().values();
        if node.in_place(&network.nodes) {
            if let Some(gate) = node.map.gate() {
                let out = &mut self.slots[node.slot];
                gate.tangent(parameters, &gated.layer(gate.layer), rows, None, out);
            }
            return;
        }
        let out = std::mem::take(&mut self.slots[node.slot]);
        let branches = node.inputs.iter().zip(&node.accumulate);
        for (branch, (&input, &accumulate)) in branches.enumerate() {
            let input = &network.nodes[input];
            if !to_input && !input.depends_on_parameters {
                continue;
            }
            let mut below = std::mem::take(&mut self.slots[input.slot]);
            if let Some(map) = node.map.affine() {
                map.transpose(
                    Given { parameters, rows },
                    branch,
                    &out,
                    accumulate,
                    &mut below,
                );
            } else if let Some(gate) = node.map.gate() {
                let layer = gated.layer(gate.layer);
                gate.cotangent(parameters, &layer, rows, &out, accumulate, &mut below);
            }
            self.slots[input.slot] = below;
        }
        self.slots[node.slot] = out;
    }

    /// Carries tangents from the input forward; `input: [samples, R, D]` is copied.
    pub(crate) fn forward(&mut self, gated: &Gated<T>, rows: usize, input: &[T]) {
        self.resize(gated.network, gated.samples.len(), rows, true);
        self.slots[0].copy_from_slice(input);
        self.carry(gated, gated.nodes().end);
    }

    /// Like [`forward`](Self::forward) from the rows that `from` has at the input, which it gives away, through the nodes
    /// before `end`.
    pub(crate) fn forward_from(&mut self, gated: &Gated<T>, from: &mut Rows<T>, end: usize) {
        self.resize(gated.network, gated.samples.len(), from.rows, true);
        std::mem::swap(&mut self.slots[0], &mut from.slots[0]);
        self.carry(gated, end);
    }

    /// Carries tangents forward from those of the first of some nodes, a dense layer that reads the input and through which
    /// all paths go, through the others; `tangents` writes them, `[samples, R, width]`.
    pub(crate) fn forward_behind(
        &mut self,
        gated: &Gated<T>,
        nodes: Range<usize>,
        rows: usize,
        tangents: impl FnOnce(&mut [T]),
    ) {
        let network = gated.network;
        self.resize(network, gated.samples.len(), rows, false);
        tangents(&mut self.slots[network.nodes[nodes.start].slot]);
        for node in network.nodes[nodes].iter().skip(1) {
            self.node_forward(gated, node);
        }
    }

    /// Like [`forward`](Self::forward); `visit` is shown what arrives at each layer of gates, `[samples, R, width]`.
    pub(crate) fn forward_seen(
        &mut self,
        gated: &Gated<T>,
        rows: usize,
        input: &[T],
        mut visit: impl FnMut(usize, &[T]),
    ) {
        self.resize(gated.network, gated.samples.len(), rows, true);
        self.slots[0].copy_from_slice(input);
        for node in &gated.network.nodes {
            self.show(gated.network, node, &mut visit);
            self.node_forward(gated, node);
        }
    }

    /// Carries `value` at one unit of the node `from`, of one sample, forward through all nodes that read it; `visit`
    /// is shown what arrives at each layer of gates that it reaches.
    pub(crate) fn forward_unit(
        &mut self,
        gated: &Gated<T>,
        (from, unit): (usize, usize),
        value: T,
        mut visit: impl FnMut(usize, &[T]),
    ) {
        let network = gated.network;
        self.resize(network, 1, 1, true);
        self.clear(true);
        self.slots[network.nodes[from].slot][unit] = value;
        let mut reached = vec![false; network.nodes.len()];
        reached[from] = true;
        for (i, node) in network.nodes.iter().enumerate().skip(from + 1) {
            if !node.inputs.iter().any(|&input| reached[input]) {
                continue;
            }
            reached[i] = true;
            self.show(network, node, &mut visit);
            self.node_forward(gated, node);
        }
    }

    /// Shows what arrives at a node if it is a layer of gates.
    fn show(&self, network: &Network<T>, node: &Node, visit: &mut impl FnMut(usize, &[T])) {
        if let Some(gate) = node.map.gate() {
            let arrives = &network.nodes[node.inputs[0]];
            visit(gate.layer, &self.slots[arrives.slot]);
        }
    }

    fn carry(&mut self, gated: &Gated<T>, end: usize) {
        on_pool(self.operations(gated.network), || {
            for node in &gated.network.nodes[..end] {
                self.node_forward(gated, node);
            }
        });
    }

    fn node_forward(&mut self, gated: &Gated<T>, node: &Node) {
        let nodes = &gated.network.nodes;
        let parameters = gated.network.parameters().values();
        let in_place = node.in_place(nodes);
        let mut out = std::mem::take(&mut self.slots[node.slot]);
        let below = |input: usize| &self.slots[nodes[input].slot][..];
        if let Some(gate) = node.map.gate() {
            let input = (!in_place).then(|| below(node.inputs[0]));
            let layer = gated.layer(gate.layer);
            gate.tangent(parameters, &layer, self.rows, input, &mut out);
        } else if let Some(map) = node.map.affine::<T>()
            && !in_place
        {
            let given = Given {
                parameters,
                rows: self.rows,
            };
            // Nearly all have one input, for which nothing need be allocated.
            if let [input] = node.inputs[..] {
                map.apply(given, &[below(input)], false, &mut out);
            } else {
                let inputs: Vec<&[T]> = node.inputs.iter().map(|&input| below(input)).collect();
                map.apply(given, &inputs, false, &mut out);
            }
        }
        self.slots[node.slot] = out;
    }

    /// Replaces the rows `c` of each sample by `M c`, with one `R×R` matrix per sample, at those of some nodes that
    /// have parameters. `matrices: [samples, R, R]`.
    pub(crate) fn mix(&mut self, nodes: &[Node], matrices: &[T]) {
        for node in nodes.iter().filter(|node| node.map.has_parameters()) {
            self.mix_slot((node.slot, node.width), matrices);
        }
    }

    /// The same in one buffer of some width.
    pub(crate) fn mix_slot(&mut self, (slot, width): (usize, usize), matrices: &[T]) {
        let rows = self.rows;
        let slot = &mut self.slots[slot];
        let operations = slot.len() * rows;
        for_each_chunk(slot, rows * width, operations, |sample, c| {
            let matrix = &matrices[sample * rows * rows..(sample + 1) * rows * rows];
            if let Some(factor) = multiple_of_identity(matrix, rows) {
                return c.iter_mut().for_each(|c| *c *= factor);
            }
            mix_rows(rows, width, matrix, c);
        });
    }
}

/// `m` if the matrix is `m I`.
pub(crate) fn multiple_of_identity<T: Scalar>(matrix: &[T], rows: usize) -> Option<T> {
    let m = matrix[0];
    let is_multiple = |(i, row): (usize, &[T])| {
        let expected = |j: usize| if i == j { m } else { T::ZERO };
        let mut entries = row.iter().enumerate();
        entries.all(|(j, &entry)| entry == expected(j))
    };
    let mut matrix_rows = matrix.chunks_exact(rows).enumerate();
    matrix_rows.all(is_multiple).then_some(m)
}

/// Adds a share of `∂⟨A, V J⟩/∂θ` to the gradient, with cotangents of seeds `V` and tangents of `A` (or, with offsets,
/// activations instead of tangents and the derivative of `⟨V, f⟩`, which biases have a part in), of the parameters of some
/// nodes.
pub(crate) fn weight_gradient<T: Scalar>(
    gated: &Gated<T>,
    cotangents: &Rows<T>,
    tangents: &[Vec<T>],
    share: Share<T>,
    nodes: Range<usize>,
    gradient: &mut Parameters<T>,
) {
    let parameters = gated.network.parameters().values();
    let gradient = gradient.values_mut();
    let nodes = gated.network.nodes[nodes].iter();
    for node in nodes.filter(|node| node.map.has_parameters()) {
        let c = &cotangents.slots[node.slot];
        let t = &tangents[gated.network.nodes[node.inputs[0]].slot];
        if let Some(map) = node.map.affine() {
            let rows = cotangents.rows;
            map.gradient(Given { parameters, rows }, c, t, share, gradient);
        } else if let Some(gate) = node.map.gate()
            && let GateKind::Slope(slopes) = &gate.kind
        {
            let layer = gated.layer(gate.layer);
            slopes.slope_gradient(&layer, cotangents.rows, (c, t), share.scale, gradient);
        }
    }
}

/// Fills `to` with copies of `block`.
fn repeat<T: Scalar>(block: &[T], to: &mut [T]) {
    let operations = to.len();
    for_each_chunk(to, block.len(), operations, |_, copy| {
        copy.copy_from_slice(block);
    });
}
