//! Optimizers: how a gradient changes the parameters.

use relugrad::Scalar;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, check_range};

/// An update rule, applied to every parameter alike. `t` counts steps from 1, `g_t` is the gradient, `η` the learning
/// rate and `ω` the weight decay.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase", deny_unknown_fields)]
#[non_exhaustive]
pub enum Optimizer {
    /// Stochastic gradient descent with momentum: `v_t = μ v_{t−1} + g_t + ω θ`, `θ ← θ − η v_t` (heavy ball), or
    /// `θ ← θ − η (g_t + ω θ + μ v_t)` with `nesterov`.
    Sgd {
        /// `μ` in `[0, 1)`; 0 is plain gradient descent.
        #[serde(default = "default_momentum")]
        momentum: f64,
        /// Whether to look ahead, as in Sutskever et al. 2013, in the form of PyTorch.
        #[serde(default)]
        nesterov: bool,
        /// `ω ≥ 0`, the weight of `½‖θ‖²` in the objective.
        #[serde(default, rename = "weight-decay")]
        weight_decay: f64,
    },
    /// Adam (Kingma & Ba 2015, algorithm 1): `m_t = β₁ m_{t−1} + (1 − β₁) g_t`,
    /// `v_t = β₂ v_{t−1} + (1 − β₂) g_t²`, `θ ← θ − η m̂_t/(√v̂_t + ε)` with `m̂_t = m_t/(1 − β₁ᵗ)`,
    /// `v̂_t = v_t/(1 − β₂ᵗ)`; the gradient is that of the objective with `½ ω ‖θ‖²`.
    Adam {
        /// `β₁` in `[0, 1)`.
        #[serde(default = "default_beta1")]
        beta1: f64,
        /// `β₂` in `[0, 1)`.
        #[serde(default = "default_beta2")]
        beta2: f64,
        /// `ε > 0`.
        #[serde(default = "default_epsilon")]
        epsilon: f64,
        /// `ω ≥ 0`.
        #[serde(default, rename = "weight-decay")]
        weight_decay: f64,
    },
    /// Adam with decoupled decay (Loshchilov & Hutter 2019, algorithm 2): `θ ← (1 − η ω) θ` before Adam's step, whose
    /// gradient does not have the decay in it.
    AdamW {
        /// `β₁` in `[0, 1)`.
        #[serde(default = "default_beta1")]
        beta1: f64,
        /// `β₂` in `[0, 1)`.
        #[serde(default = "default_beta2")]
        beta2: f64,
        /// `ε > 0`.
        #[serde(default = "default_epsilon")]
        epsilon: f64,
        /// `ω ≥ 0`.
        #[serde(default = "default_decay", rename = "weight-decay")]
        weight_decay: f64,
    },
}

fn default_momentum() -> f64 {
    0.9
}

fn default_beta1() -> f64 {
    0.9
}

fn default_beta2() -> f64 {
    0.999
}

fn default_epsilon() -> f64 {
    1e-8
}

fn default_decay() -> f64 {
    0.01
}

impl Optimizer {
    /// SGD with momentum 0.9.
    pub fn sgd() -> Optimizer {
        Optimizer::Sgd {
            momentum: default_momentum(),
            nesterov: false,
            weight_decay: 0.0,
        }
    }

    /// Adam with the published `β₁ = 0.9`, `β₂ = 0.999`, `ε = 10⁻⁸`, without decay.
    pub fn adam() -> Optimizer {
        Optimizer::Adam {
            beta1: default_beta1(),
            beta2: default_beta2(),
            epsilon: default_epsilon(),
            weight_decay: 0.0,
        }
    }

    /// AdamW with Adam's published options and a decay of 0.01.
    pub fn adamw() -> Optimizer {
        Optimizer::AdamW {
            beta1: default_beta1(),
            beta2: default_beta2(),
            epsilon: default_epsilon(),
            weight_decay: default_decay(),
        }
    }

    /// Its name in options and files.
    pub fn name(&self) -> &'static str {
        match self {
            Optimizer::Sgd { .. } => "sgd",
            Optimizer::Adam { .. } => "adam",
            Optimizer::AdamW { .. } => "adamw",
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
        let decay = match *self {
            Optimizer::Sgd {
                momentum,
                nesterov,
                weight_decay,
            } => {
                below_one("momentum", momentum)?;
                let moves = !nesterov || momentum > 0.0;
                check_range("momentum", momentum, moves, "positive for nesterov")?;
                weight_decay
            }
            Optimizer::Adam {
                beta1,
                beta2,
                epsilon,
                weight_decay,
            }
            | Optimizer::AdamW {
                beta1,
                beta2,
                epsilon,
                weight_decay,
            } => {
                below_one("beta1", beta1)?;
                below_one("beta2", beta2)?;
                let positive = epsilon > 0.0 && epsilon.is_finite();
                check_range("epsilon of adam", epsilon, positive, "positive and finite")?;
                weight_decay
            }
        };
        let valid = decay >= 0.0 && decay.is_finite();
        check_range("weight decay", decay, valid, "finite and at least 0")
    }
}

impl std::str::FromStr for Optimizer {
    type Err = Error;

    fn from_str(name: &str) -> Result<Optimizer> {
        match name {
            "sgd" => Ok(Optimizer::sgd()),
            "adam" => Ok(Optimizer::adam()),
            "adamw" => Ok(Optimizer::adamw()),
            _ => Err(Error::UnknownOptimizer { name: name.into() }),
        }
    }
}

/// An optimizer's memory of earlier gradients.
#[derive(Clone, Debug, PartialEq)]
pub struct OptimizerState<T> {
    optimizer: Optimizer,
    /// Steps so far.
    steps: u64,
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
            Optimizer::Adam { .. } | Optimizer::AdamW { .. } => parameters,
        };
        OptimizerState {
            optimizer,
            steps: 0,
            first: vec![T::ZERO; parameters],
            second: vec![T::ZERO; second],
        }
    }

    /// The moments, to be saved: `v` of SGD; `m` and `v` of Adam.
    pub(crate) fn moments(&self) -> [&[T]; 2] {
        [&self.first, &self.second]
    }

    /// Puts saved moments back; `None` if they are not as many.
    pub(crate) fn restore(&mut self, steps: u64, first: Vec<T>, second: Vec<T>) -> Option<()> {
        let fits = first.len() == self.first.len() && second.len() == self.second.len();
        fits.then(|| (self.steps, self.first, self.second) = (steps, first, second))
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
        self.steps += 1;
        match self.optimizer {
            Optimizer::Sgd {
                momentum,
                nesterov,
                weight_decay,
            } => self.sgd(
                parameters,
                gradient,
                rate,
                (momentum, nesterov, weight_decay),
            ),
            Optimizer::Adam {
                beta1,
                beta2,
                epsilon,
                weight_decay,
            } => {
                let moments = (beta1, beta2, epsilon);
                self.adam(parameters, gradient, rate, moments, weight_decay);
            }
            Optimizer::AdamW {
                beta1,
                beta2,
                epsilon,
                weight_decay,
            } => {
                if weight_decay > 0.0 {
                    let keep = T::from_f64(1.0 - rate * weight_decay);
                    parameters.iter_mut().for_each(|p| *p *= keep);
                }
                self.adam(parameters, gradient, rate, (beta1, beta2, epsilon), 0.0);
            }
        }
    }

    fn sgd(
        &mut self,
        parameters: &mut [T],
        gradient: &[T],
        rate: f64,
        (momentum, nesterov, decay): (f64, bool, f64),
    ) {
        let (rate, momentum, decay) =
            (T::from_f64(rate), T::from_f64(momentum), T::from_f64(decay));
        for ((p, &g), v) in parameters.iter_mut().zip(gradient).zip(&mut self.first) {
            let g = g + decay * *p;
            *v = momentum * *v + g;
            *p -= rate * if nesterov { g + momentum * *v } else { *v };
        }
    }

    fn adam(
        &mut self,
        parameters: &mut [T],
        gradient: &[T],
        rate: f64,
        (beta1, beta2, epsilon): (f64, f64, f64),
        decay: f64,
    ) {
        // Beyond the exponent's range every power is 0 already.
        let steps = i32::try_from(self.steps).unwrap_or(i32::MAX);
        let first_sum = T::from_f64(rate / (1.0 - beta1.powi(steps)));
        let second_sum = T::from_f64(1.0 / (1.0 - beta2.powi(steps)));
        let (keep1, new1) = (T::from_f64(beta1), T::from_f64(1.0 - beta1));
        let (keep2, new2) = (T::from_f64(beta2), T::from_f64(1.0 - beta2));
        let (epsilon, decay) = (T::from_f64(epsilon), T::from_f64(decay));
        let moments = self.first.iter_mut().zip(&mut self.second);
        for ((p, &g), (m, v)) in parameters.iter_mut().zip(gradient).zip(moments) {
            let g = g + decay * *p;
            *m = keep1 * *m + new1 * g;
            *v = keep2 * *v + new2 * g * g;
            *p -= first_sum * *m / ((*v * second_sum).sqrt() + epsilon);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(optimizer: Optimizer, gradients: &[f64], rate: f64, start: f64) -> f64 {
        let mut state = OptimizerState::new(optimizer, 1);
        let mut p = [start];
        gradients
            .iter()
            .for_each(|&g| state.step(&mut p, &[g], rate));
        p[0]
    }

    #[test]
    fn momentum_by_hand() {
        let sgd = |nesterov, weight_decay| Optimizer::Sgd {
            momentum: 0.5,
            nesterov,
            weight_decay,
        };
        assert_eq!(steps(sgd(false, 0.0), &[1.0], 0.25, 1.0), 0.75);
        assert_eq!(steps(sgd(false, 0.0), &[1.0, 1.0], 0.25, 1.0), 0.375);
        // The step is g + v/2 with v = 1, then 3/2.
        assert_eq!(
            steps(sgd(true, 0.0), &[1.0, 1.0], 0.25, 1.0),
            0.625 - 0.4375
        );
        // The gradient is 1 + 1/2 at first.
        assert_eq!(steps(sgd(false, 0.5), &[1.0], 0.25, 1.0), 0.625);
    }

    /// After one step `m̂/√v̂` is the gradient's sign, so only the decay makes a difference.
    #[test]
    fn decay_is_in_the_gradient_of_adam_and_beside_that_of_adamw() {
        let (beta1, beta2, epsilon, weight_decay) = (0.9, 0.999, 1e-8, 0.5);
        let adam = Optimizer::Adam {
            beta1,
            beta2,
            epsilon,
            weight_decay,
        };
        let adam = steps(adam, &[-0.25], 0.125, 1.0);
        assert!((adam - 0.875).abs() < 1e-7, "the gradient is −1/4 + 1/2");
        let adamw = Optimizer::AdamW {
            beta1,
            beta2,
            epsilon,
            weight_decay,
        };
        let adamw = steps(adamw, &[-0.25], 0.125, 1.0);
        assert!((adamw - (0.9375 + 0.125)).abs() < 1e-7);
    }

    #[test]
    fn adam_steps_by_the_rate_whatever_the_gradient() {
        for g in [1e-3, 1.0, -1e3] {
            let found = steps(Optimizer::adam(), &[g; 5], 0.1, 0.0);
            assert!((found + 0.5 * g.signum()).abs() < 1e-5);
        }
    }

    #[test]
    fn all_find_the_minimum_of_a_quadratic() {
        let nesterov = Optimizer::Sgd {
            momentum: 0.9,
            nesterov: true,
            weight_decay: 0.0,
        };
        for optimizer in [Optimizer::sgd(), nesterov, Optimizer::adam()] {
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
        let sgd = |momentum, nesterov, weight_decay| Optimizer::Sgd {
            momentum,
            nesterov,
            weight_decay,
        };
        for bad in [
            sgd(1.0, false, 0.0),
            sgd(f64::NAN, false, 0.0),
            sgd(0.0, true, 0.0),
            sgd(0.9, false, -1.0),
            Optimizer::Adam {
                beta1: 0.9,
                beta2: 0.9,
                epsilon: 0.0,
                weight_decay: 0.0,
            },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
        assert!("adma".parse::<Optimizer>().is_err());
    }
}
