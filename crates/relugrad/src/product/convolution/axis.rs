//! Which entries the taps of a kernel read along one axis.

use super::Convolution;

/// Taps at equal distances: tap `t` reads the entry `step · position + start + t · apart`, if there
/// is one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    /// Entries that are read, and positions that read them.
    pub(super) entries: usize,
    pub(super) positions: usize,
    pub(super) step: usize,
    pub(super) start: isize,
    pub(super) apart: isize,
    pub(super) taps: usize,
    /// Which of the kernel the first tap is, and how many it is to the next.
    first: usize,
    every: usize,
}

impl Axis {
    /// What positions of the output read of the input.
    pub(super) fn forward(of: &Convolution, axis: usize) -> Axis {
        Axis {
            entries: of.input[1 + axis],
            positions: of.output[1 + axis],
            step: of.stride[axis],
            start: -(of.padding[axis][0] as isize),
            apart: of.dilation[axis] as isize,
            taps: of.kernel[axis],
            first: 0,
            every: 1,
        }
    }

    /// What the entries `phase`, `phase + stride`, … of the input read of the output: with `i` taps
    /// of the kernel and output `p`, the entry `stride · p + dilation · i − padding`.
    pub(super) fn backward(of: &Convolution, axis: usize, phase: usize) -> Axis {
        let (taps, stride) = (of.kernel[axis], of.stride[axis] as isize);
        let (dilation, before) = (of.dilation[axis] as isize, of.padding[axis][0] as isize);
        let from = |tap: usize| phase as isize + before - tap as isize * dilation;
        let first = (0..taps.min(of.stride[axis])).find(|&tap| from(tap) % stride == 0);
        let every = stride / divisor(stride, dilation);
        let first = first.unwrap_or(taps);
        Axis {
            entries: of.output[1 + axis],
            positions: (of.input[1 + axis].saturating_sub(phase)).div_ceil(of.stride[axis]),
            step: 1,
            start: if first < taps {
                from(first) / stride
            } else {
                0
            },
            apart: -(every * dilation / stride),
            taps: (taps - first).div_ceil(every as usize),
            first,
            every: every as usize,
        }
    }

    /// How many of the latter there are.
    pub(super) fn phases(of: &Convolution, axis: usize) -> usize {
        of.stride[axis].min(of.input[1 + axis])
    }

    /// One that reads what all of them read.
    pub(super) fn backward_all(of: &Convolution, axis: usize) -> Axis {
        let first = Axis::backward(of, axis, 0);
        if of.stride[axis] == 1 {
            let (start, apart) = (first.at(first.taps - 1), -first.apart);
            return Axis {
                start,
                apart,
                ..first
            };
        }
        let phases = 1..Axis::phases(of, axis);
        let others = phases.map(|phase| Axis::backward(of, axis, phase));
        let some = std::iter::once(first)
            .chain(others)
            .filter(|axis| axis.taps > 0);
        let ends = some.map(|axis| (axis.at(axis.taps - 1), axis.start));
        let ends = ends.reduce(|(least, most), (a, b)| (least.min(a), most.max(b)));
        let (start, taps) = ends.map_or((0, 0), |(least, most)| (least, most - least + 1));
        Axis {
            start,
            apart: 1,
            taps: taps as usize,
            ..first
        }
    }

    /// Which tap of the kernel a tap is.
    pub(super) fn tap(&self, tap: usize) -> usize {
        self.first + tap * self.every
    }

    /// What a tap reads at the position 0.
    pub(super) fn at(&self, tap: usize) -> isize {
        self.start + tap as isize * self.apart
    }

    /// The tap that reads the entry `at` at the position 0.
    pub(super) fn tap_at(&self, at: isize) -> usize {
        ((at - self.start) / self.apart) as usize
    }

    /// How many taps read entries that differ by less than whole steps from those of all others
    /// before them; all later ones differ from one of theirs by whole steps.
    pub(super) fn residues(&self) -> usize {
        let step = self.step as isize;
        self.taps.min((step / divisor(step, self.apart)) as usize)
    }

    /// The least and the largest whole number of steps at which taps read, for positive distances.
    fn ends(&self) -> (isize, isize) {
        let last = self.at(self.taps.max(1) - 1);
        let step = self.step as isize;
        (self.start.div_euclid(step), last.div_euclid(step))
    }

    /// The least of them.
    pub(super) fn least(&self) -> isize {
        self.ends().0
    }

    /// Steps from the first to the last of them.
    pub(super) fn span(&self) -> usize {
        let (least, most) = self.ends();
        (most - least) as usize
    }
}

/// The greatest common divisor of two positive numbers.
fn divisor(a: isize, b: isize) -> isize {
    if b == 0 { a } else { divisor(b, a % b) }
}
