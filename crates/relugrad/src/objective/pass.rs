//! A batch that has gone through a network, with a backward pass for each thing that it gives.

use std::ops::Range;
use std::sync::Arc;

use ndarray::{Array2, Array3, ArrayView2, ArrayView3, Axis};

use super::gram::{ContractionOrder, GramPair};
use super::plan::{SeedBasis, SharedSeeds, SweepStrategy};
use crate::buffer::Buffer;
use crate::error::{Result, check_array, check_shape};
use crate::gram::{FirstLayer, grams};
use crate::linalg::symmetrise;
use crate::network::Network;
use crate::network::map::Accumulate;
use crate::parallel::{blocks, on_pool};
use crate::parameters::Parameters;
use crate::scalar::Scalar;
use crate::sweep::{LinearizedBatch, RowBatch, Seeds};
use crate::trace::{ForwardState, Trace, TraceState};
use crate::tuning::{PASS_MEMORY, PASS_SAMPLES};

/// A batch that has gone through a network: logits `f`, Gram matrices `G`, Jacobians `J`, products
/// `Jᵀ u`, and for each of them the way back from a derivative with respect to it to the
/// parameters.
///
/// This is what a host with automatic differentiation of its own, such as PyTorch, needs of an
/// operator. Any function of what a pass gives has its exact parameter gradient: the host
/// differentiates the function, which is small, and the pass does the rest, without second-order
/// differentiation ([theory](crate::theory), section 3).
///
/// | gives | shape | sweeps | given its derivative | further sweeps |
/// | --- | --- | --- | --- | --- |
/// | [`logits`](Self::logits) | `[B, K]` | | [`add_logits_gradient`](Self::add_logits_gradient) | one row |
/// | [`gram`](Self::gram) | `[B, K, K]` | `K` rows back and forth | [`add_gram_gradient`](Self::add_gram_gradient) | |
/// | [`jacobian`](Self::jacobian) | `[B, K, D]` | `K` rows back | [`add_jacobian_gradient`](Self::add_jacobian_gradient) | `K` rows forth |
/// | [`vjp`](Self::vjp) | `[B, D]` | one row back | [`add_vjp_gradient`](Self::add_vjp_gradient) | one row forth |
///
/// Rows of the last sweep are kept until the way back if those of all samples fit into 16 MiB, so
/// that a step takes no more sweeps than an [`Objective`](super::Objective) of the same penalty.
/// Otherwise samples go through in blocks of as many as fit, at least four, and their rows are
/// swept once more on the way back; so are those of whoever goes back twice, or asks for something
/// else in between, and gets the same. The pass owns its network together with others. Buffers are
/// reused by [`run`](Self::run). Memory: that of a trace, and of two rows at every unit for each
/// row of a block.
///
/// ```
/// use std::sync::Arc;
///
/// use ndarray::{Array3, array};
/// use relugrad::{Loss, Mlp, Objective, Pass, Penalty, Targets};
///
/// let network = Arc::new(Mlp::new(&[2, 8, 3]).build::<f64>(1)?);
/// let x = array![[0.5, -1.0], [0.25, 2.0]];
/// let mut pass = Pass::new(Arc::clone(&network), x.view())?;
///
/// // φ = mean tr G, so ∂φ/∂G = I/2 for each of both samples.
/// let g = pass.gram()?;
/// let traces: f64 = g.outer_iter().map(|g| g.diag().sum()).sum();
/// let mut gradient = network.parameters().zeros_like();
/// let bar = Array3::from_shape_fn((2, 3, 3), |(_, i, j)| if i == j { 0.5 } else { 0.0 });
/// pass.add_gram_gradient(bar.view(), &mut gradient)?;
///
/// let jacobian = Objective::new(Loss::softmax_cross_entropy())
///     .with(Penalty::Jacobian, 1.0)?
///     .penalties_only();
/// let (value, expected) = jacobian.gradient(&network, x.view(), &Targets::Classes(&[0, 2]))?;
/// assert!((value.value - traces / 2.0).abs() < 1e-12);
/// for (found, expected) in gradient.values().iter().zip(expected.values()) {
///     assert!((found - expected).abs() < 1e-12);
/// }
/// # Ok::<(), relugrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Pass<T> {
    network: Arc<Network<T>>,
    state: ForwardState<T>,
    pair: GramPair<T>,
    /// Rows of the logits' backward pass.
    logit_rows: RowBatch<T>,
    seeds: SharedSeeds<T>,
    kept: Kept<T>,
}

/// Of what the cotangents are kept.
#[derive(Clone, Debug, Default, PartialEq)]
enum Kept<T> {
    #[default]
    Nothing,
    /// With their tangents.
    Gram,
    Jacobian,
    /// Of these seeds.
    Vjp(Array2<T>),
}

impl<T: Scalar> Pass<T> {
    /// Runs a batch through the network; `inputs: [B, D]`.
    ///
    /// # Errors
    /// Those of [`Network::trace`].
    pub fn new(network: Arc<Network<T>>, inputs: ArrayView2<T>) -> Result<Pass<T>> {
        let mut pass = Pass {
            network: Arc::clone(&network),
            state: ForwardState::default(),
            pair: GramPair::default(),
            logit_rows: RowBatch::default(),
            seeds: SharedSeeds::default(),
            kept: Kept::Nothing,
        };
        pass.run(network, inputs)?;
        Ok(pass)
    }

    /// [`new`](Self::new) in the buffers of this pass.
    ///
    /// # Errors
    /// As for [`new`](Self::new); then the pass is of no batch, and has no samples.
    pub fn run(&mut self, network: Arc<Network<T>>, inputs: ArrayView2<T>) -> Result<()> {
        (self.network, self.kept) = (network, Kept::Nothing);
        let operations = inputs.nrows() * self.network.parameters().len();
        let (state, network) = (&mut self.state, &self.network);
        let run = on_pool(operations, || state.fill(network, inputs));
        if run.is_err() {
            self.state = ForwardState::default();
            self.state.buffers = vec![Vec::new(); self.network.slot_widths.len()];
            self.network.resize_pattern(&mut self.state.pattern, 0);
        }
        run
    }

    /// The network that the batch went through.
    pub fn network(&self) -> &Arc<Network<T>> {
        &self.network
    }

    /// The batch as a trace, which answers all other questions.
    pub fn trace(&self) -> Trace<'_, T> {
        Trace {
            network: &self.network,
            state: TraceState::Lent(&self.state),
        }
    }

    /// The logits `f`; `[B, K]`.
    pub fn logits(&self) -> ArrayView2<'_, T> {
        let shape = (self.state.samples, self.network.outputs());
        ArrayView2::from_shape(shape, self.state.logits(&self.network)).expect("logits fit")
    }

    /// The Gram matrices `G = J Jᵀ`, symmetric; `[B, K, K]`. Where no derivative will be given,
    /// [`Trace::gram`] does less.
    ///
    /// # Errors
    /// [`Error::NotFinite`](crate::Error::NotFinite) if an entry overflows.
    pub fn gram(&mut self) -> Result<Array3<T>> {
        let (samples, k) = (self.state.samples, self.network.outputs());
        let mut rounded = vec![T::ZERO; samples * k * k];
        if self.keeps_rows() {
            let mut entries = Buffer::with_room(rounded.len());
            self.sweep_grams(0..samples, &mut entries);
            self.kept = Kept::Gram;
            let pairs = rounded.iter_mut().zip(&*entries);
            pairs.for_each(|(to, &entry)| *to = T::from_f64(entry));
        } else {
            self.kept = Kept::Nothing;
            for part in blocks(samples, self.together()) {
                let linearized = linearized(&self.network, &self.state, part.clone());
                let first = FirstLayer::for_values(&linearized, k);
                let to = &mut rounded[part.start * k * k..part.end * k * k];
                grams(&linearized, Array2::eye(k).view(), first, to);
            }
        }
        check_array("the Gram matrix", &[samples, k, k], &rounded)?;
        Ok(Array3::from_shape_vec((samples, k, k), rounded).expect("K×K for each sample"))
    }

    /// Adds to `gradient` what comes through the Gram matrices, `∂/∂θ Σ_b ⟨Ḡ_b, G_b⟩`;
    /// `bar: [B, K, K]` need not be symmetric.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) for another shape of `bar` or length of `gradient`,
    /// [`Error::NotFinite`](crate::Error::NotFinite) for an entry of `bar`, and
    /// [`Error::Gradient`](crate::Error::Gradient) if the sum overflows.
    pub fn add_gram_gradient(
        &mut self,
        bar: ArrayView3<T>,
        gradient: &mut Parameters<T>,
    ) -> Result<()> {
        let k = self.network.outputs();
        let bar = self.derivative("the derivative with respect to G", &[k, k], bar)?;
        self.check_length(gradient)?;
        let mut bars = Buffer::of(bar.iter().map(|x| x.into_f64()));
        bars.chunks_exact_mut(k * k)
            .for_each(|bar| symmetrise(bar, k));
        for part in blocks(self.state.samples, self.together()) {
            if self.kept != Kept::Gram {
                self.sweep_grams(part.clone(), &mut Buffer::with_room(part.len() * k * k));
            }
            self.kept = Kept::Nothing;
            let linearized = linearized(&self.network, &self.state, part.clone());
            let order = order_of_grams(&linearized);
            let (pair, seeds) = (&mut self.pair, &self.seeds);
            let bars = &bars[part.start * k * k..part.end * k * k];
            on_pool(bars.len() * gradient.len(), || {
                pair.add_gradient(&linearized, &order, seeds, bars, gradient);
            });
        }
        gradient.check("the parameter gradient")
    }

    /// Sweeps the rows of the Jacobian back and forth, and appends their Gram matrices.
    fn sweep_grams(&mut self, part: Range<usize>, grams: &mut Buffer<f64>) {
        let network = &self.network;
        self.seeds.fill(SeedBasis::Identity, network.outputs());
        let rows = part.len() * network.outputs();
        let linearized = linearized(network, &self.state, part);
        let order = order_of_grams(&linearized);
        let (pair, seeds) = (&mut self.pair, &self.seeds);
        on_pool(rows * network.parameters().len(), || {
            pair.sweep(&linearized, &order, seeds, grams);
        });
    }

    /// Samples whose rows are swept together, on the way back and on the way forth.
    fn together(&self) -> usize {
        let network = &*self.network;
        // Through its own Gram matrix the first layer needs no rows at the input.
        let spared = FirstLayer::of(network).map_or(0, |_| network.inputs());
        let row_bytes = (network.row_entries() - spared) * size_of::<T>();
        (PASS_MEMORY / (2 * network.outputs() * row_bytes).max(1)).max(PASS_SAMPLES)
    }

    /// Whether the rows of all samples are kept until the way back.
    fn keeps_rows(&self) -> bool {
        self.state.samples <= self.together()
    }

    /// The Jacobians `J`; `[B, K, D]`. Where no derivative will be given, [`Trace::jacobian`] does
    /// less.
    ///
    /// # Errors
    /// [`Error::NotFinite`](crate::Error::NotFinite) if an entry overflows.
    pub fn jacobian(&mut self) -> Result<Array3<T>> {
        let (k, d) = (self.network.outputs(), self.network.inputs());
        let shape = (self.state.samples, k, d);
        let mut jacobian = Vec::with_capacity(shape.0 * k * d);
        for part in blocks(shape.0, self.together()) {
            self.sweep_jacobians(part);
            jacobian.extend_from_slice(self.pair.rows.cotangents.at_input());
        }
        if self.keeps_rows() {
            self.kept = Kept::Jacobian;
        }
        check_array("the Jacobian", &[shape.0, k, d], &jacobian)?;
        Ok(Array3::from_shape_vec(shape, jacobian).expect("K rows of D for each sample"))
    }

    /// Adds to `gradient` what comes through the Jacobians, `∂/∂θ Σ_b ⟨J̄_b, J_b⟩`;
    /// `bar: [B, K, D]`.
    ///
    /// # Errors
    /// As for [`add_gram_gradient`](Self::add_gram_gradient).
    pub fn add_jacobian_gradient(
        &mut self,
        bar: ArrayView3<T>,
        gradient: &mut Parameters<T>,
    ) -> Result<()> {
        let (k, d) = (self.network.outputs(), self.network.inputs());
        let bar = self.derivative("the derivative with respect to J", &[k, d], bar)?;
        self.check_length(gradient)?;
        for part in blocks(self.state.samples, self.together()) {
            if self.kept != Kept::Jacobian {
                self.sweep_jacobians(part.clone());
            }
            let bar = &bar[part.start * k * d..part.end * k * d];
            self.add_pair_gradient(part, k, bar, gradient);
        }
        gradient.check("the parameter gradient")
    }

    fn sweep_jacobians(&mut self, part: Range<usize>) {
        let linearized = linearized(&self.network, &self.state, part);
        let seeds = Seeds::identity(self.network.outputs());
        let cotangents = &mut self.pair.rows.cotangents;
        cotangents.backward(&linearized, seeds, linearized.nodes());
        self.kept = Kept::Nothing;
    }

    /// `Jᵀ u` for each sample; `u: [B, K]`, result `[B, D]`. The input gradient, where `u` is the
    /// residual of a loss.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape), and [`Error::NotFinite`](crate::Error::NotFinite) if
    /// it overflows.
    pub fn vjp(&mut self, u: ArrayView2<T>) -> Result<Array2<T>> {
        self.sweep_vjp(u)?;
        let shape = (self.state.samples, self.network.inputs());
        let values = self.pair.rows.cotangents.at_input();
        check_array("Jᵀu", &[shape.0, shape.1], values)?;
        Ok(Array2::from_shape_vec(shape, values.to_vec()).expect("one row for each sample"))
    }

    /// Adds to `gradient` what comes through `Jᵀ u` with `u` held constant,
    /// `∂/∂θ Σ_b ⟨ḡ_b, J_bᵀ u_b⟩`, and returns the derivative with respect to `u`, `ū = J ḡ`;
    /// `u: [B, K]`, `bar: [B, D]`, result `[B, K]`.
    ///
    /// # Errors
    /// As for [`add_gram_gradient`](Self::add_gram_gradient), and those of [`vjp`](Self::vjp).
    pub fn add_vjp_gradient(
        &mut self,
        u: ArrayView2<T>,
        bar: ArrayView2<T>,
        gradient: &mut Parameters<T>,
    ) -> Result<Array2<T>> {
        let (k, d) = (self.network.outputs(), self.network.inputs());
        let what = "the derivative with respect to Jᵀu";
        let bar = self.derivative(what, &[1, d], bar.insert_axis(Axis(1)))?;
        self.check_length(gradient)?;
        if !matches!(&self.kept, Kept::Vjp(kept) if kept == u) {
            self.sweep_vjp(u)?;
        }
        self.add_pair_gradient(0..self.state.samples, 1, &bar, gradient);
        gradient.check("the parameter gradient")?;
        let u_bar = self.pair.rows.tangents.at_output(&self.network);
        let shape = (self.state.samples, k);
        check_array("J v", &[shape.0, k], u_bar)?;
        Ok(Array2::from_shape_vec(shape, u_bar.to_vec()).expect("one row for each sample"))
    }

    fn sweep_vjp(&mut self, u: ArrayView2<T>) -> Result<()> {
        let shape = [self.state.samples, self.network.outputs()];
        check_shape("cotangent", &shape, u.shape())?;
        let linearized = LinearizedBatch::all(&self.network, &self.state);
        let seeds = Seeds::PerSample(u.insert_axis(Axis(1)));
        let cotangents = &mut self.pair.rows.cotangents;
        cotangents.backward(&linearized, seeds, linearized.nodes());
        self.kept = Kept::Vjp(u.to_owned());
        Ok(())
    }

    /// The ordinary backward pass: adds `∂/∂θ Σ_b ⟨f̄_b, f_b⟩` to `gradient`, and returns the
    /// derivative with respect to the inputs, `x̄ = Jᵀ f̄`, if it `is_wanted`; `bar: [B, K]`, result
    /// `[B, D]`. Gram matrices and Jacobians are the same in a whole region, so that nothing else
    /// comes from the inputs.
    ///
    /// # Errors
    /// As for [`add_gram_gradient`](Self::add_gram_gradient).
    pub fn add_logits_gradient(
        &mut self,
        bar: ArrayView2<T>,
        gradient: &mut Parameters<T>,
        is_wanted: bool,
    ) -> Result<Option<Array2<T>>> {
        let (k, d) = (self.network.outputs(), self.network.inputs());
        let what = "the derivative with respect to the logits";
        let bar = self.derivative(what, &[1, k], bar.insert_axis(Axis(1)))?;
        self.check_length(gradient)?;
        let linearized = LinearizedBatch::all(&self.network, &self.state);
        let shape = (self.state.samples, 1, k);
        let seeds = ArrayView3::from_shape(shape, &bar).expect("one row for each sample");
        let (rows, values) = (&mut self.logit_rows, &self.state.buffers);
        on_pool(bar.len() * gradient.len(), || {
            let wanted = usize::from(!is_wanted)..linearized.nodes().end;
            rows.backward(&linearized, Seeds::PerSample(seeds), wanted);
            linearized.weight_gradient(rows, values, Accumulate::affine(), gradient);
        });
        gradient.check("the parameter gradient")?;
        if !is_wanted {
            return Ok(None);
        }
        let values = self.logit_rows.at_input();
        check_array("Jᵀu", &[shape.0, d], values)?;
        let x_bar = Array2::from_shape_vec((shape.0, d), values.to_vec());
        Ok(Some(x_bar.expect("one row for each sample")))
    }

    /// Carries the rows `a: [samples, R, D]` forth, and adds the weight gradient of the pair.
    fn add_pair_gradient(
        &mut self,
        part: Range<usize>,
        rows: usize,
        a: &[T],
        gradient: &mut Parameters<T>,
    ) {
        let operations = part.len() * rows * gradient.len();
        let linearized = linearized(&self.network, &self.state, part);
        let (c, t) = (&self.pair.rows.cotangents, &mut self.pair.rows.tangents);
        on_pool(operations, || {
            t.forward(&linearized, rows, a);
            linearized.weight_gradient(c, &t.buffers, Accumulate::linear(T::ONE), gradient);
        });
    }

    /// A derivative of the right shape, `[B, rows…]`, row-major, whose entries are finite.
    fn derivative(&self, what: &str, shape: &[usize; 2], bar: ArrayView3<T>) -> Result<Buffer<T>> {
        let expected = [self.state.samples, shape[0], shape[1]];
        check_shape(what, &expected, bar.shape())?;
        let bar = Buffer::of(bar.iter().copied());
        check_array(what, &expected, &bar)?;
        Ok(bar)
    }

    fn check_length(&self, gradient: &Parameters<T>) -> Result<()> {
        let parameters = self.network.parameters();
        check_shape("the gradient", &[parameters.len()], &[gradient.len()])
    }
}

/// Some samples of the batch.
fn linearized<'a, T>(
    network: &'a Network<T>,
    state: &'a ForwardState<T>,
    samples: Range<usize>,
) -> LinearizedBatch<'a, T> {
    LinearizedBatch {
        network,
        pattern: &state.pattern,
        samples,
    }
}

fn order_of_grams<'n, T: Scalar>(linearized: &LinearizedBatch<'n, T>) -> ContractionOrder<'n, T> {
    let network = linearized.network;
    ContractionOrder::of(
        SweepStrategy::Fewest,
        network,
        linearized,
        network.outputs(),
    )
}
