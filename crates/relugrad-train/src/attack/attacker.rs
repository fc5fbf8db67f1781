//! An attack with its options, ready to run.

use ndarray::{Array2, ArrayView2, Axis};
use relugrad::loss::TargetKind;
use relugrad::{GoOn, Loss, Network, Scalar};

use super::search::{Outcome, Search, Target};
use super::{AnyAttack, AttackOptions, AttackSettings, Norm};
use crate::data::{Bounds, Truth};
use crate::error::Result;
use crate::prediction::classes;
use crate::spec::Range;

/// An [`Attack`](super::Attack) with a ball, steps and starts.
///
/// A sample counts as fooled when *any* iterate of any restart is misclassified. Of samples with
/// values the loss counts, and the iterate with the highest is kept.
///
/// | option | FGSM | PGD | Auto-PGD | purpose |
/// | --- | --- | --- | --- | --- |
/// | `norm`, `epsilon` | | | | the ball |
/// | `steps` | 1 | | | gradient steps in a restart |
/// | `step_size` | `ε` | `2.5 ε / steps` | `2 ε` | their length, in the same norm |
/// | `restarts` | 1 | | | independent starts; the starts of fewer restarts are among those of more |
/// | `random_start` | no | yes | yes | start uniformly in the ball instead of at `x` |
/// | `seed` | | 0 | 0 | of the random starts |
///
/// Nothing leaves `bounds`, by default `[0, 1]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Attacker {
    /// How it searches.
    pub attack: AnyAttack,
    /// Where, how long and how often.
    pub options: AttackOptions,
    /// The box of the inputs, which it does not leave.
    pub bounds: Bounds,
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
            bounds: Bounds::default(),
        }
    }

    /// The same attack in another box.
    pub fn within(&self, bounds: &Bounds) -> Attacker {
        Attacker {
            bounds: bounds.clone(),
            ..self.clone()
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
    /// [`Error::OutOfRange`](crate::Error::OutOfRange), and those of
    /// [`Attack::check`](super::Attack::check).
    pub fn check(&self) -> Result<()> {
        let options = &self.options;
        Range::AT_LEAST_ZERO.check("epsilon of the attack", options.epsilon)?;
        Range::AT_LEAST_ZERO.check("step size of the attack", options.step_size)?;
        RESTARTS.check("restarts", options.restarts as f64)?;
        self.attack.check(options)
    }

    /// Why it cannot attack a network with so many logits for such targets, if it cannot.
    pub fn unfit(&self, targets: TargetKind, outputs: usize) -> Option<String> {
        let (needed, found) = match targets {
            TargetKind::Values => (self.attack.classes(), 0),
            TargetKind::Classes | TargetKind::Probabilities => {
                (self.attack.classes(), classes(outputs))
            }
        };
        let samples = match found {
            0 => "the samples have values".to_owned(),
            _ => format!("the network tells {found} apart"),
        };
        (needed > found).then(|| {
            let name = self.attack.name();
            format!("the attack {name} needs {needed} classes, but {samples}; take one that raises the loss, such as pgd or apgd-ce")
        })
    }

    /// Attacks a batch; `images: [B, D]` in the bounds, and a class or a row of values for each, such
    /// as `&[1, 0]`.
    ///
    /// `first` is the index of the first sample in its data set. The random starts of a sample
    /// depend on it, the seed and the number of the restart, not on the batch. All restarts are run
    /// for all samples, so that the losses are the highest that were seen; [`stand`](Self::stand)
    /// is quicker if only the misclassification counts.
    ///
    /// # Errors
    /// Those of [`Network::trace`], of the targets and of the attack.
    pub fn run<T: Scalar>(
        &self,
        network: &Network<T>,
        loss: &Loss,
        images: ArrayView2<T>,
        truth: impl Into<Truth<T>>,
        first: usize,
    ) -> relugrad::Result<Outcome<T>> {
        let on = Target {
            network,
            loss,
            go_on: &|| true,
        };
        let truth = truth.into();
        let numbers = (first..first + truth.len()).collect();
        let mut search = self.begin(on, images.to_owned(), truth, numbers)?;
        for restart in 0..self.options.restarts {
            self.restart(&mut search, restart)?;
        }
        Ok(search.outcome)
    }

    /// For each sample the adversarial example that fools the network, and nothing if it withstands
    /// all restarts.
    ///
    /// Samples that are misclassified as they are count as fooled by themselves and are not
    /// attacked, and no sample is attacked again once it has been fooled. `first` as for
    /// [`run`](Self::run).
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub fn stand<T: Scalar>(
        &self,
        network: &Network<T>,
        loss: &Loss,
        images: ArrayView2<T>,
        truth: impl Into<Truth<T>>,
        first: usize,
    ) -> relugrad::Result<Vec<Option<Vec<T>>>> {
        let found = self.stand_while(network, loss, images, truth, first, &|| true)?;
        let rows = found.adversarial.rows().into_iter().zip(found.fooled);
        Ok(rows.map(|(x, fooled)| fooled.then(|| x.to_vec())).collect())
    }

    /// What [`stand`](Self::stand) finds, of samples that withstand the iterate with the highest
    /// loss; it asks at every iterate whether to go on. Samples with values are never fooled, so
    /// all restarts are run for them.
    ///
    /// # Errors
    /// As for [`run`](Self::run), and [`relugrad::Error::Stopped`].
    pub fn stand_while<T: Scalar>(
        &self,
        network: &Network<T>,
        loss: &Loss,
        images: ArrayView2<T>,
        truth: impl Into<Truth<T>>,
        first: usize,
        go_on: GoOn,
    ) -> relugrad::Result<Outcome<T>> {
        let on = Target {
            network,
            loss,
            go_on,
        };
        let truth = truth.into();
        let trace = network.trace(images)?;
        let mut all = Outcome {
            adversarial: images.to_owned(),
            fooled: truth.mistaken(trace.logits()),
            losses: trace.losses(loss, &truth.targets())?.to_vec(),
        };
        drop(trace);
        for restart in 0..self.options.restarts {
            let left: Vec<usize> = (0..truth.len()).filter(|&i| !all.fooled[i]).collect();
            if left.is_empty() {
                break;
            }
            let clean = images.select(Axis(0), &left);
            let numbers = left.iter().map(|&i| first + i).collect();
            let mut search = self.begin(on, clean, truth.select(&left), numbers)?;
            self.restart(&mut search, restart)?;
            for (row, &i) in left.iter().enumerate() {
                all.take(i, &search.outcome, row);
            }
        }
        Ok(all)
    }

    fn begin<'a, T: Scalar>(
        &self,
        on: Target<'a, T>,
        images: Array2<T>,
        truth: Truth<T>,
        numbers: Vec<usize>,
    ) -> relugrad::Result<Search<'a, T>> {
        if let Some(problem) = self.unfit(truth.kind(), on.network.outputs()) {
            let loss = on.loss.name().to_owned();
            let problem = format!("cannot be raised so: {problem}");
            return Err(relugrad::Error::Loss { loss, problem });
        }
        let place = (self.options, self.bounds.clone());
        Search::new(on, place, images, truth, numbers)
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
