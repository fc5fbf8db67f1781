//! Norms of the input gradient `g = Jᵀ r`.

use super::gram::{GramDerivative, GramPoint, add, add_outer, dot};
use crate::scalar::Scalar;

/// `‖g‖² = rᵀ G r`; `∂/∂G = r rᵀ`, `∂/∂r = 2 G r`.
pub(super) fn squared(point: &GramPoint, derivative: Option<&mut GramDerivative>) -> f64 {
    let gr = point.g_times(point.r);
    if let Some(bar) = derivative {
        add_outer(&mut bar.g, bar.weight, point.r, point.r);
        add(&mut bar.r, 2.0 * bar.weight, &gr);
    }
    dot(point.r, &gr)
}

/// Which function of `g` a penalty is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Norm {
    /// `‖g‖₂²`.
    Squared,
    /// `‖g‖₂`.
    L2,
    /// `‖g‖₁`.
    L1,
    /// `‖g‖_∞`.
    Linf,
}

impl Norm {
    /// The power of a factor of `g` that its value is multiplied by.
    pub(crate) fn degree(self) -> i32 {
        match self {
            Norm::Squared => 2,
            Norm::L2 | Norm::L1 | Norm::Linf => 1,
        }
    }

    /// Its value at `g`.
    pub(crate) fn value<T: Scalar>(self, g: &[T]) -> f64 {
        match self {
            Norm::Squared => total(g, |g| g * g),
            Norm::L2 => euclidean(g),
            Norm::L1 => total(g, f64::abs),
            Norm::Linf => largest(g),
        }
    }

    /// Adds `weight` times its derivative at `g` to `bar`; `value` is its value there.
    ///
    /// Where it is not differentiable the derivative is a subgradient: 0 for `g = 0` and for the zero entries of
    /// the ℓ1 norm, and that of the first largest entry for the ℓ∞ norm.
    pub(crate) fn add_derivative<T: Scalar>(self, g: &[T], value: f64, weight: f64, bar: &mut [T]) {
        if value == 0.0 {
            return;
        }
        let scale = |factor: f64| T::from_f64(weight * factor);
        let pairs = bar.iter_mut().zip(g);
        match self {
            Norm::Squared => pairs.for_each(|(bar, &g)| *bar += scale(2.0) * g),
            Norm::L2 => pairs.for_each(|(bar, &g)| *bar += scale(g.into_f64() / value)),
            Norm::L1 => pairs.for_each(|(bar, &g)| *bar += scale(1.0) * sign(g)),
            Norm::Linf => {
                let largest = |g: &T| g.into_f64().abs() == value;
                let first = g.iter().position(largest).expect("the largest is an entry");
                bar[first] += scale(1.0) * sign(g[first]);
            }
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
    fn values_and_derivatives_by_hand() {
        let g = [3.0, 0.0, -4.0];
        let cases = [
            (Norm::Squared, 25.0, [6.0, 0.0, -8.0]),
            (Norm::L2, 5.0, [0.6, 0.0, -0.8]),
            (Norm::L1, 7.0, [1.0, 0.0, -1.0]),
            (Norm::Linf, 4.0, [0.0, 0.0, -1.0]),
        ];
        for (norm, value, derivative) in cases {
            assert_eq!(norm.value(&g), value);
            let mut bar = [0.0; 3];
            norm.add_derivative(&g, value, 2.0, &mut bar);
            let close = |(a, b): (&f64, &f64)| (a - 2.0 * b).abs() < 1e-15;
            assert!(bar.iter().zip(&derivative).all(close));
        }
    }

    #[test]
    fn tiny_entries_have_a_norm() {
        assert_eq!(Norm::L2.value(&[3e-300, 4e-300]), 5e-300);
    }

    #[test]
    fn a_subnormal_norm_has_a_derivative() {
        let g = [0.0, 1e-315];
        let mut bar = [0.0; 2];
        Norm::L2.add_derivative(&g, Norm::L2.value(&g), 0.5, &mut bar);
        assert_eq!(bar, [0.0, 0.5]);
    }

    #[test]
    fn the_derivative_at_zero_is_zero() {
        for norm in [Norm::Squared, Norm::L2, Norm::L1, Norm::Linf] {
            let mut bar = [0.0; 2];
            norm.add_derivative(&[0.0, 0.0], norm.value(&[0.0, 0.0]), 1.0, &mut bar);
            assert_eq!(bar, [0.0, 0.0]);
        }
    }
}
