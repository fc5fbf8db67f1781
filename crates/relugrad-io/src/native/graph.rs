//! The graph as JSON: what format 1 says about each node.
//!
//! ```json
//! {"format": 1, "nodes": [
//!   {"name": "input", "operation": "input", "inputs": [], "width": 2},
//!   {"name": "dense0", "operation": "dense", "inputs": ["input"], "width": 3, "bias": true},
//!   {"name": "leaky-relu0", "operation": "leaky-relu", "inputs": ["dense0"], "width": 3, "slope": 0.01}]}
//! ```
//!
//! A node whose value has several axes has a `shape` too, whose product is the width. A new operation has its attributes
//! in [`Attributes::of`] and [`Node::operation`], and an arm in `read`. A new attribute is an optional field of
//! [`Attributes`]. Programs that do not know them refuse them by name, so neither
//! needs a new format number; that is for a change in the meaning of what there is.

use std::collections::HashSet;

use relugrad::{Gate, Network, Operation, Scalar, Window};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The format that is written, and the latest that can be read.
pub const FORMAT: u64 = 1;

/// The largest width of a node. It keeps sums of widths far from overflow.
pub const MAX_WIDTH: usize = 1 << 31;

/// Every operation of the format with the attributes that it has.
const OPERATIONS: &[(&str, &str)] = &[
    ("input", "no attributes"),
    ("dense", "the attribute `bias` (true or false) and no other"),
    (
        "conv2d",
        "the attributes `window`, `groups` and `bias` and no others",
    ),
    (
        "average-pool",
        "the attributes `window` and `count_padding` and no others",
    ),
    ("mean", "the attribute `axes` and no other"),
    (
        "batch-norm",
        "the attributes `axis` and `epsilon` and no others",
    ),
    (
        "scale",
        "the attribute `learned` (true or false) and no other",
    ),
    (
        "shift",
        "the attribute `learned` (true or false) and no other",
    ),
    ("add", "no attributes"),
    ("concat", "the attribute `axis` and no other"),
    ("reshape", "no attributes"),
    ("transpose", "the attribute `axes` and no other"),
    ("gather", "the attribute `fill` (a number) and no other"),
    ("relu", "no attributes"),
    (
        "leaky-relu",
        "the attribute `slope` (a number) and no other",
    ),
    ("prelu", "no attributes"),
    ("abs", "no attributes"),
    (
        "clip",
        "the attributes `min` and `max` (numbers) and no others",
    ),
    ("max-pool", "the attribute `window` and no other"),
    ("max", "the attribute `axis` and no other"),
];

/// A network without its weights.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Graph {
    format: u64,
    /// In the order of evaluation; the first is the input and the last the output.
    pub(super) nodes: Vec<Node>,
}

/// A node as it stands in the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(try_from = "serde_json::Map<String, serde_json::Value>")]
pub(super) struct Node {
    pub(super) name: String,
    operation: String,
    /// Names of the nodes whose values it takes.
    pub(super) inputs: Vec<String>,
    pub(super) width: usize,
    /// Its axes, if they are not one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) shape: Option<Vec<usize>>,
    #[serde(flatten)]
    attributes: Attributes,
}

/// What a node has besides, if its operation asks for it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Attributes {
    #[serde(skip_serializing_if = "Option::is_none")]
    axes: Option<Vec<usize>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    axis: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bias: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count_padding: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epsilon: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fill: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    learned: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    slope: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<FileWindow>,
}

/// A [`Window`] in a file; `padding` is `[[top, bottom], [left, right]]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileWindow {
    kernel: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
    padding: [[usize; 2]; 2],
    ceil: bool,
}

impl From<Window> for FileWindow {
    fn from(window: Window) -> FileWindow {
        let Window {
            kernel,
            stride,
            dilation,
            padding,
            ceil,
        } = window;
        FileWindow {
            kernel,
            stride,
            dilation,
            padding,
            ceil,
        }
    }
}

impl From<FileWindow> for Window {
    fn from(window: FileWindow) -> Window {
        Window::new(window.kernel)
            .stride(window.stride)
            .dilation(window.dilation)
            .padding(window.padding)
            .ceil(window.ceil)
    }
}

impl Attributes {
    /// Those of an operation.
    fn of(operation: &Operation) -> Attributes {
        let mut of = Attributes::default();
        match operation {
            Operation::Dense { bias } => of.bias = Some(*bias),
            Operation::Conv2d {
                window,
                groups,
                bias,
            } => {
                of.window = Some((*window).into());
                (of.groups, of.bias) = (Some(*groups), Some(*bias));
            }
            Operation::AveragePool {
                window,
                count_padding,
            } => {
                of.window = Some((*window).into());
                of.count_padding = Some(*count_padding);
            }
            Operation::Mean { axes } | Operation::Transpose { axes } => {
                of.axes = Some(axes.clone());
            }
            Operation::BatchNorm { axis, epsilon } => {
                (of.axis, of.epsilon) = (Some(*axis), Some(*epsilon));
            }
            Operation::Scale { learned } | Operation::Shift { learned } => {
                of.learned = Some(*learned);
            }
            Operation::Concat { axis } | Operation::Max { axis } => of.axis = Some(*axis),
            Operation::Gather { fill } => of.fill = Some(*fill),
            Operation::Gate(Gate::LeakyRelu { slope }) => of.slope = Some(*slope),
            Operation::Gate(Gate::Clip { min, max }) => (of.min, of.max) = (Some(*min), Some(*max)),
            Operation::MaxPool { window } => of.window = Some((*window).into()),
            Operation::Input
            | Operation::Add
            | Operation::Reshape
            | Operation::Gate(Gate::Relu | Gate::PRelu { .. } | Gate::Abs) => {}
        }
        of
    }

    /// The operation of this name, if its attributes are there.
    fn operation(&self, name: &str) -> Option<Operation> {
        let window = self.window.map(Window::from);
        Some(match name {
            "input" => Operation::Input,
            "dense" => Operation::Dense { bias: self.bias? },
            "conv2d" => Operation::Conv2d {
                window: window?,
                groups: self.groups?,
                bias: self.bias?,
            },
            "average-pool" => Operation::AveragePool {
                window: window?,
                count_padding: self.count_padding?,
            },
            "mean" => Operation::Mean {
                axes: self.axes.clone()?,
            },
            "batch-norm" => Operation::BatchNorm {
                axis: self.axis?,
                epsilon: self.epsilon?,
            },
            "scale" => Operation::Scale {
                learned: self.learned?,
            },
            "shift" => Operation::Shift {
                learned: self.learned?,
            },
            "add" => Operation::Add,
            "concat" => Operation::Concat { axis: self.axis? },
            "reshape" => Operation::Reshape,
            "transpose" => Operation::Transpose {
                axes: self.axes.clone()?,
            },
            "gather" => Operation::Gather { fill: self.fill? },
            "relu" => Operation::Gate(Gate::Relu),
            "leaky-relu" => Operation::Gate(Gate::LeakyRelu { slope: self.slope? }),
            "prelu" => Operation::Gate(Gate::PRelu { initial: 0.0 }),
            "abs" => Operation::Gate(Gate::Abs),
            "clip" => Operation::Gate(Gate::Clip {
                min: self.min?,
                max: self.max?,
            }),
            "max-pool" => Operation::MaxPool { window: window? },
            "max" => Operation::Max { axis: self.axis? },
            _ => return None,
        })
    }
}

/// What every node has; the rest are attributes. (The two cannot be told apart by deriving, which does not refuse
/// unknown keys of flattened parts.)
impl TryFrom<serde_json::Map<String, serde_json::Value>> for Node {
    type Error = serde_json::Error;

    fn try_from(mut map: serde_json::Map<String, serde_json::Value>) -> serde_json::Result<Node> {
        let mut take = |key: &str| map.remove(key).unwrap_or_default();
        Ok(Node {
            name: serde_json::from_value(take("name"))?,
            operation: serde_json::from_value(take("operation"))?,
            inputs: serde_json::from_value(take("inputs"))?,
            width: serde_json::from_value(take("width"))?,
            shape: serde_json::from_value(take("shape"))?,
            attributes: serde_json::from_value(map.into())?,
        })
    }
}

/// The only part of a graph that every format has.
#[derive(Deserialize)]
struct Version {
    format: u64,
}

impl Graph {
    /// Reads the JSON text, and checks each node by itself and that names differ.
    pub(super) fn from_json(text: &str) -> Result<Graph> {
        let malformed = |error: serde_json::Error| Error::MalformedGraph {
            reason: error.to_string(),
        };
        let version: Version = serde_json::from_str(text).map_err(malformed)?;
        if !(1..=FORMAT).contains(&version.format) {
            return Err(Error::FormatVersion {
                found: version.format,
                supported: FORMAT,
            });
        }
        let graph: Graph = serde_json::from_str(text).map_err(malformed)?;
        graph.check()?;
        Ok(graph)
    }

    fn check(&self) -> Result<()> {
        let mut names = HashSet::new();
        for node in &self.nodes {
            node.operation()?;
            node.check_width()?;
            if !names.insert(&node.name) {
                let node = node.name.clone();
                return Err(Error::DuplicateName { node });
            }
        }
        Ok(())
    }

    /// The JSON text.
    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("strings and finite numbers are JSON")
    }

    /// The graph of a network.
    pub(super) fn of<T: Scalar>(network: &Network<T>) -> Result<Graph> {
        let nodes = network.nodes().iter();
        let graph = Graph {
            format: FORMAT,
            nodes: nodes.map(|node| Node::of(node, network.nodes())).collect(),
        };
        graph.check()?;
        Ok(graph)
    }
}

impl Node {
    /// How a node among `nodes` stands in a file.
    fn of(node: &relugrad::Node, nodes: &[relugrad::Node]) -> Node {
        let inputs = node.inputs().map(|input| nodes[input.index()].name());
        Node {
            name: node.name().to_owned(),
            operation: node.operation().name().to_owned(),
            inputs: inputs.map(str::to_owned).collect(),
            width: node.width(),
            shape: (node.shape() != [node.width()]).then(|| node.shape().to_vec()),
            attributes: Attributes::of(node.operation()),
        }
    }

    /// Its shape for one sample.
    pub(super) fn axes(&self) -> Vec<usize> {
        self.shape.clone().unwrap_or_else(|| vec![self.width])
    }

    /// What it computes, if it has the attributes of its operation and no others.
    pub(super) fn operation(&self) -> Result<Operation> {
        let operation = self.attributes.operation(&self.operation);
        match operation.filter(|operation| Attributes::of(operation) == self.attributes) {
            Some(operation) => Ok(operation),
            None => Err(self.refused()),
        }
    }

    /// Why its operation and attributes do not go together.
    fn refused(&self) -> Error {
        let (node, operation) = (self.name.clone(), self.operation.clone());
        match OPERATIONS.iter().find(|(name, _)| *name == operation) {
            Some((_, problem)) => Error::Attribute {
                node,
                operation,
                problem,
            },
            None => Error::UnknownOperation {
                node,
                operation,
                known: OPERATIONS.iter().map(|(name, _)| *name).collect(),
            },
        }
    }

    fn check_width(&self) -> Result<()> {
        let product = self.axes().into_iter().try_fold(1usize, usize::checked_mul);
        if product != Some(self.width) {
            return Err(Error::ShapeWidth {
                node: self.name.clone(),
                shape: self.axes(),
                width: self.width,
            });
        }
        if (1..=MAX_WIDTH).contains(&self.width) {
            return Ok(());
        }
        Err(Error::WidthRange {
            node: self.name.clone(),
            width: self.width,
            limit: MAX_WIDTH,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_attributes() -> Attributes {
        Attributes {
            axes: Some(vec![0]),
            axis: Some(0),
            bias: Some(true),
            count_padding: Some(false),
            epsilon: Some(1e-5),
            fill: Some(0.0),
            groups: Some(1),
            learned: Some(true),
            max: Some(6.0),
            min: Some(0.0),
            slope: Some(0.1),
            window: Some(Window::new([2, 2]).into()),
        }
    }

    fn node(operation: &str, attributes: Attributes) -> Node {
        Node {
            name: "n".into(),
            operation: operation.into(),
            inputs: Vec::new(),
            width: 1,
            shape: None,
            attributes,
        }
    }

    #[test]
    fn every_operation_has_its_attributes_and_no_others() {
        for (name, _) in OPERATIONS {
            let operation = all_attributes().operation(name).unwrap();
            let its_own = Attributes::of(&operation);
            assert_eq!(node(name, its_own.clone()).operation().unwrap(), operation);
            assert!(node(name, all_attributes()).operation().is_err(), "{name}");
            if its_own != Attributes::default() {
                assert!(
                    node(name, Attributes::default()).operation().is_err(),
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn slopes_keep_all_their_bits() {
        for slope in [0.1, -0.0, 5e-324, 0.3 - 0.1, 123456.789e-30, f64::MAX] {
            let attributes = Attributes {
                slope: Some(slope),
                ..Attributes::default()
            };
            let graph = Graph {
                format: FORMAT,
                nodes: vec![node("leaky-relu", attributes)],
            };
            let read = Graph::from_json(&graph.to_json()).unwrap();
            let found = read.nodes[0].attributes.slope.unwrap();
            assert_eq!(found.to_bits(), slope.to_bits());
        }
    }
}
