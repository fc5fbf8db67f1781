//! A data set in the precision of a network.

use ndarray::{Array2, ArrayView2, Axis, s};
use relugrad::{Scalar, Targets};

use crate::data::{Bounds, Dataset, Truth};

/// Samples that are evaluated together.
pub(crate) const BATCH: usize = 256;

/// A data set in the precision of a network.
#[derive(Clone, Debug)]
pub struct Samples<T> {
    /// `[n, D]`.
    pub images: Array2<T>,
    /// The classes or values of the samples.
    pub truth: Truth<T>,
    /// The weight of each sample in means; empty if all count alike.
    pub weights: Vec<f64>,
    /// The box that attacks do not leave.
    pub bounds: Bounds,
}

/// Some consecutive samples.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch<'a, T> {
    /// The number of the first.
    pub(crate) first: usize,
    pub(crate) images: ArrayView2<'a, T>,
    pub(crate) targets: Targets<'a, T>,
}

impl<T: Scalar> Samples<T> {
    /// All samples of a data set.
    pub fn new(data: &Dataset) -> Samples<T> {
        Samples {
            images: data.images().mapv(|x| T::from_f64(f64::from(x))),
            truth: data.truth().cast(),
            weights: data.weights().to_vec(),
            bounds: data.bounds().clone(),
        }
    }

    /// Samples in `[0, 1]` that count alike; a vector of classes or an array of values will do.
    pub fn of(images: Array2<T>, truth: impl Into<Truth<T>>) -> Samples<T> {
        Samples {
            images,
            truth: truth.into(),
            weights: Vec::new(),
            bounds: Bounds::default(),
        }
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.images.nrows()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The weight of a sample.
    pub fn weight(&self, sample: usize) -> f64 {
        self.weights.get(sample).copied().unwrap_or(1.0)
    }

    /// In another precision.
    pub fn cast<U: Scalar>(&self) -> Samples<U> {
        Samples {
            images: self.images.mapv(|x| U::from_f64(x.into_f64())),
            truth: self.truth.cast(),
            weights: self.weights.clone(),
            bounds: self.bounds.clone(),
        }
    }

    /// The first `count` samples, or all if there are fewer.
    pub fn first(&self, count: usize) -> Samples<T> {
        let first: Vec<usize> = (0..count.min(self.len())).collect();
        Samples {
            images: self.images.select(Axis(0), &first),
            truth: self.truth.select(&first),
            weights: self.weights.iter().take(count).copied().collect(),
            bounds: self.bounds.clone(),
        }
    }

    /// A sample, `[1, D]`, and what should be said of it.
    pub fn sample(&self, sample: usize) -> (ArrayView2<'_, T>, Targets<'_, T>) {
        let range = sample..sample + 1;
        let image = self.images.slice(s![range.clone(), ..]);
        (image, self.truth.part(range))
    }

    /// Consecutive batches.
    pub(crate) fn batches(&self) -> impl Iterator<Item = Batch<'_, T>> {
        self.batches_of(BATCH)
    }

    /// Consecutive batches of a size.
    pub(crate) fn batches_of(&self, size: usize) -> impl Iterator<Item = Batch<'_, T>> {
        (0..self.len()).step_by(size).map(move |first| {
            let range = first..(first + size).min(self.len());
            Batch {
                first,
                images: self.images.slice(s![range.clone(), ..]),
                targets: self.truth.part(range),
            }
        })
    }

    /// The weights of the samples of a batch.
    pub(crate) fn batch_weights(&self, batch: &Batch<'_, T>) -> Vec<f64> {
        let range = batch.first..batch.first + batch.images.nrows();
        range.map(|i| self.weight(i)).collect()
    }
}
