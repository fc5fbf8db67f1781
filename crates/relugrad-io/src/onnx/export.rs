//! From a network to an ONNX file.

use prost::Message;
use relugrad::{Gate, Network, Node, Operation, Scalar, Window};

use super::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, tensor_shape_proto, type_proto,
};
use crate::error::{Error, Result};

/// The version of ONNX's operators that is written; those of later versions are read by the same programs.
const OPSET: i64 = 17;

/// The version of the file format that belongs to it.
const IR_VERSION: i64 = 8;

/// The bytes of an ONNX file that computes the logits of `network` from `input: [N, …]`.
///
/// Numbers are of the network's precision. A leaky slope that `f32` does not hold is written as a PRelu, whose slope has
/// the network's precision; learned gates, batch normalisation and pooling are the operators of these names, a gather is
/// Flatten, Pad, Gather and Reshape.
///
/// # Errors
/// [`Error::NotFinite`] for a NaN or infinite weight.
pub fn onnx_to_bytes<T: Scalar>(network: &Network<T>) -> Result<Vec<u8>> {
    check_finite(network)?;
    let mut writer = Writer {
        network,
        graph: GraphProto {
            name: "relugrad".into(),
            ..GraphProto::default()
        },
    };
    for node in network.nodes() {
        writer.node(node);
    }
    let nodes = network.nodes();
    let (first, last) = (&nodes[0], &nodes[nodes.len() - 1]);
    writer.graph.input.push(value_info::<T>(first));
    writer.graph.output.push(value_info::<T>(last));
    let model = ModelProto {
        ir_version: IR_VERSION,
        producer_name: "relugrad".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(writer.graph),
        opset_import: vec![OperatorSetIdProto {
            domain: String::new(),
            version: OPSET,
        }],
        functions: Vec::new(),
    };
    Ok(model.encode_to_vec())
}

fn check_finite<T: Scalar>(network: &Network<T>) -> Result<()> {
    for (name, array) in network.parameters().iter() {
        if let Some(entry) = array.iter().position(|v| !v.is_finite()) {
            return Err(Error::NotFinite {
                tensor: name.to_owned(),
                index: crate::native::index(array.shape(), entry),
                value: array.iter().nth(entry).map_or(0.0, |v| v.into_f64()),
            });
        }
    }
    Ok(())
}

/// The number that ONNX gives to the type of the entries.
fn element_type<T: Scalar>() -> i32 {
    if T::NAME == f32::NAME { 1 } else { 11 }
}

fn value_info<T: Scalar>(node: &Node) -> ValueInfoProto {
    use tensor_shape_proto::{Dimension, dimension::Value};
    let batch = Value::DimParam("N".into());
    let lengths = node.shape().iter().map(|&n| Value::DimValue(n as i64));
    let dim = [batch].into_iter().chain(lengths);
    let shape = TensorShapeProto {
        dim: dim.map(|value| Dimension { value: Some(value) }).collect(),
    };
    let tensor = type_proto::Tensor {
        elem_type: element_type::<T>(),
        shape: Some(shape),
    };
    ValueInfoProto {
        name: node.name().to_owned(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
        }),
    }
}

/// A graph that is being written. The value of a node has the node's name.
struct Writer<'n, T> {
    network: &'n Network<T>,
    graph: GraphProto,
}

fn integer(name: &str, i: i64) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        i,
        r#type: 2,
        ..AttributeProto::default()
    }
}

fn float(name: &str, f: f32) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        f,
        r#type: 1,
        ..AttributeProto::default()
    }
}

fn integers(name: &str, ints: impl IntoIterator<Item = usize>) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        ints: ints.into_iter().map(|i| i as i64).collect(),
        r#type: 7,
        ..AttributeProto::default()
    }
}

/// The attributes of a window.
fn window(window: &Window) -> Vec<AttributeProto> {
    let [[top, bottom], [left, right]] = window.padding;
    vec![
        integers("kernel_shape", window.kernel),
        integers("strides", window.stride),
        integers("dilations", window.dilation),
        integers("pads", [top, left, bottom, right]),
    ]
}

/// Axes of one sample as axes of a batch.
fn batched(axes: &[usize]) -> Vec<usize> {
    axes.iter().map(|axis| axis + 1).collect()
}

impl<T: Scalar> Writer<'_, T> {
    fn call(
        &mut self,
        operator: &str,
        inputs: &[&str],
        output: &str,
        attribute: Vec<AttributeProto>,
    ) {
        self.graph.node.push(NodeProto {
            input: inputs.iter().map(|&name| name.to_owned()).collect(),
            output: vec![output.to_owned()],
            name: output.to_owned(),
            op_type: operator.to_owned(),
            attribute,
            domain: String::new(),
        });
    }

    fn tensor(&mut self, name: &str, dims: &[usize], values: impl Iterator<Item = f64>) {
        let raw_data = if T::NAME == f32::NAME {
            values.flat_map(|v| (v as f32).to_le_bytes()).collect()
        } else {
            values.flat_map(f64::to_le_bytes).collect()
        };
        self.graph.initializer.push(TensorProto {
            dims: dims.iter().map(|&n| n as i64).collect(),
            data_type: element_type::<T>(),
            name: name.to_owned(),
            raw_data,
            ..TensorProto::default()
        });
    }

    fn indices(&mut self, name: &str, values: impl Iterator<Item = i64>) {
        let values: Vec<i64> = values.collect();
        self.graph.initializer.push(TensorProto {
            dims: vec![values.len() as i64],
            data_type: 7,
            name: name.to_owned(),
            raw_data: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            ..TensorProto::default()
        });
    }

    /// Writes the parameters of a node as initialisers, and returns their names.
    fn parameters(&mut self, node: &Node) -> Vec<String> {
        let network = self.network;
        let values = network.parameters().values();
        let infos: Vec<_> = network.parameters_of(node).collect();
        let mut names = Vec::new();
        for info in infos {
            let entries = values[info.range()].iter().map(|v| v.into_f64());
            self.tensor(info.name(), info.shape(), entries);
            names.push(info.name().to_owned());
        }
        names
    }

    /// Writes the constants of a node as initialisers, and returns their names.
    fn constants(&mut self, node: &Node) -> Vec<String> {
        let mut names = Vec::new();
        for constant in node.constants() {
            let name = format!("{}.{}", node.name(), constant.name());
            self.tensor(&name, constant.shape(), constant.values().iter().copied());
            names.push(name);
        }
        names
    }

    fn node(&mut self, node: &Node) {
        let network = self.network;
        let inputs = node.inputs().map(|i| network.nodes()[i.index()].name());
        let inputs: Vec<&str> = inputs.collect();
        let (name, x) = (node.name(), inputs.first().copied().unwrap_or_default());
        match node.operation() {
            Operation::Input => {}
            Operation::Dense { .. } if node.shape().len() > 1 => self.product(node, x),
            Operation::Dense { .. } => {
                let parameters = self.parameters(node);
                self.with(x, &parameters, "Gemm", name, vec![integer("transB", 1)]);
            }
            Operation::Conv2d {
                window: w, groups, ..
            } => {
                let parameters = self.parameters(node);
                let mut attributes = window(w);
                attributes.push(integer("group", *groups as i64));
                self.with(x, &parameters, "Conv", name, attributes);
            }
            Operation::AveragePool {
                window: w,
                count_padding,
            } => {
                let mut attributes = window(w);
                // AveragePool of this version knows no dilation other than 1.
                attributes.remove(2);
                attributes.push(integer("ceil_mode", i64::from(w.ceil)));
                attributes.push(integer("count_include_pad", i64::from(*count_padding)));
                self.call("AveragePool", &[x], name, attributes);
            }
            Operation::MaxPool { window: w } => {
                let mut attributes = window(w);
                attributes.push(integer("ceil_mode", i64::from(w.ceil)));
                self.call("MaxPool", &[x], name, attributes);
            }
            Operation::Mean { axes } => self.reduce("ReduceMean", axes, x, name),
            Operation::Max { axis } => self.reduce("ReduceMax", &[*axis], x, name),
            Operation::BatchNorm { axis, epsilon } => self.batch_norm(node, x, (*axis, *epsilon)),
            Operation::Scale { learned } => self.elementwise("Mul", node, x, *learned),
            Operation::Shift { learned } => self.elementwise("Add", node, x, *learned),
            Operation::Add => self.call("Sum", &inputs, name, Vec::new()),
            Operation::Concat { axis } => {
                let axis = integer("axis", *axis as i64 + 1);
                self.call("Concat", &inputs, name, vec![axis]);
            }
            Operation::Reshape => self.reshape(x, name, node.shape()),
            Operation::Transpose { axes } => {
                let order = [0].into_iter().chain(batched(axes));
                self.call("Transpose", &[x], name, vec![integers("perm", order)]);
            }
            Operation::Gather { fill } => self.gather(node, x, *fill),
            Operation::Gate(gate) => self.gate(node, x, *gate),
            other => unreachable!("operation {other} has no counterpart"),
        }
    }

    fn with(
        &mut self,
        x: &str,
        arrays: &[String],
        operator: &str,
        name: &str,
        attributes: Vec<AttributeProto>,
    ) {
        let arrays = arrays.iter().map(String::as_str);
        let inputs: Vec<&str> = [x].into_iter().chain(arrays).collect();
        self.call(operator, &inputs, name, attributes);
    }

    /// A dense layer along the last of several axes: the product with the transpose, and a sum.
    fn product(&mut self, node: &Node, x: &str) {
        let (network, name) = (self.network, node.name());
        let infos: Vec<_> = network.parameters_of(node).collect();
        let (weight, shape) = (infos[0], infos[0].shape());
        let values = &network.parameters().values()[weight.range()];
        let entry = |i: usize| values[i % shape[0] * shape[1] + i / shape[0]].into_f64();
        self.tensor(
            weight.name(),
            &[shape[1], shape[0]],
            (0..values.len()).map(entry),
        );
        let Some(bias) = infos.get(1) else {
            return self.call("MatMul", &[x, weight.name()], name, Vec::new());
        };
        let product = format!("{name}/product");
        self.call("MatMul", &[x, weight.name()], &product, Vec::new());
        let values = &network.parameters().values()[bias.range()];
        self.tensor(
            bias.name(),
            bias.shape(),
            values.iter().map(|v| v.into_f64()),
        );
        self.call("Add", &[&product, bias.name()], name, Vec::new());
    }

    fn reduce(&mut self, operator: &str, axes: &[usize], x: &str, name: &str) {
        if axes.is_empty() {
            return self.call("Identity", &[x], name, Vec::new());
        }
        let attributes = vec![integers("axes", batched(axes)), integer("keepdims", 0)];
        self.call(operator, &[x], name, attributes);
    }

    /// BatchNormalization has an attribute in `f32` for epsilon, so that is added to the variance here.
    fn batch_norm(&mut self, node: &Node, x: &str, (axis, epsilon): (usize, f64)) {
        let name = node.name();
        let mut arrays = self.parameters(node);
        let [mean, variance] = node.constants() else {
            unreachable!("batch normalisation has a mean and a variance");
        };
        let mean_name = format!("{name}.mean");
        let variance_name = format!("{name}.variance");
        self.tensor(&mean_name, mean.shape(), mean.values().iter().copied());
        let shifted = variance.values().iter().map(|v| v + epsilon);
        self.tensor(&variance_name, variance.shape(), shifted);
        arrays.extend([mean_name, variance_name]);
        let attributes = vec![float("epsilon", 0.0)];
        if axis == 0 {
            return self.with(x, &arrays, "BatchNormalization", name, attributes);
        }
        // The axis goes to the place of channels and back; the exchange is its own inverse.
        let mut order: Vec<usize> = (0..=node.shape().len()).collect();
        order.swap(1, axis + 1);
        let (there, normalised) = (format!("{name}/there"), format!("{name}/normalised"));
        self.call(
            "Transpose",
            &[x],
            &there,
            vec![integers("perm", order.clone())],
        );
        self.with(
            &there,
            &arrays,
            "BatchNormalization",
            &normalised,
            attributes,
        );
        self.call(
            "Transpose",
            &[&normalised],
            name,
            vec![integers("perm", order)],
        );
    }

    fn elementwise(&mut self, operator: &str, node: &Node, x: &str, learned: bool) {
        let arrays = if learned {
            self.parameters(node)
        } else {
            self.constants(node)
        };
        self.with(x, &arrays, operator, node.name(), Vec::new());
    }

    fn reshape(&mut self, x: &str, name: &str, shape: &[usize]) {
        let target = format!("{name}.shape");
        let lengths = shape.iter().map(|&n| n as i64);
        self.indices(&target, [-1].into_iter().chain(lengths));
        self.call("Reshape", &[x, &target], name, Vec::new());
    }

    fn gather(&mut self, node: &Node, x: &str, fill: f64) {
        let name = node.name();
        let (flat, padded) = (format!("{name}/flat"), format!("{name}/padded"));
        let (taken, index) = (format!("{name}/taken"), format!("{name}.index"));
        self.call("Flatten", &[x], &flat, vec![integer("axis", 1)]);
        let (pads, value) = (format!("{name}.pads"), format!("{name}.fill"));
        self.indices(&pads, [0, 0, 0, 1].into_iter());
        self.tensor(&value, &[], [fill].into_iter());
        self.call("Pad", &[&flat, &pads, &value], &padded, Vec::new());
        let width = |id: relugrad::NodeId| self.network.nodes()[id.index()].width() as i64;
        let beyond = node.inputs().next().map_or(0, width);
        let place = move |&i: &f64| if i < 0.0 { beyond } else { i as i64 };
        self.indices(&index, node.constants()[0].values().iter().map(place));
        self.call(
            "Gather",
            &[&padded, &index],
            &taken,
            vec![integer("axis", 1)],
        );
        self.reshape(&taken, name, node.shape());
    }

    fn gate(&mut self, node: &Node, x: &str, gate: Gate) {
        let name = node.name();
        match gate {
            Gate::Relu => self.call("Relu", &[x], name, Vec::new()),
            Gate::Abs => self.call("Abs", &[x], name, Vec::new()),
            Gate::LeakyRelu { slope } if f64::from(slope as f32) == slope => {
                self.call("LeakyRelu", &[x], name, vec![float("alpha", slope as f32)]);
            }
            Gate::LeakyRelu { slope } => {
                let array = format!("{name}.slope");
                self.tensor(&array, &[1], [slope].into_iter());
                self.call("PRelu", &[x, &array], name, Vec::new());
            }
            Gate::PRelu { .. } => {
                let arrays = self.parameters(node);
                self.with(x, &arrays, "PRelu", name, Vec::new());
            }
            Gate::Clip { min, max } => {
                let (low, high) = (format!("{name}.min"), format!("{name}.max"));
                self.tensor(&low, &[], [min].into_iter());
                self.tensor(&high, &[], [max].into_iter());
                self.call("Clip", &[x, &low, &high], name, Vec::new());
            }
        }
    }
}
