//! One step of full length.

use ndarray::Array2;
use relugrad::Scalar;
use serde::{Deserialize, Serialize};

use super::{Attack, AttackOptions, Effort, Norm, Pgd, Search};

/// One step of full length from the sample (Goodfellow, Shlens & Szegedy 2015): [`Pgd`] with
/// `α = ε`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fgsm {}

impl Attack for Fgsm {
    const NAME: &'static str = "fgsm";
    const TITLE: &'static str = "FGSM";
    const MEANING: &'static str = "one gradient step of full length";

    fn options(&self, norm: Norm, epsilon: f64, _: usize, _: usize) -> AttackOptions {
        AttackOptions {
            step_size: epsilon,
            random_start: false,
            ..AttackOptions::plain(norm, epsilon, 1, 1)
        }
    }

    fn efforts(&self, _: Effort, _: Effort) -> Vec<Effort> {
        vec![Effort {
            steps: 1,
            restarts: 1,
        }]
    }

    fn search<T: Scalar>(
        &self,
        search: &mut Search<'_, T>,
        start: Array2<T>,
    ) -> relugrad::Result<()> {
        Pgd {}.search(search, start)
    }
}
