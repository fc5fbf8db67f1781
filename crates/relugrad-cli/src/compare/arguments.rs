//! The options of `relugrad compare`.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::{Args, value_parser};
use relugrad::penalty::{Given, OptionValue, PenaltyOption};
use relugrad::{Loss, Objective, Penalty};
use relugrad_train::attack::{AnyAttack, Attacker, Fgsm, Norm, Pgd, Union};
use relugrad_train::compare::{Plan, Variant};
use relugrad_train::data::Split;
use relugrad_train::{
    Adversarial, Architecture, Configuration, EarlyStopping, Ramp, Training, check_penalty,
    outputs_for,
};

use super::shard::ShardOptions;
use crate::data::DataOptions;
use crate::failure::Failure;
use crate::flags::{self, Flags, Length};
use crate::formula::Formulas;
use crate::print;
use crate::threads::ThreadOption;
use crate::values::{
    Adversaries, Grid, List, all, count, non_negative, penalty_help, positive, whole,
};

/// Help of the option whose values are penalties.
const PENALTIES: &str = "Penalties to compare with no regularizer; NAME=WEIGHT sets the weight lambda, \
    NAME=0.01:0.1:1 tries several, 'NAME(OPTION=VALUE,...)=WEIGHT' sets its options, none compares none. By default input-gradient, jacobian, cross-lipschitz, curvature-trace, curvature-frobenius and \
    cure, of which those that need classes are left out where there are values. Those on kinks, boundaries and margins take much \
    longer.";

/// The families that are compared by default.
const FAMILIES: [&str; 6] = [
    "input-gradient",
    "jacobian",
    "cross-lipschitz",
    "curvature-trace",
    "curvature-frobenius",
    "cure",
];

/// Samples that are certified unless another number is given.
const CERTIFIED: usize = 100;

/// Radii of the curves of accuracy against ε, in ℓ∞ and ℓ2.
const LINF_CURVE: [f64; 4] = [0.05, 0.1, 0.15, 0.2];
const L2_CURVE: [f64; 4] = [0.25, 0.5, 0.75, 1.0];

/// Train a ReLU network with each regularizer from the same start, and compare
///
/// The same network is trained from the same initialisation and in the same order of samples
/// without a regularizer (`none`) and with each penalty. Each result is attacked (FGSM, and PGD
/// and Auto-PGD in turn, in linf and l2), and the mean of every penalty is measured on the test samples. Of samples with
/// values to regress to, the table has mean squared errors instead of accuracies, and attacks raise
/// the loss. One table is printed; --out also writes a report, all numbers, the training curves and
/// the trained networks.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  relugrad compare
  relugrad compare --penalties jacobian=0.05,cure --seeds 5 --out result
  relugrad compare --penalties jacobian=0.01 --formula 'flat: norm2(g) + b*tr(S*G) @ 0.1:1, b=0.5'
  relugrad compare --data mnist/ --epochs 2 --hidden 256,256
  relugrad compare --data mnist/ --epochs 1 --model lenet
  relugrad compare --data prices.csv --target-columns price --scale range --penalties jacobian=0.01:0.1,cure
  relugrad compare --penalties jacobian=0.003:0.01:0.03,cure=0.1:0.3 --adversarial pgd=0.1 --seeds 3 --out grid
  relugrad compare --data digits --data mnist/ --model mlp:128,128 --model lenet --epochs 3 --out all
  relugrad compare --data cifar-10/ --epochs 2 --model resnet:8,16

The same comparison by 20 processes, on one machine or on many, and joined:
  relugrad compare --penalties jacobian=0.01:0.1,cure --seeds 10 --shard 1/20 --out grid --resume
  … and so on to --shard 20/20; in a job array of Slurm --shard $SLURM_ARRAY_TASK_ID/20
  relugrad compare --merge grid --out grid")]
pub(crate) struct Arguments {
    /// `digits` (1797 images of 8x8 pixels, built in); a directory with the four IDX files of MNIST
    /// or Fashion-MNIST, or the binary batches of CIFAR-10 or CIFAR-100, plain or .gz; or a file:
    /// .npz (x_train, y_train, x_test, y_test, or x and y), .npy (with --labels or --targets),
    /// .csv. May be given several times
    #[arg(
        long = "data",
        value_name = "PATH",
        default_value = "digits",
        help_heading = "Data"
    )]
    pub(super) paths: Vec<String>,

    #[command(flatten)]
    pub(super) data: DataOptions,

    /// The network: `mlp:WIDTHS` (dense layers with ReLU), `lenet`, `resnet:WIDTHS` (a residual
    /// block for each width), or a .toml file that lists layers (its format: documentation of
    /// relugrad-train, `Architecture`). May be given several times
    #[arg(long = "model", value_name = "MODEL", default_value = "mlp:128,128")]
    models: Vec<String>,

    /// Widths of the hidden layers: short for --model mlp:WIDTHS
    #[arg(long, value_name = "WIDTHS", value_delimiter = ',', value_parser = count, conflicts_with = "models")]
    hidden: Vec<usize>,

    /// Penalties to compare with no regularizer; NAME=WEIGHT sets the weight lambda,
    /// NAME=0.01:0.1:1 tries several, 'NAME(OPTION=VALUE,...)=WEIGHT' sets its options
    #[arg(long, long_help = penalty_help(PENALTIES), value_name = "NAME[=WEIGHT[:WEIGHT...]],...")]
    penalties: Vec<List<Grid>>,

    #[command(flatten)]
    formulas: Formulas,

    /// Adversarial training to compare with, as a baseline: on examples of PGD of 7 steps of a size
    /// in linf, such as pgd=8/255, or of several, pgd=0.1:0.2
    #[arg(long, value_name = "METHOD[=SIZE[:SIZE...]]", value_delimiter = ',')]
    adversarial: Vec<Adversaries>,

    /// A TOML file as for `relugrad train` that says how all networks are trained: loss, optimizer,
    /// schedule, ramp, augment, clip, lazy and the like; data, model, penalties, adversarial and
    /// seed are this command's options
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    length: Flags<Length>,

    /// Epochs over which the weights of penalties grow from 0, in a straight line [default: 3]
    #[arg(long, value_name = "EPOCHS", value_parser = non_negative)]
    ramp: Option<f64>,

    /// Number of seeds; with more than one the table shows mean and standard deviation
    #[arg(long, value_name = "N", default_value = "1", value_parser = value_parser!(u64).range(1..=10_000))]
    seeds: u64,

    /// First seed, of initialisation and order of samples; the others follow it
    #[arg(long, value_name = "SEED", default_value = "0", value_parser = whole::<u64>)]
    first_seed: u64,

    /// Radii in linf, in units of the data, such as 8/255,0.1, whose accuracy under attack the table
    /// shows
    #[arg(long, value_name = "RADII", default_value = "0.1,0.2", value_delimiter = ',', value_parser = non_negative)]
    linf: Vec<f64>,

    /// The same in l2
    #[arg(long, value_name = "RADII", value_delimiter = ',', value_parser = non_negative)]
    l2: Vec<f64>,

    /// The same in l1
    #[arg(long, value_name = "RADII", value_delimiter = ',', value_parser = non_negative)]
    l1: Vec<f64>,

    /// Gradient steps of PGD, each of length 2.5 epsilon / steps, and of Auto-PGD
    #[arg(long, value_name = "N", default_value = "20", value_parser = count)]
    pgd_steps: usize,

    /// Random starts of PGD, of Auto-PGD on the loss, and of Auto-PGD on the difference of logits
    /// towards each of two other classes; a sample counts as fooled if one of them succeeds
    #[arg(long, value_name = "N", default_value = "1", value_parser = count)]
    pgd_restarts: usize,

    /// Attack at most this many test samples, from the first on
    #[arg(long, value_name = "N", default_value = "1000", value_parser = count)]
    attack_samples: usize,

    /// Step h of the penalties `cure`, `cure-gradient` and their kinks, in input units
    #[arg(long, value_name = "H", default_value = "1.5", value_parser = non_negative)]
    cure_step: f64,

    /// Random rows per sample of the penalty `jacobian-projected`
    #[arg(long, value_name = "M", default_value = "1", value_parser = count)]
    projections: usize,

    /// Hyperplanes that count for the penalties `region-boundary-*`, `decision-boundary-*` and
    /// `maximum-margin-*`
    #[arg(long, value_name = "K", default_value = "50", value_parser = count)]
    boundary_nearest: usize,

    /// Distance from which on these do not penalise a hyperplane, in input units [default: 2 in l1,
    /// 0.5 in l2, 0.1 in linf]
    #[arg(long, value_name = "RADIUS", value_parser = positive)]
    boundary_radius: Option<f64>,

    /// Certify at most this many of the attacked samples and show the medians of their radii
    /// [default: 100 with a penalty on hyperplanes, otherwise none]
    #[arg(long, value_name = "N", value_parser = whole::<usize>)]
    certify: Option<usize>,

    #[command(flatten)]
    pub(super) threads: ThreadOption,

    /// Write report.html, results.json, curves.csv and models/*.safetensors to this directory; with
    /// several data or models, to a directory in it for each
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,

    /// Replace an earlier result in the directory of --out: the files that it has made, unless
    /// somebody has changed them
    #[arg(long, requires = "out")]
    pub(super) overwrite: bool,

    /// Go on with an interrupted comparison of the same options in the directory of --out; runs
    /// that diverged are not tried again
    #[arg(long, requires = "out", conflicts_with = "overwrite")]
    pub(super) resume: bool,

    #[command(flatten)]
    pub(super) shards: ShardOptions,

    /// Print all results as one line of JSON instead of the table
    #[arg(long)]
    pub(super) json: bool,
}

impl Arguments {
    /// Refuses what single options cannot see.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let penalties = all(&self.penalties);
        for (i, one) in penalties.iter().enumerate() {
            let same =
                |other: &Grid| other.entry.name == one.entry.name && other.options == one.options;
            if penalties[..i].iter().any(same) {
                return Err(Failure::Usage(anyhow!(
                    "--penalties names `{}` twice",
                    one.entry.name
                )));
            }
        }
        if let Some(other) = self
            .adversarial
            .iter()
            .find(|one| one.method != Pgd {}.into())
        {
            return Err(Failure::Usage(anyhow!(
                "--adversarial {}: a comparison trains on examples of pgd; `relugrad train --adversarial` takes the others",
                other.method.name()
            )));
        }
        if self.adversarial.iter().any(|one| one.bare) {
            print::note(
                "note: --adversarial 0.1 is written --adversarial pgd=0.1; the next version asks for it",
            );
        }
        if self.first_seed.checked_add(self.seeds - 1).is_none() {
            return Err(Failure::Usage(anyhow!(
                "--seeds {} from --first-seed {} on are not all there: {} is the last",
                self.seeds,
                self.first_seed,
                u64::MAX
            )));
        }
        Ok(())
    }

    /// What is given of data and training.
    pub(super) fn given_keys(&self) -> Vec<String> {
        let given = self.data.values().iter().chain(self.length.values());
        given.map(|(key, _)| format!("`{key}`")).collect()
    }

    /// The networks to train.
    pub(super) fn models(&self) -> Result<Vec<Architecture>, Failure> {
        if !self.hidden.is_empty() {
            return Ok(vec![Architecture::mlp(&self.hidden)]);
        }
        let parse =
            |text: &String| Architecture::parse(text).map_err(|error| Failure::Usage(error.into()));
        self.models.iter().map(parse).collect()
    }

    /// The files that the comparison reads.
    pub(super) fn inputs(&self) -> Vec<&Path> {
        let named = self.paths.iter().chain(&self.models).map(Path::new);
        named
            .chain(self.data.files())
            .chain(self.config.as_deref())
            .collect()
    }

    /// What to compare, on these data with this network.
    pub(super) fn plan(&self, data: Split, model: Architecture) -> Result<Plan, Failure> {
        let variants = self.variants(&data)?;
        let configuration = self.configuration()?;
        Ok(Plan {
            statistics: configuration.statistics(&data.train)?,
            training: self.training(configuration, &data)?,
            data,
            model,
            seeds: (0..self.seeds).map(|i| self.first_seed + i).collect(),
            attacks: self.attacks(),
            attack_samples: self.attack_samples,
            certified_samples: self.certified_samples(&variants),
            share: None,
            variants,
        })
    }

    /// The file of --config with the flags over it.
    fn configuration(&self) -> Result<Configuration, Failure> {
        let usage = |error: relugrad_train::Error| Failure::Usage(error.into());
        if let Some(path) = &self.config {
            Configuration::load(path).map_err(usage)?;
        }
        let table = self.length.over(flags::file(self.config.as_deref())?);
        table.and_then(Configuration::from_table).map_err(usage)
    }

    /// How all networks are trained.
    fn training(&self, configuration: Configuration, data: &Split) -> Result<Training, Failure> {
        let usage = |error: relugrad_train::Error| Failure::Usage(error.into());
        let given = configuration.given_loss().map_err(usage)?;
        let (kind, outputs) = (data.train.kind(), outputs_for(&data.train, given));
        let loss = given.unwrap_or_else(|| Loss::for_targets(kind, outputs));
        let mut training = configuration.training;
        training.objective = Objective::new(loss);
        if self.config.is_none() {
            training.ramp = Ramp::linear(3.0);
        }
        training.adversarial = None;
        training.ramp = self.ramp.map_or(training.ramp, Ramp::linear);
        // The last network counts, and the test samples have no say in it.
        training.stopping = EarlyStopping::default();
        training.seed = 0;
        Ok(training)
    }

    fn variants(&self, data: &Split) -> Result<Vec<Variant>, Failure> {
        let usage = |error: relugrad::Error| Failure::Usage(error.into());
        let mut variants = Vec::new();
        let families = FAMILIES.iter().map(|name| Grid::default_of(name));
        let fits = |grid: &Grid| {
            let penalty = grid.entry.penalty();
            check_penalty(&penalty, data.train.kind(), data.train.classes()).is_ok()
        };
        let by_default = self.penalties.is_empty() && self.formulas.is_empty();
        let grids = match by_default {
            true => families
                .collect::<relugrad::Result<Vec<Grid>>>()
                .map_err(usage)?,
            false => all(&self.penalties),
        };
        let grids = grids.iter().filter(|grid| !by_default || fits(grid));
        for grid in grids {
            let penalty = self.penalty(grid).map_err(usage)?;
            let lambdas = match &grid.lambdas[..] {
                [] => &[grid.entry.weight],
                lambdas => lambdas,
            };
            let with = |&lambda: &f64| Variant::Penalty(penalty.clone(), lambda);
            variants.extend(lambdas.iter().map(with));
        }
        for formula in self.formulas.all()? {
            let lambdas = match &formula.lambdas[..] {
                [] => &[1.0],
                lambdas => lambdas,
            };
            let with = |&lambda: &f64| Variant::Penalty(formula.penalty(), lambda);
            variants.extend(lambdas.iter().map(with));
        }
        let sizes = self
            .adversarial
            .iter()
            .flat_map(|one| match &one.sizes[..] {
                [] => vec![Adversarial::default().epsilon],
                sizes => sizes.to_vec(),
            });
        let adversarial = sizes.map(|epsilon| {
            Variant::Adversarial(Adversarial {
                epsilon,
                ..Adversarial::default()
            })
        });
        variants.extend(adversarial);
        Ok(variants)
    }

    /// A penalty with its own options and, of those that are not given, this command's.
    fn penalty(&self, grid: &Grid) -> relugrad::Result<Penalty> {
        let flag = |option: &PenaltyOption| match (grid.entry.name.starts_with("cure"), option.name)
        {
            (true, "step") => Some(OptionValue::Number(self.cure_step)),
            (_, "rows") => Some(OptionValue::Count(self.projections as u64)),
            (_, "seed") => Some(OptionValue::Count(self.first_seed)),
            (_, "nearest") => Some(OptionValue::Count(self.boundary_nearest as u64)),
            (_, "radius") => self.boundary_radius.map(OptionValue::Number),
            _ => None,
        };
        let is_given = |name: &str| grid.options.iter().any(|(given, _)| *given == name);
        let others = grid.entry.options.iter();
        let others = others.filter(|option| !is_given(option.name));
        let flags = others.filter_map(|option| Some((option.name, flag(option)?)));
        let options: Vec<Given> = grid.options.iter().cloned().chain(flags).collect();
        grid.entry.with_options(&options)
    }

    /// How many samples are certified, by default some if a penalty is about hyperplanes.
    fn certified_samples(&self, variants: &[Variant]) -> usize {
        let geometric = |v: &Variant| matches!(v, Variant::Penalty(p, _) if p.is_geometric());
        let default = if variants.iter().any(geometric) {
            CERTIFIED
        } else {
            0
        };
        self.certify.unwrap_or(default).min(self.attack_samples)
    }

    /// The union of PGD and Auto-PGD at the table's radii and along the curves, and FGSM along the
    /// curve in ℓ∞.
    fn attacks(&self) -> Vec<(Attacker, bool)> {
        let radii = |curve: &[f64], given: &[f64]| {
            let mut radii: Vec<f64> = curve.iter().chain(given).copied().collect();
            radii.sort_by(f64::total_cmp);
            radii.dedup();
            radii
        };
        // Auto-PGD has no steps in ℓ1.
        let strongest = |norm| match norm {
            Norm::L1 => AnyAttack::from(Pgd {}),
            Norm::L2 | Norm::Linf => Union {}.into(),
        };
        let (steps, restarts) = (self.pgd_steps, self.pgd_restarts);
        let strong = |norm, curve: &[f64], given: &[f64]| -> Vec<(Attacker, bool)> {
            let attack = |&epsilon: &f64| {
                let attack = Attacker::new(strongest(norm), norm, epsilon, steps, restarts);
                (attack, given.contains(&epsilon))
            };
            radii(curve, given).iter().map(attack).collect()
        };
        let weak = radii(&LINF_CURVE, &self.linf).into_iter();
        let weak = weak.map(|epsilon| (Attacker::new(Fgsm {}, Norm::Linf, epsilon, 1, 1), false));
        let mut attacks = strong(Norm::Linf, &LINF_CURVE, &self.linf);
        attacks.extend(weak);
        attacks.extend(strong(Norm::L2, &L2_CURVE, &self.l2));
        attacks.extend(strong(Norm::L1, &[], &self.l1));
        attacks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::Weighted;
    use relugrad::Direction;

    #[test]
    fn weights_are_read_and_checked() {
        let read: Grid = "jacobian=0.25:1".parse().unwrap();
        assert_eq!(
            (read.entry.penalty(), read.lambdas),
            (Penalty::Jacobian, vec![0.25, 1.0])
        );
        assert!("cure".parse::<Grid>().unwrap().lambdas.is_empty());
        for wrong in [
            "jacobian=-1",
            "jacobian=",
            "jacobian=nan",
            "jacobain",
            "=1",
            "cure=1:1",
            "cure=1:",
        ] {
            assert!(wrong.parse::<Grid>().is_err(), "{wrong}");
            assert!(wrong.parse::<Weighted>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_default_family_exists() {
        let direction = Direction::Sign;
        let families: Vec<Grid> = FAMILIES.map(|name| Grid::default_of(name).unwrap()).into();
        let cure = &families.last().unwrap().entry.penalty();
        assert_eq!(
            *cure,
            Penalty::Cure {
                step: 1.5,
                direction
            }
        );
    }
}
