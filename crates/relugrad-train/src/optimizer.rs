//! Optimizers: how a gradient changes the parameters.

use relugrad::Scalar;

use crate::error::{Error, Result, check_range};

/// An update rule, applied to every parameter alike. `t` counts steps from 1, `g_t` is the gradient and `η` the
/// learning rate.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Optimizer {
    /// Stochastic gradient descent with heavy-ball momentum: `v_t = μ v_{t−1} + g_t`, `θ ← θ − η v_t`.
    Sgd {
        /// `μ` in `[0, 1)`; 0 is plain gradient descent.
        momentum: f64,
    },
    /// Adam (Kingma & Ba 2015, algorithm 1): `m_t = β₁ m_{t−1} + (1 − β₁) g_t`,
    /// `v_t = β₂ v_{t−1} + (1 − β₂) g_t²`, `θ ← θ − η m̂_t/(√v̂_t + ε)` with `m̂_t = m_t/(1 − β₁ᵗ)`,
    /// `v̂_t = v_t/(1 − β₂ᵗ)`.
    Adam {
        /// `β₁` in `[0, 1)`.
        beta1: f64,
        /// `β₂` in `[0, 1)`.
        beta2: f64,
        /// `ε > 0`.
        epsilon: f64,
    },
}

impl Optimizer {
    /// SGD with momentum 0.9.
    pub fn sgd() -> Optimizer {
        Optimizer::Sgd { momentum: 0.9 }
    }

    /// Adam with the published `β₁ = 0.9`, `β₂ = 0.999`, `ε = 10⁻⁸`.
    pub fn adam() -> Optimizer {
        Optimizer::Adam {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
        }
    }

    /// Its name in options and files.
    pub fn name(&self) -> &'static str {
        match self {
            Optimizer::Sgd { .. } => "sgd",
            Optimizer::Adam { .. } => "adam",
        }
    }

    /// Refuses options that are out of range.
    ///
    /// # Errors
    /// [`Error::OutOfRange`].
    pub fn check(&self) -> Result<()> {
        let below_one = |option: &'static str, value: f64| {
            check_range(option, value, (0.0..1.0).contains(&value), "in [0, 1)")
        };
        match *self {
            Optimizer::Sgd { momentum } => below_one("momentum", momentum),
            Optimizer::Adam {
                beta1,
                beta2,
                epsilon,
            } => {
                below_one("beta1", beta1)?;
                below_one("beta2", beta2)?;
                let positive = epsilon > 0.0 && epsilon.is_finite();
                check_range("epsilon of adam", epsilon, positive, "positive and finite")
            }
        }
    }
}

impl std::str::FromStr for Optimizer {
    type Err = Error;

    fn from_str(name: &str) -> Result<Optimizer> {
        match name {
            "sgd" => Ok(Optimizer::sgd()),
            "adam" => Ok(Optimizer::adam()),
            _ => Err(Error::UnknownOptimizer { name: name.into() }),
        }
    }
}

/// An optimizer's memory of earlier gradients.
#[derive(Clone, Debug, PartialEq)]
pub struct OptimizerState<T> {
    optimizer: Optimizer,
    /// Steps so far.
    steps: i32,
    /// `v` of SGD, `m` of Adam.
    first: Vec<T>,
    /// `v` of Adam.
    second: Vec<T>,
}

impl<T: Scalar> OptimizerState<T> {
    /// The state before the first step, for `parameters` parameters.
    pub fn new(optimizer: Optimizer, parameters: usize) -> OptimizerState<T> {
        let second = match optimizer {
            Optimizer::Sgd { .. } => 0,
            Optimizer::Adam { .. } => parameters,
        };
        OptimizerState {
            optimizer,
            steps: 0,
            first: vec![T::ZERO; parameters],
            second: vec![T::ZERO; second],
        }
    }

    /// Takes one step of learning rate `rate`.
    ///
    /// # Panics
    /// If the lengths differ from the number of parameters.
    pub fn step(&mut self, parameters: &mut [T], gradient: &[T], rate: f64) {
        assert_eq!(
            parameters.len(),
            self.first.len(),
            "parameters of another network"
        );
        assert_eq!(
            gradient.len(),
            self.first.len(),
            "gradient of another network"
        );
        self.steps = self.steps.saturating_add(1);
        match self.optimizer {
            Optimizer::Sgd { momentum } => self.sgd(parameters, gradient, rate, momentum),
            Optimizer::Adam {
                beta1,
                beta2,
                epsilon,
            } => self.adam(parameters, gradient, rate, (beta1, beta2, epsilon)),
        }
    }

    fn sgd(&mut self, parameters: &mut [T], gradient: &[T], rate: f64, momentum: f64) {
        let (rate, momentum) = (T::from_f64(rate), T::from_f64(momentum));
        for ((p, &g), v) in parameters.iter_mut().zip(gradient).zip(&mut self.first) {
            *v = momentum * *v + g;
            *p -= rate * *v;
        }
    }

    fn adam(
        &mut self,
        parameters: &mut [T],
        gradient: &[T],
        rate: f64,
        (beta1, beta2, epsilon): (f64, f64, f64),
    ) {
        let first_sum = T::from_f64(rate / (1.0 - beta1.powi(self.steps)));
        let second_sum = T::from_f64(1.0 / (1.0 - beta2.powi(self.steps)));
        let (keep1, new1) = (T::from_f64(beta1), T::from_f64(1.0 - beta1));
        let (keep2, new2) = (T::from_f64(beta2), T::from_f64(1.0 - beta2));
        let epsilon = T::from_f64(epsilon);
        let moments = self.first.iter_mut().zip(&mut self.second);
        for ((p, &g), (m, v)) in parameters.iter_mut().zip(gradient).zip(moments) {
            *m = keep1 * *m + new1 * g;
            *v = keep2 * *v + new2 * g * g;
            *p -= first_sum * *m / ((*v * second_sum).sqrt() + epsilon);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn momentum_by_hand() {
        let mut state = OptimizerState::new(Optimizer::Sgd { momentum: 0.5 }, 1);
        let mut p = [1.0];
        state.step(&mut p, &[1.0], 0.25);
        assert_eq!(p, [0.75]);
        state.step(&mut p, &[1.0], 0.25);
        assert_eq!(p, [0.75 - 0.25 * 1.5]);
    }

    #[test]
    fn adam_steps_by_the_rate_whatever_the_gradient() {
        for g in [1e-3, 1.0, -1e3] {
            let mut state = OptimizerState::<f64>::new(Optimizer::adam(), 1);
            let mut p = [0.0];
            for step in 1..=5 {
                state.step(&mut p, &[g], 0.1);
                let expected = -0.1 * f64::from(step) * g.signum();
                assert!((p[0] - expected).abs() < 1e-5 * expected.abs());
            }
        }
    }

    #[test]
    fn both_find_the_minimum_of_a_quadratic() {
        for optimizer in [Optimizer::sgd(), Optimizer::adam()] {
            let mut state = OptimizerState::new(optimizer, 2);
            let mut p = [3.0, -2.0];
            for _ in 0..2000 {
                let gradient = [p[0] - 1.0, 4.0 * (p[1] - 0.5)];
                state.step(&mut p, &gradient, 0.01);
            }
            assert!(
                (p[0] - 1.0f64).abs() < 1e-4 && (p[1] - 0.5f64).abs() < 1e-4,
                "{p:?}"
            );
        }
    }

    #[test]
    fn options_out_of_range_are_refused() {
        assert!(Optimizer::Sgd { momentum: 1.0 }.check().is_err());
        assert!(Optimizer::Sgd { momentum: f64::NAN }.check().is_err());
        assert!("adma".parse::<Optimizer>().is_err());
    }
}
