//! The same network trained with each regularizer from the same initialisation, and evaluated.

mod merge;
mod run;
mod shard;

pub use crate::comparison::{
    Certified, Comparison, Diverged, Measured, Measures, PenaltyMean, Run, Settings, ShownAttack,
};
pub use merge::{MergeError, Merged, MissingShard, ShardResults, merge};
pub use run::{ADVERSARIAL, PLAIN, Plan, Variant, compare};
pub use shard::{Compared, Part, Shard, Share};
