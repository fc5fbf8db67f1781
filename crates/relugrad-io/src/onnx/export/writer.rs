//! A graph that is being written: names, tensors, nodes.

use std::collections::HashSet;

use relugrad::{Network, Node, ParameterInfo, Scalar};

use crate::error::{Error, Result};
use crate::onnx::proto::{
    AttributeProto, GraphProto, NodeProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, tensor_shape_proto, type_proto,
};

/// A graph that is being written. The value of a node has the node's name.
pub(super) struct Writer<'n, T> {
    pub(super) network: &'n Network<T>,
    pub(super) opset: i64,
    graph: GraphProto,
    /// The value of each node so far.
    values: Vec<String>,
    /// All names of values and tensors, which share one space of names.
    names: HashSet<String>,
}

pub(super) fn integer(name: &str, i: i64) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        i,
        r#type: 2,
        ..AttributeProto::default()
    }
}

pub(super) fn float(name: &str, f: f32) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        f,
        r#type: 1,
        ..AttributeProto::default()
    }
}

pub(super) fn integers(name: &str, ints: impl IntoIterator<Item = usize>) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        ints: ints.into_iter().map(|i| i as i64).collect(),
        r#type: 7,
        ..AttributeProto::default()
    }
}

/// The number that ONNX gives to the type of the entries.
fn element_type<T: Scalar>() -> i32 {
    if T::NAME == f32::NAME { 1 } else { 11 }
}

/// A value of `[N, …]`.
fn value_info<T: Scalar>(name: &str, shape: &[usize]) -> ValueInfoProto {
    use tensor_shape_proto::{Dimension, dimension::Value};
    let batch = Value::DimParam("N".into());
    let lengths = shape.iter().map(|&n| Value::DimValue(n as i64));
    let dim = [batch].into_iter().chain(lengths);
    let shape = TensorShapeProto {
        dim: dim.map(|value| Dimension { value: Some(value) }).collect(),
    };
    let tensor = type_proto::Tensor {
        elem_type: element_type::<T>(),
        shape: Some(shape),
    };
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
        }),
    }
}

impl<'n, T: Scalar> Writer<'n, T> {
    pub(super) fn new(network: &'n Network<T>, opset: i64) -> Writer<'n, T> {
        let names = network.nodes().iter().map(|node| node.name().to_owned());
        Writer {
            network,
            opset,
            graph: GraphProto {
                name: "relugrad".into(),
                ..GraphProto::default()
            },
            values: Vec::new(),
            names: names.collect(),
        }
    }

    /// Writes all nodes.
    pub(super) fn graph(mut self) -> Result<GraphProto> {
        for node in self.network.nodes() {
            self.values.push(node.name().to_owned());
            self.operation(node)?;
        }
        let (last, shape) = (self.values.len() - 1, self.last_shape());
        if last == 0 {
            // The output of a graph is the output of a node.
            let output = self.fresh("output");
            self.call("Identity", &[self.values[0].clone()], &output, Vec::new());
            self.values[0] = output;
        }
        let output = value_info::<T>(&self.values[last], &shape);
        self.graph.output.push(output);
        Ok(self.graph)
    }

    fn last_shape(&self) -> Vec<usize> {
        let last = self.network.nodes().last();
        last.expect("a network has its input").shape().to_vec()
    }

    /// The input; one number without axes comes as a vector of one entry, since a batch of scalars
    /// looks like a sample.
    pub(super) fn input(&mut self, node: &Node) {
        let shape = if node.shape().is_empty() {
            &[1]
        } else {
            node.shape()
        };
        self.graph.input.push(value_info::<T>(node.name(), shape));
        if node.shape().is_empty() {
            let scalar = self.fresh(&format!("{}/scalar", node.name()));
            self.reshape(node.name(), &scalar, &[]);
            self.values[0] = scalar;
        }
    }

    /// A name that nothing else has: this one, or this one with a number.
    pub(super) fn fresh(&mut self, name: &str) -> String {
        let mut unique = name.to_owned();
        let mut count = 1;
        while !self.names.insert(unique.clone()) {
            count += 1;
            unique = format!("{name}#{count}");
        }
        unique
    }

    /// The values that a node reads.
    pub(super) fn inputs(&self, node: &Node) -> Vec<String> {
        let inputs = node.inputs();
        inputs.map(|i| self.values[i.index()].clone()).collect()
    }

    /// The value that a node reads first; the input reads none.
    pub(super) fn first(&self, node: &Node) -> String {
        self.inputs(node).into_iter().next().unwrap_or_default()
    }

    pub(super) fn call(
        &mut self,
        operator: &str,
        inputs: &[impl AsRef<str>],
        output: &str,
        attribute: Vec<AttributeProto>,
    ) {
        self.graph.node.push(NodeProto {
            input: inputs.iter().map(|name| name.as_ref().to_owned()).collect(),
            output: vec![output.to_owned()],
            name: output.to_owned(),
            op_type: operator.to_owned(),
            attribute,
            domain: String::new(),
        });
    }

    /// A call whose first input is `x` and whose others are tensors.
    pub(super) fn with(
        &mut self,
        x: &str,
        tensors: &[String],
        operator: &str,
        output: &str,
        attributes: Vec<AttributeProto>,
    ) {
        let tensors = tensors.iter().map(String::as_str);
        let inputs: Vec<&str> = [x].into_iter().chain(tensors).collect();
        self.call(operator, &inputs, output, attributes);
    }

    /// An intermediate value of a node.
    pub(super) fn part(&mut self, node: &Node, part: &str) -> String {
        self.fresh(&format!("{}/{part}", node.name()))
    }

    /// Writes numbers of a node, each of which its precision must hold, and returns the name of the
    /// tensor.
    pub(super) fn numbers(
        &mut self,
        node: &Node,
        part: &str,
        dims: &[usize],
        values: &[f64],
    ) -> Result<String> {
        let beyond = |&v: &f64| !T::from_f64(v).is_finite();
        if let Some(&value) = values.iter().find(|v| beyond(v)) {
            return Err(too_large::<T>(node, part, value));
        }
        let name = format!("{}.{part}", node.name());
        Ok(self.tensor(&name, dims, values.iter().copied()))
    }

    /// Writes a tensor in the network's precision, and returns its name.
    pub(super) fn tensor(
        &mut self,
        name: &str,
        dims: &[usize],
        values: impl Iterator<Item = f64>,
    ) -> String {
        let raw_data = if T::NAME == f32::NAME {
            values.flat_map(|v| (v as f32).to_le_bytes()).collect()
        } else {
            values.flat_map(f64::to_le_bytes).collect()
        };
        self.add_tensor(name, dims, element_type::<T>(), raw_data)
    }

    /// Writes whole numbers, and returns the name of the tensor.
    pub(super) fn indices(&mut self, name: &str, values: impl Iterator<Item = i64>) -> String {
        let values: Vec<i64> = values.collect();
        let raw_data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.add_tensor(name, &[values.len()], 7, raw_data)
    }

    fn add_tensor(
        &mut self,
        name: &str,
        dims: &[usize],
        data_type: i32,
        raw_data: Vec<u8>,
    ) -> String {
        let name = self.fresh(name);
        self.graph.initializer.push(TensorProto {
            dims: dims.iter().map(|&n| n as i64).collect(),
            data_type,
            name: name.clone(),
            raw_data: raw_data.into(),
            ..TensorProto::default()
        });
        name
    }

    /// Writes the parameters of a node as initialisers, and returns their names.
    pub(super) fn parameters(&mut self, node: &Node) -> Vec<String> {
        let network = self.network;
        let values = network.parameters().values();
        let infos = network.parameters_of(node);
        let write = |info: &ParameterInfo| {
            let entries = values[info.range()].iter().map(|v| v.into_f64());
            self.tensor(info.name(), info.shape(), entries)
        };
        infos.map(write).collect()
    }

    pub(super) fn reshape(&mut self, x: &str, output: &str, shape: &[usize]) {
        let lengths = shape.iter().map(|&n| n as i64);
        let target = self.indices(&format!("{output}.shape"), [-1].into_iter().chain(lengths));
        self.call("Reshape", &[x, &target], output, Vec::new());
    }
}

/// What is said about a number that the network's precision does not hold.
pub(super) fn too_large<T: Scalar>(node: &Node, part: &str, value: f64) -> Error {
    unwritable(
        node,
        format!(
            "its {part} has {value:e}, too large for {}; write it in f64",
            T::NAME
        ),
    )
}

pub(super) fn unwritable(node: &Node, problem: String) -> Error {
    Error::Unwritable {
        node: node.name().to_owned(),
        operation: node.operation().name(),
        problem,
    }
}
