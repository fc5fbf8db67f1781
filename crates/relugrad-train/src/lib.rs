#![doc = include_str!("../README.md")]
//!
//! # Map
//!
//! - [`data`]: validated data sets: the embedded digits, files of many kinds, stratified splits, augmentation.
//! - [`train`]: mini-batches, the exact gradient of an [`Objective`](relugrad::Objective), an [`Optimizer`], metrics.
//! - [`Configuration`]: all options of a training as a TOML file; [`experiment`]: a training in a folder, with checkpoints
//!   and logs, that survives being killed.
//! - [`attack`]: adversarial perturbations; [`evaluate`]: accuracy, robust accuracy, means of penalties;
//!   [`robustness`]: all attacks, certificates and masked gradients of a network.
//! - [`regions`]: how many regions data lie in, how far their walls are, what lies between samples.
//! - [`verify`](verify::verify): the theorems on a network and samples.
//! - [`compare`]: the same network trained with each regularizer.
//!
//! Long work asks a [`GoOn`](relugrad::GoOn) of its caller whether to go on; `…_while` is what also takes one.
//! Everything is reproducible to the last bit from its seeds, for any number of threads. Nothing is printed.

// Whoever calls decides what is shown, and where.
#![cfg_attr(not(test), deny(clippy::print_stderr, clippy::print_stdout))]

mod architecture;
pub mod attack;
mod both;
pub mod compare;
mod configuration;
pub mod data;
mod error;
pub mod evaluate;
pub mod experiment;
pub mod optimizer;
mod prediction;
pub mod regions;
pub mod robustness;
mod samples;
mod schedule;
mod spec;
mod stop;
mod training;
pub mod verify;

pub use architecture::Architecture;
pub use configuration::{
    Change, Configuration, OptionSetting, Parts, PenaltySettings, Precision, set_key,
};
pub use error::{Error, Result};
pub use optimizer::{Adam, AdamW, AnyOptimizer, OPTIMIZERS, Optimizer, OptimizerState, Sgd};
pub use schedule::{Curve, Ramp, RampCurve, Schedule};
pub use spec::{OptionInfo, Range, Spec};
pub use training::{
    Advance, Adversarial, Divergence, EarlyStopping, EpochReport, History, Metric, StepReport,
    Trainer, Training, Watch, train,
};
