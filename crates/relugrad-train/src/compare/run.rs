//! Running a comparison.

use std::ops::ControlFlow;

use relugrad::{Loss, Network, Objective, Penalty};

use super::results::{
    AttackSettings, Comparison, EpochMetrics, Evaluation, PenaltyMean, Run, Settings,
};
use crate::architecture::Architecture;
use crate::attack::Attack;
use crate::configuration::PenaltySettings;
use crate::data::Split;
use crate::error::{Result, check_range};
use crate::evaluate::{Samples, accuracy_and_loss, penalty_means, robust_accuracy};
use crate::optimizer::Optimizer;
use crate::schedule::Ramp;
use crate::training::{EpochReport, History, StepReport, Training, Watch, train};

/// What to compare, and how.
///
/// Every run trains a ReLU network with softmax cross-entropy, from the same initialisation and in the same order of
/// samples for equal seeds: first without penalty, then with each one. Networks are `f32`.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Training and test samples.
    pub data: Split,
    /// The network that is trained.
    pub model: Architecture,
    /// The penalties to compare, each with its weight.
    pub penalties: Vec<(Penalty, f64)>,
    /// Passes over the training samples.
    pub epochs: usize,
    /// Samples in a step.
    pub batch_size: usize,
    /// Update rule.
    pub optimizer: Optimizer,
    /// Its step length.
    pub learning_rate: f64,
    /// Epochs over which `λ` grows linearly from 0.
    pub warmup_epochs: f64,
    /// One run of each regularizer for each seed.
    pub seeds: Vec<u64>,
    /// The attacks of the evaluation, and whether a table should show each.
    pub attacks: Vec<(Attack, bool)>,
    /// How many test samples, from the first on, are attacked.
    pub attack_samples: usize,
}

/// Someone who follows a comparison and may stop it.
pub trait Follow {
    /// A run begins: its number from 0, and how many there are.
    fn run(&mut self, _index: usize, _runs: usize, _regularizer: &str, _seed: u64) {}

    /// After every training step; `Break` ends the comparison.
    fn step(&mut self, _report: &StepReport) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// After every epoch.
    fn epoch(&mut self, _report: &EpochReport) {}

    /// Before each of the `parts` parts of a run's evaluation; `Break` ends the comparison.
    fn evaluation(&mut self, _part: usize, _parts: usize) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// A run has been trained and evaluated.
    fn finished(&mut self, _run: &Run, _network: &Network<f32>) {}
}

/// Trains and evaluates everything that the plan asks for.
///
/// When `follow` ends it early, the unfinished run is dropped and [`Comparison::complete`] is false.
///
/// # Errors
/// [`Error::OutOfRange`](crate::Error::OutOfRange) for the plan's options,
/// [`Error::Step`](crate::Error::Step) for a training that failed, and the engine's errors.
pub fn compare(plan: &Plan, follow: &mut dyn Follow) -> Result<Comparison> {
    plan.check()?;
    let mut comparison = Comparison {
        settings: plan.settings()?,
        runs: Vec::new(),
        complete: true,
    };
    let regularizers: Vec<Option<&(Penalty, f64)>> = std::iter::once(None)
        .chain(plan.penalties.iter().map(Some))
        .collect();
    let runs = regularizers.len() * plan.seeds.len();
    for &seed in &plan.seeds {
        for &regularizer in &regularizers {
            let name = regularizer.map_or("none", |(penalty, _)| penalty.name());
            follow.run(comparison.runs.len(), runs, name, seed);
            let Some((run, network)) = plan.run(regularizer, seed, follow)? else {
                comparison.complete = false;
                return Ok(comparison);
            };
            follow.finished(&run, &network);
            comparison.runs.push(run);
        }
    }
    Ok(comparison)
}

impl Plan {
    /// The network before training.
    fn network(&self, seed: u64) -> Result<Network<f32>> {
        let data = &self.data.train;
        self.model.build(data.shape(), data.classes(), seed)
    }

    /// Refuses options that are out of range, before anything is trained.
    ///
    /// # Errors
    /// [`Error::OutOfRange`](crate::Error::OutOfRange), and the engine's errors for layers and penalties.
    pub fn check(&self) -> Result<()> {
        self.training(None, 0)?.check()?;
        for regularizer in &self.penalties {
            self.training(Some(regularizer), 0)?;
        }
        let (seeds, samples) = (self.seeds.len(), self.attack_samples);
        check_range("number of seeds", seeds as f64, seeds > 0, "at least 1")?;
        check_range("attack samples", samples as f64, samples > 0, "at least 1")?;
        self.attacks
            .iter()
            .try_for_each(|(attack, _)| attack.check())?;
        self.network(0)?;
        Ok(())
    }

    fn training(&self, regularizer: Option<&(Penalty, f64)>, seed: u64) -> Result<Training> {
        let mut objective = Objective::new(Loss::softmax_cross_entropy());
        if let Some((penalty, lambda)) = regularizer {
            objective = objective.with(penalty.clone(), *lambda)?;
        }
        Ok(Training {
            optimizer: self.optimizer,
            learning_rate: self.learning_rate,
            epochs: self.epochs,
            batch_size: self.batch_size,
            ramp: Ramp::linear(self.warmup_epochs),
            seed,
            ..Training::new(objective)
        })
    }

    /// One run, or `None` if it was ended early.
    fn run(
        &self,
        regularizer: Option<&(Penalty, f64)>,
        seed: u64,
        follow: &mut dyn Follow,
    ) -> Result<Option<(Run, Network<f32>)>> {
        let training = self.training(regularizer, seed)?;
        let mut network = self.network(seed)?;
        let history = train(&mut network, &self.data, &training, &mut Pass(follow))?;
        if !history.complete {
            return Ok(None);
        }
        let Some(evaluation) = self.evaluate(&network, follow)? else {
            return Ok(None);
        };
        let run = Run {
            regularizer: regularizer
                .map_or("none", |(penalty, _)| penalty.name())
                .into(),
            lambda: regularizer.map_or(0.0, |&(_, lambda)| lambda),
            seed,
            curve: curve(&history),
            evaluation,
            step_milliseconds: history.step_time.as_secs_f64() * 1e3,
        };
        Ok(Some((run, network)))
    }

    fn evaluate(
        &self,
        network: &Network<f32>,
        follow: &mut dyn Follow,
    ) -> Result<Option<Evaluation>> {
        let loss = Loss::softmax_cross_entropy();
        let test = Samples::new(&self.data.test);
        let attacked = test.first(self.attack_samples);
        let parts = 1 + self.attacks.len();
        if follow.evaluation(0, parts).is_break() {
            return Ok(None);
        }
        let (clean_accuracy, mean_loss) = accuracy_and_loss(network, &loss, &test)?;
        let penalties: Vec<Penalty> = self.penalties.iter().map(|(p, _)| p.clone()).collect();
        let (means, samples_on_kink) = penalty_means(network, &loss, &penalties, &test)?;
        let (attacked_clean_accuracy, _) = accuracy_and_loss(network, &loss, &attacked)?;
        let mut accuracies = Vec::new();
        for (i, (attack, _)) in self.attacks.iter().enumerate() {
            if follow.evaluation(1 + i, parts).is_break() {
                return Ok(None);
            }
            accuracies.push(robust_accuracy(network, &loss, attack, &attacked)?);
        }
        let named = penalties
            .iter()
            .zip(means)
            .map(|(penalty, mean)| PenaltyMean {
                name: penalty.name().into(),
                mean,
            });
        Ok(Some(Evaluation {
            clean_accuracy,
            loss: mean_loss,
            attacked_clean_accuracy,
            robust_accuracy: accuracies,
            penalties: named.collect(),
            samples_on_kink,
        }))
    }

    fn settings(&self) -> Result<Settings> {
        let (train, test) = (&self.data.train, &self.data.test);
        Ok(Settings {
            version: env!("CARGO_PKG_VERSION").into(),
            data: train.name().into(),
            train_samples: train.samples(),
            test_samples: test.samples(),
            attack_samples: self.attack_samples.min(test.samples()),
            parameters: self.network(0)?.parameters().len(),
            model: self.model.to_string(),
            epochs: self.epochs,
            batch_size: self.batch_size,
            optimizer: self.optimizer.name().into(),
            learning_rate: self.learning_rate,
            warmup_epochs: self.warmup_epochs,
            seeds: self.seeds.clone(),
            penalties: self
                .penalties
                .iter()
                .map(|(penalty, lambda)| PenaltySettings::new(penalty, *lambda))
                .collect(),
            threads: rayon::current_num_threads(),
            attacks: self.attacks.iter().map(AttackSettings::from).collect(),
        })
    }
}

impl From<&(Attack, bool)> for AttackSettings {
    fn from((attack, headline): &(Attack, bool)) -> AttackSettings {
        AttackSettings {
            name: attack.method.name().into(),
            norm: attack.norm.name().into(),
            epsilon: attack.epsilon,
            steps: attack.steps,
            step_size: attack.step_size,
            restarts: attack.restarts,
            headline: *headline,
        }
    }
}

/// Hands a training's reports to the follower of the comparison.
struct Pass<'f>(&'f mut dyn Follow);

impl Watch for Pass<'_> {
    fn step(&mut self, report: &StepReport) -> ControlFlow<()> {
        self.0.step(report)
    }

    fn epoch(&mut self, report: &EpochReport) {
        self.0.epoch(report);
    }
}

fn curve(history: &History) -> Vec<EpochMetrics> {
    let metrics = |report: &EpochReport| EpochMetrics {
        epoch: report.epoch,
        train_loss: report.train_loss,
        train_accuracy: report.train_accuracy,
        train_penalty: report.train_penalties.iter().sum(),
        test_loss: report.validation_loss.unwrap_or(f64::NAN),
        test_accuracy: report.validation_accuracy.unwrap_or(f64::NAN),
    };
    history.epochs.iter().map(metrics).collect()
}
