//! Cotangents that meet weights and inputs without those that are zero.
//!
//! Behind a max-pooling of 2×2 at most a quarter of the cotangents differs from zero. An entry
//! `c[o, p]` at output channel `o` and position `p` meets the weight of `o` and the entries under
//! the kernel at `p`. With channels last in memory these are one run of numbers for every row of
//! the kernel, so both products are sums of scaled runs, which are kept in registers: those of a
//! position, `Σ_o c[o, p] W[o]`, and those of an output channel, `Σ_p c[o, p] t[under p]`. Every sum
//! runs in the order of channels, positions, rows and samples.

use super::Convolution;
use super::filters::PIECES;
use super::kernels::{Scatter, Sums};
use super::runs::Runs;
use crate::buffer::Kept;
use crate::parallel::for_each_chunk;
use crate::product::lanes::{Lanes, dispatch, lanes};
use crate::product::lhs::MaskedLhs;
use crate::product::panels::{lines, room};
use crate::product::scratch::Scratch;
use crate::scalar::Scalar;

impl Convolution {
    /// Whether a product without the cotangents that are zero is faster than a dense one, if each
    /// that is not costs so many times as much, and each position as much as so many.
    pub(super) fn is_sparse<T: Scalar>(
        &self,
        c: &[T],
        rows: usize,
        (price, position): (f64, f64),
    ) -> bool {
        if !self.has_runs() || lanes::<T>() < 4 {
            return false;
        }
        let (lost, outputs) = (Runs::of::<T>(self).lost(), self.output[0] as f64);
        let least = lost * position / outputs;
        let cost = |activity: f64| least + lost * price * activity;
        least < 1.0 && cost(MaskedLhs::of(c, rows, self.outputs()).activity()) < 1.0
    }

    /// `below ← Σ_o c[o] W[o]` at every position, or with `below` added;
    /// `c: [samples, rows, outputs]`.
    pub(super) fn transpose_sparse<T: Lanes>(
        &self,
        rows: usize,
        weight: &[T],
        c: &[T],
        accumulate: bool,
        below: &mut [T],
    ) {
        let runs = Runs::of::<T>(self);
        let size = self.output[0] * runs.weight();
        let mut packed = room(size);
        let packed = lines(&mut packed, size);
        runs.pack(weight, packed);
        let (n, m) = (self.inputs(), self.outputs());
        let operations = c.len() * self.taps() / 4;
        for_each_chunk(below, rows * n, operations, |sample, below| {
            let c = &c[sample * rows * m..(sample + 1) * rows * m];
            let mut own = Kept::<Scratch<T>>::take();
            own.taps.by_position(self, c);
            let size = rows * self.map(&runs);
            let mut maps = room(size);
            let maps = lines(&mut maps, size);
            maps.fill(T::ZERO);
            for (block, weight) in runs.blocks(packed, self.output[0]) {
                let taps = &own.taps;
                dispatch(Scatter {
                    block,
                    taps,
                    weight,
                    c,
                    maps,
                    rows,
                    line: self.dilation[0] * self.line(),
                });
            }
            let maps = maps.chunks_exact(self.map(&runs));
            for (map, below) in maps.zip(below.chunks_exact_mut(n)) {
                self.read_channels_last(map, accumulate, below);
            }
        });
    }

    /// Adds `scale Σ c[o, p] t[under p]` over all rows and positions to the gradient of the weight.
    pub(super) fn gradient_sparse<T: Lanes>(
        &self,
        rows: usize,
        c: &[T],
        t: &[T],
        scale: T,
        gradient: &mut [T],
    ) {
        let runs = Runs::of::<T>(self);
        let (n, m) = (self.inputs(), self.outputs());
        let samples = c.len() / (rows * m);
        let piece = samples.div_ceil(PIECES).max(1);
        let size = self.output[0] * runs.weight();
        let mut all = room(samples.div_ceil(piece) * size);
        let all = lines(&mut all, samples.div_ceil(piece) * size);
        let operations = c.len() * self.taps() / 4;
        for_each_chunk(all, size, operations, |k, sums| {
            sums.fill(T::ZERO);
            let mut own = Kept::<Scratch<T>>::take();
            let mut map = room(self.map(&runs));
            let map = lines(&mut map, self.map(&runs));
            map.fill(T::ZERO);
            for sample in k * piece..samples.min((k + 1) * piece) {
                let c = &c[sample * rows * m..(sample + 1) * rows * m];
                own.taps.by_channel(self, c);
                for row in 0..rows {
                    let t = &t[(sample * rows + row) * n..][..n];
                    self.write_channels_last(t, map);
                    let c = &c[row * m..(row + 1) * m];
                    for (block, sums) in runs.blocks_mut(sums, self.output[0]) {
                        let taps = &own.taps;
                        dispatch(Sums {
                            block,
                            taps,
                            c,
                            map: &*map,
                            sums,
                            line: self.dilation[0] * self.line(),
                        });
                    }
                }
            }
        });
        for sums in all.chunks_exact(size) {
            runs.unpack(sums, scale, gradient);
        }
    }
}
