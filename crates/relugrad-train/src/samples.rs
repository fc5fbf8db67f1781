//! A data set in the precision of a network.

use ndarray::{Array2, ArrayView2, s};
use relugrad::Scalar;

use crate::data::Dataset;

/// Samples that are evaluated together.
const BATCH: usize = 256;

/// A data set in the precision of a network.
#[derive(Clone, Debug)]
pub struct Samples<T> {
    /// `[n, D]`, in `[0, 1]`.
    pub images: Array2<T>,
    /// `[n]`.
    pub labels: Vec<usize>,
}

impl<T: Scalar> Samples<T> {
    /// All samples of a data set.
    pub fn new(data: &Dataset) -> Samples<T> {
        Samples {
            images: data.images().mapv(|x| T::from_f64(f64::from(x))),
            labels: data.labels().to_vec(),
        }
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The first `count` samples, or all if there are fewer.
    pub fn first(&self, count: usize) -> Samples<T> {
        let count = count.min(self.len());
        Samples {
            images: self.images.slice(s![..count, ..]).to_owned(),
            labels: self.labels[..count].to_vec(),
        }
    }

    /// Consecutive batches with the index of their first sample.
    pub(crate) fn batches(&self) -> impl Iterator<Item = (usize, ArrayView2<'_, T>, &[usize])> {
        (0..self.len()).step_by(BATCH).map(|start| {
            let end = (start + BATCH).min(self.len());
            (
                start,
                self.images.slice(s![start..end, ..]),
                &self.labels[start..end],
            )
        })
    }
}
