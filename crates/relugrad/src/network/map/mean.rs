//! Means over windows: average pooling, and the mean over axes.

use std::borrow::Cow;
use std::sync::Arc;

use super::{AffineMap, Cost, Map, SweepContext};
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::network::builder::{Builder, New};
use crate::network::windows::{self, Windows};
use crate::network::{NodeId, Operation, Window};
use crate::parallel::for_each_chunk;
use crate::scalar::Scalar;

/// The sum over each window times a factor of its own.
#[derive(Clone, Debug)]
pub(crate) struct Mean {
    windows: Windows,
    /// One factor for each window of a plane.
    factors: Arc<[f64]>,
}

impl Mean {
    pub(crate) fn new(windows: Windows, factors: Vec<f64>) -> Mean {
        let factors = factors.into();
        Mean { windows, factors }
    }
}

impl<T: Scalar> AffineMap<T> for Mean {
    fn cost(&self, width: usize) -> Cost {
        let sizes = (0..self.windows.count()).map(|j| self.windows.members(j).len());
        Cost {
            multiply_adds: width,
            terms: sizes.max().unwrap_or(0),
        }
    }

    fn factors<'p>(&self, _: &'p [T]) -> Cow<'p, [T]> {
        Cow::Borrowed(&[])
    }

    fn apply(&self, _: SweepContext<T>, inputs: &[&[T]], _: bool, out: &mut [T]) {
        let w = &self.windows;
        let operations = inputs[0].len() + out.len();
        for_each_chunk(out, w.count(), operations, |plane, out| {
            let input = &inputs[0][plane * w.plane()..(plane + 1) * w.plane()];
            for (j, (out, &factor)) in out.iter_mut().zip(&*self.factors).enumerate() {
                let members = w.members(j).iter();
                let sum = members.fold(T::ZERO, |sum, &i| sum + input[i as usize]);
                *out = T::from_f64(factor) * sum;
            }
        });
    }

    fn transpose(&self, _: SweepContext<T>, _: usize, c: &[T], accumulate: bool, below: &mut [T]) {
        let w = &self.windows;
        let operations = below.len() + c.len();
        for_each_chunk(below, w.plane(), operations, |plane, below| {
            if !accumulate {
                below.fill(T::ZERO);
            }
            let c = &c[plane * w.count()..(plane + 1) * w.count()];
            for (j, (&c, &factor)) in c.iter().zip(&*self.factors).enumerate() {
                let share = T::from_f64(factor) * c;
                w.members(j)
                    .iter()
                    .for_each(|&i| below[i as usize] += share);
            }
        });
    }
}

impl<T: Scalar> Builder<T> {
    /// Mean over windows of `[C, H, W]`; with `count_padding` the sum is divided by the number of
    /// entries and padding.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::Attribute`], [`Error::TooWide`], and [`Error::UnknownNode`].
    pub fn average_pool(
        &mut self,
        node: NodeId,
        window: Window,
        count_padding: bool,
    ) -> Result<NodeId> {
        let operation = Operation::AveragePool {
            window,
            count_padding,
        };
        let name = self.name(operation.name());
        let (windows, shape) = self.pooling(&name, node, &window)?;
        let input = self.image(&name, node)?;
        let count = |j: usize| {
            if !count_padding {
                return windows.members(j).len();
            }
            let [down, across] = [(0, j / shape[2]), (1, j % shape[2])]
                .map(|(axis, at)| windows::counted_taps(&window, axis, at, input[1 + axis]));
            down * across
        };
        let factors = (0..windows.count())
            .map(|j| 1.0 / count(j) as f64)
            .collect();
        let map = Map::Mean(Mean::new(windows, factors));
        self.push(New::named(&name, operation, map), &[node], &shape)
    }

    /// Mean over `axes`, which disappear.
    ///
    /// # Errors
    /// [`Error::Attribute`] for axes that do not exist or repeat, [`Error::TooWide`],
    /// [`Error::UnknownNode`].
    pub fn mean(&mut self, node: NodeId, axes: &[usize]) -> Result<NodeId> {
        let mut axes = axes.to_vec();
        axes.sort_unstable();
        let name = self.name("mean");
        let (windows, shape) = self.over_axes(&name, node, &axes)?;
        let factors = (0..windows.count()).map(|j| 1.0 / windows.members(j).len() as f64);
        let map = Map::Mean(Mean::new(windows.clone(), factors.collect()));
        self.push(
            New::named(&name, Operation::Mean { axes }, map),
            &[node],
            &shape,
        )
    }
}
