//! What an evaluation finds out.

use ndarray::Array2;
use serde::{Deserialize, Serialize};

use super::certificate::Radii;
use super::diagnosis::Diagnosis;
use super::{EvaluationOptions, Fit, Share, Standing};
use crate::attack::{ApgdCe, ApgdDlr, Attack, AttackSettings, Noise, Norm, Pgd};

/// What was found out about a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Name of the data set.
    pub data: String,
    /// The box that attacks did not leave, if it is not `[0, 1]`.
    #[serde(default, rename = "box", skip_serializing_if = "Option::is_none")]
    pub bounds: Option<String>,
    /// How good predictions of all samples are.
    pub clean: Standing,
    /// Mean loss on them.
    pub loss: f64,
    /// How good predictions of the attacked samples are before any attack.
    pub attacked_clean: Standing,
    /// What was left out because it does not apply to such samples, each with its reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// Every attack, in the order of growing strength for each norm and size.
    pub attacks: Vec<Attacked>,
    /// How good predictions are under the worst of all attacks of each norm and size.
    pub worst: Vec<Attacked>,
    /// Mean relative perturbation of DeepFool, `mean ‖δ‖/‖x‖`, over the correctly classified
    /// samples for which it found one, by norm; with the number of these samples.
    pub deepfool: Vec<(Norm, f64, usize)>,
    /// Share of the certified samples that are correct and have at least this certified radius:
    /// `(norm, radius, share)`.
    pub certificates: Vec<(Norm, f64, Share)>,
    /// Median certified radius of the correct samples among those that were certified, by norm.
    pub median_certified: Vec<(Norm, f64)>,
    /// Samples without a gradient to follow, among the attacked ones.
    pub diagnosis: Diagnosis,
    /// Whether every part of the evaluation is in it; false after an interrupt.
    pub complete: bool,
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
    /// The attack; its name is [`WORST`](super::WORST) for the worst of all.
    pub attack: AttackSettings,
    /// How good predictions of the attacked samples are all the same; in files `accuracy` of
    /// classes, `fit` of values.
    #[serde(flatten, with = "named")]
    pub standing: Standing,
}

/// A standing under the name that files have for it.
mod named {
    use serde::ser::SerializeMap;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::{Fit, Share, Standing};

    pub(super) fn serialize<S: Serializer>(
        standing: &Standing,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        match standing {
            Standing::Share(share) => map.serialize_entry("accuracy", share)?,
            Standing::Fit(fit) => map.serialize_entry("fit", fit)?,
        }
        map.end()
    }

    #[derive(Deserialize)]
    enum Named {
        #[serde(rename = "accuracy")]
        Accuracy(Share),
        #[serde(rename = "fit")]
        Fit(Fit),
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(source: D) -> Result<Standing, D::Error> {
        Ok(match Named::deserialize(source)? {
            Named::Accuracy(share) => Standing::Share(share),
            Named::Fit(fit) => Standing::Fit(fit),
        })
    }
}

/// What was found out about one sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Its number in the data set.
    pub index: usize,
    /// Its class and what is said of it, if the samples have classes.
    pub class: Option<Predicted>,
    /// `‖f − y‖²`, if they have values.
    pub squared_error: Option<f64>,
    /// The loss.
    pub loss: f64,
    /// `‖∇ₓℓ‖₂`.
    pub gradient: f64,
    /// Radii in ℓ∞ and in ℓ2, if the sample was certified.
    pub radii: Option<[Radii; 2]>,
    /// Size of DeepFool's perturbation in ℓ∞ and in ℓ2.
    pub deepfool: [Option<f64>; 2],
    /// Whether each attack of [`Report::attacks`] changed the class, or was not needed.
    pub fooled: Vec<bool>,
    /// The loss of what each attack has found.
    pub losses: Vec<f64>,
    /// `‖f − y‖²` there, if the samples have values.
    pub squared_errors: Vec<f64>,
    /// The value of each penalty.
    pub penalties: Vec<f64>,
}

/// A class, and what is said of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Predicted {
    /// The class.
    pub label: usize,
    /// The predicted class.
    pub prediction: usize,
    /// `f_y − max_{k≠y} f_k` for the label `y`.
    pub margin: f64,
}

impl Sample {
    /// Whether its class is predicted.
    pub fn is_right(&self) -> bool {
        self.class
            .is_some_and(|class| class.prediction == class.label)
    }
}

/// A report with the adversarial examples.
#[derive(Clone, Debug)]
pub struct Evaluated<T> {
    /// What was found out.
    pub report: Report,
    /// For each entry of [`Report::worst`] the attacked samples as the first attack that fooled the
    /// network made them, or as they were; of values, where the loss is the highest that was found;
    /// `[n, D]`.
    pub adversarial: Vec<Array2<T>>,
}

impl Report {
    /// Certified accuracy at the sizes of the attacks, and median radii.
    pub(super) fn certify(&mut self, evaluation: &EvaluationOptions, samples: &[Sample]) {
        let certified: Vec<&Sample> = samples.iter().filter(|s| s.radii.is_some()).collect();
        if certified.is_empty() {
            return;
        }
        for (i, (norm, sizes)) in [(Norm::Linf, &evaluation.linf), (Norm::L2, &evaluation.l2)]
            .into_iter()
            .enumerate()
        {
            let radius = |sample: &&Sample| sample.radii.map_or(0.0, |radii| radii[i].lower);
            let mut radii: Vec<f64> = certified
                .iter()
                .filter(|s| s.is_right())
                .map(radius)
                .collect();
            radii.sort_by(f64::total_cmp);
            for &size in sizes {
                let count = radii.iter().filter(|&&radius| radius >= size).count();
                let share = Share::new(count, certified.len());
                self.certificates.push((norm, size, share));
            }
            if let Some(&median) = radii.get(radii.len() / 2) {
                self.median_certified.push((norm, median));
            }
        }
    }

    /// What to warn of: masked gradients, and attacks that do worse than weaker ones.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let masked = self.diagnosis.masked();
        if masked > 0.1 {
            warnings.push(format!(
            "{:.0} % of the samples have no input gradient to follow, so attacks by gradients see little; look at the logits",
            100.0 * masked
        ));
        }
        let ball = |a: &AttackSettings| (a.options.norm, a.options.epsilon);
        for worst in &self.worst {
            let here: Vec<&Attacked> = self
                .attacks
                .iter()
                .filter(|a| ball(&a.attack) == ball(&worst.attack))
                .collect();
            let (norm, epsilon) = ball(&worst.attack);
            let at = format!("{} {epsilon}", norm.name());
            let noise = here.iter().find(|a| a.attack.name == Noise::TITLE);
            let (weaker, samples) = match worst.standing {
                Standing::Share(_) => ("fools fewer samples than random points do", true),
                Standing::Fit(_) => ("raises the loss less than random points do", false),
            };
            for attacked in &here {
                if noise.is_some_and(|noise| attacked.standing.merit() > noise.standing.merit()) {
                    let name = &attacked.attack.name;
                    warnings.push(format!("{name} at {at} {weaker}: its gradients are masked"));
                }
            }
            let least = |names: &[&str]| {
                let named = here.iter().filter(|a| names.contains(&&*a.attack.name));
                named.map(|a| a.standing.merit()).min_by(f64::total_cmp)
            };
            let adaptive = least(&[ApgdCe::TITLE, ApgdDlr::TITLE]);
            if let (Some(pgd), Some(apgd)) = (least(&[Pgd::TITLE]), adaptive) {
                let by = apgd - pgd;
                // Losses are never quite the same.
                let beaten = if samples {
                    by > 0.0
                } else {
                    by > 0.01 * apgd.abs()
                };
                let by = if samples {
                    format!("{by} samples")
                } else {
                    format!("{by:.3e} of the loss")
                };
                if beaten {
                    warnings.push(format!(
                        "PGD beats Auto-PGD at {at} by {by}: give Auto-PGD more steps or restarts"
                    ));
                }
            }
        }
        warnings
    }
}
