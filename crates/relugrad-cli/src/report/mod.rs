//! What a comparison looks like: the table, and the files of `--out`.

pub(crate) mod charts;
mod curves;
mod figures;
mod html;
mod measure;
mod summary;
pub(crate) mod table;

use anyhow::{Context, Result};
use relugrad_train::compare::Comparison;

pub(crate) use html::{document, legend};
pub(crate) use table::short;

/// The files of a comparison, but for its networks.
pub(crate) const FILES: [&str; 3] = ["results.json", "curves.csv", "report.html"];

/// What `results.json` holds.
pub(crate) fn numbers(comparison: &Comparison) -> Result<String> {
    Ok(serde_json::to_string_pretty(comparison).context("cannot write JSON")? + "\n")
}

/// What each of [`FILES`] holds.
pub(crate) fn contents(comparison: &Comparison) -> Result<[String; 3]> {
    Ok([
        numbers(comparison)?,
        curves::csv(comparison)?,
        html::page(comparison)?,
    ])
}

#[cfg(test)]
pub(crate) mod fixture {
    //! A comparison with round numbers.

    use relugrad::Loss;
    use relugrad_train::attack::{Attacker, Norm, Pgd};
    use relugrad_train::compare::{
        Comparison, Diverged, Measured, Measures, PenaltyMean, Run, Settings, ShownAttack,
    };
    use relugrad_train::{Divergence, EpochReport, LossSettings, Quality, Score};

    fn attack(epsilon: f64, headline: bool) -> ShownAttack {
        ShownAttack {
            attack: Attacker::new(Pgd {}, Norm::Linf, epsilon, 20, 2).settings(),
            headline,
        }
    }

    fn settings(seeds: Vec<u64>) -> Settings {
        Settings {
            version: "0.1.0".into(),
            data: "digits".into(),
            train_samples: 1438,
            test_samples: 359,
            data_checksums: Vec::new(),
            attack_samples: 359,
            certified_samples: 0,
            model: "mlp:8".into(),
            parameters: 610,
            loss: LossSettings::new(&Loss::softmax_cross_entropy()),
            regression: false,
            bounds: None,
            standardised: None,
            epochs: 2,
            batch_size: 64,
            optimizer: "adam".into(),
            learning_rate: 1e-3,
            warmup_epochs: 3.0,
            seeds,
            training: serde_json::Value::Null,
            penalties: Vec::new(),
            adversarial: Vec::new(),
            threads: 2,
            attacks: vec![attack(0.05, false), attack(0.1, true)],
        }
    }

    fn run(regularizer: &str, lambda: f64, seed: u64, clean: f64, penalty: f64) -> Run {
        let score = |loss: f64, accuracy: f64| Score {
            loss,
            quality: Quality::Classes { accuracy },
        };
        let epoch = |epoch: usize| EpochReport {
            epoch,
            step: 10 * epoch as u64,
            learning_rate: 1e-3,
            train: score(1.0 / epoch as f64, 0.5),
            train_penalties: vec![lambda * penalty / epoch as f64],
            validation: Some(score(1.25 / epoch as f64, clean)),
            best: true,
        };
        Run {
            regularizer: regularizer.into(),
            lambda,
            seed,
            curve: vec![epoch(1), epoch(2)],
            evaluation: Measured {
                quality: Measures::Classes {
                    clean_accuracy: clean,
                    attacked_clean_accuracy: clean,
                    robust_accuracy: vec![clean - 0.125, clean - 0.25],
                },
                loss: 0.5,
                penalties: vec![PenaltyMean {
                    name: "jacobian".into(),
                    mean: penalty,
                }],
                certified: None,
                samples_on_kink: 0,
            },
            step_milliseconds: if lambda > 0.0 { 3.0 } else { 2.0 },
        }
    }

    /// Plain training and the Jacobian penalty for each seed.
    pub(crate) fn comparison(seeds: &[u64]) -> Comparison {
        let pair = |&seed: &u64| {
            let shift = 0.02 * seed as f64;
            [
                run("none", 0.0, seed, 0.75 + shift, 1000.0),
                run("jacobian", 0.01, seed, 0.875 - shift, 12.5),
            ]
        };
        Comparison {
            settings: settings(seeds.to_vec()),
            runs: seeds.iter().flat_map(pair).collect(),
            diverged: Vec::new(),
            complete: true,
            part: None,
        }
    }

    /// The same of values to regress to, with the accuracies for errors.
    pub(crate) fn regression(seeds: &[u64]) -> Comparison {
        let mut comparison = comparison(seeds);
        comparison.settings.regression = true;
        comparison.settings.loss = LossSettings::new(&Loss::SquaredError);
        let values = |error: f64| Quality::Values {
            mse: error,
            r2: 1.0 - error,
        };
        for run in &mut comparison.runs {
            let clean = values(run.evaluation.quality.clean());
            let robust = run.evaluation.quality.robust().iter();
            let robust = robust.map(|&error| Score {
                loss: error / 2.0,
                quality: values(1.0 + error),
            });
            run.evaluation.quality = Measures::new(clean, clean, &robust.collect::<Vec<_>>());
            for epoch in &mut run.curve {
                epoch.train.quality = values(0.5);
                epoch.validation = epoch.validation.map(|score| Score {
                    quality: clean,
                    ..score
                });
            }
        }
        comparison
    }

    /// Has the planned run of this number diverge after its first epoch.
    pub(crate) fn diverge(comparison: &mut Comparison, number: usize) {
        let before = |run: &&Diverged| run.number < number;
        let before = comparison.diverged.iter().filter(before).count();
        let mut run = comparison.runs.remove(number - before);
        run.curve.truncate(1);
        let diverged = Diverged {
            number,
            regularizer: run.regularizer,
            lambda: run.lambda,
            seed: run.seed,
            at: Divergence {
                step: 30,
                epoch: 2,
                quantity: "the loss".into(),
            },
            curve: run.curve,
        };
        comparison.diverged.insert(before, diverged);
    }
}
