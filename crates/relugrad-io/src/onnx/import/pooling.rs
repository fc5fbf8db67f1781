//! Pooling, and reductions over axes.

use relugrad::{Gate, NodeId};

use super::windows::Windows;
use crate::error::Result;
use crate::onnx::attributes::Call;
use crate::onnx::import::Importer;
use crate::onnx::values::{Activation, Value};

impl<'a> Importer<'a> {
    /// Pooling. Maxima and means over boxes are those of the maxima and means along one axis after
    /// the other; the engine takes two axes at once.
    pub(super) fn pool(&mut self, call: Call<'a>) -> Result<Value> {
        let x = self.activation(call, 0)?;
        let spatial = self.spatial(call, &x.dims)?;
        let Some(kernel) = call.sizes("kernel_shape", spatial.len())? else {
            return Err(call.error("it has no kernel_shape"));
        };
        let mut windows = self.windows(call, &spatial, &kernel)?;
        windows.ceil = call.flag("ceil_mode", false)?;
        let (mut dims, mut id) = (x.dims.clone(), x.id);
        let pairs = spatial.len().saturating_sub(2);
        for axis in 0..pairs {
            id = self.pooled(call, id, &mut dims, &windows, [Some(axis), None])?;
        }
        let height = (spatial.len() > 1).then_some(pairs);
        id = self.pooled(
            call,
            id,
            &mut dims,
            &windows,
            [height, Some(spatial.len() - 1)],
        )?;
        self.value(id, dims)
    }

    /// Pools along one or two axes, of which `dims` then has the new lengths.
    fn pooled(
        &mut self,
        call: Call,
        id: NodeId,
        dims: &mut [usize],
        windows: &Windows,
        axes: [Option<usize>; 2],
    ) -> Result<NodeId> {
        let first = 2 + axes[0].or(axes[1]).unwrap_or(0);
        let last = 2 + axes[1].or(axes[0]).unwrap_or(0);
        let image = [
            dims[..first].iter().product(),
            axes[0].map_or(1, |axis| dims[2 + axis]),
            axes[1].map_or(1, |axis| dims[2 + axis]) * dims[last + 1..].iter().product::<usize>(),
        ];
        let id = self.shaped(id, &image)?;
        let window = windows.over(axes);
        let id = if call.operator() == "MaxPool" {
            self.builder.max_pool(id, window)?
        } else {
            let count = call.flag("count_include_pad", false)?;
            self.builder.average_pool(id, window, count)?
        };
        let pooled = self.builder.shape(id)?;
        for (axis, &length) in axes.iter().zip(&pooled[1..]) {
            if let Some(axis) = axis {
                dims[2 + axis] = length;
            }
        }
        Ok(id)
    }

    pub(super) fn global_pool(&mut self, call: Call<'a>) -> Result<Value> {
        let x = self.activation(call, 0)?;
        if x.dims.len() < 3 {
            return Err(call.error(format!(
                "its input of dimensions {:?} has no space to pool",
                x.dims
            )));
        }
        let axes: Vec<usize> = (2..x.dims.len()).collect();
        self.reduced(x, &axes, true, call.operator() == "GlobalMaxPool")
    }

    /// The mean or maximum over axes of the file's dimensions.
    fn reduced(&mut self, x: Activation, axes: &[usize], keep: bool, max: bool) -> Result<Value> {
        let mut dims: Vec<usize> = Vec::new();
        for (i, &n) in x.dims.iter().enumerate() {
            match axes.contains(&i) {
                true if keep => dims.push(1),
                true => {}
                false => dims.push(n),
            }
        }
        if dims.is_empty() {
            dims.push(1);
        }
        let id = self.shaped(x.id, &x.dims)?;
        let id = if max {
            // All axes as one, so that one maximum covers them.
            let kept: Vec<usize> = (0..x.dims.len()).filter(|i| !axes.contains(i)).collect();
            let order = [&kept[..], axes].concat();
            let sorted = order.is_sorted();
            let id = if sorted {
                id
            } else {
                self.builder.transpose(id, &order)?
            };
            let outer: usize = kept.iter().map(|&i| x.dims[i]).product();
            let inner: usize = axes.iter().map(|&i| x.dims[i]).product();
            let id = self.shaped(id, &[outer, inner])?;
            self.builder.max(id, 1)?
        } else {
            self.builder.mean(id, axes)?
        };
        self.value(id, dims)
    }

    /// The axes that a reduction names, in order; all of them, or `None` for no reduction, if it
    /// names none.
    pub(super) fn reduced_axes(&self, call: Call, rank: usize) -> Result<Option<Vec<usize>>> {
        let listed = match call.integers("axes")? {
            Some(axes) => axes.to_vec(),
            None => self.optional_integers(call, 1)?.unwrap_or_default(),
        };
        if listed.is_empty() {
            let none = call.flag("noop_with_empty_axes", false)?;
            return Ok((!none).then(|| (0..rank).collect()));
        }
        Ok(Some(self.distinct_axes(call, &listed, rank)?))
    }

    /// ReduceMean, ReduceSum, ReduceL1, ReduceMax and ReduceMin.
    pub(super) fn reduce(&mut self, call: Call<'a>) -> Result<Value> {
        let mut x = self.activation(call, 0)?;
        let operator = call.operator();
        let axes = self.reduced_axes(call, x.dims.len())?;
        if operator == "ReduceL1" {
            x.id = self.builder.gate(x.id, Gate::Abs)?;
        }
        let Some(axes) = axes else {
            return Ok(Value::Node(x));
        };
        let keep = call.flag("keepdims", true)?;
        let count: usize = axes.iter().map(|&a| x.dims[a]).product();
        let sign = if operator == "ReduceMin" { -1.0 } else { 1.0 };
        let x = self.multiple(x, sign)?;
        let max = matches!(operator, "ReduceMax" | "ReduceMin");
        let factor = match operator {
            "ReduceSum" | "ReduceL1" => count as f64,
            _ => sign,
        };
        let Value::Node(reduced) = self.reduced(x, &axes, keep, max)? else {
            unreachable!("a reduction of a node is one");
        };
        Ok(Value::Node(self.multiple(reduced, factor)?))
    }
}
