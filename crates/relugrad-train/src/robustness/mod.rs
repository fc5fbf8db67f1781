//! How robust a network is: attacks of growing strength from above, certificates from below, and
//! what to doubt.

mod certificate;
mod diagnosis;
mod report;
mod run;

use relugrad::{Loss, Penalty};
use serde::{Deserialize, Serialize};

use crate::attack::{ATTACKS, AnyAttack, Attacker, DeepFool, Effort, Norm};
use crate::error::{Result, check_range};

pub use certificate::Radii;
pub use diagnosis::{Diagnosis, VANISHING};
pub use report::{Attacked, Evaluated, Predicted, Report, Sample};
pub use run::evaluate;

/// What to find out about a network.
///
/// | option | default | purpose |
/// | --- | --- | --- |
/// | `linf`, `l2`, `l1` | 0.05, 0.1, 0.2; 0.25, 0.5, 1; none | sizes of perturbations |
/// | `samples` | 1000 | how many samples are attacked, from the first on |
/// | `pgd_steps`, `pgd_restarts` | 40, 5 | of PGD; it is also run with one restart |
/// | `apgd_steps`, `apgd_restarts` | 100, 5 | of Auto-PGD on the loss and on the difference of logits ratio |
/// | `deepfool_steps` | 50 | of DeepFool in both norms; 0 leaves it out |
/// | `certified` | 100 | how many samples get certificates; each costs as many forward rows as there are inputs |
/// | `penalties` | none | penalties whose values are told for each attacked sample |
/// | `further` | none | attacks of one's own |
/// | `loss` | by the data | what is raised; squared error for values, and for classes the logistic loss of one logit or softmax cross-entropy |
/// | `seed` | 0 | of random starts |
#[derive(Clone, Debug, PartialEq)]
pub struct EvaluationOptions {
    /// Sizes of perturbations in ℓ∞.
    pub linf: Vec<f64>,
    /// Sizes of perturbations in ℓ2.
    pub l2: Vec<f64>,
    /// Sizes of perturbations in ℓ1.
    pub l1: Vec<f64>,
    /// How many samples are attacked.
    pub samples: usize,
    /// Steps of PGD.
    pub pgd_steps: usize,
    /// Random starts of PGD.
    pub pgd_restarts: usize,
    /// Steps of Auto-PGD.
    pub apgd_steps: usize,
    /// Random starts of Auto-PGD.
    pub apgd_restarts: usize,
    /// The most steps of DeepFool.
    pub deepfool_steps: usize,
    /// How many samples get certificates.
    pub certified: usize,
    /// Penalties whose values are told.
    pub penalties: Vec<Penalty>,
    /// Attacks of one's own, each beside the others of its norm and size.
    pub further: Vec<Attacker>,
    /// What the attacks raise and the penalties see; none for the usual loss of such data.
    pub loss: Option<Loss>,
    /// Seed of random starts.
    pub seed: u64,
}

impl Default for EvaluationOptions {
    fn default() -> EvaluationOptions {
        EvaluationOptions {
            linf: vec![0.05, 0.1, 0.2],
            l2: vec![0.25, 0.5, 1.0],
            l1: Vec::new(),
            samples: 1000,
            pgd_steps: 40,
            pgd_restarts: 5,
            apgd_steps: 100,
            apgd_restarts: 5,
            deepfool_steps: 50,
            certified: 100,
            penalties: Vec::new(),
            further: Vec::new(),
            loss: None,
            seed: 0,
        }
    }
}

/// The name of the worst of all attacks among their names.
pub const WORST: &str = "worst";

impl EvaluationOptions {
    /// All attacks in the order of the catalogue, for each norm and size.
    pub(crate) fn attackers(&self) -> Vec<Attacker> {
        let linf = self.linf.iter().map(|&epsilon| (Norm::Linf, epsilon));
        let l2 = self.l2.iter().map(|&epsilon| (Norm::L2, epsilon));
        let l1 = self.l1.iter().map(|&epsilon| (Norm::L1, epsilon));
        let mut balls: Vec<(Norm, f64)> = linf.chain(l2).chain(l1).collect();
        let ball = |attacker: &Attacker| (attacker.options.norm, attacker.options.epsilon);
        let effort = |steps, restarts| Effort { steps, restarts };
        let plain = effort(self.pgd_steps, self.pgd_restarts);
        let auto = effort(self.apgd_steps, self.apgd_restarts);
        let own = ATTACKS.iter().flat_map(|entry| {
            let attack = entry.attack();
            let efforts = attack.efforts(plain, auto).into_iter();
            efforts.map(move |effort| (attack.clone(), effort))
        });
        let own: Vec<(AnyAttack, Effort)> = own.collect();
        let mut attackers = Vec::new();
        for &(norm, epsilon) in &balls {
            attackers.extend(own.iter().map(|(attack, Effort { steps, restarts })| {
                let mut attacker = Attacker::new(attack.clone(), norm, epsilon, *steps, *restarts);
                attacker.options.seed = self.seed;
                attacker
            }));
            let here = self.further.iter();
            attackers.extend(here.filter(|a| ball(a) == (norm, epsilon)).cloned());
        }
        for attacker in &self.further {
            if !balls.contains(&ball(attacker)) {
                balls.push(ball(attacker));
                let same = self.further.iter();
                attackers.extend(same.filter(|a| ball(a) == ball(attacker)).cloned());
            }
        }
        attackers
    }

    fn deepfool(&self, norm: Norm) -> DeepFool {
        DeepFool {
            steps: self.deepfool_steps,
            ..DeepFool::new(norm)
        }
    }

    /// Refuses options that are out of range.
    ///
    /// # Errors
    /// [`Error::OutOfRange`](crate::Error::OutOfRange).
    pub fn check(&self) -> Result<()> {
        let samples = self.samples;
        check_range("samples", samples as f64, samples > 0, "at least 1")?;
        self.attackers().iter().try_for_each(Attacker::check)
    }
}

/// How good predictions are: of classes the share that is right, of values their errors.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Standing {
    /// Of classes.
    Share(Share),
    /// Of values.
    Fit(Fit),
}

impl Standing {
    /// Of how many samples it is.
    pub fn samples(&self) -> usize {
        match self {
            Standing::Share(share) => share.samples,
            Standing::Fit(fit) => fit.samples,
        }
    }

    /// The share that is right, if it is of classes.
    pub fn share(&self) -> Option<&Share> {
        match self {
            Standing::Share(share) => Some(share),
            Standing::Fit(_) => None,
        }
    }

    /// What attacks lower: the number of samples that are right, or minus the mean loss.
    pub(crate) fn merit(&self) -> f64 {
        match self {
            Standing::Share(share) => share.count as f64,
            Standing::Fit(fit) => -fit.loss,
        }
    }
}

/// Errors of values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fit {
    /// Of how many samples.
    pub samples: usize,
    /// Mean loss.
    pub loss: f64,
    /// Mean squared error.
    pub mse: f64,
    /// `R²`.
    pub r2: f64,
}

/// A share of samples with its 95 % confidence interval (Wilson 1927).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// How many.
    pub count: usize,
    /// Of how many.
    pub samples: usize,
    /// `count / samples`.
    pub share: f64,
    /// Where the share of the population lies in 95 % of cases.
    pub interval: [f64; 2],
}

impl Share {
    /// `count` of `samples`, which must be positive.
    pub fn new(count: usize, samples: usize) -> Share {
        // The normal distribution's quantile of 97.5 %.
        const Z: f64 = 1.959_963_984_540_054;
        let (n, p) = (samples as f64, count as f64 / samples as f64);
        let centre = (p + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
        let spread = (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
        let half = Z / (1.0 + Z * Z / n) * spread;
        Share {
            count,
            samples,
            share: p,
            interval: [(centre - half).max(0.0), (centre + half).min(1.0)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_abs_diff_eq;

    #[test]
    fn wilsons_interval_by_the_book() {
        // 8 of 10: (0.490, 0.943), the usual textbook example.
        let share = Share::new(8, 10);
        assert_eq!(share.share, 0.8);
        assert_abs_diff_eq!(share.interval[0], 0.4901, epsilon = 1e-3);
        assert_abs_diff_eq!(share.interval[1], 0.9433, epsilon = 1e-3);
        assert_eq!(Share::new(0, 5).interval[0], 0.0);
        assert!(Share::new(5, 5).interval[1] == 1.0 && Share::new(5, 5).interval[0] > 0.5);
    }
}
