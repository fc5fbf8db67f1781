//! The same network trained with each regularizer from the same initialisation, and evaluated.

mod results;
mod run;

pub use results::{
    Certified, Comparison, Diverged, EpochMetrics, Evaluation, PenaltyMean, Run, Settings,
    ShownAttack,
};
pub use run::{ADVERSARIAL, Follow, PLAIN, Plan, Variant, compare};
