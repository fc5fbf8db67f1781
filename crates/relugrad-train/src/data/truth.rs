//! What should have been said of samples.

use std::ops::Range;

use ndarray::{Array2, ArrayView2, Axis, concatenate, s};
use relugrad::loss::TargetKind;
use relugrad::{Scalar, Targets};

use crate::prediction::prediction;

/// What a network should say of samples.
#[derive(Clone, Debug, PartialEq)]
pub enum Truth<T> {
    /// The class of each, from 0; `[n]`.
    Classes(Vec<usize>),
    /// The values of each; `[n, K]`.
    Values(Array2<T>),
}

impl<T: Clone> Truth<T> {
    /// Number of samples.
    pub fn len(&self) -> usize {
        match self {
            Truth::Classes(labels) => labels.len(),
            Truth::Values(values) => values.nrows(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The classes, or nothing where there are values.
    pub fn labels(&self) -> &[usize] {
        match self {
            Truth::Classes(labels) => labels,
            Truth::Values(_) => &[],
        }
    }

    /// What it is.
    pub fn kind(&self) -> TargetKind {
        match self {
            Truth::Classes(_) => TargetKind::Classes,
            Truth::Values(_) => TargetKind::Values,
        }
    }

    /// That of the samples with these numbers.
    pub fn select(&self, indices: &[usize]) -> Truth<T> {
        match self {
            Truth::Classes(labels) => Truth::Classes(indices.iter().map(|&i| labels[i]).collect()),
            Truth::Values(values) => Truth::Values(values.select(Axis(0), indices)),
        }
    }

    /// This and then that of other samples, if both are of the same kind and width.
    pub(super) fn followed_by(&self, other: &Truth<T>) -> Option<Truth<T>> {
        match (self, other) {
            (Truth::Classes(a), Truth::Classes(b)) => Some(Truth::Classes([&**a, b].concat())),
            (Truth::Values(a), Truth::Values(b)) => concatenate(Axis(0), &[a.view(), b.view()])
                .ok()
                .map(Truth::Values),
            (Truth::Classes(_), Truth::Values(_)) | (Truth::Values(_), Truth::Classes(_)) => None,
        }
    }
}

impl<T: Scalar> Truth<T> {
    /// That of some of the samples, for the engine.
    pub fn part(&self, samples: Range<usize>) -> Targets<'_, T> {
        match self {
            Truth::Classes(labels) => Targets::Classes(&labels[samples]),
            Truth::Values(values) => Targets::Values(values.slice(s![samples, ..])),
        }
    }

    /// For the engine.
    pub fn targets(&self) -> Targets<'_, T> {
        self.part(0..self.len())
    }

    /// In another precision.
    pub fn cast<U: Scalar>(&self) -> Truth<U> {
        match self {
            Truth::Classes(labels) => Truth::Classes(labels.clone()),
            Truth::Values(values) => Truth::Values(values.mapv(|v| U::from_f64(v.into_f64()))),
        }
    }

    /// For each sample whether logits `[n, K]` say another class. Values are never told apart so.
    pub(crate) fn mistaken(&self, logits: ArrayView2<T>) -> Vec<bool> {
        match self {
            Truth::Classes(labels) => {
                let rows = logits.rows().into_iter().zip(labels);
                rows.map(|(f, &label)| prediction(f) != label).collect()
            }
            Truth::Values(_) => vec![false; logits.nrows()],
        }
    }
}

impl<T> From<Vec<usize>> for Truth<T> {
    fn from(labels: Vec<usize>) -> Truth<T> {
        Truth::Classes(labels)
    }
}

impl<T> From<&[usize]> for Truth<T> {
    fn from(labels: &[usize]) -> Truth<T> {
        Truth::Classes(labels.to_vec())
    }
}

impl<T> From<&Vec<usize>> for Truth<T> {
    fn from(labels: &Vec<usize>) -> Truth<T> {
        Truth::Classes(labels.clone())
    }
}

impl<T, const N: usize> From<&[usize; N]> for Truth<T> {
    fn from(labels: &[usize; N]) -> Truth<T> {
        Truth::Classes(labels.to_vec())
    }
}

impl<T> From<Array2<T>> for Truth<T> {
    fn from(values: Array2<T>) -> Truth<T> {
        Truth::Values(values)
    }
}
