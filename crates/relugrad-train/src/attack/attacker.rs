//! An attack with its options, ready to run.

use ndarray::{ArrayView2, Axis};
use relugrad::{GoOn, Loss, Network, Scalar};

use super::search::{Outcome, Search, Target};
use super::{AnyAttack, AttackOptions, AttackSettings, Norm};
use crate::error::Result;
use crate::prediction::correct;
use crate::spec::Range;

/// An [`Attack`](super::Attack) with a ball, steps and starts.
///
/// A sample counts as fooled when *any* iterate of any restart is misclassified.
///
/// | option | FGSM | PGD | Auto-PGD | purpose |
/// | --- | --- | --- | --- | --- |
/// | `norm`, `epsilon` | | | | the ball |
/// | `steps` | 1 | | | gradient steps in a restart |
/// | `step_size` | `ε` | `2.5 ε / steps` | `2 ε` | their length, in the same norm |
/// | `restarts` | 1 | | | independent starts; the starts of fewer restarts are among those of more |
/// | `random_start` | no | yes | yes | start uniformly in the ball instead of at `x` |
/// | `seed` | | 0 | 0 | of the random starts |
#[derive(Clone, Debug, PartialEq)]
pub struct Attacker {
    /// How it searches.
    pub attack: AnyAttack,
    /// Where, how long and how often.
    pub options: AttackOptions,
}

/// The most restarts, so that every sample has its own stream of random numbers.
const RESTARTS: Range = Range::new("from 1 to 65536", |n| (1.0..=65536.0).contains(&n));

impl Attacker {
    /// An attack with the options of its own that the table tells.
    pub fn new(
        attack: impl Into<AnyAttack>,
        norm: Norm,
        epsilon: f64,
        steps: usize,
        restarts: usize,
    ) -> Attacker {
        let attack = attack.into();
        Attacker {
            options: attack.options(norm, epsilon, steps, restarts),
            attack,
        }
    }

    /// Its name and options, as results keep them.
    pub fn settings(&self) -> AttackSettings {
        AttackSettings {
            name: self.attack.title().into(),
            options: self.options,
        }
    }

    /// Refuses options that are out of range.
    ///
    /// # Errors
    /// [`Error::OutOfRange`](crate::Error::OutOfRange), and those of [`Attack::check`](super::Attack::check).
    pub fn check(&self) -> Result<()> {
        let options = &self.options;
        Range::AT_LEAST_ZERO.check("epsilon of the attack", options.epsilon)?;
        Range::AT_LEAST_ZERO.check("step size of the attack", options.step_size)?;
        RESTARTS.check("restarts", options.restarts as f64)?;
        self.attack.check(options)
    }

    /// Attacks a batch; `images: [B, D]` in `[0, 1]`, `labels: [B]`.
    ///
    /// `first` is the index of the first sample in its data set. The random starts of a sample depend on it, the seed and
    /// the number of the restart, not on the batch. All restarts are run for all samples, so that the losses are the
    /// highest that were seen; [`stand`](Self::stand) is quicker if only the misclassification counts.
    ///
    /// # Errors
    /// Those of [`Network::trace`], of the labels and of the attack.
    pub fn run<T: Scalar>(
        &self,
        network: &Network<T>,
        loss: &Loss,
        images: ArrayView2<T>,
        labels: &[usize],
        first: usize,
    ) -> relugrad::Result<Outcome<T>> {
        let numbers = (first..first + labels.len()).collect();
        let on = Target {
            network,
            loss,
            go_on: &|| true,
        };
        let mut search = Search::new(on, self.options, images.to_owned(), labels, numbers)?;
        for restart in 0..self.options.restarts {
            self.restart(&mut search, restart)?;
        }
        Ok(search.outcome)
    }

    /// For each sample the adversarial example that fools the network, and nothing if it withstands all restarts.
    ///
    /// Samples that are misclassified as they are count as fooled by themselves and are not attacked, and no sample is
    /// attacked again once it has been fooled. `first` as for [`run`](Self::run).
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub fn stand<T: Scalar>(
        &self,
        network: &Network<T>,
        loss: &Loss,
        images: ArrayView2<T>,
        labels: &[usize],
        first: usize,
    ) -> relugrad::Result<Vec<Option<Vec<T>>>> {
        self.stand_while(network, loss, images, labels, first, &|| true)
    }

    /// [`stand`](Self::stand), which asks at every iterate whether to go on.
    ///
    /// # Errors
    /// As for [`run`](Self::run), and [`relugrad::Error::Stopped`].
    pub fn stand_while<T: Scalar>(
        &self,
        network: &Network<T>,
        loss: &Loss,
        images: ArrayView2<T>,
        labels: &[usize],
        first: usize,
        go_on: GoOn,
    ) -> relugrad::Result<Vec<Option<Vec<T>>>> {
        let on = Target {
            network,
            loss,
            go_on,
        };
        let mut examples: Vec<Option<Vec<T>>> = vec![None; labels.len()];
        let logits: Vec<T> = network.forward(images)?.into_iter().collect();
        for (i, right) in correct(&logits, labels).enumerate() {
            examples[i] = (!right).then(|| images.row(i).to_vec());
        }
        for restart in 0..self.options.restarts {
            let left: Vec<usize> = (0..labels.len())
                .filter(|&i| examples[i].is_none())
                .collect();
            if left.is_empty() {
                break;
            }
            let clean = images.select(Axis(0), &left);
            let labels: Vec<usize> = left.iter().map(|&i| labels[i]).collect();
            let numbers = left.iter().map(|&i| first + i).collect();
            let mut search = Search::new(on, self.options, clean, &labels, numbers)?;
            self.restart(&mut search, restart)?;
            let found = search.outcome;
            for (row, &i) in left.iter().enumerate() {
                examples[i] = found.fooled[row].then(|| found.adversarial.row(row).to_vec());
            }
        }
        Ok(examples)
    }

    fn restart<T: Scalar>(
        &self,
        search: &mut Search<'_, T>,
        restart: usize,
    ) -> relugrad::Result<()> {
        let start = search.start(restart);
        self.attack.search(search, start)
    }
}
