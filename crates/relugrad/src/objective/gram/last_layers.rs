//! The Gram stage without tangents and cotangents behind the last hidden layer.
//!
//! Where a network ends in `U ReLU(W h + b) + a`, the cotangents at its last hidden layer are
//! `V U D` with the gates `D` of a sample, zeros and ones: the same rows for all samples but for
//! what the gates close. With the tangents `t_r` that arrive at `W`, mixed by `Ḡ`, and the sums
//! `S_r = Σ D t_r` over samples, one matrix for each row `r`, both layers' parts of the gradient
//! are contractions of the same sums, `Σ_r (V U)_r S_r` and `Vᵀ ⟨W, S_r⟩` ([theory](crate::theory),
//! T12). So no tangents are carried through `W`, and zeros and ones make the sums cheap
//! ([`SelectedSums`]). The Gram matrix needs no tangents at the logits either: it is the product of
//! cotangents and tangents at any place that all paths pass.

use ndarray::ArrayView2;

use crate::buffer::Buffer;
use crate::gram::{active_share, products_of_rows, sparse_cost};
use crate::network::Network;
use crate::network::map::{Dense, GateKind, Map};
use crate::product::{
    SelectedSums, a_b_serial, at_b, contract, four_russians_cost, four_russians_tables,
};
use crate::scalar::Scalar;
use crate::sweep::{LinearizedBatch, RowBatch};

/// The two dense layers in which a network ends, with gates between them that open or close.
#[derive(Clone, Copy, Debug)]
pub(in crate::objective) struct LastLayers<'n, T> {
    /// The node of the first of them; nothing but the gates and the second follows.
    pub(super) node: usize,
    /// The buffer of the values that it reads.
    slot: usize,
    /// The layer of the pattern that holds the gates.
    gates: usize,
    inner: &'n Dense,
    outer: &'n Dense,
    parameters: &'n [T],
}

impl<'n, T: Scalar> LastLayers<'n, T> {
    /// The layers, if the network ends in such.
    pub(super) fn of(network: &'n Network<T>) -> Option<LastLayers<'n, T>> {
        let nodes = &network.nodes;
        let node = nodes.len().checked_sub(3).filter(|&node| node > 0)?;
        let dense = |i: usize| {
            nodes[i]
                .map
                .dense()
                .filter(|map| map.outputs == nodes[i].width)
        };
        let (inner, gate, outer) = (dense(node)?, nodes[node + 1].map.gate()?, dense(node + 2)?);
        let GateKind::Slope(gates) = &gate.kind else {
            return None;
        };
        let chain =
            nodes[node + 1].inputs[..] == [node] && nodes[node + 2].inputs[..] == [node + 1];
        // Gates in place apply to cotangents and to tangents; those that open or close may do so
        // twice.
        let slot = nodes[nodes[node].inputs[0]].slot;
        let mut in_front = nodes[..node].iter().filter(|node| node.slot == slot);
        let bends = |map: &Map| match map.gate().map(|gate| &gate.kind) {
            Some(GateKind::Slope(gates)) => !gates.inactive_is_constant(),
            _ => false,
        };
        let fits = chain && gates.inactive_is_constant() && !in_front.any(|node| bends(&node.map));
        fits.then(|| LastLayers {
            node,
            slot,
            gates: gate.layer,
            inner,
            outer,
            parameters: network.parameters().values(),
        })
    }

    fn weight(&self, dense: &Dense) -> &'n [T] {
        &self.parameters[dense.weight..dense.weight + dense.inputs * dense.outputs]
    }

    /// Multiply-adds of a step with `rows` rows for each sample: of this order, and of tangents and
    /// two weight gradients.
    pub(super) fn costs(&self, linearized: &LinearizedBatch<T>, rows: usize) -> (f64, f64) {
        let samples = linearized.samples.len();
        let (m, k) = (self.inner.outputs as f64, self.inner.inputs as f64);
        let (all, rows) = ((samples * rows) as f64, rows as f64);
        let here = rows * k * four_russians_cost(samples, self.inner.outputs) + all * rows * k;
        let gates = linearized.pattern.view(self.gates, &linearized.samples);
        let (before, behind) = (active_share(linearized, self.slot), gates.active_share());
        let there = all * m * k * (sparse_cost(before) + sparse_cost(behind));
        (here, there)
    }

    /// Multiply-adds of a step in this order, each selected sum as one.
    pub(in crate::objective) fn multiply_adds(&self, samples: usize, rows: usize) -> u64 {
        let (m, k) = (self.inner.outputs as u64, self.inner.inputs as u64);
        let tables = four_russians_tables(samples) as u64;
        let (samples, rows) = (samples as u64, rows as u64);
        rows * m * k * (tables + 2) + samples * rows * rows * k
    }

    /// Writes the Gram matrices of the cotangents' rows; `grams: [samples, R, R]`.
    pub(super) fn grams(&self, c: &RowBatch<T>, t: &RowBatch<T>, grams: &mut [T]) {
        // At the input cotangents have become tangents.
        let c_rows = if self.slot == 0 {
            &t.buffers[0]
        } else {
            &c.buffers[self.slot]
        };
        let t_rows = &t.buffers[self.slot];
        products_of_rows((t.rows, self.inner.inputs), c_rows, t_rows, grams);
    }

    /// Replaces the tangents that arrive by what one `R×R` matrix for each sample makes of their
    /// rows.
    pub(super) fn mix(&self, t: &mut RowBatch<T>, matrices: &[T]) {
        t.mix_buffer(self.slot, self.inner.inputs, matrices);
    }

    /// Adds both layers' parts of the gradient, times `scale`, from tangents that are mixed;
    /// `seeds: [R, K]`; `selected` is memory that is used again.
    pub(super) fn add_gradient(
        &self,
        linearized: &LinearizedBatch<T>,
        seeds: ArrayView2<T>,
        t: &RowBatch<T>,
        scale: T,
        selected: &mut Vec<u64>,
        gradient: &mut [T],
    ) {
        let (r, outputs) = seeds.dim();
        let (m, k) = (self.inner.outputs, self.inner.inputs);
        let seeds = seeds.to_slice().expect("seeds are contiguous");
        let mut outer = Buffer::zeros(r * m);
        a_b_serial(
            (r, outputs, m),
            seeds,
            self.weight(self.outer),
            false,
            &mut outer,
        );
        outer.iter_mut().for_each(|entry| *entry *= scale);
        linearized
            .pattern
            .view(self.gates, &linearized.samples)
            .samples_of_units(selected);
        let sums = SelectedSums {
            shape: (r, m, k),
            selected,
            rows: &t.buffers[self.slot],
            outer: &outer,
            inner: self.weight(self.inner),
        };
        let mut outer_sums = Buffer::uncleared(r * m);
        let inner = &mut gradient[self.inner.weight..][..m * k];
        contract(sums, inner, &mut outer_sums);
        let outer = &mut gradient[self.outer.weight..][..outputs * m];
        at_b((outputs, m), scale, seeds, &outer_sums, true, outer);
    }
}
