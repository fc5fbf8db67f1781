//! Sums of scaled runs in registers.

use crate::product::lanes::Lanes;
use pulp::{Simd, WithSimd};

use super::runs::Block;
use super::taps::{Tap, Taps};

/// Adds `Σ c[o, p] W[o]` at every position to padded rows of the input: a block of the kernel.
pub(super) struct Scatter<'a, T> {
    pub(super) block: Block,
    pub(super) taps: &'a Taps,
    /// `[outputs, rows, width]`.
    pub(super) weight: &'a [T],
    /// Rows of cotangents, and as many of the input.
    pub(super) c: &'a [T],
    pub(super) maps: &'a mut [T],
    pub(super) rows: usize,
    /// Numbers from one row under the kernel to the next.
    pub(super) line: usize,
}

/// Adds `Σ c[o, p] t[under p]` for every output channel to sums: a block of the kernel, a row of a
/// sample.
pub(super) struct Sums<'a, T> {
    pub(super) block: Block,
    pub(super) taps: &'a Taps,
    pub(super) c: &'a [T],
    /// The padded row of the input.
    pub(super) map: &'a [T],
    /// `[outputs, rows, width]`.
    pub(super) sums: &'a mut [T],
    /// Numbers from one row under the kernel to the next.
    pub(super) line: usize,
}

impl<T: Lanes> WithSimd for Scatter<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        with_constant!(self.block.rows, D in [1, 3; 5] => {
            with_constant!(self.block.vectors, V in [1, 2, 3, 4; 5] => {
                self.run::<S, D, V>(simd);
            });
        });
    }
}

impl<T: Lanes> WithSimd for Sums<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        with_constant!(self.block.rows, D in [1, 3; 5] => {
            with_constant!(self.block.vectors, V in [1, 2, 3, 4; 5] => {
                self.run::<S, D, V>(simd);
            });
        });
    }
}

impl<T: Lanes> Scatter<'_, T> {
    /// With `D` rows of `V` vectors.
    #[inline(always)]
    fn run<S: Simd, const D: usize, const V: usize>(self, simd: S) {
        let (weight, _) = T::vectors::<S>(self.weight).as_chunks::<V>();
        let (weight, _) = weight.as_chunks::<D>();
        let start = self.block.down * self.line + self.block.across;
        let (outputs, size) = (self.c.len() / self.rows, self.maps.len() / self.rows);
        for (origin, taps) in self.taps.positions() {
            if taps.is_empty() {
                continue;
            }
            let rows = self.c.chunks_exact(outputs);
            for (c, map) in rows.zip(self.maps.chunks_exact_mut(size)) {
                let sums = scaled::<T, S, D, V>(simd, taps, c, weight);
                for (d, sums) in sums.iter().enumerate() {
                    let from = origin + start + d * self.line;
                    let to = map.get_mut(from..).unwrap_or_default();
                    let Some(to) = T::vectors_mut::<S>(to).first_chunk_mut::<V>() else {
                        break;
                    };
                    for v in 0..V {
                        to[v] = T::plus(simd, to[v], sums[v]);
                    }
                }
            }
        }
    }
}

/// `Σ c[tap] W[its output channel]`.
#[inline(always)]
fn scaled<T: Lanes, S: Simd, const D: usize, const V: usize>(
    simd: S,
    taps: &[Tap],
    c: &[T],
    weight: &[[[T::Vector<S>; V]; D]],
) -> [[T::Vector<S>; V]; D] {
    let mut sums = [[T::splat(simd, T::ZERO); V]; D];
    for tap in taps {
        // A panic here would keep the sums out of the registers; every tap is in range.
        let (Some(&c), Some(weight)) = (c.get(tap.at as usize), weight.get(tap.partner as usize))
        else {
            break;
        };
        let c = T::splat(simd, c);
        for d in 0..D {
            for v in 0..V {
                sums[d][v] = T::multiply_add(simd, c, weight[d][v], sums[d][v]);
            }
        }
    }
    sums
}

impl<T: Lanes> Sums<'_, T> {
    /// With `D` rows of `V` vectors.
    #[inline(always)]
    fn run<S: Simd, const D: usize, const V: usize>(self, simd: S) {
        let (sums, _) = T::vectors_mut::<S>(self.sums).as_chunks_mut::<V>();
        let (sums, _) = sums.as_chunks_mut::<D>();
        let start = self.block.down * self.line + self.block.across;
        for (taps, to) in self.taps.groups().zip(sums) {
            let sums = under::<T, S, D, V>(simd, taps, self.c, self.map, (start, self.line));
            for d in 0..D {
                for v in 0..V {
                    to[d][v] = T::plus(simd, to[d][v], sums[d][v]);
                }
            }
        }
    }
}

/// `Σ c[tap] t[under its position]`, where the runs of a position begin at `start` and `line`
/// apart.
#[inline(always)]
fn under<T: Lanes, S: Simd, const D: usize, const V: usize>(
    simd: S,
    taps: &[Tap],
    c: &[T],
    map: &[T],
    (start, line): (usize, usize),
) -> [[T::Vector<S>; V]; D] {
    let mut sums = [[T::splat(simd, T::ZERO); V]; D];
    for tap in taps {
        let (Some(&c), from) = (c.get(tap.at as usize), tap.partner as usize + start) else {
            break;
        };
        let c = T::splat(simd, c);
        for (d, sums) in sums.iter_mut().enumerate() {
            let run = map.get(from + d * line..).unwrap_or_default();
            let Some(run) = T::vectors::<S>(run).first_chunk::<V>() else {
                break;
            };
            for v in 0..V {
                sums[v] = T::multiply_add(simd, c, run[v], sums[v]);
            }
        }
    }
    sums
}
