//! Networks that compute the same by other operations.

mod batch_norm;
mod max;

use ndarray::{ArrayD, ArrayViewD};

use super::{BatchNorm, Builder, Network, Node, NodeId, Operation};
use crate::error::Result;
use crate::network::Gate;
use crate::scalar::Scalar;

/// A network that is being rebuilt, node by node.
struct Rebuild<'n, T> {
    network: &'n Network<T>,
    builder: Builder<T>,
    /// What stands for each node of the old network so far.
    ids: Vec<NodeId>,
}

impl<'n, T: Scalar> Rebuild<'n, T> {
    fn new(network: &'n Network<T>) -> Rebuild<'n, T> {
        Rebuild {
            network,
            builder: Builder::new(),
            ids: Vec::new(),
        }
    }

    fn inputs(&self, node: &Node) -> Vec<NodeId> {
        node.inputs.iter().map(|&i| self.ids[i]).collect()
    }

    /// The parameter arrays of a node.
    fn arrays(&self, node: &Node) -> Vec<ArrayD<T>> {
        let values = self.network.parameters().values();
        let array = |info: &crate::parameters::ParameterInfo| {
            let view = ArrayViewD::from_shape(info.shape(), &values[info.range()]);
            view.expect("the layout fits").to_owned()
        };
        self.network.parameters_of(node).map(array).collect()
    }

    fn finish(self) -> Result<Network<T>> {
        let output = *self.ids.last().expect("a network has at least its input");
        self.builder.build(output)
    }

    /// Adds the same node, under the same name.
    fn copy(&mut self, node: &Node) -> Result<NodeId> {
        let id = self.same(node)?;
        self.builder.rename(id, &node.name)?;
        Ok(id)
    }

    fn same(&mut self, node: &Node) -> Result<NodeId> {
        let inputs = self.inputs(node);
        let mut arrays = self.arrays(node).into_iter();
        let mut next = || arrays.next().expect("the node has this array");
        let x = inputs.first().copied().unwrap_or(NodeId(0));
        let (shape, constants) = (node.shape(), node.constants());
        let constant = |i: usize| {
            let values = constants[i]
                .values()
                .iter()
                .map(|&v| T::from_f64(v))
                .collect();
            ArrayD::from_shape_vec(constants[i].shape(), values).expect("the shape fits")
        };
        let b = &mut self.builder;
        match &node.operation {
            Operation::Input => b.input_shaped(shape),
            Operation::Dense { bias } => {
                let weight = fixed(next());
                let bias = bias.then(|| fixed(next()));
                b.dense(x, weight, bias)
            }
            Operation::Conv2d {
                window,
                groups,
                bias,
            } => {
                let weight = fixed(next());
                let bias = bias.then(|| fixed(next()));
                b.conv2d(x, weight, bias, *window, *groups)
            }
            Operation::AveragePool {
                window,
                count_padding,
            } => b.average_pool(x, *window, *count_padding),
            Operation::Mean { axes } => b.mean(x, axes),
            Operation::BatchNorm { axis, epsilon } => {
                let norm = BatchNorm {
                    scale: fixed(next()),
                    shift: fixed(next()),
                    mean: constants[0].values().to_vec().into(),
                    variance: constants[1].values().to_vec().into(),
                    epsilon: *epsilon,
                };
                b.batch_norm(x, *axis, norm)
            }
            Operation::Scale { learned } => {
                b.scale(x, if *learned { next() } else { constant(0) }, *learned)
            }
            Operation::Shift { learned } => {
                b.shift(x, if *learned { next() } else { constant(0) }, *learned)
            }
            Operation::Add => b.sum(&inputs),
            Operation::Concat { axis } => b.concat(&inputs, *axis),
            Operation::Reshape => b.reshape(x, shape),
            Operation::Transpose { axes } => b.transpose(x, axes),
            Operation::Gather { fill } => {
                let place = |&i: &f64| (i >= 0.0).then_some(i as usize);
                let index: Vec<Option<usize>> = constants[0].values().iter().map(place).collect();
                b.gather(x, shape, &index, *fill)
            }
            Operation::Gate(Gate::PRelu { .. }) => b.prelu_shared(x, next()),
            Operation::Gate(gate) => b.gate(x, *gate),
            Operation::MaxPool { window } => b.max_pool(x, *window),
            Operation::Max { axis } => b.max(x, *axis),
        }
    }
}

/// An array whose number of axes is known.
fn fixed<T: Scalar, D: ndarray::Dimension>(array: ArrayD<T>) -> ndarray::Array<T, D> {
    array.into_dimensionality().expect("the axes are known")
}
