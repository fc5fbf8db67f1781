//! Adversarial perturbations: how far a small change of the input can raise the loss.

mod norm;
mod pgd;

pub use norm::Norm;
pub use pgd::Outcome;

use crate::error::{Result, check_range};

/// An attack by (projected) gradient ascent on the loss, within `‖δ‖ ≤ ε` and the data's box `[0, 1]`.
///
/// A step goes from `x` to `x + α sign(∇ℓ)` in ℓ∞ and `x + α ∇ℓ/‖∇ℓ‖₂` in ℓ2, then back into the ball and the box.
/// A sample counts as fooled when *any* iterate of any restart is misclassified.
///
/// | option | FGSM | PGD default | purpose |
/// | --- | --- | --- | --- |
/// | `norm`, `epsilon` | | | the ball |
/// | `steps` | 1 | 20 | gradient steps in a restart |
/// | `step_size` | `ε` | `2.5 ε / steps` | `α`, in the same norm |
/// | `restarts` | 1 | 2 | independent starts |
/// | `random_start` | no | yes | start uniformly in the ball instead of at `x` |
/// | `seed` | 0 | 0 | of the random starts |
#[derive(Clone, Debug, PartialEq)]
pub struct Attack {
    /// `FGSM` or `PGD`.
    pub name: &'static str,
    /// Norm of the perturbation.
    pub norm: Norm,
    /// Its largest value, in the units of the data.
    pub epsilon: f64,
    /// Gradient steps in a restart.
    pub steps: usize,
    /// Length of a step in the same norm.
    pub step_size: f64,
    /// Independent starts.
    pub restarts: usize,
    /// Whether to start uniformly in the ball instead of at the sample.
    pub random_start: bool,
    /// Seed of the random starts.
    pub seed: u64,
}

impl Attack {
    /// One step of full length from the sample (Goodfellow, Shlens & Szegedy 2015).
    pub fn fgsm(norm: Norm, epsilon: f64) -> Attack {
        Attack {
            name: "FGSM",
            norm,
            epsilon,
            steps: 1,
            step_size: epsilon,
            restarts: 1,
            random_start: false,
            seed: 0,
        }
    }

    /// Projected gradient ascent from random starts (Madry et al. 2018), with `α = 2.5 ε / steps`.
    pub fn pgd(norm: Norm, epsilon: f64, steps: usize, restarts: usize) -> Attack {
        Attack {
            name: "PGD",
            norm,
            epsilon,
            steps,
            step_size: 2.5 * epsilon / steps.max(1) as f64,
            restarts,
            random_start: true,
            seed: 0,
        }
    }

    /// Refuses options that are out of range.
    ///
    /// # Errors
    /// [`Error::OutOfRange`](crate::Error::OutOfRange).
    pub fn check(&self) -> Result<()> {
        let size = |option, value: f64| {
            let valid = value >= 0.0 && value.is_finite();
            check_range(option, value, valid, "finite and at least 0")
        };
        size("epsilon of the attack", self.epsilon)?;
        size("step size of the attack", self.step_size)?;
        let counts = [
            ("steps of the attack", self.steps),
            ("restarts", self.restarts),
        ];
        counts
            .iter()
            .try_for_each(|&(option, n)| check_range(option, n as f64, n > 0, "at least 1"))
    }
}
