//! What a product needs beside its factors and its result.

use super::convolution::Taps;
use super::lists::Lists;
use super::panels::Aligned;
use super::sparse_sum::Units;

/// Buffers of products, which each thread keeps from one to the next.
#[derive(Clone, Debug, Default)]
pub(super) struct Scratch<T> {
    pub(super) panels: Aligned<T>,
    pub(super) sums: Aligned<T>,
    pub(super) lists: Lists<T>,
    pub(super) units: Units<T>,
    pub(super) taps: Taps,
    pub(super) places: Vec<u32>,
}
