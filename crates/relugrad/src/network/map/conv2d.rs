//! Two-dimensional cross-correlation with padding, stride, dilation and groups.
//!
//! The sums are those of [`Convolution`].

use std::borrow::Cow;
use std::ops::Range;

use ndarray::{Array1, Array4};

use super::{Accumulate, AffineMap, Cost, Map, SweepContext};
#[cfg(doc)]
use crate::error::Error;
use crate::error::{Result, check_shape};
use crate::network::builder::{Builder, New, attribute};
use crate::network::{NodeId, Operation, Window, shapes};
use crate::product::{Convolution, convolution_gradient, convolve, convolve_back};
use crate::scalar::Scalar;

/// A convolution layer; its weight is `[outputs, channels / groups, kernel height, kernel width]`.
#[derive(Clone, Debug)]
pub(crate) struct Conv2d {
    pub(crate) window: Window,
    pub(crate) groups: usize,
    /// Channels, height and width of the input.
    pub(crate) input: [usize; 3],
    /// Channels, height and width of the output.
    pub(crate) output: [usize; 3],
    /// Where the weight starts in the flat vector of all parameters.
    pub(crate) weight: usize,
    /// Where the bias starts, if there is one.
    pub(crate) bias: Option<usize>,
}

impl Conv2d {
    /// What is computed.
    fn convolution(&self) -> Convolution {
        let w = &self.window;
        Convolution {
            input: self.input,
            output: self.output,
            kernel: w.kernel,
            stride: w.stride,
            dilation: w.dilation,
            padding: w.padding,
            groups: self.groups,
        }
    }

    /// Multiply-adds of one row.
    pub(crate) fn multiply_adds(&self) -> usize {
        let convolution = self.convolution();
        convolution.outputs() * convolution.taps()
    }

    /// Where the weight is in the flat vector of all parameters.
    fn places(&self) -> Range<usize> {
        self.weight..self.weight + self.output[0] * self.convolution().taps()
    }

    pub(crate) fn weights<'p, T>(&self, parameters: &'p [T]) -> &'p [T] {
        &parameters[self.places()]
    }
}

/// The sum of some numbers, in an order that vectors can follow.
fn total<T: Scalar>(values: &[T]) -> T {
    let (blocks, rest) = values.as_chunks::<16>();
    let mut sums = [T::ZERO; 16];
    for block in blocks {
        sums.iter_mut()
            .zip(block)
            .for_each(|(sum, &value)| *sum += value);
    }
    sums.iter()
        .chain(rest)
        .fold(T::ZERO, |sum, &value| sum + value)
}

impl<T: Scalar> AffineMap<T> for Conv2d {
    fn cost(&self, width: usize) -> Cost {
        Cost {
            multiply_adds: self.multiply_adds(),
            terms: self.multiply_adds() / width,
        }
    }

    fn factors<'p>(&self, parameters: &'p [T]) -> Cow<'p, [T]> {
        Cow::Borrowed(self.weights(parameters))
    }

    fn apply(&self, at: SweepContext<T>, inputs: &[&[T]], offset: bool, out: &mut [T]) {
        let start = self.bias.filter(|_| offset);
        let bias = start.map(|start| &at.parameters[start..start + self.output[0]]);
        let weight = self.weights(at.parameters);
        convolve(&self.convolution(), weight, bias, inputs[0], out);
    }

    fn transpose(&self, at: SweepContext<T>, _: usize, c: &[T], accumulate: bool, below: &mut [T]) {
        let weight = self.weights(at.parameters);
        convolve_back(&self.convolution(), at.rows, weight, c, accumulate, below);
    }

    fn gradient(
        &self,
        at: SweepContext<T>,
        c: &[T],
        t: &[T],
        how: Accumulate<T>,
        gradient: &mut [T],
    ) {
        let (convolution, scale) = (self.convolution(), how.scale);
        let weight = &mut gradient[self.places()];
        convolution_gradient(&convolution, at.rows, c, t, scale, weight);
        let Some(start) = self.bias.filter(|_| how.offset) else {
            return;
        };
        let bias = &mut gradient[start..start + self.output[0]];
        for row in c.chunks_exact(convolution.outputs()) {
            for (sum, c) in bias
                .iter_mut()
                .zip(row.chunks_exact(convolution.positions()))
            {
                *sum += scale * total(c);
            }
        }
    }
}

impl<T: Scalar> Builder<T> {
    /// Two-dimensional cross-correlation of `[C, H, W]`;
    /// `weight: [outputs, C / groups, height, width]`, whose last two must be the window's kernel;
    /// `bias: [outputs]`. Padding is zero; the window must not round up.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::Attribute`], [`Error::ZeroWidth`], [`Error::TooWide`],
    /// [`Error::NotFinite`], and [`Error::UnknownNode`].
    pub fn conv2d(
        &mut self,
        node: NodeId,
        weight: Array4<T>,
        bias: Option<Array1<T>>,
        window: Window,
        groups: usize,
    ) -> Result<NodeId> {
        let name = self.name("conv2d");
        let input = self.image(&name, node)?;
        let outputs = weight.shape()[0];
        if groups == 0 || !input[0].is_multiple_of(groups) || !outputs.is_multiple_of(groups) {
            let problem = format!(
                "{groups} groups do not divide its {} input and {outputs} output channels",
                input[0]
            );
            return Err(attribute(&name, problem));
        }
        if window.ceil {
            return Err(attribute(&name, "a convolution does not round up"));
        }
        let [height, width] = window.kernel;
        let expected = [outputs, input[0] / groups, height, width];
        check_shape(&format!("{name}.weight"), &expected, weight.shape())?;
        let [rows, columns] = self.positions(&name, &window, [input[1], input[2]])?;
        let output = [outputs, rows, columns];
        let operation = Operation::Conv2d {
            window,
            groups,
            bias: bias.is_some(),
        };
        shapes::width(&name, &output)?;
        let weight = self.parameter(&name, "weight", weight.view())?;
        let bias = self.bias(&name, bias, outputs)?;
        let map = Map::Conv2d(Conv2d {
            window,
            groups,
            input,
            output,
            weight,
            bias,
        });
        self.push(New::named(&name, operation, map), &[node], &output)
    }
}
