//! The evaluation itself.

use ndarray::{Array2, Axis, s};
use rayon::prelude::*;
use relugrad::{GoOn, Loss, Network, Objective, Scalar, Targets, Workspace};

use super::certificate::{Certificate, Radii, wide};
use super::diagnosis::Diagnosis;
use super::report::{Attacked, Evaluated, Report, Sample};
use super::{EvaluationOptions, Share, WORST};
use crate::attack::{AttackOptions, AttackSettings, Attacker, Ball, Norm};
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::evaluate::accuracy_and_loss;
use crate::fit::{Fit, check_fit};
use crate::observer::{Event, Observer, tell};
use crate::prediction::prediction;
use crate::samples::Samples;
use crate::stop::{ask, unless_stopped};

/// Samples of which Jacobians are held at once.
const BATCH: usize = 32;

/// Evaluates a network on the samples of a data set. `observer` hears before every part how many are done. When it or
/// `go_on` says no, the report keeps the parts that are finished, an attack being a part, and is not
/// [complete](Report::complete).
///
/// Certificates are computed in `f64`, and changes of class that they are held against verified there; the rest in the precision
/// of the network.
///
/// # Errors
/// Those of [`EvaluationOptions::check`]; [`Error::Data`](crate::Error::Data) for a network of other inputs or fewer logits than
/// classes; the engine's errors, among them [`relugrad::Error::Stopped`] when nothing is finished.
pub fn evaluate<T: Scalar>(
    network: &Network<T>,
    data: &Dataset,
    evaluation: &EvaluationOptions,
    observer: &mut dyn Observer,
    go_on: GoOn,
) -> Result<Evaluated<T>> {
    evaluation.check()?;
    check_fit(network, data, Fit::Logits)?;
    if network.outputs() < 2 {
        return Err(Error::Data {
            problem: "the model has a single logit, and attacks need two; give a model with one for each class".into(),
        });
    }
    let all = Samples::new(data);
    let subject = Subject {
        network,
        evaluation,
        loss: Loss::softmax_cross_entropy(),
        attacked: all.first(evaluation.samples),
        go_on,
        wide: network.cast()?,
    };
    let parts = subject.parts();
    let told = |observer: &mut dyn Observer, done: usize| {
        let parts = parts.len();
        tell(observer, Event::Part { done, parts })
    };
    told(observer, 0)?;
    let (mut report, mut samples) = subject.clean(data.name(), &all)?;
    let mut adversarial: Vec<Array2<T>> = Vec::new();
    let mut done = 1;
    for part in &parts[1..] {
        let mut add = || subject.add(part, &mut report, &mut samples, &mut adversarial);
        let finished = told(observer, done).and_then(|()| add());
        report.complete = unless_stopped(finished)?.is_some();
        if !report.complete {
            break;
        }
        done += 1;
    }
    report.certify(evaluation, &samples);
    report.warnings = report.warnings();
    if !report.complete {
        let share = format!("interrupted: {done} of {} parts are finished", parts.len());
        let rest = "certificates, DeepFool and attacks that are missing were not tried, and `worst` is of those that are listed";
        report.warnings.insert(0, format!("{share}; {rest}"));
    }
    report.samples = samples;
    Ok(Evaluated {
        report,
        adversarial,
    })
}

/// A part of an evaluation.
enum Part {
    /// Accuracy, gradients and penalties without any attack.
    Clean,
    Certificates,
    DeepFool(Norm),
    Attack(Attacker),
}

/// A network with the samples to attack.
struct Subject<'a, T> {
    network: &'a Network<T>,
    evaluation: &'a EvaluationOptions,
    loss: Loss,
    attacked: Samples<T>,
    go_on: GoOn<'a>,
    /// The network in which certificates are computed.
    wide: Network<f64>,
}

impl<T: Scalar> Subject<'_, T> {
    /// All parts in their order, the first without any attack.
    fn parts(&self) -> Vec<Part> {
        let norms: &[Norm] = match self.evaluation.deepfool_steps {
            0 => &[],
            _ => &[Norm::Linf, Norm::L2],
        };
        let attacks = self.evaluation.attackers(self.network.outputs());
        let first = [Part::Clean, Part::Certificates].into_iter();
        first
            .chain(norms.iter().map(|&norm| Part::DeepFool(norm)))
            .chain(attacks.into_iter().map(Part::Attack))
            .collect()
    }

    /// Adds a part to what is known. One that is stopped leaves no trace, but for the certificates that are finished.
    fn add(
        &self,
        part: &Part,
        report: &mut Report,
        samples: &mut [Sample],
        adversarial: &mut Vec<Array2<T>>,
    ) -> relugrad::Result<()> {
        match part {
            Part::Clean => Ok(()),
            Part::Certificates => self.certify(samples),
            Part::DeepFool(norm) => {
                report.deepfool.push(self.deepfool(*norm, samples)?);
                Ok(())
            }
            Part::Attack(attacker) => self.attack(attacker, report, samples, adversarial),
        }
    }

    /// Consecutive groups of the attacked samples.
    fn groups(&self) -> impl Iterator<Item = (usize, ndarray::ArrayView2<'_, T>, &[usize])> {
        let n = self.attacked.len();
        (0..n).step_by(BATCH).map(move |start| {
            let end = (start + BATCH).min(n);
            let images = self.attacked.images.slice(s![start..end, ..]);
            (start, images, &self.attacked.labels[start..end])
        })
    }

    /// The report before any attack, and the samples to attack.
    fn clean(&self, name: &str, all: &Samples<T>) -> Result<(Report, Vec<Sample>)> {
        let (accuracy, loss) = accuracy_and_loss(self.network, &self.loss, all, self.go_on)?;
        let (mut samples, diagnosis) = self.samples()?;
        let report = Report {
            data: name.into(),
            clean: Share::new((accuracy * all.len() as f64).round() as usize, all.len()),
            loss,
            attacked_clean: share(&samples, |sample| sample.prediction == sample.label),
            attacks: Vec::new(),
            worst: Vec::new(),
            deepfool: Vec::new(),
            certificates: Vec::new(),
            median_certified: Vec::new(),
            diagnosis,
            complete: true,
            warnings: Vec::new(),
            penalties: self.penalties(&mut samples)?,
            samples: Vec::new(),
        };
        Ok((report, samples))
    }

    fn samples(&self) -> Result<(Vec<Sample>, Diagnosis)> {
        let (mut samples, mut diagnosis) = (Vec::new(), Diagnosis::default());
        for (start, images, labels) in self.groups() {
            ask(self.go_on)?;
            let trace = self.network.trace(images)?;
            let targets = Targets::Classes(labels);
            let losses = trace.losses(&self.loss, &targets)?;
            let gradients = trace.input_gradient(&self.loss, &targets)?;
            let jacobian = trace.jacobian()?;
            for (i, &label) in labels.iter().enumerate() {
                let f: Vec<f64> = trace.logits().row(i).iter().map(|f| f.into_f64()).collect();
                let gradient = Norm::L2.length(gradients.row(i).iter().copied());
                let residual = residual(&f, label);
                diagnosis.add(jacobian.index_axis(Axis(0), i), &residual, gradient);
                let rivals = f.iter().enumerate().filter(|(k, _)| *k != label);
                let rival = rivals.map(|(_, &f)| f).fold(f64::NEG_INFINITY, f64::max);
                samples.push(Sample {
                    index: start + i,
                    label,
                    prediction: prediction(&f),
                    margin: f[label] - rival,
                    loss: losses[i],
                    gradient,
                    radii: None,
                    deepfool: [None; 2],
                    fooled: Vec::new(),
                    penalties: Vec::new(),
                });
            }
        }
        Ok((samples, diagnosis))
    }

    /// Values of the penalties at each sample, and their names and means.
    fn penalties(&self, samples: &mut [Sample]) -> Result<Vec<(String, f64)>> {
        let penalties = &self.evaluation.penalties;
        let mut objective = Objective::new(self.loss);
        for penalty in penalties {
            objective = objective.with(penalty.clone(), 0.0)?;
        }
        if penalties.is_empty() {
            return Ok(Vec::new());
        }
        let mut workspace = Workspace::new();
        for (start, images, labels) in self.groups() {
            ask(self.go_on)?;
            let targets = Targets::Classes(labels);
            objective
                .value_into(self.network, images, &targets, &mut workspace)
                .map_err(|error| error.renumbered(|sample| start + sample))?;
            let evaluation = workspace.evaluation().expect("it was just computed");
            let values = &evaluation.sample_penalties;
            for (i, column) in values.columns().into_iter().enumerate() {
                samples[start + i].penalties = column.to_vec();
            }
        }
        let mean = |i: usize| {
            let sum: f64 = samples.iter().map(|sample| sample.penalties[i]).sum();
            sum / samples.len() as f64
        };
        let named = penalties.iter().enumerate();
        Ok(named.map(|(i, p)| (p.name().to_owned(), mean(i))).collect())
    }

    /// The sample in `f64`, for its certificate.
    fn certificate(&self, sample: usize) -> relugrad::Result<Certificate<'_>> {
        Certificate::new(&self.wide, wide(&self.attacked.images, sample))
    }

    fn certify(&self, samples: &mut [Sample]) -> relugrad::Result<()> {
        let count = self.evaluation.certified.min(samples.len());
        let certified = |sample: &Sample| {
            ask(self.go_on)?;
            let found = self.certificate(sample.index);
            let found = found.and_then(|certificate| certificate.radii());
            found.map_err(|error| error.renumbered(|_| sample.index))
        };
        let found: relugrad::Result<Vec<Option<[Radii; 2]>>> = samples[..count]
            .par_iter()
            .map(|sample| unless_stopped(certified(sample)))
            .collect();
        for (sample, radii) in samples.iter_mut().zip(found?) {
            sample.radii = radii;
        }
        match samples[..count].iter().all(|sample| sample.radii.is_some()) {
            true => Ok(()),
            false => Err(relugrad::Error::Stopped),
        }
    }

    /// Improves the upper bound of a certified sample by a perturbed one.
    fn improve(
        &self,
        sample: &mut Sample,
        perturbed: ndarray::ArrayView1<T>,
    ) -> relugrad::Result<()> {
        if let Some(radii) = &mut sample.radii {
            let perturbed = perturbed.mapv(Scalar::into_f64);
            self.certificate(sample.index)?
                .improve(radii, perturbed.view())?;
        }
        Ok(())
    }

    /// Runs DeepFool; the mean relative perturbation of the correctly classified samples, and their number.
    fn deepfool(&self, norm: Norm, samples: &mut [Sample]) -> relugrad::Result<(Norm, f64, usize)> {
        let deepfool = self.evaluation.deepfool(norm);
        let mut found = Vec::new();
        for (_, images, _) in self.groups() {
            found.extend(deepfool.run_while(self.network, images, self.go_on)?);
        }
        let (mut sum, mut count) = (0.0, 0);
        for (sample, found) in samples.iter_mut().zip(found) {
            let Some(minimal) = found else { continue };
            let x = self.attacked.images.row(sample.index);
            let size = norm.length(x.iter().copied());
            sample.deepfool[usize::from(norm == Norm::L2)] = Some(minimal.norm);
            let delta = ndarray::ArrayView1::from(&minimal.delta);
            self.improve(sample, (&x + &delta).view())?;
            if sample.prediction == sample.label && size > 0.0 {
                sum += minimal.norm / size;
                count += 1;
            }
        }
        Ok((norm, sum / count as f64, count))
    }

    /// Runs an attack and reports it; `adversarial` has an array for each norm and size so far.
    fn attack(
        &self,
        attacker: &Attacker,
        report: &mut Report,
        samples: &mut [Sample],
        adversarial: &mut Vec<Array2<T>>,
    ) -> relugrad::Result<()> {
        let found = self.examples(attacker)?;
        let attack = attacker.settings();
        let ball = |options: &AttackOptions| (options.norm, options.epsilon);
        let same_ball = |before: &Attacked| ball(&before.attack.options) == ball(&attacker.options);
        if !report.worst.last().is_some_and(same_ball) {
            adversarial.push(self.attacked.images.clone());
            report.worst.push(Attacked {
                attack: AttackSettings {
                    name: WORST.into(),
                    options: attacker.options,
                },
                accuracy: report.attacked_clean,
            });
        }
        let examples = adversarial.last_mut().expect("there is one for this size");
        let first = report.attacks.iter().position(same_ball);
        let first = first.unwrap_or(report.attacks.len());
        let improved = samples.par_iter_mut().zip(&found);
        improved.try_for_each(|(sample, found)| match found {
            Some(example) => self.improve(sample, ndarray::ArrayView1::from(example)),
            None => Ok(()),
        })?;
        fool(found, first, samples, examples);
        report.attacks.push(Attacked {
            attack,
            accuracy: share(samples, |sample| sample.fooled.last() == Some(&false)),
        });
        let worst = report.worst.last_mut().expect("there is one for this size");
        worst.accuracy = share(samples, |sample| !sample.fooled[first..].contains(&true));
        Ok(())
    }

    /// For each attacked sample the example by which an attack fools the network, if it does.
    fn examples(&self, attacker: &Attacker) -> relugrad::Result<Vec<Option<Vec<T>>>> {
        let mut examples = Vec::new();
        for (start, images, labels) in self.attacked.batches() {
            let (network, loss) = (self.network, &self.loss);
            examples
                .extend(attacker.stand_while(network, loss, images, labels, start, self.go_on)?);
        }
        Ok(examples)
    }
}

/// Takes an attack down for every sample, and puts the first adversarial example of a sample since the attack `first` into
/// `examples`.
fn fool<T: Scalar>(
    found: Vec<Option<Vec<T>>>,
    first: usize,
    samples: &mut [Sample],
    examples: &mut Array2<T>,
) {
    for (i, (sample, found)) in samples.iter_mut().zip(found).enumerate() {
        let before = sample.fooled[first..].contains(&true);
        sample.fooled.push(found.is_some());
        if let (Some(example), false) = (found, before) {
            let mut row = examples.row_mut(i);
            row.iter_mut().zip(example).for_each(|(to, v)| *to = v);
        }
    }
}

/// `softmax(f) − e_y`, with the label's entry as the sum of the others, which keeps its digits.
fn residual(f: &[f64], label: usize) -> Vec<f64> {
    let largest = f.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = f.iter().map(|f| (f - largest).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let mut residual: Vec<f64> = weights.iter().map(|w| w / sum).collect();
    let others = residual.iter().enumerate().filter(|(k, _)| *k != label);
    let others: f64 = others.map(|(_, p)| p).sum();
    residual[label] = -others;
    residual
}

fn share(samples: &[Sample], holds: impl Fn(&Sample) -> bool) -> Share {
    Share::new(
        samples.iter().filter(|sample| holds(sample)).count(),
        samples.len(),
    )
}
