//! Activation patterns: what every gate of every sample selects, packed into bits.

use std::ops::Range;

use crate::network::{Network, Operation};
use crate::scalar::Scalar;

/// The activation pattern of a batch: one bit per gate and sample, set where the unit is active (`z > 0`).
///
/// Inputs with the same pattern lie in the same activation region, a convex polyhedron on which the network is
/// affine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActivationPattern {
    samples: usize,
    layers: Vec<Layer>,
}

/// The bits of one layer of gates: `[samples, words]`, unit `j` in bit `j mod 64` of word `j / 64`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Layer {
    width: usize,
    words: usize,
    bits: Vec<u64>,
}

impl ActivationPattern {
    /// Number of samples.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// Number of layers of gates.
    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    /// Number of gates in a layer.
    ///
    /// # Panics
    /// If there is no such layer.
    pub fn width(&self, layer: usize) -> usize {
        self.layers[layer].width
    }

    /// Whether a unit is active.
    ///
    /// # Panics
    /// If there is no such sample, layer or unit.
    pub fn is_active(&self, sample: usize, layer: usize, unit: usize) -> bool {
        let Layer { width, words, bits } = &self.layers[layer];
        assert!(
            sample < self.samples && unit < *width,
            "no unit {unit} of sample {sample} in layer {layer}"
        );
        bits[sample * words + unit / 64] >> (unit % 64) & 1 == 1
    }

    /// Number of active units of one sample in all layers.
    ///
    /// # Panics
    /// If there is no such sample.
    pub fn active(&self, sample: usize) -> usize {
        let words = self.layers.iter().flat_map(|layer| layer.sample(sample));
        words.map(|word| word.count_ones() as usize).sum()
    }

    /// Whether two samples, possibly of two batches through one network, lie in the same activation region.
    ///
    /// # Panics
    /// If there is no such sample.
    pub fn same_region(
        &self,
        sample: usize,
        other: &ActivationPattern,
        other_sample: usize,
    ) -> bool {
        self.layers.len() == other.layers.len()
            && self
                .layers
                .iter()
                .zip(&other.layers)
                .all(|(a, b)| a.width == b.width && a.sample(sample) == b.sample(other_sample))
    }

    /// Makes room for a batch through `network`.
    pub(crate) fn resize<T: Scalar>(&mut self, network: &Network<T>, samples: usize) {
        let gates = network
            .nodes
            .iter()
            .filter_map(|node| match &node.operation {
                Operation::Gate(gate) => Some((node.width, gate.words())),
                _ => None,
            });
        self.samples = samples;
        self.layers
            .resize_with(gates.clone().count(), Layer::default);
        for (layer, (width, words)) in self.layers.iter_mut().zip(gates) {
            (layer.width, layer.words) = (width, words);
            layer.bits.resize(samples * words, 0);
        }
    }

    /// The words of a range of samples in one layer.
    pub(crate) fn words(&self, layer: usize, samples: &Range<usize>) -> &[u64] {
        let Layer { words, bits, .. } = &self.layers[layer];
        &bits[samples.start * words..samples.end * words]
    }

    /// Switches a unit of the first sample.
    pub(crate) fn flip(&mut self, layer: usize, unit: usize) {
        self.layers[layer].bits[unit / 64] ^= 1 << (unit % 64);
    }

    pub(crate) fn words_mut(&mut self, layer: usize) -> &mut [u64] {
        &mut self.layers[layer].bits
    }
}

impl Layer {
    fn sample(&self, sample: usize) -> &[u64] {
        &self.bits[sample * self.words..(sample + 1) * self.words]
    }
}
