//! The graph as JSON: what format 1 says about each node.
//!
//! ```json
//! {"format": 1, "nodes": [
//!   {"name": "input", "operation": "input", "inputs": [], "width": 2},
//!   {"name": "dense0", "operation": "dense", "inputs": ["input"], "width": 3, "bias": true},
//!   {"name": "leaky-relu0", "operation": "leaky-relu", "inputs": ["dense0"], "width": 3, "slope": 0.01}]}
//! ```
//!
//! A new operation is a variant of [`Operation`] with its name and attributes here, and an arm in `read`. A new
//! attribute is an optional field of [`Node`]. Programs that do not know them refuse them by name, so neither
//! needs a new format number; that is for a change in the meaning of what there is.

use std::collections::HashSet;

use relugrad::{Gate, Network, Scalar};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The format that is written, and the latest that can be read.
pub const FORMAT: u64 = 1;

/// The largest width of a node. It keeps sums of widths far from overflow.
pub const MAX_WIDTH: usize = 1 << 31;

/// The names of all operations of the format.
const OPERATIONS: &[&str] = &[
    "input",
    "dense",
    "add",
    "relu",
    "leaky-relu",
    "prelu",
    "abs",
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
#[serde(deny_unknown_fields)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) operation: String,
    /// Names of the nodes whose values it takes.
    pub(super) inputs: Vec<String>,
    pub(super) width: usize,
    /// Inactive slope, for leaky ReLU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    slope: Option<f64>,
    /// Whether there is a bias, for dense layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bias: Option<bool>,
}

/// What a node computes, with its attributes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Operation {
    Input,
    Dense {
        bias: bool,
    },
    Add,
    /// A gate without learned slopes.
    Gate(Gate),
    PRelu,
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
        let layout = network.parameters().layout();
        let arrays: HashSet<&str> = layout.iter().map(|info| info.name()).collect();
        let nodes = network.nodes().iter();
        let graph = Graph {
            format: FORMAT,
            nodes: nodes
                .map(|node| Node::of(node, network.nodes(), &arrays))
                .collect(),
        };
        graph.check()?;
        Ok(graph)
    }
}

impl Node {
    /// How a node among `nodes` stands in a file; `arrays` are the names of all parameters.
    fn of(node: &relugrad::Node, nodes: &[relugrad::Node], arrays: &HashSet<&str>) -> Node {
        let bias = format!("{}.bias", node.name());
        let inputs = node.inputs().map(|input| nodes[input.index()].name());
        Node {
            name: node.name().to_owned(),
            operation: node.operation().to_owned(),
            inputs: inputs.map(str::to_owned).collect(),
            width: node.width(),
            slope: match node.gate() {
                Some(Gate::LeakyRelu { slope }) => Some(slope),
                _ => None,
            },
            bias: node.is_dense().then(|| arrays.contains(bias.as_str())),
        }
    }

    /// What it computes, if it has the attributes of its operation and no others.
    pub(super) fn operation(&self) -> Result<Operation> {
        let operation = match (self.operation.as_str(), self.bias, self.slope) {
            ("input", None, None) => Operation::Input,
            ("dense", Some(bias), None) => Operation::Dense { bias },
            ("add", None, None) => Operation::Add,
            ("relu", None, None) => Operation::Gate(Gate::Relu),
            ("leaky-relu", None, Some(slope)) => Operation::Gate(Gate::LeakyRelu { slope }),
            ("prelu", None, None) => Operation::PRelu,
            ("abs", None, None) => Operation::Gate(Gate::Abs),
            _ => return Err(self.refused()),
        };
        Ok(operation)
    }

    /// Why its operation and attributes do not go together.
    fn refused(&self) -> Error {
        let (node, operation) = (self.name.clone(), self.operation.clone());
        let problem = match operation.as_str() {
            name if !OPERATIONS.contains(&name) => {
                return Error::UnknownOperation {
                    node,
                    operation,
                    known: OPERATIONS,
                };
            }
            "dense" => "the attribute `bias` (true or false) and no `slope`",
            "leaky-relu" => "the attribute `slope` (a number) and no `bias`",
            _ => "neither `bias` nor `slope`",
        };
        Error::Attribute {
            node,
            operation,
            problem,
        }
    }

    fn check_width(&self) -> Result<()> {
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

    fn node(operation: &str, bias: Option<bool>, slope: Option<f64>) -> Node {
        Node {
            name: "n".into(),
            operation: operation.into(),
            inputs: Vec::new(),
            width: 1,
            slope,
            bias,
        }
    }

    #[test]
    fn every_operation_has_its_attributes_and_no_others() {
        for name in OPERATIONS {
            let mut accepted = 0;
            for bias in [None, Some(true)] {
                for slope in [None, Some(0.5)] {
                    accepted += usize::from(node(name, bias, slope).operation().is_ok());
                }
            }
            assert_eq!(accepted, 1, "{name}");
        }
    }

    #[test]
    fn slopes_keep_all_their_bits() {
        for slope in [0.1, -0.0, 5e-324, 0.3 - 0.1, 123456.789e-30, f64::MAX] {
            let graph = Graph {
                format: FORMAT,
                nodes: vec![node("leaky-relu", None, Some(slope))],
            };
            let read = Graph::from_json(&graph.to_json()).unwrap();
            let found = read.nodes[0].slope.unwrap();
            assert_eq!(found.to_bits(), slope.to_bits());
        }
    }
}
