//! Sizes of vectors.

use crate::scalar::Scalar;

/// A size of a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// `‖g‖₂²`.
    Squared,
    /// `‖g‖₂`.
    L2,
    /// `‖g‖₁`.
    L1,
    /// `‖g‖_∞`.
    Linf,
}

impl Size {
    /// Its value at `g`.
    pub(crate) fn of<T: Scalar>(self, g: &[T]) -> f64 {
        match self {
            Size::Squared => total(g, |g| g * g),
            Size::L2 => euclidean(g),
            Size::L1 => total(g, f64::abs),
            Size::Linf => largest(g),
        }
    }
}

/// `√Σ g_i²`, scaled so that squares of tiny entries do not vanish.
fn euclidean<T: Scalar>(g: &[T]) -> f64 {
    let largest = largest(g);
    if largest == 0.0 {
        return 0.0;
    }
    largest * total(g, |g| (g / largest).powi(2)).sqrt()
}

/// `max |g_i|`.
fn largest<T: Scalar>(g: &[T]) -> f64 {
    in_lanes(g, |largest, g| largest.max(g.abs()))
        .into_iter()
        .fold(0.0, f64::max)
}

/// `Σ f(g_i)`.
fn total<T: Scalar>(g: &[T], f: impl Fn(f64) -> f64) -> f64 {
    in_lanes(g, |sum, g| sum + f(g)).iter().sum()
}

/// Folds every eighth entry, so that vectors can be used.
fn in_lanes<T: Scalar>(g: &[T], f: impl Fn(f64, f64) -> f64) -> [f64; 8] {
    let (blocks, rest) = g.as_chunks::<8>();
    let mut lanes = [0.0; 8];
    for block in blocks {
        for (lane, &g) in lanes.iter_mut().zip(block) {
            *lane = f(*lane, g.into_f64());
        }
    }
    for (lane, &g) in lanes.iter_mut().zip(rest) {
        *lane = f(*lane, g.into_f64());
    }
    lanes
}

/// −1, 0 or 1.
pub(crate) fn sign<T: Scalar>(value: T) -> T {
    if value > T::ZERO {
        T::ONE
    } else if value < T::ZERO {
        -T::ONE
    } else {
        T::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_by_hand() {
        let g = [3.0, 0.0, -4.0];
        let sizes = [Size::Squared, Size::L2, Size::L1, Size::Linf];
        assert_eq!(sizes.map(|size| size.of(&g)), [25.0, 5.0, 7.0, 4.0]);
    }

    #[test]
    fn tiny_entries_have_a_norm() {
        assert_eq!(Size::L2.of(&[3e-300, 4e-300]), 5e-300);
    }
}
