//! `C = A B` where all rows of a sample in `A` have the same zero columns, as behind a ReLU.
//!
//! The rows of a sample are taken in groups of up to six, or ten at a time. Of each group the
//! columns that are not zero are listed with their entries; the kernel adds up the rows of `B` that
//! the list selects, of which a panel's part stays in the cache for all samples, and keeps the sums
//! in registers. Every entry of `C` sums pass by pass in the order of the columns of `A`, so its
//! bits depend on nothing but `A` and `B`.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::active_columns::ActiveColumns;
use super::lanes::{Lanes, MOST_LANES, lanes, registers};
use super::lhs::MaskedLhs;
use super::panels::{Rhs, pack, pack_here};
use super::scratch::Scratch;
use crate::buffer::Kept;
use crate::parallel::{for_each_chunk, pieces};
use crate::tuning::{GROUP_PASS, LISTED, PASS};

/// The most rows in a group, but for those of [`TEN`].
const MOST_ROWS: usize = 6;

/// With 32 registers a group of so many rows reads the panel and the lists less often, if there are
/// many columns.
const TEN: usize = 10;

/// Sums that a processor can work on at once: two multiply-adds begin in every cycle and each takes
/// four.
const AT_ONCE: usize = 8;

/// The most vectors in a panel's width: as many as the registers hold sums of a group, for a single
/// row as many as can be worked on at once.
fn most_vectors(size: usize) -> usize {
    match (size, registers()) {
        (1, ..32) => AT_ONCE,
        (..=2, _) | (..=MOST_ROWS, 32..) => 4,
        (3, _) => 3,
        _ => 2,
    }
}

/// Rows in a group: the number that takes the least time, in which rows that fill up the last group
/// count, and sums that are fewer than the processor can work on at once count as so many.
fn group_size(rows: usize, columns: usize) -> usize {
    if rows.is_multiple_of(TEN) && columns >= GROUP_PASS && registers() >= 32 {
        return TEN;
    }
    let time = |size: usize| {
        let vectors = most_vectors(size);
        rows.div_ceil(size) * (size * vectors).max(AT_ONCE) / vectors
    };
    // A group of one reads the panel for every row.
    let sizes = (2..=MOST_ROWS.min(rows)).rev();
    sizes.min_by_key(|&size| time(size)).unwrap_or(1)
}

/// How a product is cut up.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// Rows in a group.
    size: usize,
    /// Vectors in a panel's width: the most for such a group, but no more than `B` is wide.
    vectors: usize,
}

impl Cut {
    /// For `rows` rows of a sample and a right factor `[m, k]`.
    fn of<T: Lanes>(rows: usize, m: usize, k: usize) -> Cut {
        let size = group_size(rows, m);
        let needed = k.div_ceil(lanes::<T>()).next_power_of_two();
        Cut {
            size,
            vectors: needed.min(most_vectors(size)),
        }
    }

    fn width<T: Lanes>(self) -> usize {
        self.vectors * lanes::<T>()
    }

    /// Columns of a pass: what it goes through of a panel stays in the first cache, beside the
    /// lists. Each vector serves every row of a group, so a single row needs them nearest, and a
    /// few rows bear a panel of many vectors.
    fn pass<T: Lanes>(self) -> usize {
        if self.size > 1 {
            return GROUP_PASS;
        }
        PASS / (self.width::<T>() * size_of::<T>())
    }
}

/// `C ← A B`, or `C ← A B + C` if `accumulate`; `a: [samples, rows, m]`, `b: [m, k]`,
/// `c: [samples, rows, k]`. Of a lower triangle the zeros above the diagonal are left out.
pub(super) fn masked_gemm<T: Lanes>(
    a: MaskedLhs<T>,
    k: usize,
    b: Rhs<T>,
    accumulate: bool,
    c: &mut [T],
) {
    let (rows, m) = (a.rows, a.columns);
    let cut = Cut::of::<T>(rows, m, k);
    let mut scratch = Kept::<Scratch<T>>::take();
    let panels = pack(b, m, cut.width::<T>(), &mut scratch.panels);
    let chunk = chunk(a.samples, rows * m * size_of::<T>());
    let operations = c.len() * m;
    for_each_chunk(c, chunk * rows * k, operations, |i, c| {
        let samples = i * chunk..i * chunk + c.len() / (rows * k);
        let mut own = Kept::<Scratch<T>>::take();
        own.lists.fill(&a, samples, cut.size, cut.pass::<T>());
        Product {
            lists: &own.lists,
            panels,
            shape: (rows, m, k),
            cut,
            lower: None,
            triangular: matches!(b, Rhs::Lower(_)),
            accumulate,
            c,
        }
        .run();
    });
}

/// Samples of a chunk: few enough that their lists stay in the second cache, if each has so many
/// `bytes`, and as many in each chunk that all threads end together.
fn chunk(samples: usize, bytes: usize) -> usize {
    let near = (LISTED / bytes).max(1);
    let pieces = pieces(samples);
    samples.div_ceil(samples.div_ceil(near).next_multiple_of(pieces))
}

/// The same for a single row with few entries that are not zero: not worth packing `B`.
pub(super) fn masked_row<T: Lanes>(a: &[T], b: Rhs<T>, accumulate: bool, c: &mut [T]) {
    if !accumulate {
        c.fill(T::ZERO);
    }
    let found = a.iter().enumerate().filter(|(_, a)| **a != T::ZERO);
    match b {
        Rhs::Plain(b) | Rhs::Lower(b) => {
            for (l, &a) in found {
                let row = &b[l * c.len()..(l + 1) * c.len()];
                c.iter_mut().zip(row).for_each(|(c, &b)| *c += a * b);
            }
        }
        Rhs::Transposed(b) => {
            let found: Vec<(usize, T)> = found.map(|(l, &a)| (l, a)).collect();
            for (c, row) in c.iter_mut().zip(b.chunks_exact(a.len())) {
                found.iter().for_each(|&(l, a)| *c += a * row[l]);
            }
        }
    }
}

/// [`mix_rows`](super::mix_rows).
pub(super) fn mix_rows<T: Lanes>(rows: usize, k: usize, m: &[T], c: &mut [T]) {
    let cut = Cut::of::<T>(rows, rows, k);
    let mut own = Kept::<Scratch<T>>::take();
    let Scratch { panels, lists, .. } = &mut *own;
    let panels = pack_here(Rhs::Plain(c), rows, cut.width::<T>(), panels);
    lists.fill(
        &MaskedLhs::of(m, rows, rows),
        0..1,
        cut.size,
        cut.pass::<T>(),
    );
    Product {
        lists,
        panels,
        shape: (rows, rows, k),
        cut,
        lower: None,
        triangular: false,
        accumulate: false,
        c,
    }
    .run();
}

/// Sums along the lists of the columns of `A`: `C ← α Aᵀ B + C`; `a: [depth, m]`, `b: [depth, k]`,
/// `c: [m, k]`; if `lower`, at least what is on and below the diagonal.
pub(super) fn sums<T: Lanes>(
    (m, k): (usize, usize),
    alpha: T,
    a: &[T],
    b: &[T],
    lower: bool,
    c: &mut [T],
) {
    let depth = a.len() / m;
    let mut scratch = Kept::<Scratch<T>>::take();
    let cut = Cut::of::<T>(1, depth, k);
    let panels = pack(Rhs::Plain(b), depth, cut.width::<T>(), &mut scratch.panels);
    let chunk = m.div_ceil(pieces(m));
    let operations = c.len() * depth;
    for_each_chunk(c, chunk * k, operations, |i, c| {
        let units = i * chunk..i * chunk + c.len() / k;
        let mut own = Kept::<Scratch<T>>::take();
        let pass = cut.pass::<T>();
        own.lists.fill_transposed(alpha, a, m, units.clone(), pass);
        Product {
            lists: &own.lists,
            panels,
            shape: (1, depth, k),
            cut,
            lower: lower.then_some(units.start),
            triangular: false,
            accumulate: true,
            c,
        }
        .run();
    });
}

/// The product of some groups of rows.
struct Product<'a, T> {
    lists: &'a ActiveColumns<T>,
    panels: &'a [T],
    shape: (usize, usize, usize),
    cut: Cut,
    /// If only what is on and below the diagonal is wanted: which row of `C` is the first here.
    lower: Option<usize>,
    /// Whether `B` is 0 above its diagonal.
    triangular: bool,
    accumulate: bool,
    c: &'a mut [T],
}

impl<T: Lanes> Product<'_, T> {
    /// Computes it, with a function of its own for each size of a group and each width of a panel.
    fn run(self) {
        match self.cut.vectors {
            1 => self.wide::<1>(),
            2 => self.wide::<2>(),
            // Only groups of three have panels of three vectors.
            3 => Arch::new().dispatch(Sized::<T, 3, 3>(self)),
            // Only single rows have panels of eight.
            AT_ONCE => Arch::new().dispatch(Sized::<T, 1, AT_ONCE>(self)),
            _ => self.wide::<4>(),
        }
    }

    fn wide<const V: usize>(self) {
        with_constant!(self.cut.size, R in [1, 2, 3, 4, 5, 6; TEN] => {
            Arch::new().dispatch(Sized::<T, R, V>(self));
        });
    }

    /// The product in groups of `R` rows and panels of `V` vectors.
    #[inline(always)]
    fn sized<S: Simd, const R: usize, const V: usize>(&mut self, simd: S) {
        let ((_, m, k), width) = (self.shape, V * T::lanes::<S>());
        for (p, panel) in self.panels.chunks_exact(m * width).enumerate() {
            let columns = p * width..k.min((p + 1) * width);
            let above = self
                .lower
                .map_or(0, |first| columns.start.saturating_sub(first));
            let least = if self.triangular { columns.start } else { 0 };
            let first = self.lists.pass_of(least);
            for pass in first..self.lists.passes() {
                for group in above..self.lists.groups() {
                    let (mut listed, mut entries) = self.lists.list::<R>(group, pass);
                    if self.triangular && pass == first {
                        let zeros = listed.partition_point(|&l| (l as usize) < least);
                        (listed, entries) = (&listed[zeros..], &entries[zeros..]);
                    }
                    let sums = sum::<T, S, R, V>(simd, listed, entries, panel);
                    let accumulate = self.accumulate || pass > first;
                    self.store(simd, &sums, group, columns.clone(), accumulate);
                }
            }
        }
    }

    #[inline(always)]
    fn store<S: Simd, const R: usize, const V: usize>(
        &mut self,
        simd: S,
        sums: &[[T::Vector<S>; V]; R],
        group: usize,
        columns: Range<usize>,
        accumulate: bool,
    ) {
        let (rows, _, k) = self.shape;
        let groups = rows.div_ceil(R);
        let (sample, first) = (group / groups, group % groups * R);
        for (r, sums) in sums.iter().enumerate().take(rows - first) {
            let start = (sample * rows + first + r) * k;
            let to = &mut self.c[start + columns.start..start + columns.end];
            write(simd, sums, accumulate, to);
        }
    }
}

/// Writes sums to a part of a row, or adds them to it; the part may be shorter than they are.
#[inline(always)]
pub(super) fn write<T: Lanes, S: Simd, const V: usize>(
    simd: S,
    sums: &[T::Vector<S>; V],
    accumulate: bool,
    to: &mut [T],
) {
    if to.len() == V * T::lanes::<S>() {
        for (to, &sum) in T::vectors_mut::<S>(to).iter_mut().zip(sums) {
            *to = if accumulate {
                T::plus(simd, *to, sum)
            } else {
                sum
            };
        }
        return;
    }
    let mut buffer = [T::ZERO; 8 * MOST_LANES];
    let vectors = T::vectors_mut::<S>(&mut buffer);
    vectors
        .iter_mut()
        .zip(sums)
        .for_each(|(to, &sum)| *to = sum);
    for (to, &sum) in to.iter_mut().zip(&buffer) {
        *to = if accumulate { *to + sum } else { sum };
    }
}

/// A product in groups of `R` rows and panels of `V` vectors.
struct Sized<'a, T, const R: usize, const V: usize>(Product<'a, T>);

impl<T: Lanes, const R: usize, const V: usize> WithSimd for Sized<'_, T, R, V> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        self.0.sized::<S, R, V>(simd);
    }
}

/// The sums of the rows of a panel that a list selects, for `R` rows of entries.
#[inline(always)]
fn sum<T: Lanes, S: Simd, const R: usize, const V: usize>(
    simd: S,
    columns: &[u32],
    entries: &[[T; R]],
    panel: &[T],
) -> [[T::Vector<S>; V]; R] {
    let mut sums = [[T::splat(simd, T::ZERO); V]; R];
    let (panel, _) = T::vectors::<S>(panel).as_chunks::<V>();
    for (&column, entries) in columns.iter().zip(entries) {
        // A panic here would keep the sums out of the registers; columns are always in range.
        let Some(b) = panel.get(column as usize) else {
            break;
        };
        for r in 0..R {
            let a = T::splat(simd, entries[r]);
            for v in 0..V {
                sums[r][v] = T::multiply_add(simd, a, b[v], sums[r][v]);
            }
        }
    }
    sums
}
