//! `C += α Aᵀ B` where a unit, a column of `A`, is zero in all rows of some samples, as behind a
//! ReLU.
//!
//! Sample after sample, the rows of `C` that belong to active units take up the products of the
//! sample's rows, a few units at a time in registers; the part of `C` that a panel of `B` meets
//! stays in the first cache. Groups that a sample does not fill are filled up with a unit that
//! nobody reads, so that all are computed alike. The samples come in their order, so the bits
//! depend on nothing but `A` and `B`. With few rows to a sample that is more loading and storing
//! than computing, so there the sums run along the list of a unit instead, as in
//! [`masked_gemm`](super::masked_gemm).

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::lanes::{Lanes, lanes, registers};
use super::lhs::MaskedLhs;
use super::masked_gemm::{sums, write};
use super::panels::{Aligned, Rhs, pack};
use super::scratch::Scratch;
use crate::buffer::Kept;
use crate::parallel::{for_each_chunk, pieces};
use crate::tuning::{LEAST_ROWS, MOST_UNITS};

/// Units of a group.
const UNITS: usize = 6;

/// Vectors in a panel's width: with the products of a group of units they fill the registers.
const fn vectors(registers: usize) -> usize {
    if registers < 32 { 2 } else { 4 }
}

/// `C ← α Aᵀ B + C`; `a: [samples, rows, m]`, `b: [samples, rows, k]`, `c: [m, k]`; if `lower`, at
/// least what is on and below the diagonal.
pub(super) fn masked_outer<T: Lanes>(
    a: MaskedLhs<T>,
    k: usize,
    alpha: T,
    b: &[T],
    lower: bool,
    c: &mut [T],
) {
    let (rows, m) = (a.rows, a.columns);
    if rows < LEAST_ROWS {
        return sums((m, k), alpha, a.entries(), b, lower, c);
    }
    let width = vectors(registers()) * lanes::<T>();
    let mut scratch = Kept::<Scratch<T>>::take();
    let panels = pack(Rhs::Plain(b), b.len() / k, width, &mut scratch.panels);
    // The parts of a lower triangle are of unequal size, so there are more of them.
    let count = if lower { 2 * pieces(m) } else { pieces(m) };
    let chunk = m.div_ceil(count).min(MOST_UNITS);
    let operations = c.len() * a.samples * rows;
    for_each_chunk(c, chunk * k, operations, |i, c| {
        let units = i * chunk..i * chunk + c.len() / k;
        let mut own = Kept::<Scratch<T>>::take();
        own.units.fill(alpha, &a, units.clone());
        let Scratch {
            units: active,
            sums,
            ..
        } = &mut *own;
        Arch::new().dispatch(Sum {
            active,
            panels,
            shape: (rows, k),
            lower: lower.then_some(units.start),
            sums,
            c,
        });
    });
}

/// Which of some units are active at each sample, with their entries.
#[derive(Clone, Debug, Default)]
pub(crate) struct Units<T> {
    /// Where the groups of each sample start, and where the last ends.
    starts: Vec<usize>,
    /// The units of each group; those that it lacks are the first number that is no unit.
    groups: Vec<[u32; UNITS]>,
    /// `[groups, rows]`.
    entries: Vec<[T; UNITS]>,
    found: Vec<bool>,
    listed: Vec<u32>,
}

impl<T: Lanes> Units<T> {
    /// Lists the columns `units` of `α A`, counted from the first of them.
    fn fill(&mut self, alpha: T, a: &MaskedLhs<T>, units: Range<usize>) {
        self.starts.clear();
        self.groups.clear();
        self.entries.clear();
        self.starts.push(0);
        for sample in 0..a.samples {
            let rows = a.sample(sample).chunks_exact(a.columns);
            self.listed.clear();
            a.list(sample, units.clone(), &mut self.found, &mut self.listed);
            for listed in self.listed.chunks(UNITS) {
                let mut group = [units.len() as u32; UNITS];
                group[..listed.len()].copy_from_slice(listed);
                self.groups.push(group);
                for row in rows.clone().map(|row| &row[units.clone()]) {
                    let entry = |unit: u32| row.get(unit as usize).map_or(T::ZERO, |&a| alpha * a);
                    self.entries.push(group.map(entry));
                }
            }
            self.starts.push(self.groups.len());
        }
    }
}

/// The part of a sum that belongs to some units.
struct Sum<'a, T> {
    active: &'a Units<T>,
    /// `B` as `[panels, samples, rows, width]`.
    panels: &'a [T],
    shape: (usize, usize),
    /// If only what is on and below the diagonal is wanted: which row of `C` is the first here.
    lower: Option<usize>,
    /// Room for a panel's part of the result.
    sums: &'a mut Aligned<T>,
    c: &'a mut [T],
}

impl<T: Lanes> WithSimd for Sum<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if vectors(S::REGISTER_COUNT) == 4 {
            self.panels::<S, 4>(simd);
        } else {
            self.panels::<S, 2>(simd);
        }
    }
}

impl<T: Lanes> Sum<'_, T> {
    /// The sum in panels of `V` vectors.
    #[inline(always)]
    fn panels<S: Simd, const V: usize>(self, simd: S) {
        let (rows, k) = self.shape;
        let width = V * T::lanes::<S>();
        let depth = self.panels.len() / k.next_multiple_of(width);
        // One more than there are units: what groups are filled up with goes there.
        let sums = self.sums.room((self.c.len() / k + 1) * width);
        for (p, panel) in self.panels.chunks_exact(depth * width).enumerate() {
            let columns = p * width..k.min((p + 1) * width);
            let above = self
                .lower
                .map_or(0, |first| columns.start.saturating_sub(first));
            sums.fill(T::ZERO);
            let (c, _) = T::vectors_mut::<S>(sums).as_chunks_mut::<V>();
            let (panel, _) = T::vectors::<S>(panel).as_chunks::<V>();
            for (sample, b) in panel.chunks_exact(rows).enumerate() {
                self.active.add(simd, sample, above, b, c);
            }
            for (row, sums) in self.c.chunks_exact_mut(k).zip(c) {
                write(simd, sums, true, &mut row[columns.clone()]);
            }
        }
    }
}

impl<T: Lanes> Units<T> {
    /// Adds one sample's products with `b`, the sample's part of a panel, to those of all groups
    /// but some of the first.
    #[inline(always)]
    fn add<S: Simd, const V: usize>(
        &self,
        simd: S,
        sample: usize,
        above: usize,
        b: &[[T::Vector<S>; V]],
        c: &mut [[T::Vector<S>; V]],
    ) {
        let mut groups = self.starts[sample]..self.starts[sample + 1];
        let skipped = |units: &[u32; UNITS]| (units[UNITS - 1] as usize) < above;
        groups.start += self.groups[groups.clone()].partition_point(skipped);
        let entries = &self.entries[groups.start * b.len()..groups.end * b.len()];
        let entries = entries.chunks_exact(b.len());
        for (units, entries) in self.groups[groups].iter().zip(entries) {
            let sums = products(simd, entries, b);
            for u in 0..UNITS {
                // A panic here would keep the sums out of the registers; there is room for every
                // unit.
                let Some(c) = c.get_mut(units[u] as usize) else {
                    break;
                };
                for v in 0..V {
                    c[v] = T::plus(simd, c[v], sums[u][v]);
                }
            }
        }
    }
}

/// The sums of the products of a group's entries with the rows of `b`.
#[inline(always)]
fn products<T: Lanes, S: Simd, const V: usize>(
    simd: S,
    entries: &[[T; UNITS]],
    b: &[[T::Vector<S>; V]],
) -> [[T::Vector<S>; V]; UNITS] {
    let mut sums = [[T::splat(simd, T::ZERO); V]; UNITS];
    for (entries, b) in entries.iter().zip(b) {
        for u in 0..UNITS {
            let a = T::splat(simd, entries[u]);
            for v in 0..V {
                sums[u][v] = T::multiply_add(simd, a, b[v], sums[u][v]);
            }
        }
    }
    sums
}
