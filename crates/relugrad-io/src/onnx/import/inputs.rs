//! Which inputs and which output of a graph the network has, and their dimensions.

use std::collections::HashSet;

use ndarray::ArrayD;

use crate::error::Result;
use crate::onnx::element::{Element, type_name};
use crate::onnx::graph_error;
use crate::onnx::import::{First, Importer};
use crate::onnx::proto::{ValueInfoProto, tensor_shape_proto::dimension, type_proto};
use crate::onnx::tensor::Tensor;
use crate::onnx::values::{Activation, Value, sample_shape};

impl<'a> Importer<'a> {
    /// The value that is the logits.
    pub(super) fn output(&self) -> Result<&'a str> {
        let (graph, wanted) = (self.graph, self.selection.output.as_deref());
        let outputs: Vec<&str> = graph.output.iter().map(|o| o.name.as_str()).collect();
        let Some(wanted) = wanted else {
            let [output] = outputs[..] else {
                return Err(graph_error(format!(
                    "it has the outputs {outputs:?}; --output NAME says which are the logits"
                )));
            };
            return Ok(output);
        };
        let inner = graph.node.iter().flat_map(|node| &node.output);
        let mut all = outputs.iter().copied().chain(inner.map(String::as_str));
        all.find(|&name| name == wanted && !name.is_empty())
            .ok_or_else(|| {
                graph_error(format!(
                    "no output and no node's value is called `{wanted}`; its outputs are {outputs:?}"
                ))
            })
    }

    /// Makes the one input that the network is a function of its first node, and constants of the
    /// others that are read.
    pub(super) fn read_inputs(&mut self) -> Result<()> {
        let initialized: HashSet<&str> = self
            .graph
            .initializer
            .iter()
            .map(|t| t.name.as_str())
            .collect();
        let inputs = self.graph.input.iter();
        let free = inputs.filter(|i| !initialized.contains(i.name.as_str()));
        let free: Vec<&'a ValueInfoProto> = free.collect();
        let input = self.chosen_input(&free)?;
        for (name, array) in &self.selection.constants {
            let Some(info) = self.graph.input.iter().find(|info| info.name == *name) else {
                return Err(graph_error(format!(
                    "it has no input `{name}` to be given a constant; its inputs are {:?}",
                    names(&free)
                )));
            };
            let constant = self.given(info, array)?;
            self.values.insert(&info.name, Value::Constant(constant));
        }
        let element = element(input)?;
        if !matches!(element, Element::Float | Element::Double) {
            return Err(graph_error(format!(
                "its input `{}` has numbers of type {}, but float or double are needed",
                input.name,
                element.name()
            )));
        }
        self.element = element;
        let dims = self.input_dims(input)?;
        let id = self.builder.input_shaped(sample_shape(&dims))?;
        self.rename(id, &input.name)?;
        self.values
            .insert(&input.name, Value::Node(Activation { id, dims }));
        Ok(())
    }

    /// The input that was asked for, or the only one that the output depends on and that has no
    /// constant.
    fn chosen_input(&self, free: &[&'a ValueInfoProto]) -> Result<&'a ValueInfoProto> {
        let given = |info: &&&ValueInfoProto| {
            let mut constants = self.selection.constants.iter();
            constants.any(|(name, _)| *name == info.name)
        };
        let read = |info: &&&ValueInfoProto| self.readers.contains_key(info.name.as_str());
        let read = free.iter().filter(read).filter(|info| !given(info));
        let read: Vec<&'a ValueInfoProto> = read.copied().collect();
        let Some(wanted) = &self.selection.input else {
            return match read[..] {
                [input] => Ok(input),
                [] => Err(graph_error(format!(
                    "none of its inputs {:?} leads to the output",
                    names(free)
                ))),
                _ => Err(graph_error(format!(
                    "the output depends on its inputs {:?}; --input-name NAME says which is the network's, and \
                     --constant NAME=VALUE what the others are",
                    names(&read)
                ))),
            };
        };
        let Some(input) = free.iter().find(|info| info.name == *wanted) else {
            return Err(graph_error(format!(
                "it has no input `{wanted}`; its inputs are {:?}",
                names(free)
            )));
        };
        let others = read.into_iter().filter(|info| info.name != *wanted);
        let others: Vec<&ValueInfoProto> = others.collect();
        match others.is_empty() {
            true => Ok(input),
            false => Err(graph_error(format!(
                "the output also depends on its inputs {:?}; --constant NAME=VALUE or NAME=FILE.npy says what they are",
                names(&others)
            ))),
        }
    }

    /// The constant that an input is given.
    fn given(&self, info: &ValueInfoProto, array: &ArrayD<f64>) -> Result<Tensor> {
        let (name, element) = (&info.name, element(info)?);
        let axes = axes(info)?;
        let found = array.shape();
        let open = axes
            .clone()
            .unwrap_or_else(|| found.iter().map(|&n| Some(n)).collect());
        let filled = array.ndim() == 0 && !open.is_empty();
        let dims: Vec<usize> = match filled {
            true => open.iter().map(|n| n.unwrap_or(1)).collect(),
            // A batch of one may be left out.
            false if found.len() + 1 == open.len() && matches!(open[0], None | Some(1)) => {
                [&[1], found].concat()
            }
            false => found.to_vec(),
        };
        if !fits(&open, &dims) {
            return Err(graph_error(format!(
                "its input `{name}` of {} is given an array of shape {found:?}",
                written(&open)
            )));
        }
        let what = || format!("the constant `{name}` of dimensions {dims:?}");
        let count = self.budget.array(&dims, size_of::<f64>(), what)?;
        let values = array.iter().copied().cycle().take(count);
        if element.is_real() {
            return Ok(Tensor::real(element, dims, values));
        }
        let values: Vec<f64> = values.collect();
        let whole = |v: &f64| v.fract() == 0.0 && v.abs() <= (1u64 << 53) as f64;
        if let Some(v) = values.iter().find(|v| !whole(v)) {
            return Err(graph_error(format!(
                "its input `{name}` has numbers of type {}, which {v} is not",
                element.name()
            )));
        }
        let values = values.into_iter().map(|v| v as i128);
        Ok(Tensor::whole(element, dims, values))
    }

    /// The dimensions of the network's input: a sample under its batch, or a sample alone.
    fn input_dims(&mut self, input: &ValueInfoProto) -> Result<Vec<usize>> {
        let (name, axes) = (&input.name, axes(input)?);
        if let Some(shape) = &self.selection.input_shape {
            return self.stated_dims(name, axes, shape);
        }
        let Some(axes) = axes else {
            return Err(graph_error(format!(
                "its input `{name}` has no shape; --input-shape says what that of one sample is"
            )));
        };
        if axes.is_empty() {
            return Err(graph_error(format!("its input `{name}` is a scalar")));
        }
        let batch = axes.len() > 1;
        if let Some(axis) = (usize::from(batch)..axes.len()).find(|&axis| axes[axis].is_none()) {
            return Err(graph_error(format!(
                "axis {axis} of its input `{name}` of {} has no fixed length; --input-shape says what the shape of one \
                 sample is",
                written(&axes)
            )));
        }
        let mut dims: Vec<usize> = axes.iter().map(|n| n.unwrap_or(1)).collect();
        if batch && dims[0] > 1 {
            self.first_axis(&mut dims[0]);
        }
        Ok(dims)
    }

    /// The dimensions of an input for which the shape of a sample was given.
    fn stated_dims(
        &mut self,
        name: &str,
        axes: Option<Vec<Option<usize>>>,
        shape: &[usize],
    ) -> Result<Vec<usize>> {
        let batched = [&[1], shape].concat();
        let Some(axes) = axes else {
            return Ok(batched);
        };
        if fits(&axes, shape) && !axes.is_empty() {
            return Ok(shape.to_vec());
        }
        let without_batch = axes.get(1..).unwrap_or_default();
        if axes.is_empty() || !fits(without_batch, shape) {
            return Err(graph_error(format!(
                "--input-shape {shape:?} does not go with its input `{name}` of {}: it must be a shape of it, or one \
                 without axis 0, the batch",
                written(&axes)
            )));
        }
        let mut dims = batched;
        if let Some(n) = axes[0].filter(|&n| n > 1) {
            dims[0] = n;
            self.first_axis(&mut dims[0]);
        }
        Ok(dims)
    }

    /// Reads another batch in place of the fixed one, or takes its axis for one of the sample.
    fn first_axis(&mut self, length: &mut usize) {
        if let First::Batch(samples) = self.first {
            self.fixed_batch = Some(*length);
            *length = samples;
        }
    }
}

fn names<'i>(inputs: &[&'i ValueInfoProto]) -> Vec<&'i str> {
    inputs.iter().map(|info| info.name.as_str()).collect()
}

/// Whether a shape has the lengths that are fixed.
fn fits(axes: &[Option<usize>], shape: &[usize]) -> bool {
    let same = |(axis, n): (&Option<usize>, &usize)| axis.is_none_or(|fixed| fixed == *n);
    axes.len() == shape.len() && axes.iter().zip(shape).all(same)
}

/// Dimensions as an error shows them.
fn written(axes: &[Option<usize>]) -> String {
    let axis = |n: &Option<usize>| n.map_or("?".into(), |n| n.to_string());
    let axes: Vec<String> = axes.iter().map(axis).collect();
    format!("shape [{}]", axes.join(", "))
}

fn tensor_type(input: &ValueInfoProto) -> Result<&type_proto::Tensor> {
    match input.r#type.as_ref().and_then(|t| t.value.as_ref()) {
        Some(type_proto::Value::TensorType(tensor)) => Ok(tensor),
        _ => Err(graph_error(format!(
            "its input `{}` is no tensor",
            input.name
        ))),
    }
}

fn element(input: &ValueInfoProto) -> Result<Element> {
    match tensor_type(input)?.elem_type {
        0 => Ok(Element::Float),
        code => Element::of(code.into()).ok_or_else(|| {
            graph_error(format!(
                "its input `{}` has numbers of type {}, which are not read",
                input.name,
                type_name(code)
            ))
        }),
    }
}

/// The lengths of an input's axes as far as they are fixed, or `None` if not even their number is.
fn axes(input: &ValueInfoProto) -> Result<Option<Vec<Option<usize>>>> {
    let Some(shape) = &tensor_type(input)?.shape else {
        return Ok(None);
    };
    let fixed = |value: &Option<dimension::Value>| match value {
        Some(dimension::Value::DimValue(n)) => usize::try_from(*n).ok().filter(|&n| n > 0),
        _ => None,
    };
    Ok(Some(
        shape.dim.iter().map(|dim| fixed(&dim.value)).collect(),
    ))
}
