//! The three sweeps through the gated linear network, which are the whole differentiation engine.
//!
//! With its pattern fixed a network is linear in its inputs up to an offset. A sweep carries `R` rows per
//! sample through that linear network: *cotangents* from the logits back to the input, *tangents* from the
//! input forward to the logits. One of each gives the gradient of the weights (`docs/theory.md`, section 3):
//! if `c` are the cotangents of `V J` and `t` the tangents of `A`, then the derivative of `⟨A, V J⟩` with
//! respect to `W_l` is `Σ c_l t_{l−1}ᵀ`.

use std::ops::Range;

use ndarray::{Array2, ArrayView2, ArrayView3};

use crate::error::{Result, check_shape};
use crate::network::add::add_or_copy;
use crate::network::{Network, Node, Operation};
use crate::parameters::Parameters;
use crate::pattern::ActivationPattern;
use crate::product::a_b;
use crate::scalar::Scalar;
use crate::trace::{Record, Trace, resize_slots};

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

/// Where the rows of a backward sweep start, at the logits.
#[derive(Clone, Copy, Debug)]
pub enum Seeds<'a, T> {
    /// The same rows for every sample; `[R, K]`.
    Shared(ArrayView2<'a, T>),
    /// Each sample's own rows; `[B, R, K]`.
    PerSample(ArrayView3<'a, T>),
}

impl<T: Scalar> Seeds<'_, T> {
    /// Number of rows `R`.
    pub fn rows(&self) -> usize {
        match self {
            Seeds::Shared(seeds) => seeds.nrows(),
            Seeds::PerSample(seeds) => seeds.shape()[1],
        }
    }

    fn check(&self, samples: usize, outputs: usize) -> Result<()> {
        match self {
            Seeds::Shared(s) => check_shape("seeds", &[s.nrows(), outputs], s.shape()),
            Seeds::PerSample(s) => {
                check_shape("seeds", &[samples, s.shape()[1], outputs], s.shape())
            }
        }
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

/// Cotangents `V J` of a batch at every node, with `R` rows per sample. Buffers are reused by
/// [`Trace::cotangents_into`].
#[derive(Clone, Debug, Default)]
pub struct Cotangents<T>(Rows<T>);

impl<T: Scalar> Cotangents<T> {
    /// The rows at the input, `V J`; `[B, R, D]`.
    pub fn at_input(&self) -> ArrayView3<'_, T> {
        at(&self.0, 0)
    }
}

/// Tangents of rows `A` at every node, with `R` rows per sample. Buffers are reused by
/// [`Trace::tangents_into`].
#[derive(Clone, Debug, Default)]
pub struct Tangents<T> {
    rows: Rows<T>,
    output: usize,
}

impl<T: Scalar> Tangents<T> {
    /// The rows at the logits, `A Jᵀ`; `[B, R, K]`.
    pub fn at_output(&self) -> ArrayView3<'_, T> {
        at(&self.rows, self.output)
    }
}

fn at<T>(rows: &Rows<T>, slot: usize) -> ArrayView3<'_, T> {
    let data = &rows.slots[slot];
    let width = data.len() / (rows.samples * rows.rows).max(1);
    ArrayView3::from_shape((rows.samples, rows.rows, width), data).expect("a slot holds all rows")
}

impl<T: Scalar> Trace<'_, T> {
    fn gated(&self) -> Gated<'_, T> {
        Gated::all(self.network, &self.record)
    }

    /// Backward sweep: carries the rows `V` of `seeds` from the logits to the input.
    ///
    /// Cost: one matrix product a layer with `B·R` rows. Memory: `R` times that of the trace.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape).
    pub fn cotangents(&self, seeds: Seeds<T>) -> Result<Cotangents<T>> {
        let mut cotangents = Cotangents::default();
        self.cotangents_into(seeds, &mut cotangents)?;
        Ok(cotangents)
    }

    /// [`cotangents`](Self::cotangents) into buffers that are reused.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape).
    pub fn cotangents_into(&self, seeds: Seeds<T>, into: &mut Cotangents<T>) -> Result<()> {
        seeds.check(self.samples(), self.network.outputs())?;
        into.0.backward(&self.gated(), seeds, true);
        Ok(())
    }

    /// Forward sweep: carries the rows `A` from the input to the logits; `rows: [B, R, D]`.
    ///
    /// Cost and memory as for [`cotangents`](Self::cotangents).
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape).
    pub fn tangents(&self, rows: ArrayView3<T>) -> Result<Tangents<T>> {
        let mut tangents = Tangents::default();
        self.tangents_into(rows, &mut tangents)?;
        Ok(tangents)
    }

    /// [`tangents`](Self::tangents) into buffers that are reused.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape).
    pub fn tangents_into(&self, rows: ArrayView3<T>, into: &mut Tangents<T>) -> Result<()> {
        let count = rows.shape()[1];
        let expected = [self.samples(), count, self.network.inputs()];
        check_shape("rows", &expected, rows.shape())?;
        into.output = self.network.output().slot;
        into.rows.forward(&self.gated(), count, rows.iter());
        Ok(())
    }

    /// Weight gradient of the pair: `Σ_samples ∂⟨A, V J⟩/∂θ`, with cotangents of seeds `V` and tangents of
    /// rows `A` held constant. Its entries for biases are 0.
    ///
    /// For a function `φ(J)` take `V = I` and `A = ∂φ/∂J`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the pair does not come from this trace's network and batch with
    /// equal numbers of rows.
    pub fn weight_gradient(
        &self,
        cotangents: &Cotangents<T>,
        tangents: &Tangents<T>,
    ) -> Result<Parameters<T>> {
        let lengths = |rows: &Rows<T>| rows.slots.iter().map(Vec::len).collect::<Vec<_>>();
        let scale = self.samples() * cotangents.0.rows;
        let expected: Vec<usize> = self.network.slots.iter().map(|w| w * scale).collect();
        check_shape("cotangents", &expected, &lengths(&cotangents.0))?;
        check_shape("tangents", &expected, &lengths(&tangents.rows))?;
        let mut gradient = self.parameters().zeros_like();
        let (c, t) = (&cotangents.0, &tangents.rows.slots);
        weight_gradient(&self.gated(), c, t, T::ONE, false, &mut gradient);
        Ok(gradient)
    }

    /// `J v` for each sample; `tangent: [B, D]`, result `[B, K]`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape).
    pub fn jvp(&self, tangent: ArrayView2<T>) -> Result<Array2<T>> {
        check_shape(
            "tangent",
            &[self.samples(), self.network.inputs()],
            tangent.shape(),
        )?;
        let tangents = self.tangents(tangent.insert_axis(ndarray::Axis(1)))?;
        Ok(one_row(tangents.at_output()))
    }

    /// `Jᵀ u` for each sample; `cotangent: [B, K]`, result `[B, D]`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape).
    pub fn vjp(&self, cotangent: ArrayView2<T>) -> Result<Array2<T>> {
        let expected = [self.samples(), self.network.outputs()];
        check_shape("cotangent", &expected, cotangent.shape())?;
        let seeds = Seeds::PerSample(cotangent.insert_axis(ndarray::Axis(1)));
        Ok(one_row(self.cotangents(seeds)?.at_input()))
    }

    /// `Σ_samples ∂⟨u, f(x)⟩/∂θ`, the ordinary backward pass; `cotangent: [B, K]`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape).
    pub fn parameter_vjp(&self, cotangent: ArrayView2<T>) -> Result<Parameters<T>> {
        let expected = [self.samples(), self.network.outputs()];
        check_shape("cotangent", &expected, cotangent.shape())?;
        let (gated, mut rows) = (self.gated(), Rows::default());
        let seeds = Seeds::PerSample(cotangent.insert_axis(ndarray::Axis(1)));
        rows.backward(&gated, seeds, false);
        let mut gradient = self.parameters().zeros_like();
        weight_gradient(
            &gated,
            &rows,
            &self.record.slots,
            T::ONE,
            true,
            &mut gradient,
        );
        Ok(gradient)
    }
}

fn one_row<T: Scalar>(rows: ArrayView3<T>) -> Array2<T> {
    let row: ArrayView2<T> = rows.index_axis_move(ndarray::Axis(1), 0);
    row.to_owned()
}
