//! The statements of `docs/theory.md`, one property each, beside a counter-test that breaks a
//! hypothesis.
//!
//! `T1` to `T71` are the numbers there. A counter-test is named `counter_` and the name of its
//! test.

mod centring;
mod certificates;
mod cure;
mod curvature;
mod geometry;
mod gram_table;
mod input_gradient;
mod layered;
mod parameters;
mod region;
mod setting;
mod sweeps;
mod trained;
mod worst_case;
