//! From an ONNX graph to a network, node by node.

mod arithmetic;
mod batch;
mod constants;
mod convolution;
mod entries;
mod head;
mod inputs;
mod legacy;
mod linear;
mod operators;
mod order;
mod pooling;
mod resampling;
mod shape;
mod stacks;
mod windows;

use std::collections::{HashMap, HashSet};
use std::mem;

use relugrad::{Builder, NodeId};

use super::attributes::Call;
use super::element::Element;
use super::proto::{GraphProto, NodeProto, TensorProto};
use super::tensor::Tensor;
use super::values::{Activation, Value, sample_shape};
use super::{Graph, graph_error, tensor};
use crate::error::{Error, Result};
use crate::formula::{Formula, Formulas};
use crate::limits::Budget;
use crate::model::{FileGradients, Model};
use crate::selection::Selection;

pub(super) use batch::read;

/// Bytes for each entry of a value that is moved or repeated: its place, in the forms that it takes
/// on the way.
const MOVED: usize = 40;

/// What an axis 0 of the input is whose length the file fixes at more than 1.
#[derive(Clone, Copy, Debug)]
enum First {
    /// The batch; so many samples are read instead.
    Batch(usize),
    /// An axis of the sample.
    Sample,
}

/// A graph that is being read.
struct Importer<'a> {
    graph: &'a GraphProto,
    selection: &'a Selection,
    first: First,
    /// The length of an axis 0 that was read as another batch.
    fixed_batch: Option<usize>,
    /// What is left for all that the file asks for.
    budget: &'a Budget,
    external: &'a dyn Fn(&TensorProto, u64) -> Result<Vec<u8>>,
    opset: i64,
    builder: Builder<f64>,
    /// Initialisers by name, with what stands for their numbers in formulas. They are decoded when
    /// a node reads them and forgotten behind it, if it is the only one.
    arrays: HashMap<&'a str, (&'a TensorProto, Option<Formula>)>,
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
    fn new(graph: &Graph<'a>, budget: &'a Budget, first: First) -> Importer<'a> {
        Importer {
            graph: graph.proto,
            selection: graph.selection,
            first,
            fixed_batch: None,
            budget,
            external: graph.external,
            opset: graph.opset,
            builder: Builder::with_room(budget.room()),
            arrays: HashMap::new(),
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

    /// Reads the graph, once.
    fn run(&mut self) -> Result<Model> {
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
        self.read_inputs()?;
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
        let network = mem::take(&mut self.builder).build(id)?;
        self.budget.values(&network)?;
        let (formulas, weights) = (mem::take(&mut self.formulas), mem::take(&mut self.weights));
        let gradients = FileGradients::new(formulas, weights, &self.left_out, &self.steps);
        let model = Model::new(network, gradients, mem::take(&mut self.notes));
        Ok(model.of_precision(self.element == Element::Float))
    }

    fn first(&self) -> NodeId {
        self.builder.nodes().next().expect("the input comes first")
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
            let given = |(name, _): &(String, _)| *name == proto.name;
            let unread = !self.readers.contains_key(proto.name.as_str());
            if unread || self.selection.constants.iter().any(given) {
                continue;
            }
            let dims = tensor::dims_of(proto)?;
            let truth = Element::of(proto.data_type.into()) == Some(Element::Bool);
            let formula = (!truth).then(|| self.formulas.array(&proto.name, &dims));
            if self.arrays.insert(&proto.name, (proto, formula)).is_some() {
                return Err(graph_error(format!(
                    "two initialisers are called `{}`",
                    proto.name
                )));
            }
        }
        Ok(())
    }

    /// Decodes an initialiser, if a name is that of one that has not been read yet.
    fn fetch(&mut self, name: &str) -> Result<()> {
        if let Some((&name, &(proto, formula))) = self.arrays.get_key_value(name)
            && !self.values.contains_key(name)
        {
            let mut tensor = tensor::decode(proto, self.budget, self.external)?;
            tensor.formula = formula;
            self.values.insert(name, Value::Constant(tensor));
        }
        Ok(())
    }

    /// Forgets the constants that no other node reads than this one, which has been read.
    fn forget(&mut self, index: usize, node: &'a NodeProto) {
        for name in &node.input {
            let readers = self.readers.get(name.as_str());
            let constant = matches!(self.values.get(name.as_str()), Some(Value::Constant(_)));
            if constant && readers.is_some_and(|readers| readers.iter().all(|&i| i == index)) {
                self.values.remove(name.as_str());
            }
        }
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
        for name in &node.input {
            self.fetch(name)?;
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
            let known = self.values.insert(name, value).is_some();
            if (known || self.arrays.contains_key(name.as_str())) && !name.is_empty() {
                return Err(call.error(format!(
                    "it gives the value `{name}`, which there is already"
                )));
            }
        }
        self.forget(index, node);
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
            Some(value) => self.aligned(call, place, value.clone()).map(Some),
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
