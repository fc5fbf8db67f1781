//! relugrad-train
//!
//! - [`data`]: labelled images.

pub mod compare;
pub mod data;
mod error;

pub use error::{Error, Result};
