#![doc = include_str!("../README.md")]
#![warn(clippy::wildcard_enum_match_arm)]
//!
//! # Map
//!
//! - [`data`]: validated data sets: the embedded digits, files of many kinds, stratified splits,
//!   augmentation.
//! - [`train`]: mini-batches, the exact gradient of an [`Objective`](relugrad::Objective), an
//!   [`Optimizer`], metrics.
//! - [`Configuration`]: all options of a training as a TOML file; [`experiment`]: a training in a
//!   folder, with checkpoints and logs, that survives being killed.
//! - [`attack`]: adversarial perturbations; [`evaluate`]: accuracy, robust accuracy, means of
//!   penalties; [`robustness`]: all attacks, certificates and masked gradients of a network.
//! - [`regions`]: how many regions data lie in, how far their walls are, what lies between samples.
//! - [`verify`](verify::verify): the theorems on a network and samples.
//! - [`compare`]: the same network trained with each regularizer.
//!
//! Long work asks a [`GoOn`](relugrad::GoOn) of its caller whether to go on; `…_while` is what also
//! takes one. Everything is reproducible to the last bit from its seeds, for any number of threads.
//! Nothing is printed.

// Whoever calls decides what is shown, and where.
#![cfg_attr(not(test), deny(clippy::print_stderr, clippy::print_stdout))]

mod architecture;
pub mod attack;
mod both;
mod channels;
pub mod compare;
mod comparison;
mod configuration;
pub mod data;
mod error;
pub mod evaluate;
pub mod experiment;
mod fit;
mod number;
mod observer;
pub mod optimizer;
mod options;
mod prediction;
pub mod regions;
mod report;
pub mod robustness;
mod samples;
mod schedule;
mod score;
mod shard;
mod spec;
mod standardisation;
pub mod statistics;
mod stop;
mod tally;
mod training;
pub mod verify;

pub use architecture::Architecture;
pub use channels::ChannelStatistics;
pub use configuration::{
    Change, Configuration, LossSettings, OptionSetting, Parts, PenaltySettings, Precision, set_key,
};
pub use error::{Error, Result};
pub use fit::{check_inputs, check_penalty, loss_for, outputs_for};
pub use number::{parse_number, parse_numbers};
pub use observer::{Event, Observer};
pub use optimizer::{Adam, AdamW, AnyOptimizer, OPTIMIZERS, Optimizer, OptimizerState, Sgd};
pub use options::{Adversarial, BestBy, EarlyStopping, Training};
pub use report::{Divergence, EpochReport, History, StepOutcome, StepReport};
pub use schedule::{Curve, Ramp, RampCurve, Schedule};
pub use score::{Quality, Score};
pub use spec::{OptionInfo, Range, Spec};
pub use standardisation::{Guess, guess_statistics, standardised};
pub use training::{Trainer, train};
