//! The operations that select: gates with a slope for every unit, and maxima.

mod gate;
mod max;
mod slope;

pub use gate::Gate;

use rayon::prelude::*;

use super::map::{GateKind, GateMap, add_or_copy};
use crate::parallel::least_together;
use crate::pattern::{ActivationPattern, LayerView};
use crate::scalar::Scalar;

pub(crate) use max::MaxGate;
pub(crate) use slope::{SlopeGate, Slopes};

/// What gates of one layer found in a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Units of the sample that are exactly on a kink.
    pub(crate) kinks: u32,
    /// Whether something that arrived was not finite.
    pub(crate) broken: bool,
}

impl Found {
    /// Counts the sample's units on a kink; the result is the sample if something was not finite.
    fn note(self, sample: usize, kinks: &mut u32) -> Option<usize> {
        *kinks += self.kinks;
        self.broken.then_some(sample)
    }
}

impl GateMap {
    /// Runs a batch through the layer: `out` is what the gates make of `input`, or, without it, of
    /// what `out` holds.
    ///
    /// Writes the pattern and adds units on a kink to `kinks`. Returns the first sample with a
    /// value that is not finite.
    pub(crate) fn forward<'i, T: Scalar>(
        &self,
        parameters: &[T],
        input: Option<&'i [T]>,
        out: &mut [T],
        pattern: &mut ActivationPattern,
        kinks: &mut [u32],
    ) -> Option<usize> {
        let samples = kinks.len();
        let (operations, units) = (out.len(), out.len() / samples);
        let together = least_together(operations, samples);
        let (layer, before) = pattern.write(self.layer);
        let arriving = |input: &'i [T], sample: usize| {
            let length = input.len() / samples;
            &input[sample * length..(sample + 1) * length]
        };
        let each = out.par_chunks_mut(units).zip(kinks).enumerate();
        let each = each.with_min_len(together);
        match &self.kind {
            GateKind::Slope(gate) => each
                .zip(layer.bits.par_chunks_mut(layer.words))
                .filter_map(|((sample, (out, kinks)), bits)| {
                    if let Some(input) = input {
                        out.copy_from_slice(arriving(input, sample));
                    }
                    gate.select(parameters, out, bits).note(sample, kinks)
                })
                .min(),
            GateKind::Max(max) => {
                let input = input.expect("a maximum has a buffer of its own");
                let gates = max.constant().map(|layer| before.view(layer));
                each.zip(layer.choices.par_chunks_mut(units))
                    .filter_map(|((sample, (out, kinks)), choices)| {
                        let constant = |i| gates.is_some_and(|g: LayerView| g.unit(sample, i) != 1);
                        let input = arriving(input, sample);
                        let found = max.select(input, constant, choices, out);
                        found.note(sample, kinks)
                    })
                    .min()
            }
        }
    }

    /// Tangents through the gates that `layer` selects, `rows` for each sample; in place without
    /// `input`.
    pub(crate) fn tangent<T: Scalar>(
        &self,
        parameters: &[T],
        layer: &LayerView,
        rows: usize,
        input: Option<&[T]>,
        out: &mut [T],
    ) {
        match (&self.kind, input) {
            (GateKind::Slope(gate), input) => {
                if let Some(input) = input {
                    out.copy_from_slice(input);
                }
                gate.scale(parameters, layer, rows, out);
            }
            (GateKind::Max(max), Some(input)) => max.apply(layer, rows, input, out),
            (GateKind::Max(_), None) => unreachable!("a maximum has a buffer of its own"),
        }
    }

    /// The pieces that `layer` selects, of values, or like [`tangent`](Self::tangent) their linear
    /// parts.
    pub(crate) fn piece<T: Scalar>(
        &self,
        parameters: &[T],
        layer: &LayerView,
        rows: usize,
        input: Option<&[T]>,
        affine: bool,
        out: &mut [T],
    ) {
        self.tangent(parameters, layer, rows, input, out);
        if let GateKind::Slope(gate) = &self.kind
            && affine
        {
            gate.add_bounds(layer, out);
        }
    }

    /// Cotangents `c` through the gates that `layer` selects, added to `below` if `accumulate`.
    pub(crate) fn cotangent<T: Scalar>(
        &self,
        parameters: &[T],
        layer: &LayerView,
        rows: usize,
        c: &[T],
        accumulate: bool,
        below: &mut [T],
    ) {
        match &self.kind {
            GateKind::Slope(gate) if accumulate => {
                let mut scaled = c.to_vec();
                gate.scale(parameters, layer, rows, &mut scaled);
                add_or_copy(&scaled, true, below);
            }
            GateKind::Slope(gate) => {
                add_or_copy(c, false, below);
                gate.scale(parameters, layer, rows, below);
            }
            GateKind::Max(max) => max.transpose(layer, rows, c, accumulate, below),
        }
    }
}
