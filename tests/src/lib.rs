//! What the tests of the workspace share: oracles, random cases, and tolerances.

pub mod cases;
pub mod difference;
pub mod formula;
pub mod geometry;
pub mod golden;
pub mod graph;
pub mod images;
pub mod layered;
pub mod linear;
pub mod loss;
pub mod matrix;
pub mod oracle;
pub mod parameter;
pub mod penalty;
pub mod recipe;
pub mod run;
pub mod segment;
pub mod tolerance;
pub mod written;

#[doc = include_str!("../../README.md")]
#[cfg(doctest)]
pub struct Readme;
