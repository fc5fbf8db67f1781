//! Which class logits stand for.

use ndarray::{ArrayView1, ArrayView2};
use relugrad::Scalar;

/// The class of the largest logit; of equal ones the first. A single logit is that of class 1
/// beside 0 for class 0.
pub(crate) fn prediction<T: Scalar>(logits: ArrayView1<T>) -> usize {
    match logits.len() {
        1 => usize::from(logits[0] > T::ZERO),
        k => (1..k).fold(0, |best, k| if logits[k] > logits[best] { k } else { best }),
    }
}

/// The logit of a class, 0 for class 0 of a single logit.
pub(crate) fn logit<T: Scalar>(logits: ArrayView1<T>, class: usize) -> f64 {
    match (logits.len(), class) {
        (1, 0) => 0.0,
        (1, _) => logits[0].into_f64(),
        _ => logits[class].into_f64(),
    }
}

/// `J_k − J_y`, the derivative of the difference of two classes' logits.
pub(crate) fn difference<T: Scalar>(jacobian: ArrayView2<T>, k: usize, y: usize) -> Vec<f64> {
    let row = jacobian.row(0);
    let entries = row.iter().map(|entry| entry.into_f64());
    match (jacobian.nrows(), k) {
        (1, 0) => entries.map(|entry| -entry).collect(),
        (1, _) => entries.collect(),
        _ => {
            let rows = jacobian.row(k).into_iter().zip(jacobian.row(y));
            rows.map(|(a, b)| a.into_f64() - b.into_f64()).collect()
        }
    }
}

/// Number of classes that so many logits tell apart.
pub(crate) fn classes(outputs: usize) -> usize {
    outputs.max(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn of_equal_logits_the_first_counts() {
        for (logits, class) in [(array![1.0, 1.0], 0), (array![0.0, 2.0], 1)] {
            assert_eq!(prediction(logits.view()), class);
        }
    }

    #[test]
    fn one_logit_tells_two_classes_apart() {
        for (f, class) in [(-1.0, 0), (0.0, 0), (0.5, 1)] {
            let logits = array![f];
            assert_eq!(prediction(logits.view()), class);
            assert_eq!((logit(logits.view(), 0), logit(logits.view(), 1)), (0.0, f));
        }
    }
}
