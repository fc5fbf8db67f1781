//! How a kernel is cut into blocks whose sums fit into the registers.

use super::Convolution;
use crate::product::lanes::{Lanes, lanes, registers};
use crate::scalar::Scalar;

/// The blocks of a kernel, its channels last: several rows, and some vectors of the run of each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Runs {
    /// Channels and columns of the kernel, which make a run, and its rows.
    channels: usize,
    columns: usize,
    rows: usize,
    /// Blocks of a run.
    across: usize,
    /// Vectors of a block's part of a run, and the numbers in a vector.
    vectors: usize,
    lanes: usize,
    /// The most rows of a block.
    most: usize,
}

/// Part of a kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    /// Its first row, and its first number in every run.
    pub(super) down: usize,
    pub(super) across: usize,
    /// How many rows it has: 1, 3 or 5.
    pub(super) rows: usize,
    /// Vectors of its part of a run: 1 to 5.
    pub(super) vectors: usize,
}

/// The most vectors of a block's part of a run.
const VECTORS: usize = 5;

impl Runs {
    pub(super) fn of<T: Scalar>(of: &Convolution) -> Runs {
        let vectors = of.run().div_ceil(lanes::<T>());
        let across = vectors.div_ceil(VECTORS);
        let vectors = vectors.div_ceil(across);
        let most = match (registers(), vectors) {
            (32.., _) | (_, ..=2) => 5,
            (_, ..=4) => 3,
            _ => 1,
        };
        Runs {
            channels: of.input[0],
            columns: of.kernel[1],
            rows: of.kernel[0],
            across,
            vectors,
            lanes: lanes::<T>(),
            most,
        }
    }

    /// The same in blocks whose sums for at least two output channels fit into the registers.
    pub(super) fn of_filters<T: Scalar>(of: &Convolution) -> Runs {
        let runs = Runs::of::<T>(of);
        let fits = match registers() {
            32.. => runs.vectors <= 4,
            _ => runs.vectors <= 2,
        };
        let most = if fits { 3 } else { 1 };
        Runs { most, ..runs }
    }

    /// How many times as many numbers as a run has its blocks have.
    pub(super) fn lost(&self) -> f64 {
        self.padded() as f64 / (self.channels * self.columns) as f64
    }

    /// Numbers of a run in whole blocks.
    pub(super) fn padded(&self) -> usize {
        self.across * self.width()
    }

    /// Numbers of the weight of one output channel in whole blocks.
    pub(super) fn weight(&self) -> usize {
        self.rows * self.padded()
    }

    /// Numbers of a block's part of a run.
    fn width(&self) -> usize {
        self.vectors * self.lanes
    }

    /// All blocks, in the order in which they are stored.
    fn all(self) -> impl Iterator<Item = Block> {
        let from = move |down: usize| match self.rows - down {
            0 => None,
            5.. if self.most >= 5 => Some((down, 5)),
            3.. if self.most >= 3 => Some((down, 3)),
            _ => Some((down, 1)),
        };
        let down = std::iter::successors(from(0), move |&(down, rows)| from(down + rows));
        down.flat_map(move |(down, rows)| {
            (0..self.across).map(move |i| Block {
                down,
                across: i * self.width(),
                rows,
                vectors: self.vectors,
            })
        })
    }

    /// Each block with its part of a packed weight, `[outputs, rows, width]`.
    pub(super) fn blocks<T>(
        self,
        mut packed: &[T],
        outputs: usize,
    ) -> impl Iterator<Item = (Block, &[T])> {
        self.all().map(move |block| {
            let (part, rest) = packed.split_at(outputs * block.rows * self.width());
            packed = rest;
            (block, part)
        })
    }

    /// The same of one that is written.
    pub(super) fn blocks_mut<T>(
        self,
        mut packed: &mut [T],
        outputs: usize,
    ) -> impl Iterator<Item = (Block, &mut [T])> {
        self.all().map(move |block| {
            let length = outputs * block.rows * self.width();
            let (part, rest) = std::mem::take(&mut packed).split_at_mut(length);
            packed = rest;
            (block, part)
        })
    }

    /// Packs a weight `[outputs, channels, rows, columns]`; what fills the blocks up is 0.
    pub(super) fn pack<T: Lanes>(self, weight: &[T], packed: &mut [T]) {
        packed.fill(T::ZERO);
        let outputs = packed.len() / self.weight();
        for (block, part) in self.blocks_mut(packed, outputs) {
            self.for_each(block, outputs, |place, at| part[place] = weight[at]);
        }
    }

    /// Adds `scale` times a packed weight to one as above.
    pub(super) fn unpack<T: Lanes>(self, packed: &[T], scale: T, weight: &mut [T]) {
        let outputs = packed.len() / self.weight();
        for (block, part) in self.blocks(packed, outputs) {
            self.for_each(block, outputs, |place, at| {
                weight[at] += scale * part[place];
            });
        }
    }

    /// Calls `f` with the place of every number of a block in its packed part and in the weight.
    fn for_each(&self, block: Block, outputs: usize, mut f: impl FnMut(usize, usize)) {
        let plane = self.rows * self.columns;
        for output in 0..outputs {
            for row in 0..block.rows {
                let place = (output * block.rows + row) * self.width();
                let at = output * self.channels * plane + (block.down + row) * self.columns;
                for column in 0..self.columns {
                    let start = column * self.channels;
                    let end = start + self.channels;
                    let part = start.max(block.across)..end.min(block.across + self.width());
                    for number in part {
                        let channel = number - start;
                        f(place + number - block.across, at + channel * plane + column);
                    }
                }
            }
        }
    }
}
