//! Maxima by ReLUs.

use ndarray::{Array4, ArrayD, IxDyn};

use super::Rebuild;
use crate::error::Result;
use crate::network::map::GateKind;
use crate::network::{Network, Node, NodeId, Operation, Window};
use crate::scalar::Scalar;

impl<T: Scalar> Network<T> {
    /// The same map with every maximum written as ReLUs: `max(r, c) = r + relu(c − r)`, entry by entry of the window.
    ///
    /// The entries of a max-pooling whose windows lie wholly in the image are picked by convolutions with one 1 per
    /// channel, which every verifier reads; those of others by gathers.
    ///
    /// # Errors
    /// [`Error::TooWide`](crate::Error::TooWide) if the tables of gathers get too large.
    pub fn max_to_relu(&self) -> Result<Network<T>> {
        let mut rebuild = Rebuild::new(self);
        for node in &self.nodes {
            let id = match &node.operation {
                Operation::MaxPool { window }
                    if !window.ceil && window.padding == [[0, 0], [0, 0]] =>
                {
                    rebuild.pool(node, window)?
                }
                Operation::MaxPool { .. } | Operation::Max { .. } => rebuild.windows(node)?,
                _ => rebuild.copy(node)?,
            };
            if node.operation.selects() {
                rebuild.builder.rename(id, &node.name)?;
            }
            rebuild.ids.push(id);
        }
        rebuild.finish()
    }
}

impl<T: Scalar> Rebuild<'_, T> {
    /// `max(r, c) = r + relu(c − r)`.
    fn larger(&mut self, node: &Node, r: NodeId, c: NodeId, step: usize) -> Result<NodeId> {
        let minus = ArrayD::from_elem(IxDyn(&[]), -T::ONE);
        let negative = self.builder.scale(r, minus, false)?;
        let difference = self.builder.sum(&[c, negative])?;
        let positive = self.builder.relu(difference)?;
        let sum = self.builder.sum(&[r, positive])?;
        let parts = [
            (negative, "negative"),
            (difference, "difference"),
            (positive, "relu"),
            (sum, "max"),
        ];
        for (id, part) in parts {
            self.builder
                .rename(id, &format!("{}/{part}{step}", node.name))?;
        }
        Ok(sum)
    }

    /// A pooling without padding: each entry of the window by a convolution.
    fn pool(&mut self, node: &Node, window: &Window) -> Result<NodeId> {
        let x = self.inputs(node)[0];
        let channels = node.shape[0];
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
            let entry = self.builder.conv2d(x, weight, None, *window, channels)?;
            self.builder
                .rename(entry, &format!("{}/entry{tap}", node.name))?;
            largest = Some(match largest {
                None => entry,
                Some(r) => self.larger(node, r, entry, tap)?,
            });
        }
        Ok(largest.expect("a window has entries"))
    }

    /// Windows of different sizes: entries by gathers, and steps only for the windows that have so many.
    fn windows(&mut self, node: &Node) -> Result<NodeId> {
        let x = self.inputs(node)[0];
        let Some(GateKind::Max(max)) = node.map.gate().map(|gate| &gate.kind) else {
            unreachable!("a maximum has windows");
        };
        let members: Vec<Vec<usize>> = (0..max.units())
            .map(|unit| max.members(unit).collect())
            .collect();
        let name = |part: &str, step: usize| format!("{}/{part}{step}", node.name);
        let first: Vec<Option<usize>> = members.iter().map(|m| Some(m[0])).collect();
        let units = [max.units()];
        let mut largest = self.builder.gather(x, &units, &first, 0.0)?;
        self.builder.rename(largest, &name("entry", 0))?;
        let longest = members.iter().map(Vec::len).max().unwrap_or(1);
        for step in 1..longest {
            let having: Vec<usize> = (0..members.len())
                .filter(|&u| members[u].len() > step)
                .collect();
            let entries: Vec<Option<usize>> =
                having.iter().map(|&u| Some(members[u][step])).collect();
            let so_far: Vec<Option<usize>> = having.iter().map(|&u| Some(u)).collect();
            let entry = self.builder.gather(x, &[having.len()], &entries, 0.0)?;
            self.builder.rename(entry, &name("entry", step))?;
            let r = self
                .builder
                .gather(largest, &[having.len()], &so_far, 0.0)?;
            self.builder.rename(r, &name("largest", step))?;
            let minus = ArrayD::from_elem(IxDyn(&[]), -T::ONE);
            let negative = self.builder.scale(r, minus, false)?;
            self.builder.rename(negative, &name("negative", step))?;
            let difference = self.builder.sum(&[entry, negative])?;
            self.builder.rename(difference, &name("difference", step))?;
            let positive = self.builder.relu(difference)?;
            self.builder.rename(positive, &name("relu", step))?;
            let mut back = vec![None; members.len()];
            having
                .iter()
                .enumerate()
                .for_each(|(i, &unit)| back[unit] = Some(i));
            let spread = self.builder.gather(positive, &units, &back, 0.0)?;
            self.builder.rename(spread, &name("spread", step))?;
            largest = self.builder.sum(&[largest, spread])?;
            self.builder.rename(largest, &name("max", step))?;
        }
        self.builder.reshape(largest, &node.shape)
    }
}
