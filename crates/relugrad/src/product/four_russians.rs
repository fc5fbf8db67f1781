//! Sums `S_r = Zᵀ T_r` over samples with a matrix `Z` of zeros and ones, for many `r`, of which two
//! contractions are wanted but not the sums themselves.
//!
//! For any four samples there are only 16 sums of their rows: a table holds them, and a unit's four
//! bits in `Z` select one, so four samples take one addition however many of them are selected
//! (Arlazarov, Dinic, Kronrod and Faradzhev, *On economical construction of the transitive closure
//! of a directed graph*, 1970). A panel of `T` and a word of samples make tables that stay in the
//! first cache while all units select from them. Every entry adds word by word in the order of
//! samples, so its bits depend on nothing but the factors.

use ndarray::{ArrayViewMut2, Axis};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::lanes::{Lanes, lanes};
use super::masked_gemm::write;
use super::panels::{Rhs, pack};
use super::scratch::Scratch;
use crate::buffer::{Buffer, Kept};
use crate::parallel::least_together;
use crate::pattern::WORD;
use crate::tuning;

/// Samples of a table.
const GROUP: usize = 4;

/// Sums of a table: of every subset of its samples.
const SUBSETS: usize = 1 << GROUP;

/// Tables of a block.
const BLOCK: usize = 4;

/// Vectors in a panel's width.
const VECTORS: usize = 2;

/// Units that select at the same time: with the panel's vectors as many additions as the processor
/// can work on at once.
const UNITS: usize = 4;

/// Panels that a task takes one after the other.
const PANELS: usize = 2;

/// A panel's part of a row.
type Vectors<T, S> = [<T as Lanes>::Vector<S>; VECTORS];

/// Tables that are made together.
type Block<T, S> = [[Vectors<T, S>; SUBSETS]; BLOCK];

/// The factors of the sums `S_r = Σ_b Z_b T_{b,r}ᵀ`, and of their contractions.
pub(crate) struct SelectedSums<'a, T> {
    /// Rows `R` of each sample, units `m`, columns `k`.
    pub(crate) shape: (usize, usize, usize),
    /// At which samples each unit is selected; `[words, m]`, sample `b` in bit `b mod 64` of word
    /// `b / 64`.
    pub(crate) selected: &'a [u64],
    /// `T: [samples, R, k]`.
    pub(crate) rows: &'a [T],
    /// `U: [R, m]`.
    pub(crate) outer: &'a [T],
    /// `W: [m, k]`.
    pub(crate) inner: &'a [T],
}

/// The tables that so many samples take for each row and column.
pub(crate) fn four_russians_tables(samples: usize) -> usize {
    samples.div_ceil(GROUP)
}

/// What the contractions cost in dense multiply-adds for each row and each column.
pub(crate) fn four_russians_cost(samples: usize, units: usize) -> f64 {
    let (tables, units) = (four_russians_tables(samples) as f64, units as f64);
    let (selection, table, contraction) = tuning::SUBSETS;
    let contractions = contraction * units * samples.div_ceil(WORD) as f64;
    tables * (selection * units + table) + contractions
}

impl<T: Lanes> SelectedSums<'_, T> {
    /// `∂/∂W` and `∂/∂U` of `Σ_r,j,i U_rj W_ji S_rji`: adds `Σ_r U_rj S_rji` to `inner: [m, k]`,
    /// writes `Σ_i W_ji S_rji` to `outer: [R, m]`.
    pub(super) fn contract(self, inner: &mut [T], outer: &mut [T]) {
        let (r, m, k) = self.shape;
        let width = VECTORS * lanes::<T>();
        let mut rows = Kept::<Scratch<T>>::take();
        let mut weights = Kept::<Scratch<T>>::take();
        let packed = Packed {
            rows: pack(
                Rhs::Plain(self.rows),
                self.rows.len() / k,
                width,
                &mut rows.panels,
            ),
            inner: pack(Rhs::Plain(self.inner), m, width, &mut weights.panels),
            width,
        };
        let tasks = k.div_ceil(PANELS * width);
        let mut parts = Buffer::zeros(tasks * r * m);
        let mut inner = ArrayViewMut2::from_shape((m, k), inner).expect("as many columns as W has");
        let least = least_together(self.rows.len() * m, tasks);
        inner
            .axis_chunks_iter_mut(Axis(1), PANELS * width)
            .into_par_iter()
            .zip(parts.par_chunks_mut(r * m))
            .enumerate()
            .with_min_len(least)
            .for_each(|(task, (mut inner, outer))| {
                let panels = inner.axis_chunks_iter_mut(Axis(1), width).enumerate();
                panels.for_each(|(p, inner)| self.panel(&packed, task * PANELS + p, inner, outer));
            });
        outer.fill(T::ZERO);
        for part in parts.chunks_exact(r * m) {
            outer
                .iter_mut()
                .zip(part)
                .for_each(|(sum, &entry)| *sum += entry);
        }
    }

    /// Takes one panel of columns.
    fn panel(&self, packed: &Packed<T>, panel: usize, inner: ArrayViewMut2<T>, outer: &mut [T]) {
        let part = |rows: usize| {
            let length = rows * packed.width;
            panel * length..(panel + 1) * length
        };
        let (_, m, k) = self.shape;
        let mut own = Kept::<Scratch<T>>::take();
        Arch::new().dispatch(Panel {
            factors: self,
            rows: &packed.rows[part(self.rows.len() / k)],
            weights: &packed.inner[part(m)],
            scratch: &mut own,
            inner,
            outer,
        });
    }
}

/// The factors with columns, in panels.
struct Packed<'a, T> {
    rows: &'a [T],
    inner: &'a [T],
    width: usize,
}

/// One panel of columns.
struct Panel<'a, 'f, 'i, T> {
    factors: &'a SelectedSums<'f, T>,
    /// `[samples, R, width]`.
    rows: &'a [T],
    /// `[m, width]`.
    weights: &'a [T],
    scratch: &'a mut Scratch<T>,
    inner: ArrayViewMut2<'i, T>,
    outer: &'a mut [T],
}

impl<T: Lanes> WithSimd for Panel<'_, '_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let (r, m, _) = self.factors.shape;
        let width = VECTORS * T::lanes::<S>();
        let Scratch { panels, sums, .. } = self.scratch;
        let tables = T::vectors_mut::<S>(panels.room(WORD / GROUP * SUBSETS * width));
        let tables = tables.as_chunks_mut().0.as_chunks_mut().0.as_chunks_mut().0;
        let inner = T::vectors_mut::<S>(sums.room(m * width)).as_chunks_mut().0;
        inner.fill([T::splat(simd, T::ZERO); VECTORS]);
        let rows = T::vectors::<S>(self.rows).as_chunks().0;
        let weights = T::vectors::<S>(self.weights).as_chunks().0;
        for row in 0..r {
            for (word, selected) in self.factors.selected.chunks_exact(m).enumerate() {
                let of_word = rows[row..].iter().step_by(r).skip(word * WORD);
                let tables = fill::<T, S>(simd, of_word.take(WORD), tables);
                let units = Units {
                    selected,
                    outer: &self.factors.outer[row * m..(row + 1) * m],
                    weights,
                    inner_sums: &mut *inner,
                    outer_sums: &mut self.outer[row * m..(row + 1) * m],
                };
                units.contract_all(simd, tables);
            }
        }
        for (mut to, sums) in self.inner.rows_mut().into_iter().zip(&*inner) {
            let to = to.as_slice_mut().expect("a part of a row");
            write(simd, sums, true, to);
        }
    }
}

/// Makes the tables of the rows of up to a word of samples, with zeros for those that fill up the
/// last block.
#[inline(always)]
fn fill<'t, 'r, T: Lanes, S: Simd>(
    simd: S,
    rows: impl Iterator<Item = &'r Vectors<T, S>>,
    tables: &'t mut [Block<T, S>],
) -> &'t [Block<T, S>] {
    let zero = [T::splat(simd, T::ZERO); VECTORS];
    let mut rows = rows.peekable();
    let mut blocks = 0;
    while rows.peek().is_some() {
        for table in &mut tables[blocks] {
            let rows: [_; GROUP] = std::array::from_fn(|_| *rows.next().unwrap_or(&zero));
            for v in 0..VECTORS {
                let sums = subset_sums::<T, S>(simd, rows.map(|row| row[v]));
                (0..SUBSETS).for_each(|subset| table[subset][v] = sums[subset]);
            }
        }
        blocks += 1;
    }
    &tables[..blocks]
}

/// The sums of all subsets of some rows; row `i` belongs to those with bit `i`.
#[inline(always)]
fn subset_sums<T: Lanes, S: Simd>(simd: S, rows: [T::Vector<S>; GROUP]) -> [T::Vector<S>; SUBSETS] {
    let mut sums = [T::splat(simd, T::ZERO); SUBSETS];
    for (i, &row) in rows.iter().enumerate() {
        sums[1 << i] = row;
        for subset in 1..1 << i {
            sums[(1 << i) + subset] = T::plus(simd, sums[subset], row);
        }
    }
    sums
}

/// The sums of the rows that each of `U` units selects.
#[inline(always)]
fn select<T: Lanes, S: Simd, const U: usize>(
    simd: S,
    tables: &[Block<T, S>],
    selected: &[u64; U],
) -> [Vectors<T, S>; U] {
    let mut sums = [[T::splat(simd, T::ZERO); VECTORS]; U];
    let mut selected = *selected;
    for block in tables {
        for (g, table) in block.iter().enumerate() {
            for u in 0..U {
                let found = &table[(selected[u] >> (GROUP * g)) as usize % SUBSETS];
                for v in 0..VECTORS {
                    sums[u][v] = T::plus(simd, sums[u][v], found[v]);
                }
            }
        }
        selected = selected.map(|bits| bits >> (GROUP * BLOCK));
    }
    sums
}

/// One row's and one word's parts of the units' factors and results; each has `m` entries.
struct Units<'a, T: Lanes, S: Simd> {
    selected: &'a [u64],
    outer: &'a [T],
    weights: &'a [Vectors<T, S>],
    inner_sums: &'a mut [Vectors<T, S>],
    outer_sums: &'a mut [T],
}

impl<T: Lanes, S: Simd> Units<'_, T, S> {
    #[inline(always)]
    fn contract_all(mut self, simd: S, tables: &[Block<T, S>]) {
        let m = self.selected.len();
        let whole = m / UNITS * UNITS;
        for first in (0..whole).step_by(UNITS) {
            self.contract::<UNITS>(simd, tables, first);
        }
        for unit in whole..m {
            self.contract::<1>(simd, tables, unit);
        }
    }

    /// Takes `U` units from the `first` on.
    #[inline(always)]
    fn contract<const U: usize>(&mut self, simd: S, tables: &[Block<T, S>], first: usize) {
        let units = first..first + U;
        let (selected, _) = self.selected[units.clone()].as_chunks::<U>();
        let sums = select::<T, S, U>(simd, tables, &selected[0]);
        let factors = self.outer[units.clone()]
            .iter()
            .zip(&self.weights[units.clone()]);
        let results = self.outer_sums[units.clone()]
            .iter_mut()
            .zip(&mut self.inner_sums[units]);
        for ((sum, (outer, weights)), (outer_sum, inner_sum)) in
            sums.iter().zip(factors).zip(results)
        {
            let (outer, mut product) = (T::splat(simd, *outer), T::splat(simd, T::ZERO));
            for v in 0..VECTORS {
                inner_sum[v] = T::multiply_add(simd, outer, sum[v], inner_sum[v]);
                product = T::multiply_add(simd, weights[v], sum[v], product);
            }
            *outer_sum += T::horizontal_sum(simd, product);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::product::tests::integers;

    #[test]
    fn contractions_equal_the_definition() {
        for (samples, r, m, k) in [
            (1_usize, 1, 1, 1),
            (3, 2, 5, 9),
            (16, 3, 4, 16),
            (70, 2, 11, 41),
            (129, 1, 7, 65),
        ] {
            let active = |sample: usize, unit: usize| (sample * 31 + unit * 17) % 5 < 3;
            let mut selected = vec![0; samples.div_ceil(WORD) * m];
            for (sample, unit) in (0..samples).flat_map(|b| (0..m).map(move |j| (b, j))) {
                selected[sample / WORD * m + unit] |=
                    u64::from(active(sample, unit)) << (sample % WORD);
            }
            let rows = integers(samples * r * k, 3);
            let (outer, weights) = (integers(r * m, 5), integers(m * k, 4));
            let sum = |r_: usize, j: usize, i: usize| {
                let of_sample = |b: usize| rows[(b * r + r_) * k + i];
                (0..samples)
                    .filter(|&b| active(b, j))
                    .map(of_sample)
                    .sum::<f64>()
            };
            let sums = SelectedSums {
                shape: (r, m, k),
                selected: &selected,
                rows: &rows,
                outer: &outer,
                inner: &weights,
            };
            let (mut inner_sums, mut outer_sums) = (vec![1.0; m * k], vec![f64::NAN; r * m]);
            sums.contract(&mut inner_sums, &mut outer_sums);
            for j in 0..m {
                for i in 0..k {
                    let terms = (0..r).map(|r_| outer[r_ * m + j] * sum(r_, j, i));
                    assert_eq!(
                        inner_sums[j * k + i],
                        1.0 + terms.sum::<f64>(),
                        "unit {j}, column {i}"
                    );
                }
                for r_ in 0..r {
                    let terms = (0..k).map(|i| weights[j * k + i] * sum(r_, j, i));
                    assert_eq!(
                        outer_sums[r_ * m + j],
                        terms.sum::<f64>(),
                        "row {r_}, unit {j}"
                    );
                }
            }
        }
    }
}
