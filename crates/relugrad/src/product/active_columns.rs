//! Lists of what is not zero in the left factor of a product.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::lhs::MaskedLhs;
use crate::scalar::Scalar;

/// Rows in groups, and the columns that are not zero in one of the rows of a sample, with their
/// entries in each group.
///
/// A list is cut into passes of equally many columns, so that what they select of the right factor
/// stays in the first cache.
#[derive(Clone, Debug, Default)]
pub(crate) struct ActiveColumns<T> {
    /// Columns of a pass, and passes of each list.
    pass: usize,
    passes: usize,
    /// Groups that share a list.
    shared: usize,
    /// Where each pass of each list starts, and where the last ends.
    starts: Vec<usize>,
    columns: Vec<u32>,
    /// For each pass of a list and each of its groups, as many entries as a group has rows for each
    /// column.
    entries: Vec<T>,
    /// Which columns of the present sample are not zero.
    found: Vec<bool>,
    /// Some columns of the left factor, as rows.
    transposed: Vec<T>,
}

/// Columns that are transposed at a time, and rows: for the sake of the cache.
const BLOCK: usize = 32;

impl<T: Scalar> ActiveColumns<T> {
    fn start(&mut self, columns: usize, pass: usize, shared: usize) {
        self.shared = shared;
        self.pass = pass.min(columns);
        self.passes = columns.div_ceil(pass);
        self.starts.clear();
        self.columns.clear();
        self.entries.clear();
        self.starts.push(0);
    }

    /// The lists of some samples of `A` in groups of `size` rows.
    pub(super) fn fill(
        &mut self,
        a: &MaskedLhs<T>,
        samples: Range<usize>,
        size: usize,
        pass: usize,
    ) {
        if size == 1 && a.is_unknown() {
            self.start(a.columns, pass, 1);
            let rows = samples.flat_map(|sample| a.sample(sample).chunks_exact(a.columns));
            return rows.for_each(|row| self.push_row(row));
        }
        self.start(a.columns, pass, a.rows.div_ceil(size));
        samples.for_each(|sample| self.push(a, sample, size));
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
        self.start(depth, pass, 1);
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

    /// Adds the rows of a sample in groups of `size`, of which the last may be smaller.
    fn push(&mut self, a: &MaskedLhs<T>, sample: usize, size: usize) {
        let mut start = self.columns.len();
        let columns = a.columns;
        a.list(sample, 0..columns, &mut self.found, &mut self.columns);
        for pass in 1..=self.passes {
            let before = |&column: &u32| (column as usize) < pass * self.pass;
            let end = start + self.columns[start..].partition_point(before);
            self.starts.push(end);
            let listed = &self.columns[start..end];
            for group in a.sample(sample).chunks(size * columns) {
                with_constant!(size, R in [1, 2, 3, 4, 5, 6; 10] => {
                    gather::<T, R>(group, columns, listed, &mut self.entries);
                });
            }
            start = end;
        }
    }

    /// Passes of each list.
    pub(super) fn passes(&self) -> usize {
        self.passes
    }

    /// The pass that a column belongs to.
    pub(super) fn pass_of(&self, column: usize) -> usize {
        column / self.pass
    }

    /// Number of groups.
    pub(super) fn groups(&self) -> usize {
        (self.starts.len() - 1) / self.passes * self.shared
    }

    /// The columns of a pass of a group of `R` rows, with their entries.
    #[inline(always)]
    pub(super) fn list<const R: usize>(&self, group: usize, pass: usize) -> (&[u32], &[[T; R]]) {
        let i = group / self.shared * self.passes + pass;
        let list = self.starts[i]..self.starts[i + 1];
        let first = list.start * self.shared + group % self.shared * list.len();
        let entries = &self.entries[first * R..(first + list.len()) * R];
        (&self.columns[list], entries.as_chunks::<R>().0)
    }
}

/// Appends the listed columns of a group of at most `R` rows; those of missing rows are 0.
fn gather<T: Scalar, const R: usize>(
    group: &[T],
    columns: usize,
    listed: &[u32],
    entries: &mut Vec<T>,
) {
    let first = entries.len();
    entries.resize(first + listed.len() * R, T::ZERO);
    let (to, _) = entries[first..].as_chunks_mut::<R>();
    if group.len() == R * columns {
        let rows: [&[T]; R] = std::array::from_fn(|r| &group[r * columns..(r + 1) * columns]);
        for (to, &column) in to.iter_mut().zip(listed) {
            *to = rows.map(|row| row[column as usize]);
        }
        return;
    }
    for (r, row) in group.chunks_exact(columns).enumerate() {
        for (to, &column) in to.iter_mut().zip(listed) {
            to[r] = row[column as usize];
        }
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
    Arch::new().dispatch(Mark { rows, found });
    let mut end = to.len();
    to.resize(end + columns, 0);
    for (column, &found) in found.iter().enumerate() {
        to[end] = column as u32;
        end += usize::from(found);
    }
    to.truncate(end);
}

/// Marks the columns that are not zero in some rows.
struct Mark<'f, I> {
    rows: I,
    found: &'f mut [bool],
}

impl<'a, T: Scalar, I: Iterator<Item = &'a [T]>> WithSimd for Mark<'_, I> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for row in self.rows {
            let pairs = self.found.iter_mut().zip(row);
            pairs.for_each(|(found, &entry)| *found |= entry != T::ZERO);
        }
    }
}
