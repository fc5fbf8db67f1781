//! From bytes to a network. Nothing is allocated for a tensor before its size is known to fit the file.

use std::collections::{HashMap, HashSet};

use ndarray::{Array, ArrayD, Dimension, IxDyn};
use relugrad::{BatchNorm, Builder, Gate, Network, NodeId, Operation, Scalar};
use safetensors::Dtype;

use super::container::{Container, Tensor};
use super::graph::{Graph, Node};
use super::{BESIDE, CHECKSUM_KEY, GRAPH_KEY, Metadata, checkpoint};
use crate::error::{Error, Result};
use crate::limits::{Budget, Limits};

/// Reads a network and its strings from the bytes of a file.
///
/// `f32` weights are exact in a network of `f64`; `f64` weights are rounded to the nearest `f32` if `T` is that.
/// The slopes at which learned ones started are not in the file: [`Gate::PRelu`](relugrad::Gate::PRelu) then
/// states the first slope of its layer.
///
/// # Errors
/// Every variant of [`Error`] but those of the operating system and [`Error::ReservedKey`]: bytes that are
/// damaged, of another kind or of a later format, a graph that is not a network, weights that do not fit it.
/// The arrays of a [`Checkpoint`](super::Checkpoint) beside its model are passed over.
pub fn from_bytes<T: Scalar>(bytes: &[u8]) -> Result<(Network<T>, Metadata)> {
    read(bytes, &Limits::of_process().budget(bytes.len() as u64))
}

pub(super) fn read<T: Scalar>(bytes: &[u8], budget: &Budget) -> Result<(Network<T>, Metadata)> {
    let container = Container::parse(bytes, budget)?;
    let mut metadata = container.metadata();
    match metadata.remove(CHECKSUM_KEY) {
        Some(stated) => checkpoint::verify(bytes, &stated)?,
        None if container
            .names()
            .iter()
            .any(|name| name.starts_with(BESIDE)) =>
        {
            return Err(Error::NoChecksum);
        }
        None => {}
    }
    let text = metadata.remove(GRAPH_KEY).ok_or(Error::MissingGraph)?;
    let graph = Graph::from_json(&text)?;
    budget.nodes(graph.nodes.len())?;
    let network = Reader::new(&container, &graph, budget).network()?;
    Ok((network, metadata))
}

/// The arrays beside the model, by their names without the prefix.
pub(super) fn beside<T: Scalar>(bytes: &[u8], budget: &Budget) -> Result<Vec<(String, Vec<T>)>> {
    let container = Container::parse(bytes, budget)?;
    let names = container.names().into_iter();
    let arrays = names.filter_map(|name| {
        let short = name.strip_prefix(BESIDE)?.to_owned();
        let tensor = container.tensor(&name).expect("its name is listed");
        Some(decode(&name, &tensor, budget).map(|values| (short, values)))
    });
    arrays.collect()
}

/// A network in the making.
struct Reader<'a, T> {
    container: &'a Container<'a>,
    graph: &'a Graph,
    budget: &'a Budget,
    builder: Builder<T>,
    /// The nodes made so far.
    made: HashMap<&'a str, NodeId>,
    /// Names of the tensors that have been read.
    used: HashSet<String>,
}

impl<'a, T: Scalar> Reader<'a, T> {
    fn new(container: &'a Container<'a>, graph: &'a Graph, budget: &'a Budget) -> Reader<'a, T> {
        Reader {
            container,
            graph,
            budget,
            builder: Builder::with_room(budget.room()),
            made: HashMap::new(),
            used: HashSet::new(),
        }
    }

    fn network(mut self) -> Result<Network<T>> {
        let mut last = None;
        for node in &self.graph.nodes {
            let id = self.add(node)?;
            self.builder.rename(id, &node.name)?;
            self.made.insert(&node.name, id);
            last = Some(id);
        }
        let names = self.container.names();
        let unused = |name: &String| !self.used.contains(name) && !name.starts_with(BESIDE);
        if let Some(tensor) = names.into_iter().find(unused) {
            return Err(Error::ExtraTensor { tensor });
        }
        let output = last.ok_or(relugrad::Error::InputNodes { found: 0 })?;
        let network = self.builder.build(output)?;
        self.budget.values(&network)?;
        Ok(network)
    }

    /// Adds a node after checking its inputs, shape and tensors.
    fn add(&mut self, node: &Node) -> Result<NodeId> {
        let operation = node.operation()?;
        let ids = self.inputs(node, &operation)?;
        self.check_kept_shape(node, &operation, &ids)?;
        let id = self
            .make(node, operation, &ids)
            .map_err(|e| self.explained(e))?;
        let expected = self.builder.shape(id)?;
        if node.axes() == expected {
            return Ok(id);
        }
        Err(match (expected, &node.shape) {
            (&[expected], None) => width(node, expected),
            _ => Error::NodeShape {
                node: node.name.clone(),
                expected: expected.to_vec(),
                found: node.axes(),
            },
        })
    }

    fn explained(&self, error: Error) -> Error {
        match error {
            Error::Network(error) => self.budget.explain(error),
            other => other,
        }
    }

    fn make(&mut self, node: &Node, operation: Operation, ids: &[NodeId]) -> Result<NodeId> {
        Ok(match operation {
            Operation::Input => self.builder.input_shaped(&node.axes())?,
            Operation::Dense { bias } => {
                let inputs = self.builder.shape(ids[0])?.last().copied();
                let outputs = node.axes().last().copied();
                let shape = [outputs.unwrap_or(1), inputs.unwrap_or(1)];
                let weight = fixed(self.values(node, "weight", &shape)?);
                let bias = bias.then(|| self.values(node, "bias", &shape[..1]));
                self.builder
                    .dense(ids[0], weight, bias.transpose()?.map(fixed))?
            }
            Operation::Conv2d {
                window,
                groups,
                bias,
            } => {
                let channels = self.builder.shape(ids[0])?.first().copied().unwrap_or(1);
                let outputs = node.axes()[0];
                let [height, width] = window.kernel;
                let shape = [outputs, channels / groups.max(1), height, width];
                let weight = fixed(self.values(node, "weight", &shape)?);
                let bias = bias.then(|| self.values(node, "bias", &shape[..1]));
                let bias = bias.transpose()?.map(fixed);
                self.builder.conv2d(ids[0], weight, bias, window, groups)?
            }
            Operation::AveragePool {
                window,
                count_padding,
            } => self.builder.average_pool(ids[0], window, count_padding)?,
            Operation::Mean { axes } => self.builder.mean(ids[0], &axes)?,
            Operation::BatchNorm { axis, epsilon } => {
                let length = [node.axes().get(axis).copied().unwrap_or(0)];
                let norm = BatchNorm {
                    scale: fixed(self.values(node, "scale", &length)?),
                    shift: fixed(self.values(node, "shift", &length)?),
                    mean: fixed(self.values(node, "mean", &length)?),
                    variance: fixed(self.values(node, "variance", &length)?),
                    epsilon,
                };
                self.builder.batch_norm(ids[0], axis, norm)?
            }
            Operation::Scale { learned } => {
                let factor = self.any_shape(node, "scale")?;
                self.builder.scale(ids[0], factor, learned)?
            }
            Operation::Shift { learned } => {
                let summand = self.any_shape(node, "shift")?;
                self.builder.shift(ids[0], summand, learned)?
            }
            Operation::Add => self.builder.sum(ids)?,
            Operation::Concat { axis } => self.builder.concat(ids, axis)?,
            Operation::Reshape => self.builder.reshape(ids[0], &node.axes())?,
            Operation::Transpose { axes } => self.builder.transpose(ids[0], &axes)?,
            Operation::Gather { fill } => {
                let places: ArrayD<f64> = self.values(node, "index", &node.axes())?;
                if places.iter().any(|&i| i < -1.0 || i.fract() != 0.0) {
                    let tensor = format!("{}.index", node.name);
                    return Err(Error::Index { tensor });
                }
                let place = |&i: &f64| (i >= 0.0).then_some(i as usize);
                let index: Vec<Option<usize>> = places.iter().map(place).collect();
                self.builder.gather(ids[0], &node.axes(), &index, fill)?
            }
            Operation::Gate(Gate::PRelu { .. }) => {
                let slopes = self.any_shape(node, "slope")?;
                self.builder.prelu_shared(ids[0], slopes)?
            }
            Operation::Gate(gate) => self.builder.gate(ids[0], gate)?,
            Operation::MaxPool { window } => self.builder.max_pool(ids[0], window)?,
            Operation::Max { axis } => self.builder.max(ids[0], axis)?,
        })
    }

    /// The nodes that `node` reads, as many as its operation needs.
    fn inputs(&self, node: &Node, operation: &Operation) -> Result<Vec<NodeId>> {
        let found = node.inputs.len();
        let (fits, expected) = match operation {
            Operation::Input => (found == 0, "none"),
            Operation::Add | Operation::Concat { .. } => (found > 0, "at least one"),
            _ => (found == 1, "exactly one"),
        };
        if !fits {
            return Err(Error::InputCount {
                node: node.name.clone(),
                operation: operation.name().to_owned(),
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

    /// A gate or sum has the shape of each of its inputs.
    fn check_kept_shape(&self, node: &Node, operation: &Operation, ids: &[NodeId]) -> Result<()> {
        if !matches!(operation, Operation::Add | Operation::Gate(_)) {
            return Ok(());
        }
        for &id in ids {
            match self.builder.shape(id)? {
                shape if shape == node.axes() => {}
                &[expected] if node.shape.is_none() => return Err(width(node, expected)),
                shape => {
                    return Err(Error::NodeShape {
                        node: node.name.clone(),
                        expected: shape.to_vec(),
                        found: node.axes(),
                    });
                }
            }
        }
        Ok(())
    }

    fn unresolved(&self, node: &Node, input: &str) -> Error {
        let (node, input) = (node.name.clone(), input.to_owned());
        match self.graph.nodes.iter().any(|other| other.name == input) {
            true => Error::ForwardReference { node, input },
            false => Error::UnknownInput { node, input },
        }
    }

    /// The entries of one of a node's tensors, which must have the expected shape.
    fn values<U: Scalar>(
        &mut self,
        node: &Node,
        array: &str,
        expected: &[usize],
    ) -> Result<ArrayD<U>> {
        let values = self.any_shape(node, array)?;
        if values.shape() == expected {
            return Ok(values);
        }
        Err(Error::Shape {
            tensor: format!("{}.{array}", node.name),
            expected: expected.to_vec(),
            found: values.shape().to_vec(),
        })
    }

    /// One of a node's tensors.
    fn any_shape<U: Scalar>(&mut self, node: &Node, array: &str) -> Result<ArrayD<U>> {
        let name = format!("{}.{array}", node.name);
        let Some(tensor) = self.container.tensor(&name) else {
            return Err(Error::MissingTensor {
                tensor: name,
                node: node.name.clone(),
            });
        };
        let values = decode(&name, &tensor, self.budget)?;
        self.used.insert(name);
        let shape = IxDyn(tensor.shape);
        Ok(ArrayD::from_shape_vec(shape, values).expect("the header was checked"))
    }
}

/// The tensors of a safetensors file whose names are `wanted`, with or without a graph.
///
/// # Errors
/// What is wrong with the file, and numbers that are not finite `F32` or `F64`.
pub(crate) fn tensors(
    bytes: &[u8],
    budget: &Budget,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<(String, ArrayD<f64>)>> {
    let container = Container::parse(bytes, budget)?;
    let names = container.names().into_iter().filter(|name| wanted(name));
    let read = |name: String| {
        let tensor = container.tensor(&name).expect("its name is listed");
        let values = decode(&name, &tensor, budget)?;
        let shape = IxDyn(tensor.shape);
        let array = ArrayD::from_shape_vec(shape, values).expect("the header was checked");
        Ok((name, array))
    };
    names.map(read).collect()
}

/// An array whose number of axes is known to be right.
fn fixed<T, D: Dimension>(values: ArrayD<T>) -> Array<T, D> {
    values.into_dimensionality().expect("the shape was checked")
}

fn width(node: &Node, expected: usize) -> Error {
    Error::Width {
        node: node.name.clone(),
        expected,
        found: node.width,
    }
}

fn decode<T: Scalar>(name: &str, tensor: &Tensor, budget: &Budget) -> Result<Vec<T>> {
    budget.array(tensor.shape, size_of::<T>(), || format!("tensor `{name}`"))?;
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
