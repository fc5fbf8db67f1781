//! Adam.

use relugrad::Scalar;
use serde::{Deserialize, Serialize};

use super::{Optimizer, State};
use crate::spec::{OptionInfo, Range};

/// Adam (Kingma & Ba 2015, algorithm 1): `m_t = β₁ m_{t−1} + (1 − β₁) g_t`,
/// `v_t = β₂ v_{t−1} + (1 − β₂) g_t²`, `θ ← θ − η m̂_t/(√v̂_t + ε)` with `m̂_t = m_t/(1 − β₁ᵗ)`,
/// `v̂_t = v_t/(1 − β₂ᵗ)`; the gradient is that of the objective with `½ ω ‖θ‖²`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Adam {
    /// `β₁` in `[0, 1)`.
    pub beta1: f64,
    /// `β₂` in `[0, 1)`.
    pub beta2: f64,
    /// `ε > 0`.
    pub epsilon: f64,
    /// `ω ≥ 0`.
    pub weight_decay: f64,
}

impl Default for Adam {
    /// As published, without decay.
    fn default() -> Adam {
        Adam {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
        }
    }
}

/// The options of Adam and AdamW.
pub(super) const OPTIONS: &[OptionInfo] = &[
    OptionInfo {
        name: "beta1",
        meaning: "how much of the mean of gradients is kept",
        range: Range::BELOW_ONE,
    },
    OptionInfo {
        name: "beta2",
        meaning: "how much of the mean of their squares is kept",
        range: Range::BELOW_ONE,
    },
    OptionInfo {
        name: "epsilon",
        meaning: "what is added to the root of that mean",
        range: Range::POSITIVE,
    },
    OptionInfo {
        name: "weight-decay",
        meaning: "weight of ½‖θ‖²",
        range: Range::AT_LEAST_ZERO,
    },
];

impl Optimizer for Adam {
    const NAME: &'static str = "adam";
    const MEANING: &'static str = "steps in units of the gradients' size";
    const OPTIONS: &'static [OptionInfo] = OPTIONS;

    fn buffers(&self, parameters: usize) -> Vec<(&'static str, usize)> {
        vec![("first_moment", parameters), ("second_moment", parameters)]
    }

    fn step<T: Scalar>(
        &self,
        state: &mut State<T>,
        parameters: &mut [T],
        gradient: &[T],
        rate: f64,
    ) {
        // Beyond the exponent's range every power is 0 already.
        let steps = i32::try_from(state.steps()).unwrap_or(i32::MAX);
        let [first, second] = state.buffers();
        let first_sum = T::from_f64(rate / (1.0 - self.beta1.powi(steps)));
        let second_sum = T::from_f64(1.0 / (1.0 - self.beta2.powi(steps)));
        let [keep1, new1] = [self.beta1, 1.0 - self.beta1].map(T::from_f64);
        let [keep2, new2] = [self.beta2, 1.0 - self.beta2].map(T::from_f64);
        let [epsilon, decay] = [self.epsilon, self.weight_decay].map(T::from_f64);
        let moments = first.iter_mut().zip(second);
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
    use crate::optimizer::OptimizerState;
    use approx::assert_abs_diff_eq;

    #[test]
    fn adam_steps_by_the_rate_whatever_the_gradient() {
        for g in [1e-3, 1.0, -1e3f64] {
            let (mut state, mut p) = (OptimizerState::new(Adam::default(), 1), [0.0]);
            (0..5).for_each(|_| state.step(&mut p, &[g], 0.1));
            assert_abs_diff_eq!(p[0], -(0.5 * g.signum()), epsilon = 1e-5);
        }
    }
}
