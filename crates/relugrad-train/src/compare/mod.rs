//! The same network trained with each regularizer from the same initialisation, and evaluated.

mod results;

pub use results::{
    AttackSettings, Comparison, EpochMetrics, Evaluation, PenaltyMean, Run, Settings,
};
