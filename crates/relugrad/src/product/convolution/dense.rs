//! Convolutions and their transposes as dense products of packed weights with an unfolded input.
//!
//! A tile of a few output channels by a few vectors of positions is kept in registers while all
//! taps are added up, in the order of channels, rows and columns (Georganas et al., *Anatomy of
//! high-performance deep learning convolutions on SIMD architectures*, 2018). The transpose is the
//! convolution with turned weights; with a stride it is one for every place between two positions,
//! with the taps that reach it.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::Convolution;
use super::axis::Axis;
use super::tile::{MOST_ROWS, Tile, padded, tiles};
use super::unfold::Unfolding;
use crate::buffer::{Buffer, Kept};
use crate::parallel::for_each_chunk;
use crate::product::lanes::{Lanes, dispatch, lanes};
use crate::product::panels::Aligned;

/// A product of weights with what is unfolded.
#[derive(Clone, Copy, Debug)]
struct Part {
    /// Its positions, and the taps that reach them.
    axes: [Axis; 2],
    /// The row and column of the first position in the result.
    origin: [usize; 2],
    /// How many taps all products before it have, and how many it has.
    before: usize,
    taps: usize,
}

/// All products of a direction, with the place of every tap; threads keep them.
#[derive(Clone, Debug, Default)]
struct Parts {
    parts: Vec<Part>,
    places: Vec<usize>,
}

impl Parts {
    fn clear(&mut self) {
        self.parts.clear();
        self.places.clear();
    }

    fn push(&mut self, unfolding: &Unfolding, axes: [Axis; 2], origin: [usize; 2]) {
        let before = self.places.len();
        unfolding.places(axes, &mut self.places);
        self.parts.push(Part {
            axes,
            origin,
            before,
            taps: self.places.len() - before,
        });
    }
}

/// What a row needs, which threads keep.
#[derive(Clone, Debug, Default)]
struct Room<T> {
    unfolded: Aligned<T>,
    sums: Aligned<T>,
}

/// A direction of a convolution.
struct Direction<'a> {
    of: &'a Convolution,
    unfolding: Unfolding,
    parts: &'a Parts,
    /// Channels of a group that are written, height and width.
    target: [usize; 3],
    /// From a position of a product to the next.
    step: [usize; 2],
    /// From one of the channels that are written to the next in the weight, and of those that are
    /// read.
    strides: [usize; 2],
}

/// What becomes of sums.
#[derive(Clone, Copy)]
struct Finish<'a, T> {
    bias: Option<&'a [T]>,
    accumulate: bool,
}

impl Convolution {
    /// `out ← W ∗ input + bias`, row by row.
    pub(in crate::product) fn apply<T: Lanes>(
        &self,
        weight: &[T],
        bias: Option<&[T]>,
        input: &[T],
        out: &mut [T],
    ) {
        let ([channels, outputs], taps) = (self.group(), self.kernel[0] * self.kernel[1]);
        let axes = [0, 1].map(|axis| Axis::forward(self, axis));
        let unfolding = Unfolding::new::<T>(channels, axes, padded(outputs));
        let mut parts = Kept::<Parts>::take();
        parts.clear();
        parts.push(&unfolding, axes, [0, 0]);
        let direction = Direction {
            of: self,
            unfolding,
            parts: &parts,
            target: [outputs, self.output[1], self.output[2]],
            step: [1, 1],
            strides: [channels * taps, taps],
        };
        let accumulate = false;
        direction.run(weight, Finish { bias, accumulate }, input, out);
    }

    /// `below ← Wᵀ c`, row by row, or with `below` added.
    pub(super) fn transpose_dense<T: Lanes>(
        &self,
        weight: &[T],
        c: &[T],
        accumulate: bool,
        below: &mut [T],
    ) {
        let ([channels, outputs], taps) = (self.group(), self.kernel[0] * self.kernel[1]);
        let all = [0, 1].map(|axis| Axis::backward_all(self, axis));
        let unfolding = Unfolding::new::<T>(outputs, all, padded(channels));
        let mut parts = Kept::<Parts>::take();
        parts.clear();
        for down in 0..Axis::phases(self, 0) {
            for across in 0..Axis::phases(self, 1) {
                let rows = Axis::backward(self, 0, down);
                let columns = Axis::backward(self, 1, across);
                parts.push(&unfolding, [rows, columns], [down, across]);
            }
        }
        let direction = Direction {
            of: self,
            unfolding,
            parts: &parts,
            target: [channels, self.input[1], self.input[2]],
            step: self.stride,
            strides: [taps, channels * taps],
        };
        let bias = None;
        direction.run(weight, Finish { bias, accumulate }, c, below);
    }
}

impl Direction<'_> {
    fn run<T: Lanes>(&self, weight: &[T], finish: Finish<T>, source: &[T], out: &mut [T]) {
        let (groups, size) = (self.of.groups, self.packed());
        let mut packed = Buffer::uncleared(groups * size);
        for (group, weight) in weight.chunks_exact(weight.len() / groups).enumerate() {
            self.pack(weight, &mut packed[group * size..(group + 1) * size]);
        }
        let height = groups * self.target.iter().product::<usize>();
        let operations = out.len() / height * groups * self.multiply_adds() / 4;
        let width = source.len() / (out.len() / height);
        for_each_chunk(out, height, operations, |row, out| {
            self.row(&packed, finish, &source[row * width..][..width], out);
        });
    }

    /// Numbers of the packed weight of a group.
    fn packed(&self) -> usize {
        padded(self.target[0]) * self.parts.places.len()
    }

    /// Multiply-adds of a row of one group.
    fn multiply_adds(&self) -> usize {
        let positions = |part: &Part| part.axes[0].positions * part.axes[1].positions;
        let parts = self.parts.parts.iter();
        self.target[0] * parts.map(|part| positions(part) * part.taps).sum::<usize>()
    }

    /// The weight of a group as `[parts, tiles, taps, rows of a tile]`.
    fn pack<T: Lanes>(&self, weight: &[T], packed: &mut [T]) {
        let mut packed = packed.iter_mut();
        for part in &self.parts.parts {
            let [down, across] = part.axes;
            for (first, height) in tiles(self.target[0]) {
                for channel in 0..self.unfolding.channels {
                    let start = first * self.strides[0] + channel * self.strides[1];
                    for i in (0..down.taps).map(|tap| down.tap(tap)) {
                        for j in (0..across.taps).map(|tap| across.tap(tap)) {
                            let from = start + i * self.of.kernel[1] + j;
                            for (row, to) in packed.by_ref().take(height).enumerate() {
                                let weight = weight.get(from + row * self.strides[0]);
                                *to = weight.copied().unwrap_or(T::ZERO);
                            }
                        }
                    }
                }
            }
        }
    }

    /// A row of the result.
    fn row<T: Lanes>(&self, packed: &[T], finish: Finish<T>, source: &[T], out: &mut [T]) {
        let groups = self.of.groups;
        let (unfolding, plain) = (&self.unfolding, self.unfolding.is_plain());
        let size = if plain { 0 } else { unfolding.size() };
        let mut kept = Kept::<Room<T>>::take();
        let Room { unfolded, sums } = &mut *kept;
        let unfolded = unfolded.room(size);
        let sums = sums.room(self.sums::<T>());
        let source = source.chunks_exact(source.len() / groups);
        let out = out.chunks_exact_mut(out.len() / groups);
        for (group, (source, out)) in source.zip(out).enumerate() {
            let packed = &packed[group * self.packed()..(group + 1) * self.packed()];
            let finish = Finish {
                bias: finish.bias.map(|bias| &bias[group * self.target[0]..]),
                ..finish
            };
            for strip in unfolding.strips() {
                let from = if plain {
                    source
                } else {
                    unfolding.fill(strip.clone(), source, unfolded);
                    &*unfolded
                };
                self.strip(packed, (strip, from), finish, sums, out);
            }
        }
    }

    /// Room for the sums of a tile.
    fn sums<T: Lanes>(&self) -> usize {
        let run = self.unfolding.run(0..self.unfolding.strip);
        MOST_ROWS * run.next_multiple_of(lanes::<T>())
    }

    /// All products of a strip.
    fn strip<T: Lanes>(
        &self,
        packed: &[T],
        (strip, unfolded): (Range<usize>, &[T]),
        finish: Finish<T>,
        sums: &mut [T],
        out: &mut [T],
    ) {
        let (height, plane) = (self.target[0], self.target[1] * self.target[2]);
        for part in &self.parts.parts {
            let rows = strip.start..strip.end.min(part.axes[0].positions);
            if rows.is_empty() || part.axes[1].positions == 0 {
                continue;
            }
            let run = (rows.len() - 1) * self.unfolding.pitch() + part.axes[1].positions;
            let vectors = run.div_ceil(lanes::<T>());
            let length = vectors * lanes::<T>();
            let places = &self.parts.places[part.before..part.before + part.taps];
            let packed = &packed[part.before * padded(height)..];
            for (first, height) in tiles(height) {
                let sums = &mut sums[..height * length];
                dispatch(Tile {
                    height,
                    places,
                    weight: &packed[first * part.taps..(first + height) * part.taps],
                    unfolded,
                    vectors,
                    sums,
                });
                let planes = out[first * plane..].chunks_exact_mut(plane);
                for (row, (sums, out)) in sums.chunks_exact(length).zip(planes).enumerate() {
                    let bias = finish.bias.map_or(T::ZERO, |bias| bias[first + row]);
                    dispatch(Write {
                        direction: self,
                        part,
                        rows: rows.clone(),
                        sums: &sums[..run],
                        bias,
                        accumulate: finish.accumulate,
                        out,
                    });
                }
            }
        }
    }
}

/// Sums of one channel of the result at some rows of positions.
struct Write<'a, 'd, T> {
    direction: &'a Direction<'d>,
    part: &'a Part,
    rows: Range<usize>,
    sums: &'a [T],
    bias: T,
    accumulate: bool,
    out: &'a mut [T],
}

impl<T: Lanes> WithSimd for Write<'_, '_, T> {
    type Output = ();

    /// Writes them with the bias added.
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Direction { target, step, .. } = *self.direction;
        let (how, origin, width) = ((self.bias, self.accumulate), self.part.origin, target[2]);
        let (pitch, columns) = (
            self.direction.unfolding.pitch(),
            self.part.axes[1].positions,
        );
        if pitch == width && step == [1, 1] {
            let out = &mut self.out[self.rows.start * width..][..self.sums.len()];
            return put(self.sums, how, out.iter_mut());
        }
        for (row, sums) in self.rows.zip(self.sums.chunks(pitch)) {
            let out = &mut self.out[(origin[0] + row * step[0]) * width + origin[1]..];
            let sums = &sums[..columns];
            match step[1] {
                1 => put(sums, how, out[..columns].iter_mut()),
                across => put(sums, how, out.chunks_mut(across).map(|few| &mut few[0])),
            }
        }
    }
}

/// Writes sums with a bias added, or adds them to what is there.
#[inline(always)]
fn put<'o, T: Lanes>(
    sums: &[T],
    (bias, accumulate): (T, bool),
    out: impl Iterator<Item = &'o mut T>,
) {
    if accumulate {
        out.zip(sums).for_each(|(out, &sum)| *out += sum + bias);
    } else {
        out.zip(sums).for_each(|(out, &sum)| *out = sum + bias);
    }
}
