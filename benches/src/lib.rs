//! What the benchmarks share: problems of several sizes, objectives, the frugal baseline, and
//! interleaved times.
//!
//! | file | question |
//! | --- | --- |
//! | `benches/jacobian.rs` | what does the exact Jacobian cost beside forward and central differences? |
//! | `benches/penalty_step.rs` | what does a training step cost with each penalty, and with all at once? |
//! | `examples/errors.rs` | how wrong are finite differences, and how slow, in one run? |
//! | `examples/target.rs` | do all Gram penalties together cost at most 1.25 times the dearest alone? |

mod differences;
mod objectives;
mod problem;
mod timing;

pub use differences::{forward_jacobian, relative_error};
pub use objectives::{gram_penalties, objective, step_penalties, together};
pub use problem::{Problem, SIZES, SMALL, Size};
pub use timing::{digits, interleaved, median, readable};
