//! The graph as JSON: what format 1 says about each node.
//!
//! ```json
//! {"format": 1, "nodes": [
//!   {"name": "input", "operation": "input", "inputs": [], "width": 2},
//!   {"name": "dense0", "operation": "dense", "inputs": ["input"], "width": 3, "bias": true},
//!   {"name": "leaky-relu0", "operation": "leaky-relu", "inputs": ["dense0"], "width": 3, "slope": 0.01}]}
//! ```
//!
//! A node whose value has several axes has a `shape` too, whose product is the width. Its
//! attributes are those that [`Operation`] has with serde. Programs that do not know an operation
//! or an attribute refuse it by name, so a new one needs no new format number; that is for a change
//! in the meaning of what there is.

use std::collections::{BTreeMap, HashSet};

use relugrad::{Gate, Network, Operation, Scalar, Window};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::limits::Budget;

/// The format that is written, and the latest that can be read.
pub const FORMAT: u64 = 1;

/// The largest width of a node. It keeps sums of widths far from overflow.
pub const MAX_WIDTH: usize = 1 << 31;

/// A node of a network without its weights.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) operation: Operation,
    /// Names of the nodes whose values it takes.
    pub(super) inputs: Vec<String>,
    pub(super) width: usize,
    /// Its axes, if they are not one.
    pub(super) shape: Option<Vec<usize>>,
}

/// The whole graph.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Graph {
    format: u64,
    /// In the order of evaluation; the first is the input and the last the output.
    nodes: Vec<Entry>,
}

/// A node as it stands in the file.
#[derive(Serialize, Deserialize)]
struct Entry {
    name: String,
    operation: String,
    inputs: Vec<String>,
    width: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    shape: Option<Vec<usize>>,
    #[serde(flatten)]
    attributes: Attributes,
}

/// What a node has besides, by name.
type Attributes = BTreeMap<String, Attribute>;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Attribute {
    /// The only one whose parts have an order.
    Window(Window),
    Other(Value),
}

/// As much of a graph as every format has.
#[derive(Deserialize)]
struct Outline {
    format: u64,
    #[serde(default)]
    nodes: Vec<IgnoredAny>,
}

/// The nodes that a JSON text describes, each sound by itself and with a name of its own.
pub(super) fn nodes_of(text: &str, budget: &Budget) -> Result<Vec<Node>> {
    let malformed = |error: serde_json::Error| Error::MalformedGraph {
        reason: error.to_string(),
    };
    let outline: Outline = serde_json::from_str(text).map_err(malformed)?;
    if !(1..=FORMAT).contains(&outline.format) {
        return Err(Error::FormatVersion {
            found: outline.format,
            supported: FORMAT,
        });
    }
    budget.nodes(outline.nodes.len())?;
    let graph: Graph = serde_json::from_str(text).map_err(malformed)?;
    let nodes = graph.nodes.into_iter().map(Entry::node);
    let nodes: Vec<Node> = nodes.collect::<Result<_>>()?;
    check(&nodes)?;
    Ok(nodes)
}

/// The JSON text of a network's graph.
pub(super) fn json_of<T: Scalar>(network: &Network<T>) -> Result<String> {
    let name = |input: relugrad::NodeId| network.nodes()[input.index()].name().to_owned();
    let node = |node: &relugrad::Node| Node {
        name: node.name().to_owned(),
        operation: node.operation().clone(),
        inputs: node.inputs().map(name).collect(),
        width: node.width(),
        shape: (node.shape() != [node.width()]).then(|| node.shape().to_vec()),
    };
    let nodes: Vec<Node> = network.nodes().iter().map(node).collect();
    check(&nodes)?;
    let graph = Graph {
        format: FORMAT,
        nodes: nodes.into_iter().map(Entry::of).collect(),
    };
    Ok(serde_json::to_string(&graph).expect("strings and finite numbers are JSON"))
}

fn check(nodes: &[Node]) -> Result<()> {
    let mut names = HashSet::new();
    for node in nodes {
        node.check_width()?;
        if !names.insert(&node.name) {
            let node = node.name.clone();
            return Err(Error::DuplicateName { node });
        }
    }
    Ok(())
}

impl Entry {
    fn of(node: Node) -> Entry {
        Entry {
            operation: node.operation.name().to_owned(),
            attributes: attributes(&node.operation),
            name: node.name,
            inputs: node.inputs,
            width: node.width,
            shape: node.shape,
        }
    }

    fn node(self) -> Result<Node> {
        Ok(Node {
            operation: operation(&self.name, &self.operation, self.attributes)?,
            name: self.name,
            inputs: self.inputs,
            width: self.width,
            shape: self.shape,
        })
    }
}

/// The attributes of an operation. Learned slopes are arrays; at which one all of them started is
/// not kept.
fn attributes(operation: &Operation) -> Attributes {
    let described = serde_json::to_value(operation).expect("it is a map of numbers");
    let mut attributes: Attributes = serde_json::from_value(described).expect("it is a map");
    attributes.retain(|key, _| !matches!(key.as_str(), "operation" | "gate" | "initial"));
    attributes
}

/// The operation of this name, if the node has its attributes and no others.
fn operation(node: &str, name: &str, given: Attributes) -> Result<Operation> {
    let refused = |problem: String| Error::Attribute {
        node: node.to_owned(),
        operation: name.to_owned(),
        problem,
    };
    let keys: Vec<String> = given.keys().cloned().collect();
    let values = given.into_iter().map(|(key, value)| {
        let value = serde_json::to_value(value).expect("it came from JSON");
        (key, value)
    });
    let mut described: Map<String, Value> = values.collect();
    if Gate::NAMES.contains(&name) {
        described.insert("operation".into(), "gate".into());
        described.insert("gate".into(), name.into());
    } else if Operation::NAMES.contains(&name) {
        described.insert("operation".into(), name.into());
    } else {
        return Err(Error::UnknownOperation {
            node: node.to_owned(),
            operation: name.to_owned(),
            known: [Operation::NAMES, Gate::NAMES].concat(),
        });
    }
    let read = serde_json::from_value(described.into());
    let operation: Operation = read.map_err(|error| refused(error.to_string()))?;
    // An operation without attributes would pass over others.
    let own = attributes(&operation);
    match keys.iter().find(|key| !own.contains_key(*key)) {
        None => Ok(operation),
        Some(key) => Err(refused(format!("it has no attribute `{key}`"))),
    }
}

impl Node {
    /// Its shape for one sample.
    pub(super) fn axes(&self) -> Vec<usize> {
        self.shape.clone().unwrap_or_else(|| vec![self.width])
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

    /// What is written about one of each operation that has attributes, and of two that have none.
    const WRITTEN: [(&str, &str); 16] = [
        ("dense", r#""bias":true"#),
        (
            "conv2d",
            r#""bias":false,"groups":2,"window":{"kernel":[2,3],"stride":[1,2],"dilation":[1,1],"padding":[[0,1],[2,3]],"ceil":false}"#,
        ),
        (
            "average-pool",
            r#""count_padding":true,"window":{"kernel":[2,2],"stride":[1,1],"dilation":[1,1],"padding":[[0,0],[0,0]],"ceil":true}"#,
        ),
        ("mean", r#""axes":[1,2]"#),
        ("batch-norm", r#""axis":0,"epsilon":0.00001"#),
        ("scale", r#""learned":true"#),
        ("shift", r#""learned":false"#),
        ("concat", r#""axis":1"#),
        ("transpose", r#""axes":[1,0]"#),
        ("gather", r#""fill":-0.5"#),
        ("leaky-relu", r#""slope":0.1"#),
        ("clip", r#""max":6.0,"min":0.0"#),
        (
            "max-pool",
            r#""window":{"kernel":[2,2],"stride":[2,2],"dilation":[1,1],"padding":[[0,0],[0,0]],"ceil":false}"#,
        ),
        ("max", r#""axis":0"#),
        ("relu", ""),
        ("prelu", ""),
    ];

    fn text(operation: &str, attributes: &str) -> String {
        let comma = if attributes.is_empty() { "" } else { "," };
        format!(
            r#"{{"format":1,"nodes":[{{"name":"n","operation":"{operation}","inputs":[],"width":1{comma}{attributes}}}]}}"#
        )
    }

    fn read(text: &str) -> Result<Vec<Node>> {
        nodes_of(text, &crate::Limits::default().budget(0))
    }

    #[test]
    fn attributes_are_written_as_they_were_read() {
        for (operation, attributes) in WRITTEN {
            let text = text(operation, attributes);
            let nodes = read(&text).unwrap();
            assert_eq!(nodes[0].operation.name(), operation);
            let nodes = nodes.into_iter().map(Entry::of).collect();
            let format = FORMAT;
            let again = serde_json::to_string(&Graph { format, nodes }).unwrap();
            assert_eq!(again, text);
        }
    }

    #[test]
    fn an_operation_has_its_attributes_and_no_others() {
        let keys = |attributes: &str| -> Vec<String> {
            let map: Map<String, Value> =
                serde_json::from_str(&format!("{{{attributes}}}")).unwrap();
            map.into_iter().map(|(key, _)| key).collect()
        };
        for (name, own) in WRITTEN {
            let strangers = WRITTEN
                .iter()
                .filter(|(_, others)| keys(others) != keys(own));
            for (_, others) in strangers {
                let error = read(&text(name, others)).unwrap_err();
                assert!(matches!(error, Error::Attribute { .. }), "{name} {others}");
            }
        }
        for foreign in [r#""gate":"abs""#, r#""initial":0.5"#] {
            let error = read(&text("prelu", foreign)).unwrap_err();
            assert!(error.to_string().contains("it has no attribute"), "{error}");
        }
    }

    #[test]
    fn slopes_keep_all_their_bits() {
        for slope in [0.1, -0.0, 5e-324, 0.3 - 0.1, 123456.789e-30, f64::MAX] {
            let node = Node {
                name: "n".into(),
                operation: Operation::Gate(Gate::LeakyRelu { slope }),
                inputs: Vec::new(),
                width: 1,
                shape: None,
            };
            let nodes = vec![Entry::of(node)];
            let format = FORMAT;
            let text = serde_json::to_string(&Graph { format, nodes }).unwrap();
            let read = read(&text).unwrap()[0].operation.numbers()[0];
            assert_eq!(read.to_bits(), slope.to_bits());
        }
    }
}
