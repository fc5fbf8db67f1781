//! Lists of what is not zero in the left factor of a product.

use std::ops::Range;

use crate::scalar::Scalar;

/// Rows in groups, and for each group the columns that are not zero in one of its rows, with their entries.
///
/// A list is cut into passes of equally many columns, so that what they select of the right factor stays in the first
/// cache.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lists<T> {
    /// Columns of a pass, and passes of each list.
    pass: usize,
    passes: usize,
    /// Where each pass of each list starts, and where the last ends.
    starts: Vec<usize>,
    columns: Vec<u32>,
    /// As many entries as a group has rows for each column.
    entries: Vec<T>,
    /// Which columns of the present group are not zero.
    found: Vec<bool>,
    /// Some columns of the left factor, as rows.
    transposed: Vec<T>,
}

/// Columns that are transposed at a time, and rows: for the sake of the cache.
const BLOCK: usize = 32;

impl<T: Scalar> Lists<T> {
    fn start(&mut self, columns: usize, pass: usize) {
        self.pass = pass.min(columns);
        self.passes = columns.div_ceil(pass);
        self.starts.clear();
        self.columns.clear();
        self.entries.clear();
        self.starts.push(0);
    }

    /// The lists of `a: [samples, rows, columns]` in groups of `size` rows.
    pub(super) fn fill(
        &mut self,
        a: &[T],
        (rows, columns): (usize, usize),
        size: usize,
        pass: usize,
    ) {
        debug_assert!(size == 1 || pass == columns);
        self.start(columns, pass);
        for sample in a.chunks_exact(rows * columns) {
            for group in sample.chunks(size * columns) {
                if size == 1 {
                    self.push_row(group);
                } else {
                    self.push(group, columns, size);
                }
            }
        }
    }

    /// The lists of `α Aᵀ`, of the columns `units` of `a: [depth, m]`.
    pub(super) fn fill_transposed(
        &mut self,
        alpha: T,
        a: &[T],
        m: usize,
        units: Range<usize>,
        pass: usize,
    ) {
        let depth = a.len() / m;
        self.start(depth, pass);
        let mut transposed = std::mem::take(&mut self.transposed);
        transposed.resize(BLOCK * depth, T::ZERO);
        for start in units.clone().step_by(BLOCK) {
            let width = BLOCK.min(units.end - start);
            for (block, rows) in a.chunks(BLOCK * m).enumerate() {
                for (i, row) in rows.chunks_exact(m).enumerate() {
                    let to = transposed[block * BLOCK + i..].iter_mut().step_by(depth);
                    for (to, &entry) in to.zip(&row[start..start + width]) {
                        *to = alpha * entry;
                    }
                }
            }
            for unit in transposed.chunks_exact(depth).take(width) {
                self.push_row(unit);
            }
        }
        self.transposed = transposed;
    }

    /// Adds a group of one row.
    fn push_row(&mut self, row: &[T]) {
        let mut end = self.starts.last().map_or(0, |&end| end);
        if self.columns.len() < end + row.len() {
            self.columns.resize(end + row.len(), 0);
            self.entries.resize(end + row.len(), T::ZERO);
        }
        for (pass, part) in row.chunks(self.pass).enumerate() {
            let columns = &mut self.columns[end..end + part.len()];
            let entries = &mut self.entries[end..end + part.len()];
            let (mut count, mut column) = (0, (pass * self.pass) as u32);
            for &entry in part {
                columns[count] = column;
                entries[count] = entry;
                count += usize::from(entry != T::ZERO);
                column += 1;
            }
            end += count;
            self.starts.push(end);
        }
    }

    /// Adds a group of `size` rows, of which the last may be missing.
    fn push(&mut self, group: &[T], columns: usize, size: usize) {
        let start = self.columns.len();
        let rows = group.chunks_exact(columns);
        find(rows, columns, &mut self.found, &mut self.columns);
        let end = self.columns.len();
        self.starts.push(end);
        let first = self.entries.len();
        self.entries.resize(first + (end - start) * size, T::ZERO);
        for (i, row) in group.chunks_exact(columns).enumerate() {
            let to = self.entries[first..].chunks_exact_mut(size);
            for (to, &column) in to.zip(&self.columns[start..end]) {
                to[i] = row[column as usize];
            }
        }
    }

    /// Passes of each list.
    pub(super) fn passes(&self) -> usize {
        self.passes
    }

    /// Number of groups.
    pub(super) fn groups(&self) -> usize {
        (self.starts.len() - 1) / self.passes
    }

    /// The columns of a pass of a group of `R` rows, with their entries.
    #[inline(always)]
    pub(super) fn list<const R: usize>(&self, group: usize, pass: usize) -> (&[u32], &[[T; R]]) {
        let i = group * self.passes + pass;
        let list = self.starts[i]..self.starts[i + 1];
        let entries = &self.entries[list.start * R..list.end * R];
        (&self.columns[list], entries.as_chunks::<R>().0)
    }
}

/// Appends the columns that are not zero in one of some rows of length `columns`, in order.
pub(super) fn find<'a, T: Scalar>(
    rows: impl Iterator<Item = &'a [T]>,
    columns: usize,
    found: &mut Vec<bool>,
    to: &mut Vec<u32>,
) {
    found.clear();
    found.resize(columns, false);
    for row in rows {
        let pairs = found.iter_mut().zip(row);
        pairs.for_each(|(found, &entry)| *found |= entry != T::ZERO);
    }
    let mut end = to.len();
    to.resize(end + columns, 0);
    for (column, &found) in found.iter().enumerate() {
        to[end] = column as u32;
        end += usize::from(found);
    }
    to.truncate(end);
}
