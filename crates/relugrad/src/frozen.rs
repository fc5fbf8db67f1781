//! The frozen network of a pattern: every gate keeps its piece, whatever arrives at it (`docs/theory.md`, section 1.2).

use ndarray::ArrayView1;

use crate::network::map::{GateKind, GateMap, Given};
use crate::network::{Network, Node};
use crate::pattern::{ActivationPattern, LayerView};
use crate::scalar::Scalar;

/// One row through the network with a given pattern, and how far its gates are from selecting otherwise.
#[derive(Default)]
pub(crate) struct Pass<T> {
    slots: Vec<Vec<T>>,
    /// Margins by layer of gates, unit by unit: how far beyond the hyperplane between what the unit selects and what it
    /// could select instead. They are not negative where the pattern is the right one.
    ///
    /// A gate with two slopes has one, a clip has one for each bound (all lower bounds first), and a maximum one for
    /// each of the other entries of its window.
    pub(crate) faces: Vec<Vec<T>>,
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
        crate::trace::resize_slots(&mut self.slots, network, 1, true);
        let pairs = self.slots[0].iter_mut().zip(input);
        pairs.for_each(|(to, &from)| *to = from);
        self.faces.clear();
        for node in &network.nodes {
            self.step(network, pattern, node, affine);
        }
        self.logits.clone_from(&self.slots[network.output().slot]);
    }

    fn step(
        &mut self,
        network: &Network<T>,
        pattern: &ActivationPattern,
        node: &Node,
        affine: bool,
    ) {
        let parameters = network.parameters().values();
        let in_place = node.in_place(&network.nodes);
        let mut out = std::mem::take(&mut self.slots[node.slot]);
        let value = |input: usize| &self.slots[network.nodes[input].slot][..];
        if let Some(gate) = node.map.gate() {
            let layer = pattern.view(gate.layer, &(0..1));
            let input = (!in_place).then(|| value(node.inputs[0]));
            self.faces
                .push(faces(gate, &layer, input.unwrap_or(&out), affine));
            gate.tangent(parameters, &layer, 1, input, &mut out);
            if let GateKind::Slope(gate) = &gate.kind
                && affine
            {
                gate.add_bounds(&layer, &mut out);
            }
        } else if let Some(map) = node.map.affine::<T>()
            && !in_place
        {
            let inputs: Vec<&[T]> = node.inputs.iter().map(|&i| value(i)).collect();
            map.apply(
                Given {
                    parameters,
                    rows: 1,
                },
                &inputs,
                affine,
                &mut out,
            );
        }
        self.slots[node.slot] = out;
    }
}

/// The margins of one layer, or with `affine` false their linear parts, from what arrives at it.
fn faces<T: Scalar>(gate: &GateMap, layer: &LayerView, z: &[T], affine: bool) -> Vec<T> {
    match &gate.kind {
        GateKind::Slope(slope) => {
            let bounds = match slope.bounds() {
                Some((min, max)) => vec![min, max],
                None => vec![0.0],
            };
            let face = |(plane, bound): (usize, &f64)| {
                let bound = T::from_f64(if affine { *bound } else { 0.0 });
                let margin = move |(unit, &z): (usize, &T)| {
                    let beyond = layer.unit(0, unit) > plane;
                    if beyond { z - bound } else { bound - z }
                };
                z.iter().enumerate().map(margin).collect::<Vec<T>>()
            };
            bounds.iter().enumerate().flat_map(face).collect()
        }
        GateKind::Max(max) => {
            let mut margins = Vec::with_capacity(max.total_members() - max.units());
            for unit in 0..max.units() {
                let members: Vec<T> = max.members(unit).map(|i| z[i]).collect();
                let winner = layer.unit(0, unit);
                let rivals = members
                    .iter()
                    .enumerate()
                    .filter(|(place, _)| *place != winner);
                margins.extend(rivals.map(|(_, &value)| members[winner] - value));
            }
            margins
        }
    }
}
