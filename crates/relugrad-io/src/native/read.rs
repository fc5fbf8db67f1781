//! From bytes to a network. Nothing is allocated for a tensor before its size is known to fit the file.

use std::collections::{HashMap, HashSet};

use ndarray::{Array1, Array2};
use relugrad::{Builder, Network, NodeId, Scalar};
use safetensors::Dtype;

use super::container::{Container, Tensor};
use super::graph::{Graph, Node, Operation};
use super::{GRAPH_KEY, Metadata};
use crate::error::{Error, Result};

/// Reads a network and its strings from the bytes of a file.
///
/// `f32` weights are exact in a network of `f64`; `f64` weights are rounded to the nearest `f32` if `T` is that.
/// The slopes at which learned ones started are not in the file: [`Gate::PRelu`](relugrad::Gate::PRelu) then
/// states the first slope of its layer.
///
/// # Errors
/// Every variant of [`Error`] but those of the operating system and [`Error::ReservedKey`]: bytes that are
/// damaged, of another kind or of a later format, a graph that is not a network, weights that do not fit it.
pub fn from_bytes<T: Scalar>(bytes: &[u8]) -> Result<(Network<T>, Metadata)> {
    let container = Container::parse(bytes)?;
    let mut metadata = container.metadata();
    let text = metadata.remove(GRAPH_KEY).ok_or(Error::MissingGraph)?;
    let graph = Graph::from_json(&text)?;
    let network = Reader::new(&container, &graph).network()?;
    Ok((network, metadata))
}

/// A network in the making.
struct Reader<'a, T> {
    container: &'a Container<'a>,
    graph: &'a Graph,
    builder: Builder<T>,
    /// Number and width of the nodes made so far.
    made: HashMap<&'a str, (NodeId, usize)>,
    /// Names of the tensors that have been read.
    used: HashSet<String>,
}

impl<'a, T: Scalar> Reader<'a, T> {
    fn new(container: &'a Container<'a>, graph: &'a Graph) -> Reader<'a, T> {
        Reader {
            container,
            graph,
            builder: Builder::new(),
            made: HashMap::new(),
            used: HashSet::new(),
        }
    }

    fn network(mut self) -> Result<Network<T>> {
        let mut last = None;
        for node in &self.graph.nodes {
            let id = self.add(node)?;
            self.builder.rename(id, &node.name)?;
            self.made.insert(&node.name, (id, node.width));
            last = Some(id);
        }
        let names = self.container.names();
        if let Some(tensor) = names.into_iter().find(|name| !self.used.contains(name)) {
            return Err(Error::ExtraTensor { tensor });
        }
        let output = last.ok_or(relugrad::Error::InputNodes { found: 0 })?;
        Ok(self.builder.build(output)?)
    }

    /// Adds a node after checking its inputs, width and tensors.
    fn add(&mut self, node: &Node) -> Result<NodeId> {
        let operation = node.operation()?;
        let (ids, widths) = self.inputs(node, operation)?;
        if !matches!(operation, Operation::Dense { .. }) {
            check_widths(node, &widths)?;
        }
        let id = match operation {
            Operation::Input => self.builder.input(node.width)?,
            Operation::Dense { bias } => {
                let weight = self.weight(node, widths[0])?;
                let bias = bias.then(|| self.vector(node, "bias")).transpose()?;
                self.builder.dense(ids[0], weight, bias)?
            }
            Operation::Add => self.builder.sum(&ids)?,
            Operation::Gate(gate) => self.builder.gate(ids[0], gate)?,
            Operation::PRelu => {
                let slopes = self.vector(node, "slope")?;
                self.builder.prelu(ids[0], slopes)?
            }
        };
        Ok(id)
    }

    /// The numbers and the widths of the nodes that `node` reads, as many as its operation needs.
    fn inputs(&self, node: &Node, operation: Operation) -> Result<(Vec<NodeId>, Vec<usize>)> {
        let found = node.inputs.len();
        let (fits, expected) = match operation {
            Operation::Input => (found == 0, "none"),
            Operation::Add => (found > 0, "at least one"),
            _ => (found == 1, "exactly one"),
        };
        if !fits {
            return Err(Error::InputCount {
                node: node.name.clone(),
                operation: node.operation.clone(),
                expected,
                found,
            });
        }
        let resolve = |input: &String| {
            let made = self.made.get(input.as_str()).copied();
            made.ok_or_else(|| self.unresolved(node, input))
        };
        node.inputs.iter().map(resolve).collect()
    }

    fn unresolved(&self, node: &Node, input: &str) -> Error {
        let (node, input) = (node.name.clone(), input.to_owned());
        match self.graph.nodes.iter().any(|other| other.name == input) {
            true => Error::ForwardReference { node, input },
            false => Error::UnknownInput { node, input },
        }
    }

    fn weight(&mut self, node: &Node, inputs: usize) -> Result<Array2<T>> {
        let values = self.values(node, "weight", &[node.width, inputs])?;
        Ok(Array2::from_shape_vec((node.width, inputs), values).expect("the shape was checked"))
    }

    fn vector(&mut self, node: &Node, array: &str) -> Result<Array1<T>> {
        let values = self.values(node, array, &[node.width])?;
        Ok(Array1::from_vec(values))
    }

    /// The entries of one of a node's tensors.
    fn values(&mut self, node: &Node, array: &str, expected: &[usize]) -> Result<Vec<T>> {
        let name = format!("{}.{array}", node.name);
        let Some(tensor) = self.container.tensor(&name) else {
            return Err(Error::MissingTensor {
                tensor: name,
                node: node.name.clone(),
            });
        };
        if tensor.shape != expected {
            return Err(Error::Shape {
                tensor: name,
                expected: expected.to_vec(),
                found: tensor.shape.to_vec(),
            });
        }
        let values = decode(&name, &tensor)?;
        self.used.insert(name);
        Ok(values)
    }
}

/// A gate or sum has the width of each of its inputs.
fn check_widths(node: &Node, inputs: &[usize]) -> Result<()> {
    match inputs.iter().find(|&&width| width != node.width) {
        None => Ok(()),
        Some(&expected) => Err(Error::Width {
            node: node.name.clone(),
            expected,
            found: node.width,
        }),
    }
}

fn decode<T: Scalar>(name: &str, tensor: &Tensor) -> Result<Vec<T>> {
    match tensor.dtype {
        Dtype::F32 => convert(name, tensor, |bytes| f64::from(f32::from_le_bytes(bytes))),
        Dtype::F64 => convert(name, tensor, f64::from_le_bytes),
        other => Err(Error::Dtype {
            tensor: name.to_owned(),
            found: format!("{other:?}"),
        }),
    }
}

/// Entries of `N` bytes each, in the precision `T`.
fn convert<T: Scalar, const N: usize>(
    name: &str,
    tensor: &Tensor,
    number: fn([u8; N]) -> f64,
) -> Result<Vec<T>> {
    let (entries, _) = tensor.bytes.as_chunks::<N>();
    let convert = |(entry, bytes): (usize, &[u8; N])| {
        let value = number(*bytes);
        let rounded = T::from_f64(value);
        match rounded.is_finite() {
            true => Ok(rounded),
            false => Err(not_a_weight(name, tensor.shape, entry, value)),
        }
    };
    entries.iter().enumerate().map(convert).collect()
}

fn not_a_weight(name: &str, shape: &[usize], entry: usize, value: f64) -> Error {
    let tensor = name.to_owned();
    let index = super::index(shape, entry);
    match value.is_finite() {
        true => Error::TooLarge {
            tensor,
            index,
            value,
        },
        false => Error::NotFinite {
            tensor,
            index,
            value,
        },
    }
}
