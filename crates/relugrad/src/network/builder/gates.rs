//! Nodes that select.

use std::sync::Arc;

use ndarray::{Array1, ArrayD};

use super::{Builder, New, attribute, length_of};
#[cfg(doc)]
use crate::error::Error;
use crate::error::{Result, check_shape};
use crate::network::gates::{MaxGate, SlopeGate, Slopes};
use crate::network::map::{GateKind, GateMap, Map};
use crate::network::shapes::broadcast;
use crate::network::windows::Windows;
use crate::network::{Gate, NodeId, Operation, Window};
use crate::scalar::Scalar;

impl<T: Scalar> Builder<T> {
    /// A [`Gate`] on every unit of `node`; for PReLU every unit has a slope of its own, which
    /// starts at the given one.
    ///
    /// # Errors
    /// [`Error::UnknownNode`], [`Error::OutOfRange`] for a slope or bound that is not finite, or
    /// bounds in the wrong order.
    pub fn gate(&mut self, node: NodeId, gate: Gate) -> Result<NodeId> {
        let name = self.name(gate.name());
        gate.check::<T>(&name)?;
        if let Gate::PRelu { initial } = gate {
            let slopes = ArrayD::from_elem(self.shape(node)?, T::from_f64(initial));
            return self.prelu_shared(node, slopes);
        }
        self.add_slope_gate(node, gate, None)
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
        let what = format!("{}.slope", self.name("prelu"));
        check_shape(&what, &[self.node(node)?.width], slopes.shape())?;
        let slopes = slopes.into_dyn().into_shape_with_order(self.shape(node)?);
        self.prelu_shared(node, slopes.expect("a slope for each unit"))
    }

    /// PReLU with learned slopes that are broadcast to the shape of `node`, such as
    /// `[channels, 1, 1]`.
    ///
    /// # Errors
    /// [`Error::UnknownNode`], [`Error::Shape`], [`Error::NotFinite`].
    pub fn prelu_shared(&mut self, node: NodeId, slopes: ArrayD<T>) -> Result<NodeId> {
        let name = self.name("prelu");
        let shape = self.shape(node)?.to_vec();
        self.table(&name, &shape)?;
        let index: Arc<[u32]> = broadcast(&format!("{name}.slope"), slopes.shape(), &shape)?.into();
        let start = self.parameter(&name, "slope", slopes.view())?;
        let initial = slopes.first().map_or(0.0, |slope| slope.into_f64());
        self.add_slope_gate(node, Gate::PRelu { initial }, Some(Slopes { start, index }))
    }

    fn add_slope_gate(
        &mut self,
        node: NodeId,
        gate: Gate,
        slopes: Option<Slopes>,
    ) -> Result<NodeId> {
        let name = self.name(gate.name());
        let (shape, width) = (self.shape(node)?.to_vec(), self.node(node)?.width);
        let kind = GateKind::Slope(SlopeGate::new(gate, width, slopes));
        self.add_gate(node, name, Operation::Gate(gate), kind, &shape)
    }

    fn add_gate(
        &mut self,
        node: NodeId,
        name: String,
        operation: Operation,
        kind: GateKind,
        shape: &[usize],
    ) -> Result<NodeId> {
        let layer = self.gates;
        let map = Map::Gate(GateMap { layer, kind });
        let added = self.push(New::named(&name, operation, map), &[node], shape)?;
        self.gates += 1;
        Ok(added)
    }

    /// Maximum over windows of `[C, H, W]`. Padding never wins, and in a tie the first entry does.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::Attribute`], [`Error::TooWide`], and [`Error::UnknownNode`].
    pub fn max_pool(&mut self, node: NodeId, window: Window) -> Result<NodeId> {
        let name = self.name("max-pool");
        let (windows, shape) = self.pooling(&name, node, &window)?;
        self.add_max(
            node,
            name,
            Operation::MaxPool { window },
            (windows, shape[0]),
            &shape,
        )
    }

    /// Maximum over an axis, which disappears. In a tie the first entry wins.
    ///
    /// # Errors
    /// [`Error::Attribute`] for no such axis, [`Error::TooWide`], and [`Error::UnknownNode`].
    pub fn max(&mut self, node: NodeId, axis: usize) -> Result<NodeId> {
        let name = self.name("max");
        let (windows, shape) = self.over_axes(&name, node, &[axis])?;
        self.add_max(node, name, Operation::Max { axis }, (windows, 1), &shape)
    }

    /// Maxout (Goodfellow et al. 2013): the maximum of each `pieces` neighbouring entries of the
    /// first axis.
    ///
    /// # Errors
    /// [`Error::Attribute`] if `pieces` does not divide that axis, and as for [`max`](Self::max).
    pub fn maxout(&mut self, node: NodeId, pieces: usize) -> Result<NodeId> {
        let shape = self.shape(node)?.to_vec();
        let name = self.name("max");
        let first = length_of(&name, 0, &shape)?;
        if pieces == 0 || !first.is_multiple_of(pieces) {
            let problem = format!("{pieces} pieces do not divide the first axis of {shape:?}");
            return Err(attribute(&name, problem));
        }
        let split = [&[first / pieces, pieces], &shape[1..]].concat();
        let node = self.reshape(node, &split)?;
        self.max(node, 1)
    }

    fn add_max(
        &mut self,
        node: NodeId,
        name: String,
        operation: Operation,
        (windows, planes): (Windows, usize),
        shape: &[usize],
    ) -> Result<NodeId> {
        let max = MaxGate::new(windows, planes, self.constant_units(node));
        self.add_gate(node, name, operation, GateKind::Max(max), shape)
    }

    /// The layer of gates whose outputs `node` gives on in place, if their inactive units are
    /// constant.
    fn constant_units(&self, node: NodeId) -> Option<usize> {
        let node = &self.nodes[node.0];
        if let Map::Reshape(_) = node.map {
            return self.constant_units(NodeId(node.inputs[0]));
        }
        let gate = node.map.gate()?;
        match &gate.kind {
            GateKind::Slope(slope) => slope.inactive_is_constant().then_some(gate.layer),
            GateKind::Max(_) => None,
        }
    }
}
