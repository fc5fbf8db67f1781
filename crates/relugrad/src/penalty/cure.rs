//! The direction of CURE's finite step.

use super::input_gradient::{Norm, sign};
use crate::scalar::Scalar;

/// The unit vector `z` along which CURE takes its step, as a function of the input gradient `g`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// `z = sign(g)/‖sign(g)‖₂`, as published. It is locally constant in the parameters.
    Sign,
    /// `z = g/‖g‖₂`.
    Gradient {
        /// Whether the parameter gradient takes `z` for a constant, as published codes do, instead of being the
        /// exact derivative of the penalty.
        held: bool,
    },
}

impl Direction {
    /// Whether `z` is constant in the parameters, or taken to be.
    pub(crate) fn is_constant(self) -> bool {
        self != Direction::Gradient { held: false }
    }

    /// `z` for one sample; 0 if `g = 0`.
    pub(crate) fn write<T: Scalar>(self, g: &[T], z: &mut [T]) {
        for (z, &g) in z.iter_mut().zip(g) {
            *z = match self {
                Direction::Sign => sign(g),
                Direction::Gradient { .. } => g,
            };
        }
        let norm = Norm::L2.value(z);
        if norm > 0.0 {
            z.iter_mut().for_each(|z| *z /= T::from_f64(norm));
        }
    }

    /// Adds to `bar` what a derivative `z_bar` in `z` means for `g`: `(I − z zᵀ) z̄ / ‖g‖` for `z = g/‖g‖` unless
    /// it is held, otherwise 0.
    pub(crate) fn pull_back<T: Scalar>(self, g: &[T], z: &[T], z_bar: &[T], bar: &mut [T]) {
        let norm = Norm::L2.value(g);
        if self.is_constant() || norm == 0.0 {
            return;
        }
        let along: f64 = z
            .iter()
            .zip(z_bar)
            .map(|(z, b)| z.into_f64() * b.into_f64())
            .sum();
        for (bar, (&z, &z_bar)) in bar.iter_mut().zip(z.iter().zip(z_bar)) {
            *bar += (z_bar - T::from_f64(along) * z) / T::from_f64(norm);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_are_unit_vectors_or_zero() {
        let mut z = [0.0; 3];
        Direction::Sign.write(&[-2.0, 0.0, 1e-300], &mut z);
        let half = 0.5f64.sqrt();
        assert!((z[0] + half).abs() < 1e-15 && z[1] == 0.0 && (z[2] - half).abs() < 1e-15);
        Direction::Gradient { held: true }.write(&[3.0, 0.0, -4.0], &mut z);
        assert_eq!(z, [0.6, 0.0, -0.8]);
        Direction::Sign.write(&[0.0, 0.0, 0.0], &mut z);
        assert_eq!(z, [0.0; 3]);
    }
}
