//! Products with stacks of constant matrices.

use ndarray::Array4;
use relugrad::{NodeId, Window};

use crate::error::Result;
use crate::onnx::attributes::Call;
use crate::onnx::import::Importer;
use crate::onnx::tensor::Tensor;
use crate::onnx::values::{Activation, Value, broadcast};

/// Whether a constant is more than one matrix.
pub(super) fn is_stack(w: &Tensor) -> bool {
    let matrices = w.dims.len().saturating_sub(2);
    w.dims[..matrices].iter().any(|&n| n != 1)
}

impl<'a> Importer<'a> {
    /// `W x` or `x W` for each matrix of a stack: a convolution of single entries, whose groups
    /// are the matrices.
    pub(super) fn stacked(
        &mut self,
        call: Call,
        x: Activation,
        w: &Tensor,
        left: bool,
    ) -> Result<Value> {
        let vector = x.dims.len() == 1;
        let own = match (vector, left) {
            (true, true) => vec![x.dims[0], 1],
            (true, false) => vec![1, x.dims[0]],
            _ => x.dims.clone(),
        };
        let (x_stack, w_stack) = (&own[..own.len() - 2], &w.dims[..w.dims.len() - 2]);
        let [rows, columns] = [own[own.len() - 2], own[own.len() - 1]];
        let [up, along] = [w.dims[w_stack.len()], w.dims[w_stack.len() + 1]];
        let (inner, outputs, positions) = match left {
            true => (along, up, columns),
            false => (up, along, rows),
        };
        self.check_inputs(call, inner, if left { rows } else { columns })?;
        let mut dims = broadcast(x_stack, w_stack).ok_or_else(|| {
            call.error(format!(
                "its stacks of {:?} and {:?} do not go together",
                x.dims, w.dims
            ))
        })?;
        let whole = [&dims[..], &[rows, columns]].concat();
        let id = self.broadcast(
            call,
            Activation {
                dims: own.clone(),
                ..x
            },
            &whole,
        )?;
        let weight = self.spread(call, w, &[&dims[..], &[up, along]].concat())?;
        let count = dims.iter().product();
        let mut weight = weight.reshaped(vec![count, up, along]);
        let id = match left {
            true => id,
            false => {
                weight = self.in_order(call, &weight, &[0, 2, 1])?;
                self.swapped(id, [count, rows, columns])?
            }
        };
        let image = self.shaped(id, &[count * inner, positions, 1])?;
        let values = self.parameter(call, &weight)?;
        let shape = (count * outputs, inner, 1, 1);
        let weight = Array4::from_shape_vec(shape, values).expect("as many entries");
        let window = Window::new([1, 1]);
        let mut id = self.builder.conv2d(image, weight, None, window, count)?;
        if !left {
            id = self.swapped(id, [count, outputs, positions])?;
        }
        let both = if left {
            [outputs, positions]
        } else {
            [positions, outputs]
        };
        dims.extend(both);
        if vector {
            dims.remove(dims.len() - if left { 1 } else { 2 });
        }
        self.value(id, dims)
    }

    /// Matrices of a stack with rows and columns exchanged.
    pub(super) fn swapped(&mut self, id: NodeId, [count, a, b]: [usize; 3]) -> Result<NodeId> {
        let id = self.shaped(id, &[count, a, b])?;
        if a == 1 || b == 1 {
            return self.shaped(id, &[count, b, a]);
        }
        Ok(self.builder.transpose(id, &[0, 2, 1])?)
    }
}
