//! The balls in which perturbations live.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Exp1, StandardNormal};
use relugrad::{Norm, Scalar};

/// What attacks do in the ball of a norm.
pub(crate) trait Ball {
    /// The norm of `δ`, summed in the order of its entries.
    fn length<T: Scalar>(self, delta: impl IntoIterator<Item = T>) -> f64;

    /// The dual norm of a row `q`: the largest `q·δ` for `‖δ‖ ≤ 1`.
    fn dual_length<T: Scalar>(self, q: impl IntoIterator<Item = T>) -> f64;

    /// Replaces a gradient by the step of length `size` along which the loss grows fastest; 0
    /// stays 0.
    fn steepest<T: Scalar>(self, gradient: &mut [T], size: f64);

    /// Moves `moved` to the nearest point of the ball of radius `epsilon` around `centre`.
    fn project<T: Scalar>(self, centre: &[T], epsilon: f64, moved: &mut [T]);

    /// Adds a perturbation that is uniform in the ball.
    fn perturb<T: Scalar>(self, epsilon: f64, random: &mut ChaCha8Rng, x: &mut [T]);
}

impl Ball for Norm {
    fn length<T: Scalar>(self, delta: impl IntoIterator<Item = T>) -> f64 {
        let delta = delta.into_iter().map(|d| d.into_f64());
        match self {
            Norm::L1 => delta.map(f64::abs).sum(),
            Norm::L2 => delta.map(|d| d * d).sum::<f64>().sqrt(),
            Norm::Linf => delta.map(f64::abs).fold(0.0, f64::max),
        }
    }

    fn dual_length<T: Scalar>(self, q: impl IntoIterator<Item = T>) -> f64 {
        match self {
            Norm::L1 => Norm::Linf.length(q),
            Norm::L2 => Norm::L2.length(q),
            Norm::Linf => Norm::L1.length(q),
        }
    }

    fn steepest<T: Scalar>(self, gradient: &mut [T], size: f64) {
        match self {
            Norm::L1 => {
                let largest = T::from_f64(Norm::Linf.length(gradient.iter().copied()));
                let first = gradient.iter().position(|g| g.abs() == largest);
                let step = first.map(|i| (i, T::from_f64(size) * sign(gradient[i])));
                gradient.fill(T::ZERO);
                step.into_iter().for_each(|(i, step)| gradient[i] = step);
            }
            Norm::Linf => {
                let size = T::from_f64(size);
                gradient.iter_mut().for_each(|g| *g = size * sign(*g));
            }
            Norm::L2 => {
                // Scaling by the largest entry first keeps tiny gradients from vanishing in their
                // squares.
                let largest = T::from_f64(Norm::Linf.length(gradient.iter().copied()));
                if largest > T::ZERO {
                    gradient.iter_mut().for_each(|g| *g /= largest);
                    let scale = T::from_f64(size / Norm::L2.length(gradient.iter().copied()));
                    gradient.iter_mut().for_each(|g| *g *= scale);
                }
            }
        }
    }

    fn project<T: Scalar>(self, centre: &[T], epsilon: f64, moved: &mut [T]) {
        let radius = T::from_f64(epsilon);
        match self {
            Norm::L1 => {
                let delta = || moved.iter().zip(centre).map(|(&m, &c)| (m - c).into_f64());
                if Norm::L1.length(delta()) > epsilon {
                    let shrunk = shrunk(delta().collect(), epsilon);
                    for ((m, &c), d) in moved.iter_mut().zip(centre).zip(shrunk) {
                        *m = c + T::from_f64(d);
                    }
                }
            }
            Norm::Linf => {
                for (m, &c) in moved.iter_mut().zip(centre) {
                    *m = m.max(c - radius).min(c + radius);
                }
            }
            Norm::L2 => {
                let length = self.length(moved.iter().zip(centre).map(|(&m, &c)| m - c));
                if length > epsilon {
                    let scale = T::from_f64(epsilon / length);
                    for (m, &c) in moved.iter_mut().zip(centre) {
                        *m = c + scale * (*m - c);
                    }
                }
            }
        }
    }

    fn perturb<T: Scalar>(self, epsilon: f64, random: &mut ChaCha8Rng, x: &mut [T]) {
        match self {
            Norm::L1 => {
                let direction: Vec<f64> = x.iter().map(|_| laplace(random)).collect();
                scaled_into(x, self, &direction, epsilon, random);
            }
            Norm::Linf => {
                for x in x {
                    *x += T::from_f64(epsilon * random.random_range(-1.0..=1.0));
                }
            }
            Norm::L2 => {
                let direction: Vec<f64> = x.iter().map(|_| random.sample(StandardNormal)).collect();
                scaled_into(x, self, &direction, epsilon, random);
            }
        }
    }
}

/// Adds a direction whose length in its norm is made that of a point uniform in the ball.
fn scaled_into<T: Scalar>(
    x: &mut [T],
    norm: Norm,
    direction: &[f64],
    epsilon: f64,
    random: &mut ChaCha8Rng,
) {
    let radius = random.random::<f64>().powf(1.0 / x.len() as f64);
    let scale = epsilon * radius / norm.length(direction.iter().copied());
    for (x, d) in x.iter_mut().zip(direction) {
        *x += T::from_f64(scale * d);
    }
}

/// A number with density `e^{−|t|}/2`: many of them point uniformly over the sphere of ℓ1.
fn laplace(random: &mut ChaCha8Rng) -> f64 {
    let size: f64 = random.sample(Exp1);
    if random.random() { size } else { -size }
}

/// The nearest point to `δ` of length `epsilon` in ℓ1, if that of `δ` is more (Duchi et al. 2008,
/// *Efficient projections onto the ℓ1-ball for learning in high dimensions*, figure 1): all entries
/// move towards 0 by the same amount.
fn shrunk(delta: Vec<f64>, epsilon: f64) -> impl Iterator<Item = f64> {
    let mut sizes: Vec<f64> = delta.iter().map(|d| d.abs()).collect();
    sizes.sort_by(|a, b| b.total_cmp(a));
    let (mut sum, mut amount) = (0.0, 0.0);
    for (i, &size) in sizes.iter().enumerate() {
        sum += size;
        let next = (sum - epsilon) / (i + 1) as f64;
        if size <= next {
            break;
        }
        amount = next;
    }
    let shrunk = move |d: f64| (d.abs() - amount).max(0.0) * sign(d);
    delta.into_iter().map(shrunk)
}

/// −1, 0 or 1.
fn sign<T: Scalar>(value: T) -> T {
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
    use rand::SeedableRng;

    #[test]
    fn projection_by_hand() {
        let mut moved = [0.75, 0.1, 1.5];
        Norm::Linf.project(&[0.5, 0.5, 1.0], 0.125, &mut moved);
        assert_eq!(moved, [0.625, 0.375, 1.125]);
        let mut moved = [0.5 + 0.6, 0.5 - 0.8];
        Norm::L2.project(&[0.5, 0.5], 0.25, &mut moved);
        assert!((moved[0] - 0.65f64).abs() < 1e-15 && (moved[1] - 0.3f64).abs() < 1e-15);
        let mut moved = [0.5 + 0.375, 0.5 - 0.25, 0.5 + 0.0625];
        Norm::L1.project(&[0.5; 3], 0.5, &mut moved);
        assert_eq!(moved, [0.8125, 0.3125, 0.5]);
    }

    #[test]
    fn starts_are_in_the_ball_and_fill_it() {
        let mut random = ChaCha8Rng::seed_from_u64(4);
        for norm in Norm::ALL {
            let mut largest: f64 = 0.0;
            for _ in 0..500 {
                let mut x = [0.0f64; 3];
                norm.perturb(0.3, &mut random, &mut x);
                assert!(norm.length(x) <= 0.3 * (1.0 + 1e-12));
                largest = largest.max(norm.length(x));
            }
            assert!(largest > 0.29);
        }
    }

    #[test]
    fn the_steepest_step_of_a_tiny_gradient_has_full_length() {
        let mut g = [3e-30f32, 0.0, -4e-30];
        Norm::L2.steepest(&mut g, 0.5);
        assert!((g[0] - 0.3).abs() < 1e-6 && g[1] == 0.0 && (g[2] + 0.4).abs() < 1e-6);
        let mut g = [3e-30f32, 0.0, -4e-30];
        Norm::L1.steepest(&mut g, 0.5);
        assert_eq!(g, [0.0, 0.0, -0.5]);
        for norm in Norm::ALL {
            let mut zero = [0.0f32; 2];
            norm.steepest(&mut zero, 0.5);
            assert_eq!(zero, [0.0, 0.0]);
        }
    }
}
