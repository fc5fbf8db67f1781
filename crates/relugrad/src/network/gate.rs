//! Two-sloped gates: ReLU, leaky ReLU, PReLU and the absolute value.
//!
//! Each is `z` where `z > 0` (the unit is *active*) and `α z` elsewhere, so its pattern is one bit per unit. At
//! an exact zero the unit is inactive and its derivative is `α`; for ReLU this is the convention ReLU'(0) = 0.

use std::ops::Range;

use rayon::prelude::*;

use crate::parallel::{for_each_chunk, worthwhile};
use crate::scalar::Scalar;

/// Which gate a unit applies to its pre-activation `z`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Gate {
    /// `max(z, 0)`.
    Relu,
    /// `z` for `z > 0`, otherwise `slope · z` with a fixed slope.
    LeakyRelu {
        /// Slope of the inactive side; any finite number.
        slope: f64,
    },
    /// Like leaky ReLU with one learned slope per unit.
    PRelu {
        /// Slope of every unit before training.
        initial: f64,
    },
    /// `|z|`.
    Abs,
}

impl Gate {
    /// Its name in files and options.
    pub fn name(self) -> &'static str {
        match self {
            Gate::Relu => "relu",
            Gate::LeakyRelu { .. } => "leaky-relu",
            Gate::PRelu { .. } => "prelu",
            Gate::Abs => "abs",
        }
    }

    /// Slope of the inactive side (before training, for PReLU).
    pub fn inactive_slope(self) -> f64 {
        match self {
            Gate::Relu => 0.0,
            Gate::LeakyRelu { slope } => slope,
            Gate::PRelu { initial } => initial,
            Gate::Abs => -1.0,
        }
    }
}

/// A layer of gates, one per unit.
#[derive(Clone, Debug)]
pub(crate) struct GateOperation {
    gate: Gate,
    width: usize,
    /// Where learned slopes are in the flat vector of all parameters.
    pub(crate) slopes: Option<Range<usize>>,
    /// Which part of an activation pattern belongs to this layer.
    pub(crate) index: usize,
}

/// Units whose bits share one word of the pattern.
pub(crate) const WORD: usize = u64::BITS as usize;

impl GateOperation {
    pub(crate) fn new(
        gate: Gate,
        width: usize,
        slopes: Option<Range<usize>>,
        index: usize,
    ) -> GateOperation {
        GateOperation {
            gate,
            width,
            slopes,
            index,
        }
    }

    pub(crate) fn gate(&self) -> Gate {
        self.gate
    }

    /// Words of the pattern for one sample.
    pub(crate) fn words(&self) -> usize {
        self.width.div_ceil(WORD)
    }

    /// Replaces pre-activations by activations, records the pattern and adds exact zeros to `kinks`.
    ///
    /// `values: [samples, width]`, `words: [samples, words]`, `kinks: [samples]`. Returns the first sample with
    /// a value that is not finite.
    pub(crate) fn forward<T: Scalar>(
        &self,
        parameters: &[T],
        values: &mut [T],
        words: &mut [u64],
        kinks: &mut [u32],
    ) -> Option<usize> {
        let together = if worthwhile(values.len()) {
            1
        } else {
            kinks.len()
        };
        values
            .par_chunks_mut(self.width)
            .zip(words.par_chunks_mut(self.words()))
            .zip(kinks)
            .enumerate()
            .with_min_len(together)
            .filter_map(|(sample, ((z, words), kinks))| {
                let (zeros, finite) = self.select(parameters, z, words);
                *kinks += zeros;
                (!finite).then_some(sample)
            })
            .min()
    }

    /// One sample of [`forward`](Self::forward): the number of exact zeros, and whether all is finite.
    fn select<T: Scalar>(&self, parameters: &[T], z: &mut [T], words: &mut [u64]) -> (u32, bool) {
        let (mut zeros, mut finite) = (0, true);
        for (w, (z, word)) in z.chunks_mut(WORD).zip(words).enumerate() {
            *word = 0;
            for (j, z) in z.iter_mut().enumerate() {
                let active = *z > T::ZERO;
                *word |= u64::from(active) << j;
                zeros += u32::from(*z == T::ZERO);
                finite &= z.is_finite();
                if !active {
                    *z *= self.slope(parameters, w * WORD + j);
                }
            }
        }
        (zeros, finite)
    }

    /// Multiplies each of the `rows` rows of each sample by the slopes that its pattern selects.
    ///
    /// The map is diagonal, so it serves tangents and cotangents alike. `data: [samples, rows, width]`.
    pub(crate) fn scale<T: Scalar>(
        &self,
        parameters: &[T],
        words: &[u64],
        rows: usize,
        data: &mut [T],
    ) {
        let per_sample = self.words();
        let operations = data.len();
        for_each_chunk(data, rows * self.width, operations, |sample, data| {
            let words = &words[sample * per_sample..(sample + 1) * per_sample];
            for (w, &word) in words.iter().enumerate() {
                let start = w * WORD;
                let length = WORD.min(self.width - start);
                let slopes = self.selected(parameters, word, start, length);
                for row in data.chunks_exact_mut(self.width) {
                    let row = &mut row[start..start + length];
                    for (entry, &slope) in row.iter_mut().zip(&slopes) {
                        *entry *= slope;
                    }
                }
            }
        });
    }

    /// `∂/∂α_j += scale Σ c_j t_j` over all rows in which unit `j` is inactive, for learned slopes.
    ///
    /// `c` are cotangents above the gate, `t` tangents (or pre-activations) below it, `[samples, rows, width]`.
    pub(crate) fn slope_gradient<T: Scalar>(
        &self,
        words: &[u64],
        rows: usize,
        pair: (&[T], &[T]),
        scale: T,
        gradient: &mut [T],
    ) {
        let Some(range) = self.slopes.clone() else {
            return;
        };
        let gradient = &mut gradient[range];
        let pairs = pair
            .0
            .chunks_exact(self.width)
            .zip(pair.1.chunks_exact(self.width));
        for (row, (c, t)) in pairs.enumerate() {
            let words = &words[row / rows * self.words()..];
            for (j, sum) in gradient.iter_mut().enumerate() {
                if words[j / WORD] >> (j % WORD) & 1 == 0 {
                    *sum += scale * c[j] * t[j];
                }
            }
        }
    }

    fn slope<T: Scalar>(&self, parameters: &[T], unit: usize) -> T {
        match &self.slopes {
            Some(range) => parameters[range.start + unit],
            None => T::from_f64(self.gate.inactive_slope()),
        }
    }

    /// The slopes of `length` units from `start`, whose bits are in `word`.
    fn selected<T: Scalar>(
        &self,
        parameters: &[T],
        word: u64,
        start: usize,
        length: usize,
    ) -> [T; WORD] {
        let mut slopes = [T::ONE; WORD];
        for (j, slope) in slopes[..length].iter_mut().enumerate() {
            if word >> j & 1 == 0 {
                *slope = self.slope(parameters, start + j);
            }
        }
        slopes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward(gate: Gate, z: &[f64]) -> (Vec<f64>, u64, u32) {
        let operation = GateOperation::new(gate, z.len(), None, 0);
        let (mut a, mut words, mut kinks) = (z.to_vec(), [u64::MAX], [0]);
        assert_eq!(operation.forward(&[], &mut a, &mut words, &mut kinks), None);
        (a, words[0], kinks[0])
    }

    #[test]
    fn gates_select_by_sign_and_zero_is_inactive() {
        let z = [1.5, -2.0, 0.0];
        assert_eq!(forward(Gate::Relu, &z), (vec![1.5, 0.0, 0.0], 0b001, 1));
        let leaky = Gate::LeakyRelu { slope: 0.25 };
        assert_eq!(forward(leaky, &z), (vec![1.5, -0.5, 0.0], 0b001, 1));
        assert_eq!(forward(Gate::Abs, &z), (vec![1.5, 2.0, 0.0], 0b001, 1));
    }

    #[test]
    fn derivative_at_an_exact_zero_is_the_inactive_slope() {
        for (gate, slope) in [(Gate::Relu, 0.0), (Gate::Abs, -1.0)] {
            let operation = GateOperation::new(gate, 1, None, 0);
            let mut t = [3.0];
            operation.scale(&[], &[0], 1, &mut t);
            assert_eq!(t, [3.0 * slope]);
        }
    }

    #[test]
    fn nan_is_reported_though_relu_would_hide_it() {
        let operation = GateOperation::new(Gate::Relu, 1, None, 0);
        let mut z = [1.0, f64::NAN];
        let found = operation.forward(&[], &mut z, &mut [0, 0], &mut [0, 0]);
        assert_eq!(found, Some(1));
    }

    #[test]
    fn learned_slope_collects_only_inactive_units() {
        let gate = Gate::PRelu { initial: 0.5 };
        let operation = GateOperation::new(gate, 2, Some(0..2), 0);
        let mut gradient = [0.0, 0.0];
        let (c, t) = ([1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]);
        operation.slope_gradient(&[0b01], 2, (&c, &t), 1.0, &mut gradient);
        assert_eq!(gradient, [0.0, 2.0 * 6.0 + 4.0 * 8.0]);
    }

    #[test]
    fn units_beyond_one_word_use_their_own_bits() {
        let z: Vec<f64> = (0..130)
            .map(|i| if i % 3 == 0 { 1.0 } else { -1.0 })
            .collect();
        let operation = GateOperation::new(Gate::Relu, 130, None, 0);
        let (mut a, mut words) = (z.clone(), vec![0; 3]);
        operation.forward(&[], &mut a, &mut words, &mut [0]);
        let mut t = vec![2.0; 260];
        operation.scale(&[], &words, 2, &mut t);
        let expected = |j: usize| if z[j % 130] > 0.0 { 2.0 } else { 0.0 };
        assert!((0..260).all(|j| t[j] == expected(j)));
    }
}
