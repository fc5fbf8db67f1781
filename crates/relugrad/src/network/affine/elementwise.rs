//! Maps of every entry by itself: scaling, shifting, frozen batch normalisation.

use std::sync::Arc;

use crate::network::map::{AffineMap, Given, Share};
use crate::parallel::for_each_chunk;
use crate::scalar::Scalar;

/// `scale ⊙ (x − mean)/√(variance + ε) + shift`, any part of which may be missing.
#[derive(Clone, Debug)]
pub(crate) struct Elementwise {
    pub(crate) width: usize,
    pub(crate) scale: Option<Coefficient>,
    pub(crate) shift: Option<Coefficient>,
    pub(crate) normalization: Option<Normalization>,
}

/// An array that is broadcast to all entries.
#[derive(Clone, Debug)]
pub(crate) struct Coefficient {
    pub(crate) source: Source,
    /// Which of its numbers belongs to each entry.
    pub(crate) index: Arc<[u32]>,
}

/// Where the numbers of a coefficient are.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// So many from here on in the flat vector of all parameters.
    Parameter(usize),
    Constant(Arc<[f64]>),
}

/// Frozen statistics.
#[derive(Clone, Debug)]
pub(crate) struct Normalization {
    pub(crate) mean: Arc<[f64]>,
    /// `1/√(variance + ε)`.
    pub(crate) rate: Arc<[f64]>,
    pub(crate) index: Arc<[u32]>,
}

impl Coefficient {
    fn at<T: Scalar>(&self, parameters: &[T], entry: usize) -> T {
        let index = self.index[entry] as usize;
        match &self.source {
            Source::Parameter(start) => parameters[start + index],
            Source::Constant(values) => T::from_f64(values[index]),
        }
    }

    /// Where entry `entry`'s parameter is, unless it is a constant.
    fn place(&self, entry: usize) -> Option<usize> {
        match self.source {
            Source::Parameter(start) => Some(start + self.index[entry] as usize),
            Source::Constant(_) => None,
        }
    }
}

impl Normalization {
    /// `(mean, rate)` of an entry.
    fn at<T: Scalar>(&self, entry: usize) -> (T, T) {
        let index = self.index[entry] as usize;
        (T::from_f64(self.mean[index]), T::from_f64(self.rate[index]))
    }
}

impl Elementwise {
    /// Where factors and summands start in the flat vector of all parameters, if they are parameters.
    pub(crate) fn parameters(&self) -> [Option<usize>; 2] {
        [&self.scale, &self.shift].map(|coefficient| match coefficient.as_ref()?.source {
            Source::Parameter(start) => Some(start),
            Source::Constant(_) => None,
        })
    }

    /// The linear part: one factor for each entry.
    fn factors<T: Scalar>(&self, parameters: &[T]) -> Vec<T> {
        (0..self.width)
            .map(|i| self.factor(parameters, i))
            .collect()
    }

    /// The factor of an entry.
    pub(crate) fn factor<T: Scalar>(&self, parameters: &[T], entry: usize) -> T {
        let scale = self.scale.as_ref();
        let normalization = self.normalization.as_ref();
        scale.map_or(T::ONE, |s| s.at(parameters, entry))
            * normalization.map_or(T::ONE, |n| n.at::<T>(entry).1)
    }

    /// `|factor| (x + |mean|) + |shift|` of every entry, or without `offset` `|factor| x`.
    pub(crate) fn absolute(&self, parameters: &[f64], x: &[f64], offset: bool, out: &mut [f64]) {
        let factors = self.factors(parameters);
        let offsets = self.offsets(parameters);
        let entries = out.iter_mut().zip(x).zip(factors.iter().zip(&offsets));
        for ((out, x), (factor, (mean, shift))) in entries {
            *out = factor.abs() * x;
            if offset {
                *out += factor.abs() * mean.abs() + shift.abs();
            }
        }
    }

    /// `(mean, shift)` of every entry.
    fn offsets<T: Scalar>(&self, parameters: &[T]) -> Vec<(T, T)> {
        (0..self.width)
            .map(|i| {
                let mean = self
                    .normalization
                    .as_ref()
                    .map_or(T::ZERO, |n| n.at::<T>(i).0);
                (
                    mean,
                    self.shift.as_ref().map_or(T::ZERO, |s| s.at(parameters, i)),
                )
            })
            .collect()
    }
}

impl<T: Scalar> AffineMap<T> for Elementwise {
    fn apply(&self, given: Given<T>, inputs: &[&[T]], offset: bool, out: &mut [T]) {
        let parameters = given.parameters;
        let factors = self.factors(parameters);
        let offsets = offset.then(|| self.offsets(parameters));
        let operations = out.len();
        for_each_chunk(out, self.width, operations, |row, out| {
            let input = &inputs[0][row * self.width..(row + 1) * self.width];
            let entries = out.iter_mut().zip(input).zip(&factors);
            match &offsets {
                None => entries.for_each(|((out, &x), &factor)| *out = factor * x),
                Some(offsets) => {
                    entries
                        .zip(offsets)
                        .for_each(|(((out, &x), &factor), &(mean, shift))| {
                            *out = factor * (x - mean) + shift;
                        });
                }
            }
        });
    }

    fn transpose(&self, given: Given<T>, _: usize, c: &[T], accumulate: bool, below: &mut [T]) {
        let parameters = given.parameters;
        let factors = self.factors(parameters);
        let operations = below.len();
        for_each_chunk(below, self.width, operations, |row, below| {
            let c = &c[row * self.width..(row + 1) * self.width];
            for ((below, &c), &factor) in below.iter_mut().zip(c).zip(&factors) {
                let share = factor * c;
                *below = if accumulate { *below + share } else { share };
            }
        });
    }

    fn gradient(&self, _: Given<T>, c: &[T], t: &[T], share: Share<T>, gradient: &mut [T]) {
        let Share { scale, offset, .. } = share;
        for (c, t) in c.chunks_exact(self.width).zip(t.chunks_exact(self.width)) {
            for (i, (&c, &t)) in c.iter().zip(t).enumerate() {
                if let Some(place) = self.scale.as_ref().and_then(|s| s.place(i)) {
                    let (mean, rate) = self
                        .normalization
                        .as_ref()
                        .map_or((T::ZERO, T::ONE), |n| n.at(i));
                    let t = if offset { t - mean } else { t };
                    gradient[place] += scale * c * t * rate;
                }
                if let Some(place) = self
                    .shift
                    .as_ref()
                    .and_then(|s| s.place(i))
                    .filter(|_| offset)
                {
                    gradient[place] += scale * c;
                }
            }
        }
    }
}
