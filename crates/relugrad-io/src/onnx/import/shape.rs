//! Operators that move values to other places and dimensions.

use super::*;
use crate::onnx::values::{axis, broadcast, slice_range, taken_places, transposed_places};

impl<'a> Importer<'a> {
    pub(super) fn identity(&mut self, call: Call<'a>) -> Result<Value> {
        let value = self.input(call, 0)?;
        match call.operator() {
            "Dropout" => {
                let training = self.optional_constant(call, 2)?;
                if training.is_some_and(|t| t.scalar() != Some(0.0)) {
                    return Err(
                        call.error("it drops units at random; export the model in evaluation mode")
                    );
                }
            }
            "Cast" => {
                let to = call.integer("to", 1)? as i32;
                if !matches!((&value, to), (Value::Constant(_), _) | (_, 1 | 11)) {
                    return Err(call.error(format!("it rounds values to {}", type_name(to))));
                }
            }
            _ => {}
        }
        Ok(value)
    }

    /// An axis of a value of `rank` axes.
    pub(super) fn axis(&self, call: Call, value: i64, rank: usize) -> Result<usize> {
        axis(value, rank).ok_or_else(|| call.error(format!("it has no axis {value} among {rank}")))
    }

    /// The axes in an attribute of old versions or an input of new ones.
    fn axes(&self, call: Call, place: usize) -> Result<Option<Vec<i64>>> {
        match call.integers("axes")? {
            Some(axes) => Ok(Some(axes.to_vec())),
            None => Ok(self
                .optional_constant(call, place)?
                .map(|axes| axes.to_integers())),
        }
    }

    /// Flatten, Reshape, Squeeze and Unsqueeze of a node.
    pub(super) fn reshape(&mut self, call: Call<'a>) -> Result<Value> {
        let x = self.activation(call, 0)?;
        let dims = self.new_dims(call, &x.dims)?;
        self.value(x.id, dims)
    }

    /// The dimensions that such an operator gives to a value.
    pub(super) fn new_dims(&self, call: Call, dims: &[usize]) -> Result<Vec<usize>> {
        match call.operator() {
            "Flatten" => {
                let at = call.integer("axis", 1)?;
                let at = if at == dims.len() as i64 {
                    dims.len()
                } else {
                    self.axis(call, at, dims.len())?
                };
                Ok(vec![
                    dims[..at].iter().product(),
                    dims[at..].iter().product(),
                ])
            }
            "Squeeze" => match self.axes(call, 1)? {
                None => Ok(dims.iter().copied().filter(|&n| n != 1).collect()),
                Some(axes) => {
                    let axes: Vec<usize> = axes
                        .iter()
                        .map(|&a| self.axis(call, a, dims.len()))
                        .collect::<Result<_>>()?;
                    if let Some(&a) = axes.iter().find(|&&a| dims[a] != 1) {
                        return Err(
                            call.error(format!("its axis {a} has length {} and not 1", dims[a]))
                        );
                    }
                    let kept = dims.iter().enumerate().filter(|(i, _)| !axes.contains(i));
                    Ok(kept.map(|(_, &n)| n).collect())
                }
            },
            "Unsqueeze" => {
                let axes = self
                    .axes(call, 1)?
                    .ok_or_else(|| call.error("it has no axes"))?;
                let rank = dims.len() + axes.len();
                let axes: Vec<usize> = axes
                    .iter()
                    .map(|&a| self.axis(call, a, rank))
                    .collect::<Result<_>>()?;
                let mut old = dims.iter();
                let new = (0..rank).map(|i| {
                    if axes.contains(&i) {
                        Some(&1)
                    } else {
                        old.next()
                    }
                });
                let new: Option<Vec<usize>> = new.map(|n| n.copied()).collect();
                new.ok_or_else(|| call.error("its axes repeat"))
            }
            _ => self.reshaped_dims(call, dims),
        }
    }

    /// Reshape: −1 stands for what is left, 0 for the dimension that was there.
    fn reshaped_dims(&self, call: Call, dims: &[usize]) -> Result<Vec<usize>> {
        let target = self.constant(call, 1)?.to_integers();
        let keep_zero = call.flag("allowzero", false)?;
        let total: usize = dims.iter().product();
        let bad = || call.error(format!("it cannot reshape {dims:?} to {target:?}"));
        let mut new = Vec::new();
        for (i, &n) in target.iter().enumerate() {
            new.push(match n {
                -1 => 1,
                0 if !keep_zero => *dims.get(i).ok_or_else(bad)?,
                n => usize::try_from(n).map_err(|_| bad())?,
            });
        }
        let product = new
            .iter()
            .try_fold(1usize, |p, &n| p.checked_mul(n))
            .ok_or_else(bad)?;
        match target.iter().filter(|&&n| n == -1).count() {
            0 if product == total => Ok(new),
            1 if product > 0 && total.is_multiple_of(product) => {
                let free = target.iter().position(|&n| n == -1).ok_or_else(bad)?;
                new[free] = total / product;
                Ok(new)
            }
            _ => Err(bad()),
        }
    }

    fn order(&self, call: Call, rank: usize) -> Result<Vec<usize>> {
        let order = call
            .sizes("perm", rank)?
            .unwrap_or_else(|| (0..rank).rev().collect());
        let mut sorted = order.clone();
        sorted.sort_unstable();
        if sorted.into_iter().eq(0..rank) {
            return Ok(order);
        }
        Err(call.error(format!("its perm {order:?} is no order of {rank} axes")))
    }

    pub(super) fn transpose(&mut self, call: Call<'a>) -> Result<Value> {
        let x = self.activation(call, 0)?;
        let order = self.order(call, x.dims.len())?;
        let dims: Vec<usize> = order.iter().map(|&a| x.dims[a]).collect();
        let moved = order.iter().copied().filter(|&a| x.dims[a] > 1);
        if moved.is_sorted() {
            return self.value(x.id, dims);
        }
        let shape = self.builder.shape(x.id)?.to_vec();
        let dropped = x.dims.len() - shape.len();
        let id = if dropped == 1 && order[0] == 0 {
            let order: Vec<usize> = order[1..].iter().map(|a| a - 1).collect();
            self.builder.transpose(x.id, &order)?
        } else {
            let id = self.shaped(x.id, &x.dims)?;
            self.builder.transpose(id, &order)?
        };
        self.value(id, dims)
    }

    pub(super) fn transposed_constant(&self, call: Call, tensor: &Tensor) -> Result<Tensor> {
        let order = self.order(call, tensor.dims.len())?;
        let dims = order.iter().map(|&a| tensor.dims[a]).collect();
        Ok(tensor.picked(dims, &transposed_places(&tensor.dims, &order)))
    }

    pub(super) fn expand(&mut self, call: Call<'a>) -> Result<Value> {
        let x = self.activation(call, 0)?;
        let target: Option<Vec<usize>> = self
            .constant(call, 1)?
            .to_integers()
            .into_iter()
            .map(|n| usize::try_from(n).ok())
            .collect();
        let dims = target.and_then(|target| broadcast(&x.dims, &target));
        let dims = dims.ok_or_else(|| call.error(format!("it cannot expand {:?} so", x.dims)))?;
        let id = self.broadcast(x, &dims)?;
        self.value(id, dims)
    }

    pub(super) fn concat(&mut self, call: Call<'a>) -> Result<Value> {
        let parts: Vec<Activation> = (0..call.node.input.len())
            .map(|place| self.activation(call, place))
            .collect::<Result<_>>()?;
        let Some(first) = parts.first() else {
            return Err(call.error("it has no inputs"));
        };
        let rank = first.dims.len();
        let at = self.axis(call, call.integer("axis", 1)?, rank)?;
        let mut dims = first.dims.clone();
        if let Some(other) = parts.iter().find(|part| part.dims.len() != rank) {
            return Err(call.error(format!(
                "its inputs have dimensions {dims:?} and {:?}",
                other.dims
            )));
        }
        dims[at] = parts.iter().map(|part| part.dims[at]).sum();
        let stripped = at > 0 && parts.iter().all(|part| part.dims[0] == 1);
        let mut ids = Vec::new();
        for part in &parts {
            let shape = if stripped {
                sample_shape(&part.dims)
            } else {
                &part.dims[..]
            };
            ids.push(self.shaped(part.id, shape)?);
        }
        let id = self.builder.concat(&ids, at - usize::from(stripped))?;
        self.value(id, dims)
    }

    /// A node with `axis` replaced by entries of it; `None` is `fill`.
    fn take(
        &mut self,
        x: Activation,
        axis: usize,
        taken: &[Option<usize>],
        fill: f64,
    ) -> Result<Activation> {
        let (mut dims, n) = (x.dims.clone(), x.dims[axis]);
        if taken.iter().copied().eq((0..n).map(Some)) {
            return Ok(x);
        }
        dims[axis] = taken.len();
        if dims.contains(&0) {
            return Err(graph_error(format!(
                "a value of dimensions {dims:?} is empty"
            )));
        }
        self.budget.array(&dims, MOVED, || {
            format!("a value of dimensions {dims:?} whose entries are moved")
        })?;
        let index: Vec<usize> = (0..taken.len()).collect();
        let mut widened = x.dims.clone();
        widened[axis] = taken.len();
        let inner: usize = x.dims[axis + 1..].iter().product();
        let place = |i: usize| {
            let along = i / inner % taken.len();
            taken[along].map(|t| (i / inner / taken.len() * n + t) * inner + i % inner)
        };
        let places: Vec<Option<usize>> = taken_places(&widened, axis, &index)
            .into_iter()
            .map(place)
            .collect();
        let id = self
            .builder
            .gather(x.id, sample_shape(&dims), &places, fill)?;
        Ok(Activation { id, dims })
    }

    /// The axes of a Slice with what they keep.
    fn slices(&self, call: Call, dims: &[usize]) -> Result<Vec<(usize, Vec<usize>)>> {
        let list = |name: &str, place: usize| -> Result<Option<Vec<i64>>> {
            if self.opset < 10 {
                return Ok(call.integers(name)?.map(<[i64]>::to_vec));
            }
            Ok(self
                .optional_constant(call, place)?
                .map(|t| t.to_integers()))
        };
        let missing = |what: &str| call.error(format!("it has no {what}"));
        let starts = list("starts", 1)?.ok_or_else(|| missing("starts"))?;
        let ends = list("ends", 2)?.ok_or_else(|| missing("ends"))?;
        let axes = list("axes", 3)?.unwrap_or_else(|| (0..starts.len() as i64).collect());
        let steps = if self.opset < 10 {
            None
        } else {
            list("steps", 4)?
        };
        let steps = steps.unwrap_or_else(|| vec![1; starts.len()]);
        if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] || steps.contains(&0) {
            return Err(call.error("its starts, ends, axes and steps do not go together"));
        }
        let one = |i: usize| {
            let axis = self.axis(call, axes[i], dims.len())?;
            Ok((axis, slice_range(dims[axis], starts[i], ends[i], steps[i])))
        };
        (0..starts.len()).map(one).collect()
    }

    pub(super) fn slice(&mut self, call: Call<'a>) -> Result<Value> {
        let mut x = self.activation(call, 0)?;
        for (axis, taken) in self.slices(call, &x.dims)? {
            let taken: Vec<Option<usize>> = taken.into_iter().map(Some).collect();
            x = self.take(x, axis, &taken, 0.0)?;
        }
        Ok(Value::Node(x))
    }

    pub(super) fn sliced_constant(&self, call: Call, tensor: &Tensor) -> Result<Tensor> {
        let mut tensor = tensor.clone();
        for (axis, taken) in self.slices(call, &tensor.dims)? {
            let mut dims = tensor.dims.clone();
            dims[axis] = taken.len();
            tensor = tensor.picked(dims, &taken_places(&tensor.dims, axis, &taken));
        }
        Ok(tensor)
    }

    pub(super) fn split(&mut self, call: Call<'a>) -> Result<Vec<Value>> {
        let x = self.activation(call, 0)?;
        let at = self.axis(call, call.integer("axis", 0)?, x.dims.len())?;
        let (n, parts) = (x.dims[at], call.node.output.len());
        let listed = match call.integers("split")? {
            Some(lengths) => Some(lengths.to_vec()),
            None => self.optional_constant(call, 1)?.map(|t| t.to_integers()),
        };
        let each = n.div_ceil(parts.max(1));
        let lengths = listed.unwrap_or_else(|| {
            (0..parts)
                .map(|i| n.saturating_sub(i * each).min(each) as i64)
                .collect()
        });
        let total = lengths.iter().try_fold(0i64, |sum, &l| {
            (l > 0).then(|| sum.checked_add(l)).flatten()
        });
        if lengths.len() != parts || total != Some(n as i64) {
            return Err(call.error(format!(
                "its parts {lengths:?} do not make up its axis of length {n}"
            )));
        }
        let mut start = 0;
        let mut values = Vec::new();
        for (length, name) in lengths.into_iter().zip(&call.node.output) {
            let end = start + length as usize;
            let taken: Vec<Option<usize>> = (start..end).map(Some).collect();
            start = end;
            // A part that nothing reads would lead nowhere.
            let read = self.readers.contains_key(name.as_str());
            let part = if read {
                self.take(x.clone(), at, &taken, 0.0)?
            } else {
                x.clone()
            };
            values.push(Value::Node(part));
        }
        Ok(values)
    }

    pub(super) fn gather(&mut self, call: Call<'a>) -> Result<Value> {
        let (x, index) = (self.activation(call, 0)?, self.constant(call, 1)?);
        let at = self.axis(call, call.integer("axis", 0)?, x.dims.len())?;
        let taken = self.indices(call, &index, x.dims[at])?;
        let dims = [&x.dims[..at], &index.dims, &x.dims[at + 1..]].concat();
        let some: Vec<Option<usize>> = taken.into_iter().map(Some).collect();
        let taken = self.take(x, at, &some, 0.0)?;
        self.value(taken.id, if dims.is_empty() { vec![1] } else { dims })
    }

    pub(super) fn indices(&self, call: Call, index: &Tensor, n: usize) -> Result<Vec<usize>> {
        let one = |i: i64| {
            axis(i, n)
                .ok_or_else(|| call.error(format!("it takes entry {i} of an axis of length {n}")))
        };
        index.to_integers().into_iter().map(one).collect()
    }

    pub(super) fn pad(&mut self, call: Call<'a>) -> Result<Value> {
        let mut x = self.activation(call, 0)?;
        let rank = x.dims.len();
        let (pads, fill) = if self.opset < 11 {
            (
                call.integers("pads")?.map(<[i64]>::to_vec),
                call.float("value", 0.0)?,
            )
        } else {
            let value = self
                .optional_constant(call, 2)?
                .map_or(Some(0.0), |t| t.scalar());
            let value = value.ok_or_else(|| call.error("its constant_value is no scalar"))?;
            (
                self.optional_constant(call, 1)?.map(|t| t.to_integers()),
                value,
            )
        };
        let pads = pads.ok_or_else(|| call.error("it has no pads"))?;
        let axes = match self.optional_constant(call, 3)? {
            None => (0..rank).collect(),
            Some(axes) => {
                let axes = axes.to_integers().into_iter();
                axes.map(|a| self.axis(call, a, rank))
                    .collect::<Result<Vec<_>>>()?
            }
        };
        if pads.len() != 2 * axes.len() || pads.iter().any(|p| p.unsigned_abs() > 1 << 40) {
            return Err(call.error(format!("its pads {pads:?} do not fit {} axes", axes.len())));
        }
        let mode = call.string("mode", "constant")?;
        for (i, &axis) in axes.iter().enumerate() {
            let n = x.dims[axis] as i64;
            let positions = -pads[i]..n + pads[axes.len() + i];
            let length = positions.end.saturating_sub(positions.start).max(0) as usize;
            self.budget.array(&[length], MOVED, || {
                call.error(format!("an axis of {length} entries"))
                    .to_string()
            })?;
            let inside = |p: i64| usize::try_from(p).ok().filter(|&p| p < n as usize);
            let entry = |p: i64| match mode.as_str() {
                "constant" => Ok(inside(p)),
                "edge" => Ok(Some(p.clamp(0, n - 1) as usize)),
                "reflect" => {
                    let period = (2 * n - 2).max(1);
                    let p = p.rem_euclid(period);
                    Ok(Some(p.min(period - p) as usize % n as usize))
                }
                "wrap" => Ok(Some(p.rem_euclid(n) as usize)),
                other => Err(call.error(format!("its mode `{other}` is unknown"))),
            };
            let taken = positions.map(entry).collect::<Result<Vec<_>>>()?;
            x = self.take(x, axis, &taken, fill)?;
        }
        Ok(Value::Node(x))
    }
}
