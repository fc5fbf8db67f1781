//! What a product needs beside its factors and its result.

use super::active_columns::ActiveColumns;
use super::convolution::Taps;
use super::masked_outer::Units;
use super::panels::Aligned;

/// Buffers of products, which each thread keeps from one to the next.
#[derive(Clone, Debug, Default)]
pub(super) struct Scratch<T> {
    pub(super) panels: Aligned<T>,
    pub(super) sums: Aligned<T>,
    pub(super) lists: ActiveColumns<T>,
    pub(super) units: Units<T>,
    pub(super) taps: Taps,
}
