//! Adam with decoupled decay.

use relugrad::Scalar;
use serde::{Deserialize, Serialize};

use super::{Adam, Optimizer, State, adam};
use crate::spec::OptionInfo;

/// Adam with decoupled decay (Loshchilov & Hutter 2019, algorithm 2): `θ ← (1 − η ω) θ` before the
/// step of [`Adam`], whose gradient does not have the decay in it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct AdamW {
    /// `β₁` in `[0, 1)`.
    pub beta1: f64,
    /// `β₂` in `[0, 1)`.
    pub beta2: f64,
    /// `ε > 0`.
    pub epsilon: f64,
    /// `ω ≥ 0`.
    pub weight_decay: f64,
}

impl Default for AdamW {
    /// As [`Adam`], with a decay of 0.01.
    fn default() -> AdamW {
        AdamW {
            weight_decay: 0.01,
            beta1: Adam::default().beta1,
            beta2: Adam::default().beta2,
            epsilon: Adam::default().epsilon,
        }
    }
}

impl AdamW {
    fn adam(&self) -> Adam {
        Adam {
            beta1: self.beta1,
            beta2: self.beta2,
            epsilon: self.epsilon,
            weight_decay: 0.0,
        }
    }
}

impl Optimizer for AdamW {
    const NAME: &'static str = "adamw";
    const MEANING: &'static str = "Adam with decay beside its step";
    const OPTIONS: &'static [OptionInfo] = adam::OPTIONS;

    fn buffers(&self, parameters: usize) -> Vec<(&'static str, usize)> {
        self.adam().buffers(parameters)
    }

    fn step<T: Scalar>(
        &self,
        state: &mut State<T>,
        parameters: &mut [T],
        gradient: &[T],
        rate: f64,
    ) {
        if self.weight_decay > 0.0 {
            let keep = T::from_f64(1.0 - rate * self.weight_decay);
            parameters.iter_mut().for_each(|p| *p *= keep);
        }
        self.adam().step(state, parameters, gradient, rate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optimizer::{AnyOptimizer, OptimizerState};
    use approx::assert_abs_diff_eq;

    /// After one step `m̂/√v̂` is the gradient's sign, so only the decay makes a difference.
    #[test]
    fn decay_is_in_the_gradient_of_adam_and_beside_that_of_adamw() {
        let step = |optimizer: AnyOptimizer| {
            let (mut state, mut p) = (OptimizerState::new(optimizer, 1), [1.0f64]);
            state.step(&mut p, &[-0.25], 0.125);
            p[0]
        };
        let adam = Adam {
            weight_decay: 0.5,
            ..Adam::default()
        };
        let adamw = AdamW {
            weight_decay: 0.5,
            ..AdamW::default()
        };
        assert!(
            (step(adam.into()) - 0.875).abs() < 1e-7,
            "the gradient is −1/4 + 1/2"
        );
        assert_abs_diff_eq!(step(adamw.into()), 0.9375 + 0.125, epsilon = 1e-7);
    }
}
