//! The balls in which perturbations live.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use relugrad::Scalar;
use serde::{Deserialize, Serialize};

/// Norm of a perturbation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Norm {
    /// `max |δ_i|`.
    Linf,
    /// `√Σ δ_i²`.
    L2,
}

impl Norm {
    /// Its name in options and files: `linf` or `l2`.
    pub fn name(self) -> &'static str {
        match self {
            Norm::Linf => "linf",
            Norm::L2 => "l2",
        }
    }

    /// The dual norm of a row `q`: the largest `q·δ` for `‖δ‖ ≤ 1`.
    pub fn dual_of<T: Scalar>(self, q: impl IntoIterator<Item = T>) -> f64 {
        match self {
            Norm::Linf => q.into_iter().map(|q| q.into_f64().abs()).sum(),
            Norm::L2 => Norm::L2.of(q),
        }
    }

    /// The norm of `δ`.
    pub fn of<T: Scalar>(self, delta: impl IntoIterator<Item = T>) -> f64 {
        let delta = delta.into_iter().map(|d| d.into_f64());
        match self {
            Norm::Linf => delta.map(f64::abs).fold(0.0, f64::max),
            Norm::L2 => delta.map(|d| d * d).sum::<f64>().sqrt(),
        }
    }

    /// Replaces a gradient by the step of length `size` along which the loss grows fastest; 0 stays 0.
    pub(crate) fn steepest<T: Scalar>(self, gradient: &mut [T], size: f64) {
        match self {
            Norm::Linf => {
                let size = T::from_f64(size);
                for g in gradient {
                    *g = if *g > T::ZERO {
                        size
                    } else if *g < T::ZERO {
                        -size
                    } else {
                        T::ZERO
                    };
                }
            }
            Norm::L2 => {
                // Scaling by the largest entry first keeps tiny gradients from vanishing in their squares.
                let largest = T::from_f64(Norm::Linf.of(gradient.iter().copied()));
                if largest > T::ZERO {
                    gradient.iter_mut().for_each(|g| *g /= largest);
                    let scale = T::from_f64(size / Norm::L2.of(gradient.iter().copied()));
                    gradient.iter_mut().for_each(|g| *g *= scale);
                }
            }
        }
    }

    /// Moves `moved` to the nearest point of the ball of radius `epsilon` around `centre`, then of `[0, 1]^D`.
    ///
    /// The result is in both: the box is convex and holds the centre, so clipping does not leave the ball.
    pub(super) fn project<T: Scalar>(self, centre: &[T], epsilon: f64, moved: &mut [T]) {
        let radius = T::from_f64(epsilon);
        match self {
            Norm::Linf => {
                for (m, &c) in moved.iter_mut().zip(centre) {
                    *m = m.max(c - radius).min(c + radius);
                }
            }
            Norm::L2 => {
                let length = self.of(moved.iter().zip(centre).map(|(&m, &c)| m - c));
                if length > epsilon {
                    let scale = T::from_f64(epsilon / length);
                    for (m, &c) in moved.iter_mut().zip(centre) {
                        *m = c + scale * (*m - c);
                    }
                }
            }
        }
        moved
            .iter_mut()
            .for_each(|m| *m = m.max(T::ZERO).min(T::ONE));
    }

    /// Adds a perturbation that is uniform in the ball.
    pub(super) fn perturb<T: Scalar>(self, epsilon: f64, random: &mut ChaCha8Rng, x: &mut [T]) {
        match self {
            Norm::Linf => {
                for x in x {
                    *x += T::from_f64(epsilon * random.random_range(-1.0..=1.0));
                }
            }
            Norm::L2 => {
                let direction: Vec<f64> = x.iter().map(|_| random.sample(StandardNormal)).collect();
                let radius = random.random::<f64>().powf(1.0 / x.len() as f64);
                let scale = epsilon * radius / self.of(direction.iter().copied());
                for (x, d) in x.iter_mut().zip(&direction) {
                    *x += T::from_f64(scale * d);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn projection_by_hand() {
        let mut moved = [0.75, 0.1, 1.5];
        Norm::Linf.project(&[0.5, 0.5, 0.95], 0.125, &mut moved);
        assert_eq!(moved, [0.625, 0.375, 1.0]);
        let mut moved = [0.5 + 0.6, 0.5 - 0.8];
        Norm::L2.project(&[0.5, 0.5], 0.25, &mut moved);
        assert!((moved[0] - 0.65f64).abs() < 1e-15 && (moved[1] - 0.3f64).abs() < 1e-15);
    }

    #[test]
    fn starts_are_in_the_ball_and_fill_it() {
        let mut random = ChaCha8Rng::seed_from_u64(4);
        for norm in [Norm::Linf, Norm::L2] {
            let mut largest: f64 = 0.0;
            for _ in 0..500 {
                let mut x = [0.0f64; 3];
                norm.perturb(0.3, &mut random, &mut x);
                assert!(norm.of(x) <= 0.3 * (1.0 + 1e-12));
                largest = largest.max(norm.of(x));
            }
            assert!(largest > 0.29);
        }
    }

    #[test]
    fn the_steepest_step_of_a_tiny_gradient_has_full_length() {
        let mut g = [3e-30f32, 0.0, -4e-30];
        Norm::L2.steepest(&mut g, 0.5);
        assert!((g[0] - 0.3).abs() < 1e-6 && g[1] == 0.0 && (g[2] + 0.4).abs() < 1e-6);
        let mut zero = [0.0f32; 2];
        Norm::L2.steepest(&mut zero, 0.5);
        assert_eq!(zero, [0.0, 0.0]);
    }
}
