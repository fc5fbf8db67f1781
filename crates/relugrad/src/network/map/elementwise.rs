//! Maps of every entry by itself: scaling, shifting, frozen batch normalisation.

use std::borrow::Cow;
use std::sync::Arc;

use ndarray::{Array1, ArrayD};

use super::{Accumulate, AffineMap, Cost, Map, SweepContext};
#[cfg(doc)]
use crate::error::Error;
use crate::error::{Result, check_shape};
use crate::network::builder::{Builder, New, check_finite, length_of};
use crate::network::shapes::{self, broadcast};
use crate::network::{Constant, NodeId, Operation};
use crate::parallel::for_each_chunk;
use crate::scalar::Scalar;

/// What a frozen batch normalisation computes with; each array has one entry per channel or
/// feature.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchNorm<T> {
    /// Factor after normalisation.
    pub scale: Array1<T>,
    /// Summand after normalisation.
    pub shift: Array1<T>,
    /// Running mean.
    pub mean: Array1<f64>,
    /// Running variance, not negative.
    pub variance: Array1<f64>,
    /// What is added to the variance; `variance + epsilon` must be positive.
    pub epsilon: f64,
}

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
    /// From this place on in the flat vector of all parameters.
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
    /// Where factors and summands start in the flat vector of all parameters, if they are
    /// parameters.
    pub(crate) fn parameters(&self) -> [Option<usize>; 2] {
        [&self.scale, &self.shift].map(|coefficient| match coefficient.as_ref()?.source {
            Source::Parameter(start) => Some(start),
            Source::Constant(_) => None,
        })
    }

    /// The linear part: one factor for each entry.
    fn factors_of<T: Scalar>(&self, parameters: &[T]) -> Vec<T> {
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
        let factors = self.factors_of(parameters);
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
    fn cost(&self, width: usize) -> Cost {
        Cost {
            multiply_adds: width,
            terms: 1,
        }
    }

    fn factors<'p>(&self, parameters: &'p [T]) -> Cow<'p, [T]> {
        Cow::Owned(self.factors_of(parameters))
    }

    fn apply(&self, at: SweepContext<T>, inputs: &[&[T]], offset: bool, out: &mut [T]) {
        let parameters = at.parameters;
        let factors = self.factors_of(parameters);
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

    fn transpose(&self, at: SweepContext<T>, _: usize, c: &[T], accumulate: bool, below: &mut [T]) {
        let parameters = at.parameters;
        let factors = self.factors_of(parameters);
        let operations = below.len();
        for_each_chunk(below, self.width, operations, |row, below| {
            let c = &c[row * self.width..(row + 1) * self.width];
            for ((below, &c), &factor) in below.iter_mut().zip(c).zip(&factors) {
                let share = factor * c;
                *below = if accumulate { *below + share } else { share };
            }
        });
    }

    fn gradient(
        &self,
        _: SweepContext<T>,
        c: &[T],
        t: &[T],
        how: Accumulate<T>,
        gradient: &mut [T],
    ) {
        let Accumulate { scale, offset, .. } = how;
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

impl<T: Scalar> Builder<T> {
    /// Frozen batch normalisation along `axis`: `scale (x − mean)/√(variance + epsilon) + shift`.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::Attribute`] for no such axis, [`Error::NotFinite`] if anything is
    /// NaN or infinite or `variance + epsilon` is not positive, [`Error::UnknownNode`].
    pub fn batch_norm(&mut self, node: NodeId, axis: usize, norm: BatchNorm<T>) -> Result<NodeId> {
        let name = self.name("batch-norm");
        let shape = self.shape(node)?.to_vec();
        let length = length_of(&name, axis, &shape)?;
        let BatchNorm {
            scale,
            shift,
            mean,
            variance,
            epsilon,
        } = norm;
        for (array, found) in [
            ("scale", scale.len()),
            ("shift", shift.len()),
            ("mean", mean.len()),
            ("variance", variance.len()),
        ] {
            check_shape(&format!("{name}.{array}"), &[length], &[found])?;
        }
        let rate = variance.mapv(|v| 1.0 / (v + epsilon).sqrt());
        check_finite(&format!("{name}.mean"), mean.view())?;
        check_finite(&format!("{name}.variance"), variance.view())?;
        check_finite(&format!("{name}.epsilon"), ndarray::arr0(epsilon).view())?;
        check_finite(&format!("1/√({name}.variance + epsilon)"), rate.view())?;
        self.table(&name, &shape)?;
        let mut from = vec![1; shape.len()];
        from[axis] = length;
        let index: Arc<[u32]> = broadcast(&name, &from, &shape)?.into();
        let constant =
            |name, values: Array1<f64>| Constant::new(name, vec![length], values.to_vec().into());
        let [mean, variance, rate] =
            [("mean", mean), ("variance", variance), ("rate", rate)].map(|(n, v)| constant(n, v));
        let normalization = Normalization {
            mean: mean.values().into(),
            rate: rate.values().into(),
            index: Arc::clone(&index),
        };
        let [scale, shift] = [("scale", scale), ("shift", shift)].map(|(array, values)| {
            let source = Source::Parameter(self.parameter(&name, array, values.view())?);
            let index = Arc::clone(&index);
            Ok(Coefficient { source, index })
        });
        let map = Map::Elementwise(Elementwise {
            width: shapes::width(&name, &shape)?,
            scale: Some(scale?),
            shift: Some(shift?),
            normalization: Some(normalization),
        });
        let mut new = New::named(&name, Operation::BatchNorm { axis, epsilon }, map);
        new.constants = vec![mean, variance];
        self.push(new, &[node], &shape)
    }

    /// `factor ⊙ x`, with `factor` broadcast to the shape of `x`; trained if `learned`.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::NotFinite`], [`Error::UnknownNode`].
    pub fn scale(&mut self, node: NodeId, factor: ArrayD<T>, learned: bool) -> Result<NodeId> {
        let name = self.name("scale");
        let (scale, constants) = self.coefficient(&name, "scale", node, factor, learned)?;
        self.elementwise(
            node,
            name,
            Operation::Scale { learned },
            (Some(scale), None),
            constants,
        )
    }

    /// `x + summand`, with `summand` broadcast to the shape of `x`; trained if `learned`.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::NotFinite`], [`Error::UnknownNode`].
    pub fn shift(&mut self, node: NodeId, summand: ArrayD<T>, learned: bool) -> Result<NodeId> {
        let name = self.name("shift");
        let (shift, constants) = self.coefficient(&name, "shift", node, summand, learned)?;
        self.elementwise(
            node,
            name,
            Operation::Shift { learned },
            (None, Some(shift)),
            constants,
        )
    }

    fn coefficient(
        &mut self,
        name: &str,
        array: &'static str,
        node: NodeId,
        values: ArrayD<T>,
        learned: bool,
    ) -> Result<(Coefficient, Vec<Constant>)> {
        let shape = self.shape(node)?.to_vec();
        self.table(name, &shape)?;
        let index = broadcast(&format!("{name}.{array}"), values.shape(), &shape)?.into();
        if learned {
            let source = Source::Parameter(self.parameter(name, array, values.view())?);
            return Ok((Coefficient { source, index }, Vec::new()));
        }
        check_finite(&format!("{name}.{array}"), values.view())?;
        let numbers: Arc<[f64]> = values.iter().map(|v| v.into_f64()).collect();
        let constant = Constant::new(array, values.shape().to_vec(), Arc::clone(&numbers));
        let source = Source::Constant(numbers);
        Ok((Coefficient { source, index }, vec![constant]))
    }

    fn elementwise(
        &mut self,
        node: NodeId,
        name: String,
        operation: Operation,
        (scale, shift): (Option<Coefficient>, Option<Coefficient>),
        constants: Vec<Constant>,
    ) -> Result<NodeId> {
        let shape = self.shape(node)?.to_vec();
        let map = Map::Elementwise(Elementwise {
            width: shapes::width(&name, &shape)?,
            scale,
            shift,
            normalization: None,
        });
        let mut new = New::named(&name, operation, map);
        new.constants = constants;
        self.push(new, &[node], &shape)
    }
}
