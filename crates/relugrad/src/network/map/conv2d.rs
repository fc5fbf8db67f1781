//! Two-dimensional cross-correlation with padding, stride, dilation and groups.
//!
//! A row is unfolded into the matrix whose column `p` holds the entries under the kernel at
//! position `p`; the three sweeps are then products of that matrix, or of its transpose, with the
//! weight (Chellapilla, Puri & Simard 2006).

use std::borrow::Cow;

use ndarray::{Array1, Array4};

use super::{Accumulate, AffineMap, Cost, Map, SweepContext};
use crate::buffer::Buffer;
#[cfg(doc)]
use crate::error::Error;
use crate::error::{Result, check_shape};
use crate::network::builder::{Builder, New, attribute};
use crate::network::{NodeId, Operation, Window, shapes};
use crate::parallel::for_each_chunk;
use crate::product::{
    Convolution, a_b_serial, a_bt_serial, at_b_serial, convolution_gradient, convolve,
    convolve_back,
};
use crate::scalar::Scalar;

/// Pieces of the batch whose weight gradients are summed one after the other, whatever the number
/// of threads.
const PIECES: usize = 8;

/// A convolution layer; its weight is `[outputs, channels / groups, kernel height, kernel width]`.
#[derive(Clone, Debug)]
pub(crate) struct Conv2d {
    pub(crate) window: Window,
    pub(crate) groups: usize,
    /// Channels, height and width of the input.
    pub(crate) input: [usize; 3],
    /// Channels, height and width of the output.
    pub(crate) output: [usize; 3],
    /// Where the weight starts in the flat vector of all parameters.
    pub(crate) weight: usize,
    /// Where the bias starts, if there is one.
    pub(crate) bias: Option<usize>,
}

/// A row with zeros around it, and unfolded.
struct Unfolded<T: Scalar> {
    padded: Buffer<T>,
    unfolded: Buffer<T>,
}

impl Conv2d {
    /// Entries of one row of the input.
    fn inputs(&self) -> usize {
        self.input.iter().product()
    }

    /// Entries of one row of the output.
    fn outputs(&self) -> usize {
        self.output.iter().product()
    }

    /// Positions of the kernel.
    fn positions(&self) -> usize {
        self.output[1] * self.output[2]
    }

    /// Entries under the kernel in one group.
    fn taps(&self) -> usize {
        self.input[0] / self.groups * self.window.kernel[0] * self.window.kernel[1]
    }

    /// Output channels of one group.
    fn group_outputs(&self) -> usize {
        self.output[0] / self.groups
    }

    fn group_weight<'p, T>(&self, weights: &'p [T], group: usize) -> &'p [T] {
        let size = self.group_outputs() * self.taps();
        &weights[group * size..(group + 1) * size]
    }

    /// Multiply-adds of one row.
    pub(crate) fn multiply_adds(&self) -> usize {
        self.outputs() * self.taps()
    }

    pub(crate) fn weights<'p, T>(&self, parameters: &'p [T]) -> &'p [T] {
        &parameters[self.weight..self.weight + self.output[0] * self.taps()]
    }

    /// Whether the unfolded input is the input itself.
    fn pointwise(&self) -> bool {
        let w = &self.window;
        w.kernel == [1, 1] && w.stride == [1, 1] && w.padding == [[0, 0], [0, 0]]
    }

    /// The same as sums of runs, for one group whose kernel is not dilated across.
    fn convolution(&self) -> Option<Convolution> {
        let w = &self.window;
        (self.groups == 1 && (w.dilation[1] == 1 || w.kernel[1] == 1)).then_some(Convolution {
            input: self.input,
            output: self.output,
            kernel: w.kernel,
            stride: w.stride,
            dilation: w.dilation[0],
            padding: w.padding,
        })
    }

    /// The same if cotangents are worth it.
    fn sparse<T: Scalar>(&self, c: &[T], rows: usize) -> Option<Convolution> {
        self.convolution()
            .filter(|convolution| convolution.is_profitable(c, rows))
    }

    /// Unfolds one group of one row into `[taps, positions]`.
    fn unfold<'b, T: Scalar>(&self, input: &[T], buffers: &'b mut Unfolded<T>) -> &'b [T] {
        let (positions, columns) = (self.positions(), self.output[2]);
        let Unfolded { padded, unfolded } = buffers;
        let width = self.pad(input, padded);
        unfolded.resize(self.taps() * positions + PIECE, T::ZERO);
        self.rows(|place, source, across| {
            let out = &mut unfolded[place..place + columns + PIECE];
            let Some(row) = source else {
                return out[..columns].fill(T::ZERO);
            };
            let from = &padded[row * width + across..];
            match self.window.stride[1] {
                // Whole pieces are copied faster than what is wanted of them; the rest is
                // overwritten by the next row.
                1 => {
                    for at in (0..columns).step_by(PIECE) {
                        out[at..at + PIECE].copy_from_slice(&from[at..at + PIECE]);
                    }
                }
                stride => {
                    let from = from.iter().step_by(stride);
                    let out = &mut out[..columns];
                    out.iter_mut().zip(from).for_each(|(to, &from)| *to = from);
                }
            }
        });
        &unfolded[..self.taps() * positions]
    }

    /// The transpose of [`unfold`](Self::unfold), added to one group of one row.
    fn fold<T: Scalar>(&self, unfolded: &[T], padded: &mut Vec<T>, out: &mut [T]) {
        let (columns, stride) = (self.output[2], self.window.stride[1]);
        let [before, after] = self.window.padding[1];
        let width = self.input[2] + before + after;
        padded.clear();
        padded.resize(out.len() / self.input[2] * width, T::ZERO);
        self.rows(|place, source, across| {
            let Some(row) = source else {
                return;
            };
            let from = &unfolded[place..place + columns];
            let to = &mut padded[row * width + across..(row + 1) * width];
            if stride == 1 {
                add(from, &mut to[..columns]);
            } else {
                let to = to.iter_mut().step_by(stride);
                to.zip(from).for_each(|(to, &from)| *to += from);
            }
        });
        let rows = out.chunks_exact_mut(self.input[2]);
        for (out, padded) in rows.zip(padded.chunks_exact(width)) {
            let from = &padded[before..before + out.len()];
            out.iter_mut().zip(from).for_each(|(to, &from)| *to += from);
        }
    }

    /// Copies the rows of one group with zeros before and behind them; the result is the width of a
    /// row with them.
    fn pad<T: Scalar>(&self, input: &[T], padded: &mut Vec<T>) -> usize {
        let [before, after] = self.window.padding[1];
        let width = self.input[2] + before + after;
        padded.resize(input.len() / self.input[2] * width + PIECE, T::ZERO);
        let rows = input.chunks_exact(self.input[2]);
        for (to, from) in padded.chunks_exact_mut(width).zip(rows) {
            to[..before].fill(T::ZERO);
            to[before..before + from.len()].copy_from_slice(from);
            to[before + from.len()..].fill(T::ZERO);
        }
        width
    }

    /// Calls `f(place, row, column)` for every row of every tap's plane in the unfolded matrix of a
    /// group: where it starts, which row of the group's input it is (none in the padding above and
    /// below), and at which column of it, padding counted, it starts.
    fn rows(&self, mut f: impl FnMut(usize, Option<usize>, usize)) {
        let height = self.input[1];
        let [_, rows, columns] = self.output;
        let w = &self.window;
        let mut place = 0;
        for channel in 0..self.input[0] / self.groups {
            for down in 0..w.kernel[0] {
                for across in 0..w.kernel[1] {
                    for row in 0..rows {
                        let i = row * w.stride[0] + down * w.dilation[0];
                        let i = i.checked_sub(w.padding[0][0]).filter(|&i| i < height);
                        f(
                            place,
                            i.map(|i| channel * height + i),
                            across * w.dilation[1],
                        );
                        place += columns;
                    }
                }
            }
        }
    }

    /// Room to unfold a row.
    fn room<T: Scalar>(&self) -> Unfolded<T> {
        let unfolded = self.taps() * self.positions() + PIECE;
        Unfolded {
            padded: Buffer::with_room(if self.pointwise() { 0 } else { self.inputs() }),
            unfolded: Buffer::with_room(if self.pointwise() { 0 } else { unfolded }),
        }
    }

    /// Calls `f` with the unfolded matrix of every group of a row.
    fn for_each_group<T: Scalar>(
        &self,
        input: &[T],
        buffers: &mut Unfolded<T>,
        mut f: impl FnMut(usize, &[T]),
    ) {
        for (group, input) in input.chunks_exact(input.len() / self.groups).enumerate() {
            if self.pointwise() {
                f(group, input);
            } else {
                f(group, self.unfold(input, buffers));
            }
        }
    }
    /// Adds the gradient of the weight by products with unfolded rows.
    fn unfolded_gradient<T: Scalar>(&self, c: &[T], t: &[T], scale: T, weight: &mut [T]) {
        let (n, m, p, taps) = (self.inputs(), self.outputs(), self.positions(), self.taps());
        let (rows, size) = (c.len() / m, self.output[0] * taps);
        let piece = rows.div_ceil(PIECES).max(1);
        let mut sums = Buffer::zeros(rows.div_ceil(piece) * size);
        for_each_chunk(&mut sums, size, rows * self.multiply_adds(), |k, sum| {
            let mut room = self.room();
            for row in k * piece..rows.min((k + 1) * piece) {
                let (c, t) = (&c[row * m..(row + 1) * m], &t[row * n..(row + 1) * n]);
                self.for_each_group(t, &mut room, |group, unfolded| {
                    let rows = self.group_outputs();
                    let c = &c[group * rows * p..(group + 1) * rows * p];
                    let sum = &mut sum[group * rows * taps..(group + 1) * rows * taps];
                    a_bt_serial((rows, p, taps), c, unfolded, true, sum);
                });
            }
        });
        for sum in sums.chunks_exact(size) {
            weight
                .iter_mut()
                .zip(sum)
                .for_each(|(to, &s)| *to += scale * s);
        }
    }
}

/// Numbers that are copied at once.
const PIECE: usize = 16;

/// Adds few numbers to as many.
fn add<T: Scalar>(from: &[T], to: &mut [T]) {
    let ((from, from_rest), (to, to_rest)) = (from.as_chunks::<8>(), to.as_chunks_mut::<8>());
    for (to, from) in to.iter_mut().zip(from) {
        for i in 0..8 {
            to[i] += from[i];
        }
    }
    let pairs = to_rest.iter_mut().zip(from_rest);
    pairs.for_each(|(to, &from)| *to += from);
}

/// The sum of some numbers, in an order that vectors can follow.
fn total<T: Scalar>(values: &[T]) -> T {
    let (blocks, rest) = values.as_chunks::<16>();
    let mut sums = [T::ZERO; 16];
    for block in blocks {
        sums.iter_mut()
            .zip(block)
            .for_each(|(sum, &value)| *sum += value);
    }
    sums.iter()
        .chain(rest)
        .fold(T::ZERO, |sum, &value| sum + value)
}

impl<T: Scalar> AffineMap<T> for Conv2d {
    fn cost(&self, width: usize) -> Cost {
        Cost {
            multiply_adds: self.multiply_adds(),
            terms: self.multiply_adds() / width,
        }
    }

    fn factors<'p>(&self, parameters: &'p [T]) -> Cow<'p, [T]> {
        Cow::Borrowed(self.weights(parameters))
    }

    fn apply(&self, at: SweepContext<T>, inputs: &[&[T]], offset: bool, out: &mut [T]) {
        let parameters = at.parameters;
        let (n, p, weights) = (self.inputs(), self.positions(), self.weights(parameters));
        let direct = self
            .convolution()
            .filter(Convolution::is_profitable_forward::<T>);
        if let Some(direct) = direct {
            let start = self.bias.filter(|_| offset);
            let bias = start.map(|start| &parameters[start..start + self.output[0]]);
            return convolve(&direct, weights, bias, inputs[0], out);
        }
        let operations = out.len() * self.taps();
        for_each_chunk(out, self.outputs(), operations, |row, out| {
            let bias = self.bias.filter(|_| offset);
            for (channel, out) in out.chunks_exact_mut(p).enumerate() {
                out.fill(bias.map_or(T::ZERO, |start| parameters[start + channel]));
            }
            let input = &inputs[0][row * n..(row + 1) * n];
            self.for_each_group(input, &mut self.room(), |group, unfolded| {
                let rows = self.group_outputs();
                let out = &mut out[group * rows * p..(group + 1) * rows * p];
                let weight = self.group_weight(weights, group);
                a_b_serial((rows, self.taps(), p), weight, unfolded, true, out);
            });
        });
    }

    fn transpose(&self, at: SweepContext<T>, _: usize, c: &[T], accumulate: bool, below: &mut [T]) {
        let parameters = at.parameters;
        let (m, p, taps) = (self.outputs(), self.positions(), self.taps());
        let (weights, rows) = (self.weights(parameters), self.group_outputs());
        if let Some(sparse) = self.sparse(c, at.rows) {
            return convolve_back(&sparse, at.rows, weights, c, accumulate, below);
        }
        let operations = c.len() * taps;
        for_each_chunk(below, self.inputs(), operations, |row, below| {
            if !accumulate {
                below.fill(T::ZERO);
            }
            let c = &c[row * m..(row + 1) * m];
            let groups = below.chunks_exact_mut(self.inputs() / self.groups);
            let Unfolded { padded, unfolded } = &mut self.room();
            for (group, below) in groups.enumerate() {
                let c = &c[group * rows * p..(group + 1) * rows * p];
                let weight = self.group_weight(weights, group);
                if self.pointwise() {
                    at_b_serial((rows, taps, p), weight, c, true, below);
                } else {
                    unfolded.resize(taps * p, T::ZERO);
                    at_b_serial((rows, taps, p), weight, c, false, unfolded);
                    self.fold(unfolded, padded, below);
                }
            }
        });
    }

    fn gradient(
        &self,
        at: SweepContext<T>,
        c: &[T],
        t: &[T],
        how: Accumulate<T>,
        gradient: &mut [T],
    ) {
        let scale = how.scale;
        let weight = self.weight..self.weight + self.output[0] * self.taps();
        let weight = &mut gradient[weight];
        match self.sparse(c, at.rows) {
            Some(sparse) => convolution_gradient(&sparse, at.rows, c, t, scale, weight),
            None => self.unfolded_gradient(c, t, scale, weight),
        }
        let Some(start) = self.bias.filter(|_| how.offset) else {
            return;
        };
        let bias = &mut gradient[start..start + self.output[0]];
        for row in c.chunks_exact(self.outputs()) {
            for (sum, c) in bias.iter_mut().zip(row.chunks_exact(self.positions())) {
                *sum += scale * total(c);
            }
        }
    }
}

impl<T: Scalar> Builder<T> {
    /// Two-dimensional cross-correlation of `[C, H, W]`;
    /// `weight: [outputs, C / groups, height, width]`, whose last two must be the window's kernel;
    /// `bias: [outputs]`. Padding is zero; the window must not round up.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::Attribute`], [`Error::ZeroWidth`], [`Error::TooWide`],
    /// [`Error::NotFinite`], and [`Error::UnknownNode`].
    pub fn conv2d(
        &mut self,
        node: NodeId,
        weight: Array4<T>,
        bias: Option<Array1<T>>,
        window: Window,
        groups: usize,
    ) -> Result<NodeId> {
        let name = self.name("conv2d");
        let input = self.image(&name, node)?;
        let outputs = weight.shape()[0];
        if groups == 0 || !input[0].is_multiple_of(groups) || !outputs.is_multiple_of(groups) {
            let problem = format!(
                "{groups} groups do not divide its {} input and {outputs} output channels",
                input[0]
            );
            return Err(attribute(&name, problem));
        }
        if window.ceil {
            return Err(attribute(&name, "a convolution does not round up"));
        }
        let [height, width] = window.kernel;
        let expected = [outputs, input[0] / groups, height, width];
        check_shape(&format!("{name}.weight"), &expected, weight.shape())?;
        let [rows, columns] = self.positions(&name, &window, [input[1], input[2]])?;
        let output = [outputs, rows, columns];
        let operation = Operation::Conv2d {
            window,
            groups,
            bias: bias.is_some(),
        };
        shapes::width(&name, &output)?;
        let weight = self.parameter(&name, "weight", weight.view())?;
        let bias = self.bias(&name, bias, outputs)?;
        let map = Map::Conv2d(Conv2d {
            window,
            groups,
            input,
            output,
            weight,
            bias,
        });
        self.push(New::named(&name, operation, map), &[node], &output)
    }
}
