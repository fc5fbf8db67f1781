//! The frozen network of a pattern: every gate keeps its piece, whatever arrives at it (`docs/theory.md`, section 1.2).

use ndarray::ArrayView1;

use crate::network::add::add_or_copy;
use crate::network::{Network, Operation};
use crate::pattern::ActivationPattern;
use crate::scalar::Scalar;

/// One row through the network with a given pattern, and what arrived at the gates.
#[derive(Default)]
pub(crate) struct Pass<T> {
    slots: Vec<Vec<T>>,
    /// Pre-activations by layer of gates.
    pub(crate) gates: Vec<Vec<T>>,
    pub(crate) logits: Vec<T>,
}

impl<T: Scalar> Pass<T> {
    /// Runs the affine map of the pattern, or its linear part.
    pub(crate) fn run(
        &mut self,
        network: &Network<T>,
        pattern: &ActivationPattern,
        input: ArrayView1<T>,
        affine: bool,
    ) {
        crate::trace::resize_slots(&mut self.slots, network, 1);
        let pairs = self.slots[0].iter_mut().zip(input);
        pairs.for_each(|(to, &from)| *to = from);
        self.gates.clear();
        let parameters = network.parameters().values();
        for node in &network.nodes {
            let mut out = std::mem::take(&mut self.slots[node.slot]);
            let value = |input: usize| &self.slots[network.nodes[input].slot][..];
            match &node.operation {
                Operation::Input => {}
                Operation::Dense(dense) if affine => {
                    dense.forward(parameters, value(node.inputs[0]), &mut out);
                }
                Operation::Dense(dense) => {
                    dense.tangent(parameters, value(node.inputs[0]), &mut out);
                }
                Operation::Add => {
                    for (i, &input) in node.inputs.iter().enumerate() {
                        add_or_copy(value(input), i > 0, &mut out);
                    }
                }
                Operation::Gate(gate) => {
                    if !node.in_place(&network.nodes) {
                        out.copy_from_slice(value(node.inputs[0]));
                    }
                    self.gates.push(out.clone());
                    let words = pattern.words(gate.index, &(0..1));
                    gate.scale(parameters, words, 1, &mut out);
                }
            }
            self.slots[node.slot] = out;
        }
        self.logits.clone_from(&self.slots[network.output().slot]);
    }
}
