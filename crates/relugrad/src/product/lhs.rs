//! The left factor of a product: rows of samples, of which gates have closed some columns.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::active_columns::find;
use crate::pattern::{LayerView, WORD};
use crate::scalar::Scalar;

/// The left factor `A: [samples, rows, columns]` of a product; all rows of a sample have the same
/// zero columns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MaskedLhs<'a, T> {
    entries: &'a [T],
    pub(super) samples: usize,
    pub(crate) rows: usize,
    pub(super) columns: usize,
    /// What closes columns, if that is known.
    gates: Option<LayerView<'a>>,
    /// Whether closed columns already hold zeros.
    closed: bool,
}

impl<'a, T: Scalar> MaskedLhs<'a, T> {
    /// Rows whose zeros have to be found; `[samples, rows, columns]`.
    pub(crate) fn of(entries: &'a [T], rows: usize, columns: usize) -> MaskedLhs<'a, T> {
        MaskedLhs {
            entries,
            samples: entries.len() / (rows * columns),
            rows,
            columns,
            gates: None,
            closed: true,
        }
    }

    /// The same rows, whose zeros are the columns that `gates` have closed, if there are gates and
    /// each of them has a column.
    pub(crate) fn masked_by(self, gates: Option<LayerView<'a>>) -> MaskedLhs<'a, T> {
        let gates = gates.filter(|gates| gates.units() == self.columns);
        MaskedLhs { gates, ..self }
    }

    /// Rows of which `gates` are still to close columns; `[samples, rows, columns]`, or the same
    /// `[rows, columns]` for all samples.
    pub(crate) fn before(gates: LayerView<'a>, entries: &'a [T], rows: usize) -> MaskedLhs<'a, T> {
        MaskedLhs {
            entries,
            samples: gates.samples(),
            rows,
            columns: gates.units(),
            gates: Some(gates),
            closed: false,
        }
    }

    /// All entries, if closed columns hold zeros.
    pub(super) fn closed(&self) -> Option<&'a [T]> {
        self.closed.then_some(self.entries)
    }

    /// All entries.
    pub(crate) fn entries(&self) -> &'a [T] {
        self.entries
    }

    /// The rows of a sample; columns that are still to be closed hold anything.
    pub(super) fn sample(&self, sample: usize) -> &'a [T] {
        let length = self.rows * self.columns;
        let shared = self.entries.len() == length;
        let start = if shared { 0 } else { sample * length };
        &self.entries[start..start + length]
    }

    /// Whether the zeros have to be found.
    pub(super) fn is_unknown(&self) -> bool {
        self.gates.is_none()
    }

    /// Appends the columns of a range that are not zero at a sample, counted from its start, in
    /// order; `found` is memory.
    #[inline]
    pub(super) fn list(
        &self,
        sample: usize,
        range: Range<usize>,
        found: &mut Vec<bool>,
        to: &mut Vec<u32>,
    ) {
        let Some(gates) = self.gates else {
            let rows = self.sample(sample).chunks_exact(self.columns);
            let rows = rows.map(|row| &row[range.clone()]);
            return find(rows, range.len(), found, to);
        };
        for word in range.start / WORD..range.end.div_ceil(WORD) {
            let first = word * WORD;
            let mut open = gates.active(sample, word);
            if first < range.start {
                open &= u64::MAX << (range.start - first);
            }
            if range.end < first + WORD {
                open &= (1 << (range.end - first)) - 1;
            }
            while open != 0 {
                to.push((first + open.trailing_zeros() as usize - range.start) as u32);
                open &= open - 1;
            }
        }
    }

    /// The share of all columns of all samples that are not zero; without gates it is that of the
    /// first rows of a few samples.
    pub(super) fn activity(&self) -> f64 {
        if let Some(gates) = self.gates {
            return gates.active_share();
        }
        let step = self.samples.div_ceil(16).max(1);
        let looked_at = || (0..self.samples).step_by(step);
        let first_rows = looked_at().map(|sample| &self.sample(sample)[..self.columns]);
        let nonzero = first_rows.map(|row| Arch::new().dispatch(Nonzero(row)));
        nonzero.sum::<u32>() as f64 / (looked_at().count() * self.columns).max(1) as f64
    }
}

/// Counts the entries that are not 0.
struct Nonzero<'a, T>(&'a [T]);

impl<T: Scalar> WithSimd for Nonzero<'_, T> {
    type Output = u32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> u32 {
        let nonzero = self.0.iter().map(|&entry| u32::from(entry != T::ZERO));
        nonzero.sum()
    }
}
