//! Gates with a slope for every unit.

use std::sync::Arc;

use pulp::{Arch, Simd, WithSimd};

use super::{Found, Gate};
use crate::parallel::for_each_chunk;
use crate::pattern::{LayerView, WORD};
use crate::scalar::Scalar;

/// A layer of gates, one per unit.
#[derive(Clone, Debug)]
pub(crate) struct SlopeGate {
    gate: Gate,
    width: usize,
    pub(crate) slopes: Option<Slopes>,
}

/// Learned slopes.
#[derive(Clone, Debug)]
pub(crate) struct Slopes {
    /// Where they start in the flat vector of all parameters.
    pub(crate) start: usize,
    /// Which of them belongs to each unit.
    pub(crate) index: Arc<[u32]>,
}

impl Slopes {
    fn place(&self, unit: usize) -> usize {
        self.start + self.index[unit] as usize
    }
}

impl SlopeGate {
    pub(crate) fn new(gate: Gate, width: usize, slopes: Option<Slopes>) -> SlopeGate {
        SlopeGate {
            gate,
            width,
            slopes,
        }
    }

    /// Number of units.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// The bounds of a clip.
    pub(crate) fn bounds(&self) -> Option<(f64, f64)> {
        self.gate.bounds()
    }

    /// Whether inactive units are constant.
    pub(crate) fn inactive_is_constant(&self) -> bool {
        self.gate.inactive_is_constant()
    }

    /// Replaces the pre-activations of one sample by activations and records the pattern.
    pub(crate) fn select<T: Scalar>(
        &self,
        parameters: &[T],
        z: &mut [T],
        bits: &mut [u64],
    ) -> Found {
        match self.bounds() {
            Some(bounds) => clip(bounds, z, bits),
            None => self.select_sign(parameters, z, bits),
        }
    }

    fn select_sign<T: Scalar>(&self, parameters: &[T], z: &mut [T], words: &mut [u64]) -> Found {
        Arch::new().dispatch(Select {
            gate: self,
            parameters,
            z,
            words,
        })
    }

    /// Multiplies each of the `rows` rows of each sample by the slopes that its pattern selects.
    ///
    /// The map is diagonal, so it serves tangents and cotangents alike.
    /// `data: [samples, rows, width]`.
    pub(crate) fn scale<T: Scalar>(
        &self,
        parameters: &[T],
        layer: &LayerView,
        rows: usize,
        data: &mut [T],
    ) {
        let operations = data.len();
        for_each_chunk(data, rows * self.width, operations, |sample, data| {
            Arch::new().dispatch(Scale {
                gate: self,
                parameters,
                active: |word| layer.active(sample, word),
                data,
            });
        });
    }

    /// Replaces what [`scale`](Self::scale) has made 0 by the bound at which the first sample's
    /// unit is clipped.
    pub(crate) fn add_bounds<T: Scalar>(&self, layer: &LayerView, data: &mut [T]) {
        let Some((min, max)) = self.bounds() else {
            return;
        };
        for (unit, entry) in data.iter_mut().enumerate() {
            match layer.unit(0, unit) {
                0 => *entry = T::from_f64(min),
                1 => {}
                _ => *entry = T::from_f64(max),
            }
        }
    }

    /// `∂/∂α_j += scale Σ c_j t_j` over all rows in which unit `j` is inactive, for learned slopes.
    ///
    /// `c` are cotangents above the gate, `t` tangents (or pre-activations) below it,
    /// `[samples, rows, width]`.
    pub(crate) fn slope_gradient<T: Scalar>(
        &self,
        layer: &LayerView,
        rows: usize,
        pair: (&[T], &[T]),
        scale: T,
        gradient: &mut [T],
    ) {
        let Some(slopes) = &self.slopes else {
            return;
        };
        let pairs = pair
            .0
            .chunks_exact(self.width)
            .zip(pair.1.chunks_exact(self.width));
        for (row, (c, t)) in pairs.enumerate() {
            for j in 0..self.width {
                if layer.active(row / rows, j / WORD) >> (j % WORD) & 1 == 0 {
                    gradient[slopes.place(j)] += scale * c[j] * t[j];
                }
            }
        }
    }

    /// The slope of a unit's inactive side.
    pub(crate) fn slope<T: Scalar>(&self, parameters: &[T], unit: usize) -> T {
        match &self.slopes {
            Some(slopes) => parameters[slopes.place(unit)],
            None => T::from_f64(self.gate.inactive_slope()),
        }
    }

    /// The inactive slopes of the units of one word, of which there are `length`, where they are
    /// learned.
    fn learned<T: Scalar>(
        &self,
        parameters: &[T],
        (word, length): (usize, usize),
        slopes: &mut [T; WORD],
    ) {
        if self.slopes.is_some() {
            for (j, slope) in slopes[..length].iter_mut().enumerate() {
                *slope = self.slope(parameters, word * WORD + j);
            }
        }
    }
}

/// Selects the units of one sample.
struct Select<'a, T> {
    gate: &'a SlopeGate,
    parameters: &'a [T],
    z: &'a mut [T],
    words: &'a mut [u64],
}

impl<T: Scalar> WithSimd for Select<'_, T> {
    type Output = Found;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Found {
        let (mut kinks, mut finite) = (0, true);
        let mut slopes = [T::from_f64(self.gate.gate.inactive_slope()); WORD];
        for (w, (z, word)) in self.z.chunks_mut(WORD).zip(self.words).enumerate() {
            self.gate
                .learned(self.parameters, (w, z.len()), &mut slopes);
            let found = select_word(z, &slopes);
            *word = found.0;
            kinks += found.1;
            finite &= found.2;
        }
        Found {
            kinks,
            broken: !finite,
        }
    }
}

/// Selects up to [`WORD`] units: their bits, how many are at 0, and whether all are finite. Without
/// branches, since which units are active is as good as random.
#[inline(always)]
fn select_word<T: Scalar>(z: &mut [T], slopes: &[T; WORD]) -> (u64, u32, bool) {
    let (mut bits, mut kinks, mut finite) = (0, 0, true);
    for (j, (z, &slope)) in z.iter_mut().zip(slopes).enumerate() {
        let active = *z > T::ZERO;
        bits |= u64::from(active) << j;
        kinks += u32::from(*z == T::ZERO);
        finite &= z.is_finite();
        *z = if active { *z } else { slope * *z };
    }
    (bits, kinks, finite)
}

/// Multiplies the rows of one sample by the slopes that its pattern selects, of which `active`
/// tells the words.
struct Scale<'a, T, F> {
    gate: &'a SlopeGate,
    parameters: &'a [T],
    active: F,
    data: &'a mut [T],
}

impl<T: Scalar, F: Fn(usize) -> u64> WithSimd for Scale<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let width = self.gate.width;
        let mut inactive = [T::from_f64(self.gate.gate.inactive_slope()); WORD];
        for word in 0..width.div_ceil(WORD) {
            let units = word * WORD..width.min((word + 1) * WORD);
            self.gate
                .learned(self.parameters, (word, units.len()), &mut inactive);
            let slopes = open((self.active)(word), &inactive);
            for row in self.data.chunks_exact_mut(width) {
                let pairs = row[units.clone()].iter_mut().zip(&slopes);
                pairs.for_each(|(entry, &slope)| *entry *= slope);
            }
        }
    }
}

/// The slopes with 1 for the units whose bits are set.
#[inline(always)]
fn open<T: Scalar>(word: u64, inactive: &[T; WORD]) -> [T; WORD] {
    let mut slopes = *inactive;
    for (half, slopes) in slopes.chunks_exact_mut(WORD / 2).enumerate() {
        let bits = (word >> (half * WORD / 2)) as u32;
        for (j, slope) in slopes.iter_mut().enumerate() {
            *slope = if bits >> j & 1 == 1 { T::ONE } else { *slope };
        }
    }
    slopes
}

/// One sample of a clip: first the bits of `z > min`, then those of `z ≥ max`.
fn clip<T: Scalar>((min, max): (f64, f64), z: &mut [T], bits: &mut [u64]) -> Found {
    let (min, max) = (T::from_f64(min), T::from_f64(max));
    let mut found = Found::default();
    bits.fill(0);
    let (above, beyond) = bits.split_at_mut(bits.len() / 2);
    for (j, z) in z.iter_mut().enumerate() {
        let (word, bit) = (j / WORD, j % WORD);
        above[word] |= u64::from(*z > min) << bit;
        beyond[word] |= u64::from(*z >= max) << bit;
        found.kinks += u32::from(*z == min || *z == max);
        found.broken |= !z.is_finite();
        *z = if *z <= min { min } else { max.min(*z) };
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(bits: &[u64], units: usize, planes: usize) -> LayerView<'_> {
        LayerView::new(units, planes, bits, &[])
    }

    fn select(gate: Gate, z: &[f64]) -> (Vec<f64>, u64, u32) {
        let operation = SlopeGate::new(gate, z.len(), None);
        let (mut a, mut words) = (z.to_vec(), [u64::MAX]);
        let found = operation.select(&[], &mut a, &mut words);
        assert!(!found.broken);
        (a, words[0], found.kinks)
    }

    #[test]
    fn gates_select_by_sign_and_zero_is_inactive() {
        let z = [1.5, -2.0, 0.0];
        assert_eq!(select(Gate::Relu, &z), (vec![1.5, 0.0, 0.0], 0b001, 1));
        let leaky = Gate::LeakyRelu { slope: 0.25 };
        assert_eq!(select(leaky, &z), (vec![1.5, -0.5, 0.0], 0b001, 1));
        assert_eq!(select(Gate::Abs, &z), (vec![1.5, 2.0, 0.0], 0b001, 1));
    }

    #[test]
    fn a_clip_is_active_strictly_between_its_bounds() {
        let operation = SlopeGate::new(Gate::Clip { min: 0.0, max: 6.0 }, 5, None);
        let (mut a, mut words) = ([-1.0, 0.0, 3.0, 6.0, 7.0], [0, 0]);
        let found = operation.select(&[], &mut a, &mut words);
        assert_eq!(a, [0.0, 0.0, 3.0, 6.0, 6.0]);
        assert_eq!((words, found.kinks), ([0b11100, 0b11000], 2));
        let (mut t, view) = ([1.0; 5], view(&words, 5, 2));
        operation.scale(&[], &view, 1, &mut t);
        assert_eq!(t, [0.0, 0.0, 1.0, 0.0, 0.0]);
        operation.add_bounds(&view, &mut t);
        assert_eq!(t, [0.0, 0.0, 1.0, 6.0, 6.0]);
    }

    #[test]
    fn derivative_at_an_exact_zero_is_the_inactive_slope() {
        for (gate, slope) in [(Gate::Relu, 0.0), (Gate::Abs, -1.0)] {
            let operation = SlopeGate::new(gate, 1, None);
            let mut t = [3.0];
            operation.scale(&[], &view(&[0], 1, 1), 1, &mut t);
            assert_eq!(t, [3.0 * slope]);
        }
    }

    #[test]
    fn nan_is_reported_though_relu_would_hide_it() {
        for gate in [Gate::Relu, Gate::Clip { min: 0.0, max: 1.0 }] {
            let operation = SlopeGate::new(gate, 2, None);
            let mut z = [1.0, f64::NAN];
            let found = operation.select(&[], &mut z, &mut [0, 0]);
            assert!(found.broken);
        }
    }

    #[test]
    fn learned_slope_collects_only_inactive_units() {
        let gate = Gate::PRelu { initial: 0.5 };
        let slopes = Slopes {
            start: 0,
            index: [0, 1].into(),
        };
        let operation = SlopeGate::new(gate, 2, Some(slopes));
        let mut gradient = [0.0, 0.0];
        let (c, t) = ([1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]);
        operation.slope_gradient(&view(&[0b01], 2, 1), 2, (&c, &t), 1.0, &mut gradient);
        assert_eq!(gradient, [0.0, 2.0 * 6.0 + 4.0 * 8.0]);
    }

    #[test]
    fn units_beyond_one_word_use_their_own_bits() {
        let z: Vec<f64> = (0..130)
            .map(|i| if i % 3 == 0 { 1.0 } else { -1.0 })
            .collect();
        let operation = SlopeGate::new(Gate::Relu, 130, None);
        let (mut a, mut words) = (z.clone(), vec![0; 3]);
        operation.select(&[], &mut a, &mut words);
        let mut t = vec![2.0; 260];
        operation.scale(&[], &view(&words, 130, 1), 2, &mut t);
        let expected = |j: usize| if z[j % 130] > 0.0 { 2.0 } else { 0.0 };
        assert!((0..260).all(|j| t[j] == expected(j)));
    }
}
