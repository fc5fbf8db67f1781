//! The training loop, a step at a time.

use std::time::{Duration, Instant};

use ndarray::{Array2, ArrayView1, Axis, s};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use relugrad::loss::TargetKind;
use relugrad::{GoOn, Loss, Network, Objective, Scalar, Workspace};
use serde::{Deserialize, Serialize};

use crate::data::{Dataset, Split, Truth};
use crate::error::{Error, Result};
use crate::evaluate::score;
use crate::fit::check_training;
use crate::observer::{Event, Observer};
use crate::optimizer::OptimizerState;
use crate::options::{BestBy, Training};
use crate::report::{Divergence, EpochReport, History, StepOutcome, StepReport};
use crate::samples::Samples;
use crate::schedule::Place;
use crate::score::{Quality, Score};
use crate::stop::unless_stopped;
use crate::tally::{Spread, Tally};

/// Trains a network in place, with the test samples for validation.
///
/// Equal seeds give equal bits for any number of threads.
///
/// # Errors
/// Those of [`Trainer::new`] and [`Trainer::advance`].
pub fn train<T: Scalar>(
    network: &mut Network<T>,
    data: &Split,
    training: &Training,
    observer: &mut dyn Observer,
) -> Result<History> {
    train_while(network, data, training, observer, &|| true)
}

/// [`train`], which also ends when `go_on` says no.
pub(crate) fn train_while<T: Scalar>(
    network: &mut Network<T>,
    data: &Split,
    training: &Training,
    observer: &mut dyn Observer,
    go_on: GoOn,
) -> Result<History> {
    let mut trainer = Trainer::new(
        network.clone(),
        training.clone(),
        &data.train,
        Some(&data.test),
    )?;
    let mut complete = observer.on(Event::Ready).is_continue();
    while complete && !trainer.is_finished() {
        let Some(StepOutcome { step, epoch }) = trainer.advance_while(go_on)? else {
            complete = false;
            break;
        };
        // A training that is stopped at its end is complete all the same.
        complete = observer.on(Event::Step(&step)).is_continue();
        if let Some(report) = &epoch {
            complete &= observer.on(Event::Epoch(report)).is_continue();
        }
        complete |= trainer.is_finished();
    }
    let history = History {
        epochs: trainer.progress.epochs.clone(),
        step_time: trainer.median_step_time(),
        complete,
    };
    *network = trainer.into_network();
    Ok(history)
}

/// A training that can be advanced step by step, saved and resumed.
///
/// All that is random follows from the seed and the number of the step, so the state of a training
/// is its parameters, the optimizer's moments and some sums: see
/// [`to_checkpoint`](Self::to_checkpoint).
pub struct Trainer<T> {
    pub(super) training: Training,
    pub(super) network: Network<T>,
    train: Samples<T>,
    /// What their scores are measured by.
    spread: Spread,
    /// The shape of a sample.
    shape: Vec<usize>,
    validation: Option<Samples<T>>,
    /// Fingerprint of the training samples.
    pub(super) samples: String,
    /// Fingerprint of the validation samples.
    pub(super) validation_samples: Option<String>,
    /// The objective with the weights of the present step.
    objective: Objective,
    /// The objective of a step without penalties.
    loss_alone: Objective,
    pub(super) optimizer: OptimizerState<T>,
    pub(super) progress: Progress,
    workspace: Workspace<T>,
    /// The samples of the present epoch in their order; empty if it has yet to be made.
    order: Vec<usize>,
    times: Vec<Duration>,
}

/// Whether a training of so many epochs ends after these, or by this patience.
pub(crate) fn is_over(done: &[EpochReport], epochs: usize, patience: Option<usize>) -> bool {
    let since_best = done.iter().rev().take_while(|epoch| !epoch.best).count();
    done.len() >= epochs || patience.is_some_and(|patience| since_best >= patience)
}

/// A training before a step.
struct Moment<T> {
    parameters: Vec<T>,
    optimizer: OptimizerState<T>,
    progress: Progress,
}

/// How far a training is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Progress {
    /// Steps taken.
    pub(super) step: u64,
    /// Sums over the samples of the present epoch.
    pub(super) sums: Sums,
    /// Reports of the finished epochs.
    pub(super) epochs: Vec<EpochReport>,
}

/// Sums over the samples of an epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Sums {
    #[serde(flatten)]
    tally: Tally,
    /// Samples of steps with penalties, each as often as its weight says.
    penalised: f64,
    penalties: Vec<f64>,
}

impl<T: Scalar> Trainer<T> {
    /// A training that has yet to take its first step.
    ///
    /// # Errors
    /// [`Error::OutOfRange`]; [`Error::Data`] if augmentation or network do not fit the samples,
    /// [`Error::Engine`] if the loss does not; [`Error::Penalty`] and [`Error::Attack`] for one
    /// that needs classes where there are values; [`Error::NothingToTrain`] for a network without
    /// parameters.
    pub fn new(
        network: Network<T>,
        training: Training,
        train: &Dataset,
        validation: Option<&Dataset>,
    ) -> Result<Trainer<T>> {
        training.check()?;
        training.augmentation.check(train.shape())?;
        check_training(&network, train, &training)?;
        validation.map_or(Ok(()), |other| train.check_alike(other))?;
        if network.parameters().is_empty() {
            return Err(Error::NothingToTrain);
        }
        let loss_alone = Objective::new(*training.objective.loss());
        // Samples of weight 0 say nothing, and a batch of them alone has no mean.
        let taken = Samples::new(&train.weighted()?);
        Ok(Trainer {
            spread: Spread::of(&taken),
            objective: training.objective.clone(),
            loss_alone,
            optimizer: OptimizerState::new(training.optimizer.clone(), network.parameters().len()),
            network,
            train: taken,
            shape: train.shape().to_vec(),
            validation: validation.map(Samples::new),
            samples: train.fingerprint(),
            validation_samples: validation.map(Dataset::fingerprint),
            progress: Progress::default(),
            workspace: Workspace::new(),
            order: Vec::new(),
            times: Vec::new(),
            training,
        })
    }

    /// The network as it is.
    pub fn network(&self) -> &Network<T> {
        &self.network
    }

    /// The network alone.
    pub fn into_network(self) -> Network<T> {
        self.network
    }

    /// The loss.
    pub fn loss(&self) -> &Loss {
        self.training.objective.loss()
    }

    /// Whether the samples have classes or values.
    pub fn kind(&self) -> TargetKind {
        self.train.truth.kind()
    }

    /// Steps taken so far.
    pub fn steps_done(&self) -> u64 {
        self.progress.step
    }

    /// Reports of the finished epochs.
    pub fn epochs(&self) -> &[EpochReport] {
        &self.progress.epochs
    }

    /// Steps of an epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.train.len().div_ceil(self.training.batch_size) as u64
    }

    /// Whether all epochs are done, or no better one has come for as long as the patience lasts.
    pub fn is_finished(&self) -> bool {
        let Training {
            epochs, stopping, ..
        } = &self.training;
        is_over(&self.progress.epochs, *epochs, stopping.patience)
    }

    /// Takes a step and, if it was the last of its epoch, looks at the validation samples.
    ///
    /// # Errors
    /// [`Error::Diverged`] when the loss, the gradient, a parameter or another number is no longer
    /// finite, and [`Error::Step`] with another reason of the engine. The training cannot go on
    /// then.
    ///
    /// # Panics
    /// If the training is finished.
    pub fn advance(&mut self) -> Result<StepOutcome> {
        let advance = self.advance_while(&|| true)?;
        Ok(advance.expect("nobody stops it"))
    }

    /// [`advance`](Self::advance), or nothing when `go_on` says no before it is done: the training
    /// is then where it was.
    ///
    /// # Errors
    /// As for [`advance`](Self::advance).
    ///
    /// # Panics
    /// If the training is finished.
    pub fn advance_while(&mut self, go_on: GoOn) -> Result<Option<StepOutcome>> {
        assert!(!self.is_finished(), "the training is finished");
        if !go_on() {
            return Ok(None);
        }
        let start = Instant::now();
        let (epoch, first) = (self.progress.epochs.len() + 1, self.first_of_batch());
        let failed = |step: u64| move |source| failed(epoch, step, source);
        if self.order.is_empty() {
            self.order = order(self.training.seed, epoch, self.train.len());
        }
        let last = (first + self.training.batch_size).min(self.order.len());
        let batch = self.order[first..last].to_vec();
        let next = self.progress.step + 1;
        // Only the look at the validation samples takes long enough to be stopped.
        let looks = last == self.order.len() && self.validation.is_some();
        let before = looks.then(|| self.moment());
        let step = self.step(epoch, &batch).map_err(failed(next))?;
        self.times.push(start.elapsed());
        self.progress.step = next;
        if last < self.order.len() {
            return Ok(Some(StepOutcome { step, epoch: None }));
        }
        self.order.clear();
        let report = self.report(epoch, step.learning_rate, go_on);
        let Some(report) = unless_stopped(report).map_err(failed(next))? else {
            before.into_iter().for_each(|moment| self.go_back(moment));
            return Ok(None);
        };
        self.progress.epochs.push(report.clone());
        self.progress.sums = Sums::default();
        Ok(Some(StepOutcome {
            step,
            epoch: Some(report),
        }))
    }

    /// All that a step changes.
    fn moment(&self) -> Moment<T> {
        Moment {
            parameters: self.network.parameters().values().to_vec(),
            optimizer: self.optimizer.clone(),
            progress: self.progress.clone(),
        }
    }

    fn go_back(&mut self, moment: Moment<T>) {
        let parameters = self.network.parameters_mut().values_mut();
        parameters.copy_from_slice(&moment.parameters);
        self.optimizer = moment.optimizer;
        self.progress = moment.progress;
        self.times.pop();
    }

    /// Median time of the steps that this trainer has taken.
    pub fn median_step_time(&self) -> Duration {
        let mut times = self.times.clone();
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or_default()
    }

    /// Makes the order of the samples anew before the next step.
    pub(super) fn forget_order(&mut self) {
        self.order.clear();
    }

    /// The place in the epoch's order at which the next batch begins.
    fn first_of_batch(&self) -> usize {
        let before = self.steps_per_epoch() * self.progress.epochs.len() as u64;
        (self.progress.step - before) as usize * self.training.batch_size
    }

    fn place(&self) -> Place {
        let per_epoch = self.steps_per_epoch();
        Place {
            step: self.progress.step,
            per_epoch,
            steps: per_epoch.saturating_mul(self.training.epochs as u64),
        }
    }

    fn step(&mut self, epoch: usize, batch: &[usize]) -> relugrad::Result<StepReport> {
        let place = self.place();
        let truth = self.train.truth.select(batch);
        let mut images = self.images(epoch, batch);
        self.attack(&mut images, &truth)?;
        let penalised = place
            .step
            .is_multiple_of(self.training.penalty_interval as u64);
        if penalised {
            self.set_weights(place)?;
        }
        let objective = match penalised {
            true => &mut self.objective,
            false => &mut self.loss_alone,
        };
        let weights: Vec<f64> = batch.iter().map(|&i| self.train.weight(i)).collect();
        if !self.train.weights.is_empty() {
            objective.set_sample_weights(&weights)?;
        }
        let targets = truth.targets();
        objective
            .gradient_into(&self.network, images.view(), &targets, &mut self.workspace)
            .map_err(|error| error.renumbered(|sample| batch[sample]))?;
        let sums = &mut self.progress.sums;
        sums.add(&self.workspace, &truth, &weights, penalised);
        let learning_rate = self.training.learning_rate * self.training.schedule.factor(place);
        let gradient_norm = self.update(learning_rate)?;
        let evaluation = self.workspace.evaluation().expect("it was just computed");
        Ok(StepReport {
            epoch,
            step: place.step + 1,
            steps: place.steps,
            loss: evaluation.loss,
            penalties: evaluation.penalties.clone(),
            objective: evaluation.value,
            gradient_norm,
            learning_rate,
        })
    }

    /// The samples of a batch, augmented.
    fn images(&self, epoch: usize, batch: &[usize]) -> Array2<T> {
        let mut images: Array2<T> = self.train.images.select(Axis(0), batch);
        let augmentation = &self.training.augmentation;
        if !augmentation.is_none() {
            for (mut row, &sample) in images.rows_mut().into_iter().zip(batch) {
                let row = row.as_slice_mut().expect("rows are contiguous");
                augmentation.apply(&self.shape, row, self.training.seed, epoch, sample);
                self.train.bounds.clamp(row);
            }
        }
        images
    }

    /// Replaces the first samples of a batch by adversarial examples.
    fn attack(&self, images: &mut Array2<T>, truth: &Truth<T>) -> relugrad::Result<()> {
        let Some(adversarial) = &self.training.adversarial else {
            return Ok(());
        };
        let count = (adversarial.share * truth.len() as f64).round() as usize;
        if count == 0 {
            return Ok(());
        }
        let attack = adversarial.attack(self.training.seed ^ ADVERSARIAL);
        let attack = attack.within(&self.train.bounds);
        let first = self.progress.step as usize * self.training.batch_size;
        let loss = self.training.objective.loss();
        let clean = images.slice(s![..count, ..]).to_owned();
        let replaced = truth.select(&(0..count).collect::<Vec<_>>());
        let outcome = attack.run(&self.network, loss, clean.view(), replaced, first)?;
        images
            .slice_mut(s![..count, ..])
            .assign(&outcome.adversarial);
        Ok(())
    }

    /// Sets the weights and the random draw of a step with penalties.
    fn set_weights(&mut self, place: Place) -> relugrad::Result<()> {
        let weight = self.training.ramp.factor(place) * self.training.penalty_interval as f64;
        for (i, term) in self.training.objective.terms().iter().enumerate() {
            self.objective.set_lambda(i, weight * term.lambda)?;
        }
        self.objective.set_draw(place.step);
        Ok(())
    }

    /// Clips the gradient and changes the parameters; returns the gradient's norm. Both must be
    /// finite.
    fn update(&mut self, learning_rate: f64) -> relugrad::Result<f64> {
        let gradient = self.workspace.gradient().expect("it was just computed");
        let values = gradient.values();
        let norm = values
            .iter()
            .map(|g| g.into_f64().powi(2))
            .sum::<f64>()
            .sqrt();
        check_finite("the gradient", norm.is_finite())?;
        let parameters = self.network.parameters_mut().values_mut();
        match self.training.clip {
            Some(clip) if norm > clip => {
                let factor = T::from_f64(clip / norm);
                let clipped: Vec<T> = values.iter().map(|&g| factor * g).collect();
                self.optimizer.step(parameters, &clipped, learning_rate);
            }
            _ => self.optimizer.step(parameters, values, learning_rate),
        }
        // Without branches: nearly always all are finite.
        let finite = parameters.iter().fold(true, |all, w| all & w.is_finite());
        check_finite("a parameter", finite)?;
        let moments = self.optimizer.buffers().flat_map(|(_, values)| values);
        // A square of Adam's overflows before its gradient does, and no checkpoint could be read
        // with it.
        let finite = moments.fold(true, |all, m| all & m.is_finite());
        check_finite("a moment of the optimizer", finite)?;
        Ok(norm)
    }

    fn report(
        &self,
        epoch: usize,
        learning_rate: f64,
        go_on: GoOn,
    ) -> relugrad::Result<EpochReport> {
        let sums = &self.progress.sums;
        let validation = match &self.validation {
            Some(samples) => {
                let loss = self.training.objective.loss();
                Some(score(&self.network, loss, samples, go_on)?)
            }
            None => None,
        };
        let mean = |sum: &f64| sum / sums.penalised.max(f64::MIN_POSITIVE);
        Ok(EpochReport {
            epoch,
            step: self.progress.step,
            learning_rate,
            train: sums.tally.score(self.spread),
            train_penalties: sums.penalties.iter().map(mean).collect(),
            validation,
            best: self.is_best(validation),
        })
    }

    /// Whether the score on the validation samples is better than in all epochs before.
    fn is_best(&self, validation: Option<Score>) -> bool {
        let Some(now) = validation else {
            return true;
        };
        let before = self.progress.epochs.iter();
        let mut before = before.filter_map(|epoch| epoch.validation);
        before.all(
            |before| match (self.training.stopping.metric, now.quality, before.quality) {
                (
                    None | Some(BestBy::Accuracy),
                    Quality::Classes { accuracy },
                    Quality::Classes { accuracy: earlier },
                ) => (accuracy, -now.loss) > (earlier, -before.loss),
                _ => now.loss < before.loss,
            },
        )
    }
}

impl Sums {
    fn add<T: Scalar>(
        &mut self,
        workspace: &Workspace<T>,
        truth: &Truth<T>,
        weights: &[f64],
        penalised: bool,
    ) {
        let evaluation = workspace.evaluation().expect("it was just computed");
        let samples: f64 = ArrayView1::from(weights).sum();
        let logits = workspace.logits().expect("they were just computed");
        let loss = samples * evaluation.loss;
        self.tally.add(logits, &truth.targets(), weights, loss);
        if penalised {
            self.penalised += samples;
            self.penalties.resize(evaluation.penalties.len(), 0.0);
            for (sum, mean) in self.penalties.iter_mut().zip(&evaluation.penalties) {
                *sum += samples * mean;
            }
        }
    }
}

/// Refuses numbers that are not finite.
fn check_finite(what: &str, finite: bool) -> relugrad::Result<()> {
    match finite {
        true => Ok(()),
        false => Err(relugrad::Error::NotFinite {
            what: what.into(),
            index: Vec::new(),
        }),
    }
}

/// Why a step was not taken.
fn failed(epoch: usize, step: u64, source: relugrad::Error) -> Error {
    match source.not_finite() {
        Some(quantity) => Error::Diverged {
            at: Divergence {
                step,
                epoch,
                quantity,
            },
        },
        None => Error::Step {
            epoch,
            step,
            source,
        },
    }
}

/// Keeps the random starts of adversarial training apart from other random numbers.
const ADVERSARIAL: u64 = 0x5eed_0a06_3e27_0002;

/// The samples of an epoch in random order: a permutation that depends on the seed and the epoch
/// alone.
fn order(seed: u64, epoch: usize, samples: usize) -> Vec<usize> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(epoch as u64);
    let mut order: Vec<usize> = (0..samples).collect();
    order.shuffle(&mut random);
    order
}
