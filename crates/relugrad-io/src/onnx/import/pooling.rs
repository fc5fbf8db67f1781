//! Pooling, and reductions over axes.

use ndarray::{ArrayD, IxDyn};

use crate::error::Result;
use crate::onnx::attributes::Call;
use crate::onnx::import::Importer;
use crate::onnx::values::{Activation, Value};

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

    pub(super) fn reduce(&mut self, call: Call<'a>) -> Result<Value> {
        let x = self.activation(call, 0)?;
        let Some(axes) = self.reduced_axes(call, x.dims.len())? else {
            return Ok(Value::Node(x));
        };
        let keep = call.flag("keepdims", true)?;
        let count: usize = axes.iter().map(|&a| x.dims[a]).product();
        let reduced = self.reduced(x, &axes, keep, call.operator() == "ReduceMax")?;
        if let (Value::Node(mean), "ReduceSum") = (&reduced, call.operator()) {
            let factor = ArrayD::from_elem(IxDyn(&[]), count as f64);
            let id = self.builder.scale(mean.id, factor, false)?;
            return self.value(id, mean.dims.clone());
        }
        Ok(reduced)
    }
}
