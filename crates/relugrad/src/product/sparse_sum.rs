//! `C += α Aᵀ B` where a unit, a column of `A`, is zero in all rows of some samples, as behind a ReLU.
//!
//! Units are taken in pairs. For each pair the samples where one of them is active are listed; the kernel adds up the
//! rows of `B` of those samples, of which a part stays in the cache for all units, and keeps the sums in registers. The
//! sum over samples runs in their order within passes of fixed length, so the bits depend on nothing but `A` and `B`.

use pulp::{Arch, Simd, WithSimd};

use super::lanes::lanes;
use super::panels::{Right, pack};
use super::scratch::Scratch;
use super::sparse_rows::write;
use crate::parallel::{for_each_chunk, pieces};
use crate::scalar::Scalar;

/// Units that share a list.
const PAIR: usize = 2;

/// Vectors in a panel's width.
const VECTORS: usize = 4;

/// Bytes of a panel that one pass goes through, to stay in the first cache.
const PASS: usize = 24 << 10;

/// Which part of `C` is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    All,
    /// At least the entries on and below the diagonal.
    Lower,
}

/// `C ← α Aᵀ B + C`; `a: [samples, rows, m]`, `b: [samples, rows, k]`, `c: [m, k]`.
pub(super) fn sparse_sum<T: Scalar>(
    (rows, m, k): (usize, usize, usize),
    alpha: T,
    a: &[T],
    b: &[T],
    part: Part,
    c: &mut [T],
) {
    let depth = a.len() / m;
    let mut scratch = Scratch::<T>::take();
    let width = VECTORS * lanes::<T>();
    pack(Right::Plain(b), depth, width, &mut scratch.panels);
    let panels = &scratch.panels[..];
    let chunk = m.div_ceil(pieces(m)).next_multiple_of(PAIR);
    let operations = c.len() * depth;
    for_each_chunk(c, chunk * k, operations, |i, c| {
        let units = i * chunk..i * chunk + c.len() / k;
        let mut own = Scratch::<T>::take();
        own.units.fill(a, m, units.clone(), (rows, alpha), width);
        Arch::new().dispatch(Sum {
            units: &own.units,
            first: units.start,
            panels,
            depth,
            rows,
            k,
            part,
            c,
        });
        own.put();
    });
    scratch.put();
}

/// The entries of some units, and where they are active.
#[derive(Clone, Debug, Default)]
pub(crate) struct Units<T> {
    /// `α Aᵀ`, pair by pair; `[pairs, depth, 2]`.
    entries: Vec<T>,
    /// The samples of every pair, in order.
    samples: Vec<u32>,
    /// Where the samples of each pass begin for each pair, and where the last end; `[passes + 1, pairs]`.
    bounds: Vec<usize>,
    /// Samples in a pass.
    pass: usize,
}

impl<T: Scalar> Units<T> {
    fn fill(
        &mut self,
        a: &[T],
        m: usize,
        units: std::ops::Range<usize>,
        (rows, alpha): (usize, T),
        width: usize,
    ) {
        let depth = a.len() / m;
        let pairs = units.len().div_ceil(PAIR);
        self.entries.clear();
        self.entries.resize(pairs * depth * PAIR, T::ZERO);
        let blocks = a.chunks(BLOCK * m).enumerate();
        for (block, a) in blocks {
            for (pair, to) in self.entries.chunks_exact_mut(depth * PAIR).enumerate() {
                let start = units.start + pair * PAIR;
                let end = units.end.min(start + PAIR);
                let to = to[block * BLOCK * PAIR..].chunks_exact_mut(PAIR);
                for (to, row) in to.zip(a.chunks_exact(m)) {
                    for (to, &entry) in to.iter_mut().zip(&row[start..end]) {
                        *to = alpha * entry;
                    }
                }
            }
        }
        self.list(depth, rows, width);
    }

    fn list(&mut self, depth: usize, rows: usize, width: usize) {
        self.pass = (PASS / (rows * width * size_of::<T>())).max(1);
        let samples = depth / rows;
        let (passes, pairs) = (
            samples.div_ceil(self.pass),
            self.entries.len() / (depth * PAIR),
        );
        self.samples.clear();
        self.bounds.clear();
        self.bounds.resize((passes + 1) * pairs, 0);
        for (pair, entries) in self.entries.chunks_exact(depth * PAIR).enumerate() {
            for (sample, entries) in entries.chunks_exact(rows * PAIR).enumerate() {
                if sample.is_multiple_of(self.pass) {
                    self.bounds[sample / self.pass * pairs + pair] = self.samples.len();
                }
                if entries.iter().any(|&entry| entry != T::ZERO) {
                    self.samples.push(sample as u32);
                }
            }
            self.bounds[passes * pairs + pair] = self.samples.len();
        }
    }
}

/// Rows that are transposed at a time, for the sake of the cache.
const BLOCK: usize = 32;

/// The part of a sum that belongs to some units.
struct Sum<'a, T> {
    units: &'a Units<T>,
    /// The first of them.
    first: usize,
    panels: &'a [T],
    depth: usize,
    rows: usize,
    k: usize,
    part: Part,
    c: &'a mut [T],
}

impl<T: Scalar> WithSimd for Sum<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let width = VECTORS * T::lanes::<S>();
        let count = self.c.len() / self.k;
        let pairs = count.div_ceil(PAIR);
        let passes = self.units.bounds.len() / pairs - 1;
        for (p, panel) in self.panels.chunks_exact(self.depth * width).enumerate() {
            let columns = p * width..self.k.min((p + 1) * width);
            let (panel, _) = T::vectors::<S>(panel).as_chunks::<VECTORS>();
            for pass in 0..passes {
                for pair in 0..pairs {
                    let last = self.first + pair * PAIR + PAIR - 1;
                    if self.part == Part::Lower && last < columns.start {
                        continue;
                    }
                    let from = self.units.bounds[pass * pairs + pair];
                    let to = self.units.bounds[(pass + 1) * pairs + pair];
                    let entries = &self.units.entries[pair * self.depth * PAIR..];
                    let samples = &self.units.samples[from..to];
                    let sums = sum(simd, samples, self.rows, entries, panel);
                    for (i, sums) in sums.iter().enumerate().take(count - pair * PAIR) {
                        let row = (pair * PAIR + i) * self.k;
                        let to = &mut self.c[row + columns.start..row + columns.end];
                        write(simd, sums, true, to);
                    }
                }
            }
        }
    }
}

/// The sums of a panel's rows of some samples, times the entries of both units of a pair.
#[inline(always)]
fn sum<T: Scalar, S: Simd>(
    simd: S,
    samples: &[u32],
    rows: usize,
    entries: &[T],
    panel: &[[T::Vector<S>; VECTORS]],
) -> [[T::Vector<S>; VECTORS]; PAIR] {
    let mut sums = [[T::splat(simd, T::ZERO); VECTORS]; PAIR];
    let (entries, _) = entries.as_chunks::<PAIR>();
    for &sample in samples {
        let place = sample as usize * rows;
        // A panic here would keep the sums out of the registers; samples are always in range.
        let (Some(entries), Some(panel)) = (
            entries.get(place..place + rows),
            panel.get(place..place + rows),
        ) else {
            break;
        };
        for (entries, b) in entries.iter().zip(panel) {
            for i in 0..PAIR {
                let a = T::splat(simd, entries[i]);
                for v in 0..VECTORS {
                    sums[i][v] = T::multiply_add(simd, a, b[v], sums[i][v]);
                }
            }
        }
    }
    sums
}
