//! What a node computes, as its user sees it.

use std::fmt;
use std::ops::RangeInclusive;

use super::builder::attribute;
use super::{Constant, Gate};
use crate::error::Result;

/// A rectangular window that moves over the two last axes of `[channels, height, width]`.
///
/// Along each axis, with padded length `L = before + n + after` and extent
/// `E = dilation (kernel − 1) + 1`, there are `⌊(L − E)/stride⌋ + 1` positions; with `ceil` it is
/// `⌈(L − E)/stride⌉ + 1`, less one if the last window would begin beyond the input and its padding
/// before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields)
)]
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

/// What a node computes from the nodes that it reads. Shapes are those of one sample, without a
/// batch axis.
///
/// It is exhaustive on purpose: a program that writes networks must say what it makes of every
/// operation. With the feature `serde` an operation is written as its attributes beside its
/// [`name`](Self::name), which is called `operation`; a gate is the operation `gate` with its own
/// name, which is called `gate`.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(tag = "operation", rename_all = "kebab-case", deny_unknown_fields)
)]
pub enum Operation {
    /// The input of the network.
    Input,
    /// `W x + b` along the last axis. Parameters `weight: [outputs, inputs]` and, with `bias`,
    /// `bias: [outputs]`.
    Dense {
        /// Whether there is a bias.
        bias: bool,
    },
    /// Cross-correlation of `[C, H, W]` with `weight: [outputs, C / groups, height, width]`, and
    /// `bias: [outputs]`.
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
    /// `scale (x − mean)/√(variance + epsilon) + shift` along an axis, with frozen mean and
    /// variance. Parameters `scale` and `shift`, constants `mean` and `variance`, each of the
    /// length of the axis.
    BatchNorm {
        /// Which axis; 0 for channels and for features.
        axis: usize,
        /// What keeps the root away from 0.
        epsilon: f64,
    },
    /// `s ⊙ x`, `s` broadcast to the shape of `x`; a parameter if `learned` and a constant if not,
    /// called `scale`.
    Scale {
        /// Whether it is a parameter.
        learned: bool,
    },
    /// `x + s`, `s` broadcast to the shape of `x`; a parameter if `learned` and a constant if not,
    /// called `shift`.
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
    /// Every entry is an entry of the flattened input, or `fill` where the constant `index` is −1.
    /// Slices, padding and repetition are made of it.
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

/// From one table, the names of an enumeration's variants and which has which; the last arm has its
/// names elsewhere.
macro_rules! names {
    ($type:ident { $($variant:pat => $name:literal,)* } $($other:pat => $elsewhere:expr)?) => {
        impl $type {
            /// The names of all of them.
            pub const NAMES: &'static [&'static str] = &[$($name),*];

            /// Its name in files and options.
            pub fn name(&self) -> &'static str {
                match self {
                    $($variant => $name,)*
                    $($other => $elsewhere,)?
                }
            }
        }
    };
}
pub(super) use names;

names!(Operation {
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
    Operation::MaxPool { .. } => "max-pool",
    Operation::Max { .. } => "max",
} Operation::Gate(gate) => gate.name());

/// An array that a node computes with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArraySpec {
    /// What it is to its node, such as `weight`.
    pub name: &'static str,
    /// Whether it is trained: a parameter, not a constant.
    pub learned: bool,
    /// Its shape, unless every one is allowed that can be broadcast to that of the value.
    pub shape: Option<Vec<usize>>,
}

impl Operation {
    /// Whether it is linear only region by region: a gate, or a maximum.
    pub fn selects(&self) -> bool {
        matches!(
            self,
            Operation::Gate(_) | Operation::MaxPool { .. } | Operation::Max { .. }
        )
    }

    /// Sees that a node of this name reads as many nodes as this operation does.
    ///
    /// # Errors
    /// [`Error::Attribute`](crate::Error::Attribute).
    pub fn check_inputs(&self, node: &str, found: usize) -> Result<()> {
        let reads = self.reads();
        if reads.contains(&found) {
            return Ok(());
        }
        let bound = if reads.end() > reads.start() {
            "at least "
        } else {
            ""
        };
        let problem = format!(
            "it reads {found} nodes, but `{self}` reads {bound}{}",
            reads.start()
        );
        Err(attribute(node, problem))
    }

    fn reads(&self) -> RangeInclusive<usize> {
        match self {
            Operation::Input => 0..=0,
            Operation::Add | Operation::Concat { .. } => 1..=usize::MAX,
            Operation::Dense { .. }
            | Operation::Conv2d { .. }
            | Operation::AveragePool { .. }
            | Operation::Mean { .. }
            | Operation::BatchNorm { .. }
            | Operation::Scale { .. }
            | Operation::Shift { .. }
            | Operation::Reshape
            | Operation::Transpose { .. }
            | Operation::Gather { .. }
            | Operation::Gate(_)
            | Operation::MaxPool { .. }
            | Operation::Max { .. } => 1..=1,
        }
    }

    /// The arrays of a node that reads a value of shape `input` first and whose own has the shape
    /// `output`, parameters in the order of [`Parameters::layout`](crate::Parameters::layout).
    pub fn arrays(&self, input: &[usize], output: &[usize]) -> Vec<ArraySpec> {
        let array = |learned, name, shape: &[usize]| ArraySpec {
            name,
            learned,
            shape: Some(shape.to_vec()),
        };
        let broadcast = |learned, name| ArraySpec {
            name,
            learned,
            shape: None,
        };
        let weight = |bias: bool, shape: &[usize]| {
            let bias = bias.then(|| array(true, "bias", &shape[..1]));
            [array(true, "weight", shape)]
                .into_iter()
                .chain(bias)
                .collect()
        };
        let length = |shape: &[usize], axis: usize| shape.get(axis).copied().unwrap_or(1);
        match self {
            Operation::Dense { bias } => {
                let [inputs, outputs] =
                    [input, output].map(|shape| shape.last().copied().unwrap_or(1));
                weight(*bias, &[outputs, inputs])
            }
            Operation::Conv2d {
                window,
                groups,
                bias,
            } => {
                let [height, width] = window.kernel;
                let channels = length(input, 0) / (*groups).max(1);
                weight(*bias, &[length(output, 0), channels, height, width])
            }
            Operation::BatchNorm { axis, .. } => {
                let arrays = [
                    (true, "scale"),
                    (true, "shift"),
                    (false, "mean"),
                    (false, "variance"),
                ];
                let along = [length(output, *axis)];
                arrays
                    .map(|(learned, name)| array(learned, name, &along))
                    .into()
            }
            Operation::Scale { learned } => vec![broadcast(*learned, "scale")],
            Operation::Shift { learned } => vec![broadcast(*learned, "shift")],
            Operation::Gather { .. } => vec![array(false, "index", output)],
            Operation::Gate(Gate::PRelu { .. }) => vec![broadcast(true, "slope")],
            Operation::Gate(
                Gate::Relu | Gate::LeakyRelu { .. } | Gate::Abs | Gate::Clip { .. },
            )
            | Operation::Input
            | Operation::AveragePool { .. }
            | Operation::Mean { .. }
            | Operation::Add
            | Operation::Concat { .. }
            | Operation::Reshape
            | Operation::Transpose { .. }
            | Operation::MaxPool { .. }
            | Operation::Max { .. } => Vec::new(),
        }
    }

    /// The numbers by which it computes, apart from arrays; epsilon is a part of the variance.
    pub fn numbers(&self) -> Vec<f64> {
        match self {
            Operation::Gather { fill } => vec![*fill],
            Operation::Gate(gate) => gate.numbers(),
            Operation::Input
            | Operation::Dense { .. }
            | Operation::Conv2d { .. }
            | Operation::AveragePool { .. }
            | Operation::Mean { .. }
            | Operation::BatchNorm { .. }
            | Operation::Scale { .. }
            | Operation::Shift { .. }
            | Operation::Add
            | Operation::Concat { .. }
            | Operation::Reshape
            | Operation::Transpose { .. }
            | Operation::MaxPool { .. }
            | Operation::Max { .. } => Vec::new(),
        }
    }

    /// Whether `f(t x) = t f(x)` for all `t > 0`, with these constants and any parameters.
    pub(crate) fn is_homogeneous(&self, constants: &[Constant]) -> bool {
        let all = |fits: fn(f64) -> bool| {
            let mut values = constants.iter().flat_map(Constant::values);
            values.all(|&v| fits(v))
        };
        match self {
            Operation::Dense { bias } | Operation::Conv2d { bias, .. } => !bias,
            Operation::Shift { learned } => !learned && all(|v| v == 0.0),
            Operation::BatchNorm { .. } => false,
            Operation::Gather { fill } => *fill == 0.0 || all(|place| place >= 0.0),
            Operation::Gate(gate) => gate.is_homogeneous(),
            Operation::Input
            | Operation::AveragePool { .. }
            | Operation::Mean { .. }
            | Operation::Scale { .. }
            | Operation::Add
            | Operation::Concat { .. }
            | Operation::Reshape
            | Operation::Transpose { .. }
            | Operation::MaxPool { .. }
            | Operation::Max { .. } => true,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}
