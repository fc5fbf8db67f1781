//! Running a comparison.

use std::ops::ControlFlow;

use rayon::prelude::*;
use relugrad::{GoOn, Loss, Network, Objective, Penalty};

use crate::architecture::Architecture;
use crate::attack::{Attacker, Norm, Union};
use crate::channels::ChannelStatistics;
use crate::comparison::{
    Certified, Comparison, Diverged, Measured, Measures, PenaltyMean, Run, Settings, ShownAttack,
};
use crate::configuration::{LossSettings, PenaltySettings, distinct_name};
use crate::data::{Bounds, Dataset, Split};
use crate::error::{Error, Result, check_range};
use crate::evaluate::{penalty_means, score, score_under_attack};
use crate::fit::{check_training, outputs_for};
use crate::observer::{Event, Observer, tell};
use crate::options::{Adversarial, Training};
use crate::report::{Divergence, EpochReport};
use crate::samples::Samples;
use crate::schedule::Ramp;
use crate::shard::{Compared, Part, Share};
use crate::statistics::median;
use crate::stop::ask;
use crate::training::train_while;

/// What to compare, and how.
///
/// Every run trains a ReLU network with the loss of `training`, from the same initialisation and in
/// the same order of samples for equal seeds: first without regularizer, then with each variant.
/// Networks are `f32`.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Training and test samples.
    pub data: Split,
    /// The network that is trained.
    pub model: Architecture,
    /// Mean and deviation of each channel in a first layer that standardises, if there is to be one.
    pub statistics: Option<ChannelStatistics>,
    /// How all are trained; its penalties, adversarial examples and seed are replaced.
    pub training: Training,
    /// What is compared with plain training.
    pub variants: Vec<Variant>,
    /// One run of each variant for each seed.
    pub seeds: Vec<u64>,
    /// The attacks of the evaluation, and whether a table should show each.
    pub attacks: Vec<(Attacker, bool)>,
    /// How many test samples, from the first on, are attacked.
    pub attack_samples: usize,
    /// How many of these are certified.
    pub certified_samples: usize,
    /// Which share of the runs is made, if not all are.
    pub share: Option<Share>,
}

/// A way to make a network robust.
#[derive(Clone, Debug, PartialEq)]
pub enum Variant {
    /// A penalty with its weight.
    Penalty(Penalty, f64),
    /// Adversarial training.
    Adversarial(Adversarial),
}

/// The name of plain training among regularizers.
pub const PLAIN: &str = "none";

/// The name of adversarial training among regularizers.
pub const ADVERSARIAL: &str = "pgd-training";

impl From<(Penalty, f64)> for Variant {
    fn from((penalty, weight): (Penalty, f64)) -> Variant {
        Variant::Penalty(penalty, weight)
    }
}

impl Variant {
    /// Its name in results.
    pub fn name(&self) -> &str {
        match self {
            Variant::Penalty(penalty, _) => penalty.name(),
            Variant::Adversarial(_) => ADVERSARIAL,
        }
    }

    /// The penalty, if it is one.
    pub fn penalty(&self) -> Option<&Penalty> {
        match self {
            Variant::Penalty(penalty, _) => Some(penalty),
            Variant::Adversarial(_) => None,
        }
    }

    /// The weight `λ` of a penalty, or the size of adversarial examples.
    pub fn weight(&self) -> f64 {
        match self {
            Variant::Penalty(_, lambda) => *lambda,
            Variant::Adversarial(adversarial) => adversarial.epsilon,
        }
    }
}

/// Trains and evaluates everything that the plan asks for, but for the runs of an `earlier`
/// comparison that was ended.
///
/// A run that diverges is among [`Comparison::diverged`], and the others go on; resumed, it is not
/// tried again, since it would diverge again. When `observer` or `go_on` ends the comparison early,
/// the unfinished run is dropped and [`Comparison::complete`] is false.
///
/// # Errors
/// [`Error::OutOfRange`](crate::Error::OutOfRange) for the plan's options, [`Error::Configuration`]
/// if `earlier` is of other settings, [`Error::Step`](crate::Error::Step) for a training that
/// failed in another way, and the engine's errors.
pub fn compare(
    plan: &Plan,
    earlier: Option<Comparison>,
    observer: &mut dyn Observer,
    go_on: GoOn,
) -> Result<Comparison> {
    let mut comparison = plan.begin()?;
    let (mut done, mut lost) = match earlier {
        Some(earlier) => resumable(earlier, &comparison)?,
        None => (Vec::new(), Vec::new()),
    };
    let own = plan.own_runs();
    let runs = own.len();
    for (index, number) in own.into_iter().enumerate() {
        let (variant, seed) = plan.planned(number);
        let name = &*plan.name(variant);
        let weight = variant.map_or(0.0, Variant::weight);
        let same = |run: &Run| (&*run.regularizer, run.lambda, run.seed) == (name, weight, seed);
        if let Some(place) = done.iter().position(same) {
            comparison.runs.push(done.swap_remove(place));
            continue;
        }
        if let Some(place) = lost.iter().position(|run| run.number == number) {
            comparison.diverged.push(lost.swap_remove(place));
            continue;
        }
        let began = observer.on(Event::Run {
            index,
            runs,
            regularizer: name,
            lambda: weight,
            seed,
        });
        let ended = match began {
            ControlFlow::Continue(()) => plan.run(variant, seed, observer, go_on)?,
            ControlFlow::Break(()) => None,
        };
        let Some(ended) = ended else {
            return Ok(comparison);
        };
        comparison.complete = index + 1 == runs;
        let flow = match ended {
            Ended::Finished(run, network) => {
                comparison.runs.push(*run);
                observer.on(Event::Finished(&comparison, &network))
            }
            Ended::Diverged(at, curve) => {
                comparison.diverged.push(Diverged {
                    number,
                    regularizer: name.into(),
                    lambda: weight,
                    seed,
                    at,
                    curve,
                });
                observer.on(Event::Diverged(&comparison))
            }
        };
        if flow.is_break() {
            return Ok(comparison);
        }
    }
    comparison.complete = true;
    Ok(comparison)
}

/// How a run ended.
enum Ended {
    Finished(Box<Run>, Box<Network<f32>>),
    /// Where, and the epochs before.
    Diverged(Divergence, Vec<EpochReport>),
}

/// Median certified radii, computed in double precision.
fn certify(
    network: &Network<f32>,
    samples: &Samples<f32>,
    go_on: GoOn,
) -> relugrad::Result<Certified> {
    let network: Network<f64> = network.cast()?;
    let labels = samples.truth.labels();
    let radii = labels.par_iter().enumerate().map(|(i, &label)| {
        ask(go_on)?;
        let x = samples.images.row(i).mapv(f64::from);
        let region = network.region(x.view())?;
        let radius = |norm| region.certified_radius(label, norm);
        Ok((radius(Norm::Linf)?, radius(Norm::L2)?))
    });
    let (linf, l2): (Vec<f64>, Vec<f64>) = radii
        .collect::<relugrad::Result<Vec<_>>>()?
        .into_iter()
        .unzip();
    Ok(Certified {
        samples: samples.len(),
        linf: median(linf).unwrap_or(0.0),
        l2: median(l2).unwrap_or(0.0),
    })
}

/// The runs of an earlier comparison of the same settings.
fn resumable(earlier: Comparison, now: &Comparison) -> Result<(Vec<Run>, Vec<Diverged>)> {
    let settings = &now.settings;
    let before = Settings {
        // Neither changes a number.
        threads: settings.threads,
        data_checksums: match earlier.settings.data_checksums.is_empty() {
            true => settings.data_checksums.clone(),
            false => earlier.settings.data_checksums,
        },
        ..earlier.settings
    };
    if before == *settings {
        same_part(&earlier.part, &now.part)?;
        return Ok((earlier.runs, earlier.diverged));
    }
    let differing = differing(&before, settings);
    Err(Error::Configuration {
        problem: format!(
            "the earlier results are of other settings ({}); give the same options, or another directory",
            differing.join(", ")
        ),
    })
}

/// Refuses results of another shard.
fn same_part(earlier: &Option<Part>, now: &Option<Part>) -> Result<()> {
    let share = |part: &Option<Part>| part.as_ref().map(|part| part.share);
    if share(earlier) == share(now) {
        return Ok(());
    }
    let what = |part| match share(part) {
        None => "a whole comparison".to_owned(),
        Some(Share { shard, total, .. }) => format!("shard {shard} of {total} runs"),
    };
    Err(Error::Configuration {
        problem: format!(
            "the earlier results are of {}, and these are to be of {}; give the same options, or another directory",
            what(earlier),
            what(now)
        ),
    })
}

/// The keys in which settings differ.
pub(super) fn differing(before: &Settings, now: &Settings) -> Vec<String> {
    if before == now {
        return Vec::new();
    }
    let json =
        |settings: &Settings| serde_json::to_value(settings).expect("strings and numbers are JSON");
    let (before, now) = (json(before), json(now));
    let keys = now.as_object().into_iter().flatten();
    keys.filter(|(key, value)| before.get(key) != Some(value))
        .map(|(key, _)| key.clone())
        .collect()
}

impl Plan {
    /// The comparison that `relugrad compare` makes when it is told nothing else, but for its
    /// curves: `mlp:128,128`, Adam, weights that grow over 3 epochs, one seed, the usual loss of
    /// such data, the union of PGD and Auto-PGD in ℓ∞ with ε 0.1 and 0.2 (20 steps each) on 1000
    /// test samples.
    pub fn new(data: Split, variants: impl IntoIterator<Item: Into<Variant>>) -> Plan {
        let strong = |epsilon| (Attacker::new(Union {}, Norm::Linf, epsilon, 20, 1), true);
        let loss = Loss::for_targets(data.train.kind(), outputs_for(&data.train, None));
        Plan {
            data,
            model: Architecture::mlp(&[128, 128]),
            statistics: None,
            training: Training {
                ramp: Ramp::linear(3.0),
                ..Training::new(Objective::new(loss))
            },
            variants: variants.into_iter().map(Into::into).collect(),
            seeds: vec![0],
            attacks: vec![strong(0.1), strong(0.2)],
            attack_samples: 1000,
            certified_samples: 0,
            share: None,
        }
    }

    /// How many runs all shards have together.
    pub fn runs(&self) -> usize {
        (1 + self.variants.len()) * self.seeds.len()
    }

    /// The numbers of the runs that are made, of all from 0.
    pub fn own_runs(&self) -> Vec<usize> {
        match self.share {
            None => (0..self.runs()).collect(),
            Some(share) => share.runs(1 + self.variants.len(), self.seeds.len()),
        }
    }

    /// The variant, none for plain training, and the seed of the run of a number.
    fn planned(&self, number: usize) -> (Option<&Variant>, u64) {
        let each = 1 + self.variants.len();
        let variant = (number % each).checked_sub(1);
        let variant = variant.map(|place| &self.variants[place]);
        (variant, self.seeds[number / each])
    }

    /// The comparison before its first run.
    ///
    /// # Errors
    /// As for [`check`](Self::check).
    pub fn begin(&self) -> Result<Comparison> {
        self.check()?;
        let variants = || {
            let all = std::iter::once(None).chain(self.variants.iter().map(Some));
            all.map(|variant| Compared {
                regularizer: self.name(variant),
                lambda: variant.map_or(0.0, Variant::weight),
            })
        };
        Ok(Comparison {
            settings: self.settings()?,
            runs: Vec::new(),
            diverged: Vec::new(),
            complete: self.own_runs().is_empty(),
            part: self.share.map(|share| Part {
                share,
                variants: variants().collect(),
            }),
        })
    }

    /// What a variant is called in results.
    fn name(&self, variant: Option<&Variant>) -> String {
        match variant {
            None => PLAIN.to_owned(),
            Some(Variant::Penalty(penalty, _)) => self.penalty_name(penalty),
            Some(Variant::Adversarial(_)) => ADVERSARIAL.to_owned(),
        }
    }

    /// The name of a penalty, with its options where it is compared with another one of its name.
    fn penalty_name(&self, penalty: &Penalty) -> String {
        let others = self.variants.iter().filter_map(Variant::penalty);
        distinct_name(penalty, others)
    }

    /// The loss.
    pub fn loss(&self) -> &Loss {
        self.training.objective.loss()
    }

    /// The network before training.
    fn network(&self, seed: u64) -> Result<Network<f32>> {
        let data = &self.data.train;
        let outputs = outputs_for(data, Some(*self.loss()));
        match &self.statistics {
            None => self.model.build(data.shape(), outputs, seed),
            Some(statistics) => {
                let shape = data.shape();
                self.model
                    .build_standardised(shape, outputs, seed, statistics)
            }
        }
    }

    /// Refuses options that are out of range, before anything is trained.
    ///
    /// # Errors
    /// [`Error::OutOfRange`](crate::Error::OutOfRange); [`Error::Penalty`] and [`Error::Attack`]
    /// for what needs classes where there are values, and for a penalty with a weight that is there
    /// twice; the engine's errors for layers, loss and penalties.
    pub fn check(&self) -> Result<()> {
        let network = self.network(0)?;
        for variant in std::iter::once(None).chain(self.variants.iter().map(Some)) {
            let training = self.training(variant, 0)?;
            training.check()?;
            check_training(&network, &self.data.train, &training)?;
        }
        self.check_twice()?;
        let (seeds, samples) = (self.seeds.len(), self.attack_samples);
        check_range("number of seeds", seeds as f64, seeds > 0, "at least 1")?;
        check_range("attack samples", samples as f64, samples > 0, "at least 1")?;
        let (kind, outputs) = (self.data.train.kind(), network.outputs());
        for (attack, _) in &self.attacks {
            attack.check()?;
            if let Some(problem) = attack.unfit(kind, outputs) {
                return Err(Error::Attack { problem });
            }
        }
        match (self.certified_samples, self.data.train.values()) {
            (1.., Some(_)) => Err(Error::Data {
                problem:
                    "certified radii are of classes, but the samples have values; certify none"
                        .into(),
            }),
            _ => Ok(()),
        }
    }

    /// Refuses what is compared twice with one weight, and two formulas of one name.
    fn check_twice(&self) -> Result<()> {
        let formulas = || {
            let all = self.variants.iter().filter_map(Variant::penalty);
            all.filter(|penalty| matches!(penalty, Penalty::Formula(_)))
        };
        for (i, one) in formulas().enumerate() {
            let namesake = |other: &&Penalty| other.name() == one.name() && *other != one;
            if formulas().take(i).any(|other| namesake(&other)) {
                return Err(Error::Penalty {
                    penalty: one.name().to_owned(),
                    problem: "is the name of two formulas; give each its own".into(),
                });
            }
        }
        let mut places = 1..self.variants.len();
        let twice = places.find(|&i| self.variants[..i].contains(&self.variants[i]));
        match twice.map(|i| &self.variants[i]) {
            None => Ok(()),
            Some(Variant::Penalty(penalty, _)) => Err(Error::Penalty {
                penalty: penalty.spec().to_string(),
                problem: "is compared twice with one weight; leave one of them out".into(),
            }),
            Some(Variant::Adversarial(adversarial)) => Err(Error::Configuration {
                problem: format!(
                    "adversarial training with radius {} is compared twice; leave one of them out",
                    adversarial.epsilon
                ),
            }),
        }
    }

    fn training(&self, variant: Option<&Variant>, seed: u64) -> Result<Training> {
        let mut training = Training {
            objective: Objective::new(*self.loss()),
            adversarial: None,
            seed,
            ..self.training.clone()
        };
        match variant {
            None => {}
            Some(Variant::Penalty(penalty, lambda)) => {
                training.objective = training.objective.with(penalty.clone(), *lambda)?;
            }
            Some(Variant::Adversarial(adversarial)) => {
                training.adversarial = Some(adversarial.clone());
            }
        }
        Ok(training)
    }

    /// The penalties among the variants, each once.
    fn penalties(&self) -> Vec<Penalty> {
        let mut penalties: Vec<Penalty> = Vec::new();
        for penalty in self.variants.iter().filter_map(Variant::penalty) {
            if !penalties.contains(penalty) {
                penalties.push(penalty.clone());
            }
        }
        penalties
    }

    /// One run, or nothing if it was stopped.
    fn run(
        &self,
        variant: Option<&Variant>,
        seed: u64,
        observer: &mut dyn Observer,
        go_on: GoOn,
    ) -> Result<Option<Ended>> {
        let training = self.training(variant, seed)?;
        let mut network = self.network(seed)?;
        let mut epochs: Vec<EpochReport> = Vec::new();
        let mut pass = |event: Event<'_>| {
            if let Event::Epoch(report) = event {
                epochs.push(report.clone());
            }
            observer.on(event)
        };
        let trained = train_while(&mut network, &self.data, &training, &mut pass, go_on);
        let curve = epochs;
        let (history, end) = match trained {
            Err(Error::Diverged { at }) => return Ok(Some(Ended::Diverged(at, curve))),
            trained => (trained?, curve.last().map(|epoch| epoch.step)),
        };
        if !history.complete {
            return Ok(None);
        }
        let evaluation = match self.evaluate(&network, observer, go_on) {
            Err(relugrad::Error::Stopped) => return Ok(None),
            // Numbers of a training can be finite, and those of its network all the same not.
            Err(error) => match error.not_finite() {
                Some(quantity) => {
                    let at = Divergence {
                        step: end.unwrap_or_default(),
                        epoch: curve.len(),
                        quantity: format!("in the evaluation {quantity}"),
                    };
                    return Ok(Some(Ended::Diverged(at, curve)));
                }
                None => return Err(error.into()),
            },
            Ok(evaluation) => evaluation,
        };
        let run = Run {
            regularizer: self.name(variant),
            lambda: variant.map_or(0.0, Variant::weight),
            seed,
            curve,
            evaluation,
            step_milliseconds: history.step_time.as_secs_f64() * 1e3,
        };
        Ok(Some(Ended::Finished(Box::new(run), Box::new(network))))
    }

    fn evaluate(
        &self,
        network: &Network<f32>,
        observer: &mut dyn Observer,
        go_on: GoOn,
    ) -> relugrad::Result<Measured> {
        let loss = self.loss();
        let test = Samples::new(&self.data.test);
        let attacked = test.first(self.attack_samples);
        let parts = 1 + self.attacks.len();
        let mut next = |done: usize| tell(observer, Event::Part { done, parts });
        next(0)?;
        let clean = score(network, loss, &test, go_on)?;
        let penalties = self.penalties();
        let (geometric, at_sample): (Vec<Penalty>, Vec<Penalty>) =
            penalties.iter().cloned().partition(Penalty::is_geometric);
        let (means, samples_on_kink) = penalty_means(network, loss, &at_sample, &test, go_on)?;
        let (geometric_means, _) = penalty_means(network, loss, &geometric, &attacked, go_on)?;
        let found = at_sample.iter().zip(means);
        let found: Vec<(&Penalty, f64)> =
            found.chain(geometric.iter().zip(geometric_means)).collect();
        let attacked_clean = score(network, loss, &attacked, go_on)?;
        let mut robust = Vec::new();
        for (i, (attack, _)) in self.attacks.iter().enumerate() {
            next(1 + i)?;
            robust.push(score_under_attack(network, loss, attack, &attacked, go_on)?);
        }
        let named = penalties.iter().map(|penalty| PenaltyMean {
            name: self.penalty_name(penalty),
            mean: found
                .iter()
                .find(|(p, _)| *p == penalty)
                .map_or(f64::NAN, |(_, mean)| *mean),
        });
        let certified = match self.certified_samples {
            0 => None,
            count => Some(certify(network, &attacked.first(count), go_on)?),
        };
        Ok(Measured {
            quality: Measures::new(clean.quality, attacked_clean.quality, &robust),
            loss: clean.loss,
            penalties: named.collect(),
            certified,
            samples_on_kink,
        })
    }

    fn settings(&self) -> Result<Settings> {
        let (train, test) = (&self.data.train, &self.data.test);
        Ok(Settings {
            version: env!("CARGO_PKG_VERSION").into(),
            data: train.name().into(),
            train_samples: train.samples(),
            test_samples: test.samples(),
            data_checksums: [train, test].map(Dataset::fingerprint).to_vec(),
            attack_samples: self.attack_samples.min(test.samples()),
            certified_samples: self.certified_samples.min(test.samples()),
            parameters: self.network(0)?.parameters().len(),
            model: self.model.to_string(),
            loss: LossSettings::new(self.loss()),
            regression: train.values().is_some(),
            bounds: (*test.bounds() != Bounds::default()).then(|| test.bounds().to_string()),
            standardised: self
                .statistics
                .as_ref()
                .map(|s| [s.means.clone(), s.deviations.clone()]),
            epochs: self.training.epochs,
            batch_size: self.training.batch_size,
            optimizer: self.training.optimizer.name().into(),
            learning_rate: self.training.learning_rate,
            warmup_epochs: self.training.ramp.epochs,
            training: serde_json::to_value(&self.training).map_err(|error| {
                Error::Configuration {
                    problem: format!("the options of the training cannot be written: {error}"),
                }
            })?,
            seeds: self.seeds.clone(),
            penalties: self
                .variants
                .iter()
                .filter_map(|variant| match variant {
                    Variant::Penalty(penalty, lambda) => {
                        Some(PenaltySettings::new(penalty, *lambda))
                    }
                    Variant::Adversarial(_) => None,
                })
                .collect(),
            adversarial: self
                .variants
                .iter()
                .filter_map(|variant| match variant {
                    Variant::Adversarial(adversarial) => Some(adversarial.clone()),
                    Variant::Penalty(..) => None,
                })
                .collect(),
            threads: rayon::current_num_threads(),
            attacks: self
                .attacks
                .iter()
                .map(|(attacker, headline)| ShownAttack {
                    attack: attacker.settings(),
                    headline: *headline,
                })
                .collect(),
        })
    }
}
