//! The evaluation itself.

use std::ops::ControlFlow;

use ndarray::{Array2, Axis, s};
use rayon::prelude::*;
use relugrad::{Loss, Network, Objective, Scalar, Targets, Workspace};

use super::certificate::{Radii, radii};
use super::diagnosis::Diagnosis;
use super::report::{Attacked, Evaluated, Report, Sample};
use super::{AttackParameters, Evaluation, Share, check_network};
use crate::attack::{Attack, Norm};
use crate::data::Dataset;
use crate::error::Result;
use crate::evaluate::{Samples, accuracy_and_loss, prediction};

/// Samples of which Jacobians are held at once.
const BATCH: usize = 32;

/// Evaluates a network on the samples of a data set. `progress` is told the part that comes next, and their number; if it
/// breaks, nothing is returned.
///
/// Certificates are computed in `f64`, the rest in the precision of the network.
///
/// # Errors
/// Those of [`Evaluation::check`]; [`Error::Data`](crate::Error::Data) for a network of other inputs or fewer logits than
/// classes; the engine's errors.
pub fn evaluate<T: Scalar>(
    network: &Network<T>,
    data: &Dataset,
    evaluation: &Evaluation,
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Option<Evaluated<T>>> {
    evaluation.check()?;
    check_network(network, data)?;
    let all = Samples::new(data);
    let subject = Subject {
        network,
        evaluation,
        loss: Loss::softmax_cross_entropy(),
        attacked: all.first(evaluation.samples),
    };
    let attacks = evaluation.attacks(network.outputs());
    let norms: &[Norm] = match evaluation.deepfool_steps {
        0 => &[],
        _ => &[Norm::Linf, Norm::L2],
    };
    let mut parts = (0..).map(|part| progress(part, 2 + norms.len() + attacks.len()));
    let mut stopped = || parts.next().is_some_and(|flow| flow.is_break());
    if stopped() {
        return Ok(None);
    }
    let (mut report, mut samples) = subject.clean(data.name(), &all)?;
    if stopped() {
        return Ok(None);
    }
    subject.certify(&mut samples)?;
    for &norm in norms {
        if stopped() {
            return Ok(None);
        }
        report.deepfool.push(subject.deepfool(norm, &mut samples)?);
    }
    let mut adversarial: Vec<Array2<T>> = Vec::new();
    for attack in &attacks {
        if stopped() {
            return Ok(None);
        }
        subject.attack(attack, &mut report, &mut samples, &mut adversarial)?;
    }
    report.certify(evaluation, &samples);
    report.warnings = report.doubts();
    report.samples = samples;
    Ok(Some(Evaluated {
        report,
        adversarial,
    }))
}

/// A network with the samples to attack.
struct Subject<'a, T> {
    network: &'a Network<T>,
    evaluation: &'a Evaluation,
    loss: Loss,
    attacked: Samples<T>,
}

impl<T: Scalar> Subject<'_, T> {
    /// Consecutive parts of the attacked samples.
    fn parts(&self) -> impl Iterator<Item = (usize, ndarray::ArrayView2<'_, T>, &[usize])> {
        let n = self.attacked.len();
        (0..n).step_by(BATCH).map(move |start| {
            let end = (start + BATCH).min(n);
            let images = self.attacked.images.slice(s![start..end, ..]);
            (start, images, &self.attacked.labels[start..end])
        })
    }

    /// The report before any attack, and the samples to attack.
    fn clean(&self, name: &str, all: &Samples<T>) -> Result<(Report, Vec<Sample>)> {
        let (accuracy, loss) = accuracy_and_loss(self.network, &self.loss, all)?;
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
            warnings: Vec::new(),
            penalties: self.penalties(&mut samples)?,
            samples: Vec::new(),
        };
        Ok((report, samples))
    }

    fn samples(&self) -> Result<(Vec<Sample>, Diagnosis)> {
        let (mut samples, mut diagnosis) = (Vec::new(), Diagnosis::default());
        for (start, images, labels) in self.parts() {
            let trace = self.network.trace(images)?;
            let targets = Targets::Classes(labels);
            let losses = trace.losses(&self.loss, &targets)?;
            let gradients = trace.input_gradient(&self.loss, &targets)?;
            let jacobian = trace.jacobian();
            for (i, &label) in labels.iter().enumerate() {
                let f: Vec<f64> = trace.logits().row(i).iter().map(|f| f.into_f64()).collect();
                let gradient = Norm::L2.of(gradients.row(i).iter().copied());
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
                    misled: Vec::new(),
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
        for (start, images, labels) in self.parts() {
            let targets = Targets::Classes(labels);
            objective.value_into(self.network, images, &targets, &mut workspace)?;
            let values = &workspace.evaluation().sample_penalties;
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

    fn certify(&self, samples: &mut [Sample]) -> Result<()> {
        let network: Network<f64> = self.network.cast();
        let count = self.evaluation.certified.min(samples.len());
        let found: relugrad::Result<Vec<[Radii; 2]>> = samples[..count]
            .par_iter()
            .map(|sample| {
                let x = self
                    .attacked
                    .images
                    .row(sample.index)
                    .mapv(Scalar::into_f64);
                let kinks = network.kink_distances(x.view())?;
                let trace = network.trace(x.view().insert_axis(Axis(0)))?;
                let (f, j) = (trace.logits(), trace.jacobian());
                let (f, j) = (f.row(0), j.index_axis(Axis(0), 0));
                let y = prediction(&f.to_vec());
                let at = |norm, kink| radii(&network, norm, kink, x.view(), f, j, y);
                Ok([at(Norm::Linf, kinks.linf)?, at(Norm::L2, kinks.l2)?])
            })
            .collect();
        for (sample, radii) in samples.iter_mut().zip(found?) {
            sample.radii = Some(radii);
        }
        Ok(())
    }

    /// Runs DeepFool; the mean relative perturbation of the correctly classified samples, and their number.
    fn deepfool(&self, norm: Norm, samples: &mut [Sample]) -> Result<(Norm, f64, usize)> {
        let (mut sum, mut count) = (0.0, 0);
        for (start, images, _) in self.parts() {
            let found = self.evaluation.deepfool(norm).run(self.network, images)?;
            for (i, found) in found.into_iter().enumerate() {
                let sample = &mut samples[start + i];
                let Some(minimal) = found else { continue };
                let size = norm.of(images.row(i).iter().copied());
                sample.deepfool[usize::from(norm == Norm::L2)] = Some(minimal.norm);
                if sample.prediction == sample.label && size > 0.0 {
                    sum += minimal.norm / size;
                    count += 1;
                }
            }
        }
        Ok((norm, sum / count as f64, count))
    }

    /// Runs an attack and reports it; `adversarial` has an array for each norm and size so far.
    fn attack(
        &self,
        attack: &Attack,
        report: &mut Report,
        samples: &mut [Sample],
        adversarial: &mut Vec<Array2<T>>,
    ) -> Result<()> {
        let parameters = AttackParameters::new(attack);
        let same_ball = |before: &Attacked| {
            (before.attack.norm, before.attack.epsilon) == (attack.norm, attack.epsilon)
        };
        if !report.worst.last().is_some_and(same_ball) {
            adversarial.push(self.attacked.images.clone());
            report.worst.push(Attacked {
                attack: AttackParameters {
                    name: "worst".into(),
                    ..parameters.clone()
                },
                accuracy: report.attacked_clean,
            });
        }
        let examples = adversarial.last_mut().expect("there is one for this size");
        let first = report.attacks.iter().position(same_ball);
        let first = first.unwrap_or(report.attacks.len());
        self.mislead(attack, first, samples, examples)?;
        report.attacks.push(Attacked {
            attack: parameters,
            accuracy: share(samples, |sample| sample.misled.last() == Some(&false)),
        });
        let worst = report.worst.last_mut().expect("there is one for this size");
        worst.accuracy = share(samples, |sample| !sample.misled[first..].contains(&true));
        Ok(())
    }

    /// Runs an attack; puts the first adversarial example of a sample since the attack `first` into `examples`.
    fn mislead(
        &self,
        attack: &Attack,
        first: usize,
        samples: &mut [Sample],
        examples: &mut Array2<T>,
    ) -> Result<()> {
        for (start, images, labels) in self.attacked.batches() {
            let misled = attack.stand(self.network, &self.loss, images, labels, start)?;
            for (i, found) in misled.into_iter().enumerate() {
                let sample = &mut samples[start + i];
                let before = sample.misled[first..].contains(&true);
                sample.misled.push(found.is_some());
                if let (Some(example), false) = (found, before) {
                    let mut row = examples.row_mut(start + i);
                    row.iter_mut().zip(example).for_each(|(to, v)| *to = v);
                }
            }
        }
        Ok(())
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
