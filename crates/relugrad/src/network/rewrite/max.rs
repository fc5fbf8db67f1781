//! Maxima by ReLUs.

use ndarray::{Array4, ArrayD, IxDyn};

use crate::error::Result;
use crate::network::gates::MaxGate;
use crate::network::map::GateKind;
use crate::network::{Builder, Network, Node, NodeId, Operation, Window};
use crate::scalar::Scalar;

impl<T: Scalar> Network<T> {
    /// The same map with every maximum written as ReLUs: `max(r, c) = r + relu(c − r)`, entry by
    /// entry of the window.
    ///
    /// The entries of a max-pooling whose windows lie wholly in the image are picked by
    /// convolutions with one 1 per channel, which every verifier reads; those of others by gathers.
    ///
    /// # Errors
    /// [`Error::TooWide`](crate::Error::TooWide) if the tables of gathers get too large.
    pub fn max_to_relu(&self) -> Result<Network<T>> {
        self.map_nodes(|builder, node, inputs| {
            let replaced = match node.map.gate().map(|gate| &gate.kind) {
                Some(GateKind::Max(max)) => {
                    let mut steps = Steps {
                        builder,
                        node,
                        x: inputs[0],
                    };
                    if let Operation::MaxPool { window } = &node.operation
                        && !window.ceil
                        && window.padding == [[0, 0], [0, 0]]
                    {
                        steps.pool(window)?
                    } else {
                        steps.windows(max)?
                    }
                }
                Some(GateKind::Slope(_)) | None => return builder.add(self.spec(node), inputs),
            };
            builder.rename(replaced, &node.name)?;
            Ok(replaced)
        })
    }
}

/// What takes the place of a maximum.
struct Steps<'a, T> {
    builder: &'a mut Builder<T>,
    node: &'a Node,
    /// What it reads.
    x: NodeId,
}

impl<T: Scalar> Steps<'_, T> {
    /// Calls a node as a part of the one that it helps to replace.
    fn call(&mut self, id: NodeId, part: &str, step: usize) -> Result<NodeId> {
        self.builder
            .rename(id, &format!("{}/{part}{step}", self.node.name))?;
        Ok(id)
    }

    /// `relu(c − r)`.
    fn excess(&mut self, r: NodeId, c: NodeId, step: usize) -> Result<NodeId> {
        let minus = ArrayD::from_elem(IxDyn(&[]), -T::ONE);
        let negative = self.builder.scale(r, minus, false)?;
        self.call(negative, "negative", step)?;
        let difference = self.builder.sum(&[c, negative])?;
        self.call(difference, "difference", step)?;
        let positive = self.builder.relu(difference)?;
        self.call(positive, "relu", step)
    }

    /// A pooling without padding: each entry of the window by a convolution.
    fn pool(&mut self, window: &Window) -> Result<NodeId> {
        let channels = self.node.shape[0];
        let [height, width] = window.kernel;
        let mut largest = None;
        for tap in 0..height * width {
            let weight = Array4::from_shape_fn((channels, 1, height, width), |(_, _, i, j)| {
                if i * width + j == tap {
                    T::ONE
                } else {
                    T::ZERO
                }
            });
            let entry = self
                .builder
                .conv2d(self.x, weight, None, *window, channels)?;
            self.call(entry, "entry", tap)?;
            largest = Some(match largest {
                None => entry,
                Some(r) => {
                    let positive = self.excess(r, entry, tap)?;
                    let sum = self.builder.sum(&[r, positive])?;
                    self.call(sum, "max", tap)?
                }
            });
        }
        Ok(largest.expect("a window has entries"))
    }

    /// Windows of different sizes: entries by gathers, and steps only for the windows that have so
    /// many.
    fn windows(&mut self, max: &MaxGate) -> Result<NodeId> {
        let members: Vec<Vec<usize>> = (0..max.units())
            .map(|unit| max.members(unit).collect())
            .collect();
        let units = [max.units()];
        let mut largest = self.gather(self.x, &units, members.iter().map(|m| Some(m[0])))?;
        self.call(largest, "entry", 0)?;
        let longest = members.iter().map(Vec::len).max().unwrap_or(1);
        for step in 1..longest {
            let having: Vec<usize> = (0..members.len())
                .filter(|&unit| members[unit].len() > step)
                .collect();
            let entries = having.iter().map(|&unit| Some(members[unit][step]));
            let entry = self.gather(self.x, &[having.len()], entries)?;
            self.call(entry, "entry", step)?;
            let so_far = having.iter().map(|&unit| Some(unit));
            let r = self.gather(largest, &[having.len()], so_far)?;
            self.call(r, "largest", step)?;
            let positive = self.excess(r, entry, step)?;
            let mut back = vec![None; members.len()];
            having
                .iter()
                .enumerate()
                .for_each(|(i, &unit)| back[unit] = Some(i));
            let spread = self.gather(positive, &units, back.into_iter())?;
            self.call(spread, "spread", step)?;
            largest = self.builder.sum(&[largest, spread])?;
            self.call(largest, "max", step)?;
        }
        self.builder.reshape(largest, &self.node.shape)
    }

    fn gather(
        &mut self,
        from: NodeId,
        shape: &[usize],
        places: impl Iterator<Item = Option<usize>>,
    ) -> Result<NodeId> {
        let places: Vec<Option<usize>> = places.collect();
        self.builder.gather(from, shape, &places, 0.0)
    }
}
