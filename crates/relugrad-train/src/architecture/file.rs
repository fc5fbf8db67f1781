//! Descriptions in TOML files.

use relugrad::{Gate, Window};
use serde::Deserialize;

use super::{Architecture, Layer, problem};
use crate::error::Result;

/// A file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    layers: Vec<Entry>,
}

/// One number for both axes, or one for each.
#[derive(Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Pair {
    Both(usize),
    Each([usize; 2]),
}

impl Pair {
    fn each(self) -> [usize; 2] {
        match self {
            Pair::Both(n) => [n, n],
            Pair::Each(pair) => pair,
        }
    }
}

/// A layer in a file.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
enum Entry {
    Dense {
        outputs: usize,
        #[serde(default = "yes")]
        bias: bool,
    },
    Conv {
        outputs: usize,
        kernel: Pair,
        stride: Option<Pair>,
        padding: Option<Pair>,
        dilation: Option<Pair>,
        groups: Option<usize>,
        #[serde(default = "yes")]
        bias: bool,
    },
    Relu {},
    LeakyRelu {
        slope: f64,
    },
    Prelu {
        initial: Option<f64>,
    },
    Abs {},
    Clip {
        min: f64,
        max: f64,
    },
    MaxPool {
        kernel: Pair,
        stride: Option<Pair>,
        padding: Option<Pair>,
    },
    AveragePool {
        kernel: Pair,
        stride: Option<Pair>,
        padding: Option<Pair>,
    },
    GlobalAverage {},
    Maxout {
        pieces: usize,
    },
    BatchNorm {},
    Residual {
        layers: Vec<Entry>,
        #[serde(default)]
        shortcut: Vec<Entry>,
    },
}

fn yes() -> bool {
    true
}

impl Architecture {
    /// Reads a description in TOML: an array of tables `layers`, each with a `kind`. A dense layer to the logits is added.
    ///
    /// | kind | keys |
    /// | --- | --- |
    /// | `dense` | `outputs`, `bias` (default true) |
    /// | `conv` | `outputs`, `kernel`, `stride` (1), `padding` (0), `dilation` (1), `groups` (1), `bias` (true) |
    /// | `relu`, `abs` | |
    /// | `leaky-relu` | `slope` |
    /// | `prelu` | `initial` (0.25) |
    /// | `clip` | `min`, `max` |
    /// | `max-pool`, `average-pool` | `kernel`, `stride` (the kernel), `padding` (0) |
    /// | `global-average` | |
    /// | `maxout` | `pieces` |
    /// | `batch-norm` | |
    /// | `residual` | `layers`, `shortcut` (none: the value itself) |
    ///
    /// Sizes are one number for both axes or `[down, across]`.
    ///
    /// ```
    /// use relugrad_train::Architecture;
    ///
    /// let text = r#"
    ///     [[layers]]
    ///     kind = "conv"
    ///     outputs = 8
    ///     kernel = 3
    ///     padding = 1
    ///     [[layers]]
    ///     kind = "relu"
    ///     [[layers]]
    ///     kind = "residual"
    ///     layers = [{ kind = "conv", outputs = 8, kernel = 3, padding = 1 }, { kind = "relu" }]
    /// "#;
    /// let network = Architecture::from_toml(text)?.build::<f32>(&[1, 8, 8], 10, 0)?;
    /// assert_eq!(network.outputs(), 10);
    /// # Ok::<(), relugrad_train::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Architecture`](crate::Error::Architecture) with the line that cannot be understood.
    pub fn from_toml(text: &str) -> Result<Architecture> {
        let file: File = toml::from_str(text).map_err(|error| problem(error.to_string()))?;
        Ok(Architecture {
            name: "toml".into(),
            memory: super::FILE,
            layers: layers(file.layers),
        })
    }
}

fn layers(entries: Vec<Entry>) -> Vec<Layer> {
    entries.into_iter().map(layer).collect()
}

fn layer(entry: Entry) -> Layer {
    match entry {
        Entry::Dense { outputs, bias } => Layer::Dense { outputs, bias },
        Entry::Conv {
            outputs,
            kernel,
            stride,
            padding,
            dilation,
            groups,
            bias,
        } => Layer::Conv {
            outputs,
            window: window(kernel, stride.unwrap_or(Pair::Both(1)), padding)
                .dilation(dilation.unwrap_or(Pair::Both(1)).each()),
            groups: groups.unwrap_or(1),
            bias,
        },
        Entry::Relu {} => Layer::Gate(Gate::Relu),
        Entry::LeakyRelu { slope } => Layer::Gate(Gate::LeakyRelu { slope }),
        Entry::Prelu { initial } => Layer::Gate(Gate::PRelu {
            initial: initial.unwrap_or(0.25),
        }),
        Entry::Abs {} => Layer::Gate(Gate::Abs),
        Entry::Clip { min, max } => Layer::Gate(Gate::Clip { min, max }),
        Entry::MaxPool {
            kernel,
            stride,
            padding,
        } => Layer::MaxPool(window(kernel, stride.unwrap_or(kernel), padding)),
        Entry::AveragePool {
            kernel,
            stride,
            padding,
        } => Layer::AveragePool(window(kernel, stride.unwrap_or(kernel), padding)),
        Entry::GlobalAverage {} => Layer::GlobalAverage,
        Entry::Maxout { pieces } => Layer::Maxout { pieces },
        Entry::BatchNorm {} => Layer::BatchNorm,
        Entry::Residual {
            layers: branch,
            shortcut,
        } => Layer::Residual {
            layers: layers(branch),
            shortcut: layers(shortcut),
        },
    }
}

fn window(kernel: Pair, stride: Pair, padding: Option<Pair>) -> Window {
    let padding = padding.unwrap_or(Pair::Both(0)).each().map(|p| [p, p]);
    Window::new(kernel.each())
        .stride(stride.each())
        .padding(padding)
}
