//! Affine nodes.

use std::sync::Arc;

use ndarray::{Array1, Array2, Array4, ArrayD};

use super::*;
use crate::error::check_shape;
use crate::network::Window;
use crate::network::affine::{
    Add, Coefficient, Concat, Conv2d, Dense, Elementwise, Gather, Mean, NONE, Normalization,
    Reshape, Source,
};
use crate::network::shapes::{broadcast, is_permutation, strided, strides};
use crate::network::windows::{self, Windows};

/// What a frozen batch normalisation computes with; each array has one entry per channel or feature.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchNorm<T> {
    /// Factor after normalisation.
    pub scale: Array1<T>,
    /// Summand after normalisation.
    pub shift: Array1<T>,
    /// Running mean.
    pub mean: Array1<f64>,
    /// Running variance, not negative.
    pub variance: Array1<f64>,
    /// What is added to the variance; `variance + epsilon` must be positive.
    pub epsilon: f64,
}

impl<T: Scalar> Builder<T> {
    /// `W x + b` along the last axis of the value `x` of `node`; `weight: [outputs, inputs]`, `bias: [outputs]`.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::ZeroWidth`], [`Error::NotFinite`] for a weight or bias, and
    /// [`Error::UnknownNode`].
    pub fn dense(
        &mut self,
        node: NodeId,
        weight: Array2<T>,
        bias: Option<Array1<T>>,
    ) -> Result<NodeId> {
        let mut shape = self.shape(node)?.to_vec();
        let name = self.name("dense");
        let outputs = weight.nrows();
        let last = shape
            .last_mut()
            .ok_or_else(|| attribute(&name, "its input is a scalar"))?;
        let inputs = std::mem::replace(last, outputs);
        check_shape(
            &format!("{name}.weight"),
            &[outputs, inputs],
            weight.shape(),
        )?;
        let operation = Operation::Dense {
            bias: bias.is_some(),
        };
        let weight = self.parameter(&name, "weight", weight.view())?;
        let bias = self.bias(&name, bias, outputs)?;
        let map = Map::Dense(Dense {
            inputs,
            outputs,
            weight,
            bias,
        });
        self.add(New::named(&name, operation, map), &[node], &shape)
    }

    fn bias(
        &mut self,
        name: &str,
        bias: Option<Array1<T>>,
        outputs: usize,
    ) -> Result<Option<usize>> {
        let Some(bias) = bias else {
            return Ok(None);
        };
        check_shape(&format!("{name}.bias"), &[outputs], bias.shape())?;
        self.parameter(name, "bias", bias.view()).map(Some)
    }

    /// Two-dimensional cross-correlation of `[C, H, W]`; `weight: [outputs, C / groups, height, width]`, whose last two
    /// must be the window's kernel; `bias: [outputs]`. Padding is zero; the window must not round up.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::Attribute`], [`Error::ZeroWidth`], [`Error::TooWide`], [`Error::NotFinite`], and
    /// [`Error::UnknownNode`].
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
        self.add(New::named(&name, operation, map), &[node], &output)
    }

    /// Mean over windows of `[C, H, W]`; with `count_padding` the sum is divided by the number of entries and padding.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::Attribute`], [`Error::TooWide`], and [`Error::UnknownNode`].
    pub fn average_pool(
        &mut self,
        node: NodeId,
        window: Window,
        count_padding: bool,
    ) -> Result<NodeId> {
        let operation = Operation::AveragePool {
            window,
            count_padding,
        };
        let name = self.name(operation.name());
        let (windows, shape) = self.pooling(&name, node, &window)?;
        let input = self.image(&name, node)?;
        let count = |j: usize| {
            if !count_padding {
                return windows.members(j).len();
            }
            let [down, across] = [(0, j / shape[2]), (1, j % shape[2])]
                .map(|(axis, at)| windows::counted_taps(&window, axis, at, input[1 + axis]));
            down * across
        };
        let factors = (0..windows.count())
            .map(|j| 1.0 / count(j) as f64)
            .collect();
        let map = Map::Mean(Mean::new(windows, factors));
        self.add(New::named(&name, operation, map), &[node], &shape)
    }

    /// Mean over `axes`, which disappear.
    ///
    /// # Errors
    /// [`Error::Attribute`] for axes that do not exist or repeat, [`Error::TooWide`], [`Error::UnknownNode`].
    pub fn mean(&mut self, node: NodeId, axes: &[usize]) -> Result<NodeId> {
        let mut axes = axes.to_vec();
        axes.sort_unstable();
        let name = self.name("mean");
        let (windows, shape) = self.over_axes(&name, node, &axes)?;
        let factors = (0..windows.count()).map(|j| 1.0 / windows.members(j).len() as f64);
        let map = Map::Mean(Mean::new(windows.clone(), factors.collect()));
        self.add(
            New::named(&name, Operation::Mean { axes }, map),
            &[node],
            &shape,
        )
    }

    /// Frozen batch normalisation along `axis`: `scale (x − mean)/√(variance + epsilon) + shift`.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::Attribute`] for no such axis, [`Error::NotFinite`] if anything is NaN or infinite or
    /// `variance + epsilon` is not positive, [`Error::UnknownNode`].
    pub fn batch_norm(&mut self, node: NodeId, axis: usize, norm: BatchNorm<T>) -> Result<NodeId> {
        let name = self.name("batch-norm");
        let shape = self.shape(node)?.to_vec();
        let Some(&length) = shape.get(axis) else {
            return Err(no_axis(&name, axis, &shape));
        };
        let BatchNorm {
            scale,
            shift,
            mean,
            variance,
            epsilon,
        } = norm;
        for (array, found) in [
            ("scale", scale.len()),
            ("shift", shift.len()),
            ("mean", mean.len()),
            ("variance", variance.len()),
        ] {
            check_shape(&format!("{name}.{array}"), &[length], &[found])?;
        }
        let rate = variance.mapv(|v| 1.0 / (v + epsilon).sqrt());
        check_finite(&format!("{name}.mean"), mean.view())?;
        check_finite(&format!("{name}.variance"), variance.view())?;
        check_finite(&format!("{name}.epsilon"), ndarray::arr0(epsilon).view())?;
        check_finite(&format!("1/√({name}.variance + epsilon)"), rate.view())?;
        self.table(&name, &shape)?;
        let mut from = vec![1; shape.len()];
        from[axis] = length;
        let index: Arc<[u32]> = broadcast(&name, &from, &shape)?.into();
        let constant =
            |name, values: Array1<f64>| Constant::new(name, vec![length], values.to_vec().into());
        let [mean, variance, rate] =
            [("mean", mean), ("variance", variance), ("rate", rate)].map(|(n, v)| constant(n, v));
        let normalization = Normalization {
            mean: mean.values().into(),
            rate: rate.values().into(),
            index: Arc::clone(&index),
        };
        let [scale, shift] = [("scale", scale), ("shift", shift)].map(|(array, values)| {
            let source = Source::Parameter(self.parameter(&name, array, values.view())?);
            let index = Arc::clone(&index);
            Ok(Coefficient { source, index })
        });
        let map = Map::Elementwise(Elementwise {
            width: shapes::width(&name, &shape)?,
            scale: Some(scale?),
            shift: Some(shift?),
            normalization: Some(normalization),
        });
        let mut new = New::named(&name, Operation::BatchNorm { axis, epsilon }, map);
        new.constants = vec![mean, variance];
        self.add(new, &[node], &shape)
    }

    /// `factor ⊙ x`, with `factor` broadcast to the shape of `x`; trained if `learned`.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::NotFinite`], [`Error::UnknownNode`].
    pub fn scale(&mut self, node: NodeId, factor: ArrayD<T>, learned: bool) -> Result<NodeId> {
        let name = self.name("scale");
        let (scale, constants) = self.coefficient(&name, "scale", node, factor, learned)?;
        self.elementwise(
            node,
            name,
            Operation::Scale { learned },
            (Some(scale), None),
            constants,
        )
    }

    /// `x + summand`, with `summand` broadcast to the shape of `x`; trained if `learned`.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::NotFinite`], [`Error::UnknownNode`].
    pub fn shift(&mut self, node: NodeId, summand: ArrayD<T>, learned: bool) -> Result<NodeId> {
        let name = self.name("shift");
        let (shift, constants) = self.coefficient(&name, "shift", node, summand, learned)?;
        self.elementwise(
            node,
            name,
            Operation::Shift { learned },
            (None, Some(shift)),
            constants,
        )
    }

    fn coefficient(
        &mut self,
        name: &str,
        array: &'static str,
        node: NodeId,
        values: ArrayD<T>,
        learned: bool,
    ) -> Result<(Coefficient, Vec<Constant>)> {
        let shape = self.shape(node)?.to_vec();
        self.table(name, &shape)?;
        let index = broadcast(&format!("{name}.{array}"), values.shape(), &shape)?.into();
        if learned {
            let source = Source::Parameter(self.parameter(name, array, values.view())?);
            return Ok((Coefficient { source, index }, Vec::new()));
        }
        check_finite(&format!("{name}.{array}"), values.view())?;
        let numbers: Arc<[f64]> = values.iter().map(|v| v.into_f64()).collect();
        let constant = Constant::new(array, values.shape().to_vec(), Arc::clone(&numbers));
        let source = Source::Constant(numbers);
        Ok((Coefficient { source, index }, vec![constant]))
    }

    fn elementwise(
        &mut self,
        node: NodeId,
        name: String,
        operation: Operation,
        (scale, shift): (Option<Coefficient>, Option<Coefficient>),
        constants: Vec<Constant>,
    ) -> Result<NodeId> {
        let shape = self.shape(node)?.to_vec();
        let map = Map::Elementwise(Elementwise {
            width: shapes::width(&name, &shape)?,
            scale,
            shift,
            normalization: None,
        });
        let mut new = New::named(&name, operation, map);
        new.constants = constants;
        self.add(new, &[node], &shape)
    }

    /// The elementwise sum of `nodes`, which must have one shape; a node may occur more than once.
    ///
    /// # Errors
    /// [`Error::UnknownNode`], [`Error::Shape`] if the shapes differ, [`Error::ZeroWidth`] without nodes.
    pub fn sum(&mut self, nodes: &[NodeId]) -> Result<NodeId> {
        let name = self.name("add");
        let Some(&first) = nodes.first() else {
            return Err(Error::ZeroWidth { node: name });
        };
        let shape = self.shape(first)?.to_vec();
        for &node in nodes {
            check_shape(&format!("a branch of {name}"), &shape, self.shape(node)?)?;
        }
        self.add(
            New::named(&name, Operation::Add, Map::Add(Add)),
            nodes,
            &shape,
        )
    }

    /// `nodes` side by side along `axis`; their other axes must agree. A node may occur more than once.
    ///
    /// # Errors
    /// [`Error::UnknownNode`], [`Error::Attribute`] for no such axis, [`Error::Shape`], [`Error::ZeroWidth`] without
    /// nodes.
    pub fn concat(&mut self, nodes: &[NodeId], axis: usize) -> Result<NodeId> {
        let name = self.name("concat");
        let Some(&first) = nodes.first() else {
            return Err(Error::ZeroWidth { node: name });
        };
        let mut shape = self.shape(first)?.to_vec();
        if axis >= shape.len() {
            return Err(no_axis(&name, axis, &shape));
        }
        let inner: usize = shape[axis + 1..].iter().product();
        let (outer, mut lengths, mut total) = (shape[..axis].iter().product(), Vec::new(), 0usize);
        for &node in nodes {
            let branch = self.shape(node)?;
            let length = branch.get(axis).copied().unwrap_or(0);
            shape[axis] = length;
            check_shape(&format!("a branch of {name}"), &shape, branch)?;
            lengths.push(length * inner);
            total += length;
        }
        shape[axis] = total;
        let map = Map::Concat(Concat::new(lengths, outer));
        self.add(
            New::named(&name, Operation::Concat { axis }, map),
            nodes,
            &shape,
        )
    }

    /// The same values in the same order under another shape of as many entries.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::UnknownNode`].
    pub fn reshape(&mut self, node: NodeId, shape: &[usize]) -> Result<NodeId> {
        let name = self.name("reshape");
        if shapes::width(&name, shape)? != self.node(node)?.width {
            check_shape(&name, self.shape(node)?, shape)?;
        }
        self.add(
            New::named(&name, Operation::Reshape, Map::Reshape(Reshape)),
            &[node],
            shape,
        )
    }

    /// All values as one axis; the node itself if it has only one.
    ///
    /// # Errors
    /// [`Error::UnknownNode`].
    pub fn flatten(&mut self, node: NodeId) -> Result<NodeId> {
        let node_width = self.node(node)?.width;
        if self.shape(node)? == [node_width] {
            return Ok(node);
        }
        self.reshape(node, &[node_width])
    }

    /// The axes in another order: axis `a` of the result is axis `axes[a]` of `node`.
    ///
    /// # Errors
    /// [`Error::Attribute`] if `axes` does not name every axis once, [`Error::UnknownNode`].
    pub fn transpose(&mut self, node: NodeId, axes: &[usize]) -> Result<NodeId> {
        let name = self.name("transpose");
        let shape = self.shape(node)?.to_vec();
        if !is_permutation(axes, shape.len()) {
            return Err(attribute(
                &name,
                format!("{axes:?} is no order of the axes of {shape:?}"),
            ));
        }
        self.table(&name, &shape)?;
        let old = strides(&shape);
        let strides: Vec<usize> = axes.iter().map(|&axis| old[axis]).collect();
        let new_shape: Vec<usize> = axes.iter().map(|&axis| shape[axis]).collect();
        let index = strided(&new_shape, &strides);
        let map = Map::Gather(Gather::new(self.node(node)?.width, index, 0.0));
        let operation = Operation::Transpose {
            axes: axes.to_vec(),
        };
        self.add(New::named(&name, operation, map), &[node], &new_shape)
    }

    /// Entries of the flattened value of `node` under a new shape: entry `i` is entry `index[i]`, or `fill` where that is
    /// `None`.
    ///
    /// # Errors
    /// [`Error::Shape`] if `index` has not as many entries as `shape`, [`Error::Attribute`] for a place that does not
    /// exist, [`Error::NotFinite`] for `fill`, [`Error::TooWide`], [`Error::UnknownNode`].
    pub fn gather(
        &mut self,
        node: NodeId,
        shape: &[usize],
        index: &[Option<usize>],
        fill: f64,
    ) -> Result<NodeId> {
        let name = self.name("gather");
        let inputs = self.node(node)?.width;
        check_shape(
            &format!("{name}.index"),
            &[shapes::width(&name, shape)?],
            &[index.len()],
        )?;
        self.table(&name, shape)?;
        if let Some(place) = index.iter().flatten().find(|&&place| place >= inputs) {
            return Err(attribute(
                &name,
                format!("entry {place} of {inputs} does not exist"),
            ));
        }
        if !fill.is_finite() {
            return Err(Error::NotFinite {
                what: format!("fill of {name}"),
                index: Vec::new(),
            });
        }
        let places = index
            .iter()
            .map(|place| place.map_or(-1.0, |place| place as f64));
        let constant = Constant::new("index", shape.to_vec(), places.collect());
        let places = index
            .iter()
            .map(|place| place.map_or(NONE, |place| place as u32));
        let map = Map::Gather(Gather::new(inputs, places.collect(), fill));
        let mut new = New::named(&name, Operation::Gather { fill }, map);
        new.constants = vec![constant];
        self.add(new, &[node], shape)
    }

    /// Every `step`-th of the entries `start`, `start + step`, … along `axis`, `count` in all; `step` may be negative.
    ///
    /// # Errors
    /// [`Error::Attribute`] if an entry or the axis does not exist, [`Error::ZeroWidth`] if `count` is 0, [`Error::UnknownNode`].
    pub fn slice(
        &mut self,
        node: NodeId,
        axis: usize,
        (start, step, count): (usize, isize, usize),
    ) -> Result<NodeId> {
        let shape = self.shape(node)?.to_vec();
        let Some(&length) = shape.get(axis) else {
            return Err(no_axis(&self.name("gather"), axis, &shape));
        };
        let last = (count.saturating_sub(1) as isize).checked_mul(step);
        let last = last.and_then(|last| (start as isize).checked_add(last));
        if start >= length || !last.is_some_and(|last| (0..length as isize).contains(&last)) {
            let problem =
                format!("{count} entries from {start} by {step} leave axis {axis} of {shape:?}");
            return Err(attribute(&self.name("gather"), problem));
        }
        self.rearrange(node, 0.0, axis, count, |i| {
            Some((start as isize + i as isize * step) as usize)
        })
    }

    /// `[before, after]` entries of `value` added at the ends of `axis`.
    ///
    /// # Errors
    /// [`Error::Attribute`] for no such axis, [`Error::NotFinite`], [`Error::TooWide`], [`Error::UnknownNode`].
    pub fn pad(
        &mut self,
        node: NodeId,
        axis: usize,
        [before, after]: [usize; 2],
        value: f64,
    ) -> Result<NodeId> {
        let shape = self.shape(node)?.to_vec();
        let Some(&length) = shape.get(axis) else {
            return Err(no_axis(&self.name("gather"), axis, &shape));
        };
        let count = length.saturating_add(before).saturating_add(after);
        self.rearrange(node, value, axis, count, |i| {
            i.checked_sub(before).filter(|&i| i < length)
        })
    }

    /// Entry `i` along `axis` of the result is entry `from(i)` along `axis` of `node`.
    fn rearrange(
        &mut self,
        node: NodeId,
        fill: f64,
        axis: usize,
        count: usize,
        from: impl Fn(usize) -> Option<usize>,
    ) -> Result<NodeId> {
        let old = self.shape(node)?.to_vec();
        let mut shape = old.clone();
        shape[axis] = count;
        let inner: usize = old[axis + 1..].iter().product();
        let entry = |i: usize| {
            let (head, along, tail) = (i / inner / count, i / inner % count, i % inner);
            from(along).map(|along| (head * old[axis] + along) * inner + tail)
        };
        let name = self.name("gather");
        let index: Vec<Option<usize>> = (0..shapes::width(&name, &shape)?).map(entry).collect();
        self.gather(node, &shape, &index, fill)
    }

    /// The channels, height and width of a node.
    pub(super) fn image(&self, name: &str, node: NodeId) -> Result<[usize; 3]> {
        let shape = self.shape(node)?;
        shape.try_into().map_err(|_| {
            attribute(
                name,
                format!("its input has shape {shape:?} but [channels, height, width] is needed"),
            )
        })
    }

    /// Positions of a window, all of which must lie at least partly in the input.
    fn positions(&self, name: &str, window: &Window, size: [usize; 2]) -> Result<[usize; 2]> {
        let small = |n: usize| (1..=shapes::MAX_WIDTH).contains(&n);
        let steps = [window.kernel, window.stride, window.dilation];
        if !steps.as_flattened().iter().copied().all(small) {
            return Err(attribute(
                name,
                "kernel, stride and dilation must be positive",
            ));
        }
        if window
            .padding
            .as_flattened()
            .iter()
            .any(|&p| p > shapes::MAX_WIDTH)
        {
            return Err(attribute(name, "its padding is larger than any image"));
        }
        let positions = [0, 1].map(|axis| windows::positions(window, axis, size[axis]));
        if positions.contains(&0) {
            let problem = format!(
                "its window of {:?} does not fit its input of {size:?}",
                window.kernel
            );
            return Err(attribute(name, problem));
        }
        Ok(positions)
    }

    /// The windows of a pooling and the shape of its result.
    pub(super) fn pooling(
        &mut self,
        name: &str,
        node: NodeId,
        window: &Window,
    ) -> Result<(Windows, [usize; 3])> {
        let [channels, height, width] = self.image(name, node)?;
        let [rows, columns] = self.positions(name, window, [height, width])?;
        self.table(name, &[rows, columns, window.kernel[0], window.kernel[1]])?;
        let windows = Windows::pooling(window, [height, width]);
        if (0..windows.count()).any(|j| windows.members(j).is_empty()) {
            return Err(attribute(
                name,
                "a window lies in the padding alone; use less padding",
            ));
        }
        Ok((windows, [channels, rows, columns]))
    }

    /// The windows that cover whole axes and the shape without them.
    pub(super) fn over_axes(
        &mut self,
        name: &str,
        node: NodeId,
        axes: &[usize],
    ) -> Result<(Windows, Vec<usize>)> {
        let shape = self.shape(node)?.to_vec();
        let distinct = axes.windows(2).all(|pair| pair[0] < pair[1]);
        if !distinct || axes.last().is_some_and(|&axis| axis >= shape.len()) {
            return Err(attribute(
                name,
                format!("{axes:?} are not different axes of {shape:?}"),
            ));
        }
        self.table(name, &shape)?;
        let kept = (0..shape.len()).filter(|axis| !axes.contains(axis));
        Ok((
            Windows::axes(&shape, axes),
            kept.map(|axis| shape[axis]).collect(),
        ))
    }
}

pub(super) fn no_axis(node: &str, axis: usize, shape: &[usize]) -> Error {
    attribute(node, format!("axis {axis} does not exist in {shape:?}"))
}
