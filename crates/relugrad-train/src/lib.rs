//! relugrad-train
//!
//! - [`data`]: labelled images and their splits into training and test samples.

pub mod compare;
pub mod data;
mod error;

pub use error::{Error, Result};
