//! Gradients of the weight from all cotangents, those that are zero as well.
//!
//! With channels last in memory a row of the kernel covers one run of numbers. The sums of a few
//! output channels and of a block of the kernel are kept in registers while all positions are added
//! up, in their order. Where runs are much shorter than vectors, or in several pieces, vectors go
//! along positions instead: every tap has a copy of the input of its own, and a number of the
//! gradient is its product with the cotangents of an output channel.

use pulp::{Simd, WithSimd};

use super::Convolution;
use super::axis::Axis;
use super::runs::{Block, Runs};
use super::unfold::Unfolding;
use crate::buffer::Kept;
use crate::parallel::for_each_chunk;
use crate::product::lanes::{Lanes, dispatch};
use crate::product::panels::{lines, room};

/// Pieces of the batch whose gradients are summed one after the other, whatever the number of
/// threads.
pub(super) const PIECES: usize = 8;

/// How many times as much as is needed sums of runs may compute to be the faster way.
const LOST: f64 = 1.34;

/// Where the numbers under every tap begin; threads keep it.
#[derive(Clone, Debug, Default)]
struct Places(Vec<usize>);

impl Convolution {
    /// Adds `scale Σ c[o, p] t[under p]` over all rows and positions to the gradient of the weight.
    pub(super) fn gradient_dense<T: Lanes>(&self, c: &[T], t: &[T], scale: T, gradient: &mut [T]) {
        if self.has_runs() && Runs::of::<T>(self).lost() < LOST {
            self.by_runs(c, t, scale, gradient);
        } else {
            self.by_positions(c, t, scale, gradient);
        }
    }

    /// Sums `f(sums, room, row)` over rows in pieces; `add` is given the sums of each.
    fn in_pieces<T: Lanes>(
        &self,
        rows: usize,
        (size, space): (usize, usize),
        f: impl Fn(&mut [T], &mut [T], usize) + Sync + Send,
        add: impl FnMut(&[T]),
    ) {
        let piece = rows.div_ceil(PIECES).max(1);
        let total = rows.div_ceil(piece) * size;
        let mut all = room(total);
        let all = lines(&mut all, total);
        let operations = rows * self.outputs() * self.taps() / 4;
        for_each_chunk(all, size, operations, |k, sums| {
            sums.fill(T::ZERO);
            let mut space_here = room(space);
            let space_here = lines(&mut space_here, space);
            space_here.fill(T::ZERO);
            for row in k * piece..rows.min((k + 1) * piece) {
                f(sums, space_here, row);
            }
        });
        all.chunks_exact(size).for_each(add);
    }

    fn by_runs<T: Lanes>(&self, c: &[T], t: &[T], scale: T, gradient: &mut [T]) {
        let (n, m, runs) = (self.inputs(), self.outputs(), Runs::of_filters::<T>(self));
        let sizes = (self.output[0] * runs.weight(), self.map(&runs));
        let [_, height, width] = self.output;
        let row = |sums: &mut [T], map: &mut [T], row: usize| {
            self.write_channels_last(&t[row * n..][..n], map);
            for (block, sums) in runs.blocks_mut(sums, self.output[0]) {
                dispatch(Filters {
                    block,
                    c: &c[row * m..][..m],
                    positions: [height, width],
                    steps: [self.base(1, 0), self.base(0, 1)],
                    line: self.dilation[0] * self.line(),
                    map: &*map,
                    sums,
                });
            }
        };
        let add = |sums: &[T]| runs.unpack(sums, scale, gradient);
        self.in_pieces(c.len() / m, sizes, row, add);
    }

    fn by_positions<T: Lanes>(&self, c: &[T], t: &[T], scale: T, gradient: &mut [T]) {
        let ([channels, outputs], groups) = (self.group(), self.groups);
        let axes = [0, 1].map(|axis| Axis::forward(self, axis));
        let unfolding = Unfolding::in_copies::<T>(channels, axes);
        let mut places = Kept::<Places>::take();
        places.0.clear();
        unfolding.places(axes, &mut places.0);
        let places = &places.0[..];
        let (n, m) = (self.inputs(), self.outputs());
        let sizes = (gradient.len(), unfolding.size());
        let row = |sums: &mut [T], unfolded: &mut [T], row: usize| {
            let t = t[row * n..][..n].chunks_exact(n / groups);
            let c = c[row * m..][..m].chunks_exact(m / groups);
            let sums = sums.chunks_exact_mut(outputs * places.len());
            for ((t, c), sums) in t.zip(c).zip(sums) {
                for strip in unfolding.strips() {
                    unfolding.fill(strip.clone(), t, unfolded);
                    dispatch(Positions {
                        places,
                        unfolded: &*unfolded,
                        c,
                        plane: self.positions(),
                        start: strip.start * self.output[2],
                        run: strip.len() * self.output[2],
                        sums: &mut *sums,
                    });
                }
            }
        };
        let add = |sums: &[T]| {
            let pairs = gradient.iter_mut().zip(sums);
            pairs.for_each(|(to, &sum)| *to += scale * sum);
        };
        self.in_pieces(c.len() / m, sizes, row, add);
    }
}

/// Adds `Σ c[o, p] t[under p]` of all output channels to sums: a block of the kernel, a row.
struct Filters<'a, T> {
    block: Block,
    c: &'a [T],
    /// Rows and columns of positions, and numbers from one to the next.
    positions: [usize; 2],
    steps: [usize; 2],
    /// Numbers from one row under the kernel to the next.
    line: usize,
    /// The padded input, channels last.
    map: &'a [T],
    /// `[outputs, rows, width]`.
    sums: &'a mut [T],
}

impl<T: Lanes> WithSimd for Filters<'_, T> {
    type Output = ();

    /// With so many output channels as the registers hold beside a factor of each and a vector of
    /// the input.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let shape = (self.block.rows, self.block.vectors);
        if S::REGISTER_COUNT < 32 {
            match shape {
                (3, 1) => self.run::<S, 3, 1, 3>(simd),
                (3, _) => self.run::<S, 3, 2, 2>(simd),
                (_, 1) => self.run::<S, 1, 1, 6>(simd),
                (_, 2) => self.run::<S, 1, 2, 4>(simd),
                (_, 3) => self.run::<S, 1, 3, 3>(simd),
                (_, 4) => self.run::<S, 1, 4, 2>(simd),
                (_, _) => self.run::<S, 1, 5, 2>(simd),
            }
        } else {
            match shape {
                (3, 1) => self.run::<S, 3, 1, 6>(simd),
                (3, 2) => self.run::<S, 3, 2, 4>(simd),
                (3, 3) => self.run::<S, 3, 3, 2>(simd),
                (3, _) => self.run::<S, 3, 4, 2>(simd),
                (_, 1) => self.run::<S, 1, 1, 8>(simd),
                (_, 2) => self.run::<S, 1, 2, 8>(simd),
                (_, 3) => self.run::<S, 1, 3, 6>(simd),
                (_, 4) => self.run::<S, 1, 4, 4>(simd),
                (_, _) => self.run::<S, 1, 5, 4>(simd),
            }
        }
    }
}

impl<T: Lanes> Filters<'_, T> {
    /// With `D` rows of `V` vectors of the kernel and `O` output channels at a time.
    #[inline(always)]
    fn run<S: Simd, const D: usize, const V: usize, const O: usize>(mut self, simd: S) {
        let outputs = self.c.len() / (self.positions[0] * self.positions[1]);
        let whole = outputs - outputs % O;
        for first in (0..whole).step_by(O) {
            self.sum::<S, D, V, O>(simd, first);
        }
        for first in whole..outputs {
            self.sum::<S, D, V, 1>(simd, first);
        }
    }

    #[inline(always)]
    fn sum<S: Simd, const D: usize, const V: usize, const O: usize>(
        &mut self,
        simd: S,
        first: usize,
    ) {
        let mut sums = [[[T::splat(simd, T::ZERO); V]; O]; D];
        let ([height, width], [down, across]) = (self.positions, self.steps);
        let start = self.block.down * self.line + self.block.across;
        for row in 0..height {
            let c: [&[T]; O] = std::array::from_fn(|o| {
                let at = ((first + o) * height + row) * width;
                &self.c[at..][..width]
            });
            let map = self.map.get(start + row * down..).unwrap_or_default();
            under::<T, S, D, V, O>(simd, c, (map, across, self.line), &mut sums);
        }
        let (to, _) = T::vectors_mut::<S>(self.sums).as_chunks_mut::<V>();
        for (d, sums) in sums.iter().enumerate() {
            for (o, sums) in sums.iter().enumerate() {
                let to = &mut to[(first + o) * D + d];
                for v in 0..V {
                    to[v] = T::plus(simd, to[v], sums[v]);
                }
            }
        }
    }
}

/// Adds the products of a row of cotangents of some output channels with what is under them.
#[inline(always)]
fn under<T: Lanes, S: Simd, const D: usize, const V: usize, const O: usize>(
    simd: S,
    c: [&[T]; O],
    (map, across, line): (&[T], usize, usize),
    sums: &mut [[[T::Vector<S>; V]; O]; D],
) {
    for column in 0..c[0].len() {
        let mut factors = [T::splat(simd, T::ZERO); O];
        for (factor, c) in factors.iter_mut().zip(c) {
            // A panic here would keep the sums out of the registers; everything is in range.
            let Some(&c) = c.get(column) else { return };
            *factor = T::splat(simd, c);
        }
        for (d, sums) in sums.iter_mut().enumerate() {
            let run = map.get(column * across + d * line..).unwrap_or_default();
            let Some(run) = T::vectors::<S>(run).first_chunk::<V>() else {
                return;
            };
            for (sums, &factor) in sums.iter_mut().zip(&factors) {
                for v in 0..V {
                    sums[v] = T::multiply_add(simd, factor, run[v], sums[v]);
                }
            }
        }
    }
}

/// Adds `Σ c[o, p] t[tap, p]` of all output channels of a group and all taps to sums.
struct Positions<'a, T> {
    /// Where what every tap reads begins.
    places: &'a [usize],
    unfolded: &'a [T],
    c: &'a [T],
    /// Positions of an output channel, and which of them are unfolded.
    plane: usize,
    start: usize,
    run: usize,
    /// `[outputs, taps]`.
    sums: &'a mut [T],
}

/// Taps whose sums are kept in registers.
const TAPS: usize = 4;

impl<T: Lanes> WithSimd for Positions<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let outputs = self.c.len() / self.plane;
        let most = if S::REGISTER_COUNT < 32 { 2 } else { 4 };
        for first in (0..outputs).step_by(most) {
            let few = most.min(outputs - first);
            with_constant!(few, O in [1, 2, 3; 4] => self.run::<S, O>(simd, first));
        }
    }
}

impl<T: Lanes> Positions<'_, T> {
    /// The sums of `O` output channels.
    #[inline(always)]
    fn run<S: Simd, const O: usize>(&mut self, simd: S, first: usize) {
        let c: [&[T]; O] = std::array::from_fn(|o| {
            let at = (first + o) * self.plane + self.start;
            &self.c[at..][..self.run]
        });
        let taps = self.places.len();
        for (block, places) in self.places.chunks(TAPS).enumerate() {
            let t: [&[T]; TAPS] = std::array::from_fn(|tap| {
                let place = places[tap.min(places.len() - 1)];
                &self.unfolded[place..][..self.run]
            });
            let sums = dots::<T, S, O>(simd, c, t);
            for (o, sums) in sums.iter().enumerate() {
                let to = &mut self.sums[(first + o) * taps + block * TAPS..];
                for (to, &sum) in to.iter_mut().zip(sums).take(places.len()) {
                    *to += T::horizontal_sum(simd, sum);
                }
            }
        }
    }
}

/// The products of rows of equal lengths.
#[inline(always)]
fn dots<T: Lanes, S: Simd, const O: usize>(
    simd: S,
    c: [&[T]; O],
    t: [&[T]; TAPS],
) -> [[T::Vector<S>; TAPS]; O] {
    let mut sums = [[T::splat(simd, T::ZERO); TAPS]; O];
    let (length, lanes) = (c[0].len(), T::lanes::<S>());
    let whole = length / lanes;
    let vectors: [&[T::Vector<S>]; O] = c.map(|c| &T::vectors::<S>(c)[..whole]);
    let under: [&[T::Vector<S>]; TAPS] = t.map(|t| &T::vectors::<S>(t)[..whole]);
    for at in 0..whole {
        for o in 0..O {
            for tap in 0..TAPS {
                sums[o][tap] = T::multiply_add(simd, vectors[o][at], under[tap][at], sums[o][tap]);
            }
        }
    }
    if whole * lanes < length {
        let last = c.map(|c| T::load_part(simd, &c[whole * lanes..]));
        for (tap, t) in t.iter().enumerate() {
            let t = T::load_part(simd, &t[whole * lanes..]);
            for o in 0..O {
                sums[o][tap] = T::multiply_add(simd, last[o], t, sums[o][tap]);
            }
        }
    }
    sums
}
