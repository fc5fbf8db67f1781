//! The Gram stage without the Jacobian.
//!
//! Where all paths from the input pass through one dense layer with weight `W` (`[n, D]`),
//! `J = c W` with the cotangents `c` at that layer. With `M = W Wᵀ` the tangents of `J` at the
//! layer are `J Wᵀ = c M`, and the layer's part of the gradient, `2 Σ (Ḡ c)ᵀ J = 2 (Σ (Ḡ c)ᵀ c) W`,
//! needs one `n×n` sum over the batch. For `D` larger than `n` that is less work than three
//! products with `J` ([theory](crate::theory), T12). Values alone need `G = c M cᵀ`, for which half
//! of `M` is enough.

use super::{active_share, products_of_rows, sparse_cost};
use crate::buffer::Buffer;
use crate::network::Network;
use crate::network::map::{Dense, Map};
use crate::product::{
    MaskedLhs, Rhs, a_b, gram_of_rows, half_gram_of_rows, rows_times, symmetric_sum,
};
use crate::scalar::Scalar;
use crate::sweep::{LinearizedBatch, RowBatch};
use crate::tuning::HALF;

/// The dense layer that all paths from the input pass through.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FirstLayer<'n, T> {
    /// Which node it is.
    pub(crate) node: usize,
    /// The buffer of its values.
    pub(crate) slot: usize,
    dense: &'n Dense,
    weight: &'n [T],
}

/// Buffers for `W Wᵀ`, the sum over the batch, and the cotangents before they are mixed.
#[derive(Clone, Debug, Default)]
pub(crate) struct FirstLayerBuffers<T> {
    gram: Vec<T>,
    sum: Vec<T>,
    unmixed: Vec<T>,
}

/// The dense layer or convolution that all paths from the input pass through.
pub(crate) fn first_affine<T: Scalar>(network: &Network<T>) -> Option<usize> {
    let nodes = &network.nodes;
    let on_input = |i: usize| nodes[i].slot == nodes[0].slot;
    let node = (0..nodes.len()).find(|&i| !on_input(i))?;
    let reshaped = (1..node).all(|i| matches!(nodes[i].map, Map::Reshape(_)));
    let mut behind = nodes[node + 1..].iter().flat_map(|node| &node.inputs);
    let alone = !behind.any(|&input| on_input(input));
    let weighted = matches!(nodes[node].map, Map::Dense(_) | Map::Conv2d(_));
    (reshaped && alone && weighted).then_some(node)
}

impl<T: Scalar> FirstLayerBuffers<T> {
    /// Keeps the cotangents before they are mixed.
    pub(crate) fn keep(&mut self, c: &[T]) {
        self.unmixed.clear();
        self.unmixed.extend_from_slice(c);
    }
}

impl<'n, T: Scalar> FirstLayer<'n, T> {
    /// The layer, if the network has one.
    pub(crate) fn of(network: &'n Network<T>) -> Option<FirstLayer<'n, T>> {
        let node = first_affine(network)?;
        let Map::Dense(dense) = &network.nodes[node].map else {
            return None;
        };
        let weight = dense.weight..dense.weight + dense.inputs * dense.outputs;
        let whole = dense.outputs == network.nodes[node].width;
        whole.then(|| FirstLayer {
            node,
            slot: network.nodes[node].slot,
            dense,
            weight: &network.parameters().values()[weight],
        })
    }

    /// Multiply-adds of a step with `rows` rows for each sample: of this order, and of the one
    /// through `J`.
    pub(crate) fn costs(&self, linearized: &LinearizedBatch<T>, rows: usize) -> (f64, f64) {
        let (n, d) = (self.dense.outputs as f64, self.dense.inputs as f64);
        let rows = (linearized.samples.len() * rows) as f64;
        let active_rows = self.active_cost(linearized) * rows;
        let here = HALF * n * n * d + (1.0 + HALF) * active_rows * n * n + n * n * d;
        // The Jacobian has no zeros to be left out on its way back to the layer.
        let there = (2.0 * active_rows + rows) * n * d;
        (here, there)
    }

    /// The layer, where values of Gram matrices of `rows` rows each take less work through `W Wᵀ`.
    pub(crate) fn for_values(
        linearized: &LinearizedBatch<'n, T>,
        rows: usize,
    ) -> Option<FirstLayer<'n, T>> {
        FirstLayer::of(linearized.network).filter(|first| {
            let (n, d) = (first.dense.outputs as f64, first.dense.inputs as f64);
            let (all, rows) = ((linearized.samples.len() * rows) as f64, rows as f64);
            let active = first.active_cost(linearized);
            let here = HALF * n * n * d + all * n * (HALF * active * n + rows);
            let there = all * d * (active * n + rows);
            here < there
        })
    }

    /// What a product with its units as columns costs beside a dense one.
    fn active_cost(&self, linearized: &LinearizedBatch<T>) -> f64 {
        sparse_cost(active_share(linearized, self.slot))
    }

    /// Writes `c W Wᵀ cᵀ` of each sample from the cotangents `c` at the layer, with `half` of
    /// `W Wᵀ` from [`half_gram`](Self::half_gram); `grams: [samples, rows, rows]`.
    pub(crate) fn grams(
        &self,
        linearized: &LinearizedBatch<T>,
        cotangents: &RowBatch<T>,
        half: &[T],
        grams: &mut [T],
    ) {
        let (n, c) = (self.dense.outputs, self.left(linearized, cotangents));
        let mut product = Buffer::uncleared(c.entries().len());
        rows_times(c, n, Rhs::Lower(half), false, &mut product);
        products_of_rows((c.rows, n), &product, c.entries(), grams);
    }

    /// Rows at the layer as a factor.
    fn left<'a>(
        &self,
        linearized: &LinearizedBatch<'a, T>,
        rows: &'a RowBatch<T>,
    ) -> MaskedLhs<'a, T> {
        debug_assert!(rows.are_whole(linearized, self.slot));
        let gates = rows.closed_by(linearized, self.slot);
        MaskedLhs::of(&rows.buffers[self.slot], rows.rows, self.dense.outputs).masked_by(gates)
    }

    /// `L` with zeros above the diagonal and `L + Lᵀ = 2 W Wᵀ`; `[n, n]`.
    pub(crate) fn half_gram(&self) -> Buffer<T> {
        let mut half = Buffer::uncleared(self.dense.outputs * self.dense.outputs);
        half_gram_of_rows(self.dense.inputs, self.weight, &mut half);
        half
    }

    /// Multiply-adds of the values of Gram matrices in this order with all units active.
    pub(crate) fn value_multiply_adds(&self, samples: usize, rows: usize) -> u64 {
        let (n, d) = (self.dense.outputs as u64, self.dense.inputs as u64);
        let (all, rows) = ((samples * rows) as u64, rows as u64);
        n * n * d / 2 + all * n * n / 2 + all * rows * n
    }

    /// Multiply-adds of a step in this order with all units active.
    pub(crate) fn multiply_adds(&self, rows: usize) -> u64 {
        let (n, d, rows) = (
            self.dense.outputs as u64,
            self.dense.inputs as u64,
            rows as u64,
        );
        n * n * d / 2 + rows * n * n + rows * n * n / 2 + n * n * d
    }

    /// The tangents of `J` at the layer, `c W Wᵀ`, from its cotangents `c`.
    pub(crate) fn tangents(
        &self,
        linearized: &LinearizedBatch<T>,
        cotangents: &RowBatch<T>,
        buffers: &mut FirstLayerBuffers<T>,
        tangents: &mut [T],
    ) {
        let (n, d) = (self.dense.outputs, self.dense.inputs);
        buffers.gram.resize(n * n, T::ZERO);
        gram_of_rows(d, self.weight, &mut buffers.gram);
        let c = self.left(linearized, cotangents);
        rows_times(c, n, Rhs::Plain(&buffers.gram), false, tangents);
    }

    /// Adds `scale (Σ (Ḡ c)ᵀ c) W` to the gradient, from `mixed: Ḡ c` and the `c` that the buffers
    /// keep, or from `c` twice if it is `unmixed`.
    pub(crate) fn add_gradient(
        &self,
        linearized: &LinearizedBatch<T>,
        (mixed, unmixed): (&RowBatch<T>, bool),
        scale: T,
        buffers: &mut FirstLayerBuffers<T>,
        gradient: &mut [T],
    ) {
        let (n, d) = (self.dense.outputs, self.dense.inputs);
        buffers.sum.clear();
        buffers.sum.resize(n * n, T::ZERO);
        let mixed = self.left(linearized, mixed);
        let c = if unmixed {
            mixed.entries()
        } else {
            &buffers.unmixed
        };
        symmetric_sum(mixed, scale, c, &mut buffers.sum);
        let weight = self.dense.weight..self.dense.weight + n * d;
        a_b(
            (n, d),
            &buffers.sum,
            self.weight,
            true,
            &mut gradient[weight],
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Builder, Mlp, Window};
    use ndarray::{Array2, Array4};

    fn weight(outputs: usize, inputs: usize) -> Array2<f64> {
        Array2::from_shape_fn((outputs, inputs), |(i, j)| ((i * inputs + j) as f64).sin())
    }

    #[test]
    fn it_is_the_dense_layer_that_all_paths_pass() {
        let mlp = Mlp::new(&[6, 5, 4]).build::<f64>(0).unwrap();
        assert_eq!(FirstLayer::of(&mlp).map(|first| first.node), Some(1));

        let mut builder = Builder::new();
        let x = builder.input_shaped(&[2, 3]).unwrap();
        let flat = builder.flatten(x).unwrap();
        let z = builder.dense(flat, weight(4, 6), None).unwrap();
        let behind_a_reshape = builder.build(z).unwrap();
        assert_eq!(
            FirstLayer::of(&behind_a_reshape).map(|first| first.node),
            Some(2)
        );

        let mut builder = Builder::new();
        let x = builder.input(4).unwrap();
        let z = builder.dense(x, weight(4, 4), None).unwrap();
        let f = builder.sum(&[x, z]).unwrap();
        assert!(
            FirstLayer::of(&builder.build(f).unwrap()).is_none(),
            "a skip"
        );

        let mut builder = Builder::new();
        let x = builder.input_shaped(&[2, 3]).unwrap();
        let z = builder.dense(x, weight(4, 3), None).unwrap();
        let rows = builder.build(z).unwrap();
        assert!(
            FirstLayer::of(&rows).is_none(),
            "a layer on each of two rows"
        );

        let mut builder = Builder::new();
        let x = builder.input_shaped(&[1, 3, 3]).unwrap();
        let kernel = Array4::from_elem((2, 1, 2, 2), 1.0);
        let z = builder
            .conv2d(x, kernel, None, Window::new([2, 2]), 1)
            .unwrap();
        assert!(
            FirstLayer::of(&builder.build(z).unwrap()).is_none(),
            "a convolution"
        );
    }

    #[test]
    fn it_is_less_work_for_many_features_and_few_active_units() {
        // The biases are so large that their signs decide which units are active.
        let less = |widths: &[usize], active: usize| {
            let mut network = Mlp::new(widths).build::<f32>(0).unwrap();
            let (d, n) = (widths[0], widths[1]);
            let bias = &mut network.parameters_mut().values_mut()[n * d..n * d + n];
            let sign = |unit: usize| if unit < active { 1e3 } else { -1e3 };
            let units = bias.iter_mut().enumerate();
            units.for_each(|(unit, bias)| *bias = sign(unit));
            let trace = network.trace(Array2::ones((128, d)).view()).unwrap();
            let (linearized, first) = (trace.part(trace.all()), FirstLayer::of(&network).unwrap());
            assert_eq!(
                active_share(&linearized, first.slot),
                active as f64 / n as f64
            );
            let (here, there) = first.costs(&linearized, 10);
            here < there
        };
        assert!(less(&[784, 512, 512, 10], 512));
        assert!(less(&[300, 512, 512, 10], 128));
        assert!(!less(&[300, 512, 512, 10], 384));
        assert!(!less(&[32, 512, 512, 10], 128));
    }
}
