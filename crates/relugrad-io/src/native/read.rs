//! From bytes to a network. Nothing is allocated for a tensor before its size is known to fit the
//! file.

use std::collections::{HashMap, HashSet};

use half::{bf16, f16};
use ndarray::{ArrayD, IxDyn};
use relugrad::{ArraySpec, Builder, Network, NodeId, NodeSpec, Scalar};
use safetensors::Dtype;

use super::container::{Container, Tensor};
use super::graph::{Node, nodes_of};
use super::{BESIDE, CHECKSUM_KEY, GRAPH_KEY, Metadata, checkpoint};
use crate::error::{Error, Result};
use crate::limits::{Budget, Limits};

/// Reads a network and its strings from the bytes of a file.
///
/// `f32` weights are exact in a network of `f64`; `f64` weights are rounded to the nearest `f32` if
/// `T` is that. The slopes at which learned ones started are not in the file:
/// [`Gate::PRelu`](relugrad::Gate::PRelu) then states the first slope of its layer.
///
/// # Errors
/// Every variant of [`Error`] but those of the operating system and [`Error::ReservedKey`]: bytes
/// that are damaged, of another kind or of a later format, a graph that is not a network, weights
/// that do not fit it. The arrays of a [`Checkpoint`](super::Checkpoint) beside its model are
/// passed over.
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
    let nodes = nodes_of(&text, budget)?;
    let network = Reader::new(&container, &nodes, budget).network()?;
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
    nodes: &'a [Node],
    budget: &'a Budget,
    builder: Builder<T>,
    /// The nodes made so far.
    made: HashMap<&'a str, NodeId>,
    /// Names of the tensors that have been read.
    used: HashSet<String>,
}

impl<'a, T: Scalar> Reader<'a, T> {
    fn new(container: &'a Container<'a>, nodes: &'a [Node], budget: &'a Budget) -> Reader<'a, T> {
        Reader {
            container,
            nodes,
            budget,
            builder: Builder::with_room(budget.room()),
            made: HashMap::new(),
            used: HashSet::new(),
        }
    }

    fn network(mut self) -> Result<Network<T>> {
        let mut last = None;
        for node in self.nodes {
            let id = self.add(node)?;
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
        let ids = self.inputs(node)?;
        let input = ids
            .first()
            .map_or(Ok(&[][..]), |&id| self.builder.shape(id))?;
        let (mut parameters, mut constants) = (Vec::new(), Vec::new());
        for array in node.operation.arrays(input, &node.axes()) {
            match array.learned {
                true => parameters.push(self.values(node, &array)?),
                false => constants.push(self.values(node, &array)?),
            }
        }
        let spec = NodeSpec {
            name: Some(node.name.clone()),
            operation: node.operation.clone(),
            shape: node.axes(),
            parameters,
            constants,
        };
        let added = self.builder.add(spec, &ids);
        added.map_err(|error| self.budget.explain(error))
    }

    /// The nodes that `node` reads, as many as its operation needs.
    fn inputs(&self, node: &Node) -> Result<Vec<NodeId>> {
        node.operation.check_inputs(&node.name, node.inputs.len())?;
        let resolve = |input: &String| {
            let made = self.made.get(input.as_str()).copied();
            made.ok_or_else(|| self.unresolved(node, input))
        };
        node.inputs.iter().map(resolve).collect()
    }

    fn unresolved(&self, node: &Node, input: &str) -> Error {
        let (node, input) = (node.name.clone(), input.to_owned());
        match self.nodes.iter().any(|other| other.name == input) {
            true => Error::ForwardReference { node, input },
            false => Error::UnknownInput { node, input },
        }
    }

    /// The entries of one of a node's tensors.
    fn values<U: Scalar>(&mut self, node: &Node, array: &ArraySpec) -> Result<ArrayD<U>> {
        let name = format!("{}.{}", node.name, array.name);
        let Some(tensor) = self.container.tensor(&name) else {
            return Err(Error::MissingTensor {
                tensor: name,
                node: node.name.clone(),
            });
        };
        if let Some(expected) = array.shape.as_ref().filter(|shape| *shape != tensor.shape) {
            return Err(Error::Shape {
                tensor: name,
                expected: expected.clone(),
                found: tensor.shape.to_vec(),
            });
        }
        let values = array_of(&name, &tensor, self.budget)?;
        self.used.insert(name);
        Ok(values)
    }
}

/// Whether none of the tensors of a safetensors file whose names are `wanted` has more than single
/// precision.
pub(crate) fn is_single(
    bytes: &[u8],
    budget: &Budget,
    wanted: impl Fn(&str) -> bool,
) -> Result<bool> {
    let container = Container::parse(bytes, budget)?;
    let mut names = container.names().into_iter().filter(|name| wanted(name));
    let double =
        |name: String| container.tensor(&name).map(|tensor| tensor.dtype) == Some(Dtype::F64);
    Ok(!names.any(double))
}

/// The tensors of a safetensors file whose names are `wanted`, with or without a graph.
///
/// # Errors
/// What is wrong with the file, and numbers that are not finite or not of a floating type of 16 to
/// 64 bits.
pub(crate) fn tensors(
    bytes: &[u8],
    budget: &Budget,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<(String, ArrayD<f64>)>> {
    let container = Container::parse(bytes, budget)?;
    let names = container.names().into_iter().filter(|name| wanted(name));
    let read = |name: String| {
        let tensor = container.tensor(&name).expect("its name is listed");
        let array = array_of(&name, &tensor, budget)?;
        Ok((name, array))
    };
    names.map(read).collect()
}

fn array_of<T: Scalar>(name: &str, tensor: &Tensor, budget: &Budget) -> Result<ArrayD<T>> {
    let values = decode(name, tensor, budget)?;
    let shape = IxDyn(tensor.shape);
    Ok(ArrayD::from_shape_vec(shape, values).expect("the header was checked"))
}

fn decode<T: Scalar>(name: &str, tensor: &Tensor, budget: &Budget) -> Result<Vec<T>> {
    budget.array(tensor.shape, size_of::<T>(), || format!("tensor `{name}`"))?;
    if tensor.dtype == Dtype::F16 {
        return convert(name, tensor, |bytes| f16::from_le_bytes(bytes).to_f64());
    }
    if tensor.dtype == Dtype::BF16 {
        return convert(name, tensor, |bytes| bf16::from_le_bytes(bytes).to_f64());
    }
    if tensor.dtype == Dtype::F32 {
        return convert(name, tensor, |bytes| f64::from(f32::from_le_bytes(bytes)));
    }
    if tensor.dtype == Dtype::F64 {
        return convert(name, tensor, f64::from_le_bytes);
    }
    Err(Error::Dtype {
        tensor: name.to_owned(),
        found: format!("{:?}", tensor.dtype),
    })
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
