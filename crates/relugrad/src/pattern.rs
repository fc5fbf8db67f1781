//! Activation patterns: what every gate of every sample selects, packed.

use std::ops::Range;

/// Units whose bits share one word of a pattern.
pub(crate) const WORD: usize = u64::BITS as usize;

/// The activation pattern of a batch: what every gate selects.
///
/// A gate with two slopes has one bit, set where the unit is active (`z > 0`); a clip has two; a
/// maximum has the place of its winner. Inputs with the same pattern lie in the same activation
/// region, a convex polyhedron on which the network is affine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ActivationPattern {
    samples: usize,
    layers: Vec<Layer>,
}

/// The pattern of one layer of gates: `[samples, planes, words]` bits, unit `j` in bit `j mod 64`
/// of word `j / 64`, or `[samples, units]` winners.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Layer {
    units: usize,
    /// Bits per unit; 0 for maxima.
    planes: usize,
    bits: Vec<u64>,
    choices: Vec<u32>,
}

/// The pattern of one layer at some samples.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LayerView<'a> {
    units: usize,
    planes: usize,
    bits: &'a [u64],
    choices: &'a [u32],
}

/// The pattern of one layer at all samples, to be written.
#[derive(Debug)]
pub(crate) struct LayerMut<'a> {
    /// Words of one sample.
    pub(crate) words: usize,
    pub(crate) bits: &'a mut [u64],
    pub(crate) choices: &'a mut [u32],
}

/// The layers before one that is being written.
#[derive(Clone, Copy)]
pub(crate) struct Before<'a>(&'a [Layer]);

impl<'a> Before<'a> {
    /// One of them, at all samples.
    pub(crate) fn view(self, layer: usize) -> LayerView<'a> {
        let Layer {
            units,
            planes,
            bits,
            choices,
        } = &self.0[layer];
        LayerView::new(*units, *planes, bits, choices)
    }
}

impl<'a> LayerView<'a> {
    pub(crate) fn new(
        units: usize,
        planes: usize,
        bits: &'a [u64],
        choices: &'a [u32],
    ) -> LayerView<'a> {
        LayerView {
            units,
            planes,
            bits,
            choices,
        }
    }

    fn words(&self) -> usize {
        self.units.div_ceil(WORD)
    }

    /// Number of gates.
    pub(crate) fn units(&self) -> usize {
        self.units
    }

    /// Number of samples of gates with slopes.
    pub(crate) fn samples(&self) -> usize {
        self.bits.len() / (self.planes * self.words())
    }

    /// The bits of the active units in word `word` of a sample: of a clip, those that are not
    /// beyond the upper bound.
    pub(crate) fn active(&self, sample: usize, word: usize) -> u64 {
        let start = sample * self.planes * self.words() + word;
        match self.planes {
            1 => self.bits[start],
            _ => self.bits[start] & !self.bits[start + self.words()],
        }
    }

    /// At which samples each unit is active: `[words, units]`, sample `b` in bit `b mod 64` of word
    /// `b / 64`.
    pub(crate) fn samples_of_units(&self, to: &mut Vec<u64>) {
        let samples = self.samples();
        to.clear();
        to.resize(samples.div_ceil(WORD) * self.units, 0);
        for (i, units) in to.chunks_exact_mut(self.units).enumerate() {
            for (word, units) in units.chunks_mut(WORD).enumerate() {
                let mut active = [0; WORD];
                for (sample, active) in (i * WORD..samples).zip(&mut active) {
                    *active = self.active(sample, word);
                }
                for (unit, to) in units.iter_mut().enumerate() {
                    let bits = active.iter().enumerate();
                    *to = bits.map(|(j, active)| (active >> unit & 1) << j).sum();
                }
            }
        }
    }

    /// The share of all units of all samples that are active.
    pub(crate) fn active_share(&self) -> f64 {
        let samples = self.samples();
        let words = (0..samples).flat_map(|i| (0..self.words()).map(move |word| (i, word)));
        let active = words.map(|(i, word)| self.active(i, word).count_ones() as usize);
        active.sum::<usize>() as f64 / (samples * self.units) as f64
    }

    /// The winners of a sample.
    pub(crate) fn sample_choices(&self, sample: usize) -> &'a [u32] {
        &self.choices[sample * self.units..(sample + 1) * self.units]
    }

    /// What a unit selects, as [`ActivationPattern::choice`] tells it.
    pub(crate) fn unit(&self, sample: usize, unit: usize) -> usize {
        if self.planes == 0 {
            return self.sample_choices(sample)[unit] as usize;
        }
        let bit = |plane: usize| {
            let word = (sample * self.planes + plane) * self.words() + unit / WORD;
            (self.bits[word] >> (unit % WORD) & 1) as usize
        };
        (0..self.planes).map(bit).sum()
    }
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
        self.layers[layer].units
    }

    /// What a unit selects: 0 inactive or 1 active; for a clip 0 below, 1 between and 2 above its
    /// bounds; for a maximum the place of the winner in its window.
    ///
    /// # Panics
    /// If there is no such sample, layer or unit.
    pub fn choice(&self, sample: usize, layer: usize, unit: usize) -> usize {
        assert!(
            sample < self.samples && unit < self.width(layer),
            "no unit {unit} of sample {sample} in layer {layer}"
        );
        self.view(layer, &(0..self.samples)).unit(sample, unit)
    }

    /// Whether a unit is active: its [`choice`](Self::choice) is 1. A unit of a maximum always is.
    ///
    /// # Panics
    /// If there is no such sample, layer or unit.
    pub fn is_active(&self, sample: usize, layer: usize, unit: usize) -> bool {
        let choice = self.choice(sample, layer, unit);
        choice == 1 || self.layers[layer].planes == 0
    }

    /// The pattern of one sample alone.
    ///
    /// # Panics
    /// If there is no such sample.
    pub fn of_sample(&self, sample: usize) -> ActivationPattern {
        assert!(sample < self.samples, "no sample {sample}");
        let layers = self.layers.iter().map(|layer| {
            let (bits, choices) = layer.sample(sample);
            Layer {
                units: layer.units,
                planes: layer.planes,
                bits: bits.to_vec(),
                choices: choices.to_vec(),
            }
        });
        ActivationPattern {
            samples: 1,
            layers: layers.collect(),
        }
    }

    /// Number of active units of one sample in all layers; those of maxima are not counted.
    ///
    /// # Panics
    /// If there is no such sample.
    pub fn active(&self, sample: usize) -> usize {
        let count = |layer: usize| {
            let view = self.view(layer, &(0..self.samples));
            let words = (0..view.words()).filter(|_| view.planes > 0);
            let ones = words.map(|word| view.active(sample, word).count_ones() as usize);
            ones.sum::<usize>()
        };
        (0..self.layers()).map(count).sum()
    }

    /// Whether two samples, possibly of two batches through one network, lie in the same activation
    /// region.
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
            && self.layers.iter().zip(&other.layers).all(|(a, b)| {
                (a.units, a.planes) == (b.units, b.planes)
                    && a.sample(sample) == b.sample(other_sample)
            })
    }

    /// Lets a unit of the first sample select more than `choice`.
    pub(crate) fn raise(&mut self, layer: usize, unit: usize, choice: usize) {
        let layer = &mut self.layers[layer];
        let word = choice * layer.units.div_ceil(WORD) + unit / WORD;
        layer.bits[word] |= 1 << (unit % WORD);
    }

    /// Lets the entry at a place win at a maximum of the first sample.
    pub(crate) fn choose(&mut self, layer: usize, unit: usize, place: usize) {
        self.layers[layer].choices[unit] = place as u32;
    }

    /// The patterns of single samples through one network, as those of a batch.
    pub(crate) fn of_samples<'p>(
        patterns: impl Iterator<Item = &'p ActivationPattern>,
    ) -> ActivationPattern {
        let mut all = ActivationPattern::default();
        for pattern in patterns {
            all.samples += pattern.samples;
            if all.layers.is_empty() {
                all.layers.clone_from(&pattern.layers);
                continue;
            }
            for (to, from) in all.layers.iter_mut().zip(&pattern.layers) {
                to.bits.extend(&from.bits);
                to.choices.extend(&from.choices);
            }
        }
        all
    }

    /// Makes room for a batch through layers with so many units, and bits of each; 0 for maxima.
    pub(crate) fn resize(
        &mut self,
        samples: usize,
        shapes: impl Iterator<Item = (usize, usize)> + Clone,
    ) {
        self.samples = samples;
        self.layers
            .resize_with(shapes.clone().count(), Layer::default);
        for (layer, shape) in self.layers.iter_mut().zip(shapes) {
            (layer.units, layer.planes) = shape;
            layer.bits.resize(samples * layer.words(), 0);
            let choices = layer.choices_per_sample();
            layer.choices.resize(samples * choices, 0);
        }
    }

    /// One layer at a range of samples.
    pub(crate) fn view(&self, layer: usize, samples: &Range<usize>) -> LayerView<'_> {
        let layer = &self.layers[layer];
        let (bits, choices) = (layer.words(), layer.choices_per_sample());
        LayerView {
            units: layer.units,
            planes: layer.planes,
            bits: &layer.bits[samples.start * bits..samples.end * bits],
            choices: &layer.choices[samples.start * choices..samples.end * choices],
        }
    }

    /// One layer of all samples, to be written, and the layers before it.
    pub(crate) fn write(&mut self, layer: usize) -> (LayerMut<'_>, Before<'_>) {
        let (before, rest) = self.layers.split_at_mut(layer);
        let layer = &mut rest[0];
        let to_write = LayerMut {
            words: layer.words(),
            bits: &mut layer.bits,
            choices: &mut layer.choices,
        };
        (to_write, Before(before))
    }

    /// Switches a bit of a unit of the first sample.
    pub(crate) fn flip(&mut self, layer: usize, plane: usize, unit: usize) {
        let layer = &mut self.layers[layer];
        let word = plane * layer.units.div_ceil(WORD) + unit / WORD;
        layer.bits[word] ^= 1 << (unit % WORD);
    }
}

impl Layer {
    /// Words of one sample.
    fn words(&self) -> usize {
        self.planes * self.units.div_ceil(WORD)
    }

    fn choices_per_sample(&self) -> usize {
        if self.planes == 0 { self.units } else { 0 }
    }

    fn sample(&self, sample: usize) -> (&[u64], &[u32]) {
        let (words, choices) = (self.words(), self.choices_per_sample());
        (
            &self.bits[sample * words..(sample + 1) * words],
            &self.choices[sample * choices..(sample + 1) * choices],
        )
    }
}
