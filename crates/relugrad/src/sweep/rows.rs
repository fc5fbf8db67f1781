//! Rows at every node of a network, and the three ways in which they are carried and joined.

use std::ops::Range;

use crate::network::map::{Accumulate, GateKind, SweepContext};
use crate::network::{Network, Node};
use crate::parallel::{for_each_chunk, on_pool};
use crate::parameters::Parameters;
use crate::pattern::{ActivationPattern, LayerView};
use crate::product::mix_rows;
use crate::scalar::Scalar;
use crate::trace::{ForwardState, resize_buffers};

/// `R` rows per sample at every node of a network; `[samples, R, width]` for each slot.
#[derive(Clone, Debug, Default)]
pub(crate) struct RowBatch<T> {
    pub(crate) samples: usize,
    pub(crate) rows: usize,
    pub(crate) buffers: Vec<Vec<T>>,
    /// The nodes whose rows are complete; others hold anything, or nothing.
    pub(super) wanted: Range<usize>,
    /// Whether all rows have come through gates, where gates share their slot.
    pub(super) through_gates: bool,
}

/// The pattern of some samples of a batch: which linear network each of them sees.
#[derive(Clone)]
pub(crate) struct LinearizedBatch<'a, T> {
    pub(crate) network: &'a Network<T>,
    pub(crate) pattern: &'a ActivationPattern,
    pub(crate) samples: Range<usize>,
}

impl<'a, T: Scalar> LinearizedBatch<'a, T> {
    /// Some samples of a pattern.
    pub(crate) fn new(
        network: &'a Network<T>,
        pattern: &'a ActivationPattern,
        samples: Range<usize>,
    ) -> LinearizedBatch<'a, T> {
        LinearizedBatch {
            network,
            pattern,
            samples,
        }
    }

    /// All samples of a batch.
    pub(crate) fn all(
        network: &'a Network<T>,
        state: &'a ForwardState<T>,
    ) -> LinearizedBatch<'a, T> {
        LinearizedBatch::new(network, &state.pattern, 0..state.samples)
    }

    /// All nodes of the network.
    pub(crate) fn nodes(&self) -> Range<usize> {
        0..self.network.nodes.len()
    }

    /// All nodes but the input.
    pub(crate) fn behind_input(&self) -> Range<usize> {
        1..self.network.nodes.len()
    }

    /// [`weight_gradient`] of the parameters of all nodes.
    pub(crate) fn weight_gradient(
        &self,
        cotangents: &RowBatch<T>,
        tangents: &[Vec<T>],
        how: Accumulate<T>,
        gradient: &mut Parameters<T>,
    ) {
        weight_gradient(self, cotangents, tangents, how, self.nodes(), gradient);
    }

    pub(super) fn layer(&self, layer: usize) -> LayerView<'a> {
        self.pattern.view(layer, &self.samples)
    }

    /// Gates that work in a slot and through which no derivative of an inactive unit passes, if
    /// there are any. Values are another matter: a clipped unit has that of its bound.
    pub(crate) fn closing(&self, slot: usize) -> Option<LayerView<'a>> {
        let nodes = self.network.nodes.iter().filter(|node| node.slot == slot);
        let mut gates = nodes.filter_map(|node| node.map.gate());
        let closing = gates.find(|gates| match &gates.kind {
            GateKind::Slope(slope) => slope.inactive_is_constant(),
            GateKind::Max(_) => false,
        });
        closing.map(|gates| self.layer(gates.layer))
    }
}

impl<T: Scalar> RowBatch<T> {
    /// Begins a sweep of so many `(samples, rows)`.
    pub(super) fn begin(&mut self, size: (usize, usize), wanted: Range<usize>) {
        (self.samples, self.rows, self.through_gates) = (size.0, size.1, true);
        self.wanted = wanted;
    }

    /// Makes room in the slots that are `used`.
    pub(super) fn make_room(&mut self, network: &Network<T>, used: impl Fn(usize) -> bool) {
        resize_buffers(&mut self.buffers, network, self.samples * self.rows, used);
    }

    /// Begins a sweep forward: only nodes whose rows are wanted have room.
    fn begin_forward(&mut self, network: &Network<T>, size: (usize, usize), wanted: Range<usize>) {
        self.begin(size, wanted.clone());
        let nodes = &network.nodes[wanted];
        self.make_room(network, |slot| nodes.iter().any(|node| node.slot == slot));
    }

    /// The gates that all rows of a slot have come through.
    pub(crate) fn closed_by<'a>(
        &self,
        linearized: &LinearizedBatch<'a, T>,
        slot: usize,
    ) -> Option<LayerView<'a>> {
        linearized.closing(slot).filter(|_| self.through_gates)
    }

    /// Whether the rows of a slot are complete.
    pub(crate) fn are_whole(&self, linearized: &LinearizedBatch<T>, slot: usize) -> bool {
        let nodes = &linearized.network.nodes[self.wanted.clone()];
        nodes.iter().any(|node| node.slot == slot)
    }

    /// Multiply-adds of a sweep, if each parameter is one for each row.
    pub(super) fn operations(&self, network: &Network<T>) -> usize {
        self.samples * self.rows * network.parameters().len()
    }

    /// The rows at the input; `[samples, R, D]`.
    pub(crate) fn at_input(&self) -> &[T] {
        &self.buffers[0]
    }

    /// The rows at the logits; `[samples, R, K]`.
    pub(crate) fn at_output(&self, network: &Network<T>) -> &[T] {
        &self.buffers[network.output().slot]
    }

    /// Carries tangents from the input forward; `input: [samples, R, D]` is copied.
    pub(crate) fn forward(&mut self, linearized: &LinearizedBatch<T>, rows: usize, input: &[T]) {
        self.begin_forward(
            linearized.network,
            (linearized.samples.len(), rows),
            linearized.nodes(),
        );
        self.buffers[0].copy_from_slice(input);
        self.carry(linearized, linearized.nodes().end);
    }

    /// Carries the unit vectors of the input forward: the columns of the Jacobian arrive at the
    /// logits, `[samples, D, K]`.
    pub(crate) fn forward_units(&mut self, linearized: &LinearizedBatch<T>) {
        let d = linearized.network.inputs();
        self.begin_forward(
            linearized.network,
            (linearized.samples.len(), d),
            linearized.nodes(),
        );
        self.buffers[0].fill(T::ZERO);
        for units in self.buffers[0].chunks_exact_mut(d * d) {
            let diagonal = units.iter_mut().step_by(d + 1);
            diagonal.for_each(|entry| *entry = T::ONE);
        }
        self.carry(linearized, linearized.nodes().end);
    }

    /// Like [`forward`](Self::forward) from the rows that `from` has at the input, which it gives
    /// away, through the nodes before `end`.
    pub(crate) fn forward_from(
        &mut self,
        linearized: &LinearizedBatch<T>,
        from: &mut RowBatch<T>,
        end: usize,
    ) {
        self.begin_forward(
            linearized.network,
            (linearized.samples.len(), from.rows),
            0..end,
        );
        std::mem::swap(&mut self.buffers[0], &mut from.buffers[0]);
        self.carry(linearized, end);
    }

    /// Carries tangents forward from those of the first of some nodes, a dense layer that reads the
    /// input and through which all paths go, through the others; `tangents` writes them,
    /// `[samples, R, width]`.
    pub(crate) fn forward_behind(
        &mut self,
        linearized: &LinearizedBatch<T>,
        nodes: Range<usize>,
        rows: usize,
        tangents: impl FnOnce(&mut [T]),
    ) {
        let network = linearized.network;
        self.begin_forward(network, (linearized.samples.len(), rows), nodes.clone());
        tangents(&mut self.buffers[network.nodes[nodes.start].slot]);
        for node in network.nodes[nodes].iter().skip(1) {
            self.node_forward(linearized, node);
        }
    }

    /// Like [`forward`](Self::forward); `visit` is shown what arrives at each layer of gates,
    /// `[samples, R, width]`.
    pub(crate) fn forward_seen(
        &mut self,
        linearized: &LinearizedBatch<T>,
        rows: usize,
        input: &[T],
        mut visit: impl FnMut(usize, &[T]),
    ) {
        self.begin_forward(
            linearized.network,
            (linearized.samples.len(), rows),
            linearized.nodes(),
        );
        self.buffers[0].copy_from_slice(input);
        for node in &linearized.network.nodes {
            self.show(linearized.network, node, &mut visit);
            self.node_forward(linearized, node);
        }
    }

    /// Carries `value` at one unit of the node `from`, of one sample, forward through all nodes
    /// that read it; `visit` is shown what arrives at each layer of gates that it reaches.
    pub(crate) fn forward_unit(
        &mut self,
        linearized: &LinearizedBatch<T>,
        (from, unit): (usize, usize),
        value: T,
        mut visit: impl FnMut(usize, &[T]),
    ) {
        let network = linearized.network;
        self.begin_forward(network, (1, 1), linearized.nodes());
        self.clear();
        self.buffers[network.nodes[from].slot][unit] = value;
        let mut reached = vec![false; network.nodes.len()];
        reached[from] = true;
        for (i, node) in network.nodes.iter().enumerate().skip(from + 1) {
            if !node.inputs.iter().any(|&input| reached[input]) {
                continue;
            }
            reached[i] = true;
            self.show(network, node, &mut visit);
            self.node_forward(linearized, node);
        }
    }

    /// Shows what arrives at a node if it is a layer of gates.
    fn show(&self, network: &Network<T>, node: &Node, visit: &mut impl FnMut(usize, &[T])) {
        if let Some(gate) = node.map.gate() {
            let arrives = &network.nodes[node.inputs[0]];
            visit(gate.layer, &self.buffers[arrives.slot]);
        }
    }

    fn carry(&mut self, linearized: &LinearizedBatch<T>, end: usize) {
        on_pool(self.operations(linearized.network), || {
            for node in &linearized.network.nodes[..end] {
                self.node_forward(linearized, node);
            }
        });
    }

    fn node_forward(&mut self, linearized: &LinearizedBatch<T>, node: &Node) {
        let nodes = &linearized.network.nodes;
        let parameters = linearized.network.parameters().values();
        let in_place = node.in_place(nodes);
        let mut out = std::mem::take(&mut self.buffers[node.slot]);
        if let Some(gate) = node.map.gate() {
            let input = (!in_place).then(|| &self.buffers[nodes[node.inputs[0]].slot][..]);
            let layer = linearized.layer(gate.layer);
            gate.tangent(parameters, &layer, self.rows, input, &mut out);
        } else {
            let gates = match node.inputs[..] {
                [input] => self.closed_by(linearized, nodes[input].slot),
                _ => None,
            };
            let at = SweepContext::new(parameters, self.rows).masked_by(gates);
            node.apply(nodes, at, &self.buffers, false, &mut out);
        }
        self.buffers[node.slot] = out;
    }

    /// Replaces the rows `c` of each sample by `M c`, with one `R×R` matrix per sample, at those of
    /// some nodes that have parameters. `matrices: [samples, R, R]`.
    pub(crate) fn mix(&mut self, nodes: &[Node], matrices: &[T]) {
        for node in nodes.iter().filter(|node| node.map.has_parameters()) {
            self.mix_buffer(node.slot, node.width, matrices);
        }
    }

    /// The same in one buffer of some width.
    pub(crate) fn mix_buffer(&mut self, slot: usize, width: usize, matrices: &[T]) {
        let rows = self.rows;
        let buffer = &mut self.buffers[slot];
        let operations = buffer.len() * rows;
        for_each_chunk(buffer, rows * width, operations, |sample, c| {
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

/// Accumulates `∂⟨A, V J⟩/∂θ` in the gradient, with cotangents of seeds `V` and tangents of `A`
/// (or, with offsets, activations instead of tangents and the derivative of `⟨V, f⟩`, which biases
/// have a part in), of the parameters of some nodes.
pub(crate) fn weight_gradient<T: Scalar>(
    linearized: &LinearizedBatch<T>,
    cotangents: &RowBatch<T>,
    tangents: &[Vec<T>],
    how: Accumulate<T>,
    nodes: Range<usize>,
    gradient: &mut Parameters<T>,
) {
    let parameters = linearized.network.parameters().values();
    let gradient = gradient.values_mut();
    let nodes = linearized.network.nodes[nodes].iter();
    for node in nodes.filter(|node| node.map.has_parameters()) {
        debug_assert!(cotangents.are_whole(linearized, node.slot), "{}", node.name);
        let c = &cotangents.buffers[node.slot];
        let t = &tangents[linearized.network.nodes[node.inputs[0]].slot];
        if let Some(map) = node.map.affine() {
            let at = SweepContext::new(parameters, cotangents.rows);
            let at = at.masked_by(cotangents.closed_by(linearized, node.slot));
            map.gradient(at, c, t, how, gradient);
        } else if let Some(gate) = node.map.gate()
            && let GateKind::Slope(slopes) = &gate.kind
        {
            let layer = linearized.layer(gate.layer);
            slopes.slope_gradient(&layer, cotangents.rows, (c, t), how.scale, gradient);
        }
    }
}

/// Fills `to` with copies of `block`.
pub(super) fn repeat<T: Scalar>(block: &[T], to: &mut [T]) {
    let operations = to.len();
    for_each_chunk(to, block.len(), operations, |_, copy| {
        copy.copy_from_slice(block);
    });
}
