//! Networks that compute the same by other operations.

mod batch_norm;
mod max;
