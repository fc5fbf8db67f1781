//! Pooling, and reductions over axes.

use ndarray::{ArrayD, IxDyn};

use super::*;
use crate::onnx::values::axis;

impl<'a> Importer<'a> {
    pub(super) fn pool(&mut self, call: Call<'a>) -> Result<Value> {
        let x = self.activation(call, 0)?;
        let spatial = self.spatial(call, &x.dims)?;
        let Some(kernel) = call.sizes("kernel_shape", spatial.len())? else {
            return Err(call.error("it has no kernel_shape"));
        };
        if call.integer("storage_order", 0)? != 0 {
            return Err(call.error("its storage_order is not row-major"));
        }
        let window = self.window(call, &spatial, &kernel)?;
        let window = window.ceil(call.flag("ceil_mode", false)?);
        let image = self.image(&x)?;
        let id = if call.operator() == "MaxPool" {
            self.builder.max_pool(image, window)?
        } else {
            let count = call.flag("count_include_pad", false)?;
            self.builder.average_pool(image, window, count)?
        };
        self.image_value(id, spatial.len())
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

    pub(super) fn reduce(&mut self, call: Call<'a>) -> Result<Value> {
        let x = self.activation(call, 0)?;
        let listed = match call.integers("axes")? {
            Some(axes) => Some(axes.to_vec()),
            None => self
                .optional_constant(call, 1)?
                .map(|axes| axes.to_integers()),
        };
        let rank = x.dims.len();
        let mut axes = match listed.filter(|axes| !axes.is_empty()) {
            None if call.flag("noop_with_empty_axes", false)? => return Ok(Value::Node(x)),
            None => (0..rank).collect(),
            Some(axes) => axes
                .into_iter()
                .map(|a| axis(a, rank).ok_or_else(|| call.error(format!("it has no axis {a}"))))
                .collect::<Result<Vec<_>>>()?,
        };
        axes.sort_unstable();
        axes.dedup();
        let keep = call.flag("keepdims", true)?;
        let count: usize = axes.iter().map(|&a| x.dims[a]).product();
        let reduced = self.reduced(x, &axes, keep, call.operator() == "ReduceMax")?;
        match reduced {
            Value::Node(mean) if call.operator() == "ReduceSum" => {
                let factor = ArrayD::from_elem(IxDyn(&[]), count as f64);
                let id = self.builder.scale(mean.id, factor, false)?;
                self.value(id, mean.dims)
            }
            other => Ok(other),
        }
    }
}
