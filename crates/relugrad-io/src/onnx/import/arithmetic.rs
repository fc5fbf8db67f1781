//! Sums, products with constants, gates, maxima of branches.

use ndarray::{ArrayD, IxDyn};
use relugrad::{Gate, NodeId};

use crate::error::Result;
use crate::onnx::attributes::Call;
use crate::onnx::import::{Importer, array_dims};
use crate::onnx::tensor::Tensor;
use crate::onnx::values::{Activation, Value, broadcast, broadcast_places, sample_shape};

/// From here on a bound is far away: `x − bound + bound` would lose the digits of `x`.
const FAR: f64 = (1u32 << 20) as f64;

/// Whether a lower bound is none: it is −∞, or what exporters write for it, the least number of a
/// precision.
fn is_unbounded(bound: f64) -> bool {
    [f64::NEG_INFINITY, f64::MIN, f64::from(f32::MIN)].contains(&bound)
}

impl<'a> Importer<'a> {
    pub(super) fn all_inputs(&self, call: Call) -> Result<Vec<Value>> {
        (0..call.node.input.len())
            .map(|place| self.input(call, place))
            .collect()
    }

    pub(super) fn add(&mut self, call: Call<'a>) -> Result<Value> {
        let values = self.all_inputs(call)?;
        self.sum(call, values)
    }

    /// Mean.
    pub(super) fn average(&mut self, call: Call<'a>) -> Result<Value> {
        let values = self.all_inputs(call)?;
        let share = 1.0 / values.len() as f64;
        match self.sum(call, values)? {
            Value::Node(sum) => Ok(Value::Node(self.multiple(sum, share)?)),
            constant => Ok(constant),
        }
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
        let mut sum = match &nodes[..] {
            [] => return Err(call.error("none of its inputs depends on the network's input")),
            [one] => one.clone(),
            _ => {
                let dims = self.common_dims(call, &nodes)?;
                let ids: Vec<NodeId> = nodes
                    .into_iter()
                    .map(|x| self.broadcast(call, x, &dims))
                    .collect::<Result<_>>()?;
                let id = self.builder.sum(&ids)?;
                Activation { id, dims }
            }
        };
        for constant in constants {
            sum = self.shift(call, sum, &constant)?;
        }
        self.value(sum.id, sum.dims)
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
    pub(super) fn broadcast(
        &mut self,
        call: Call,
        x: Activation,
        dims: &[usize],
    ) -> Result<NodeId> {
        let shape = sample_shape(dims);
        if x.dims.iter().product::<usize>() == entries(dims) {
            return self.shaped(x.id, shape);
        }
        self.pay(call, dims)?;
        let places = broadcast_places(&x.dims, dims).into_iter();
        let places: Vec<Option<usize>> = places.map(|i| Some(i as usize)).collect();
        Ok(self.builder.gather(x.id, shape, &places, 0.0)?)
    }

    /// A node repeated until a constant goes with it, and the dimensions that they have together.
    fn beside(&mut self, call: Call, x: Activation, c: &Tensor) -> Result<(NodeId, Vec<usize>)> {
        let dims = broadcast(&x.dims, &c.dims).ok_or_else(|| {
            call.error(format!(
                "its inputs of dimensions {:?} and {:?} do not go together",
                x.dims, c.dims
            ))
        })?;
        Ok((self.broadcast(call, x, &dims)?, dims))
    }

    /// The numbers of a constant as a factor or summand of a node. If they change with arrays of
    /// the file, they are its parameters.
    fn factor(&mut self, call: Call, id: NodeId, c: &Tensor) -> Result<(ArrayD<f64>, bool)> {
        let rank = self.builder.shape(id)?.len();
        let dims = array_dims(call, c, rank)?;
        let learned = c.formula.is_some();
        let values = match learned {
            true => self.parameter(call, c)?,
            false => self.numbers(call, c)?.to_vec(),
        };
        let array = ArrayD::from_shape_vec(IxDyn(&dims), values).expect("as many entries");
        Ok((array, learned))
    }

    /// `x + c` for a node that `c` need not be repeated for.
    pub(super) fn shifted(&mut self, call: Call, id: NodeId, c: &Tensor) -> Result<NodeId> {
        let (values, learned) = self.factor(call, id, c)?;
        Ok(self.builder.shift(id, values, learned)?)
    }

    /// `x + c`.
    pub(super) fn shift(&mut self, call: Call, x: Activation, c: &Tensor) -> Result<Activation> {
        let (id, dims) = self.beside(call, x, c)?;
        let id = self.shifted(call, id, c)?;
        Ok(Activation { id, dims })
    }

    /// `c ⊙ x`.
    fn scaled(&mut self, call: Call, x: Activation, c: &Tensor) -> Result<Value> {
        let (id, dims) = self.beside(call, x, c)?;
        let (values, learned) = self.factor(call, id, c)?;
        let id = self.builder.scale(id, values, learned)?;
        self.value(id, dims)
    }

    /// `factor · x`.
    pub(super) fn multiple(&mut self, x: Activation, factor: f64) -> Result<Activation> {
        if factor == 1.0 {
            return Ok(x);
        }
        let factor = ArrayD::from_elem(IxDyn(&[]), factor);
        let id = self.builder.scale(x.id, factor, false)?;
        Ok(Activation { id, ..x })
    }

    pub(super) fn sub(&mut self, call: Call<'a>) -> Result<Value> {
        let b = match self.input(call, 1)? {
            Value::Constant(c) => Value::Constant(self.times(call, &c, -1.0)?),
            Value::Node(x) => Value::Node(self.multiple(x, -1.0)?),
        };
        let a = self.input(call, 0)?;
        self.sum(call, vec![a, b])
    }

    pub(super) fn mul(&mut self, call: Call<'a>) -> Result<Value> {
        match (self.input(call, 0)?, self.input(call, 1)?) {
            (Value::Node(x), Value::Constant(c)) | (Value::Constant(c), Value::Node(x)) => {
                self.scaled(call, x, &c)
            }
            _ => Err(call.error(
                "it multiplies values that both depend on the input, which is not piecewise linear",
            )),
        }
    }

    pub(super) fn div(&mut self, call: Call<'a>) -> Result<Value> {
        let (Value::Node(x), Value::Constant(c)) = (self.input(call, 0)?, self.input(call, 1)?)
        else {
            return Err(call.error(
                "it divides by a value that depends on the input, which is not piecewise linear",
            ));
        };
        let inverse = |v: &f64| !v.recip().is_finite();
        if self.numbers(call, &c)?.iter().any(inverse) {
            return Err(call.error("it divides by 0, or by a number too small"));
        }
        let c = self.reciprocal(call, &c)?;
        self.scaled(call, x, &c)
    }

    pub(super) fn neg(&mut self, call: Call<'a>) -> Result<Value> {
        let x = self.activation(call, 0)?;
        Ok(Value::Node(self.multiple(x, -1.0)?))
    }

    pub(super) fn gate(&mut self, call: Call<'a>, gate: Gate) -> Result<Value> {
        let x = self.activation(call, 0)?;
        let id = self.builder.gate(x.id, gate)?;
        self.value(id, x.dims)
    }

    /// HardSigmoid, `min(max(αx + β, 0), 1)`.
    pub(super) fn hard_sigmoid(&mut self, call: Call<'a>) -> Result<Value> {
        let x = self.activation(call, 0)?;
        let (alpha, beta) = (call.float("alpha", 0.2)?, call.float("beta", 0.5)?);
        let x = self.multiple(x, alpha)?;
        let beta = ArrayD::from_elem(IxDyn(&[]), beta);
        let id = self.builder.shift(x.id, beta, false)?;
        let id = self.builder.gate(id, Gate::Clip { min: 0.0, max: 1.0 })?;
        self.value(id, x.dims)
    }

    pub(super) fn prelu(&mut self, call: Call<'a>) -> Result<Value> {
        let (x, mut slope) = (self.activation(call, 0)?, self.constant(call, 1)?);
        if self.opset < 7 && slope.dims.len() == 1 && slope.len() > 1 && x.dims.len() > 2 {
            // One for each channel.
            slope = slope.reshaped([&slope.dims[..], &vec![1; x.dims.len() - 2]].concat());
        }
        let rank = self.builder.shape(x.id)?.len();
        let dims = array_dims(call, &slope, rank)?;
        let slopes = self.parameter(call, &slope)?;
        let slopes = ArrayD::from_shape_vec(IxDyn(&dims), slopes).expect("as many entries");
        let id = self.builder.prelu_shared(x.id, slopes)?;
        self.value(id, x.dims)
    }

    /// The lower and upper bound of a Clip, as far as there are any.
    pub(super) fn bounds(&self, call: Call) -> Result<[Option<Tensor>; 2]> {
        let bound = |place: usize, name: &str| -> Result<Option<Tensor>> {
            if self.opset >= 11 {
                return self.optional_constant(call, place);
            }
            let given = call.has(name).then(|| call.float(name, 0.0)).transpose()?;
            Ok(given.map(Tensor::number))
        };
        Ok([bound(1, "min")?, bound(2, "max")?])
    }

    pub(super) fn clip(&mut self, call: Call<'a>) -> Result<Value> {
        let mut x = self.activation(call, 0)?;
        let mut bounds = self.bounds(call)?;
        for (bound, sign) in bounds.iter_mut().zip([1.0, -1.0]) {
            let Some(tensor) = bound else { continue };
            let Some(value) = tensor.scalar() else {
                return Err(call.error("a bound of it is no floating scalar"));
            };
            *tensor = tensor.reshaped(Vec::new());
            if is_unbounded(sign * value) {
                *bound = None;
            }
        }
        let far = |bound: &Option<Tensor>| {
            let bound = bound.as_ref().and_then(Tensor::scalar);
            bound.is_some_and(|v| v.abs() >= FAR)
        };
        let two = bounds.iter().all(Option::is_some);
        if two || bounds.iter().any(far) {
            return self.clip_gate(call, x, &bounds);
        }
        let [min, max] = bounds;
        for (bound, sign) in [(min, 1.0), (max, -1.0)] {
            if let Some(bound) = bound {
                x = self.at_least(call, x, &bound, sign)?;
            }
        }
        Ok(Value::Node(x))
    }

    /// A gate between bounds, of which a missing one is the last number on its side.
    fn clip_gate(
        &mut self,
        call: Call,
        x: Activation,
        [low, high]: &[Option<Tensor>; 2],
    ) -> Result<Value> {
        let (mut min, mut max) = (f64::MIN, f64::MAX);
        for (bound, number) in [(low, &mut min), (high, &mut max)] {
            if let Some(bound) = bound {
                *number = self.numbers(call, bound)?[0];
                self.leave_out(
                    bound.formula,
                    call,
                    "has it as bound of a gate, which is no parameter",
                );
            }
        }
        let id = self.builder.gate(x.id, Gate::Clip { min, max })?;
        self.value(id, x.dims)
    }

    /// `max(x, bound)` with `sign` 1, `min(x, bound)` with −1: a ReLU of the difference.
    fn at_least(
        &mut self,
        call: Call,
        x: Activation,
        bound: &Tensor,
        sign: f64,
    ) -> Result<Activation> {
        let (id, dims) = self.beside(call, x, bound)?;
        let mut x = Activation { id, dims };
        let values = bound.reals().unwrap_or_default();
        if !values.is_empty() && values.iter().all(|v| is_unbounded(sign * v)) {
            return Ok(x);
        }
        if values.iter().any(|v| v.abs() >= FAR) {
            return self.beyond(call, x, bound, sign);
        }
        // What is compared with 0 alone is a ReLU and nothing else.
        let zero = values == [0.0];
        if zero {
            self.leave_out(
                bound.formula,
                call,
                "compares with this 0, which makes it a ReLU",
            );
        } else {
            let minus = self.times(call, bound, -1.0)?;
            x = self.shift(call, x, &minus)?;
        }
        x = self.multiple(x, sign)?;
        x.id = self.builder.relu(x.id)?;
        x = self.multiple(x, sign)?;
        if !zero {
            x = self.shift(call, x, bound)?;
        }
        Ok(x)
    }

    /// The same as `x` and what the bound goes beyond it, `x + max(bound − x, 0)`: where nothing is
    /// bounded no digit is lost, however far away the bound is.
    fn beyond(
        &mut self,
        call: Call,
        x: Activation,
        bound: &Tensor,
        sign: f64,
    ) -> Result<Activation> {
        let dims = x.dims.clone();
        let minus = self.multiple(x.clone(), -1.0)?;
        let gap = self.shift(call, minus, bound)?;
        let mut gap = self.multiple(gap, sign)?;
        gap.id = self.builder.relu(gap.id)?;
        let gap = self.multiple(gap, sign)?;
        let id = self.builder.sum(&[x.id, gap.id])?;
        Ok(Activation { id, dims })
    }

    /// Max or Min of branches and constants.
    pub(super) fn extremum(&mut self, call: Call<'a>) -> Result<Value> {
        let sign = if call.operator() == "Min" { -1.0 } else { 1.0 };
        let (mut nodes, mut constants) = (Vec::new(), Vec::new());
        for value in self.all_inputs(call)? {
            match value {
                Value::Node(x) => nodes.push(x),
                Value::Constant(c) => constants.push(c),
            }
        }
        let mut x = match &nodes[..] {
            [one] => one.clone(),
            _ => {
                let largest = self.largest(call, nodes, sign)?;
                self.multiple(largest, sign)?
            }
        };
        for bound in constants {
            x = self.at_least(call, x, &bound, sign)?;
        }
        self.value(x.id, x.dims)
    }

    /// The maximum of branches times `sign`.
    fn largest(&mut self, call: Call, nodes: Vec<Activation>, sign: f64) -> Result<Activation> {
        let dims = self.common_dims(call, &nodes)?;
        let stacked = [&[1], sample_shape(&dims)].concat();
        let mut branches = Vec::new();
        for x in nodes {
            let x = self.multiple(x, sign)?;
            let branch = self.broadcast(call, x, &dims)?;
            branches.push(self.shaped(branch, &stacked)?);
        }
        let all = self.builder.concat(&branches, 0)?;
        let id = self.builder.max(all, 0)?;
        Ok(Activation { id, dims })
    }
}

/// How many entries an array of these dimensions has, at most `usize::MAX`.
fn entries(dims: &[usize]) -> usize {
    if dims.contains(&0) {
        return 0;
    }
    dims.iter().fold(1, |p, &n| p.saturating_mul(n))
}
