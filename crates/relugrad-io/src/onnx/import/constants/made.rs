//! Constants that a node makes itself.

use crate::error::Result;
use crate::formula::Places;
use crate::onnx::attributes::Call;
use crate::onnx::element::Element;
use crate::onnx::import::Importer;
use crate::onnx::tensor::{Tensor, decode};

impl<'a> Importer<'a> {
    /// What a Constant node holds. Numbers are an array of the file, called as its output.
    pub(super) fn literal(&mut self, call: Call) -> Result<Tensor> {
        let mut tensor = self.held(call)?;
        let name = call.node.output.first();
        if let Some(name) = name
            && tensor.element != Element::Bool
        {
            tensor.formula = Some(self.formulas.array(name, &tensor.dims));
        }
        Ok(tensor)
    }

    fn held(&self, call: Call) -> Result<Tensor> {
        let wide = |v: &f32| f64::from(*v);
        if let Some(proto) = call.tensor("value")? {
            return decode(proto, self.budget, self.external);
        }
        if let Some(values) = call.floats("value_floats")? {
            let values = values.iter().map(wide);
            return Ok(Tensor::real(Element::Float, vec![values.len()], values));
        }
        if let Some(values) = call.integers("value_ints")? {
            let values = values.iter().map(|&v| v.into());
            return Ok(Tensor::whole(Element::Int64, vec![values.len()], values));
        }
        if call.has("value_float") {
            let value = call.float("value_float", 0.0)?;
            return Ok(Tensor::real(Element::Float, Vec::new(), [value]));
        }
        if call.has("value_int") {
            let value = call.integer("value_int", 0)?;
            return Ok(Tensor::whole(Element::Int64, Vec::new(), [value.into()]));
        }
        Err(call.error("its constant is a string or sparse; only dense numbers are read"))
    }

    pub(super) fn shape_of(&self, call: Call) -> Result<Tensor> {
        let value = self.input(call, 0)?;
        let dims = value.dims();
        let rank = dims.len() as i64;
        let bound = |name: &str, default: i64| -> Result<usize> {
            let i = call.integer(name, default)?;
            let i = if i < 0 { i.saturating_add(rank) } else { i };
            Ok(i.clamp(0, rank) as usize)
        };
        let part = bound("start", 0)?..bound("end", rank)?;
        Ok(Tensor::lengths(dims.get(part).unwrap_or_default()))
    }

    pub(super) fn size_of(&self, call: Call) -> Result<Tensor> {
        let count: usize = self.input(call, 0)?.dims().iter().product();
        Ok(Tensor::lengths(&[count]).reshaped(Vec::new()))
    }

    /// ConstantOfShape.
    pub(super) fn filled(&mut self, call: Call) -> Result<Tensor> {
        let value = match call.tensor("value")? {
            Some(proto) => decode(proto, self.budget, self.external)?,
            None => Tensor::real(Element::Float, Vec::new(), [0.0]),
        };
        if value.len() != 1 {
            return Err(call.error("its value is no scalar"));
        }
        let dims = self.lengths(call, 0)?;
        self.rearranged(call, &value, &dims, |count| vec![0; count])
    }

    /// Range: `start + i · delta` before `limit`.
    pub(super) fn range(&mut self, call: Call) -> Result<Tensor> {
        let ends = [0, 1, 2].map(|place| self.constant(call, place));
        let [start, limit, delta] = ends;
        let (start, limit, delta) = (start?, limit?, delta?);
        let element = start.element;
        if [&start, &limit, &delta]
            .iter()
            .any(|t| t.len() != 1 || t.element != element)
        {
            return Err(call.error("its start, limit and delta are no scalars of one type"));
        }
        if let (Some(first), Some(limit), Some(step)) =
            (start.scalar(), limit.scalar(), delta.scalar())
        {
            let count = ((limit - first) / step).ceil();
            if !count.is_finite() {
                return Err(call.error("its delta is 0, or an end of it is not finite"));
            }
            let count = self.reserve(call, &[count.max(0.0) as usize])?;
            let range = (0..count).map(|i| first + i as f64 * step);
            let range = Tensor::real(element, vec![count], range);
            return self.range_terms(call, range, &start, &delta);
        }
        let [first, limit, step] = [&start, &limit, &delta].map(|t| self.wholes(t)[0]);
        if step == 0 || element == Element::Bool {
            return Err(call.error("its delta is 0 or a truth value"));
        }
        let length = (limit - first) * step.signum();
        let count = usize::try_from(length.max(0) as u128).unwrap_or(usize::MAX);
        let count = count.div_ceil(usize::try_from(step.unsigned_abs()).unwrap_or(usize::MAX));
        let count = self.reserve(call, &[count])?;
        let range = (0..count as i128).map(|i| first + i * step);
        Ok(Tensor::whole(element, vec![count], range))
    }

    fn range_terms(
        &mut self,
        call: Call,
        range: Tensor,
        start: &Tensor,
        delta: &Tensor,
    ) -> Result<Tensor> {
        let mut terms = Vec::new();
        for (end, rate) in [(start, 0.0), (delta, 1.0)] {
            let Some(of) = end.formula else { continue };
            self.visit(call, &range)?;
            let one: Places = Some(vec![0; range.len()].into());
            let rate = |i| if rate == 0.0 { 1.0 } else { i as f64 };
            let rates = (0..range.len()).map(rate).collect();
            terms.extend(self.rated(call, of, [one, None], rates));
        }
        Ok(self.with_terms(range, terms))
    }
}
