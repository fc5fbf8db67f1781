//! The same network trained with each regularizer from the same initialisation, and evaluated.

mod merge;
mod run;

pub use crate::comparison::{
    Certified, Comparison, Diverged, Measured, Measures, PenaltyMean, Run, Settings, ShownAttack,
};
pub use crate::shard::{Compared, Part, Shard, Share};
pub use merge::{MergeError, Merged, MissingShard, ShardResults, merge};
pub use run::{ADVERSARIAL, PLAIN, Plan, Variant, compare};
