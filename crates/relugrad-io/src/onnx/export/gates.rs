//! Gates as ONNX's operators.

use relugrad::{Gate, Node, Scalar};

use super::writer::{Writer, float, too_large, unwritable};
use crate::error::Result;

impl<T: Scalar> Writer<'_, T> {
    pub(super) fn gate(&mut self, node: &Node, x: &str, gate: Gate) -> Result<()> {
        match gate {
            Gate::Relu => self.call("Relu", &[x], node.name(), Vec::new()),
            Gate::Abs => self.call("Abs", &[x], node.name(), Vec::new()),
            Gate::LeakyRelu { slope } => self.leaky_relu(node, x, slope)?,
            Gate::PRelu { .. } => {
                let slopes = self.parameters(node);
                self.with(x, &slopes, "PRelu", node.name(), Vec::new());
            }
            Gate::Clip { min, max } => self.clip(node, x, min, max)?,
        }
        Ok(())
    }

    /// The slope of LeakyRelu is an attribute in `f32`, so another one is that of a PRelu.
    fn leaky_relu(&mut self, node: &Node, x: &str, slope: f64) -> Result<()> {
        let (rounded, alpha) = (T::from_f64(slope), slope as f32);
        if !rounded.is_finite() {
            return Err(too_large::<T>(node, "slope", slope));
        }
        if f64::from(alpha) == rounded.into_f64() {
            self.call("LeakyRelu", &[x], node.name(), vec![float("alpha", alpha)]);
        } else {
            let slopes = self.numbers(node, "slope", &[1], &[slope])?;
            self.with(x, &[slopes], "PRelu", node.name(), Vec::new());
        }
        Ok(())
    }

    /// A bound beyond all numbers of the network's precision is none.
    fn clip(&mut self, node: &Node, x: &str, min: f64, max: f64) -> Result<()> {
        if T::from_f64(min) >= T::from_f64(max) {
            let problem = format!(
                "its bounds {min:e} and {max:e} are no longer two in {}; write it in f64",
                T::NAME
            );
            return Err(unwritable(node, problem));
        }
        let mut inputs = vec![x.to_owned()];
        for (bound, name) in [(min, "min"), (max, "max")] {
            let finite = T::from_f64(bound).is_finite();
            let tensor = finite.then(|| self.numbers(node, name, &[], &[bound]));
            inputs.push(tensor.transpose()?.unwrap_or_default());
        }
        while inputs.last().is_some_and(String::is_empty) {
            inputs.pop();
        }
        self.call("Clip", &inputs, node.name(), Vec::new());
        Ok(())
    }
}
