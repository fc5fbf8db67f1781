//! The frozen network of a pattern: every gate keeps its piece, whatever arrives at it
//! ([theory](crate::theory), section 1.2).

use ndarray::ArrayView1;

use crate::network::map::SweepContext;
use crate::network::{Network, Node};
use crate::pattern::ActivationPattern;
use crate::region::face::write_margins;
use crate::scalar::Scalar;

/// One row through the network with a given pattern, and what arrives at its gates.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pass<T> {
    buffers: Vec<Vec<T>>,
    /// What arrives at each layer of gates.
    pub(crate) arriving: Vec<Vec<T>>,
    pub(crate) logits: Vec<T>,
}

impl<T: Scalar> Pass<T> {
    /// Runs the affine map of the pattern's first sample, or its linear part.
    pub(crate) fn run(
        &mut self,
        network: &Network<T>,
        pattern: &ActivationPattern,
        input: ArrayView1<T>,
        affine: bool,
    ) {
        self.run_sample(network, (pattern, 0), input, affine);
    }

    /// The same for any sample of the pattern.
    pub(crate) fn run_sample(
        &mut self,
        network: &Network<T>,
        pattern: (&ActivationPattern, usize),
        input: ArrayView1<T>,
        affine: bool,
    ) {
        crate::trace::resize_buffers(&mut self.buffers, network, 1, |_| true);
        let pairs = self.buffers[0].iter_mut().zip(input);
        pairs.for_each(|(to, &from)| *to = from);
        self.arriving.resize_with(pattern.0.layers(), Vec::new);
        for node in &network.nodes {
            self.step(network, pattern, node, affine);
        }
        self.logits.clone_from(&self.buffers[network.output().slot]);
    }

    /// The values of all nodes, by slot.
    pub(crate) fn into_values(self) -> Vec<Vec<T>> {
        self.buffers
    }

    /// The margins of all gates in order, or with `affine` false their linear parts.
    pub(crate) fn margins(
        &self,
        network: &Network<T>,
        pattern: &ActivationPattern,
        affine: bool,
    ) -> Vec<Vec<T>> {
        let layers = network.gate_layers().zip(&self.arriving);
        let margins = layers.map(|(gate, z)| {
            let mut margins = Vec::new();
            write_margins(
                gate,
                &pattern.view(gate.layer, &(0..1)),
                z,
                affine,
                &mut margins,
            );
            margins
        });
        margins.collect()
    }

    fn step(
        &mut self,
        network: &Network<T>,
        (pattern, sample): (&ActivationPattern, usize),
        node: &Node,
        affine: bool,
    ) {
        let parameters = network.parameters().values();
        let in_place = node.in_place(&network.nodes);
        let mut out = std::mem::take(&mut self.buffers[node.slot]);
        if let Some(gate) = node.map.gate() {
            let layer = pattern.view(gate.layer, &(sample..sample + 1));
            let input = (!in_place).then(|| &self.buffers[network.nodes[node.inputs[0]].slot][..]);
            let arriving = &mut self.arriving[gate.layer];
            arriving.clear();
            arriving.extend_from_slice(input.unwrap_or(&out));
            gate.piece(parameters, &layer, 1, input, affine, &mut out);
        } else {
            let at = SweepContext::new(parameters, 1);
            node.apply(&network.nodes, at, &self.buffers, affine, &mut out);
        }
        self.buffers[node.slot] = out;
    }
}
