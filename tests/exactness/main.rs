//! Everything that the engine computes against oracles, identities and differences, on random
//! networks.

mod checker;
mod curvature;
mod determinism;
mod errors;
mod extremes;
mod formulas;
mod gradients;
mod gram_form;
mod layered;
mod operations;
mod pass;
mod precision;
mod routes;
mod scales;
mod sweeps;
mod values;
