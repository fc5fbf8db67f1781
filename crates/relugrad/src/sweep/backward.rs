//! Cotangents: rows that are carried from the logits, or from any nodes, back to the input.

use std::collections::HashMap;
use std::ops::Range;

use super::Seeds;
use super::rows::{LinearizedBatch, RowBatch, repeat};
use crate::buffer::Buffer;
use crate::network::map::{AffineMap, Dense, SweepContext};
use crate::network::{Network, Node};
use crate::parallel::on_pool;
use crate::pattern::LayerView;
use crate::product::{MaskedLhs, pays_to_mask};
use crate::scalar::Scalar;

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
        let mut places = HashMap::new();
        for source in sources {
            let place = *places.entry(source.node).or_insert(joined.len());
            match joined.get_mut(place) {
                Some(other) => other.entries.extend(source.entries),
                None => joined.push(source),
            }
        }
        joined
    }
}

/// A slot and the rows of each sample in it, `[R, width]`, where they are the same for all samples
/// and not written there.
type Shared<T> = Option<(usize, Buffer<T>)>;

impl<T: Scalar> RowBatch<T> {
    /// Carries cotangents from the logits backward, as far as the nodes whose rows are `wanted`.
    /// Others may hold anything.
    pub(crate) fn backward(
        &mut self,
        linearized: &LinearizedBatch<T>,
        seeds: Seeds<T>,
        wanted: Range<usize>,
    ) {
        let network = linearized.network;
        self.begin((linearized.samples.len(), seeds.rows()), wanted);
        let (rest, shared) = match seeds {
            Seeds::Shared(seeds) => {
                let seeds = Buffer::of(seeds.iter().copied());
                self.shared_seeds(
                    linearized,
                    |to| repeat(&seeds, to),
                    |dense, parameters, to| {
                        let at = SweepContext::new(parameters, seeds.len() / dense.outputs);
                        dense.transpose(at, 0, &seeds, false, to);
                    },
                )
            }
            Seeds::Unit { first, count } => {
                let k = network.outputs();
                let write = |to: &mut [T]| {
                    to.fill(T::ZERO);
                    for units in to.chunks_exact_mut(count * k) {
                        let entries = units[first..].iter_mut().step_by(k + 1);
                        entries.take(count).for_each(|entry| *entry = T::ONE);
                    }
                };
                self.shared_seeds(linearized, write, |dense, parameters, to| {
                    to.copy_from_slice(
                        &parameters[dense.weight + first * dense.inputs..][..to.len()],
                    );
                })
            }
            Seeds::PerSample(seeds) => {
                self.make_room_backward(network, None);
                let seeds = seeds.as_standard_layout();
                let seeds = seeds.as_slice().expect("standard layout");
                self.buffers[network.output().slot].copy_from_slice(seeds);
                (linearized.nodes(), None)
            }
        };
        on_pool(self.operations(network), || {
            let nodes = rest.rev();
            nodes.for_each(|node| self.node_backward(linearized, node, &shared));
        });
    }

    /// Writes shared seeds at the output, for every sample, as `write` does. If that is a dense
    /// layer, their product with its weight, which `times` writes, is the same for every sample, so
    /// it is formed once, and written for every sample only where it is wanted or gates have to
    /// close it at once. Returns through which nodes cotangents are still to be carried, and what
    /// is not written.
    fn shared_seeds(
        &mut self,
        linearized: &LinearizedBatch<T>,
        write: impl FnOnce(&mut [T]),
        times: impl FnOnce(&Dense, &[T], &mut [T]),
    ) -> (Range<usize>, Shared<T>) {
        let (network, nodes) = (linearized.network, linearized.nodes());
        let output = network.output();
        let unwritten = self.unwritten(linearized);
        self.make_room_backward(network, unwritten);
        write(&mut self.buffers[output.slot]);
        let Some(dense) = whole_dense(output) else {
            return (nodes, None);
        };
        let (rest, input) = (0..nodes.end - 1, &network.nodes[output.inputs[0]]);
        if !self.is_carried_to(input) {
            return (rest, None);
        }
        let mut product = Buffer::uncleared(self.rows * dense.inputs);
        times(dense, network.parameters().values(), &mut product);
        if let Some(slot) = unwritten {
            return (rest, Some((slot, product)));
        }
        repeat(&product, &mut self.buffers[input.slot]);
        (rest, None)
    }

    /// The slot in front of a dense output where cotangents of shared seeds need not be written for
    /// every sample.
    fn unwritten(&self, linearized: &LinearizedBatch<T>) -> Option<usize> {
        let (network, output) = (linearized.network, linearized.network.output());
        whole_dense(output)?;
        let input = &network.nodes[output.inputs[0]];
        let first = network
            .nodes
            .iter()
            .position(|node| node.slot == input.slot)?;
        let is_closed_later = self.closing_later(linearized, first).is_some();
        (is_closed_later && self.is_carried_to(input)).then_some(input.slot)
    }

    /// Makes room at every node, at the input only if that is wanted, and not in a slot that stays
    /// `unwritten`.
    fn make_room_backward(&mut self, network: &Network<T>, unwritten: Option<usize>) {
        let input = network.nodes[0].slot;
        // Of a network without layers the input is also where seeds are put.
        let not_wanted = (self.wanted.start > 0 && network.output().slot != input).then_some(input);
        self.make_room(network, |slot| {
            Some(slot) != not_wanted && Some(slot) != unwritten
        });
    }

    /// Whether cotangents are wanted at a node, or at one that it depends on.
    fn is_carried_to(&self, node: &Node) -> bool {
        self.wanted.start == 0 || node.depends_on_parameters
    }

    /// The gates behind a dense layer whose rows are not wanted, if its product with them lists the
    /// columns that are open, so that the others need not be closed.
    fn closing_later<'a>(
        &self,
        linearized: &LinearizedBatch<'a, T>,
        node: usize,
    ) -> Option<LayerView<'a>> {
        let (nodes, at) = (&linearized.network.nodes, &linearized.network.nodes[node]);
        if !self.through_gates || node < self.wanted.end || whole_dense(at).is_none() {
            return None;
        }
        let in_slot = nodes[node..].iter().filter(|other| other.slot == at.slot);
        let layers = in_slot.filter(|other| other.map.gate().is_some()).count();
        let gates = linearized.closing(at.slot).filter(|_| layers == 1)?;
        pays_to_mask(self.rows, gates.active_share()).then_some(gates)
    }

    /// Carries cotangents backward that start at several nodes, down to the input only if
    /// `to_input`.
    pub(crate) fn backward_from(
        &mut self,
        linearized: &LinearizedBatch<T>,
        rows: usize,
        sources: &[Source<T>],
        to_input: bool,
    ) {
        let network = linearized.network;
        let wanted = usize::from(!to_input)..network.nodes.len();
        self.begin((linearized.samples.len(), rows), wanted);
        self.make_room_backward(network, None);
        self.clear();
        let last = sources.iter().map(|source| source.node).max();
        for i in (0..=last.unwrap_or(0)).rev() {
            for source in sources.iter().filter(|source| source.node == i) {
                let slot = &mut self.buffers[network.nodes[i].slot];
                source.entries.iter().for_each(|&(at, c)| slot[at] += c);
            }
            self.node_backward(linearized, i, &None);
        }
    }

    /// Carries the derivatives of every value of one node back to the input: `[samples, width, D]`
    /// arrive there.
    ///
    /// Those of a dense layer begin with its weight, which is the same for every sample.
    pub(crate) fn backward_units(&mut self, linearized: &LinearizedBatch<T>, node: usize) {
        let (network, samples) = (linearized.network, linearized.samples.len());
        let (at, width) = (&network.nodes[node], network.nodes[node].width);
        let Some(dense) = at.map.dense().filter(|dense| dense.outputs == width) else {
            let one = |i: usize| (i * width + i % width, T::ONE);
            let entries = (0..samples * width).map(one).collect();
            return self.backward_from(linearized, width, &[Source { node, entries }], true);
        };
        self.begin((samples, width), linearized.nodes());
        self.make_room_backward(network, None);
        self.clear();
        let weight = dense.weight..dense.weight + width * dense.inputs;
        let below = &mut self.buffers[network.nodes[at.inputs[0]].slot];
        repeat(&network.parameters().values()[weight], below);
        (0..node)
            .rev()
            .for_each(|below| self.node_backward(linearized, below, &None));
    }

    /// Sets all rows to 0, so that rows may start at any node, in front of its gates.
    pub(super) fn clear(&mut self) {
        self.through_gates = false;
        let skipped = usize::from(self.wanted.start > 0);
        for slot in &mut self.buffers[skipped..] {
            slot.fill(T::ZERO);
        }
    }

    fn node_backward(&mut self, linearized: &LinearizedBatch<T>, i: usize, shared: &Shared<T>) {
        let (network, rows) = (linearized.network, self.rows);
        let (node, parameters) = (&network.nodes[i], network.parameters().values());
        if node.in_place(&network.nodes) {
            if let Some(gate) = node.map.gate()
                && self.closing_later(linearized, node.inputs[0]).is_none()
            {
                let out = &mut self.buffers[node.slot];
                gate.tangent(parameters, &linearized.layer(gate.layer), rows, None, out);
            }
            return;
        }
        let out = std::mem::take(&mut self.buffers[node.slot]);
        let branches = node.inputs.iter().zip(&node.accumulate);
        for (branch, (&input, &accumulate)) in branches.enumerate() {
            let input = &network.nodes[input];
            if !self.is_carried_to(input) {
                continue;
            }
            let mut below = std::mem::take(&mut self.buffers[input.slot]);
            if let Some(dense) = node.map.dense()
                && let Some(gates) = self.closing_later(linearized, i)
            {
                let shared = shared.as_ref().filter(|(slot, _)| *slot == node.slot);
                let c = shared.map_or(&out[..], |(_, rows)| rows);
                let c = MaskedLhs::before(gates, c, rows);
                dense.transpose_of(c, parameters, accumulate, &mut below);
            } else if let Some(map) = node.map.affine() {
                let at = SweepContext::new(parameters, rows)
                    .masked_by(self.closed_by(linearized, node.slot));
                map.transpose(at, branch, &out, accumulate, &mut below);
            } else if let Some(gate) = node.map.gate() {
                let layer = linearized.layer(gate.layer);
                gate.cotangent(parameters, &layer, rows, &out, accumulate, &mut below);
            }
            self.buffers[input.slot] = below;
        }
        self.buffers[node.slot] = out;
    }
}

/// The map of a node that is a dense layer of all its inputs.
fn whole_dense(node: &Node) -> Option<&Dense> {
    let dense = node.map.dense();
    dense.filter(|dense| dense.outputs == node.width)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Builder, Gate, Mlp, Network};
    use ndarray::Array2;

    /// Dense layers with gates of several kinds, two of them in one buffer, and a sum of branches.
    fn branched() -> Network<f64> {
        let weight = |n: usize, m: usize| {
            Array2::from_shape_fn((n, m), |(i, j)| ((i * 5 + j * 3 + n) as f64).sin())
        };
        let mut builder = Builder::new();
        let x = builder.input(6).unwrap();
        let first = builder.dense(x, weight(70, 6), None).unwrap();
        let first = builder.relu(first).unwrap();
        let clip = Gate::Clip { min: 0.0, max: 1.5 };
        let first = builder.gate(first, clip).unwrap();
        let second = builder.dense(first, weight(70, 70), None).unwrap();
        let second = builder.gate(second, clip).unwrap();
        let sum = builder.sum(&[first, second]).unwrap();
        let third = builder.dense(sum, weight(65, 70), None).unwrap();
        let third = builder.relu(third).unwrap();
        let third = builder.flatten(third).unwrap();
        let logits = builder.dense(third, weight(5, 65), None).unwrap();
        builder.build(logits).unwrap()
    }

    #[test]
    fn rows_that_nobody_reads_change_nothing() {
        let mlp = |gate| Mlp::new(&[6, 70, 65, 5]).gate(gate).build(1).unwrap();
        let clip = Gate::Clip {
            min: -1.0,
            max: 1.0,
        };
        let gates = [Gate::Relu, clip, Gate::Abs, Gate::LeakyRelu { slope: 0.1 }];
        let mut networks: Vec<Network<f64>> = gates.map(mlp).into();
        networks.push(branched());
        for network in networks {
            let inputs = Array2::from_shape_fn((9, 6), |(i, j)| ((i * 6 + j) as f64).sin());
            let trace = network.trace(inputs.view()).unwrap();
            let linearized = trace.part(trace.all());
            let seeds = Array2::from_shape_fn((5, 5), |(i, j)| ((i * 5 + j) as f64).cos());
            let (mut all, mut some) = (RowBatch::default(), RowBatch::default());
            all.backward(&linearized, Seeds::Shared(seeds.view()), linearized.nodes());
            for end in 1..=linearized.nodes().end {
                some.backward(&linearized, Seeds::Shared(seeds.view()), 0..end);
                for node in &network.nodes[..end] {
                    let (all, some) = (&all.buffers[node.slot], &some.buffers[node.slot]);
                    assert_eq!(all, some, "{} of {end} nodes", node.name);
                }
            }
        }
    }
}
