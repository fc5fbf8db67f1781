//! Rows of the input with channels last, and zeros around them.

use super::Convolution;
use super::runs::Runs;
use crate::product::lanes::Lanes;
use crate::product::panels::transpose_rows;

/// The most times that an input may take with the zeros around it, if it has so many entries.
const PADDED: usize = 16;
const SMALL: usize = 64;

impl Convolution {
    /// Whether what a row of the kernel covers is one run, and padding is not most of the input.
    pub(super) fn has_runs(&self) -> bool {
        let padded = |axis: usize| self.input[1 + axis] + self.padding[axis].iter().sum::<usize>();
        let plane = (self.input[1] * self.input[2]).max(SMALL);
        let is_run = self.groups == 1 && (self.dilation[1] == 1 || self.kernel[1] == 1);
        is_run && padded(0).saturating_mul(padded(1)) <= PADDED * plane
    }

    /// Numbers of a run: what a row of the kernel covers.
    pub(super) fn run(&self) -> usize {
        self.kernel[1] * self.input[0]
    }

    /// Numbers from one row of the padded input to the next, channels last.
    pub(super) fn line(&self) -> usize {
        (self.input[2] + self.padding[1][0] + self.padding[1][1]) * self.input[0]
    }

    /// Numbers of the padded input and of what runs in whole vectors reach beyond it.
    pub(super) fn map(&self, runs: &Runs) -> usize {
        let height = self.input[1] + self.padding[0][0] + self.padding[0][1];
        (height * self.line() + runs.padded() - self.run()).next_multiple_of(64)
    }

    /// Where the entries under the kernel begin in the padded input.
    pub(super) fn base(&self, down: usize, across: usize) -> usize {
        down * self.stride[0] * self.line() + across * self.stride[1] * self.input[0]
    }

    /// Where the first entry of a row of the input is in the padded one.
    fn start(&self, row: usize) -> usize {
        (row + self.padding[0][0]) * self.line() + self.padding[1][0] * self.input[0]
    }

    /// Writes a row of the input into the padded one, channels last.
    pub(super) fn write_channels_last<T: Lanes>(&self, t: &[T], map: &mut [T]) {
        let [channels, height, width] = self.input;
        for row in 0..height {
            let (rows, to) = (&t[row * width..], &mut map[self.start(row)..]);
            let pitch = height * width;
            transpose_rows(rows, (channels, pitch, width), channels, to);
        }
    }

    /// The reverse.
    pub(super) fn read_channels_last<T: Lanes>(
        &self,
        map: &[T],
        accumulate: bool,
        below: &mut [T],
    ) {
        let [channels, height, width] = self.input;
        for (i, below) in below.chunks_exact_mut(width).enumerate() {
            let from = map[self.start(i % height) + i / height..].iter();
            let pairs = below.iter_mut().zip(from.step_by(channels));
            if accumulate {
                pairs.for_each(|(to, &from)| *to += from);
            } else {
                pairs.for_each(|(to, &from)| *to = from);
            }
        }
    }
}
