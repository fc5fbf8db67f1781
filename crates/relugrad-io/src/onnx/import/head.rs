//! What may follow the logits: a final Softmax, LogSoftmax or Sigmoid, which is dropped.

use super::order::makers;
use crate::error::Result;
use crate::onnx::attributes::Call;
use crate::onnx::import::Importer;
use crate::onnx::values::Value;

impl<'a> Importer<'a> {
    /// The last node of the graph, but for nodes that only give its values other dimensions, if it
    /// is one that may be dropped. The graph is known to have no cycle.
    pub(super) fn find_head(&self, output: &'a str) -> Result<Option<usize>> {
        let nodes = &self.graph.node;
        let makers = makers(nodes)?;
        let mut name = output;
        while let Some(&i) = makers.get(name) {
            match nodes[i].op_type.as_str() {
                "Softmax" | "LogSoftmax" | "Sigmoid" => return Ok(Some(i)),
                "Identity" | "Dropout" | "Cast" | "Flatten" | "Reshape" | "Squeeze"
                | "Unsqueeze" | "Transpose" => match nodes[i].input.first() {
                    Some(first) => name = first,
                    None => return Ok(None),
                },
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    /// The logits, which the final node takes.
    pub(super) fn without_head(&mut self, call: Call<'a>) -> Result<Value> {
        let x = self.activation(call, 0)?;
        let entries: usize = x.dims.iter().product();
        let mut note = format!(
            "dropped the final {} `{}`: the logits are its input",
            call.operator(),
            call.name()
        );
        if call.operator() != "Sigmoid" {
            self.check_classes(call, &x.dims)?;
        } else if entries > 1 {
            note += &format!(
                ". Its {entries} outputs are probabilities that do not depend on each other, but losses and penalties \
                 take the logits for those of {entries} classes of which one is true"
            );
        }
        self.notes.push(note);
        Ok(Value::Node(x))
    }

    /// That a softmax is over all logits of a sample and over nothing else.
    fn check_classes(&self, call: Call, dims: &[usize]) -> Result<()> {
        // Up to version 12 all axes from this one on are one.
        let flat = self.opset < 13;
        let along = call.integer("axis", if flat { 1 } else { -1 })?;
        let at = self.axis(call, along, dims.len())?;
        let end = if flat { dims.len() } else { at + 1 };
        let (classes, entries): (usize, usize) =
            (dims[at..end].iter().product(), dims.iter().product());
        if at == 0 && dims.len() > 1 && dims[0] == 1 {
            return Err(call.error(format!(
                "it is over axis 0 of {dims:?}, the batch, so its outputs for a sample depend on the other samples"
            )));
        }
        if classes < entries {
            return Err(call.error(format!(
                "it is over {classes} of the {entries} values of a sample (axis {at} of {dims:?}); only a softmax over \
                 all of them, the logits of one choice between classes, can be dropped, so export the model without it"
            )));
        }
        if classes == 1 {
            return Err(
                call.error("it is over one value, so its output is the same for every input")
            );
        }
        Ok(())
    }
}
