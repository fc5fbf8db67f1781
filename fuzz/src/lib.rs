#![doc = include_str!("../README.md")]

mod campaign;
mod corpus;
mod format;
mod message;
mod mutation;
mod reading;

pub use campaign::{Finding, Report, mutated, run};
pub use corpus::{Seed, seeds};
pub use format::Format;
