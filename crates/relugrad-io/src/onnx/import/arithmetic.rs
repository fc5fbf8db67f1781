//! Sums, products with constants, gates, maxima of branches.

use ndarray::{ArrayD, IxDyn};

use super::*;
use crate::onnx::values::{broadcast, broadcast_places};

/// Beyond this a bound of Clip is none; exporters write the largest `f32` for it.
const UNBOUNDED: f64 = f32::MAX as f64;

impl<'a> Importer<'a> {
    fn all_inputs(&self, call: Call) -> Result<Vec<Value>> {
        (0..call.node.input.len())
            .map(|place| self.input(call, place))
            .collect()
    }

    pub(super) fn add(&mut self, call: Call<'a>) -> Result<Value> {
        let values = self.all_inputs(call)?;
        self.sum(call, values)
    }

    /// The sum of values, at least one of which is a node.
    pub(super) fn sum(&mut self, call: Call, values: Vec<Value>) -> Result<Value> {
        let (mut nodes, mut constants) = (Vec::new(), Vec::new());
        for value in values {
            match value {
                Value::Node(node) => nodes.push(node),
                Value::Constant(tensor) => constants.push(tensor),
            }
        }
        let mut sum = if nodes.len() == 1 {
            Value::Node(nodes.remove(0))
        } else {
            let dims = self.common_dims(call, &nodes)?;
            let ids: Vec<NodeId> = nodes
                .into_iter()
                .map(|x| self.broadcast(x, &dims))
                .collect::<Result<_>>()?;
            let id = self.builder.sum(&ids)?;
            self.value(id, dims)?
        };
        for constant in constants {
            sum = self.shift(call, sum, &constant, 1.0)?;
        }
        Ok(sum)
    }

    fn common_dims(&self, call: Call, nodes: &[Activation]) -> Result<Vec<usize>> {
        let mut dims = nodes[0].dims.clone();
        for node in &nodes[1..] {
            dims = broadcast(&dims, &node.dims).ok_or_else(|| {
                call.error(format!(
                    "its inputs of dimensions {dims:?} and {:?} do not go together",
                    node.dims
                ))
            })?;
        }
        Ok(dims)
    }

    /// A node repeated along axes until it has the dimensions.
    pub(super) fn broadcast(&mut self, x: Activation, dims: &[usize]) -> Result<NodeId> {
        let shape = sample_shape(dims);
        if x.dims.iter().product::<usize>() == dims.iter().product::<usize>() {
            return self.shaped(x.id, shape);
        }
        self.budget.array(dims, MOVED, || {
            format!("a value that is repeated to the dimensions {dims:?}")
        })?;
        let places: Vec<Option<usize>> = broadcast_places(&x.dims, dims)
            .into_iter()
            .map(Some)
            .collect();
        Ok(self.builder.gather(x.id, shape, &places, 0.0)?)
    }

    /// A node and the constant that goes with it, both of the dimensions that they have together.
    fn with_constant(
        &mut self,
        call: Call,
        x: Value,
        c: &Tensor,
    ) -> Result<(NodeId, ArrayD<f64>, Vec<usize>)> {
        let Value::Node(x) = x else {
            return Err(call.error("both of its inputs are constant"));
        };
        let dims = broadcast(&x.dims, &c.dims).ok_or_else(|| {
            call.error(format!(
                "its inputs of dimensions {:?} and {:?} do not go together",
                x.dims, c.dims
            ))
        })?;
        let id = self.broadcast(x, &dims)?;
        let rank = self.builder.shape(id)?.len();
        Ok((id, array(call, c, rank)?, dims))
    }

    /// `x + factor · c`.
    pub(super) fn shift(&mut self, call: Call, x: Value, c: &Tensor, factor: f64) -> Result<Value> {
        let (id, values, dims) = self.with_constant(call, x, c)?;
        let learned = c.source.is_some();
        if learned {
            self.learn(c, None, Contribution::Times(factor));
        }
        let id = self.builder.shift(id, values * factor, learned)?;
        self.value(id, dims)
    }

    /// `c ⊙ x`, or `x / c`.
    fn scaled(
        &mut self,
        call: Call,
        x: Value,
        c: &Tensor,
        contribution: Contribution,
    ) -> Result<Value> {
        let (id, values, dims) = self.with_constant(call, x, c)?;
        let values = match contribution {
            Contribution::Times(factor) => values * factor,
            Contribution::Reciprocal => values.mapv(f64::recip),
        };
        if values.iter().any(|v| !v.is_finite()) {
            return Err(call.error("it divides by 0, or by a number too small"));
        }
        let learned = c.source.is_some();
        if learned {
            self.learn(c, None, contribution);
        }
        let id = self.builder.scale(id, values, learned)?;
        self.value(id, dims)
    }

    fn negative(&mut self, x: Value) -> Result<Value> {
        match x {
            Value::Constant(tensor) => {
                let values = tensor.values.iter().map(|v| -v).collect();
                Ok(Value::Constant(Tensor::new(
                    tensor.dims,
                    values,
                    tensor.integer,
                )))
            }
            Value::Node(x) => {
                let minus = ArrayD::from_elem(IxDyn(&[]), -1.0);
                let id = self.builder.scale(x.id, minus, false)?;
                self.value(id, x.dims)
            }
        }
    }

    pub(super) fn sub(&mut self, call: Call<'a>) -> Result<Value> {
        match (self.input(call, 0)?, self.input(call, 1)?) {
            (x, Value::Constant(c)) => self.shift(call, x, &c, -1.0),
            (a, b) => {
                let b = self.negative(b)?;
                self.sum(call, vec![a, b])
            }
        }
    }

    pub(super) fn mul(&mut self, call: Call<'a>) -> Result<Value> {
        match (self.input(call, 0)?, self.input(call, 1)?) {
            (x, Value::Constant(c)) | (Value::Constant(c), x) => {
                self.scaled(call, x, &c, Contribution::Times(1.0))
            }
            _ => Err(call.error(
                "it multiplies values that both depend on the input, which is not piecewise linear",
            )),
        }
    }

    pub(super) fn div(&mut self, call: Call<'a>) -> Result<Value> {
        match (self.input(call, 0)?, self.input(call, 1)?) {
            (x, Value::Constant(c)) => self.scaled(call, x, &c, Contribution::Reciprocal),
            _ => Err(call.error(
                "it divides by a value that depends on the input, which is not piecewise linear",
            )),
        }
    }

    pub(super) fn neg(&mut self, call: Call<'a>) -> Result<Value> {
        let x = self.activation(call, 0)?;
        self.negative(Value::Node(x))
    }

    pub(super) fn gate(&mut self, call: Call<'a>, gate: Gate) -> Result<Value> {
        let x = self.activation(call, 0)?;
        let id = self.builder.gate(x.id, gate)?;
        self.value(id, x.dims)
    }

    pub(super) fn prelu(&mut self, call: Call<'a>) -> Result<Value> {
        let (x, slope) = (self.activation(call, 0)?, self.constant(call, 1)?);
        let rank = self.builder.shape(x.id)?.len();
        let slopes = array(call, &slope, rank)?;
        self.learn(&slope, None, Contribution::Times(1.0));
        let id = self.builder.prelu_shared(x.id, slopes)?;
        self.value(id, x.dims)
    }

    pub(super) fn clip(&mut self, call: Call<'a>) -> Result<Value> {
        let x = self.activation(call, 0)?;
        let bound = |place: usize, name: &str, default: f64| -> Result<f64> {
            if self.opset < 11 {
                return call.float(name, default);
            }
            match self.optional_constant(call, place)? {
                None => Ok(default),
                Some(tensor) => tensor
                    .scalar()
                    .ok_or_else(|| call.error(format!("its {name} is no scalar"))),
            }
        };
        let (min, max) = (bound(1, "min", -UNBOUNDED)?, bound(2, "max", UNBOUNDED)?);
        match (min > -UNBOUNDED, max < UNBOUNDED) {
            (true, true) => {
                let id = self.builder.gate(x.id, Gate::Clip { min, max })?;
                self.value(id, x.dims)
            }
            (true, false) => self.at_least(x, min, 1.0),
            (false, true) => self.at_least(x, max, -1.0),
            (false, false) => Ok(Value::Node(x)),
        }
    }

    /// `max(x, bound)` with `sign` 1, `min(x, bound)` with −1: a ReLU of the difference.
    fn at_least(&mut self, x: Activation, bound: f64, sign: f64) -> Result<Value> {
        let number = |v: f64| ArrayD::from_elem(IxDyn(&[]), v);
        let mut id = x.id;
        if bound != 0.0 {
            id = self.builder.shift(id, number(-bound), false)?;
        }
        if sign < 0.0 {
            id = self.builder.scale(id, number(-1.0), false)?;
        }
        id = self.builder.relu(id)?;
        if sign < 0.0 {
            id = self.builder.scale(id, number(-1.0), false)?;
        }
        if bound != 0.0 {
            id = self.builder.shift(id, number(bound), false)?;
        }
        self.value(id, x.dims)
    }

    /// Max or Min of branches and constants.
    pub(super) fn extremum(&mut self, call: Call<'a>) -> Result<Value> {
        let min = call.operator() == "Min";
        let mut nodes = Vec::new();
        let mut bound: Option<f64> = None;
        for value in self.all_inputs(call)? {
            match value {
                Value::Node(x) if min => match self.negative(Value::Node(x))? {
                    Value::Node(x) => nodes.push(x),
                    Value::Constant(_) => unreachable!("a node stays one"),
                },
                Value::Node(x) => nodes.push(x),
                Value::Constant(c) => {
                    let c = c.scalar().ok_or_else(|| {
                        call.error("only a scalar is supported as constant beside a branch; subtract it first")
                    })?;
                    let c = if min { -c } else { c };
                    bound = Some(bound.map_or(c, |b| b.max(c)));
                }
            }
        }
        let dims = self.common_dims(call, &nodes)?;
        let mut id = self.broadcast(nodes[0].clone(), &dims)?;
        if nodes.len() > 1 {
            let stacked = [&[1], sample_shape(&dims)].concat();
            let mut branches = Vec::new();
            for x in nodes {
                let branch = self.broadcast(x, &dims)?;
                branches.push(self.shaped(branch, &stacked)?);
            }
            let all = self.builder.concat(&branches, 0)?;
            id = self.builder.max(all, 0)?;
        }
        let mut value = Value::Node(Activation {
            id,
            dims: dims.clone(),
        });
        if let Some(bound) = bound {
            value = self.at_least(Activation { id, dims }, bound, 1.0)?;
        }
        if min { self.negative(value) } else { Ok(value) }
    }
}
