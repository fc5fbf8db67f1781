//! The activation regions of a network around data: how many there are, how far their walls, what
//! lies between samples.

mod cure;
mod profile;
mod survey;

pub use crate::statistics::Quantiles;
pub use cure::CureParts;
pub use profile::{Jump, Profile, Stretch, profile};
pub use survey::{Distances, Pairs, Report, Survey, survey};
