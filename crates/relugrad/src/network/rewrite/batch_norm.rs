//! Batch normalisation folded into the affine layer before or after it.

use ndarray::{Array1, Axis};

use crate::error::Result;
use crate::network::{Network, NodeSpec, Operation};
use crate::scalar::Scalar;

/// A normalisation as `factor ⊙ x + summand` along its axis.
struct Affine<T> {
    factor: Array1<T>,
    summand: Array1<T>,
}

impl<T: Scalar> Network<T> {
    /// The same map with every batch normalisation that can be folded into a neighbouring dense or
    /// convolution layer gone, and the names of those that cannot.
    ///
    /// It goes into the layer before it if nothing else reads that, or else into the one layer that
    /// reads it. Into a convolution with padding it can go only if it does not shift, since padding
    /// is not shifted.
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
        let node = &self.nodes[node];
        if let Operation::Dense { .. } = node.operation {
            return Some(node.shape.len() - 1);
        }
        matches!(node.operation, Operation::Conv2d { .. }).then_some(0)
    }

    /// Whether a layer can take in the normalisation that it reads.
    fn takes(&self, norm: usize, after: usize, axis: usize) -> bool {
        let after = &self.nodes[after].operation;
        if let Operation::Dense { .. } = after {
            return axis + 1 == self.nodes[norm].shape.len();
        }
        let Operation::Conv2d { window, .. } = after else {
            return false;
        };
        let padded = window.padding != [[0, 0], [0, 0]];
        axis == 0 && (!padded || self.affine(norm).summand.iter().all(|&s| s == T::ZERO))
    }

    fn affine(&self, norm: usize) -> Affine<T> {
        let spec = self.spec(&self.nodes[norm]);
        let Operation::BatchNorm { epsilon, .. } = spec.operation else {
            unreachable!("only normalisations are folded");
        };
        let [scale, shift] = [0, 1].map(|i| spec.parameters[i].flatten().into_owned());
        let [mean, variance] = [0, 1].map(|i| spec.constants[i].flatten().into_owned());
        let rate = variance.mapv(|v| T::from_f64(1.0 / (v + epsilon).sqrt()));
        let factor = scale * rate;
        let summand = shift - &factor * &mean.mapv(T::from_f64);
        Affine { factor, summand }
    }

    fn folded(&self, plan: &[Option<usize>]) -> Result<Network<T>> {
        let mut places = 0..;
        self.map_nodes(|builder, node, inputs| {
            let i = places.next().expect("there are as many as nodes");
            let mut spec = self.spec(node);
            match (plan[i], plan.iter().position(|&into| into == Some(i))) {
                // The layer that has taken it in computes its value, or reads what it reads.
                (Some(_), _) => return Ok(inputs[0]),
                (None, Some(norm)) => self.affine(norm).fold_into(&mut spec, norm > i),
                (None, None) => {}
            }
            builder.add(spec, inputs)
        })
    }
}

impl<T: Scalar> Affine<T> {
    /// Makes a dense or convolution layer one with this normalisation after or before it.
    fn fold_into(self, layer: &mut NodeSpec<T>, after: bool) {
        let outputs = layer.parameters[0].shape()[0];
        if let Operation::Dense { bias } | Operation::Conv2d { bias, .. } = &mut layer.operation
            && !std::mem::replace(bias, true)
        {
            layer.parameters.push(Array1::zeros(outputs).into_dyn());
        }
        let [weight, bias] = &mut layer.parameters[..] else {
            unreachable!("a layer has a weight and now a bias");
        };
        if after {
            for (mut rows, &factor) in weight.outer_iter_mut().zip(&self.factor) {
                rows.mapv_inplace(|w| factor * w);
            }
            *bias = &*bias * &self.factor + &self.summand;
            return;
        }
        let per_group = weight.shape()[1];
        let groups = self.factor.len() / per_group;
        for (output, mut rows) in weight.outer_iter_mut().enumerate() {
            let start = output / (outputs / groups) * per_group;
            for (channel, mut taps) in rows.axis_iter_mut(Axis(0)).enumerate() {
                bias[output] += taps.sum() * self.summand[start + channel];
                taps.mapv_inplace(|w| self.factor[start + channel] * w);
            }
        }
    }
}
