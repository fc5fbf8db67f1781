//! What a node computes, as its user sees it.

use std::fmt;

use super::Gate;

/// A rectangular window that moves over the two last axes of `[channels, height, width]`.
///
/// Along each axis, with padded length `L = before + n + after` and extent `E = dilation (kernel − 1) + 1`, there are
/// `⌊(L − E)/stride⌋ + 1` positions; with `ceil` it is `⌈(L − E)/stride⌉ + 1`, less one if the last window would begin
/// beyond the input and its padding before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Height and width.
    pub kernel: [usize; 2],
    /// Steps down and to the right.
    pub stride: [usize; 2],
    /// Distance between neighbouring taps.
    pub dilation: [usize; 2],
    /// Rows above and below, columns left and right: `[[top, bottom], [left, right]]`.
    pub padding: [[usize; 2]; 2],
    /// Whether a window that only just begins inside counts.
    pub ceil: bool,
}

impl Window {
    /// A window of this size with stride 1, without padding and dilation.
    pub fn new(kernel: [usize; 2]) -> Window {
        Window {
            kernel,
            stride: [1, 1],
            dilation: [1, 1],
            padding: [[0, 0], [0, 0]],
            ceil: false,
        }
    }

    /// The same window with another stride.
    pub fn stride(mut self, stride: [usize; 2]) -> Window {
        self.stride = stride;
        self
    }

    /// The same window with another dilation.
    pub fn dilation(mut self, dilation: [usize; 2]) -> Window {
        self.dilation = dilation;
        self
    }

    /// The same window with other padding, `[[top, bottom], [left, right]]`.
    pub fn padding(mut self, padding: [[usize; 2]; 2]) -> Window {
        self.padding = padding;
        self
    }

    /// The same window, rounding the number of positions up or down.
    pub fn ceil(mut self, ceil: bool) -> Window {
        self.ceil = ceil;
        self
    }
}

/// What a node computes from the nodes that it reads. Shapes are those of one sample, without a batch axis.
///
/// It is exhaustive on purpose: a program that writes networks must say what it makes of every operation.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// The input of the network.
    Input,
    /// `W x + b` along the last axis. Parameters `weight: [outputs, inputs]` and, with `bias`, `bias: [outputs]`.
    Dense {
        /// Whether there is a bias.
        bias: bool,
    },
    /// Cross-correlation of `[C, H, W]` with `weight: [outputs, C / groups, height, width]`, and `bias: [outputs]`.
    Conv2d {
        /// Size and movement of the kernel; padding is zero.
        window: Window,
        /// Groups of channels that see each other only.
        groups: usize,
        /// Whether there is a bias.
        bias: bool,
    },
    /// Mean over windows of `[C, H, W]`.
    AveragePool {
        /// Size and movement of the window.
        window: Window,
        /// Whether padding counts among the entries that the sum is divided by.
        count_padding: bool,
    },
    /// Mean over axes, which disappear.
    Mean {
        /// Which axes, in ascending order.
        axes: Vec<usize>,
    },
    /// `scale (x − mean)/√(variance + epsilon) + shift` along an axis, with frozen mean and variance. Parameters `scale`
    /// and `shift`, constants `mean` and `variance`, each of the length of the axis.
    BatchNorm {
        /// Which axis; 0 for channels and for features.
        axis: usize,
        /// What keeps the root away from 0.
        epsilon: f64,
    },
    /// `s ⊙ x`, `s` broadcast to the shape of `x`; a parameter if `learned` and a constant if not, called `scale`.
    Scale {
        /// Whether it is a parameter.
        learned: bool,
    },
    /// `x + s`, `s` broadcast to the shape of `x`; a parameter if `learned` and a constant if not, called `shift`.
    Shift {
        /// Whether it is a parameter.
        learned: bool,
    },
    /// The elementwise sum of nodes.
    Add,
    /// Nodes side by side along an axis.
    Concat {
        /// Which axis.
        axis: usize,
    },
    /// The same values in the same order under another shape.
    Reshape,
    /// The axes in another order.
    Transpose {
        /// Which axis of the input comes where.
        axes: Vec<usize>,
    },
    /// Every entry is an entry of the flattened input, or `fill` where the constant `index` is −1. Slices, padding and
    /// repetition are made of it.
    Gather {
        /// What stands where there is no entry.
        fill: f64,
    },
    /// A gate on every unit.
    Gate(Gate),
    /// Maximum over windows of `[C, H, W]`; padding never wins.
    MaxPool {
        /// Size and movement of the window.
        window: Window,
    },
    /// Maximum over an axis, which disappears (maxout).
    Max {
        /// Which axis.
        axis: usize,
    },
}

impl Operation {
    /// Its name in files.
    pub fn name(&self) -> &'static str {
        match self {
            Operation::Input => "input",
            Operation::Dense { .. } => "dense",
            Operation::Conv2d { .. } => "conv2d",
            Operation::AveragePool { .. } => "average-pool",
            Operation::Mean { .. } => "mean",
            Operation::BatchNorm { .. } => "batch-norm",
            Operation::Scale { .. } => "scale",
            Operation::Shift { .. } => "shift",
            Operation::Add => "add",
            Operation::Concat { .. } => "concat",
            Operation::Reshape => "reshape",
            Operation::Transpose { .. } => "transpose",
            Operation::Gather { .. } => "gather",
            Operation::Gate(gate) => gate.name(),
            Operation::MaxPool { .. } => "max-pool",
            Operation::Max { .. } => "max",
        }
    }

    /// Whether it selects: a gate, or a maximum.
    pub fn selects(&self) -> bool {
        matches!(
            self,
            Operation::Gate(_) | Operation::MaxPool { .. } | Operation::Max { .. }
        )
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}
