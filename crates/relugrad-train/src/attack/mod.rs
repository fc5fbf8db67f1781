//! Adversarial perturbations: how far a small change of the input can raise the loss.

mod apgd;
mod ascent;
mod deepfool;
mod norm;
mod pgd;

pub use ascent::Outcome;
pub use deepfool::{DeepFool, Minimal};
pub use norm::Norm;

use serde::{Deserialize, Serialize};

use crate::error::{Result, check_range};

/// How an [`Attack`] goes up, and what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Random points of the ball without any step: what every attack must beat.
    Noise,
    /// One step of full length from the sample (Goodfellow, Shlens & Szegedy 2015).
    Fgsm,
    /// Projected gradient ascent of equal steps on the loss (Madry et al. 2018).
    Pgd,
    /// Auto-PGD on the loss: momentum, and steps that are halved when they no longer help (Croce & Hein 2020).
    ApgdCe,
    /// Auto-PGD on the difference of logits ratio, which does not change when all logits are scaled (Croce & Hein 2020,
    /// equation 7). It needs three classes.
    ApgdDlr,
}

impl Method {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Method::Noise => "noise",
            Method::Fgsm => "FGSM",
            Method::Pgd => "PGD",
            Method::ApgdCe => "APGD-CE",
            Method::ApgdDlr => "APGD-DLR",
        }
    }
}

/// An attack by gradient ascent, within `‖δ‖ ≤ ε` and the data's box `[0, 1]`.
///
/// A step of FGSM and PGD goes from `x` to `x + α sign(∇ℓ)` in ℓ∞ and `x + α ∇ℓ/‖∇ℓ‖₂` in ℓ2, then back into the ball and
/// the box. Auto-PGD begins with `α = 2ε`, adds a momentum of ¼, and halves `α` of a sample, going back to its best
/// iterate, when fewer than ¾ of the steps since the last look raised the objective, or when neither `α` nor the best
/// value changed (Croce & Hein 2020, algorithm 1; the looks are at 22 % of the steps and at intervals that shrink to 6 %).
/// A sample counts as fooled when *any* iterate of any restart is misclassified.
///
/// | option | FGSM | PGD default | APGD default | purpose |
/// | --- | --- | --- | --- | --- |
/// | `norm`, `epsilon` | | | | the ball |
/// | `steps` | 1 | 20 | 50 | gradient steps in a restart |
/// | `step_size` | `ε` | `2.5 ε / steps` | `2 ε` | `α`, in the same norm |
/// | `restarts` | 1 | 2 | 1 | independent starts; the starts of fewer restarts are among those of more |
/// | `random_start` | no | yes | yes | start uniformly in the ball instead of at `x` |
/// | `seed` | 0 | 0 | 0 | of the random starts |
#[derive(Clone, Debug, PartialEq)]
pub struct Attack {
    /// How it goes up.
    pub method: Method,
    /// Norm of the perturbation.
    pub norm: Norm,
    /// Its largest value, in the units of the data.
    pub epsilon: f64,
    /// Gradient steps in a restart.
    pub steps: usize,
    /// Length of a step in the same norm; of Auto-PGD the first.
    pub step_size: f64,
    /// Independent starts.
    pub restarts: usize,
    /// Whether to start uniformly in the ball instead of at the sample.
    pub random_start: bool,
    /// Seed of the random starts.
    pub seed: u64,
}

/// The most restarts, so that every sample has its own stream of random numbers.
const MAX_RESTARTS: usize = 1 << 16;

impl Attack {
    /// Random points, as many as `restarts`.
    pub fn noise(norm: Norm, epsilon: f64, restarts: usize) -> Attack {
        Attack {
            method: Method::Noise,
            ..Attack::pgd(norm, epsilon, 1, restarts)
        }
    }

    /// One step of full length from the sample.
    pub fn fgsm(norm: Norm, epsilon: f64) -> Attack {
        Attack {
            method: Method::Fgsm,
            norm,
            epsilon,
            steps: 1,
            step_size: epsilon,
            restarts: 1,
            random_start: false,
            seed: 0,
        }
    }

    /// Projected gradient ascent from random starts, with `α = 2.5 ε / steps`.
    pub fn pgd(norm: Norm, epsilon: f64, steps: usize, restarts: usize) -> Attack {
        Attack {
            method: Method::Pgd,
            norm,
            epsilon,
            steps,
            step_size: 2.5 * epsilon / steps.max(1) as f64,
            restarts,
            random_start: true,
            seed: 0,
        }
    }

    /// Auto-PGD on the loss, from random starts.
    pub fn apgd_ce(norm: Norm, epsilon: f64, steps: usize, restarts: usize) -> Attack {
        Attack {
            method: Method::ApgdCe,
            step_size: 2.0 * epsilon,
            ..Attack::pgd(norm, epsilon, steps, restarts)
        }
    }

    /// Auto-PGD on the difference of logits ratio, from random starts.
    pub fn apgd_dlr(norm: Norm, epsilon: f64, steps: usize, restarts: usize) -> Attack {
        Attack {
            method: Method::ApgdDlr,
            ..Attack::apgd_ce(norm, epsilon, steps, restarts)
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
        let (steps, restarts) = (self.steps, self.restarts);
        check_range("steps of the attack", steps as f64, steps > 0, "at least 1")?;
        let fits = (1..=MAX_RESTARTS).contains(&restarts);
        check_range("restarts", restarts as f64, fits, "from 1 to 65536")
    }
}
