#![doc = include_str!("../README.md")]
#![warn(clippy::wildcard_enum_match_arm)]
//!
//! # Vocabulary
//!
//! Arrays are row-major. `B` is the number of samples of a batch, `D` of inputs, `K` of logits, `R`
//! of rows that a sweep carries for each sample.
//!
//! | term | meaning |
//! | --- | --- |
//! | logits `f` | outputs of the network, before any softmax; `[B, K]` |
//! | pre-activation `z`, activation `a` | what a gate takes and gives |
//! | activation pattern | one bit per gate: whether `z > 0` |
//! | activation region | the inputs that share a pattern: a convex polyhedron on which `f` is affine |
//! | Jacobian `J` | `∂f/∂x`; `[B, K, D]`; Gram matrix `G = J Jᵀ`; `[B, K, K]` |
//! | tangent, JVP | `J v`, carried forward; cotangent, VJP: `Jᵀ u`, carried backward |
//! | residual `r`, logit Hessian `S` | first and second derivative of the loss with respect to the logits |
//! | input gradient `g = Jᵀ r`, curvature `H = Jᵀ S J` | first and second derivative of the loss with respect to the input |
//!
//! # Conventions
//!
//! A unit is active iff its pre-activation is positive, so ReLU'(0) = 0; a leaky gate has its
//! inactive slope at 0. Samples with a pre-activation exactly at 0 are counted ([`Trace::kinks`]).
//! Derivatives are exact everywhere else, up to rounding. Penalties are means over the batch of
//! unscaled per-sample values. NaN, infinity and overflow are errors, never results.
//!
//! Sums have a fixed order: equal inputs give equal bits for any number of threads. Work is done in
//! the current [rayon] thread pool.
//!
//! # Map
//!
//! - A [`Network`] is made by a [`Builder`] or an [`Mlp`].
//! - [`Network::trace`] runs a batch; a [`Trace`] answers for logits, [`ActivationPattern`],
//!   Jacobian, JVP, VJP, Gram matrix, input gradient, and [`Curvature`].
//! - The Jacobian and the [`Curvature`] are [`LinearOperator`]s too, for iterative solvers.
//! - [`Cotangents`] and [`Tangents`] are the sweeps under it all, for derivatives of one's own.
//! - An [`Objective`] is a [`Loss`] with weighted [`Penalty`]s: values and exact parameter
//!   gradients.
//! - A [`Pass`] gives logits, Gram matrices, Jacobians and VJPs, and takes derivatives with respect
//!   to them: what a host with automatic differentiation of its own, such as PyTorch, needs.
//! - A [`Region`] is the polyhedron around a sample on which the network is affine: its map,
//!   hyperplanes, distances. A [`Walk`] passes along a segment from region to region;
//!   [`Network::slice`] finds all regions in a plane.
//! - [`Network::pieces`] collects a walk; [`gradient_change`] splits a finite difference of
//!   gradients into smooth part and kinks, and [`FiniteDifference::audit`] tells what any finite
//!   difference straddled.
//! - [`FiniteDifference`] estimates the same numbers independently.
//!
//! Every formula is proved in [theory](crate::theory).

// Whoever calls decides what is shown, and where.
#![cfg_attr(not(test), deny(clippy::print_stderr, clippy::print_stdout))]

mod audit;
#[cfg(doc)]
#[doc = include_str!("../theory.md")]
#[allow(rustdoc::broken_intra_doc_links)]
pub mod theory {}

mod buffer;
mod curvature;
mod eigen;
mod error;
mod finite_difference;
mod formula_error;
mod gram;
mod jacobian;
mod linalg;
pub mod loss;
mod network;
mod norm;
mod objective;
mod operator;
mod parallel;
mod parameters;
mod pattern;
pub mod penalty;
mod product;
mod region;
mod scalar;
mod squares;
mod sweep;
mod trace;
mod tuning;

pub use audit::Audit;
pub use curvature::{Curvature, Eigenpairs};
pub use error::{Error, Result};
pub use finite_difference::{FiniteDifference, Scheme};
pub use jacobian::{JacobianBlock, JacobianOperator, SWEEP_MEMORY};
pub use loss::{Loss, Targets};
/// Inputs, Jacobians and gradients are arrays of this version of `ndarray`.
pub use ndarray;
pub use network::{
    ArraySpec, BatchNorm, Builder, Constant, Gate, Initialization, MAX_WIDTH, Mlp, Network, Node,
    NodeId, NodeSpec, Operation, Window,
};
pub use norm::Norm;
pub use objective::{Evaluation, Objective, Pass, Stage, SweepStrategy, Term, Workspace};
pub use operator::LinearOperator;
pub use parallel::GoOn;
pub use parameters::{ParameterInfo, Parameters};
pub use pattern::ActivationPattern;
pub use penalty::{Ball, Direction, Hinge, Penalty};
pub use region::{
    Cell, Crossing, Edge, GradientChange, Hyperplane, Jump, Kink, KinkDistances, Margins, NearKink,
    PathSums, Piece, Plane, Polygon, Region, Rival, Slice, Walk, gradient_change,
};
pub use scalar::Scalar;
pub use sweep::{Cotangents, Seeds, Tangents};
pub use trace::Trace;
