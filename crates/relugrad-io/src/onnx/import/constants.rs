//! Operators on constants, which are folded: shapes that a graph computes, weights that it rearranges.

use super::*;
use crate::onnx::values::{broadcast, broadcast_places, taken_places};

impl<'a> Importer<'a> {
    /// The values of an operator that does not depend on the input, or `None` if it does.
    pub(super) fn fold(&mut self, call: Call<'a>) -> Result<Option<Vec<Value>>> {
        let one = |tensor| Ok(Some(vec![Value::Constant(tensor)]));
        match call.operator() {
            "Constant" => return one(self.literal(call)?),
            "Shape" => {
                let dims = match self.input(call, 0)? {
                    Value::Node(x) => x.dims,
                    Value::Constant(c) => c.dims,
                };
                let rank = dims.len() as i64;
                let bound = |i: i64| {
                    (if i < 0 { i.saturating_add(rank) } else { i }).clamp(0, rank) as usize
                };
                let (start, end) = (
                    bound(call.integer("start", 0)?),
                    bound(call.integer("end", rank)?),
                );
                let part = dims.get(start..end).unwrap_or_default();
                return one(Tensor::integers(part.iter().map(|&n| n as f64).collect()));
            }
            "Size" => {
                let count = match self.input(call, 0)? {
                    Value::Node(x) => x.dims.iter().product(),
                    Value::Constant(c) => c.len(),
                };
                return one(Tensor::new(Vec::new(), vec![count as f64], true));
            }
            _ => {}
        }
        let mut constants = Vec::new();
        for place in 0..call.node.input.len() {
            match self.optional(call, place)? {
                Some(Value::Constant(tensor)) => constants.push(tensor),
                Some(Value::Node(_)) => return Ok(None),
                None => {}
            }
        }
        if constants.is_empty() {
            return Err(call.error("it has no inputs"));
        }
        one(self.folded(call, &constants)?)
    }

    fn folded(&self, call: Call, inputs: &[Tensor]) -> Result<Tensor> {
        let first = &inputs[0];
        match call.operator() {
            "Identity" | "Dropout" => Ok(first.clone()),
            "Cast" => {
                let integer = !matches!(call.integer("to", 1)?, 1 | 10 | 11 | 16);
                let truncate = integer && !first.integer;
                Ok(Tensor {
                    integer,
                    values: first.values.iter().map(|&v| if truncate { v.trunc() } else { v }).collect(),
                    ..first.clone()
                })
            }
            "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => {
                Ok(first.reshaped(self.new_dims(call, &first.dims)?))
            }
            "Transpose" => self.transposed_constant(call, first),
            "Slice" => self.sliced_constant(call, first),
            "Gather" => {
                let index = self.constant(call, 1)?;
                let at = self.axis(call, call.integer("axis", 0)?, first.dims.len())?;
                let taken = self.indices(call, &index, first.dims[at])?;
                let dims = [&first.dims[..at], &index.dims, &first.dims[at + 1..]].concat();
                self.pay(call, &dims)?;
                Ok(first.picked(dims, &taken_places(&first.dims, at, &taken)))
            }
            "Concat" => self.joined(call, inputs),
            "Expand" | "ConstantOfShape" => self.filled(call, inputs),
            "Add" | "Sub" | "Mul" | "Div" | "Neg" | "Sqrt" | "Relu" | "Abs" => self.arithmetic(call, inputs),
            "ReduceProd" => {
                let product = first.values.iter().product();
                let dims = if call.flag("keepdims", true)? { vec![1; first.dims.len()] } else { Vec::new() };
                Ok(Tensor::new(dims, vec![product], first.integer))
            }
            _ => Err(call.error("all of its inputs are constant, and it cannot be computed in advance; simplify the model when exporting")),
        }
    }

    /// What a Constant node holds.
    fn literal(&self, call: Call) -> Result<Tensor> {
        if let Some(proto) = call.tensor("value")? {
            return tensor::decode(proto, self.budget, self.external);
        }
        let wide = |values: &[f32]| values.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
        if let Some(values) = call.floats("value_floats")? {
            return Ok(Tensor::new(vec![values.len()], wide(values), false));
        }
        if let Some(values) = call.integers("value_ints")? {
            return Ok(Tensor::integers(values.iter().map(|&v| v as f64).collect()));
        }
        if call.has("value_float") {
            return Ok(Tensor::new(
                Vec::new(),
                vec![call.float("value_float", 0.0)?],
                false,
            ));
        }
        if call.has("value_int") {
            return Ok(Tensor::new(
                Vec::new(),
                vec![call.integer("value_int", 0)? as f64],
                true,
            ));
        }
        Err(call.error("its constant is a string or sparse; only dense numbers are read"))
    }

    fn joined(&self, call: Call, parts: &[Tensor]) -> Result<Tensor> {
        let rank = parts[0].dims.len();
        let at = self.axis(call, call.integer("axis", 0)?, rank)?;
        let mut dims = parts[0].dims.clone();
        dims[at] = 0;
        for part in parts {
            let mut rest = part.dims.clone();
            if rest.len() == rank {
                dims[at] += rest[at];
                rest[at] = dims[at];
            }
            if rest != dims {
                return Err(call.error("its constants have dimensions that do not go together"));
            }
        }
        let inner: usize = dims[at + 1..].iter().product();
        let outer: usize = dims[..at].iter().product();
        let mut values = Vec::new();
        for i in 0..outer {
            for part in parts {
                let length = part.dims[at] * inner;
                values.extend(&part.values[i * length..(i + 1) * length]);
            }
        }
        Ok(Tensor::new(dims, values, parts[0].integer))
    }

    /// Expand and ConstantOfShape.
    fn filled(&self, call: Call, inputs: &[Tensor]) -> Result<Tensor> {
        let expand = call.operator() == "Expand";
        let value = if expand {
            inputs[0].clone()
        } else {
            match call.tensor("value")? {
                Some(proto) => {
                    tensor::decode(proto, self.budget, self.external)?.reshaped_scalar(call)?
                }
                None => Tensor::new(Vec::new(), vec![0.0], false),
            }
        };
        let target = if expand {
            self.constant(call, 1)?
        } else {
            inputs[0].clone()
        };
        let target: Option<Vec<usize>> = target
            .to_integers()
            .into_iter()
            .map(|n| usize::try_from(n).ok())
            .collect();
        let dims = target.and_then(|target| broadcast(&value.dims, &target));
        let dims = dims.ok_or_else(|| call.error("its dimensions do not go together"))?;
        self.pay(call, &dims)?;
        let places = broadcast_places(&value.dims, &dims);
        Ok(value.picked(dims, &places))
    }

    /// Pays for a constant of these dimensions, with the places that its entries come from.
    pub(super) fn pay(&self, call: Call, dims: &[usize]) -> Result<()> {
        let size = 2 * size_of::<usize>() + size_of::<f64>();
        let what = || {
            call.error(format!("a constant of dimensions {dims:?}"))
                .to_string()
        };
        self.budget.array(dims, size, what).map(|_| ())
    }

    fn arithmetic(&self, call: Call, inputs: &[Tensor]) -> Result<Tensor> {
        let first = &inputs[0];
        let Some(second) = inputs.get(1) else {
            let values = first.values.iter().map(|&v| match call.operator() {
                "Neg" => -v,
                "Sqrt" => v.sqrt(),
                "Abs" => v.abs(),
                _ => v.max(0.0),
            });
            return Ok(Tensor::new(
                first.dims.clone(),
                values.collect(),
                first.integer,
            ));
        };
        let dims = broadcast(&first.dims, &second.dims)
            .ok_or_else(|| call.error("its constants have dimensions that do not go together"))?;
        self.pay(call, &dims)?;
        let (left, right) = (
            broadcast_places(&first.dims, &dims),
            broadcast_places(&second.dims, &dims),
        );
        let integer = first.integer && second.integer;
        let values = left.iter().zip(&right).map(|(&i, &j)| {
            let (a, b) = (first.values[i], second.values[j]);
            match call.operator() {
                "Add" => a + b,
                "Sub" => a - b,
                "Mul" => a * b,
                _ if integer => (a / b).trunc(),
                _ => a / b,
            }
        });
        let values: Vec<f64> = values.collect();
        if values.iter().any(|v| !v.is_finite()) {
            return Err(call.error("it gives a number that is not finite"));
        }
        Ok(Tensor::new(dims, values, integer))
    }
}

impl Tensor {
    fn reshaped_scalar(&self, call: Call) -> Result<Tensor> {
        if self.len() != 1 {
            return Err(call.error("its value is no scalar"));
        }
        Ok(self.reshaped(Vec::new()))
    }
}
