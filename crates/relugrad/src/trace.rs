//! A forward pass of a batch: logits, activations and the activation pattern.

use std::ops::{Deref, Range};
use std::sync::atomic::{AtomicBool, Ordering};

use ndarray::{Array2, ArrayView2};

use crate::error::{Error, Result, check_shape};
use crate::network::map::{GateKind, GateMap, SweepContext};
use crate::network::{Network, Node};
use crate::parallel::{for_each_chunk, on_pool};
use crate::parameters::Parameters;
use crate::pattern::ActivationPattern;
use crate::scalar::Scalar;

/// What one forward pass leaves behind: the values of all nodes and the pattern. Buffers are
/// reused.
#[derive(Clone, Debug, Default)]
pub(crate) struct ForwardState<T> {
    pub(crate) samples: usize,
    /// Values by slot, `[samples, width]`.
    pub(crate) buffers: Vec<Vec<T>>,
    pub(crate) pattern: ActivationPattern,
    /// Units exactly on a kink, per sample.
    pub(crate) kinks: Vec<u32>,
}

impl<T: Scalar> ForwardState<T> {
    /// Runs a batch through the network.
    pub(crate) fn fill(&mut self, network: &Network<T>, inputs: ArrayView2<T>) -> Result<()> {
        check_inputs(network, &inputs)?;
        self.samples = inputs.nrows();
        network.resize_pattern(&mut self.pattern, self.samples);
        self.kinks.clear();
        self.kinks.resize(self.samples, 0);
        resize_buffers(&mut self.buffers, network, self.samples, |_| true);
        self.copy_inputs(inputs)?;
        for node in &network.nodes {
            self.step(network, node)?;
        }
        self.check_logits(network)
    }

    /// Copies the inputs, which must be finite.
    fn copy_inputs(&mut self, inputs: ArrayView2<T>) -> Result<()> {
        let finite = AtomicBool::new(true);
        for_each_chunk(
            &mut self.buffers[0],
            inputs.ncols(),
            inputs.len(),
            |sample, to| {
                let row = inputs.row(sample);
                match row.as_slice() {
                    Some(row) => to.copy_from_slice(row),
                    None => to.iter_mut().zip(row).for_each(|(to, &x)| *to = x),
                }
                // Without branches: nearly always all are finite.
                if !to.iter().fold(true, |all, x| all & x.is_finite()) {
                    finite.store(false, Ordering::Relaxed);
                }
            },
        );
        if finite.into_inner() {
            return Ok(());
        }
        let broken = inputs.indexed_iter().find(|(_, x)| !x.is_finite());
        let ((sample, feature), _) = broken.expect("one is not finite");
        Err(Error::NotFinite {
            what: "inputs".into(),
            index: vec![sample, feature],
        })
    }

    fn step(&mut self, network: &Network<T>, node: &Node) -> Result<()> {
        let parameters = network.parameters().values();
        let in_place = node.in_place(&network.nodes);
        let mut out = std::mem::take(&mut self.buffers[node.slot]);
        let mut failed = None;
        if let Some(gate) = node.map.gate() {
            let input = (!in_place).then(|| &self.buffers[network.nodes[node.inputs[0]].slot][..]);
            let (pattern, kinks) = (&mut self.pattern, &mut self.kinks);
            failed = gate.forward(parameters, input, &mut out, pattern, kinks);
        } else {
            let at = SweepContext::new(parameters, 1);
            node.apply(&network.nodes, at, &self.buffers, true, &mut out);
        }
        self.buffers[node.slot] = out;
        match failed {
            None => Ok(()),
            Some(sample) => Err(Error::NotFinite {
                what: format!("the input of {}", node.name),
                index: vec![sample],
            }),
        }
    }

    pub(crate) fn logits(&self, network: &Network<T>) -> &[T] {
        &self.buffers[network.output().slot]
    }

    fn check_logits(&self, network: &Network<T>) -> Result<()> {
        match self.logits(network).iter().position(|f| !f.is_finite()) {
            None => Ok(()),
            Some(i) => Err(Error::NotFinite {
                what: "a logit".into(),
                index: vec![i / network.outputs(), i % network.outputs()],
            }),
        }
    }
}

/// Makes room for `rows` rows in the buffers of the slots that are `used`; others stay as they are.
pub(crate) fn resize_buffers<T: Scalar>(
    buffers: &mut Vec<Vec<T>>,
    network: &Network<T>,
    rows: usize,
    used: impl Fn(usize) -> bool,
) {
    buffers.resize_with(network.slot_widths.len(), Vec::new);
    for (i, (buffer, width)) in buffers.iter_mut().zip(&network.slot_widths).enumerate() {
        if used(i) {
            buffer.resize(rows * width, T::ZERO);
        }
    }
}

fn check_inputs<T: Scalar>(network: &Network<T>, inputs: &ArrayView2<T>) -> Result<()> {
    if inputs.nrows() == 0 {
        return Err(Error::EmptyBatch {
            what: "inputs".into(),
        });
    }
    check_shape(
        "inputs",
        &[inputs.nrows(), network.inputs()],
        inputs.shape(),
    )
}

impl<T: Scalar> Network<T> {
    /// Makes room in a pattern for a batch.
    pub(crate) fn resize_pattern(&self, pattern: &mut ActivationPattern, samples: usize) {
        let shape = |gate: &GateMap| match &gate.kind {
            GateKind::Slope(slope) => (slope.width(), 1 + usize::from(slope.bounds().is_some())),
            GateKind::Max(max) => (max.units(), 0),
        };
        pattern.resize(samples, self.gate_layers().map(shape));
    }
}

/// A batch that has been run through a network; everything else is a question put to it.
///
/// It holds the value of every node (the memory of one row per sample, see
/// [`row_bytes`](Self::row_bytes)) and the packed [`ActivationPattern`].
#[derive(Clone, Debug)]
pub struct Trace<'n, T> {
    pub(crate) network: &'n Network<T>,
    pub(crate) state: TraceState<'n, T>,
}

/// What a trace has left behind, or what a [`Pass`](crate::Pass) lends.
#[derive(Clone, Debug)]
pub(crate) enum TraceState<'n, T> {
    Own(ForwardState<T>),
    Lent(&'n ForwardState<T>),
}

impl<T> Deref for TraceState<'_, T> {
    type Target = ForwardState<T>;

    fn deref(&self) -> &ForwardState<T> {
        match self {
            TraceState::Own(state) => state,
            TraceState::Lent(state) => state,
        }
    }
}

impl<T: Scalar> Network<T> {
    /// Runs a batch through the network; `inputs: [B, D]`.
    ///
    /// # Errors
    /// [`Error::EmptyBatch`], [`Error::Shape`], and [`Error::NotFinite`] for an input, or for a
    /// pre-activation or logit that is NaN or has overflowed (a parameter that is not finite shows
    /// itself there).
    pub fn trace(&self, inputs: ArrayView2<T>) -> Result<Trace<'_, T>> {
        let mut state = ForwardState::default();
        let operations = inputs.nrows() * self.parameters().len();
        on_pool(operations, || state.fill(self, inputs))?;
        Ok(Trace {
            network: self,
            state: TraceState::Own(state),
        })
    }

    /// The logits `f(x)` of a batch; `inputs: [B, D]`, result `[B, K]`.
    ///
    /// # Errors
    /// As for [`trace`](Self::trace).
    pub fn forward(&self, inputs: ArrayView2<T>) -> Result<Array2<T>> {
        Ok(self.trace(inputs)?.logits().to_owned())
    }
}

impl<'n, T: Scalar> Trace<'n, T> {
    /// The network that the batch went through.
    pub fn network(&self) -> &'n Network<T> {
        self.network
    }

    /// Number of samples `B`.
    pub fn samples(&self) -> usize {
        self.state.samples
    }

    /// The inputs; `[B, D]`.
    pub fn inputs(&self) -> ArrayView2<'_, T> {
        let shape = (self.samples(), self.network.inputs());
        ArrayView2::from_shape(shape, &self.state.buffers[0]).expect("slot 0 holds the inputs")
    }

    /// The logits; `[B, K]`.
    pub fn logits(&self) -> ArrayView2<'_, T> {
        let shape = (self.samples(), self.network.outputs());
        ArrayView2::from_shape(shape, self.state.logits(self.network)).expect("logits fit")
    }

    /// What every gate selects.
    pub fn pattern(&self) -> &ActivationPattern {
        &self.state.pattern
    }

    /// Number of units of each sample that are exactly on a kink: pre-activations that are zero or
    /// a bound of a clip, and maxima that are tied.
    ///
    /// There the network is not differentiable, and all derivatives follow the convention that the
    /// unit is inactive, or that the first of the tied entries wins. A tie of inactive ReLU units,
    /// all of them 0 in the whole region, is no kink and is not counted.
    pub fn kinks(&self) -> &[u32] {
        &self.state.kinks
    }

    /// Bytes that a sweep needs for one row of one sample.
    pub fn row_bytes(&self) -> usize {
        self.network.row_entries() * size_of::<T>()
    }

    pub(crate) fn all(&self) -> Range<usize> {
        0..self.samples()
    }

    pub(crate) fn parameters(&self) -> &Parameters<T> {
        self.network.parameters()
    }
}

#[cfg(test)]
mod tests {
    use crate::{Gate, Mlp};
    use ndarray::Array2;

    #[test]
    fn clipped_units_count_with_their_bound() {
        let (n, k, samples) = (300, 400, 256);
        let clip = Gate::Clip { min: 0.0, max: 2.0 };
        let mlp = Mlp::new(&[2, n, k]).gate(clip);
        let mut network = mlp.build::<f64>(0).unwrap();
        // All units are beyond the bound, so none is active.
        network.parameters_mut().values_mut()[2 * n..3 * n].fill(1e3);
        let logits = network.forward(Array2::ones((samples, 2)).view()).unwrap();
        let weight = &network.parameters().values()[3 * n..3 * n + n * k];
        for row in logits.rows() {
            for (logit, weights) in row.iter().zip(weight.chunks_exact(n)) {
                let expected = 2.0 * weights.iter().sum::<f64>();
                assert!(
                    (logit - expected).abs() < 1e-11,
                    "{logit} is not {expected}"
                );
            }
        }
    }
}
