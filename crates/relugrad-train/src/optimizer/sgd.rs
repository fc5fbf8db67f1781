//! Stochastic gradient descent with momentum.

use relugrad::Scalar;
use serde::{Deserialize, Serialize};

use super::{Optimizer, State};
use crate::error::Result;
use crate::spec::{OptionInfo, Range};

/// Stochastic gradient descent with momentum: `v_t = μ v_{t−1} + g_t + ω θ`, `θ ← θ − η v_t` (heavy
/// ball), or `θ ← θ − η (g_t + ω θ + μ v_t)` with `nesterov`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Sgd {
    /// `μ` in `[0, 1)`; 0 is plain gradient descent.
    pub momentum: f64,
    /// Whether to look ahead, as in Sutskever et al. 2013, in the form of PyTorch.
    pub nesterov: bool,
    /// `ω ≥ 0`, the weight of `½‖θ‖²` in the objective.
    pub weight_decay: f64,
}

impl Default for Sgd {
    fn default() -> Sgd {
        Sgd {
            momentum: 0.9,
            nesterov: false,
            weight_decay: 0.0,
        }
    }
}

impl Optimizer for Sgd {
    const NAME: &'static str = "sgd";
    const MEANING: &'static str = "gradient descent with momentum";
    const OPTIONS: &'static [OptionInfo] = &[
        OptionInfo {
            name: "momentum",
            meaning: "how much of the last step is kept",
            range: Range::BELOW_ONE,
        },
        OptionInfo {
            name: "nesterov",
            meaning: "look ahead",
            range: Range::FLAG,
        },
        OptionInfo {
            name: "weight-decay",
            meaning: "weight of ½‖θ‖² in the objective",
            range: Range::AT_LEAST_ZERO,
        },
    ];

    fn check(&self) -> Result<()> {
        let moves = match self.nesterov {
            true => Range::new("positive for nesterov", |momentum| momentum > 0.0),
            false => Range::BELOW_ONE,
        };
        moves.check("momentum", self.momentum)
    }

    fn buffers(&self, parameters: usize) -> Vec<(&'static str, usize)> {
        vec![("first_moment", parameters)]
    }

    fn step<T: Scalar>(
        &self,
        state: &mut State<T>,
        parameters: &mut [T],
        gradient: &[T],
        rate: f64,
    ) {
        let [velocity] = state.buffers();
        let [rate, momentum, decay] = [rate, self.momentum, self.weight_decay].map(T::from_f64);
        for ((p, &g), v) in parameters.iter_mut().zip(gradient).zip(velocity) {
            let g = g + decay * *p;
            *v = momentum * *v + g;
            *p -= rate * if self.nesterov { g + momentum * *v } else { *v };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optimizer::OptimizerState;

    #[test]
    fn momentum_by_hand() {
        let steps = |nesterov, weight_decay, gradients: &[f64]| {
            let momentum = 0.5;
            let sgd = Sgd {
                momentum,
                nesterov,
                weight_decay,
            };
            let (mut state, mut p) = (OptimizerState::new(sgd, 1), [1.0]);
            gradients
                .iter()
                .for_each(|&g| state.step(&mut p, &[g], 0.25));
            p[0]
        };
        assert_eq!(steps(false, 0.0, &[1.0]), 0.75);
        assert_eq!(steps(false, 0.0, &[1.0, 1.0]), 0.375);
        // The step is g + v/2 with v = 1, then 3/2.
        assert_eq!(steps(true, 0.0, &[1.0, 1.0]), 0.625 - 0.4375);
        // The gradient is 1 + 1/2 at first.
        assert_eq!(steps(false, 0.5, &[1.0]), 0.625);
    }
}
