//! Operators on constants, which are folded: shapes that a graph computes, weights that it
//! rearranges and combines.
//!
//! Numbers are rounded and wrapped to their types as the standard says. Sums and products of
//! floating numbers are taken in `f64` and rounded once. What a constant owes to arrays of the file
//! is recorded as a [`Formula`](crate::formula::Formula).

mod elementwise;
mod functions;
mod made;
mod moves;
mod placed;
mod products;
mod reductions;

pub(super) use moves::Part;

use crate::error::{Error, Result};
use crate::formula::{Formula, Places, Rates, Rule, Term};
use crate::onnx::attributes::Call;
use crate::onnx::element::Element;
use crate::onnx::import::Importer;
use crate::onnx::tensor::{MOST_AXES, Tensor};
use crate::onnx::values::Value;

/// What an entry of a constant takes while it is made: its number, its place in a table, and the
/// like.
const ENTRY: usize = 24;

impl<'a> Importer<'a> {
    /// The values of an operator that does not depend on the input, or `None` if it does.
    pub(super) fn fold(&mut self, call: Call<'a>) -> Result<Option<Vec<Value>>> {
        let folded = match call.operator() {
            "Constant" => vec![self.literal(call)?],
            "Shape" => vec![self.shape_of(call)?],
            "Size" => vec![self.size_of(call)?],
            "CastLike" => match self.input(call, 0)? {
                Value::Constant(x) => vec![self.cast_like(call, &x)?],
                Value::Node(_) => return Ok(None),
            },
            _ => match self.all_constants(call)? {
                Some(inputs) => self.folded(call, &inputs)?,
                None => return Ok(None),
            },
        };
        Ok(Some(folded.into_iter().map(Value::Constant).collect()))
    }

    /// The inputs that are there, or `None` if one of them depends on the network's input.
    fn all_constants(&self, call: Call) -> Result<Option<Vec<Tensor>>> {
        let mut constants = Vec::new();
        for place in 0..call.node.input.len() {
            match self.optional(call, place)? {
                Some(Value::Constant(tensor)) => constants.push(tensor),
                Some(Value::Node(_)) => return Ok(None),
                None => {}
            }
        }
        Ok(Some(constants))
    }

    fn folded(&mut self, call: Call<'a>, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        if call.node.input.is_empty() {
            return Err(call.error("it has no inputs"));
        }
        let x = self.constant(call, 0)?;
        let one = match call.operator() {
            "Identity" => x,
            "Dropout" => {
                self.check_evaluation(call)?;
                x
            }
            "Cast" => {
                let to = self.cast_type(call)?;
                self.cast(call, &x, to)?
            }
            "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => {
                let dims = self.new_dims(call, &x.dims)?;
                self.same_entries(call, &x, dims)?
            }
            "Split" => return self.split_constant(call, &x),
            "Transpose" => self.transposed_constant(call, &x)?,
            "Slice" => self.sliced_constant(call, &x)?,
            "Gather" => self.gathered_constant(call, &x)?,
            "GatherElements" => self.gathered_elements(call, &x)?,
            "Concat" => self.joined(call, inputs)?,
            "Expand" => self.expanded_constant(call, &x)?,
            "Tile" => self.tiled_constant(call, &x)?,
            "Pad" => self.padded_constant(call, &x)?,
            "Where" => self.chosen(call)?,
            "ConstantOfShape" => self.filled(call)?,
            "CumSum" => self.running_sum(call, &x)?,
            "EyeLike" => self.eye(call, &x)?,
            "GatherND" => self.gathered_blocks(call, &x)?,
            "IsInf" | "IsNaN" => self.classified(call, &x)?,
            "NonZero" => self.nonzero(call, &x)?,
            "OneHot" => self.one_hot(call, &x)?,
            "ScatterND" => self.scattered_blocks(call, &x)?,
            "Trilu" => self.triangle(call, &x)?,
            "DequantizeLinear" => self.dequantized(call, &x)?,
            "Range" => self.range(call)?,
            "Clip" => self.clipped(call, &x)?,
            "ArgMax" | "ArgMin" => self.winners(call, &x)?,
            "MatMul" => {
                let other = self.constant(call, 1)?;
                self.product(call, &x, &other)?
            }
            "Gemm" => self.gemm_constant(call)?,
            "Sum" | "Max" | "Min" | "Mean" => self.many(call, inputs)?,
            operator if operator.starts_with("Reduce") => self.reduced_constant(call, &x)?,
            _ => self.elementwise(call, &x)?,
        };
        Ok(vec![self.computed_from(call, inputs, one)])
    }

    /// Whole numbers that are computed, and not only moved, remember what they are computed from.
    fn computed_from(&mut self, call: Call, inputs: &[Tensor], mut result: Tensor) -> Tensor {
        let moves = [
            "Identity",
            "Dropout",
            "Reshape",
            "Flatten",
            "Squeeze",
            "Unsqueeze",
            "Transpose",
            "Slice",
            "Gather",
            "GatherElements",
            "GatherND",
            "ScatterND",
            "Trilu",
            "Concat",
            "Expand",
            "Tile",
            "Pad",
            "Where",
        ];
        if result.reals().is_none() && !moves.contains(&call.operator()) {
            let whole = inputs.iter().filter(|input| input.reals().is_none());
            let terms = whole.filter_map(|input| input.formula).map(|of| Term {
                of,
                rule: Rule::Whole,
            });
            result.formula = self.formulas.sum(result.len(), terms.collect());
        }
        result
    }

    /// Pays for a constant of these dimensions, and returns the number of its entries.
    fn reserve(&self, call: Call, dims: &[usize]) -> Result<usize> {
        check_axes(call, dims)?;
        let what = || constant_of(call, dims);
        let count = self.budget.array(dims, ENTRY, what)?;
        match u32::try_from(count) {
            Ok(_) => Ok(count),
            Err(_) => Err(call.error(format!(
                "a constant of dimensions {dims:?} is too large: at most 2^32 entries are computed"
            ))),
        }
    }

    /// Pays for what an operator needs to go through a constant.
    fn visit(&self, call: Call, x: &Tensor) -> Result<()> {
        let bytes = (x.len() * ENTRY) as u64;
        self.budget.take(bytes, || constant_of(call, &x.dims))
    }

    /// The same numbers under dimensions of as many entries.
    fn same_entries(&self, call: Call, x: &Tensor, dims: Vec<usize>) -> Result<Tensor> {
        check_axes(call, &dims)?;
        if x.len() == 0 {
            // Long axes beside an empty one would be gone through later.
            self.reserve(call, &dims)?;
        }
        Ok(x.reshaped(dims))
    }

    /// A constant of entries that change as the terms say.
    fn with_terms(&mut self, mut tensor: Tensor, terms: Vec<Term>) -> Tensor {
        tensor.formula = self.formulas.sum(tensor.len(), terms);
        tensor
    }

    /// The term of a constant whose entries change with those of `of` at these rates.
    pub(super) fn rated(
        &mut self,
        call: Call,
        of: Formula,
        [from, to]: [Places; 2],
        rates: Vec<f64>,
    ) -> Vec<Term> {
        if rates.iter().any(|rate| !rate.is_finite()) {
            self.leave_out(of, call, "does not have a finite derivative there");
            return Vec::new();
        }
        vec![Term::rated(of, from, to, Rates::Each(rates.into()))]
    }

    /// `factor · x` without being rounded.
    pub(super) fn times(&mut self, call: Call, x: &Tensor, factor: f64) -> Result<Tensor> {
        if factor == 1.0 {
            return Ok(x.clone());
        }
        let Some(values) = x.reals() else {
            return Err(wrong_type(call, x.element));
        };
        let values = values.iter().map(|v| factor * v);
        let product = Tensor::real(Element::Double, x.dims.clone(), values);
        let term = |of| Term::rated(of, None, None, Rates::All(factor));
        Ok(self.with_terms(product, x.formula.map(term).into_iter().collect()))
    }

    /// `1/x` without being rounded.
    pub(super) fn reciprocal(&mut self, call: Call, x: &Tensor) -> Result<Tensor> {
        self.map_real(call, &x.exact(), |v| v.recip(), |_, y| -y * y)
    }
}

/// A function is given whole numbers, or floating ones, where it needs the others.
fn wrong_type(call: Call, element: Element) -> Error {
    call.error(format!(
        "its input is constant with numbers of type {}, of which it cannot be computed in advance",
        element.name()
    ))
}

fn not_together(call: Call, a: &[usize], b: &[usize]) -> Error {
    call.error(format!(
        "its constants of dimensions {a:?} and {b:?} do not go together"
    ))
}

fn check_axes(call: Call, dims: &[usize]) -> Result<()> {
    if dims.len() <= MOST_AXES {
        return Ok(());
    }
    Err(call.error(format!(
        "it gives {} axes, and at most {MOST_AXES} are supported",
        dims.len()
    )))
}

fn constant_of(call: Call, dims: &[usize]) -> String {
    call.error(format!("a constant of dimensions {dims:?}"))
        .to_string()
}

/// A table of places, none if it is the identity.
fn table(places: Vec<u32>) -> Places {
    let identity = places.iter().copied().eq(0..places.len() as u32);
    (!identity).then(|| places.into())
}
