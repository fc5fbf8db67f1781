//! The activation regions of a network around data: how many there are, how far their walls, what lies between samples.

mod profile;
mod survey;

pub use profile::{Jump, Profile, Stretch, profile};
pub use survey::{CureParts, Distances, Pairs, Quantiles, Report, Survey, survey};
