//! The options of `relugrad compare`.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::{Args, value_parser};
use relugrad::Penalty;
use relugrad_train::attack::{Attack, Norm};
use relugrad_train::compare::{Plan, default_lambda};
use relugrad_train::data::Split;
use relugrad_train::{Architecture, Optimizer};

use crate::data::DataOptions;
use crate::failure::Failure;
use crate::values::{Weighted, count, non_negative, positive};

/// The families that are compared by default.
const FAMILIES: &str =
    "input-gradient,jacobian,cross-lipschitz,curvature-trace,curvature-frobenius,cure";

/// Radii of the curves of accuracy against ε, in ℓ∞ and ℓ2.
const LINF_CURVE: [f64; 4] = [0.05, 0.1, 0.15, 0.2];
const L2_CURVE: [f64; 4] = [0.25, 0.5, 0.75, 1.0];

/// Train a ReLU network with each regularizer from the same start, and compare
///
/// The same network is trained from the same initialisation and in the same order of samples without a regularizer
/// (`none`) and with each penalty. Each result is attacked (FGSM and PGD in linf and l2), and the mean of every
/// penalty is measured on the test samples. One table is printed; --out also writes a report, all numbers, the
/// training curves and the trained networks.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  relugrad compare
  relugrad compare --penalties jacobian=0.05,cure --seeds 5 --out result
  relugrad compare --data mnist/ --epochs 2 --hidden 256,256
  relugrad compare --data mnist/ --epochs 1 --model lenet
  relugrad compare --data cifar-10/ --epochs 2 --model resnet:8,16")]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(super) data: DataOptions,

    /// The network: `mlp:WIDTHS` (dense layers with ReLU), `lenet`, `resnet:WIDTHS` (a residual block for each width), or
    /// a .toml file that lists layers (its format: documentation of relugrad-train, `Architecture`)
    #[arg(long, value_name = "MODEL", default_value = "mlp:128,128")]
    model: String,

    /// Widths of the hidden layers: short for --model mlp:WIDTHS
    #[arg(long, value_name = "WIDTHS", value_delimiter = ',', value_parser = count, conflicts_with = "model")]
    hidden: Vec<usize>,

    /// Penalties to compare with no regularizer; NAME=WEIGHT sets the weight lambda
    ///
    /// Names: input-gradient, input-gradient-l1, input-gradient-l2, input-gradient-linf, jacobian,
    /// jacobian-spectral, jacobian-nuclear, jacobian-projected, jacobian-probabilities, cross-lipschitz,
    /// curvature-trace, curvature-frobenius, curvature-spectral, curvature-directional, cure, cure-gradient.
    #[arg(long, value_name = "NAME[=WEIGHT],...", default_value = FAMILIES, value_delimiter = ',')]
    penalties: Vec<Weighted>,

    /// Passes over the training samples
    #[arg(long, value_name = "N", default_value = "30", value_parser = count)]
    epochs: usize,

    /// Samples in a training step
    #[arg(long, value_name = "N", default_value = "64", value_parser = count)]
    batch_size: usize,

    /// Learning rate
    #[arg(long, value_name = "RATE", default_value = "0.001", allow_negative_numbers = true, value_parser = positive)]
    lr: f64,

    /// Optimizer: adam, or sgd with momentum 0.9
    #[arg(long, value_name = "NAME", default_value = "adam")]
    optimizer: Optimizer,

    /// Epochs over which the weight of a penalty grows linearly from 0
    #[arg(long, value_name = "EPOCHS", default_value = "3", allow_negative_numbers = true, value_parser = non_negative)]
    warmup: f64,

    /// Number of seeds; with more than one the table shows mean and standard deviation
    #[arg(long, value_name = "N", default_value = "1", value_parser = value_parser!(u64).range(1..=10_000))]
    seeds: u64,

    /// First seed, of initialisation and order of samples; the others follow it
    #[arg(long, value_name = "SEED", default_value = "0")]
    first_seed: u64,

    /// Radii in linf, in units of the pixels' range [0, 1], whose PGD accuracy the table shows
    #[arg(long, value_name = "RADII", default_value = "0.1,0.2", value_delimiter = ',', allow_negative_numbers = true, value_parser = non_negative)]
    epsilons: Vec<f64>,

    /// Gradient steps of PGD, each of length 2.5 epsilon / steps
    #[arg(long, value_name = "N", default_value = "20", value_parser = count)]
    pgd_steps: usize,

    /// Random starts of PGD
    #[arg(long, value_name = "N", default_value = "2", value_parser = count)]
    pgd_restarts: usize,

    /// Attack at most this many test samples, from the first on
    #[arg(long, value_name = "N", default_value = "1000", value_parser = count)]
    attack_samples: usize,

    /// Step h of the penalties `cure` and `cure-gradient`, in input units
    #[arg(long, value_name = "H", default_value = "1.5", allow_negative_numbers = true, value_parser = non_negative)]
    cure_step: f64,

    /// Random rows per sample of the penalty `jacobian-projected`
    #[arg(long, value_name = "M", default_value = "1", value_parser = count)]
    projections: usize,

    /// Threads; 0 uses all processors. The results do not depend on it
    #[arg(long, value_name = "N", default_value = "0", value_parser = value_parser!(u16).range(0..=1024))]
    pub(super) threads: u16,

    /// Write report.html, results.json, curves.csv and models/*.safetensors to this directory
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,

    /// Replace an earlier result in the directory of --out
    #[arg(long, requires = "out")]
    pub(super) overwrite: bool,

    /// Print all results as one line of JSON instead of the table
    #[arg(long)]
    pub(super) json: bool,
}

impl Arguments {
    /// Refuses what single options cannot see.
    pub(super) fn check(&self) -> Result<(), Failure> {
        for (i, one) in self.penalties.iter().enumerate() {
            if self.penalties[..i]
                .iter()
                .any(|other| other.penalty.name() == one.penalty.name())
            {
                return Err(Failure::Usage(anyhow!(
                    "--penalties names `{}` twice",
                    one.penalty
                )));
            }
        }
        Ok(())
    }

    /// What to compare, on these data.
    pub(super) fn plan(&self, data: Split) -> Result<Plan, Failure> {
        let model = match &self.hidden[..] {
            [] => Architecture::parse(&self.model).map_err(|error| Failure::Usage(error.into()))?,
            widths => Architecture::mlp(widths),
        };
        Ok(Plan {
            data,
            model,
            penalties: self.penalties.iter().map(|one| self.penalty(one)).collect(),
            epochs: self.epochs,
            batch_size: self.batch_size,
            optimizer: self.optimizer,
            learning_rate: self.lr,
            warmup_epochs: self.warmup,
            seeds: (0..self.seeds)
                .map(|i| self.first_seed.wrapping_add(i))
                .collect(),
            attacks: self.attacks(),
            attack_samples: self.attack_samples,
        })
    }

    /// The penalty with this command's options, and its weight.
    fn penalty(&self, weighted: &Weighted) -> (Penalty, f64) {
        let penalty = match &weighted.penalty {
            Penalty::Cure { direction, .. } => Penalty::Cure {
                step: self.cure_step,
                direction: *direction,
            },
            Penalty::JacobianProjected { .. } => Penalty::JacobianProjected {
                rows: self.projections,
                seed: self.first_seed,
            },
            other => other.clone(),
        };
        let lambda = weighted.lambda.unwrap_or_else(|| default_lambda(&penalty));
        (penalty, lambda)
    }

    /// PGD at the table's radii and along the curves, and FGSM along the curve in ℓ∞.
    fn attacks(&self) -> Vec<(Attack, bool)> {
        let pgd = |norm, epsilon| Attack::pgd(norm, epsilon, self.pgd_steps, self.pgd_restarts);
        let mut linf: Vec<f64> = LINF_CURVE.iter().chain(&self.epsilons).copied().collect();
        linf.sort_by(f64::total_cmp);
        linf.dedup();
        let headline = |epsilon: &f64| self.epsilons.contains(epsilon);
        let strong = linf.iter().map(|e| (pgd(Norm::Linf, *e), headline(e)));
        let weak = linf.iter().map(|e| (Attack::fgsm(Norm::Linf, *e), false));
        let euclidean = L2_CURVE.iter().map(|e| (pgd(Norm::L2, *e), false));
        strong.chain(weak).chain(euclidean).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use relugrad::Direction;

    #[test]
    fn weights_are_read_and_checked() {
        let read: Weighted = "jacobian=0.25".parse().unwrap();
        assert_eq!((read.penalty, read.lambda), (Penalty::Jacobian, Some(0.25)));
        assert_eq!("cure".parse::<Weighted>().unwrap().lambda, None);
        for wrong in ["jacobian=-1", "jacobian=", "jacobian=nan", "jacobain", "=1"] {
            assert!(wrong.parse::<Weighted>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_default_family_exists() {
        let direction = Direction::Sign;
        let families: Vec<Weighted> = FAMILIES.split(',').map(|f| f.parse().unwrap()).collect();
        let cure = &families.last().unwrap().penalty;
        assert_eq!(
            *cure,
            Penalty::Cure {
                step: 1.5,
                direction
            }
        );
    }
}
