//! Adversarial perturbations: how far a small change of the input can raise the loss. A trait, its
//! catalogue, and one file for each attack.
//!
//! To add one of your own, implement [`Attack`] and give it to [`Attacker::new`], to
//! [`Adversarial`](crate::Adversarial) or to
//! [`EvaluationOptions`](crate::robustness::EvaluationOptions). In this crate a new one is a file
//! of this folder and its lines below.

mod any;
mod apgd;
mod attacker;
mod ball;
mod deepfool;
mod fgsm;
mod noise;
mod pgd;
mod search;
mod union;

use std::fmt;

use ndarray::Array2;
pub use relugrad::Norm;
use relugrad::Scalar;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use any::AnyAttack;
pub use apgd::{ApgdCe, ApgdDlr};
pub use attacker::Attacker;
pub use deepfool::{DeepFool, Minimal};
pub use fgsm::Fgsm;
pub use noise::Noise;
pub use pgd::Pgd;
pub use search::{Look, Outcome, Search};
pub use union::{PARTS, Union};

use crate::error::Result;
use crate::spec::Range;
pub(crate) use ball::Ball;

/// The attacks that a configuration can name.
pub const ATTACKS: [Entry; 6] = [
    Entry::of::<Noise>(),
    Entry::of::<Fgsm>(),
    Entry::of::<Pgd>(),
    Entry::of::<ApgdCe>(),
    Entry::of::<ApgdDlr>(),
    Entry::of::<Union>(),
];

/// A search within `‖δ‖ ≤ ε` and the data's box, which is the way to add one. It shows the
/// network iterates by [`Search::look`], which keeps the worst of all; starts, restarts and samples
/// that need no further search are the [`Attacker`]'s. The fields are its options besides
/// [`AttackOptions`].
///
/// ```
/// use ndarray::Array2;
/// use relugrad::{Loss, Mlp, Scalar};
/// use relugrad_train::attack::{Attack, Attacker, Norm, Search};
/// use serde::Serialize;
///
/// /// Halves the step from one gradient to the next.
/// #[derive(Debug, Serialize)]
/// struct Halving;
///
/// impl Attack for Halving {
///     const NAME: &'static str = "halving";
///     const TITLE: &'static str = "halving";
///
///     fn search<T: Scalar>(&self, search: &mut Search<T>, start: Array2<T>) -> relugrad::Result<()> {
///         let (mut x, mut size) = (start, search.options().epsilon);
///         for _ in 0..search.options().steps {
///             let gradients = search.look(&x)?.gradients;
///             search.climb(&mut x, gradients, |_| size);
///             size /= 2.0;
///         }
///         search.keep(&x)
///     }
/// }
///
/// let network = Mlp::new(&[4, 8, 3]).build::<f32>(0)?;
/// let attacker = Attacker::new(Halving, Norm::L2, 0.5, 5, 2);
/// let images = Array2::from_elem((1, 4), 0.5);
/// let found = attacker.run(&network, &Loss::softmax_cross_entropy(), images.view(), &[1], 0)?;
/// assert!(found.losses[0] > 0.0);
/// # Ok::<(), relugrad_train::Error>(())
/// ```
pub trait Attack: fmt::Debug + Serialize + Send + Sync + 'static {
    /// Its name in options and files.
    const NAME: &'static str;

    /// Its name in tables.
    const TITLE: &'static str;

    /// What it is, in a few words.
    const MEANING: &'static str = "";

    /// The options for a ball, steps and restarts: by default random starts and steps of
    /// `2.5 ε / steps`.
    fn options(&self, norm: Norm, epsilon: f64, steps: usize, restarts: usize) -> AttackOptions {
        AttackOptions::plain(norm, epsilon, steps, restarts)
    }

    /// The efforts with which an evaluation runs it, the least first, given that for plain steps
    /// and that for Auto-PGD's.
    fn efforts(&self, plain: Effort, auto: Effort) -> Vec<Effort> {
        let _ = auto;
        vec![plain]
    }

    /// Refuses options that it cannot do with.
    ///
    /// # Errors
    /// Those of the attack.
    fn check(&self, options: &AttackOptions) -> Result<()> {
        Range::AT_LEAST_ONE.check("steps of the attack", options.steps as f64)
    }

    /// The fewest classes that it needs; 0, the default, of one that only raises the loss, whatever
    /// that is of.
    fn classes(&self) -> usize {
        0
    }

    /// Searches from `start: [B, D]`, which is in the ball and the box, as everything that is
    /// looked at must be.
    ///
    /// # Errors
    /// Those of [`Search::look`].
    fn search<T: Scalar>(
        &self,
        search: &mut Search<'_, T>,
        start: Array2<T>,
    ) -> relugrad::Result<()>;
}

/// How long and how often an attack searches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// Gradient steps in a restart.
    pub steps: usize,
    /// Independent starts.
    pub restarts: usize,
}

/// An attack of the catalogue.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its name in options and files.
    pub name: &'static str,
    /// Its name in tables.
    pub title: &'static str,
    /// What it is.
    pub meaning: &'static str,
    read: fn(toml::Table) -> std::result::Result<AnyAttack, toml::de::Error>,
}

impl Entry {
    /// The attack with its default options.
    pub fn attack(&self) -> AnyAttack {
        (self.read)(toml::Table::new()).expect("all options have defaults")
    }

    const fn of<A: Attack + DeserializeOwned>() -> Entry {
        Entry {
            name: A::NAME,
            title: A::TITLE,
            meaning: A::MEANING,
            read: |table| Ok(table.try_into::<A>()?.into()),
        }
    }
}

/// Where, how long and how often an attack searches.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttackOptions {
    /// Norm of the perturbation.
    pub norm: Norm,
    /// Its largest value, in the units of the data.
    pub epsilon: f64,
    /// Gradient steps in a restart; 0 for random points.
    pub steps: usize,
    /// Length of a step in the same norm; of Auto-PGD the first.
    pub step_size: f64,
    /// Independent starts; those of fewer are among those of more.
    pub restarts: usize,
    /// Whether to start uniformly in the ball instead of at the sample.
    #[serde(default)]
    pub random_start: bool,
    /// Seed of the random starts.
    #[serde(default)]
    pub seed: u64,
}

impl AttackOptions {
    /// Random starts, and steps that reach two and a half times across the radius together.
    pub fn plain(norm: Norm, epsilon: f64, steps: usize, restarts: usize) -> AttackOptions {
        AttackOptions {
            norm,
            epsilon,
            steps,
            step_size: 2.5 * epsilon / steps.max(1) as f64,
            restarts,
            random_start: true,
            seed: 0,
        }
    }
}

/// An attack as results keep it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttackSettings {
    /// Such as `PGD`.
    pub name: String,
    /// Its options.
    #[serde(flatten)]
    pub options: AttackOptions,
}
