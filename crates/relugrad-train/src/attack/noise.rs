//! Random points: what every attack must beat.

use ndarray::Array2;
use relugrad::Scalar;
use serde::{Deserialize, Serialize};

use super::{Attack, AttackOptions, Effort, Norm, Search};
use crate::error::Result;

/// Random points of the ball, as many as restarts, without any step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Noise {}

impl Attack for Noise {
    const NAME: &'static str = "noise";
    const TITLE: &'static str = "noise";
    const MEANING: &'static str = "random points";

    fn options(&self, norm: Norm, epsilon: f64, _: usize, restarts: usize) -> AttackOptions {
        AttackOptions {
            step_size: 0.0,
            ..AttackOptions::plain(norm, epsilon, 0, restarts)
        }
    }

    fn check(&self, _: &AttackOptions) -> Result<()> {
        Ok(())
    }

    fn efforts(&self, plain: Effort, _: Effort) -> Vec<Effort> {
        vec![Effort { steps: 0, ..plain }]
    }

    fn search<T: Scalar>(
        &self,
        search: &mut Search<'_, T>,
        start: Array2<T>,
    ) -> relugrad::Result<()> {
        search.keep(&start)
    }
}
