//! What operators mean in versions of ONNX before 7, where that is not what they mean now.

use crate::error::Result;
use crate::onnx::attributes::Call;
use crate::onnx::element::Element;
use crate::onnx::import::Importer;
use crate::onnx::values::Value;

/// Operators of two values that say along which axes the second is repeated.
const ALIGNED: [&str; 10] = [
    "Add", "And", "Div", "Equal", "Greater", "Less", "Mul", "Or", "Pow", "Sub",
];

impl<'a> Importer<'a> {
    /// The second value of an operator that lays it along the first from an axis on, under
    /// dimensions with which it is repeated so by itself.
    pub(super) fn aligned(&self, call: Call, place: usize, value: Value) -> Result<Value> {
        if self.opset >= 7 || place != 1 || !ALIGNED.contains(&call.operator()) {
            return Ok(value);
        }
        let first = self.input(call, 0)?;
        let (rank, own) = (first.dims().len(), value.dims().len());
        let misfit = || {
            call.error(format!(
                "its inputs of dimensions {:?} and {:?} do not go together in version {} of ONNX's operators",
                first.dims(),
                value.dims(),
                self.opset
            ))
        };
        if !call.flag("broadcast", false)? {
            return match first.dims() == value.dims() {
                true => Ok(value),
                false => Err(misfit()),
            };
        }
        let start = match call.has("axis") {
            true => self.axis(call, call.integer("axis", 0)?, rank)?,
            false => rank.checked_sub(own).ok_or_else(misfit)?,
        };
        let behind = rank.checked_sub(start + own).ok_or_else(misfit)?;
        match value {
            Value::Constant(c) => {
                let dims = [&c.dims[..], &vec![1; behind]].concat();
                Ok(Value::Constant(c.reshaped(dims)))
            }
            Value::Node(_) if behind == 0 => Ok(value),
            Value::Node(_) => Err(call.error(
                "it repeats a value that depends on the input along last axes; export it with opset 7 or later",
            )),
        }
    }

    /// The type that a Cast turns numbers to, by name up to version 5.
    pub(super) fn cast_type(&self, call: Call) -> Result<i64> {
        if self.opset >= 6 {
            return call.integer("to", 1);
        }
        let name = call.string("to", "FLOAT")?.to_lowercase();
        let known = (0..30).find(|&code| Element::of(code).is_some_and(|e| e.name() == name));
        known.ok_or_else(|| call.error(format!("it turns numbers to `{name}`, which is unknown")))
    }
}
