//! Operators that put entries of values together in another way.

use relugrad::NodeId;

use super::constants::Part;
use crate::error::Result;
use crate::onnx::attributes::Call;
use crate::onnx::import::{Importer, MOVED};
use crate::onnx::tensor::Tensor;
use crate::onnx::values::{
    Activation, Value, broadcast, broadcast_places, sample_shape, slice_range, strides,
};

impl<'a> Importer<'a> {
    /// The axis of a Concat and the dimensions of its result.
    pub(super) fn joined_dims(
        &self,
        call: Call,
        parts: &[&[usize]],
    ) -> Result<(usize, Vec<usize>)> {
        let Some(first) = parts.first() else {
            return Err(call.error("it has no inputs"));
        };
        if !call.has("axis") && self.opset >= 4 {
            return Err(call.error("it has no axis"));
        }
        let at = self.axis(call, call.integer("axis", 1)?, first.len())?;
        let mut dims = first.to_vec();
        for part in &parts[1..] {
            let same = |i: usize| i == at || part[i] == dims[i];
            if part.len() != dims.len() || !(0..dims.len()).all(same) {
                return Err(call.error(format!(
                    "its inputs of dimensions {first:?} and {part:?} do not go together"
                )));
            }
            dims[at] = dims[at].saturating_add(part[at]);
        }
        Ok((at, dims))
    }

    /// Concat of values of which at least one depends on the input.
    pub(super) fn concat(&mut self, call: Call<'a>) -> Result<Value> {
        let mut parts = self.all_inputs(call)?;
        // Without entries a constant adds nothing.
        parts.retain(|part| !matches!(part, Value::Constant(c) if c.len() == 0));
        let lengths: Vec<&[usize]> = parts.iter().map(Value::dims).collect();
        let (at, dims) = self.joined_dims(call, &lengths)?;
        let node = |part: &Value| match part {
            Value::Node(x) => Some(x.id),
            Value::Constant(_) => None,
        };
        let Some(some) = parts.iter().find_map(node) else {
            return Err(call.error("it has no inputs that depend on the network's input"));
        };
        let stripped = at > 0 && dims[0] == 1;
        let mut ids = Vec::new();
        for part in &parts {
            let own = part.dims();
            let shape = if stripped { sample_shape(own) } else { own };
            ids.push(match part {
                Value::Node(x) => self.shaped(x.id, shape)?,
                Value::Constant(c) => self.constant_node(call, some, c, shape)?,
            });
        }
        let id = self.builder.concat(&ids, at - usize::from(stripped))?;
        self.value(id, dims)
    }

    /// A node whose value is a constant: a gather that takes nothing of another node, and a
    /// summand.
    fn constant_node(
        &mut self,
        call: Call,
        of: NodeId,
        tensor: &Tensor,
        shape: &[usize],
    ) -> Result<NodeId> {
        self.pay(call, shape)?;
        let zeros = self
            .builder
            .gather(of, shape, &vec![None; tensor.len()], 0.0)?;
        self.shifted(call, zeros, &tensor.reshaped(shape.to_vec()))
    }

    /// Pays for a node whose entries come from a table of places.
    pub(super) fn pay(&self, call: Call, dims: &[usize]) -> Result<()> {
        let what = || {
            call.error(format!("a value of dimensions {dims:?}"))
                .to_string()
        };
        let count = self.budget.array(dims, MOVED, what)?;
        if count == 0 {
            return Err(call.error(format!(
                "it gives a value of dimensions {dims:?}, without entries"
            )));
        }
        Ok(())
    }

    /// Where: of two values the one that a constant condition says, entry by entry.
    pub(super) fn select(&mut self, call: Call<'a>) -> Result<Value> {
        let condition = self.constant(call, 0)?;
        let (x, y) = (self.input(call, 1)?, self.input(call, 2)?);
        let dims = broadcast(&condition.dims, x.dims());
        let dims = dims.and_then(|dims| broadcast(&dims, y.dims()));
        let dims =
            dims.ok_or_else(|| call.error("its inputs have dimensions that do not go together"))?;
        self.pay(call, &dims)?;
        let chosen = self.condition(call, &condition, &dims)?;
        let (mut nodes, mut constants) = (Vec::new(), Vec::new());
        for (value, side) in [(x, true), (y, false)] {
            match value {
                Value::Node(x) => {
                    let places = broadcast_places(&x.dims, &dims).into_iter().zip(&chosen);
                    let places = places.map(|(i, &c)| (c == side).then_some(i as usize));
                    let places: Vec<Option<usize>> = places.collect();
                    let shape = sample_shape(&dims);
                    nodes.push(self.builder.gather(x.id, shape, &places, 0.0)?);
                }
                Value::Constant(c) => constants.push(self.masked(call, &c, &dims, &chosen, side)?),
            }
        }
        let mut id = match nodes[..] {
            [one] => one,
            _ => self.builder.sum(&nodes)?,
        };
        for constant in constants {
            id = self.shifted(call, id, &constant)?;
        }
        self.value(id, dims)
    }

    /// A constant of these dimensions, with 0 where the choice is not `side`.
    fn masked(
        &mut self,
        call: Call,
        tensor: &Tensor,
        dims: &[usize],
        chosen: &[bool],
        side: bool,
    ) -> Result<Tensor> {
        let places = broadcast_places(&tensor.dims, dims);
        let to: Vec<u32> = (0..chosen.len() as u32)
            .filter(|&e| chosen[e as usize] == side)
            .collect();
        let part = Part {
            tensor,
            from: to.iter().map(|&e| places[e as usize]).collect(),
            to,
        };
        let masked = self.assembled(call, dims, vec![part])?;
        Ok(masked.reshaped(sample_shape(dims).to_vec()))
    }

    /// A node with `axis` replaced by entries of it; `None` is `fill`.
    pub(super) fn take(
        &mut self,
        call: Call,
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
        self.pay(call, &dims)?;
        let inner = strides(&x.dims)[axis];
        let place = |i: usize| {
            let along = i / inner % taken.len();
            taken[along].map(|t| (i / inner / taken.len() * n + t) * inner + i % inner)
        };
        let places: Vec<Option<usize>> = (0..dims.iter().product()).map(place).collect();
        let id = self
            .builder
            .gather(x.id, sample_shape(&dims), &places, fill)?;
        Ok(Activation { id, dims })
    }

    /// The axes of a Slice with what they keep.
    pub(super) fn slices(&self, call: Call, dims: &[usize]) -> Result<Vec<(usize, Vec<usize>)>> {
        let list = |name: &str, place: usize| -> Result<Option<Vec<i64>>> {
            if self.opset < 10 {
                return Ok(call.integers(name)?.map(<[i64]>::to_vec));
            }
            self.optional_integers(call, place)
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
        self.distinct_axes(call, &axes, dims.len())?;
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
            x = self.take(call, x, axis, &taken, 0.0)?;
        }
        Ok(Value::Node(x))
    }

    /// The axis of a Split and the lengths of its parts.
    pub(super) fn parts(&self, call: Call, dims: &[usize]) -> Result<(usize, Vec<usize>)> {
        let at = self.axis(call, call.integer("axis", 0)?, dims.len())?;
        let (n, parts) = (dims[at], call.node.output.len());
        let stated = call.integer("num_outputs", parts as i64)?;
        if stated != parts as i64 {
            return Err(call.error(format!(
                "it has {parts} outputs, but its num_outputs is {stated}"
            )));
        }
        let listed = match call.integers("split")? {
            Some(lengths) => Some(lengths.to_vec()),
            None => self.optional_integers(call, 1)?,
        };
        let lengths: Option<Vec<usize>> = match &listed {
            Some(listed) => listed.iter().map(|&l| usize::try_from(l).ok()).collect(),
            None if self.opset < 18 && parts > 0 && !n.is_multiple_of(parts) => None,
            None => {
                let each = n.div_ceil(parts.max(1));
                let length = |i: usize| n.saturating_sub(i * each).min(each);
                Some((0..parts).map(length).collect())
            }
        };
        let whole = |lengths: &Vec<usize>| {
            let total = lengths
                .iter()
                .try_fold(0usize, |sum, &l| sum.checked_add(l));
            lengths.len() == parts && total == Some(n)
        };
        let lengths = lengths.filter(whole).ok_or_else(|| {
            call.error(match listed {
                Some(listed) => {
                    format!("its parts {listed:?} do not make up its axis of length {n}")
                }
                None => format!("its axis of length {n} does not fall into {parts} equal parts"),
            })
        })?;
        Ok((at, lengths))
    }

    pub(super) fn split(&mut self, call: Call<'a>) -> Result<Vec<Value>> {
        let x = self.activation(call, 0)?;
        let (at, lengths) = self.parts(call, &x.dims)?;
        let mut start = 0;
        let mut values = Vec::new();
        for (length, name) in lengths.into_iter().zip(&call.node.output) {
            let end = start + length;
            let taken: Vec<Option<usize>> = (start..end).map(Some).collect();
            start = end;
            // A part that nothing reads would lead nowhere.
            let read = self.readers.contains_key(name.as_str());
            let part = if read {
                self.take(call, x.clone(), at, &taken, 0.0)?
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
        let taken = self.take(call, x, at, &some, 0.0)?;
        self.value(taken.id, if dims.is_empty() { vec![1] } else { dims })
    }

    pub(super) fn gather_elements(&mut self, call: Call<'a>) -> Result<Value> {
        let (x, index) = (self.activation(call, 0)?, self.constant(call, 1)?);
        let places = self.element_places(call, &x.dims, &index)?;
        self.pay(call, &index.dims)?;
        let places: Vec<Option<usize>> = places.iter().map(|&i| Some(i as usize)).collect();
        let shape = sample_shape(&index.dims);
        let id = self.builder.gather(x.id, shape, &places, 0.0)?;
        self.value(id, index.dims)
    }

    pub(super) fn tile(&mut self, call: Call<'a>) -> Result<Value> {
        let mut x = self.activation(call, 0)?;
        for (axis, repeats) in self.repeats(call, x.dims.len())?.into_iter().enumerate() {
            let n = x.dims[axis];
            let mut dims = x.dims.clone();
            dims[axis] = n.saturating_mul(repeats);
            self.pay(call, &dims)?;
            let taken: Vec<Option<usize>> = (0..dims[axis]).map(|i| Some(i % n)).collect();
            x = self.take(call, x, axis, &taken, 0.0)?;
        }
        Ok(Value::Node(x))
    }

    /// The number that a Pad fills in, if it says.
    pub(super) fn fill(&self, call: Call) -> Result<Option<Tensor>> {
        if self.opset < 11 {
            return Ok(Some(Tensor::number(call.float("value", 0.0)?)));
        }
        let value = self.optional_constant(call, 2)?;
        match value {
            Some(value) if value.len() != 1 => Err(call.error("its constant_value is no scalar")),
            value => Ok(value),
        }
    }

    /// The axes of a Pad with the entries that they have then; `None` is filled in.
    pub(super) fn pads(
        &self,
        call: Call,
        dims: &[usize],
    ) -> Result<Vec<(usize, Vec<Option<usize>>)>> {
        let pads = if self.opset < 11 {
            let name = if self.opset < 2 { "paddings" } else { "pads" };
            call.integers(name)?.map(<[i64]>::to_vec)
        } else {
            self.optional_integers(call, 1)?
        };
        let pads = pads.ok_or_else(|| call.error("it has no pads"))?;
        let all = || (0..dims.len() as i64).collect();
        let axes: Vec<i64> = self.optional_integers(call, 3)?.unwrap_or_else(all);
        self.distinct_axes(call, &axes, dims.len())?;
        if pads.len() != 2 * axes.len() {
            return Err(call.error(format!("its pads {pads:?} do not fit {} axes", axes.len())));
        }
        let mode = call.string("mode", "constant")?;
        let one = |(i, &a): (usize, &i64)| {
            let axis = self.axis(call, a, dims.len())?;
            let ends = [pads[i], pads[axes.len() + i]];
            Ok((axis, self.padded(call, dims[axis], ends, &mode)?))
        };
        axes.iter().enumerate().map(one).collect()
    }

    /// The entries of an axis of length `n` with padding at its ends, which may be negative.
    fn padded(
        &self,
        call: Call,
        n: usize,
        [before, after]: [i64; 2],
        mode: &str,
    ) -> Result<Vec<Option<usize>>> {
        let bad = || {
            call.error(format!(
                "its pads {before} and {after} do not fit an axis of length {n}"
            ))
        };
        let limit = 1 << 40;
        let n = i64::try_from(n)
            .ok()
            .filter(|&n| n < limit)
            .ok_or_else(bad)?;
        if before.abs_diff(0).max(after.abs_diff(0)) > limit as u64 || n + before + after < 0 {
            return Err(bad());
        }
        let what = || call.error("its pads").to_string();
        let count = (n + before + after) as usize;
        self.budget.array(&[count], MOVED, what)?;
        if n == 0 && count > 0 && mode != "constant" {
            return Err(bad());
        }
        // What is cut off is not wrapped around.
        let (start, kept) = ((-before).max(0), n + before.min(0) + after.min(0));
        if mode == "wrap" && count > 0 && kept <= 0 {
            return Err(bad());
        }
        let inside = |p: i64| usize::try_from(p).ok().filter(|&p| p < n as usize);
        let entry = |p: i64| match mode {
            "constant" => Ok(inside(p)),
            "edge" => Ok(Some(p.clamp(0, n - 1) as usize)),
            "reflect" => {
                let period = (2 * n - 2).max(1);
                let p = p.rem_euclid(period);
                Ok(Some(p.min(period - p) as usize % n as usize))
            }
            "wrap" => Ok(Some((start + (p - start).rem_euclid(kept)) as usize)),
            other => Err(call.error(format!("its mode `{other}` is unknown"))),
        };
        (-before..n + after).map(entry).collect()
    }

    pub(super) fn pad(&mut self, call: Call<'a>) -> Result<Value> {
        let mut x = self.activation(call, 0)?;
        let fill = self.fill(call)?;
        let value = match &fill {
            Some(fill) => self.numbers(call, fill)?[0],
            None => 0.0,
        };
        for (axis, taken) in self.pads(call, &x.dims)? {
            let used = fill.as_ref().filter(|_| taken.contains(&None));
            let formula = used.and_then(|fill| fill.formula);
            self.leave_out(formula, call, "pads with it, and padding is no parameter");
            x = self.take(call, x, axis, &taken, value)?;
        }
        Ok(Value::Node(x))
    }
}
