//! From an ONNX graph to a network, node by node.

mod arithmetic;
mod constants;
mod entries;
mod head;
mod linear;
mod operators;
mod order;
mod pooling;
mod shape;

use std::collections::{HashMap, HashSet};

use relugrad::{Builder, NodeId};

use super::attributes::Call;
use super::element::{Element, type_name};
use super::proto::{GraphProto, NodeProto, TensorProto, ValueInfoProto};
use super::proto::{tensor_shape_proto::dimension, type_proto};
use super::tensor::Tensor;
use super::values::{Activation, Value, sample_shape};
use super::{graph_error, tensor};
use crate::error::{Error, Result};
use crate::formula::{Formula, Formulas};
use crate::limits::Budget;
use crate::model::{FileGradients, Model};

/// Bytes for each entry of a value that is moved or repeated: its place, in the forms that it takes
/// on the way.
const MOVED: usize = 40;

/// A graph that is being read.
pub(super) struct Importer<'a> {
    graph: &'a GraphProto,
    /// What is left for all that the file asks for.
    budget: &'a Budget,
    external: &'a dyn Fn(&TensorProto, u64) -> Result<Vec<u8>>,
    opset: i64,
    builder: Builder<f64>,
    values: HashMap<&'a str, Value>,
    /// The type of the graph's input.
    element: Element,
    /// How constants come from the arrays of the file.
    formulas: Formulas,
    /// For each parameter array of the network, how it comes from those, if it does.
    weights: Vec<Option<Formula>>,
    /// Constants on which the logits depend in a way that gives no gradient, with the reason.
    left_out: Vec<(Formula, String)>,
    /// Constants with which the logits change only in steps, and where.
    steps: Vec<(Formula, String)>,
    notes: Vec<String>,
    /// How many nodes read each name.
    readers: HashMap<&'a str, Vec<usize>>,
    /// The node behind the logits that is dropped, if it is over all of them.
    head: Option<usize>,
    /// Nodes that another one has taken in.
    taken: HashSet<usize>,
    /// Names of what such a node gives, by the name that stands for it.
    aliases: HashMap<&'a str, &'a str>,
    /// The names of the network's nodes, each with the number that the next one like it gets.
    names: HashMap<String, usize>,
}

impl<'a> Importer<'a> {
    pub(super) fn new(
        graph: &'a GraphProto,
        opset: i64,
        budget: &'a Budget,
        external: &'a dyn Fn(&TensorProto, u64) -> Result<Vec<u8>>,
    ) -> Importer<'a> {
        Importer {
            graph,
            budget,
            external,
            opset,
            builder: Builder::with_room(budget.room()),
            values: HashMap::new(),
            element: Element::Float,
            formulas: Formulas::default(),
            weights: Vec::new(),
            left_out: Vec::new(),
            steps: Vec::new(),
            notes: Vec::new(),
            readers: HashMap::new(),
            head: None,
            taken: HashSet::new(),
            aliases: HashMap::new(),
            names: HashMap::new(),
        }
    }

    pub(super) fn run(mut self) -> Result<Model> {
        let output = self.output()?;
        operators::check_opset(self.opset)?;
        let order = self.sorted(output)?;
        let own = |node: &NodeProto| matches!(node.domain.as_str(), "" | "ai.onnx");
        for node in order.iter().map(|&i| &self.graph.node[i]) {
            if own(node) {
                operators::check_attributes(Call { node }, self.opset)?;
            }
        }
        self.head = self.find_head(output)?;
        self.read_initializers()?;
        self.read_input()?;
        for i in order {
            if !self.taken.contains(&i) {
                self.node(i, &self.graph.node[i])?;
            }
        }
        let Some(Value::Node(logits)) = self.values.get(output).cloned() else {
            return Err(graph_error(format!(
                "the output `{output}` does not depend on the input"
            )));
        };
        let mut id = self.builder.flatten(logits.id)?;
        if id == self.first() {
            id = self
                .builder
                .reshape(id, &[self.builder.shape(id)?.iter().product()])?;
        }
        self.name_new_nodes(
            self.builder.nodes().len() - usize::from(id != logits.id),
            "output",
        )?;
        let network = self.builder.build(id)?;
        self.budget.values(&network)?;
        let gradients =
            FileGradients::new(self.formulas, self.weights, &self.left_out, &self.steps);
        Ok(Model::new(network, gradients, self.notes))
    }

    fn first(&self) -> NodeId {
        self.builder.nodes().next().expect("the input comes first")
    }

    /// The graph's output.
    fn output(&self) -> Result<&'a str> {
        let [output] = &self.graph.output[..] else {
            let names: Vec<&str> = self.graph.output.iter().map(|o| o.name.as_str()).collect();
            return Err(graph_error(format!(
                "it has the outputs {names:?}, but exactly one, the logits, is needed"
            )));
        };
        Ok(output.name.as_str())
    }

    fn read_initializers(&mut self) -> Result<()> {
        if let Some(sparse) = self.graph.sparse_initializer.first() {
            let name = sparse.values.as_ref().map_or("", |values| &values.name);
            return Err(Error::OnnxTensor {
                tensor: name.to_owned(),
                problem: "it is sparse; export it as a dense tensor".into(),
            });
        }
        for proto in &self.graph.initializer {
            if !self.readers.contains_key(proto.name.as_str()) {
                continue;
            }
            let mut tensor = tensor::decode(proto, self.budget, self.external)?;
            if tensor.element != Element::Bool {
                tensor.formula = Some(self.formulas.array(&proto.name, &tensor.dims));
            }
            if self
                .values
                .insert(&proto.name, Value::Constant(tensor))
                .is_some()
            {
                return Err(graph_error(format!(
                    "two initialisers are called `{}`",
                    proto.name
                )));
            }
        }
        Ok(())
    }

    fn read_input(&mut self) -> Result<()> {
        let initializers: HashSet<&str> = self
            .graph
            .initializer
            .iter()
            .map(|t| t.name.as_str())
            .collect();
        let free = self
            .graph
            .input
            .iter()
            .filter(|i| !initializers.contains(i.name.as_str()));
        let free: Vec<&'a ValueInfoProto> = free.collect();
        let [input] = free[..] else {
            let names: Vec<&str> = free.iter().map(|input| input.name.as_str()).collect();
            return Err(graph_error(format!(
                "it has the inputs {names:?}, but exactly one is needed"
            )));
        };
        let (dims, element) = input_dims(input)?;
        self.element = element;
        let id = self.builder.input_shaped(sample_shape(&dims))?;
        self.rename(id, &input.name)?;
        self.values
            .insert(&input.name, Value::Node(Activation { id, dims }));
        Ok(())
    }

    /// Adds one node of the file.
    fn node(&mut self, index: usize, node: &'a NodeProto) -> Result<()> {
        let call = Call { node };
        if !matches!(node.domain.as_str(), "" | "ai.onnx") {
            return Err(call.error(format!(
                "its operator is of the domain `{}`, and only those of ONNX itself are known",
                node.domain
            )));
        }
        let before = self.builder.nodes().len();
        let values = self.operator(index, call).map_err(|error| {
            if let Error::Network(problem) = error {
                call.error(self.budget.explain(problem).to_string())
            } else {
                error
            }
        })?;
        self.name_new_nodes(before, call.name())?;
        if node
            .output
            .iter()
            .skip(values.len())
            .any(|name| self.readers.contains_key(name.as_str()))
        {
            return Err(call.error("an output is used that cannot be computed exactly"));
        }
        for (name, value) in node.output.iter().zip(values) {
            if let Some(alias) = self.aliases.get(name.as_str()) {
                self.values.insert(alias, value.clone());
            }
            let known = self.values.insert(name, value);
            if known.is_some() && !name.is_empty() {
                return Err(call.error(format!(
                    "it gives the value `{name}`, which there is already"
                )));
            }
        }
        Ok(())
    }

    /// The value of an input that must be there.
    fn input(&self, call: Call, place: usize) -> Result<Value> {
        match self.optional(call, place)? {
            Some(value) => Ok(value),
            None => Err(call.error(format!("it lacks its input number {}", place + 1))),
        }
    }

    /// The value of an input that may be missing.
    fn optional(&self, call: Call, place: usize) -> Result<Option<Value>> {
        let Some(name) = call.node.input.get(place).filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        match self.values.get(name.as_str()) {
            Some(value) => Ok(Some(value.clone())),
            None => Err(call.error(format!(
                "its input `{name}` is given by no node, no initialiser and no input of the graph"
            ))),
        }
    }

    fn activation(&self, call: Call, place: usize) -> Result<Activation> {
        match self.input(call, place)? {
            Value::Node(activation) => Ok(activation),
            Value::Constant(_) => Err(call.error(format!(
                "its input number {} is constant, where only values that depend on the network's input are supported",
                place + 1
            ))),
        }
    }

    fn constant(&self, call: Call, place: usize) -> Result<Tensor> {
        match self.optional_constant(call, place)? {
            Some(tensor) => Ok(tensor),
            None => Err(call.error(format!("it lacks its input number {}", place + 1))),
        }
    }

    fn optional_constant(&self, call: Call, place: usize) -> Result<Option<Tensor>> {
        match self.optional(call, place)? {
            None => Ok(None),
            Some(Value::Constant(tensor)) => Ok(Some(tensor)),
            Some(Value::Node(_)) => Err(call.error(format!(
                "its input number {} depends on the network's input, so the map is not piecewise linear or not static",
                place + 1
            ))),
        }
    }

    /// The node under a shape of as many entries.
    fn shaped(&mut self, id: NodeId, shape: &[usize]) -> Result<NodeId> {
        if self.builder.shape(id)? == shape {
            return Ok(id);
        }
        Ok(self.builder.reshape(id, shape)?)
    }

    /// A node as the value of dimensions `dims`.
    fn value(&mut self, id: NodeId, dims: Vec<usize>) -> Result<Value> {
        let id = self.shaped(id, sample_shape(&dims))?;
        Ok(Value::Node(Activation { id, dims }))
    }

    /// The whole numbers of a constant, such as axes or lengths.
    fn whole_numbers(&self, call: Call, tensor: &Tensor) -> Result<Vec<i64>> {
        tensor.indices().ok_or_else(|| {
            call.error(format!(
                "a constant of it has numbers of type {}, where whole numbers are needed",
                tensor.element.name()
            ))
        })
    }

    /// The whole numbers of an input that may be missing.
    fn optional_integers(&self, call: Call, place: usize) -> Result<Option<Vec<i64>>> {
        let tensor = self.optional_constant(call, place)?;
        tensor.map(|t| self.whole_numbers(call, &t)).transpose()
    }

    /// The dimensions or repetitions that a constant lists.
    fn lengths(&self, call: Call, place: usize) -> Result<Vec<usize>> {
        let listed = self.whole_numbers(call, &self.constant(call, place)?)?;
        let lengths: Option<Vec<usize>> = listed.iter().map(|&n| usize::try_from(n).ok()).collect();
        lengths.ok_or_else(|| call.error(format!("its lengths {listed:?} are negative")))
    }

    /// The finite floating numbers of a constant that the network is to compute with.
    fn numbers<'t>(&self, call: Call, tensor: &'t Tensor) -> Result<&'t [f64]> {
        let Some(values) = tensor.reals() else {
            return Err(call.error(format!(
                "its constant has numbers of type {}, where floating ones are needed",
                tensor.element.name()
            )));
        };
        if let Some(i) = values.iter().position(|v| !v.is_finite()) {
            let (index, value) = (crate::native::index(&tensor.dims, i), values[i]);
            return Err(call.error(format!(
                "entry {index:?} of its constant is {value}; weights must be finite"
            )));
        }
        Ok(values)
    }

    /// Makes a constant the next parameter array of the network, and returns its numbers.
    fn parameter(&mut self, call: Call, tensor: &Tensor) -> Result<Vec<f64>> {
        let what = || call.error("a weight of it").to_string();
        self.budget.array(&[tensor.len()], size_of::<f64>(), what)?;
        let values = self.numbers(call, tensor)?.to_vec();
        self.weights.push(tensor.formula);
        Ok(values)
    }

    /// Records that a constant that the logits depend on gets no gradient.
    fn leave_out(&mut self, constant: impl Into<Option<Formula>>, call: Call, reason: &str) {
        if let Some(formula) = constant.into() {
            let reason = format!("node `{}` ({}) {reason}", call.name(), call.operator());
            self.left_out.push((formula, reason));
        }
    }

    /// Calls the nodes made since there were `before` by the name of the file's node; helpers get a
    /// number.
    fn name_new_nodes(&mut self, before: usize, name: &str) -> Result<()> {
        let new = self.builder.nodes().len() - before;
        for (i, id) in self.builder.nodes().rev().take(new).enumerate() {
            let name = if i == 0 {
                name.to_owned()
            } else {
                format!("{name}/{i}")
            };
            self.rename(id, &name)?;
        }
        Ok(())
    }

    fn rename(&mut self, id: NodeId, name: &str) -> Result<()> {
        let name = if name.is_empty() { "node" } else { name };
        let mut unique = name.to_owned();
        while self.names.contains_key(&unique) {
            let next = self.names.entry(name.to_owned()).or_insert(1);
            *next += 1;
            unique = format!("{name}#{next}");
        }
        self.names.insert(unique.clone(), 1);
        Ok(self.builder.rename(id, &unique)?)
    }
}

/// The dimensions of a constant without leading axes of length 1 beyond `rank`.
fn array_dims(call: Call, tensor: &Tensor, rank: usize) -> Result<Vec<usize>> {
    let extra = tensor.dims.len().saturating_sub(rank);
    if tensor.dims[..extra].iter().any(|&n| n != 1) {
        return Err(call.error(format!(
            "its constant of dimensions {:?} has more axes than the value that it goes with",
            tensor.dims
        )));
    }
    Ok(tensor.dims[extra..].to_vec())
}

/// The dimensions of the graph's input with a batch of one.
fn input_dims(input: &ValueInfoProto) -> Result<(Vec<usize>, Element)> {
    let name = &input.name;
    let Some(type_proto::Value::TensorType(tensor)) =
        input.r#type.as_ref().and_then(|t| t.value.as_ref())
    else {
        return Err(graph_error(format!("its input `{name}` is no tensor")));
    };
    let element = match tensor.elem_type {
        0 | 1 => Element::Float,
        11 => Element::Double,
        _ => {
            return Err(graph_error(format!(
                "its input `{name}` has numbers of type {}, but float or double are needed",
                type_name(tensor.elem_type)
            )));
        }
    };
    let Some(shape) = &tensor.shape else {
        return Err(graph_error(format!(
            "its input `{name}` has no shape; export it with one"
        )));
    };
    let rank = shape.dim.len();
    let dim = |(axis, dim): (usize, &super::proto::tensor_shape_proto::Dimension)| match &dim.value
    {
        Some(dimension::Value::DimValue(n)) if *n > 0 => Ok(*n as usize),
        Some(dimension::Value::DimValue(n)) if *n < 0 || axis > 0 || rank == 1 => {
            Err(graph_error(format!(
                "axis {axis} of its input `{name}` has length {n}; export it with a fixed shape"
            )))
        }
        _ if axis == 0 && rank > 1 => Ok(1),
        _ => Err(graph_error(format!(
            "axis {axis} of its input `{name}` has no fixed length; only the batch, axis 0 of several, may be symbolic"
        ))),
    };
    let dims: Vec<usize> = shape
        .dim
        .iter()
        .enumerate()
        .map(dim)
        .collect::<Result<_>>()?;
    match dims[..] {
        [] => Err(graph_error(format!("its input `{name}` is a scalar"))),
        [n, _, ..] if n > 1 => Err(graph_error(format!(
            "its input `{name}` has a batch fixed at {n}; export it with a batch of 1 or a symbolic one"
        ))),
        _ => Ok((dims, element)),
    }
}
