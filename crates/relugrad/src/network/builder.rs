//! Building a network node by node, with every shape checked on the way.

use std::collections::HashSet;

use ndarray::{Array1, Array2};

use super::dense::Dense;
use super::gate::GateOperation;
use super::{Gate, Network, Node, NodeId, Operation};
use crate::error::{Error, Result, check_shape};
use crate::parameters::{ParameterInfo, Parameters};
use crate::scalar::Scalar;

/// Builds a [`Network`] as a graph: each call adds a node that reads nodes made before it.
///
/// ```
/// use ndarray::array;
/// use relugrad::Builder;
///
/// let mut builder = Builder::new();
/// let x = builder.input(2)?;
/// let z = builder.dense(x, array![[1.0, -1.0], [2.0, 0.0]], Some(array![0.0, -1.0]))?;
/// let a = builder.relu(z)?;
/// let f = builder.dense(a, array![[1.0, 1.0]], None)?;
/// let network = builder.build(f)?;
/// assert_eq!((network.inputs(), network.outputs()), (2, 1));
/// # Ok::<(), relugrad::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Builder<T> {
    nodes: Vec<Node>,
    layout: Vec<ParameterInfo>,
    values: Vec<T>,
    gates: usize,
    dense: usize,
}

impl<T: Scalar> Builder<T> {
    /// A graph without nodes.
    pub fn new() -> Builder<T> {
        Builder::default()
    }

    /// The input of `width` features. It must be the first node, and there is one only.
    ///
    /// # Errors
    /// [`Error::ZeroWidth`], or [`Error::InputNodes`] if there is already a node.
    pub fn input(&mut self, width: usize) -> Result<NodeId> {
        if !self.nodes.is_empty() {
            return Err(Error::InputNodes { found: 2 });
        }
        self.add("input".into(), Operation::Input, Vec::new(), width)
    }

    /// `W x + b` of the value `x` of `node`; `weight: [outputs, inputs]`, `bias: [outputs]`.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::ZeroWidth`], [`Error::NotFinite`] for a weight or bias, and
    /// [`Error::UnknownNode`].
    pub fn dense(
        &mut self,
        node: NodeId,
        weight: Array2<T>,
        bias: Option<Array1<T>>,
    ) -> Result<NodeId> {
        let inputs = self.width(node)?;
        let name = format!("dense{}", self.dense);
        let outputs = weight.nrows();
        check_shape(
            &format!("{name}.weight"),
            &[outputs, inputs],
            weight.shape(),
        )?;
        let weight = self.parameter(&name, "weight", weight.shape(), weight.iter())?;
        let bias = match bias {
            Some(bias) => {
                check_shape(&format!("{name}.bias"), &[outputs], bias.shape())?;
                Some(self.parameter(&name, "bias", bias.shape(), bias.iter())?)
            }
            None => None,
        };
        let operation = Operation::Dense(Dense {
            inputs,
            outputs,
            weight,
            bias,
        });
        self.dense += 1;
        self.add(name, operation, vec![node.0], outputs)
    }

    /// A [`Gate`] on every unit of `node`; for PReLU all slopes start at the given one.
    ///
    /// # Errors
    /// [`Error::UnknownNode`], or [`Error::OutOfRange`] for a slope that is not finite.
    pub fn gate(&mut self, node: NodeId, gate: Gate) -> Result<NodeId> {
        let width = self.width(node)?;
        if let Gate::PRelu { initial } = gate {
            return self.prelu(node, Array1::from_elem(width, T::from_f64(initial)));
        }
        if !gate.inactive_slope().is_finite() {
            return Err(Error::OutOfRange {
                option: format!("slope of {}{}", gate.name(), self.gates),
                value: gate.inactive_slope(),
                expected: "a finite number",
            });
        }
        self.add_gate(node, gate, width, None)
    }

    /// ReLU on every unit of `node`.
    ///
    /// # Errors
    /// [`Error::UnknownNode`].
    pub fn relu(&mut self, node: NodeId) -> Result<NodeId> {
        self.gate(node, Gate::Relu)
    }

    /// PReLU with the given learned slopes, one for each unit of `node`.
    ///
    /// # Errors
    /// [`Error::UnknownNode`], [`Error::Shape`], [`Error::NotFinite`].
    pub fn prelu(&mut self, node: NodeId, slopes: Array1<T>) -> Result<NodeId> {
        let width = self.width(node)?;
        let name = format!("prelu{}", self.gates);
        check_shape(&format!("{name}.slope"), &[width], slopes.shape())?;
        let start = self.parameter(&name, "slope", slopes.shape(), slopes.iter())?;
        let gate = Gate::PRelu {
            initial: slopes.first().map_or(0.0, |slope| slope.into_f64()),
        };
        self.add_gate(node, gate, width, Some(start))
    }

    /// The elementwise sum of `nodes`, which must have one width; a node may occur more than once.
    ///
    /// # Errors
    /// [`Error::UnknownNode`], [`Error::Shape`] if the widths differ, [`Error::ZeroWidth`] without nodes.
    pub fn sum(&mut self, nodes: &[NodeId]) -> Result<NodeId> {
        let name = format!("add{}", self.nodes.len());
        let width = match nodes.first() {
            Some(&first) => self.width(first)?,
            None => 0,
        };
        for &node in nodes {
            check_shape(
                &format!("a branch of {name}"),
                &[width],
                &[self.width(node)?],
            )?;
        }
        let inputs = nodes.iter().map(|node| node.0).collect();
        self.add(name, Operation::Add, inputs, width)
    }

    fn add_gate(
        &mut self,
        node: NodeId,
        gate: Gate,
        width: usize,
        slopes: Option<usize>,
    ) -> Result<NodeId> {
        let name = format!("{}{}", gate.name(), self.gates);
        let slopes = slopes.map(|start| start..start + width);
        let operation = GateOperation::new(gate, width, slopes, self.gates);
        self.gates += 1;
        self.add(name, Operation::Gate(operation), vec![node.0], width)
    }

    /// Calls a node `name` instead of `dense0` and the like; its parameters become `name.weight` and so on.
    ///
    /// ```
    /// # use ndarray::array;
    /// # use relugrad::Builder;
    /// let mut builder = Builder::new();
    /// let x = builder.input(1)?;
    /// let f = builder.dense(x, array![[2.0]], None)?;
    /// builder.rename(f, "head")?;
    /// let network = builder.build(f)?;
    /// assert_eq!(network.parameters().layout()[0].name(), "head.weight");
    /// # Ok::<(), relugrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownNode`], and [`Error::NodeName`] for an empty name. Whether names are unique is checked by
    /// [`build`](Self::build), so that nodes may exchange theirs.
    pub fn rename(&mut self, node: NodeId, name: &str) -> Result<()> {
        self.width(node)?;
        if name.is_empty() {
            return Err(Error::NodeName {
                name: String::new(),
                problem: "the name is empty",
            });
        }
        let node = &mut self.nodes[node.0];
        name.clone_into(&mut node.name);
        for start in node.operation.parameter_starts() {
            let found = self
                .layout
                .binary_search_by_key(&start, |info| info.range().start);
            self.layout[found.expect("the node's parameters are in the layout")].rename_node(name);
        }
        Ok(())
    }

    /// The network whose output is `output`, the node made last.
    ///
    /// # Errors
    /// [`Error::InputNodes`] without an input, [`Error::UnusedNode`] if a node does not lead to the output,
    /// [`Error::NodeName`] if two nodes have one name, [`Error::UnknownNode`].
    pub fn build(mut self, output: NodeId) -> Result<Network<T>> {
        if self.nodes.is_empty() {
            return Err(Error::InputNodes { found: 0 });
        }
        self.width(output)?;
        let consumers = self.consumers();
        let unused = (0..self.nodes.len()).find(|&i| i != output.0 && consumers[i] == 0);
        if let Some(i) = unused {
            let node = self.nodes[i].name.clone();
            return Err(Error::UnusedNode { node });
        }
        self.check_names()?;
        let slots = self.assign_slots(&consumers);
        self.mark_accumulation();
        Ok(Network {
            nodes: self.nodes,
            slots,
            parameters: Parameters::new(self.layout, self.values),
        })
    }

    fn check_names(&self) -> Result<()> {
        let mut names = HashSet::new();
        match self.nodes.iter().find(|node| !names.insert(&node.name)) {
            None => Ok(()),
            Some(node) => Err(Error::NodeName {
                name: node.name.clone(),
                problem: "another node has this name",
            }),
        }
    }

    /// How many nodes read each node.
    fn consumers(&self) -> Vec<usize> {
        let mut consumers = vec![0; self.nodes.len()];
        for &input in self.nodes.iter().flat_map(|node| &node.inputs) {
            consumers[input] += 1;
        }
        consumers
    }

    /// Gives every node a buffer, and returns their widths.
    ///
    /// A gate writes over its input unless that is the network's input, is read by others, or is needed for
    /// the gradient of learned slopes.
    fn assign_slots(&mut self, consumers: &[usize]) -> Vec<usize> {
        let mut slots = Vec::new();
        for i in 0..self.nodes.len() {
            let shared = match &self.nodes[i].operation {
                Operation::Gate(gate) if gate.slopes.is_none() => {
                    let input = self.nodes[i].inputs[0];
                    (input != 0 && consumers[input] == 1).then(|| self.nodes[input].slot)
                }
                _ => None,
            };
            self.nodes[i].slot = shared.unwrap_or_else(|| {
                slots.push(self.nodes[i].width);
                slots.len() - 1
            });
        }
        slots
    }

    /// In a backward pass the last reader of a node writes its cotangent and the earlier ones add theirs.
    fn mark_accumulation(&mut self) {
        let mut written = vec![false; self.nodes.len()];
        for node in self.nodes.iter_mut().rev() {
            node.accumulate = node
                .inputs
                .iter()
                .map(|&input| std::mem::replace(&mut written[input], true))
                .collect();
        }
    }

    fn width(&self, node: NodeId) -> Result<usize> {
        let unknown = Error::UnknownNode {
            id: node.0,
            nodes: self.nodes.len(),
        };
        self.nodes.get(node.0).map(|node| node.width).ok_or(unknown)
    }

    fn add(
        &mut self,
        name: String,
        operation: Operation,
        inputs: Vec<usize>,
        width: usize,
    ) -> Result<NodeId> {
        if width == 0 {
            return Err(Error::ZeroWidth { node: name });
        }
        self.nodes.push(Node {
            name,
            operation,
            inputs,
            width,
            slot: 0,
            accumulate: Vec::new(),
        });
        Ok(NodeId(self.nodes.len() - 1))
    }

    /// Appends an array to the parameters and returns where it starts.
    fn parameter<'a>(
        &mut self,
        node: &str,
        array: &str,
        shape: &[usize],
        values: impl Iterator<Item = &'a T>,
    ) -> Result<usize> {
        let start = self.values.len();
        self.values.extend(values);
        if let Some(index) = self.values[start..].iter().position(|v| !v.is_finite()) {
            let last = shape[shape.len() - 1];
            return Err(Error::NotFinite {
                what: format!("{node}.{array}"),
                index: if shape.len() == 1 {
                    vec![index]
                } else {
                    vec![index / last, index % last]
                },
            });
        }
        let name = format!("{node}.{array}");
        self.layout
            .push(ParameterInfo::new(name, shape.to_vec(), start));
        Ok(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn gates_share_the_buffer_of_an_input_that_nothing_else_reads() {
        let mut builder = Builder::new();
        let x = builder.input(2).unwrap();
        let g = builder.gate(x, Gate::Abs).unwrap();
        let z = builder.dense(g, array![[1.0, 2.0]], None).unwrap();
        let a = builder.relu(z).unwrap();
        let p = builder.prelu(a, array![0.5]).unwrap();
        let network = builder.build(p).unwrap();
        let slots: Vec<usize> = network.nodes.iter().map(|node| node.slot).collect();
        assert_eq!(slots, [0, 1, 2, 2, 3]);
        assert_eq!(network.slots, [2, 2, 1, 1]);
    }

    #[test]
    fn a_node_read_twice_keeps_its_buffer_and_accumulates() {
        let mut builder = Builder::new();
        let x = builder.input(1).unwrap();
        let z = builder.dense(x, array![[1.0]], None).unwrap();
        let a = builder.relu(z).unwrap();
        let f = builder.sum(&[z, a, z]).unwrap();
        let network = builder.build(f).unwrap();
        assert_eq!(network.slots.len(), 4);
        assert_eq!(network.nodes[3].accumulate, [false, false, true]);
        assert_eq!(network.nodes[2].accumulate, [true]);
    }

    #[test]
    fn mistakes_are_named() {
        let mut builder = Builder::<f64>::new();
        assert!(matches!(builder.input(0), Err(Error::ZeroWidth { .. })));
        let x = builder.input(2).unwrap();
        assert_eq!(builder.input(2), Err(Error::InputNodes { found: 2 }));
        let error = builder.dense(x, array![[1.0]], None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "dense0.weight has shape [1, 1] but [1, 2] is needed"
        );
        let error = builder.dense(x, array![[1.0, f64::NAN]], None).unwrap_err();
        assert!(matches!(error, Error::NotFinite { index, .. } if index == [0, 1]));
        let empty = Array2::zeros((0, 2));
        assert!(matches!(
            builder.dense(x, empty, None),
            Err(Error::ZeroWidth { .. })
        ));
    }

    #[test]
    fn a_node_without_a_reader_is_refused() {
        let mut builder = Builder::new();
        let x = builder.input(1).unwrap();
        builder.dense(x, array![[1.0]], None).unwrap();
        let f = builder.dense(x, array![[2.0]], None).unwrap();
        let error = builder.build(f).unwrap_err();
        assert_eq!(
            error,
            Error::UnusedNode {
                node: "dense0".into()
            }
        );
    }

    #[test]
    fn renaming_reaches_the_parameters_of_that_node_only() {
        let mut builder = Builder::new();
        let x = builder.input(1).unwrap();
        let z = builder.dense(x, array![[1.0]], Some(array![0.0])).unwrap();
        builder.rename(z, "dense1").unwrap();
        let a = builder.prelu(z, array![0.5]).unwrap();
        let f = builder.dense(a, array![[2.0]], None).unwrap();
        let taken = builder.clone().build(f).unwrap_err();
        assert_eq!(
            taken.to_string(),
            "a node cannot be called `dense1`: another node has this name"
        );
        builder.rename(f, "head").unwrap();
        builder.rename(a, "gate.1").unwrap();
        let network = builder.build(f).unwrap();
        let layout = network.parameters().layout().iter();
        let names: Vec<&str> = layout.map(|info| info.name()).collect();
        let expected = [
            "dense1.weight",
            "dense1.bias",
            "gate.1.slope",
            "head.weight",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn an_empty_name_is_refused() {
        let mut builder = Builder::<f32>::new();
        let x = builder.input(1).unwrap();
        assert!(matches!(builder.rename(x, ""), Err(Error::NodeName { .. })));
    }
}
