//! `C += α Aᵀ B` where a unit, a column of `A`, is zero in all rows of some samples, as behind a ReLU.
//!
//! Sample after sample, the rows of `C` that belong to active units take up the products of the sample's rows, a few
//! units at a time in registers; the part of `C` that a panel of `B` meets stays in the first cache. The samples come in
//! their order, so the bits depend on nothing but `A` and `B`. With few rows to a sample that is more loading and storing
//! than computing, so there the sums run along the list of a unit instead, as in [`sparse_rows`](super::sparse_rows).

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::lists::find;
use super::panels::{Aligned, Right, fill};
use super::scratch::Scratch;
use super::sparse_rows::{sums, write};
use crate::parallel::{for_each_chunk, pieces};
use crate::scalar::Scalar;

/// Units taken at a time.
const UNITS: usize = 6;

/// Vectors in a panel's width: with the products of a group of units they fill the registers.
const fn vectors(registers: usize) -> usize {
    if registers < 32 { 2 } else { 4 }
}

/// The least rows of a sample at which units are taken sample after sample.
const LEAST_ROWS: usize = 4;

/// `C ← α Aᵀ B + C`; `a: [samples, rows, m]`, `b: [samples, rows, k]`, `c: [m, k]`; if `lower`, at least what is on and
/// below the diagonal.
pub(super) fn sparse_sum<T: Scalar>(
    (rows, m, k): (usize, usize, usize),
    alpha: T,
    a: &[T],
    b: &[T],
    lower: bool,
    c: &mut [T],
) {
    if rows < LEAST_ROWS {
        return sums((m, k), alpha, a, b, lower, c);
    }
    let chunk = m.div_ceil(pieces(m));
    let operations = c.len() * (a.len() / m);
    for_each_chunk(c, chunk * k, operations, |i, c| {
        let units = i * chunk..i * chunk + c.len() / k;
        let mut own = Scratch::<T>::take();
        own.units.fill(alpha, a, (rows, m), units.clone());
        let Scratch {
            units: active,
            panels,
            sums,
            ..
        } = &mut *own;
        Arch::new().dispatch(Sum {
            active,
            b,
            shape: (rows, k),
            lower: lower.then_some(units.start),
            edge: panels,
            sums,
            c,
        });
        own.put();
    });
}

/// Which of some units are active at each sample, with their entries.
#[derive(Clone, Debug, Default)]
pub(crate) struct Units<T> {
    /// Where the units of each sample start, and where the last end.
    starts: Vec<usize>,
    units: Vec<u32>,
    /// In groups of [`UNITS`] units, the last of a sample smaller: `[rows, units]`.
    entries: Vec<T>,
    found: Vec<bool>,
}

impl<T: Scalar> Units<T> {
    /// Lists the columns `units` of `α a: [samples, rows, m]`, counted from the first of them.
    fn fill(&mut self, alpha: T, a: &[T], (rows, m): (usize, usize), units: Range<usize>) {
        self.starts.clear();
        self.units.clear();
        self.entries.clear();
        self.starts.push(0);
        for sample in a.chunks_exact(rows * m) {
            let part = || sample.chunks_exact(m).map(|row| &row[units.clone()]);
            let start = self.units.len();
            find(part(), units.len(), &mut self.found, &mut self.units);
            for group in self.units[start..].chunks(UNITS) {
                for row in part() {
                    let entries = group.iter().map(|&unit| alpha * row[unit as usize]);
                    self.entries.extend(entries);
                }
            }
            self.starts.push(self.units.len());
        }
    }
}

/// The part of a sum that belongs to some units.
struct Sum<'a, T> {
    active: &'a Units<T>,
    b: &'a [T],
    shape: (usize, usize),
    /// If only what is on and below the diagonal is wanted: which row of `C` is the first here.
    lower: Option<usize>,
    /// Room for one sample's part of the last panel, which may be narrower than the others.
    edge: &'a mut Aligned<T>,
    /// Room for a panel's part of the result.
    sums: &'a mut Aligned<T>,
    c: &'a mut [T],
}

impl<T: Scalar> WithSimd for Sum<'_, T> {
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

impl<T: Scalar> Sum<'_, T> {
    /// The sum in panels of `V` vectors.
    #[inline(always)]
    fn panels<S: Simd, const V: usize>(self, simd: S) {
        let (rows, k) = self.shape;
        let width = V * T::lanes::<S>();
        let sums = self.sums.room(self.c.len() / k * width);
        let edge = self.edge.room(rows * width);
        for p in 0..k.div_ceil(width) {
            let columns = p * width..k.min((p + 1) * width);
            let above = self
                .lower
                .map_or(0, |first| columns.start.saturating_sub(first));
            sums.fill(T::ZERO);
            let (c, _) = T::vectors_mut::<S>(sums).as_chunks_mut::<V>();
            for (sample, b) in self.b.chunks_exact(rows * k).enumerate() {
                let b = if columns.len() == width {
                    (&b[columns.start..], k)
                } else {
                    fill(Right::Plain(b), (rows, p, width), edge);
                    (&*edge, width)
                };
                self.active.add::<S, V>(simd, (sample, rows), above, b, c);
            }
            for (row, sums) in self.c.chunks_exact_mut(k).zip(c) {
                write(simd, sums, true, &mut row[columns.clone()]);
            }
        }
    }
}

impl<T: Scalar> Units<T> {
    /// Adds one sample's products with the first columns of `b`, whose rows begin `stride` apart, to those of all units
    /// but some of the first.
    #[inline(always)]
    fn add<S: Simd, const V: usize>(
        &self,
        simd: S,
        (sample, rows): (usize, usize),
        above: usize,
        b: (&[T], usize),
        c: &mut [[T::Vector<S>; V]],
    ) {
        let active = self.starts[sample]..self.starts[sample + 1];
        let entries = &self.entries[active.start * rows..active.end * rows];
        let groups = self.units[active].chunks(UNITS);
        for (units, entries) in groups.zip(entries.chunks(UNITS * rows)) {
            if units.last().is_some_and(|&last| (last as usize) < above) {
                continue;
            }
            match units.len() {
                1 => add::<T, S, 1, V>(simd, units, entries, b, c),
                2 => add::<T, S, 2, V>(simd, units, entries, b, c),
                3 => add::<T, S, 3, V>(simd, units, entries, b, c),
                4 => add::<T, S, 4, V>(simd, units, entries, b, c),
                5 => add::<T, S, 5, V>(simd, units, entries, b, c),
                _ => add::<T, S, UNITS, V>(simd, units, entries, b, c),
            }
        }
    }
}

/// The same for `U` units.
#[inline(always)]
fn add<T: Scalar, S: Simd, const U: usize, const V: usize>(
    simd: S,
    units: &[u32],
    entries: &[T],
    (b, stride): (&[T], usize),
    c: &mut [[T::Vector<S>; V]],
) {
    let mut sums = [[T::splat(simd, T::ZERO); V]; U];
    let (entries, _) = entries.as_chunks::<U>();
    for (entries, b) in entries.iter().zip(b.chunks(stride)) {
        // A panic here would keep the sums out of the registers; all rows are long enough.
        let Some(b) = T::vectors::<S>(b).first_chunk::<V>() else {
            break;
        };
        for u in 0..U {
            let a = T::splat(simd, entries[u]);
            for v in 0..V {
                sums[u][v] = T::multiply_add(simd, a, b[v], sums[u][v]);
            }
        }
    }
    for u in 0..U {
        let Some(c) = c.get_mut(units[u] as usize) else {
            break;
        };
        for v in 0..V {
            c[v] = T::plus(simd, c[v], sums[u][v]);
        }
    }
}
