//! Nodes as data: what files, rewriting and other programs build networks from.

use ndarray::{Array, ArrayD, ArrayViewD, Dimension, IxDyn};

use super::builder::{attribute, check_name};
use super::{BatchNorm, Builder, Gate, Network, Node, NodeId, Operation};
use crate::error::{Result, check_shape};
use crate::parameters::ParameterInfo;
use crate::scalar::Scalar;

/// A node without what it reads: all that it takes to add one like it.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeSpec<T> {
    /// Its name; one is made up if there is none.
    pub name: Option<String>,
    /// What it computes.
    pub operation: Operation,
    /// The shape of its value for one sample.
    pub shape: Vec<usize>,
    /// Its parameters, in the order of [`Operation::arrays`].
    pub parameters: Vec<ArrayD<T>>,
    /// The other arrays that it computes with, in that order.
    pub constants: Vec<ArrayD<f64>>,
}

impl<T: Scalar> NodeSpec<T> {
    /// The parameters as arrays of known numbers of axes, one after the other.
    fn parameter<D: Dimension>(&mut self) -> Array<T, D> {
        fixed(self.parameters.remove(0))
    }

    fn bias<D: Dimension>(&mut self, bias: bool) -> Option<Array<T, D>> {
        bias.then(|| self.parameter())
    }

    /// The factor or summand of an elementwise map.
    fn coefficient(&mut self, learned: bool) -> ArrayD<T> {
        match learned {
            true => self.parameter(),
            false => self.constants.remove(0).mapv(T::from_f64),
        }
    }
}

fn fixed<T, D: Dimension>(array: ArrayD<T>) -> Array<T, D> {
    array.into_dimensionality().expect("its shape was checked")
}

impl<T: Scalar> Builder<T> {
    /// Adds the node that `spec` describes, which reads `inputs`.
    ///
    /// ```
    /// use ndarray::array;
    /// use relugrad::{Builder, NodeSpec, Operation};
    ///
    /// let mut builder = Builder::new();
    /// let x = builder.input(2)?;
    /// let spec = NodeSpec {
    ///     name: Some("head".into()),
    ///     operation: Operation::Dense { bias: false },
    ///     shape: vec![1],
    ///     parameters: vec![array![[1.0, -1.0]].into_dyn()],
    ///     constants: Vec::new(),
    /// };
    /// let f = builder.add(spec, &[x])?;
    /// assert_eq!(builder.build(f)?.nodes()[1].name(), "head");
    /// # Ok::<(), relugrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Attribute`](crate::Error::Attribute) for another number of inputs or arrays than
    /// the operation has, [`Error::Shape`](crate::Error::Shape) for one of another shape, also for
    /// that of the value, [`Error::NodeName`](crate::Error::NodeName) for an empty name, and those
    /// of the operation.
    pub fn add(&mut self, spec: NodeSpec<T>, inputs: &[NodeId]) -> Result<NodeId> {
        spec.name.as_deref().map_or(Ok(()), check_name)?;
        self.called = spec.name.clone();
        let name = self.name(spec.operation.name());
        let shape = spec.shape.clone();
        let added = self
            .check(&name, &spec, inputs)
            .and_then(|()| self.described(&name, spec, inputs));
        self.called = None;
        let added = added?;
        check_shape(&name, self.shape(added)?, &shape)?;
        Ok(added)
    }

    /// Sees that a node reads as many nodes and has the arrays that its operation asks for.
    fn check(&self, name: &str, spec: &NodeSpec<T>, inputs: &[NodeId]) -> Result<()> {
        spec.operation.check_inputs(name, inputs.len())?;
        let input = inputs
            .first()
            .map_or(Ok(&[][..]), |&input| self.shape(input))?;
        let asked_for = spec.operation.arrays(input, &spec.shape);
        let found = spec
            .parameters
            .iter()
            .map(ArrayD::shape)
            .map(|shape| (true, shape));
        let found: Vec<_> = found
            .chain(spec.constants.iter().map(|array| (false, array.shape())))
            .collect();
        let learned = asked_for.iter().map(|array| array.learned);
        if !learned.eq(found.iter().map(|(learned, _)| *learned)) {
            let names: Vec<&str> = asked_for.iter().map(|array| array.name).collect();
            let problem = format!(
                "its operation has the arrays {names:?}, parameters first, and it has others"
            );
            return Err(attribute(name, problem));
        }
        for (array, (_, found)) in asked_for.iter().zip(found) {
            if let Some(shape) = &array.shape {
                check_shape(&format!("{name}.{}", array.name), shape, found)?;
            }
        }
        Ok(())
    }

    fn described(
        &mut self,
        name: &str,
        mut spec: NodeSpec<T>,
        inputs: &[NodeId],
    ) -> Result<NodeId> {
        let x = inputs.first().copied().unwrap_or(NodeId(0));
        match spec.operation.clone() {
            Operation::Input => self.input_shaped(&spec.shape),
            Operation::Dense { bias } => self.dense(x, spec.parameter(), spec.bias(bias)),
            Operation::Conv2d {
                window,
                groups,
                bias,
            } => self.conv2d(x, spec.parameter(), spec.bias(bias), window, groups),
            Operation::AveragePool {
                window,
                count_padding,
            } => self.average_pool(x, window, count_padding),
            Operation::Mean { axes } => self.mean(x, &axes),
            Operation::BatchNorm { axis, epsilon } => {
                let norm = BatchNorm {
                    scale: spec.parameter(),
                    shift: spec.parameter(),
                    mean: fixed(spec.constants.remove(0)),
                    variance: fixed(spec.constants.remove(0)),
                    epsilon,
                };
                self.batch_norm(x, axis, norm)
            }
            Operation::Scale { learned } => self.scale(x, spec.coefficient(learned), learned),
            Operation::Shift { learned } => self.shift(x, spec.coefficient(learned), learned),
            Operation::Add => self.sum(inputs),
            Operation::Concat { axis } => self.concat(inputs, axis),
            Operation::Reshape => self.reshape(x, &spec.shape),
            Operation::Transpose { axes } => self.transpose(x, &axes),
            Operation::Gather { fill } => {
                let index = places(name, &spec.constants[0])?;
                self.gather(x, &spec.shape, &index, fill)
            }
            Operation::Gate(Gate::PRelu { .. }) => self.prelu_shared(x, spec.parameter()),
            Operation::Gate(gate) => self.gate(x, gate),
            Operation::MaxPool { window } => self.max_pool(x, window),
            Operation::Max { axis } => self.max(x, axis),
        }
    }
}

/// The places that the constant of a gather lists, −1 for none.
fn places(name: &str, index: &ArrayD<f64>) -> Result<Vec<Option<usize>>> {
    let place = |&i: &f64| {
        if i < -1.0 || i.fract() != 0.0 {
            return Err(attribute(
                name,
                format!("{i} is no place of an entry, and not -1"),
            ));
        }
        Ok((i >= 0.0).then_some(i as usize))
    };
    index.iter().map(place).collect()
}

impl<T: Scalar> Network<T> {
    /// All that it takes to add a node like one of this network's.
    pub fn spec(&self, node: &Node) -> NodeSpec<T> {
        let values = self.parameters.values();
        let parameter = |info: &ParameterInfo| {
            let view = ArrayViewD::from_shape(info.shape(), &values[info.range()]);
            view.expect("the layout fits").to_owned()
        };
        let constant = |constant: &super::Constant| {
            let values = constant.values().to_vec();
            ArrayD::from_shape_vec(IxDyn(constant.shape()), values).expect("the shape fits")
        };
        NodeSpec {
            name: Some(node.name.clone()),
            operation: node.operation.clone(),
            shape: node.shape.clone(),
            parameters: self.parameters_of(node).map(parameter).collect(),
            constants: node.constants.iter().map(constant).collect(),
        }
    }

    /// The network that `map` makes of this one, node by node: it gets a node with the nodes that
    /// stand for its inputs, and says which one stands for it.
    ///
    /// ```
    /// use relugrad::{Gate, Mlp, Network, Operation};
    ///
    /// let network: Network<f64> = Mlp::new(&[3, 5, 2]).build(0)?;
    /// let folded = network.map_nodes(|builder, node, inputs| {
    ///     let mut spec = network.spec(node);
    ///     if let Operation::Gate(gate) = &mut spec.operation {
    ///         *gate = Gate::Abs;
    ///     }
    ///     builder.add(spec, inputs)
    /// })?;
    /// assert_eq!(folded.nodes()[2].gate(), Some(Gate::Abs));
    /// # Ok::<(), relugrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of `map`, and of [`Builder::build`].
    pub fn map_nodes(
        &self,
        mut map: impl FnMut(&mut Builder<T>, &Node, &[NodeId]) -> Result<NodeId>,
    ) -> Result<Network<T>> {
        let mut builder = Builder::new();
        let mut ids: Vec<NodeId> = Vec::new();
        for node in &self.nodes {
            let inputs: Vec<NodeId> = node.inputs.iter().map(|&i| ids[i]).collect();
            ids.push(map(&mut builder, node, &inputs)?);
        }
        builder.build(*ids.last().expect("a network has at least its input"))
    }
}
