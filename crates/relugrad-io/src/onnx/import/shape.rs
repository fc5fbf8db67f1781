//! Operators that move values to other places and dimensions.

use crate::error::Result;
use crate::onnx::attributes::Call;
use crate::onnx::element::{Element, type_name};
use crate::onnx::import::{First, Importer};
use crate::onnx::tensor::{MOST_AXES, Tensor};
use crate::onnx::values::{Value, axis, broadcast};

const AT_RANDOM: &str = "it drops units at random; export the model in evaluation mode";

impl<'a> Importer<'a> {
    pub(super) fn identity(&mut self, call: Call<'a>) -> Result<Value> {
        let value = self.input(call, 0)?;
        match call.operator() {
            "Dropout" => self.check_evaluation(call)?,
            "CastLike" => {
                self.activation(call, 0)?;
                if let Value::Constant(like) = self.input(call, 1)?
                    && !matches!(like.element, Element::Float | Element::Double)
                {
                    let name = like.element.name();
                    return Err(call.error(format!("it rounds values to {name}")));
                }
            }
            "Cast" => {
                let to = self.cast_type(call)?;
                if !matches!(to, 1 | 11) {
                    let name = i32::try_from(to).map_or_else(|_| to.to_string(), type_name);
                    return Err(call.error(format!("it rounds values to {name}")));
                }
            }
            _ => {}
        }
        Ok(value)
    }

    /// A Dropout must be one of evaluation, which changes nothing.
    pub(super) fn check_evaluation(&self, call: Call) -> Result<()> {
        if self.opset < 7 && !call.flag("is_test", false)? {
            return Err(call.error(AT_RANDOM));
        }
        let off = |t: &Tensor| t.indices().is_some_and(|v| v.iter().all(|&v| v == 0));
        match self.optional_constant(call, 2)? {
            Some(training) if !off(&training) => Err(call.error(AT_RANDOM)),
            _ => Ok(()),
        }
    }

    /// Different axes of a value of `rank` axes, in order.
    pub(super) fn distinct_axes(
        &self,
        call: Call,
        axes: &[i64],
        rank: usize,
    ) -> Result<Vec<usize>> {
        let found: Result<Vec<usize>> = axes.iter().map(|&a| self.axis(call, a, rank)).collect();
        let mut found = found?;
        found.sort_unstable();
        if found.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(call.error(format!("its axes {axes:?} repeat")));
        }
        Ok(found)
    }

    /// An axis of a value of `rank` axes.
    pub(super) fn axis(&self, call: Call, value: i64, rank: usize) -> Result<usize> {
        axis(value, rank).ok_or_else(|| call.error(format!("it has no axis {value} among {rank}")))
    }

    /// The axes in an attribute of old versions or an input of new ones.
    fn axes(&self, call: Call, place: usize) -> Result<Option<Vec<i64>>> {
        match call.integers("axes")? {
            Some(axes) => Ok(Some(axes.to_vec())),
            None => self.optional_integers(call, place),
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
                    let axes = self.distinct_axes(call, &axes, dims.len())?;
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
                let axes = self.axes(call, 1)?;
                let axes = axes.ok_or_else(|| call.error("it has no axes"))?;
                let rank = dims.len() + axes.len();
                if rank > MOST_AXES {
                    return Err(call.error(format!("it gives {rank} axes")));
                }
                let mut new = dims.to_vec();
                for axis in self.distinct_axes(call, &axes, rank)? {
                    new.insert(axis, 1);
                }
                Ok(new)
            }
            _ => self.reshaped_dims(call, dims),
        }
    }

    /// Reshape: −1 stands for what is left, 0 for the dimension that was there.
    fn reshaped_dims(&self, call: Call, dims: &[usize]) -> Result<Vec<usize>> {
        let target = match call.integers("shape")? {
            Some(shape) => shape.to_vec(),
            None => self.whole_numbers(call, &self.constant(call, 1)?)?,
        };
        let target = self.of_batch(target, dims);
        let keep_zero = call.flag("allowzero", false)?;
        let total: usize = dims.iter().product();
        let bad = || call.error(format!("it cannot reshape {dims:?} to {target:?}"));
        if target.len() > MOST_AXES {
            return Err(call.error(format!("it gives {} axes", target.len())));
        }
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

    /// Dimensions that begin with the length of a fixed batch as those of the batch that is read.
    fn of_batch(&self, mut target: Vec<i64>, dims: &[usize]) -> Vec<i64> {
        if let (Some(length), First::Batch(samples)) = (self.fixed_batch, self.first)
            && dims.first() == Some(&samples)
            && target.first() == Some(&(length as i64))
        {
            target[0] = samples as i64;
        }
        target
    }

    pub(super) fn order(&self, call: Call, rank: usize) -> Result<Vec<usize>> {
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

    pub(super) fn expand(&mut self, call: Call<'a>) -> Result<Value> {
        let x = self.activation(call, 0)?;
        let dims = broadcast(&x.dims, &self.lengths(call, 1)?);
        let dims = dims.ok_or_else(|| call.error(format!("it cannot expand {:?} so", x.dims)))?;
        let id = self.broadcast(call, x, &dims)?;
        self.value(id, dims)
    }
}
