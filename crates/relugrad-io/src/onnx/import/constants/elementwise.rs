//! Functions of single entries of constants: casts, arithmetic, comparisons.

use super::functions::{binary, comparison, logic, step, unary, whole};
use super::{not_together, wrong_type};
use crate::error::Result;
use crate::formula::{Formula, Places};
use crate::onnx::attributes::Call;
use crate::onnx::element::{Element, type_name};
use crate::onnx::import::Importer;
use crate::onnx::tensor::{Numbers, Tensor};
use crate::onnx::values::{Value, broadcast, broadcast_places};

/// For each entry of a result, the entries of both inputs that it is made of.
struct Pairs {
    dims: Vec<usize>,
    places: [Places; 2],
    count: usize,
}

impl Pairs {
    /// A function of the entries of both.
    fn map<A: Copy, B: Copy, V>(&self, a: &[A], b: &[B], f: impl FnMut(A, B) -> V) -> Vec<V> {
        let mut f = f;
        let at = |places: &Places, e: usize| places.as_ref().map_or(e, |table| table[e] as usize);
        let pair = |e| f(a[at(&self.places[0], e)], b[at(&self.places[1], e)]);
        (0..self.count).map(pair).collect()
    }
}

impl<'a> Importer<'a> {
    /// An operator that works entry by entry, or an error that names it.
    pub(super) fn elementwise(&mut self, call: Call, x: &Tensor) -> Result<Tensor> {
        let operator = call.operator();
        if unary(operator).is_some() || step(operator).is_some() || operator == "Not" {
            return self.one(call, x);
        }
        let known = binary(operator).is_some()
            || comparison::<f64>(operator).is_some()
            || logic(operator).is_some();
        if !known {
            return Err(call.error(
                "all of its inputs are constant, and it cannot be computed in advance; simplify the model when exporting",
            ));
        }
        let other = self.constant(call, 1)?;
        self.two(call, operator, x, &other)
    }

    fn one(&mut self, call: Call, x: &Tensor) -> Result<Tensor> {
        let operator = call.operator();
        let element = x.element;
        if let Numbers::Real(values) = &x.numbers {
            if let Some((value, rate)) = unary(operator) {
                return self.map_real(call, x, value, rate);
            }
            let value = step(operator).ok_or_else(|| wrong_type(call, element))?;
            self.reserve(call, &x.dims)?;
            self.stepped(call, x);
            let values = values.iter().map(|&v| value(v));
            return Ok(Tensor::real(element, x.dims.clone(), values));
        }
        let value: fn(i128) -> i128 = match operator {
            "Not" if element == Element::Bool => |v| 1 - v,
            "Neg" if element.is_signed() => |v| -v,
            "Abs" if element != Element::Bool => i128::abs,
            "Sign" if element != Element::Bool => i128::signum,
            "Relu" if element.is_signed() => |v| v.max(0),
            _ => return Err(wrong_type(call, element)),
        };
        self.reserve(call, &x.dims)?;
        let values = self.wholes(x).into_iter().map(value);
        Ok(Tensor::whole(element, x.dims.clone(), values))
    }

    /// A function of floating numbers with its derivative from a number and its value.
    pub(super) fn map_real(
        &mut self,
        call: Call,
        x: &Tensor,
        value: impl Fn(f64) -> f64,
        rate: impl Fn(f64, f64) -> f64,
    ) -> Result<Tensor> {
        let Some(values) = x.reals() else {
            return Err(wrong_type(call, x.element));
        };
        self.reserve(call, &x.dims)?;
        let result = Tensor::real(x.element, x.dims.clone(), values.iter().map(|&v| value(v)));
        let Some(of) = x.formula else {
            return Ok(result);
        };
        let rates = values.iter().map(|&v| rate(v, value(v))).collect();
        let terms = self.rated(call, of, [None, None], rates);
        Ok(self.with_terms(result, terms))
    }

    /// The whole numbers of a constant, none of a floating one.
    pub(super) fn wholes(&self, x: &Tensor) -> Vec<i128> {
        match &x.numbers {
            Numbers::Whole(values) => values.iter().map(|&v| x.element.whole(v)).collect(),
            Numbers::Real(_) => Vec::new(),
        }
    }

    /// Records that a result does not change with a constant but in steps.
    pub(super) fn stepped(&mut self, call: Call, x: &Tensor) {
        if let Some(formula) = x.formula {
            let reason = format!(
                "node `{}` ({}) makes steps of it, between which nothing changes",
                call.name(),
                call.operator()
            );
            self.steps.push((formula, reason));
        }
    }

    pub(super) fn cast_like(&mut self, call: Call, x: &Tensor) -> Result<Tensor> {
        match self.input(call, 1)? {
            Value::Constant(like) => self.cast_to(call, x, like.element),
            Value::Node(_) => self.cast_to(call, x, self.element),
        }
    }

    pub(super) fn cast(&mut self, call: Call, x: &Tensor, to: i64) -> Result<Tensor> {
        match Element::of(to) {
            Some(element) => self.cast_to(call, x, element),
            None => {
                let name = i32::try_from(to).map_or_else(|_| to.to_string(), type_name);
                Err(call.error(format!("it turns constants to {name}, which are not read")))
            }
        }
    }

    pub(super) fn cast_to(&mut self, call: Call, x: &Tensor, to: Element) -> Result<Tensor> {
        if to == x.element {
            return Ok(x.clone());
        }
        self.reserve(call, &x.dims)?;
        let dims = x.dims.clone();
        let Numbers::Real(values) = &x.numbers else {
            let values = self.wholes(x).into_iter();
            let mut result = if to == Element::Float {
                Tensor::real(to, dims, values.map(|v| f64::from(v as f32)))
            } else if to.is_real() {
                Tensor::real(to, dims, values.map(|v| v as f64))
            } else {
                Tensor::whole(to, dims, values)
            };
            // A weight kept in whole numbers has the gradient of the real number that it is made.
            if to.is_real() {
                let whole = |formula: &Formula| self.formulas.is_whole(*formula);
                match x.formula.filter(whole) {
                    Some(_) => self.stepped(call, x),
                    None => result.formula = x.formula,
                }
            }
            return Ok(result);
        };
        if to.is_real() {
            let mut result = Tensor::real(to, dims, values.iter().copied());
            result.formula = x.formula;
            return Ok(result);
        }
        self.stepped(call, x);
        if to == Element::Bool {
            let values = values.iter().map(|&v| i128::from(v != 0.0));
            return Ok(Tensor::whole(to, dims, values));
        }
        let (least, largest) = to.range();
        let mut wholes = Vec::new();
        for &v in values.iter() {
            let whole = v.trunc();
            if !(whole >= least as f64 && whole < largest as f64 + 1.0) {
                return Err(call.error(format!(
                    "it turns {v} to {}, to whose range it does not belong",
                    to.name()
                )));
            }
            wholes.push(whole as i128);
        }
        Ok(Tensor::whole(to, dims, wholes))
    }

    /// DequantizeLinear, `(x − zero point) · scale` with one of each or one for each entry of an
    /// axis.
    pub(super) fn dequantized(&mut self, call: Call, x: &Tensor) -> Result<Tensor> {
        if call.integer("block_size", 0)? != 0 {
            return Err(call.error("it has scales for blocks, which are not read"));
        }
        let scale = self.constant(call, 1)?;
        let element = scale.element;
        let mut along = vec![1; x.dims.len()];
        let dims = match scale.len() {
            1 => Vec::new(),
            n => {
                let at = self.axis(call, call.integer("axis", 1)?, x.dims.len())?;
                along[at] = n;
                along
            }
        };
        let mut number = self.cast_to(call, x, element)?;
        if let Some(zero) = self.optional_constant(call, 2)? {
            if zero.len() != scale.len() {
                return Err(not_together(call, &scale.dims, &zero.dims));
            }
            let zero = self.cast_to(call, &zero.reshaped(dims.clone()), element)?;
            number = self.two(call, "Sub", &number, &zero)?;
        }
        let result = self.two(call, "Mul", &number, &scale.reshaped(dims))?;
        match result.dims == x.dims {
            true => Ok(result),
            false => Err(not_together(call, &x.dims, &scale.dims)),
        }
    }

    /// How the entries of two constants meet.
    fn pairs(&self, call: Call, a: &Tensor, b: &Tensor) -> Result<Pairs> {
        let dims = broadcast(&a.dims, &b.dims);
        let dims = dims.ok_or_else(|| not_together(call, &a.dims, &b.dims))?;
        let count = self.reserve(call, &dims)?;
        let places = [a, b].map(|x| match x.len() == count {
            true => None,
            false => Some(broadcast_places(&x.dims, &dims).into()),
        });
        Ok(Pairs {
            dims,
            places,
            count,
        })
    }

    /// Sum, Max, Min and Mean of any number of constants.
    pub(super) fn many(&mut self, call: Call, inputs: &[Tensor]) -> Result<Tensor> {
        let Some((first, rest)) = inputs.split_first() else {
            return Err(call.error("it has no inputs"));
        };
        let mut result = first.clone();
        for other in rest {
            result = self.two(call, call.operator(), &result, other)?;
        }
        if call.operator() == "Mean" {
            let share = 1.0 / inputs.len() as f64;
            let n = inputs.len() as f64;
            return self.map_real(call, &result, |v| v / n, |_, _| share);
        }
        Ok(result)
    }

    /// A function of the entries of two constants.
    pub(super) fn two(
        &mut self,
        call: Call,
        operator: &str,
        a: &Tensor,
        b: &Tensor,
    ) -> Result<Tensor> {
        let power = operator == "Pow" && (a.element.is_real() || !b.element.is_real());
        if a.element != b.element && !power {
            return Err(call.error(format!(
                "its constants are of types {} and {}, which it does not mix",
                a.element.name(),
                b.element.name()
            )));
        }
        let pairs = self.pairs(call, a, b)?;
        if let Numbers::Real(left) = &a.numbers {
            let exponents: Vec<f64>;
            let right = match &b.numbers {
                Numbers::Real(right) => &right[..],
                Numbers::Whole(_) => {
                    exponents = self.wholes(b).iter().map(|&v| v as f64).collect();
                    &exponents
                }
            };
            if let Some(compare) = comparison::<f64>(operator) {
                self.stepped(call, a);
                self.stepped(call, b);
                let values = pairs.map(left, right, |a, b| i128::from(compare(&a, &b)));
                return Ok(Tensor::whole(Element::Bool, pairs.dims, values));
            }
            if operator == "Mod" && !call.flag("fmod", false)? {
                return Err(wrong_type(call, a.element));
            }
            return self.two_reals(call, operator, [a, b], [left, right], pairs);
        }
        self.two_wholes(call, operator, [a, b], pairs)
    }

    fn two_reals(
        &mut self,
        call: Call,
        operator: &str,
        inputs: [&Tensor; 2],
        [left, right]: [&[f64]; 2],
        pairs: Pairs,
    ) -> Result<Tensor> {
        let [a, _] = inputs;
        let (value, rates) = binary(operator).ok_or_else(|| wrong_type(call, a.element))?;
        let values = pairs.map(left, right, value);
        let result = Tensor::real(a.element, pairs.dims.clone(), values);
        let mut terms = Vec::new();
        for (side, input) in inputs.iter().enumerate() {
            let Some(of) = input.formula else { continue };
            self.visit(call, &result)?;
            let rates = pairs.map(left, right, |a, b| rates(a, b)[side]);
            terms.extend(self.rated(call, of, [pairs.places[side].clone(), None], rates));
        }
        Ok(self.with_terms(result, terms))
    }

    fn two_wholes(
        &self,
        call: Call,
        operator: &str,
        [a, b]: [&Tensor; 2],
        pairs: Pairs,
    ) -> Result<Tensor> {
        let element = a.element;
        let (left, right) = (self.wholes(a), self.wholes(b));
        if element == Element::Bool {
            let value = logic(operator).ok_or_else(|| wrong_type(call, element))?;
            let values = pairs.map(&left, &right, |a, b| i128::from(value(a != 0, b != 0)));
            return Ok(Tensor::whole(element, pairs.dims, values));
        }
        if let Some(compare) = comparison::<i128>(operator) {
            let values = pairs.map(&left, &right, |a, b| i128::from(compare(&a, &b)));
            return Ok(Tensor::whole(Element::Bool, pairs.dims, values));
        }
        let floored = operator == "Mod" && !call.flag("fmod", false)?;
        let value = whole(operator, floored).ok_or_else(|| wrong_type(call, element))?;
        let mut problem = None;
        let values = pairs.map(&left, &right, |a, b| {
            value(a, b).unwrap_or_else(|text| {
                problem = Some(text);
                0
            })
        });
        match problem {
            Some(problem) => Err(call.error(problem)),
            None => Ok(Tensor::whole(element, pairs.dims, values)),
        }
    }

    /// Clip of a constant: the larger of it and the lower bound, and the smaller of that and the
    /// upper bound.
    pub(super) fn clipped(&mut self, call: Call, x: &Tensor) -> Result<Tensor> {
        let mut x = x.clone();
        for (bound, operator) in self.bounds(call)?.into_iter().zip(["Max", "Min"]) {
            let Some(bound) = bound else { continue };
            let bound = match self.opset < 11 {
                true => self.cast_to(call, &bound, x.element)?,
                false => bound,
            };
            if bound.len() != 1 {
                return Err(call.error("a bound of it is no scalar"));
            }
            let bound = bound.reshaped(Vec::new());
            x = self.two(call, operator, &x, &bound)?;
        }
        Ok(x)
    }
}
