//! The same network trained with each regularizer from the same initialisation, and evaluated.

mod run;

pub use crate::comparison::{
    Certified, Comparison, Diverged, Measured, Measures, PenaltyMean, Run, Settings, ShownAttack,
};
pub use run::{ADVERSARIAL, PLAIN, Plan, Variant, compare};
