//! Convolutions without an unfolded input; their cotangents meet weights and inputs without those
//! that are zero.
//!
//! Behind a max-pooling of 2×2 at most a quarter of the cotangents differs from zero, behind a ReLU
//! about half. An entry `c[o, p]` at output channel `o` and position `p` meets the weight of `o`
//! and the entries under the kernel at `p`. With channels last in memory these are one run of
//! numbers for every row of the kernel, so both products are sums of scaled runs, which are kept in
//! registers: those of a position, `Σ_o c[o, p] W[o]`, and those of an output channel,
//! `Σ_p c[o, p] t[under p]`. Nothing is unfolded. Every sum runs in the order of channels,
//! positions, rows and samples.

mod forward;
mod kernels;
mod runs;
mod taps;

use pulp::Arch;

use self::kernels::{Scatter, Sums};
use self::runs::Runs;
use super::lanes::{Lanes, lanes};
use super::lhs::MaskedLhs;
use super::panels::{lines, room};
use super::scratch::Scratch;
use crate::buffer::Kept;
use crate::parallel::for_each_chunk;
use crate::scalar::Scalar;
use crate::tuning;

pub(crate) use taps::Taps;

/// A convolution in one group whose kernel is not dilated across.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Convolution {
    /// Channels, height and width of the input.
    pub(crate) input: [usize; 3],
    /// Channels, height and width of the output.
    pub(crate) output: [usize; 3],
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: [usize; 2],
    /// Rows of the input from one row of the kernel to the next.
    pub(crate) dilation: usize,
    /// Zeros before and behind each axis.
    pub(crate) padding: [[usize; 2]; 2],
}

/// Pieces of the batch whose weight gradients are summed one after the other, whatever the number
/// of threads.
const PIECES: usize = 8;

impl Convolution {
    /// Entries of a row of the input.
    fn inputs(&self) -> usize {
        self.input.iter().product()
    }

    /// Entries of a row of the output.
    fn outputs(&self) -> usize {
        self.output.iter().product()
    }

    fn positions(&self) -> usize {
        self.output[1] * self.output[2]
    }

    /// Numbers of a run: what a row of the kernel covers.
    fn run(&self) -> usize {
        self.kernel[1] * self.input[0]
    }

    /// Numbers of the weight of one output channel.
    fn taps(&self) -> usize {
        self.kernel[0] * self.run()
    }

    /// Numbers from one row of the padded input to the next, channels last.
    fn line(&self) -> usize {
        (self.input[2] + self.padding[1][0] + self.padding[1][1]) * self.input[0]
    }

    /// Numbers of the padded input and of what runs in whole vectors reach beyond it.
    fn map<T: Lanes>(&self) -> usize {
        let height = self.input[1] + self.padding[0][0] + self.padding[0][1];
        (height * self.line() + Runs::of::<T>(self).padded() - self.run()).next_multiple_of(64)
    }

    /// Where the entries under the kernel begin in the padded input.
    fn base(&self, down: usize, across: usize) -> usize {
        down * self.stride[0] * self.line() + across * self.stride[1] * self.input[0]
    }

    /// Whether sums of runs are faster than products with an unfolded input for these cotangents.
    pub(crate) fn is_profitable<T: Scalar>(&self, c: &[T], rows: usize) -> bool {
        if lanes::<T>() < 4 {
            return false;
        }
        let lost = Runs::of::<T>(self).padded() as f64 / self.run() as f64;
        MaskedLhs::of(c, rows, self.outputs()).activity() * lost < tuning::RUNS
    }

    /// `below ← Σ_o c[o] W[o]` at every position, or with `below` added;
    /// `c: [samples, rows, outputs]`.
    pub(in crate::product) fn transpose<T: Lanes>(
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
            let size = rows * self.map::<T>();
            let mut maps = room(size);
            let maps = lines(&mut maps, size);
            maps.fill(T::ZERO);
            for (block, weight) in runs.blocks(packed, self.output[0]) {
                let taps = &own.taps;
                Arch::new().dispatch(Scatter {
                    block,
                    taps,
                    weight,
                    c,
                    maps,
                    rows,
                    line: self.dilation * self.line(),
                });
            }
            let maps = maps.chunks_exact(self.map::<T>());
            for (map, below) in maps.zip(below.chunks_exact_mut(n)) {
                self.read_channels_last(map, accumulate, below);
            }
        });
    }

    /// Adds `scale Σ c[o, p] t[under p]` over all rows and positions to the gradient of the weight.
    pub(in crate::product) fn gradient<T: Lanes>(
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
            let mut map = room(self.map::<T>());
            let map = lines(&mut map, self.map::<T>());
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
                        Arch::new().dispatch(Sums {
                            block,
                            taps,
                            c,
                            map: &*map,
                            sums,
                            line: self.dilation * self.line(),
                        });
                    }
                }
            }
        });
        for sums in all.chunks_exact(size) {
            runs.unpack(sums, scale, gradient);
        }
    }

    /// Calls `f` with the place of every row of a channel and where its first entry is in the
    /// padded input.
    fn for_each_row(&self, mut f: impl FnMut(usize, usize)) {
        let [channels, height, width] = self.input;
        for row in 0..height {
            let line = (row + self.padding[0][0]) * self.line() + self.padding[1][0] * channels;
            for channel in 0..channels {
                f((channel * height + row) * width, line + channel);
            }
        }
    }

    /// Writes a row of the input into the padded one, channels last.
    fn write_channels_last<T: Lanes>(&self, t: &[T], map: &mut [T]) {
        let [channels, _, width] = self.input;
        self.for_each_row(|from, to| {
            let to = map[to..].iter_mut().step_by(channels);
            to.zip(&t[from..from + width]).for_each(|(to, &t)| *to = t);
        });
    }

    /// The reverse.
    fn read_channels_last<T: Lanes>(&self, map: &[T], accumulate: bool, below: &mut [T]) {
        let [channels, _, width] = self.input;
        self.for_each_row(|to, from| {
            let pairs = below[to..to + width]
                .iter_mut()
                .zip(map[from..].iter().step_by(channels));
            if accumulate {
                pairs.for_each(|(to, &from)| *to += from);
            } else {
                pairs.for_each(|(to, &from)| *to = from);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(channels: usize, outputs: usize, kernel: [usize; 2]) -> Convolution {
        Convolution {
            input: [channels, 6, 7],
            output: [outputs, 0, 0],
            kernel,
            stride: [1, 1],
            dilation: 1,
            padding: [[0, 0], [0, 0]],
        }
        .sized()
    }

    impl Convolution {
        /// With the output that the input has.
        fn sized(mut self) -> Convolution {
            for (axis, dilation) in [(0, self.dilation), (1, 1)] {
                let [before, after] = self.padding[axis];
                let extent = dilation * (self.kernel[axis] - 1) + 1;
                let free = self.input[1 + axis] + before + after - extent;
                self.output[1 + axis] = free / self.stride[axis] + 1;
            }
            self
        }

        /// Calls `f` with the places in a row of the output, in the weight and in a row of the
        /// input of all products.
        fn products(&self, mut f: impl FnMut(usize, usize, usize)) {
            let ([channels, height, width], [outputs, rows, columns]) = (self.input, self.output);
            let [down, across] = self.kernel;
            for at in 0..outputs * rows * columns * channels * down * across {
                let (tap, c) = (
                    at % (channels * down * across),
                    at / (channels * down * across),
                );
                let (channel, i, j) = (tap / (down * across), tap / across % down, tap % across);
                let (output, row, column) = (c / (rows * columns), c / columns % rows, c % columns);
                let y = row * self.stride[0] + i * self.dilation;
                let x = column * self.stride[1] + j;
                let y = y.checked_sub(self.padding[0][0]).filter(|&y| y < height);
                let x = x.checked_sub(self.padding[1][0]).filter(|&x| x < width);
                if let (Some(y), Some(x)) = (y, x) {
                    let weight = output * channels * down * across + tap;
                    f(c, weight, (channel * height + y) * width + x);
                }
            }
        }

        fn check<T: Lanes>(&self, (samples, rows): (usize, usize)) {
            let entry = |i: usize| T::from_f64((i * 5 % 7) as f64 - 3.0);
            let some = |length: usize| (0..length).map(entry).collect::<Vec<T>>();
            let (n, m, size) = (self.inputs(), self.outputs(), self.output[0] * self.taps());
            let (weight, t) = (some(size), some(samples * rows * n));
            let mut c = some(samples * rows * m);
            for (i, c) in c.iter_mut().enumerate() {
                if (i / (rows * m) * 31 + i % m * 17) % 5 < 3 {
                    *c = T::ZERO;
                }
            }
            let mut below = vec![T::ONE; samples * rows * n];
            let mut gradient = vec![T::ONE; size];
            let two = T::from_f64(2.0);
            for row in 0..samples * rows {
                self.products(|at, w, x| {
                    below[row * n + x] += c[row * m + at] * weight[w];
                    gradient[w] += two * c[row * m + at] * t[row * n + x];
                });
            }
            if self.stride == [1, 1] {
                self.check_forward(&weight, &t);
            }
            let mut found = vec![T::ONE; below.len()];
            self.transpose(rows, &weight, &c, true, &mut found);
            assert_eq!(found, below, "{self:?}");
            self.transpose(rows, &weight, &c, false, &mut found);
            assert!(
                found.iter().zip(&below).all(|(&f, &b)| f == b - T::ONE),
                "{self:?}"
            );
            let mut found = vec![T::ONE; size];
            self.gradient(rows, &c, &t, two, &mut found);
            assert_eq!(found, gradient, "{self:?}");
        }
    }

    impl Convolution {
        fn check_forward<T: Lanes>(&self, weight: &[T], input: &[T]) {
            let (n, m) = (self.inputs(), self.outputs());
            let bias: Vec<T> = (0..self.output[0]).map(|i| T::from_f64(i as f64)).collect();
            let mut out = vec![T::ZERO; input.len() / n * m];
            for (out, input) in out.chunks_exact_mut(m).zip(input.chunks_exact(n)) {
                self.products(|at, w, x| out[at] += weight[w] * input[x]);
            }
            let mut found = vec![T::ONE; out.len()];
            self.apply(weight, None, input, &mut found);
            assert_eq!(found, out, "{self:?}");
            let channel = |i: usize| i / (m / self.output[0]) % self.output[0];
            out.iter_mut()
                .enumerate()
                .for_each(|(i, out)| *out += bias[channel(i)]);
            self.apply(weight, Some(&bias), input, &mut found);
            assert_eq!(found, out, "{self:?}");
        }
    }

    #[test]
    fn products_equal_the_definition_for_every_shape_of_a_kernel() {
        for down in 1..=6 {
            for across in 1..=5 {
                for channels in [1, 2, 3, 5, 16, 21] {
                    shape(channels, 3, [down, across]).check::<f32>((2, 1));
                }
                shape(9, 11, [down, across]).check::<f64>((3, 2));
            }
        }
    }

    #[test]
    fn products_equal_the_definition_with_strides_dilation_and_padding() {
        let plain = shape(4, 3, [3, 2]);
        let strided = Convolution {
            stride: [2, 3],
            ..plain
        };
        let padded = Convolution {
            padding: [[2, 0], [1, 3]],
            ..strided
        };
        let dilated = Convolution {
            dilation: 2,
            padding: [[0, 1], [2, 2]],
            ..plain
        };
        let wide = Convolution {
            input: [2, 3, 40],
            padding: [[1, 1], [1, 1]],
            ..plain
        };
        for convolution in [strided, padded, dilated, wide] {
            convolution.sized().check::<f64>((11, 3));
            convolution.sized().check::<f32>((1, 2));
        }
    }

    #[test]
    fn samples_without_cotangents_have_no_part() {
        let convolution = shape(3, 2, [3, 3]);
        let (n, m) = (convolution.inputs(), convolution.outputs());
        let (weight, c) = (vec![1.0f32; 2 * convolution.taps()], vec![0.0; 2 * m]);
        let (mut below, mut gradient) = (vec![5.0; 2 * n], vec![5.0; weight.len()]);
        convolution.transpose(1, &weight, &c, false, &mut below);
        convolution.gradient(1, &c, &vec![1.0; 2 * n], 1.0, &mut gradient);
        assert!(below.iter().all(|&b| b == 0.0) && gradient.iter().all(|&g| g == 5.0));
    }
}
