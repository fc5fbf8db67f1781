//! The evaluation itself.

use std::ops::ControlFlow;

use ndarray::{Array2, Axis, s};
use rayon::prelude::*;
use relugrad::{Loss, Network, Objective, Scalar, Targets, Workspace};
use serde::{Deserialize, Serialize};

use super::certificate::{Radii, radii};
use super::diagnosis::Diagnosis;
use super::{AttackParameters, Evaluation, Share, check_network};
use crate::attack::Norm;
use crate::data::Dataset;
use crate::error::Result;
use crate::evaluate::{Samples, accuracy_and_loss, prediction};

/// Samples of which Jacobians are held at once.
const BATCH: usize = 32;

/// What was found out about a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Name of the data set.
    pub data: String,
    /// Accuracy on all samples.
    pub clean: Share,
    /// Mean cross-entropy on them.
    pub loss: f64,
    /// Accuracy on the attacked samples before any attack.
    pub attacked_clean: Share,
    /// Every attack, in the order of growing strength for each norm and size.
    pub attacks: Vec<Attacked>,
    /// Accuracy under the worst of all attacks of each norm and size.
    pub worst: Vec<Attacked>,
    /// Mean relative perturbation of DeepFool, `mean ‖δ‖/‖x‖`, over the correctly classified samples for which it found
    /// one, by norm; with the number of these samples.
    pub deepfool: Vec<(Norm, f64, usize)>,
    /// Share of the certified samples that are correct and have at least this certified radius: `(norm, radius, share)`.
    pub certificates: Vec<(Norm, f64, Share)>,
    /// Median certified radius of the correct samples among those that were certified, by norm.
    pub median_certified: Vec<(Norm, f64)>,
    /// Samples without a gradient to follow, among the attacked ones.
    pub diagnosis: Diagnosis,
    /// What to doubt.
    pub warnings: Vec<String>,
    /// Names of the penalties in [`Sample::penalties`], and their means.
    pub penalties: Vec<(String, f64)>,
    /// The attacked samples.
    #[serde(skip)]
    pub samples: Vec<Sample>,
}

/// The outcome of an attack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attacked {
    /// The attack; its name is `worst` for the worst of all.
    pub attack: AttackParameters,
    /// Share of the attacked samples that are classified correctly all the same.
    pub accuracy: Share,
}

/// What was found out about one sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Its number in the data set.
    pub index: usize,
    /// Its class.
    pub label: usize,
    /// The predicted class.
    pub prediction: usize,
    /// `f_y − max_{k≠y} f_k` for the label `y`.
    pub margin: f64,
    /// The loss.
    pub loss: f64,
    /// `‖∇ₓℓ‖₂`.
    pub gradient: f64,
    /// Radii in ℓ∞ and in ℓ2, if the sample was certified.
    pub radii: Option<[Radii; 2]>,
    /// Size of DeepFool's perturbation in ℓ∞ and in ℓ2.
    pub deepfool: [Option<f64>; 2],
    /// Whether each attack of [`Report::attacks`] succeeded, or was not needed.
    pub misled: Vec<bool>,
    /// The value of each penalty.
    pub penalties: Vec<f64>,
}

/// A report with the adversarial examples.
#[derive(Clone, Debug)]
pub struct Evaluated<T> {
    /// What was found out.
    pub report: Report,
    /// For each entry of [`Report::worst`] the attacked samples as the first attack that misled the network made them, or
    /// as they were; `[n, D]`.
    pub adversarial: Vec<Array2<T>>,
}

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
    let norms = if evaluation.deepfool_steps > 0 { 2 } else { 0 };
    let parts = 2 + norms + attacks.len();
    let mut part = 0;
    let mut next = || {
        part += 1;
        progress(part - 1, parts).is_break()
    };
    if next() {
        return Ok(None);
    }
    let (accuracy, loss) = accuracy_and_loss(network, &subject.loss, &all)?;
    let (mut samples, diagnosis) = subject.samples()?;
    let penalties = subject.penalties(&mut samples)?;
    if next() {
        return Ok(None);
    }
    subject.certify(&mut samples)?;
    let mut report = Report {
        data: data.name().into(),
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
        penalties,
        samples: Vec::new(),
    };
    for norm in [Norm::Linf, Norm::L2].into_iter().take(norms) {
        if next() {
            return Ok(None);
        }
        report.deepfool.push(subject.deepfool(norm, &mut samples)?);
    }
    let mut adversarial: Vec<Array2<T>> = Vec::new();
    for attack in &attacks {
        if next() {
            return Ok(None);
        }
        let same_ball = |before: &Attacked| {
            (before.attack.norm, before.attack.epsilon) == (attack.norm, attack.epsilon)
        };
        if !report.worst.last().is_some_and(same_ball) {
            adversarial.push(subject.attacked.images.clone());
            report.worst.push(Attacked {
                attack: AttackParameters {
                    name: "worst".into(),
                    ..AttackParameters::new(attack)
                },
                accuracy: report.attacked_clean,
            });
        }
        let examples = adversarial.last_mut().expect("it was just pushed");
        let first = report.attacks.iter().position(same_ball);
        let first = first.unwrap_or(report.attacks.len());
        subject.attack(attack, first, &mut samples, examples)?;
        let last = samples[0].misled.len() - 1;
        report.attacks.push(Attacked {
            attack: AttackParameters::new(attack),
            accuracy: share(&samples, |sample| !sample.misled[last]),
        });
        let worst = report.worst.last_mut().expect("it was just pushed");
        worst.accuracy = share(&samples, |sample| !sample.misled[first..].contains(&true));
    }
    certificates(&mut report, evaluation, &samples);
    report.warnings = warnings(&report);
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

    /// Runs an attack; puts the first adversarial example of a sample since the attack `first` into `examples`.
    fn attack(
        &self,
        attack: &crate::attack::Attack,
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

/// Certified accuracy at the sizes of the attacks, and median radii.
fn certificates(report: &mut Report, evaluation: &Evaluation, samples: &[Sample]) {
    let certified: Vec<&Sample> = samples.iter().filter(|s| s.radii.is_some()).collect();
    if certified.is_empty() {
        return;
    }
    for (i, (norm, sizes)) in [(Norm::Linf, &evaluation.linf), (Norm::L2, &evaluation.l2)]
        .into_iter()
        .enumerate()
    {
        let correct = |sample: &&&Sample| sample.prediction == sample.label;
        let radius = |sample: &&Sample| sample.radii.map_or(0.0, |radii| radii[i].certified);
        let mut radii: Vec<f64> = certified.iter().filter(correct).map(radius).collect();
        radii.sort_by(f64::total_cmp);
        for &size in sizes {
            let count = radii.iter().filter(|&&radius| radius >= size).count();
            let share = Share::new(count, certified.len());
            report.certificates.push((norm, size, share));
        }
        if let Some(&median) = radii.get(radii.len() / 2) {
            report.median_certified.push((norm, median));
        }
    }
}

/// What to doubt: masked gradients, and attacks that do worse than weaker ones.
fn warnings(report: &Report) -> Vec<String> {
    let mut warnings = Vec::new();
    let masked = report.diagnosis.masked();
    if masked > 0.1 {
        warnings.push(format!(
            "{:.0} % of the samples have no input gradient to follow, so attacks by gradients see little; look at the logits",
            100.0 * masked
        ));
    }
    let ball = |a: &AttackParameters| (a.norm, a.epsilon);
    for worst in &report.worst {
        let here: Vec<&Attacked> = report
            .attacks
            .iter()
            .filter(|a| ball(&a.attack) == ball(&worst.attack))
            .collect();
        let at = format!("{} {}", worst.attack.norm.name(), worst.attack.epsilon);
        let noise = here.iter().find(|a| a.attack.name == "noise");
        for attacked in &here {
            if noise.is_some_and(|noise| attacked.accuracy.count > noise.accuracy.count) {
                warnings.push(format!(
                    "{} at {at} misleads fewer samples than random points do: its gradients are masked",
                    attacked.attack.name
                ));
            }
        }
        let least = |prefix: &str| {
            let named = here.iter().filter(|a| a.attack.name.starts_with(prefix));
            named.map(|a| a.accuracy.count).min()
        };
        if let (Some(pgd), Some(apgd)) = (least("PGD"), least("APGD"))
            && pgd < apgd
        {
            warnings.push(format!(
                "PGD beats Auto-PGD at {at} by {} samples: give Auto-PGD more steps or restarts",
                apgd - pgd
            ));
        }
    }
    warnings
}
