//! Means over windows: average pooling, and the mean over axes.

use std::sync::Arc;

use crate::network::map::{AffineMap, Given};
use crate::network::windows::Windows;
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

    /// Entries of the largest window.
    pub(crate) fn terms(&self) -> usize {
        let sizes = (0..self.windows.count()).map(|j| self.windows.members(j).len());
        sizes.max().unwrap_or(0)
    }
}

impl<T: Scalar> AffineMap<T> for Mean {
    fn apply(&self, _: Given<T>, inputs: &[&[T]], _: bool, out: &mut [T]) {
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

    fn transpose(&self, _: Given<T>, _: usize, c: &[T], accumulate: bool, below: &mut [T]) {
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
