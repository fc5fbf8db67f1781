//! How to train.

use relugrad::{Loss, Objective};
use serde::{Deserialize, Serialize};

use crate::attack::{AnyAttack, Attacker, Norm, Pgd};
use crate::data::Augmentation;
use crate::error::{Error, Result, check_range};
use crate::optimizer::{Adam, AnyOptimizer, Optimizer};
use crate::schedule::{Ramp, Schedule};

/// How to train a network on labelled samples: minimise `mean ℓ + w(t) Σ λ_i mean penalty_i` over
/// mini-batches.
///
/// | option | default | purpose | range |
/// | --- | --- | --- | --- |
/// | `objective` | | loss and penalties with their final weights `λ` | |
/// | `optimizer` | Adam | update rule | |
/// | `learning_rate` | 10⁻³ | its step length `η` | positive |
/// | `schedule` | constant | factor of `η` in the course of the training | |
/// | `epochs` | 30 | passes over the training samples | at least 1 |
/// | `batch_size` | 64 | samples in a step; the last batch of an epoch may be smaller | at least 1 |
/// | `ramp` | constant | `w(t)`, the factor of all penalties' weights | |
/// | `penalty_interval` | 1 | penalties are taken in every so-many-th step only, with as many times their weight | at least 1 |
/// | `clip` | none | the largest ℓ2 norm of a gradient; longer ones are shortened to it | positive |
/// | `adversarial` | none | replaces samples by adversarial examples before the step | |
/// | `augmentation` | none | random changes of the images | |
/// | `stopping` | never | which epoch is the best, and when to give up | |
/// | `seed` | 0 | order of the samples, augmentation, random starts, and random rows of projected penalties | |
///
/// Files keep all but the objective, which has keys of its own there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Training {
    /// Loss and penalties with their final weights.
    #[serde(skip, default = "cross_entropy")]
    pub objective: Objective,
    /// Seed of everything that is random.
    pub seed: u64,
    /// Passes over the training samples.
    pub epochs: usize,
    /// Samples in a step.
    pub batch_size: usize,
    /// Step length before the schedule's factor; in a file the optimizer's own if left out.
    pub learning_rate: f64,
    /// The largest norm of a gradient; no limit if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip: Option<f64>,
    /// Steps from one with penalties to the next; `lazy` in files.
    #[serde(rename = "lazy")]
    pub penalty_interval: usize,
    /// Update rule.
    pub optimizer: AnyOptimizer,
    /// Factor of the step length in the course of the training.
    pub schedule: Schedule,
    /// Factor of the penalties' weights in the course of the training.
    pub ramp: Ramp,
    /// Random changes of the images; `augment` in files.
    #[serde(rename = "augment")]
    pub augmentation: Augmentation,
    /// Which epoch is the best, and when to give up; `early-stopping` in files.
    #[serde(rename = "early-stopping")]
    pub stopping: EarlyStopping,
    /// Adversarial examples instead of samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adversarial: Option<Adversarial>,
}

/// The loss of a training without penalties.
fn cross_entropy() -> Objective {
    Objective::new(Loss::softmax_cross_entropy())
}

impl Default for Training {
    /// The defaults of the table above, with softmax cross-entropy alone.
    fn default() -> Training {
        Training::new(cross_entropy())
    }
}

impl Training {
    /// The defaults of the table above.
    pub fn new(objective: Objective) -> Training {
        Training {
            objective,
            seed: 0,
            epochs: 30,
            batch_size: 64,
            learning_rate: Adam::LEARNING_RATE,
            clip: None,
            penalty_interval: 1,
            optimizer: Adam::default().into(),
            schedule: Schedule::default(),
            ramp: Ramp::default(),
            augmentation: Augmentation::default(),
            stopping: EarlyStopping::default(),
            adversarial: None,
        }
    }

    /// Refuses options that are out of range.
    ///
    /// # Errors
    /// [`Error::OutOfRange`], and [`Error::Penalty`] for one that is there twice.
    pub fn check(&self) -> Result<()> {
        let terms = self.objective.terms();
        let twice = (1..terms.len()).find(|&i| {
            let mut before = terms[..i].iter();
            before.any(|other| other.penalty == terms[i].penalty)
        });
        if let Some(i) = twice {
            return Err(Error::Penalty {
                penalty: terms[i].penalty.spec().to_string(),
                problem: "is there twice; leave one of them out".into(),
            });
        }
        self.optimizer.check()?;
        self.schedule.check()?;
        self.ramp.check()?;
        let positive = |x: f64| x > 0.0 && x.is_finite();
        let rate = self.learning_rate;
        check_range("learning rate", rate, positive(rate), "positive and finite")?;
        let counts = [
            ("epochs", self.epochs),
            ("batch size", self.batch_size),
            ("lazy", self.penalty_interval),
        ];
        for (option, count) in counts {
            check_range(option, count as f64, count > 0, "at least 1")?;
        }
        if let Some(clip) = self.clip {
            check_range("clip", clip, positive(clip), "positive and finite")?;
        }
        if let Some(adversarial) = &self.adversarial {
            adversarial.check()?;
        }
        let patience = self.stopping.patience;
        let valid = patience != Some(0);
        check_range("patience", 0.0, valid, "at least 1, or left out")
    }
}

/// Adversarial training (Goodfellow et al. 2015; Madry et al. 2018): the first samples of every
/// batch are replaced by adversarial examples of the network as it is. Penalties are then taken at
/// these points.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Adversarial {
    /// How they are searched for, such as `pgd`; see [`ATTACKS`](crate::attack::ATTACKS).
    pub method: AnyAttack,
    /// Norm of the perturbations.
    pub norm: Norm,
    /// Their largest size, in the units of the data.
    pub epsilon: f64,
    /// Gradient steps, from a random start if the attack has one.
    pub steps: usize,
    /// Length of a step; the attack's own if left out, `2.5 ε / steps` of PGD.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_size: Option<f64>,
    /// Share of the samples of a batch that are replaced, rounded to whole ones.
    pub share: f64,
}

impl Default for Adversarial {
    fn default() -> Adversarial {
        Adversarial {
            method: Pgd {}.into(),
            norm: Norm::Linf,
            epsilon: 0.1,
            steps: 7,
            step_size: None,
            share: 1.0,
        }
    }
}

impl Adversarial {
    fn check(&self) -> Result<()> {
        let share = self.share;
        let fits = (0.0..=1.0).contains(&share);
        check_range("share of adversarial examples", share, fits, "in [0, 1]")?;
        self.attack(0).check()
    }

    /// The attack with a seed.
    pub(crate) fn attack(&self, seed: u64) -> Attacker {
        let (norm, epsilon) = (self.norm, self.epsilon);
        let mut attacker = Attacker::new(self.method.clone(), norm, epsilon, self.steps, 1);
        let options = &mut attacker.options;
        options.step_size = self.step_size.unwrap_or(options.step_size);
        options.seed = seed;
        attacker
    }
}

/// Which epoch is the best, and when to give up.
///
/// The best is told on the validation samples. Without any, it is the last one, and training is
/// never stopped early.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct EarlyStopping {
    /// What the best epoch has the most or the least of; accuracy of classes and loss of values if
    /// left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<BestBy>,
    /// Epochs without a better one after which to stop; never if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patience: Option<usize>,
}

/// What tells the best epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BestBy {
    /// The largest accuracy on the validation samples; of equal ones, the smallest loss.
    Accuracy,
    /// The smallest loss on them.
    Loss,
}
