//! Training: options, the loop step by step, and what it reports.

mod checkpoint;
mod options;
mod report;
mod trainer;

pub(crate) use checkpoint::{State, fingerprint};
pub use options::{Adversarial, EarlyStopping, Metric, Training};
pub use report::{Advance, Divergence, EpochReport, History, StepReport, Watch};
pub use trainer::{Trainer, train};
pub(crate) use trainer::{is_over, train_while};
