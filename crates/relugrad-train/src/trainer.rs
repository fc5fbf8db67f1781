//! Training: mini-batches, the objective's exact gradient, an optimizer, and metrics of every epoch.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use ndarray::{Array2, Axis};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use relugrad::{Network, Objective, Scalar, Targets, Workspace};

use crate::data::Split;
use crate::error::{Error, Result, check_range};
use crate::evaluate::{Samples, accuracy_and_loss, correct};
use crate::optimizer::{Optimizer, OptimizerState};

/// How to train a network on labelled samples: minimise `mean ℓ + w(t) Σ λ_i mean penalty_i` over mini-batches.
///
/// | option | default | purpose | range |
/// | --- | --- | --- | --- |
/// | `objective` | | loss and penalties with their final weights `λ` | |
/// | `optimizer` | Adam | update rule | |
/// | `learning_rate` | 10⁻³ | its step length `η` | positive |
/// | `epochs` | 30 | passes over the training samples | at least 1 |
/// | `batch_size` | 64 | samples in a step; the last batch of an epoch may be smaller | at least 1 |
/// | `warmup_epochs` | 0 | epochs over which `w` grows linearly from 0 to 1 | at least 0 |
/// | `seed` | 0 | order of the samples and random rows of projected penalties | |
#[derive(Clone, Debug, PartialEq)]
pub struct Training {
    /// Loss and penalties with their final weights.
    pub objective: Objective,
    /// Update rule.
    pub optimizer: Optimizer,
    /// Step length.
    pub learning_rate: f64,
    /// Passes over the training samples.
    pub epochs: usize,
    /// Samples in a step.
    pub batch_size: usize,
    /// Epochs over which the penalties' weights grow from 0.
    pub warmup_epochs: f64,
    /// Seed of the order of the samples.
    pub seed: u64,
}

impl Training {
    /// The defaults of the table above.
    pub fn new(objective: Objective) -> Training {
        Training {
            objective,
            optimizer: Optimizer::adam(),
            learning_rate: 1e-3,
            epochs: 30,
            batch_size: 64,
            warmup_epochs: 0.0,
            seed: 0,
        }
    }

    /// Refuses options that are out of range.
    ///
    /// # Errors
    /// [`Error::OutOfRange`].
    pub fn check(&self) -> Result<()> {
        self.optimizer.check()?;
        let rate = self.learning_rate;
        let positive = rate > 0.0 && rate.is_finite();
        check_range("learning rate", rate, positive, "positive and finite")?;
        check_range("epochs", self.epochs as f64, self.epochs > 0, "at least 1")?;
        let batch = self.batch_size;
        check_range("batch size", batch as f64, batch > 0, "at least 1")?;
        let warmup = self.warmup_epochs;
        let valid = warmup >= 0.0 && warmup.is_finite();
        check_range("warm-up epochs", warmup, valid, "at least 0")
    }

    /// `w(t)` at the step `t`, counted from 0.
    fn weight(&self, step: usize, steps_per_epoch: usize) -> f64 {
        let steps = self.warmup_epochs * steps_per_epoch as f64;
        if steps <= 0.0 {
            1.0
        } else {
            (step as f64 / steps).min(1.0)
        }
    }
}

/// What a training step found, before it changed the parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// The epoch, from 1.
    pub epoch: usize,
    /// The step in all epochs, from 1.
    pub step: usize,
    /// Number of steps in all epochs.
    pub steps: usize,
    /// Mean loss of the batch.
    pub loss: f64,
}

/// Metrics of an epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct EpochReport {
    /// The epoch, from 1.
    pub epoch: usize,
    /// Mean loss of the training samples, each at the step that used it.
    pub train_loss: f64,
    /// Accuracy on the training samples, each at the step that used it; in `[0, 1]`.
    pub train_accuracy: f64,
    /// Mean of each penalty, before its weight, over the same samples.
    pub train_penalties: Vec<f64>,
    /// Mean loss on the test samples after the epoch.
    pub test_loss: f64,
    /// Accuracy on the test samples after the epoch; in `[0, 1]`.
    pub test_accuracy: f64,
}

/// Someone who watches a training and may stop it.
pub trait Watch {
    /// After every step; `Break` ends the training.
    fn step(&mut self, _report: &StepReport) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// After every epoch.
    fn epoch(&mut self, _report: &EpochReport) {}
}

/// Watches nothing.
impl Watch for () {}

/// What a training left besides the network.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    /// Metrics of the finished epochs.
    pub epochs: Vec<EpochReport>,
    /// Median time of a step: taking the batch, the objective with its gradient, and the optimizer.
    pub step_time: Duration,
    /// Whether all epochs were done; false if the watcher ended it.
    pub complete: bool,
}

/// Trains a network in place.
///
/// Equal seeds give equal bits for any number of threads.
///
/// # Errors
/// [`Error::OutOfRange`]; [`Error::Step`] with the engine's reason, such as a loss that is no longer finite.
pub fn train<T: Scalar>(
    network: &mut Network<T>,
    data: &Split,
    training: &Training,
    watch: &mut dyn Watch,
) -> Result<History> {
    training.check()?;
    let (train, test) = (Samples::new(&data.train), Samples::new(&data.test));
    let mut run = Run::new(network, training, train.len());
    let mut history = History {
        epochs: Vec::new(),
        step_time: Duration::ZERO,
        complete: true,
    };
    for epoch in 1..=training.epochs {
        let flow = run.epoch(network, &train, epoch, watch)?;
        if flow.is_break() {
            history.complete = false;
            break;
        }
        let report = run.report(network, &test, epoch)?;
        watch.epoch(&report);
        history.epochs.push(report);
    }
    history.step_time = run.median_time();
    Ok(history)
}

/// The state of a training.
struct Run<'t, T> {
    training: &'t Training,
    objective: Objective,
    state: OptimizerState<T>,
    workspace: Workspace<T>,
    steps_per_epoch: usize,
    step: usize,
    times: Vec<Duration>,
    sums: Sums,
}

/// Sums over the samples of an epoch.
#[derive(Default)]
struct Sums {
    samples: f64,
    loss: f64,
    correct: f64,
    penalties: Vec<f64>,
}

impl<'t, T: Scalar> Run<'t, T> {
    fn new(network: &Network<T>, training: &'t Training, samples: usize) -> Run<'t, T> {
        Run {
            training,
            objective: training.objective.clone(),
            state: OptimizerState::new(training.optimizer, network.parameters().len()),
            workspace: Workspace::new(),
            steps_per_epoch: samples.div_ceil(training.batch_size),
            step: 0,
            times: Vec::new(),
            sums: Sums::default(),
        }
    }

    fn epoch(
        &mut self,
        network: &mut Network<T>,
        train: &Samples<T>,
        epoch: usize,
        watch: &mut dyn Watch,
    ) -> Result<ControlFlow<()>> {
        self.sums = Sums {
            penalties: vec![0.0; self.objective.terms().len()],
            ..Sums::default()
        };
        for batch in order(self.training.seed, epoch, train.len()).chunks(self.training.batch_size)
        {
            let start = Instant::now();
            self.take_step(network, train, batch)
                .map_err(|source| Error::Step {
                    epoch,
                    step: self.step + 1,
                    source,
                })?;
            self.times.push(start.elapsed());
            self.step += 1;
            let report = StepReport {
                epoch,
                step: self.step,
                steps: self.steps_per_epoch.saturating_mul(self.training.epochs),
                loss: self.workspace.evaluation().loss,
            };
            if watch.step(&report).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn take_step(
        &mut self,
        network: &mut Network<T>,
        train: &Samples<T>,
        batch: &[usize],
    ) -> relugrad::Result<()> {
        let images: Array2<T> = train.images.select(Axis(0), batch);
        let labels: Vec<usize> = batch.iter().map(|&i| train.labels[i]).collect();
        let weight = self.training.weight(self.step, self.steps_per_epoch);
        for (i, term) in self.training.objective.terms().iter().enumerate() {
            self.objective.set_lambda(i, weight * term.lambda)?;
        }
        self.objective.set_draw(self.step as u64);
        let targets = Targets::Classes(&labels);
        let workspace = &mut self.workspace;
        self.objective
            .gradient_into(network, images.view(), &targets, workspace)?;
        self.sums.add(workspace, network, &labels);
        let gradient = workspace.gradient().expect("it was just computed").values();
        let parameters = network.parameters_mut().values_mut();
        self.state
            .step(parameters, gradient, self.training.learning_rate);
        Ok(())
    }

    fn report(&self, network: &Network<T>, test: &Samples<T>, epoch: usize) -> Result<EpochReport> {
        let sums = &self.sums;
        let (test_accuracy, test_loss) = accuracy_and_loss(network, self.objective.loss(), test)
            .map_err(|source| Error::Step {
                epoch,
                step: self.step,
                source,
            })?;
        Ok(EpochReport {
            epoch,
            train_loss: sums.loss / sums.samples,
            train_accuracy: sums.correct / sums.samples,
            train_penalties: sums
                .penalties
                .iter()
                .map(|sum| sum / sums.samples)
                .collect(),
            test_loss,
            test_accuracy,
        })
    }

    fn median_time(mut self) -> Duration {
        self.times.sort_unstable();
        let middle = self.times.get(self.times.len() / 2);
        middle.copied().unwrap_or_default()
    }
}

impl Sums {
    fn add<T: Scalar>(&mut self, workspace: &Workspace<T>, network: &Network<T>, labels: &[usize]) {
        let (evaluation, samples) = (workspace.evaluation(), labels.len() as f64);
        self.samples += samples;
        self.loss += samples * evaluation.loss;
        let right = correct(workspace.logits(network), labels);
        self.correct += right.filter(|&right| right).count() as f64;
        for (sum, mean) in self.penalties.iter_mut().zip(&evaluation.penalties) {
            *sum += samples * mean;
        }
    }
}

/// The samples of an epoch in random order: a permutation that depends on the seed and the epoch alone.
fn order(seed: u64, epoch: usize, samples: usize) -> Vec<usize> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(epoch as u64);
    let mut order: Vec<usize> = (0..samples).collect();
    order.shuffle(&mut random);
    order
}
