//! Labelled images in `[0, 1]`.

mod dataset;

pub use dataset::Dataset;
