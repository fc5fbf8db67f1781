//! Gemm, MatMul and BatchNormalization.

use ndarray::{Array1, Array2};
use relugrad::{BatchNorm, NodeId};

use super::stacks::is_stack;
use crate::error::Result;
use crate::formula::Term;
use crate::onnx::attributes::Call;
use crate::onnx::import::Importer;
use crate::onnx::tensor::Tensor;
use crate::onnx::values::{Activation, Value, broadcast, sample_shape};

impl<'a> Importer<'a> {
    /// `y = W x + b` along the last axis of a node; `weight: [outputs, inputs]`, `bias` of one
    /// entry or as many as outputs.
    fn dense(
        &mut self,
        call: Call,
        id: NodeId,
        weight: &Tensor,
        bias: Option<&Tensor>,
    ) -> Result<NodeId> {
        let [outputs, inputs] = tensor_axes(call, weight)?;
        let values = self.parameter(call, weight)?;
        let weight = Array2::from_shape_vec((outputs, inputs), values).expect("a matrix");
        let bias = match bias {
            None => None,
            Some(bias) => {
                let vector = self.spread(call, &bias.reshaped(last_axis(bias)), &[outputs])?;
                Some(Array1::from(self.parameter(call, &vector)?))
            }
        };
        Ok(self.builder.dense(id, weight, bias)?)
    }

    /// The constant as `[outputs, inputs]` times `factor`, transposed unless it is so already.
    fn weight(&mut self, call: Call, w: &Tensor, transpose: bool, factor: f64) -> Result<Tensor> {
        self.numbers(call, w)?;
        let scaled = self.times(call, w, factor)?;
        match transpose {
            true => self.in_order(call, &scaled, &[1, 0]),
            false => Ok(scaled),
        }
    }

    pub(super) fn gemm(&mut self, call: Call<'a>) -> Result<Value> {
        let (alpha, beta) = (call.float("alpha", 1.0)?, call.float("beta", 1.0)?);
        let (trans_a, trans_b) = (call.flag("transA", false)?, call.flag("transB", false)?);
        let c = self.optional(call, 2)?;
        let (product, dims) = match (self.input(call, 0)?, self.input(call, 1)?) {
            (Value::Node(a), Value::Constant(b)) => {
                let [m, k] = self.two_axes(call, &a.dims, trans_a)?;
                let x = self.matrix_rows(a, trans_a, [m, k])?;
                let [rows, columns] = tensor_axes(call, &b)?;
                let (inputs, outputs) = if trans_b {
                    (columns, rows)
                } else {
                    (rows, columns)
                };
                self.check_inputs(call, inputs, k)?;
                let weight = self.weight(call, &b, !trans_b, alpha)?;
                let bias = match &c {
                    Some(Value::Constant(c)) if is_bias(c, outputs) => {
                        Some(self.times(call, c, beta)?)
                    }
                    _ => None,
                };
                let id = self.dense(call, x, &weight, bias.as_ref())?;
                if bias.is_some() {
                    return self.value(id, vec![m, outputs]);
                }
                (id, vec![m, outputs])
            }
            (Value::Constant(a), Value::Node(b)) => {
                let [k, n] = self.two_axes(call, &b.dims, trans_b)?;
                let [rows, columns] = tensor_axes(call, &a)?;
                let (inputs, outputs) = if trans_a {
                    (rows, columns)
                } else {
                    (columns, rows)
                };
                self.check_inputs(call, inputs, k)?;
                let x = self.matrix_rows(b, !trans_b, [n, k])?;
                let weight = self.weight(call, &a, trans_a, alpha)?;
                let id = self.dense(call, x, &weight, None)?;
                (self.transposed(id, [n, outputs])?, vec![outputs, n])
            }
            _ => return Err(call.error(both_depend())),
        };
        let product = self.value(product, dims.clone())?;
        let Some(c) = c else {
            return Ok(product);
        };
        if broadcast(c.dims(), &dims).as_ref() != Some(&dims) {
            return Err(call.error(format!(
                "its summand of dimensions {:?} does not fit its product of {dims:?}",
                c.dims()
            )));
        }
        let c = match c {
            Value::Node(c) => Value::Node(self.multiple(c, beta)?),
            Value::Constant(c) => Value::Constant(self.times(call, &c, beta)?),
        };
        self.sum(call, vec![product, c])
    }

    pub(super) fn check_inputs(&self, call: Call, inputs: usize, found: usize) -> Result<()> {
        if inputs == found {
            return Ok(());
        }
        Err(call.error(format!(
            "its weight takes {inputs} inputs but it gets {found}"
        )))
    }

    /// Dimensions of a matrix, or of its transpose.
    fn two_axes(&self, call: Call, dims: &[usize], transpose: bool) -> Result<[usize; 2]> {
        match (dims, transpose) {
            (&[rows, columns], false) => Ok([rows, columns]),
            (&[rows, columns], true) => Ok([columns, rows]),
            _ => Err(call.error(format!(
                "its input has dimensions {dims:?}, but a matrix is needed"
            ))),
        }
    }

    /// A matrix, transposed if asked for, as rows of a node: `[rows, columns]`, or `[columns]` for
    /// one row.
    fn matrix_rows(&mut self, x: Activation, transpose: bool, dims: [usize; 2]) -> Result<NodeId> {
        let [rows, columns] = dims;
        let id = if transpose {
            self.transposed(x.id, [columns, rows])?
        } else {
            x.id
        };
        self.shaped(id, sample_shape(&dims))
    }

    /// The transpose of `[rows, columns]`, which for a vector is another shape.
    fn transposed(&mut self, id: NodeId, [rows, columns]: [usize; 2]) -> Result<NodeId> {
        if rows == 1 || columns == 1 {
            return self.shaped(id, &[columns, rows]);
        }
        let id = self.shaped(id, &[rows, columns])?;
        Ok(self.builder.transpose(id, &[1, 0])?)
    }

    pub(super) fn matmul(&mut self, index: usize, call: Call<'a>) -> Result<Value> {
        match (self.input(call, 0)?, self.input(call, 1)?) {
            (Value::Node(x), _) | (_, Value::Node(x)) if x.dims.is_empty() => {
                Err(call.error("its input is a scalar"))
            }
            (Value::Node(x), Value::Constant(w)) if is_stack(&w) => {
                self.stacked(call, x, &w, false)
            }
            (Value::Constant(w), Value::Node(x)) if is_stack(&w) => self.stacked(call, x, &w, true),
            (Value::Node(x), Value::Constant(w)) => self.matmul_right(index, call, x, w),
            (Value::Constant(w), Value::Node(x)) => self.matmul_left(call, &w, x),
            _ => Err(call.error(both_depend())),
        }
    }

    /// `x W`: a dense layer along the last axis. An addition of a vector that alone reads the
    /// product becomes its bias.
    fn matmul_right(
        &mut self,
        index: usize,
        call: Call<'a>,
        x: Activation,
        w: Tensor,
    ) -> Result<Value> {
        let vector = w.dims.len() == 1;
        let w = match w.dims[..] {
            [] => return Err(call.error("its constant is a scalar, where a matrix is needed")),
            [n] => w.reshaped(vec![n, 1]),
            _ => w,
        };
        let extra = w.dims.len() - 2;
        let [inputs, outputs] = [w.dims[extra], w.dims[extra + 1]];
        let Some((&last, leading)) = x.dims.split_last() else {
            return Err(call.error("its input is a scalar"));
        };
        self.check_inputs(call, inputs, last)?;
        let missing = (extra + 1).saturating_sub(leading.len()).min(extra);
        let mut dims = vec![1; missing];
        dims.extend(leading);
        if !vector {
            dims.push(outputs);
        }
        let bias = if vector {
            None
        } else {
            self.take_bias(index, call, outputs, dims.len())?
        };
        let w = w.reshaped(vec![inputs, outputs]);
        let weight = self.weight(call, &w, true, 1.0)?;
        let shape = if x.dims.len() == 1 {
            x.dims.clone()
        } else {
            sample_shape(&x.dims).to_vec()
        };
        let id = self.shaped(x.id, &shape)?;
        let id = self.dense(call, id, &weight, bias.as_ref())?;
        if dims.is_empty() {
            dims.push(1);
        }
        self.value(id, dims)
    }

    /// The constant of the addition that is the only reader of this node's product, if it is a
    /// bias.
    fn take_bias(
        &mut self,
        index: usize,
        call: Call<'a>,
        outputs: usize,
        rank: usize,
    ) -> Result<Option<Tensor>> {
        let product = call.node.output[0].as_str();
        let Some(&[reader]) = self.readers.get(product).map(Vec::as_slice) else {
            return Ok(None);
        };
        let Some(add) = self
            .graph
            .node
            .get(reader)
            .filter(|node| node.op_type == "Add" && reader > index)
        else {
            return Ok(None);
        };
        let other = add.input.iter().find(|name| *name != product);
        if let Some(name) = other {
            self.fetch(name)?;
        }
        match other.and_then(|name| self.values.get(name.as_str())) {
            Some(Value::Constant(c)) if is_bias(c, outputs) && c.dims.len() <= rank => {
                let bias = c.clone();
                self.taken.insert(reader);
                self.aliases.insert(product, &add.output[0]);
                Ok(Some(bias))
            }
            _ => Ok(None),
        }
    }

    /// `W x`: a dense layer along the last axis but one.
    fn matmul_left(&mut self, call: Call<'a>, w: &Tensor, x: Activation) -> Result<Value> {
        let extra = w.dims.len().saturating_sub(2);
        let [rows, columns] = match w.dims[extra..] {
            [rows, columns] => [rows, columns],
            [columns] => [1, columns],
            _ => return Err(call.error("its constant is a scalar, where a matrix is needed")),
        };
        let vector = x.dims.len() == 1;
        let dims = if vector {
            vec![x.dims[0], 1]
        } else {
            x.dims.clone()
        };
        let (leading, tail) = dims.split_at(dims.len() - 2);
        let (inputs, n) = (tail[0], tail[1]);
        self.check_inputs(call, columns, inputs)?;
        let count: usize = leading.iter().product();
        let id = match vector {
            true => x.id,
            false => self.swapped(x.id, [count, inputs, n])?,
        };
        let id = self.dense(call, id, &w.reshaped(vec![rows, columns]), None)?;
        let id = match vector {
            true => id,
            false => self.swapped(id, [count, n, rows])?,
        };
        let mut dims = vec![1; extra.saturating_sub(leading.len())];
        dims.extend(leading);
        if w.dims.len() > 1 {
            dims.push(rows);
        }
        if !vector {
            dims.push(n);
        }
        if dims.is_empty() {
            dims.push(1);
        }
        self.value(id, dims)
    }

    pub(super) fn batch_norm(&mut self, call: Call<'a>) -> Result<Value> {
        // Before there was an attribute for it, the outputs of statistics told of training.
        let statistics = call.node.output.iter().skip(1).any(|name| !name.is_empty());
        let training = match self.opset {
            ..7 => !call.flag("is_test", false)?,
            7..14 => statistics,
            _ => call.flag("training_mode", false)?,
        };
        if training || !call.flag("spatial", true)? {
            return Err(call.error(
                "it normalises by statistics of the batch or of each place; export the model in evaluation mode",
            ));
        }
        let x = self.activation(call, 0)?;
        if x.dims.len() < 2 {
            return Err(call.error("its input has no axis of channels"));
        }
        let axis = 1 - usize::from(x.dims[0] == 1);
        let [scale, shift, mean, variance] = [1, 2, 3, 4].map(|place| self.constant(call, place));
        let (scale, shift, mean, variance) = (scale?, shift?, mean?, variance?);
        let epsilon = call.float("epsilon", 1e-5)?;
        let lengths = [&scale, &shift, &mean, &variance].map(|array| array.len());
        if lengths.iter().any(|&n| n != lengths[0]) {
            return Err(call.error(format!("its constants have {lengths:?} entries")));
        }
        let vector = |tensor: &Tensor| -> Result<Array1<f64>> {
            Ok(Array1::from(self.numbers(call, tensor)?.to_vec()))
        };
        let norm = BatchNorm {
            scale: vector(&scale)?,
            shift: vector(&shift)?,
            mean: vector(&mean)?,
            variance: vector(&variance)?,
            epsilon,
        };
        self.normalised(call, &norm, [scale, shift, mean, variance])?;
        let id = self.builder.batch_norm(x.id, axis, norm)?;
        self.value(id, x.dims)
    }

    /// Records how scale and shift, as parameters of the network, come from the file. Its
    /// statistics count as parts of them: the map is `a x + b − a m` with `a = s/√(v + ε)`, so that
    /// `∂m = −a ∂b` and `∂v = −s/(2(v + ε)) ∂s`.
    fn normalised(&mut self, call: Call, norm: &BatchNorm<f64>, arrays: [Tensor; 4]) -> Result<()> {
        let [scale, shift, mean, variance] = arrays;
        let inverse = norm.variance.mapv(|v| 1.0 / (v + norm.epsilon).sqrt());
        let by_mean = -&norm.scale * &inverse;
        let by_variance = &norm.scale * &inverse * &inverse * -0.5;
        let parts = [(scale, variance, by_variance), (shift, mean, by_mean)];
        for (own, statistic, rates) in parts {
            let mut terms: Vec<Term> = Vec::new();
            terms.extend(own.formula.map(|of| Term::picked(of, None)));
            if let Some(of) = statistic.formula {
                terms.extend(self.rated(call, of, [None, None], rates.to_vec()));
            }
            let formula = self.formulas.sum(own.len(), terms);
            self.weights.push(formula);
        }
        Ok(())
    }
}

fn both_depend() -> &'static str {
    "it multiplies values that both depend on the input, which is not piecewise linear"
}

fn tensor_axes(call: Call, tensor: &Tensor) -> Result<[usize; 2]> {
    match tensor.dims[..] {
        [rows, columns] => Ok([rows, columns]),
        _ => Err(call.error(format!(
            "its constant has dimensions {:?}, but a matrix is needed",
            tensor.dims
        ))),
    }
}

/// Whether a constant adds the same vector to every row of `outputs` entries.
fn is_bias(tensor: &Tensor, outputs: usize) -> bool {
    let last = last_axis(tensor);
    last.iter().product::<usize>() == tensor.len() && matches!(last[..], [] | [1])
        || last == [outputs] && tensor.len() == outputs
}

/// The last axis of a constant, if it has one.
fn last_axis(tensor: &Tensor) -> Vec<usize> {
    tensor.dims.last().copied().into_iter().collect()
}
