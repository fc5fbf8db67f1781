//! The evaluation itself.

use ndarray::{Array1, Array2, ArrayView1, Axis, s};
use rayon::prelude::*;
use relugrad::loss::TargetKind;
use relugrad::{GoOn, Loss, Network, Objective, Scalar, Workspace};

use super::certificate::{Certificate, Radii, wide};
use super::diagnosis::Diagnosis;
use super::report::{Attacked, Evaluated, Predicted, Report, Sample};
use super::{EvaluationOptions, Fit, Share, Standing, WORST};
use crate::attack::{AttackOptions, AttackSettings, Attacker, Ball, Norm, Outcome};
use crate::configuration::distinct_name;
use crate::data::{Bounds, Dataset, Truth};
use crate::error::Result;
use crate::evaluate::score;
use crate::fit::{check_penalty, loss_for};
use crate::observer::{Event, Observer, tell};
use crate::prediction::{classes, logit, prediction};
use crate::samples::Samples;
use crate::score::{Quality, Score};
use crate::stop::{ask, unless_stopped};
use crate::tally::{Spread, Tally};

/// Samples of which Jacobians are held at once.
const BATCH: usize = 32;

/// Evaluates a network on the samples of a data set. `observer` hears before every part how many
/// are done. When it or `go_on` says no, the report keeps the parts that are finished, an attack
/// being a part, and is not [complete](Report::complete).
///
/// Certificates are computed in `f64`, and changes of class that they are held against verified
/// there; the rest in the precision of the network.
///
/// # Errors
/// Those of [`EvaluationOptions::check`]; [`Error::Data`](crate::Error::Data) for a network of
/// other inputs or fewer logits than classes; the engine's errors, among them
/// [`relugrad::Error::Stopped`] when nothing is finished.
pub fn evaluate<T: Scalar>(
    network: &Network<T>,
    data: &Dataset,
    evaluation: &EvaluationOptions,
    observer: &mut dyn Observer,
    go_on: GoOn,
) -> Result<Evaluated<T>> {
    evaluation.check()?;
    let loss = loss_for(network, data, evaluation.loss)?;
    for penalty in &evaluation.penalties {
        check_penalty(penalty, data.kind(), network.outputs())?;
    }
    let mut all = Samples::new(data);
    if data.values().is_none() {
        // Intervals are about counts.
        all.weights.clear();
    }
    let attacked = all.first(evaluation.samples);
    let subject = Subject {
        network,
        evaluation,
        loss,
        spread: Spread::of(&attacked),
        attacked,
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
    /// What errors of the attacked samples are measured by.
    spread: Spread,
    go_on: GoOn<'a>,
    /// The network in which certificates are computed.
    wide: Network<f64>,
}

impl<T: Scalar> Subject<'_, T> {
    /// All parts in their order, the first without any attack.
    fn parts(&self) -> Vec<Part> {
        let (kind, outputs) = (self.attacked.truth.kind(), self.network.outputs());
        let mut parts = vec![Part::Clean];
        if self.has_classes() {
            parts.push(Part::Certificates);
            if self.evaluation.deepfool_steps > 0 {
                parts.extend([Part::DeepFool(Norm::Linf), Part::DeepFool(Norm::L2)]);
            }
        }
        let attacks = self.evaluation.attackers().into_iter();
        let fit = attacks.filter(|attack| attack.unfit(kind, outputs).is_none());
        parts.extend(fit.map(Part::Attack));
        parts
    }

    fn has_classes(&self) -> bool {
        self.attacked.truth.kind() != TargetKind::Values
    }

    /// What does not apply to the samples, with the reasons.
    fn left_out(&self) -> Vec<String> {
        let (kind, outputs) = (self.attacked.truth.kind(), self.network.outputs());
        let attacks = self.evaluation.attackers();
        let mut reasons: Vec<String> = Vec::new();
        for reason in attacks
            .iter()
            .filter_map(|attack| attack.unfit(kind, outputs))
        {
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
        if !self.has_classes() && self.evaluation.deepfool_steps > 0 {
            reasons.push("DeepFool looks for another class, but the samples have values".into());
        }
        if !self.has_classes() && self.evaluation.certified > 0 {
            reasons.push("certificates are of classes, but the samples have values".into());
        }
        reasons
    }

    /// Adds a part to what is known. One that is stopped leaves no trace, but for the certificates
    /// that are finished.
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

    /// The report before any attack, and the samples to attack.
    fn clean(&self, name: &str, all: &Samples<T>) -> Result<(Report, Vec<Sample>)> {
        let clean = score(self.network, &self.loss, all, self.go_on)?;
        let (mut samples, diagnosis) = self.samples()?;
        let errors = samples
            .iter()
            .map(|s| (s.loss, s.squared_error.unwrap_or(0.0)));
        let report = Report {
            data: name.into(),
            bounds: (self.attacked.bounds != Bounds::default())
                .then(|| self.attacked.bounds.to_string()),
            clean: match clean.quality {
                Quality::Classes { accuracy } => {
                    let count = (accuracy * all.len() as f64).round() as usize;
                    Standing::Share(Share::new(count, all.len()))
                }
                Quality::Values { mse, r2 } => Standing::Fit(Fit {
                    samples: all.len(),
                    loss: clean.loss,
                    mse,
                    r2,
                }),
            },
            loss: clean.loss,
            attacked_clean: self.standing(errors, || samples.iter().map(Sample::is_right)),
            left_out: self.left_out(),
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

    /// How good predictions of the attacked samples are, by their losses and squared errors or by
    /// which of them are right.
    fn standing<R: Iterator<Item = bool>>(
        &self,
        errors: impl Iterator<Item = (f64, f64)>,
        right: impl FnOnce() -> R,
    ) -> Standing {
        let samples = self.attacked.len();
        if self.has_classes() {
            let count = right().filter(|right| *right).count();
            return Standing::Share(Share::new(count, samples));
        }
        let mut tally = Tally::default();
        for (i, (loss, square)) in errors.enumerate() {
            tally.add_error(self.attacked.weight(i), loss, square);
        }
        let Score { loss, quality } = tally.score(self.spread);
        let metric = |i: usize| quality.metrics()[i].1;
        Standing::Fit(Fit {
            samples,
            loss,
            mse: metric(0),
            r2: metric(1),
        })
    }

    fn samples(&self) -> Result<(Vec<Sample>, Diagnosis)> {
        let (mut samples, mut diagnosis) = (Vec::new(), Diagnosis::default());
        for batch in self.attacked.batches_of(BATCH) {
            ask(self.go_on)?;
            let trace = self.network.trace(batch.images)?;
            let losses = trace.losses(&self.loss, &batch.targets)?;
            let gradients = trace.input_gradient(&self.loss, &batch.targets)?;
            let jacobian = trace.jacobian()?;
            for i in 0..batch.images.nrows() {
                let index = batch.first + i;
                let f = trace.logits().row(i).mapv(Scalar::into_f64);
                let gradient = Norm::L2.length(gradients.row(i).iter().copied());
                let truth: Truth<f64> = self.attacked.truth.select(&[index]).cast();
                let logits = f.as_slice().expect("it is one row");
                let (_, residual) = self.loss.evaluate(logits, &truth.targets())?;
                diagnosis.add(jacobian.index_axis(Axis(0), i), &residual, gradient);
                samples.push(Sample {
                    index,
                    class: truth.labels().first().map(|&label| predicted(&f, label)),
                    squared_error: squared_error(f.view(), &truth),
                    loss: losses[i],
                    gradient,
                    radii: None,
                    deepfool: [None; 2],
                    fooled: Vec::new(),
                    losses: Vec::new(),
                    squared_errors: Vec::new(),
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
        for batch in self.attacked.batches_of(BATCH) {
            ask(self.go_on)?;
            let start = batch.first;
            objective
                .value_into(self.network, batch.images, &batch.targets, &mut workspace)
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
        Ok(named
            .map(|(i, p)| (distinct_name(p, penalties), mean(i)))
            .collect())
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

    /// Runs DeepFool; the mean relative perturbation of the correctly classified samples, and their
    /// number.
    fn deepfool(&self, norm: Norm, samples: &mut [Sample]) -> relugrad::Result<(Norm, f64, usize)> {
        let deepfool = self.evaluation.deepfool(norm);
        let mut found = Vec::new();
        for batch in self.attacked.batches_of(BATCH) {
            found.extend(deepfool.run_while(self.network, batch.images, self.go_on)?);
        }
        let (mut sum, mut count) = (0.0, 0);
        for (sample, found) in samples.iter_mut().zip(found) {
            let Some(minimal) = found else { continue };
            let x = self.attacked.images.row(sample.index);
            let size = norm.length(x.iter().copied());
            sample.deepfool[usize::from(norm == Norm::L2)] = Some(minimal.norm);
            let delta = ndarray::ArrayView1::from(&minimal.delta);
            self.improve(sample, (&x + &delta).view())?;
            if sample.is_right() && size > 0.0 {
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
        let found = self.examples(&attacker.within(&self.attacked.bounds))?;
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
                standing: report.attacked_clean,
            });
        }
        let examples = adversarial.last_mut().expect("there is one for this size");
        let first = report.attacks.iter().position(same_ball);
        let first = first.unwrap_or(report.attacks.len());
        let improved = samples.par_iter_mut().enumerate();
        improved.try_for_each(|(i, sample)| match found.fooled[i] {
            true => self.improve(sample, found.adversarial.row(i)),
            false => Ok(()),
        })?;
        self.take_down(found, first, samples, examples)?;
        let last = |s: &Sample| (s.losses.last().copied(), s.squared_errors.last().copied());
        let errors = samples
            .iter()
            .map(last)
            .map(|(l, e)| (l.unwrap_or(0.0), e.unwrap_or(0.0)));
        let stands = || samples.iter().map(|s| s.fooled.last() == Some(&false));
        report.attacks.push(Attacked {
            attack,
            standing: self.standing(errors, stands),
        });
        let errors = samples.iter().map(|sample| sample.worst(first));
        let stands = || samples.iter().map(|s| !s.fooled[first..].contains(&true));
        let worst = report.worst.last_mut().expect("there is one for this size");
        worst.standing = self.standing(errors, stands);
        Ok(())
    }

    /// For each attacked sample what an attack finds.
    fn examples(&self, attacker: &Attacker) -> relugrad::Result<Outcome<T>> {
        let mut all = Outcome {
            adversarial: self.attacked.images.clone(),
            fooled: Vec::new(),
            losses: Vec::new(),
        };
        for batch in self.attacked.batches() {
            let range: Vec<usize> = (batch.first..batch.first + batch.images.nrows()).collect();
            let truth = self.attacked.truth.select(&range);
            let (network, loss, start) = (self.network, &self.loss, batch.first);
            let found =
                attacker.stand_while(network, loss, batch.images, truth, start, self.go_on)?;
            let mut rows = all
                .adversarial
                .slice_mut(s![start..start + range.len(), ..]);
            rows.assign(&found.adversarial);
            all.fooled.extend(found.fooled);
            all.losses.extend(found.losses);
        }
        Ok(all)
    }

    /// Takes an attack down for every sample, and puts what it found into `examples` where that is
    /// worse than all since the attack `first`: the first example that fools the network, or the
    /// one with the highest loss of a sample with values.
    fn take_down(
        &self,
        found: Outcome<T>,
        first: usize,
        samples: &mut [Sample],
        examples: &mut Array2<T>,
    ) -> relugrad::Result<()> {
        if !self.has_classes() {
            for batch in self.attacked.batches() {
                let range = batch.first..batch.first + batch.images.nrows();
                let x = found.adversarial.slice(s![range.clone(), ..]);
                let logits = self.network.forward(x)?;
                for (f, i) in logits.rows().into_iter().zip(range) {
                    let truth = self.attacked.truth.select(&[i]).cast();
                    let f = f.mapv(Scalar::into_f64);
                    samples[i]
                        .squared_errors
                        .extend(squared_error(f.view(), &truth));
                }
            }
        }
        for (i, sample) in samples.iter_mut().enumerate() {
            let (fooled, loss) = (found.fooled[i], found.losses[i]);
            let before = &sample.losses[first..];
            let worse = match sample.class {
                Some(_) => fooled && !sample.fooled[first..].contains(&true),
                None => before.iter().all(|before| loss > *before),
            };
            if worse {
                examples.row_mut(i).assign(&found.adversarial.row(i));
            }
            sample.fooled.push(fooled);
            sample.losses.push(loss);
        }
        Ok(())
    }
}

impl Sample {
    /// The highest loss that attacks from the `first` on found, and the squared error there.
    fn worst(&self, first: usize) -> (f64, f64) {
        let clean = (self.loss, self.squared_error.unwrap_or(0.0));
        let found = self.losses[first..]
            .iter()
            .zip(self.squared_errors.iter().skip(first));
        let found = found.map(|(loss, square)| (*loss, *square));
        found.fold(
            clean,
            |worst, found| if found.0 > worst.0 { found } else { worst },
        )
    }
}

/// A class, and what logits say of it.
fn predicted(f: &Array1<f64>, label: usize) -> Predicted {
    let rivals = (0..classes(f.len())).filter(|&k| k != label);
    let rivals = rivals.map(|k| logit(f.view(), k));
    Predicted {
        label,
        prediction: prediction(f.view()),
        margin: logit(f.view(), label) - rivals.fold(f64::NEG_INFINITY, f64::max),
    }
}

/// `‖f − y‖²`, if there are values.
fn squared_error(f: ArrayView1<f64>, truth: &Truth<f64>) -> Option<f64> {
    match truth {
        Truth::Classes(_) => None,
        Truth::Values(values) => {
            let errors = f.iter().zip(values);
            Some(errors.map(|(f, y)| (f - y).powi(2)).sum())
        }
    }
}
