//! Labelled images in `[0, 1]`: the built-in digits, or your own.

mod dataset;
mod digits;

pub use dataset::Dataset;
pub use digits::digits;
