//! relugrad-train
//!
//! - [`data`]: labelled images, built in or from files, and their splits into training and test samples.

pub mod compare;
pub mod data;
mod error;

pub use error::{Error, Result};
