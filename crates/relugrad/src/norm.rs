//! Norms of vectors.

use std::fmt;

use crate::error::{Result, check_number};
use crate::scalar::Scalar;
use crate::squares::Squares;

/// A norm of vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "lowercase")
)]
pub enum Norm {
    /// ℓ1, `Σ |v_i|`.
    L1,
    /// ℓ2, `√Σ v_i²`.
    L2,
    /// ℓ∞, `max |v_i|`.
    Linf,
}

impl Norm {
    /// All norms.
    pub const ALL: [Norm; 3] = [Norm::L1, Norm::L2, Norm::Linf];

    /// Its name in options and files: `l1`, `l2` or `linf`.
    pub fn name(self) -> &'static str {
        match self {
            Norm::L1 => "l1",
            Norm::L2 => "l2",
            Norm::Linf => "linf",
        }
    }

    /// `‖v‖`; infinite if it overflows.
    pub fn of<T: Scalar>(self, v: &[T]) -> f64 {
        match self {
            Norm::L1 => total(v, f64::abs),
            Norm::L2 => euclidean(v),
            Norm::Linf => largest(v),
        }
    }

    /// The dual norm of a vector: `max ⟨g, δ⟩` over `‖δ‖ ≤ 1`.
    ///
    /// # Errors
    /// [`Error::NotFinite`](crate::Error::NotFinite) if it overflows or an entry is not finite.
    pub fn dual(self, g: impl Iterator<Item = f64>) -> Result<f64> {
        // The largest entry alone would lose a NaN.
        let mut finite = true;
        let norm = self.dual_norm(g.inspect(|g| finite &= g.is_finite()));
        check_number("a dual norm", &[], if finite { norm } else { f64::NAN })
    }

    /// The same; infinite if it overflows.
    pub(crate) fn dual_norm(self, g: impl Iterator<Item = f64>) -> f64 {
        match self {
            Norm::L1 => g.fold(0.0, |largest, g| g.abs().max(largest)),
            Norm::L2 => Squares::of(g).root(),
            Norm::Linf => g.map(f64::abs).sum(),
        }
    }
}

impl fmt::Display for Norm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// `‖g‖₂²`.
pub(crate) fn squared_length<T: Scalar>(g: &[T]) -> f64 {
    total(g, |g| g * g)
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
    fn norms_by_hand() {
        let g = [3.0, 0.0, -4.0];
        assert_eq!(Norm::ALL.map(|norm| norm.of(&g)), [7.0, 5.0, 4.0]);
        assert_eq!(squared_length(&g), 25.0);
    }

    #[test]
    fn tiny_entries_have_a_norm() {
        assert_eq!(Norm::L2.of(&[3e-300, 4e-300]), 5e-300);
    }
}
