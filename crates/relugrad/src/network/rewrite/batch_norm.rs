//! Batch normalisation folded into the affine layer before or after it.

use ndarray::{Array1, Axis};

use super::{Rebuild, fixed};
use crate::error::Result;
use crate::network::{Network, Node, NodeId, Operation};
use crate::scalar::Scalar;

/// A normalisation as `factor ⊙ x + summand` along its axis.
struct Affine<T> {
    factor: Array1<T>,
    summand: Array1<T>,
}

impl<T: Scalar> Network<T> {
    /// The same map with every batch normalisation that can be folded into a neighbouring dense or convolution layer
    /// gone, and the names of those that cannot.
    ///
    /// It goes into the layer before it if nothing else reads that, or else into the one layer that reads it. Into a
    /// convolution with padding it can go only if it does not shift, since padding is not shifted.
    ///
    /// # Errors
    /// [`Error::NotFinite`](crate::Error::NotFinite) if a product overflows.
    pub fn fold_batch_norm(&self) -> Result<(Network<T>, Vec<String>)> {
        let (mut network, mut left) = self.fold_once()?;
        // A layer takes in one normalisation at a time, so what is left may find room now.
        loop {
            let (next, still) = network.fold_once()?;
            if still.len() == left.len() {
                return Ok((network, left));
            }
            (network, left) = (next, still);
        }
    }

    fn fold_once(&self) -> Result<(Network<T>, Vec<String>)> {
        let mut readers = vec![Vec::new(); self.nodes.len()];
        for (i, node) in self.nodes.iter().enumerate() {
            node.inputs.iter().for_each(|&input| readers[input].push(i));
        }
        let mut plan: Vec<Option<usize>> = vec![None; self.nodes.len()];
        let mut left = Vec::new();
        for (i, node) in self.nodes.iter().enumerate() {
            let Operation::BatchNorm { axis, .. } = node.operation else {
                continue;
            };
            let before = node.inputs[0];
            let free = |j: usize| !plan.contains(&Some(j));
            plan[i] = if readers[before].len() == 1
                && self.channels(before) == Some(axis)
                && free(before)
            {
                Some(before)
            } else {
                let after = readers[i]
                    .first()
                    .copied()
                    .filter(|_| readers[i].len() == 1);
                after.filter(|&after| free(after) && self.takes(i, after, axis))
            };
            if plan[i].is_none() {
                left.push(node.name.clone());
            }
        }
        Ok((self.folded(&plan)?, left))
    }

    /// The axis of a layer's outputs, if it is dense or a convolution.
    fn channels(&self, node: usize) -> Option<usize> {
        match &self.nodes[node].operation {
            Operation::Dense { .. } => Some(self.nodes[node].shape.len() - 1),
            Operation::Conv2d { .. } => Some(0),
            _ => None,
        }
    }

    /// Whether a layer can take in the normalisation that it reads.
    fn takes(&self, norm: usize, after: usize, axis: usize) -> bool {
        match &self.nodes[after].operation {
            Operation::Dense { .. } => axis + 1 == self.nodes[norm].shape.len(),
            Operation::Conv2d { window, .. } => {
                let padded = window.padding != [[0, 0], [0, 0]];
                axis == 0 && (!padded || self.affine(norm).summand.iter().all(|&s| s == T::ZERO))
            }
            _ => false,
        }
    }

    fn affine(&self, norm: usize) -> Affine<T> {
        let node = &self.nodes[norm];
        let Operation::BatchNorm { epsilon, .. } = node.operation else {
            unreachable!("only normalisations are folded");
        };
        let arrays = Rebuild::new(self).arrays(node);
        let constant = |i: usize| Array1::from(node.constants[i].values().to_vec());
        let rate = constant(1).mapv(|v| T::from_f64(1.0 / (v + epsilon).sqrt()));
        let (scale, shift): (Array1<T>, Array1<T>) =
            (fixed(arrays[0].clone()), fixed(arrays[1].clone()));
        let factor = scale * rate;
        let summand = shift - &factor * &constant(0).mapv(T::from_f64);
        Affine { factor, summand }
    }

    fn folded(&self, plan: &[Option<usize>]) -> Result<Network<T>> {
        let mut rebuild = Rebuild::new(self);
        for (i, node) in self.nodes.iter().enumerate() {
            let folding = plan.iter().position(|&into| into == Some(i));
            let id = match (plan[i], folding) {
                // What stands for its input stands for it too.
                (Some(_), _) => rebuild.ids[node.inputs[0]],
                (None, Some(norm)) => rebuild.layer(node, self.affine(norm), norm > i)?,
                (None, None) => rebuild.copy(node)?,
            };
            rebuild.ids.push(id);
        }
        rebuild.finish()
    }
}

impl<T: Scalar> Rebuild<'_, T> {
    /// A dense or convolution layer with a normalisation after or before it.
    fn layer(&mut self, node: &Node, affine: Affine<T>, after: bool) -> Result<NodeId> {
        let mut arrays = self.arrays(node).into_iter();
        let mut weight = arrays.next().expect("a layer has a weight");
        let outputs = weight.shape()[0];
        let mut bias: Array1<T> = arrays.next().map_or_else(|| Array1::zeros(outputs), fixed);
        if after {
            for (mut rows, &factor) in weight.outer_iter_mut().zip(&affine.factor) {
                rows.mapv_inplace(|w| factor * w);
            }
            bias = bias * affine.factor + affine.summand;
        } else {
            let per_group = weight.shape()[1];
            let groups = affine.factor.len() / per_group;
            for (output, mut rows) in weight.outer_iter_mut().enumerate() {
                let start = output / (outputs / groups) * per_group;
                for (channel, mut taps) in rows.axis_iter_mut(Axis(0)).enumerate() {
                    bias[output] += taps.sum() * affine.summand[start + channel];
                    taps.mapv_inplace(|w| affine.factor[start + channel] * w);
                }
            }
        }
        let x = self.inputs(node)[0];
        let id = match node.operation {
            Operation::Conv2d { window, groups, .. } => {
                self.builder
                    .conv2d(x, fixed(weight), Some(bias), window, groups)?
            }
            _ => self.builder.dense(x, fixed(weight), Some(bias))?,
        };
        self.builder.rename(id, &node.name)?;
        Ok(id)
    }
}
