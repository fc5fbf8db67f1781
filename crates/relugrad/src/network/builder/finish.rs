//! From a list of nodes to a network: names, buffers, order of accumulation.

use std::collections::HashSet;

use super::Builder;
use crate::error::{Error, Result};
use crate::network::map::{GateKind, GateMap, Map};
use crate::network::{Network, NodeId};
use crate::parameters::Parameters;
use crate::scalar::Scalar;

impl<T: Scalar> Builder<T> {
    /// Calls a node `name` instead of `dense0` and the like; its parameters become `name.weight`
    /// and so on.
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
    /// [`Error::UnknownNode`], and [`Error::NodeName`] for an empty name. Whether names are unique
    /// is checked by [`build`](Self::build), so that nodes may exchange theirs.
    pub fn rename(&mut self, node: NodeId, name: &str) -> Result<()> {
        self.node(node)?;
        check_name(name)?;
        let node = &mut self.nodes[node.0];
        name.clone_into(&mut node.name);
        for start in node.map.parameter_starts() {
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
    /// [`Error::InputNodes`] without an input, [`Error::UnusedNode`] if a node does not lead to the
    /// output, [`Error::NodeName`] if two nodes have one name, [`Error::UnknownNode`].
    pub fn build(mut self, output: NodeId) -> Result<Network<T>> {
        if self.nodes.is_empty() {
            return Err(Error::InputNodes { found: 0 });
        }
        self.node(output)?;
        let consumers = self.consumers();
        let unused = (0..self.nodes.len()).find(|&i| i != output.0 && consumers[i] == 0);
        if let Some(i) = unused {
            let node = self.nodes[i].name.clone();
            return Err(Error::UnusedNode { node });
        }
        self.check_names()?;
        let slot_widths = self.assign_slots(&consumers);
        self.mark_accumulation();
        Ok(Network {
            nodes: self.nodes,
            slot_widths,
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
    /// What nothing else reads is overwritten by a gate without learned slopes, and shared by a
    /// reshape. The input of the network is never overwritten.
    fn assign_slots(&mut self, consumers: &[usize]) -> Vec<usize> {
        let mut widths = Vec::new();
        for i in 0..self.nodes.len() {
            let node = &self.nodes[i];
            let overwrites = matches!(&node.map, Map::Gate(GateMap { kind: GateKind::Slope(gate), .. })
                if gate.slopes.is_none());
            let shares = matches!(node.map, Map::Reshape(_));
            let shared = node.inputs.first().filter(|&&input| {
                let free = consumers[input] == 1;
                free && (shares || overwrites && self.nodes[input].slot != 0)
            });
            self.nodes[i].slot = match shared {
                Some(&input) => self.nodes[input].slot,
                None => {
                    widths.push(node.width);
                    widths.len() - 1
                }
            };
        }
        widths
    }

    /// In a backward pass the last reader of a node writes its cotangent and the earlier ones add
    /// theirs.
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
}

pub(in crate::network) fn check_name(name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::NodeName {
            name: String::new(),
            problem: "the name is empty",
        });
    }
    Ok(())
}
