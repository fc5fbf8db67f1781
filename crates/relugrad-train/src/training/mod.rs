//! The training loop step by step, and its checkpoints.

mod checkpoint;
mod trainer;

pub(crate) use checkpoint::State;
pub use trainer::{Trainer, train};
pub(crate) use trainer::{is_over, train_while};
