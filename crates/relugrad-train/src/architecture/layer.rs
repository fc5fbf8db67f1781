//! Layers as files describe them.

use relugrad::{Gate, Window};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use toml::Table;

use super::{Architecture, problem};
use crate::error::Result;

/// A layer; gates follow the affine ones as layers of their own.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(
    remote = "Self",
    tag = "kind",
    rename_all = "kebab-case",
    deny_unknown_fields
)]
pub(super) enum Layer {
    /// A dense layer on all values.
    Dense {
        outputs: usize,
        #[serde(default = "yes")]
        bias: bool,
    },
    /// A convolution.
    Conv(Conv),
    /// A gate on every unit, whose kind is its name.
    #[serde(skip)]
    Gate(Gate),
    MaxPool(Pool),
    AveragePool(Pool),
    /// The mean over an image.
    GlobalAverage {},
    /// Maximum of each `pieces` neighbouring channels or units.
    Maxout {
        pieces: usize,
    },
    /// A learned factor and summand for every channel: batch normalisation with its statistics
    /// frozen at 0 and 1.
    BatchNorm {},
    /// The sum of two branches; an empty shortcut is the value itself.
    Residual {
        layers: Vec<Layer>,
        #[serde(default)]
        shortcut: Vec<Layer>,
    },
}

/// A convolution.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Conv {
    pub(super) outputs: usize,
    pub(super) kernel: Pair,
    #[serde(default = "one")]
    pub(super) stride: Pair,
    #[serde(default)]
    pub(super) padding: Pair,
    #[serde(default = "one")]
    pub(super) dilation: Pair,
    #[serde(default = "single")]
    pub(super) groups: usize,
    #[serde(default = "yes")]
    pub(super) bias: bool,
}

/// The window of a pooling, which moves by its own size if not told otherwise.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pool {
    pub(super) kernel: Pair,
    stride: Option<Pair>,
    #[serde(default)]
    padding: Pair,
}

/// One number for both axes, or one for each.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub(super) enum Pair {
    Both(usize),
    Each([usize; 2]),
}

impl Default for Pair {
    fn default() -> Pair {
        Pair::Both(0)
    }
}

fn one() -> Pair {
    Pair::Both(1)
}

fn single() -> usize {
    1
}

fn yes() -> bool {
    true
}

impl Pair {
    fn each(self) -> [usize; 2] {
        match self {
            Pair::Both(n) => [n, n],
            Pair::Each(pair) => pair,
        }
    }
}

impl Conv {
    /// A convolution with a square kernel and a bias.
    pub(super) fn new(outputs: usize, kernel: usize) -> Conv {
        Conv {
            outputs,
            kernel: Pair::Both(kernel),
            stride: one(),
            padding: Pair::default(),
            dilation: one(),
            groups: 1,
            bias: true,
        }
    }

    pub(super) fn window(&self) -> Window {
        window(self.kernel, self.stride, self.padding).dilation(self.dilation.each())
    }
}

impl Pool {
    /// Squares side by side.
    pub(super) fn new(kernel: usize) -> Pool {
        Pool {
            kernel: Pair::Both(kernel),
            stride: None,
            padding: Pair::default(),
        }
    }

    pub(super) fn window(&self) -> Window {
        window(
            self.kernel,
            self.stride.unwrap_or(self.kernel),
            self.padding,
        )
    }
}

fn window(kernel: Pair, stride: Pair, padding: Pair) -> Window {
    Window::new(kernel.each())
        .stride(stride.each())
        .padding(padding.each().map(|p| [p, p]))
}

impl<'de> Deserialize<'de> for Layer {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Layer, D::Error> {
        let table = Table::deserialize(from)?;
        let kind = table.get("kind").and_then(toml::Value::as_str);
        match kind.filter(|kind| Gate::NAMES.contains(kind)) {
            Some(kind) => gate(kind.to_owned(), table).map_err(D::Error::custom),
            None => Layer::deserialize(table).map_err(|error| {
                let (text, others) = (error.to_string(), "expected one of ");
                let text = match text.starts_with("unknown variant") {
                    true => {
                        text.replace(others, &format!("{others}`{}`, ", Gate::NAMES.join("`, `")))
                    }
                    false => text,
                };
                D::Error::custom(text.trim())
            }),
        }
    }
}

/// The gate of this kind, if the table has its options and no others.
fn gate(kind: String, mut table: Table) -> std::result::Result<Layer, toml::de::Error> {
    table.remove("kind");
    let keys: Vec<String> = table.keys().cloned().collect();
    table.insert("gate".into(), kind.into());
    let gate: Gate = table.try_into()?;
    let own = Table::try_from(gate).map_err(toml::de::Error::custom)?;
    match keys
        .iter()
        .find(|key| *key == "gate" || !own.contains_key(*key))
    {
        None => Ok(Layer::Gate(gate)),
        Some(key) => Err(toml::de::Error::custom(format!("unknown field `{key}`"))),
    }
}

/// A file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    layers: Vec<Layer>,
}

impl Architecture {
    /// Reads a description in TOML: an array of tables `layers`, each with a `kind`. A dense layer
    /// to the logits is added.
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
            layers: file.layers,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(layers: &str) -> String {
        let text = format!("layers = [{layers}]");
        Architecture::from_toml(&text).unwrap_err().to_string()
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (layers, said) in [
            ("{ kind = \"dense\" }", "missing field `outputs`"),
            (
                "{ kind = \"dense\", outputs = 3, slope = 1 }",
                "unknown field `slope`",
            ),
            ("{ kind = \"conv\", outputs = 3 }", "missing field `kernel`"),
            (
                "{ kind = \"conv\", outputs = 3, kernel = 3, window = 2 }",
                "unknown field `window`",
            ),
            ("{ kind = \"leaky-relu\" }", "missing field `slope`"),
            ("{ kind = \"relu\", slope = 1.0 }", "unknown field `slope`"),
            (
                "{ kind = \"relu\", gate = \"abs\" }",
                "unknown field `gate`",
            ),
            (
                "{ kind = \"batch-norm\", slope = 1.0 }",
                "unknown field `slope`",
            ),
            (
                "{ kind = \"softplus\" }",
                "unknown variant `softplus`, expected one of `relu`, `leaky-relu`, ",
            ),
            ("{ kind = \"gate\" }", "unknown variant `gate`"),
            ("{ outputs = 3 }", "missing field `kind`"),
            (
                "{ kind = \"residual\", layers = [{ kind = \"dense\" }] }",
                "missing field `outputs`",
            ),
        ] {
            let error = refused(layers);
            assert!(error.contains(said), "{error}");
            assert!(error.contains("line 1"), "{error}");
        }
    }

    #[test]
    fn every_gate_is_a_layer() {
        for name in Gate::NAMES {
            let options = match *name {
                "leaky-relu" => ", slope = 0.5",
                "clip" => ", min = -1, max = 1",
                _ => "",
            };
            let text = format!("layers = [{{ kind = \"{name}\"{options} }}]");
            let read = Architecture::from_toml(&text).unwrap();
            assert!(matches!(&read.layers[..], [Layer::Gate(gate)] if gate.name() == *name));
        }
    }
}
