//! The convolution itself, for windows that move by one entry.
//!
//! The sums of a few vectors of positions and of a few output channels are kept in registers; every
//! tap adds the vectors of the input that lie under it, times its weights. Vectors run along rows
//! of the output, or over the ends of rows where that takes fewer of them: what stands between two
//! rows is computed and not used.

use pulp::{Arch, Simd, WithSimd};

use super::Convolution;
use crate::buffer::{Buffer, Kept};
use crate::parallel::for_each_chunk;
use crate::product::lanes::{Lanes, lanes};
use crate::product::panels::{lines, room};
use crate::product::scratch::Scratch;
use crate::scalar::Scalar;
use crate::tuning;

/// Output channels, and vectors of positions, of which sums are kept in registers.
const OUTPUTS: usize = 8;
const VECTORS: usize = 3;

/// Which positions make vectors.
#[derive(Clone, Copy, Debug)]
struct Positions {
    /// Rows of vectors and how many each has; one row if they run over the ends of rows.
    rows: usize,
    vectors: usize,
    /// Sums from one row of the output to the next.
    pitch: usize,
    lanes: usize,
}

impl Positions {
    fn of<T: Scalar>(of: &Convolution) -> Positions {
        let ([_, rows, columns], lanes) = (of.output, lanes::<T>());
        let width = of.width();
        let along = columns.div_ceil(lanes);
        let over = ((rows - 1) * width + columns).div_ceil(lanes);
        if rows * along <= over {
            let pitch = along * lanes;
            Positions {
                rows,
                vectors: along,
                pitch,
                lanes,
            }
        } else {
            Positions {
                rows: 1,
                vectors: over,
                pitch: width,
                lanes,
            }
        }
    }

    /// Sums of one output channel.
    fn sums(&self) -> usize {
        self.rows * self.vectors * self.lanes
    }

    /// Where every vector begins in a padded plane of so wide rows.
    fn starts(self, width: usize) -> impl Iterator<Item = usize> {
        let Positions {
            rows,
            vectors,
            lanes,
            ..
        } = self;
        (0..rows).flat_map(move |row| (0..vectors).map(move |v| row * width + v * lanes))
    }
}

impl Convolution {
    /// Columns of a padded plane.
    fn width(&self) -> usize {
        self.input[2] + self.padding[1][0] + self.padding[1][1]
    }

    /// Numbers of a padded plane.
    fn plane(&self) -> usize {
        (self.input[1] + self.padding[0][0] + self.padding[0][1]) * self.width()
    }

    /// Whether the convolution is faster this way than as a product with an unfolded input.
    pub(crate) fn is_profitable_forward<T: Scalar>(&self) -> bool {
        let (outputs, (most, lost)) = (self.output[0], tuning::DIRECT);
        let sums = outputs.next_multiple_of(OUTPUTS) * Positions::of::<T>(self).sums();
        lanes::<T>() >= 4
            && self.stride == [1, 1]
            && self.kernel != [1, 1]
            && outputs <= most
            && sums as f64 <= lost * self.outputs() as f64
    }

    /// `out ← W ∗ input + bias`, row by row, for a stride of 1.
    pub(in crate::product) fn apply<T: Lanes>(
        &self,
        weight: &[T],
        bias: Option<&[T]>,
        input: &[T],
        out: &mut [T],
    ) {
        let positions = Positions::of::<T>(self);
        let (outputs, taps) = (self.output[0].next_multiple_of(OUTPUTS), self.taps());
        let mut packed = Buffer::zeros(outputs * taps);
        self.pack_by_tap(weight, &mut packed);
        let mut own = Kept::<Scratch<T>>::take();
        own.places.clear();
        own.places.extend(self.places());
        let operations = out.len() * taps / 4;
        let (n, m) = (self.inputs(), self.outputs());
        for_each_chunk(out, m, operations, |row, out| {
            let reach = positions.sums() + positions.lanes;
            let mut padded = Buffer::zeros(self.input[0] * self.plane() + reach);
            self.pad(&input[row * n..(row + 1) * n], &mut padded);
            let mut sums = room(OUTPUTS * positions.sums());
            let sums = lines(&mut sums, OUTPUTS * positions.sums());
            for (group, weight) in packed.chunks_exact(OUTPUTS * taps).enumerate() {
                let channels = group * OUTPUTS..self.output[0].min((group + 1) * OUTPUTS);
                let padded = &padded;
                Arch::new().dispatch(Group {
                    width: self.width(),
                    positions,
                    places: &own.places,
                    weight,
                    padded,
                    sums,
                });
                let size = out.len() / self.output[0];
                let out = &mut out[channels.start * size..channels.end * size];
                self.take_rows(positions, bias.map(|bias| &bias[channels]), sums, out);
            }
        });
    }

    /// Where the input of every tap is from the first under the kernel, in the order of the weight.
    fn places(&self) -> impl Iterator<Item = u32> {
        let ([channels, ..], [rows, columns]) = (self.input, self.kernel);
        let (plane, line) = (self.plane(), self.dilation * self.width());
        let across = move |row: usize| (0..columns).map(move |column| row + column);
        let down =
            move |channel: usize| (0..rows).flat_map(move |row| across(channel + row * line));
        let places = (0..channels).flat_map(move |channel| down(channel * plane));
        places.map(|place| place as u32)
    }

    /// The weight as `[groups, taps, outputs of a group]`.
    fn pack_by_tap<T: Lanes>(&self, weight: &[T], packed: &mut [T]) {
        let taps = self.taps();
        for (output, weight) in weight.chunks_exact(taps).enumerate() {
            let group = &mut packed[output / OUTPUTS * OUTPUTS * taps..];
            let to = group[output % OUTPUTS..].iter_mut().step_by(OUTPUTS);
            to.zip(weight).for_each(|(to, &weight)| *to = weight);
        }
    }

    /// Copies every channel of a row of the input to where zeros surround it.
    fn pad<T: Lanes>(&self, input: &[T], padded: &mut [T]) {
        let [_, height, width] = self.input;
        for (i, row) in input.chunks_exact(width).enumerate() {
            let (channel, row_of) = (i / height, i % height + self.padding[0][0]);
            let at = channel * self.plane() + row_of * self.width() + self.padding[1][0];
            padded[at..at + width].copy_from_slice(row);
        }
    }

    /// Copies the sums of some output channels to their places, and adds their biases.
    fn take_rows<T: Lanes>(
        &self,
        positions: Positions,
        bias: Option<&[T]>,
        sums: &[T],
        out: &mut [T],
    ) {
        let [_, rows, columns] = self.output;
        let channels = out.chunks_exact_mut(rows * columns);
        for (i, (out, sums)) in channels
            .zip(sums.chunks_exact(positions.sums()))
            .enumerate()
        {
            let bias = bias.map_or(T::ZERO, |bias| bias[i]);
            let sums = sums.chunks(positions.pitch);
            for (out, sums) in out.chunks_exact_mut(columns).zip(sums) {
                out.iter_mut()
                    .zip(sums)
                    .for_each(|(out, &sum)| *out = sum + bias);
            }
        }
    }
}

/// The sums of a group of output channels at all positions.
struct Group<'a, T> {
    /// Columns of the padded input.
    width: usize,
    positions: Positions,
    /// Where every tap's input is from the first under the kernel.
    places: &'a [u32],
    /// `[taps, OUTPUTS]`.
    weight: &'a [T],
    padded: &'a [T],
    /// `[OUTPUTS, positions]`.
    sums: &'a mut [T],
}

impl<T: Lanes> WithSimd for Group<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let mut starts = self.positions.starts(self.width);
        let mut first = 0;
        loop {
            let mut few = [0; VECTORS];
            let found = few
                .iter_mut()
                .zip(&mut starts)
                .map(|(to, start)| *to = start)
                .count();
            match found {
                0 => return,
                1 => self.run::<S, 1>(simd, first, [few[0]]),
                2 => self.run::<S, 2>(simd, first, [few[0], few[1]]),
                _ => self.run::<S, VECTORS>(simd, first, few),
            }
            first += found;
        }
    }
}

impl<T: Lanes> Group<'_, T> {
    /// The sums of `V` vectors of positions, of which `first` is the first of all.
    #[inline(always)]
    fn run<S: Simd, const V: usize>(&mut self, simd: S, first: usize, starts: [usize; V]) {
        let (weights, _) = self.weight.as_chunks::<OUTPUTS>();
        let sums = products(simd, (self.places, weights), self.padded, starts);
        let length = self.positions.sums();
        for (sums, to) in sums.iter().zip(self.sums.chunks_exact_mut(length)) {
            let to = &mut T::vectors_mut::<S>(to)[first..first + V];
            to.copy_from_slice(sums);
        }
    }
}

/// The sums of the products of all taps, given by their places in the padded input and their
/// weights.
#[inline(always)]
fn products<T: Lanes, S: Simd, const V: usize>(
    simd: S,
    (places, weights): (&[u32], &[[T; OUTPUTS]]),
    padded: &[T],
    starts: [usize; V],
) -> [[T::Vector<S>; V]; OUTPUTS] {
    let mut sums = [[T::splat(simd, T::ZERO); V]; OUTPUTS];
    let runs = starts.map(|start| padded.get(start..).unwrap_or_default());
    for (&place, weights) in places.iter().zip(weights) {
        let mut vectors = [T::splat(simd, T::ZERO); V];
        let mut found = true;
        for v in 0..V {
            let run = runs[v].get(place as usize..).unwrap_or_default();
            match T::vectors::<S>(run).first() {
                Some(&vector) => vectors[v] = vector,
                None => found = false,
            }
        }
        // A panic would keep the sums out of the registers; everything is in range.
        if !found {
            break;
        }
        for o in 0..OUTPUTS {
            let weight = T::splat(simd, weights[o]);
            for v in 0..V {
                sums[o][v] = T::multiply_add(simd, weight, vectors[v], sums[o][v]);
            }
        }
    }
    sums
}
