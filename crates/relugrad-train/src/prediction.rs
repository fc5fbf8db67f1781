//! Which class logits stand for.

use relugrad::Scalar;

/// The class of the largest logit; of equal ones the first.
pub(crate) fn prediction<T: Scalar>(logits: &[T]) -> usize {
    (1..logits.len()).fold(0, |best, k| if logits[k] > logits[best] { k } else { best })
}

/// For each sample whether its prediction is its label.
pub(crate) fn correct<T: Scalar>(logits: &[T], labels: &[usize]) -> impl Iterator<Item = bool> {
    let classes = logits.len() / labels.len();
    logits
        .chunks_exact(classes)
        .zip(labels)
        .map(|(f, &label)| prediction(f) == label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_logits_the_first_counts() {
        let found: Vec<bool> = correct(&[1.0, 1.0, 0.0, 2.0], &[0, 0]).collect();
        assert_eq!(found, [true, false]);
    }
}
