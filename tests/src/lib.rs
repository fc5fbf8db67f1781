//! What the tests of the workspace share: oracles, random cases, and tolerances.

pub mod cases;
pub mod golden;
pub mod tolerance;

#[doc = include_str!("../../README.md")]
#[cfg(doctest)]
pub struct Readme;
