//! Operations as ONNX's operators.

use relugrad::{Node, Operation, Scalar, Window};

use super::writer::{Writer, float, integer, integers, unwritable};
use crate::error::Result;
use crate::onnx::proto::AttributeProto;

/// The attributes of a window that do not depend on what is done with its entries.
fn window(window: &Window) -> Vec<AttributeProto> {
    let Window {
        kernel,
        stride,
        dilation,
        padding: [[top, bottom], [left, right]],
        ceil: _,
    } = *window;
    vec![
        integers("kernel_shape", kernel),
        integers("strides", stride),
        integers("dilations", dilation),
        integers("pads", [top, left, bottom, right]),
    ]
}

/// The attributes of a window of a pooling.
fn pooling(w: &Window) -> Vec<AttributeProto> {
    let mut attributes = window(w);
    attributes.push(integer("ceil_mode", i64::from(w.ceil)));
    attributes
}

/// The window of a pooling so that all programs count `positions` of it, and how many rows and
/// columns behind the padding are taken for padding to that end.
///
/// Where the number is rounded up, programs differ in whether a window counts that begins in the
/// padding behind the input. So it is not rounded up where that changes nothing, nor where such a
/// window is dropped.
fn unambiguous(w: &Window, size: [usize; 2], positions: [usize; 2]) -> (Window, [usize; 2]) {
    let along = |axis: usize| {
        let extent = w.dilation[axis] * (w.kernel[axis] - 1) + 1;
        let padded = size[axis] + w.padding[axis].iter().sum::<usize>();
        (extent, padded, padded - extent)
    };
    let all = |count: &dyn Fn(usize, usize) -> usize| {
        (0..2).all(|axis| count(along(axis).2, w.stride[axis]) + 1 == positions[axis])
    };
    if all(&|free, stride| free / stride) {
        return (w.ceil(false), [0, 0]);
    }
    if all(&|free, stride| free.div_ceil(stride)) {
        return (w.ceil(true), [0, 0]);
    }
    // The padding behind the input ends with the last window, wherever it ended before.
    let mut longer = w.ceil(false);
    let extra = [0, 1].map(|axis| {
        let end = (positions[axis] - 1) * w.stride[axis] + along(axis).0;
        longer.padding[axis][1] = end.saturating_sub(size[axis] + w.padding[axis][0]);
        longer.padding[axis][1].saturating_sub(w.padding[axis][1])
    });
    (longer, extra)
}

/// Height and width of the image that a node gives.
fn positions(node: &Node) -> [usize; 2] {
    [node.shape()[1], node.shape()[2]]
}

/// Axes of one sample as axes of a batch.
fn batched(axes: &[usize]) -> impl Iterator<Item = usize> {
    axes.iter().map(|axis| axis + 1)
}

impl<T: Scalar> Writer<'_, T> {
    /// Writes what a node computes.
    pub(super) fn operation(&mut self, node: &Node) -> Result<()> {
        let (x, name) = (self.first(node), node.name());
        match node.operation() {
            Operation::Input => self.input(node),
            Operation::Dense { bias } => self.dense(node, &x, *bias),
            Operation::Conv2d {
                window: w,
                groups,
                bias: _,
            } => {
                let parameters = self.parameters(node);
                let mut attributes = window(w);
                attributes.push(integer("group", *groups as i64));
                self.with(&x, &parameters, "Conv", name, attributes);
            }
            Operation::AveragePool {
                window: w,
                count_padding,
            } => self.average_pool(node, &x, w, *count_padding),
            Operation::MaxPool { window: w } => {
                let (w, _) = unambiguous(w, self.read_size(node), positions(node));
                self.call("MaxPool", &[x], name, pooling(&w));
            }
            Operation::Mean { axes } => self.reduce("ReduceMean", axes, &x, name),
            Operation::Max { axis } => self.reduce("ReduceMax", &[*axis], &x, name),
            Operation::BatchNorm { axis, epsilon } => {
                self.batch_norm(node, &x, *axis, *epsilon)?;
            }
            Operation::Scale { learned } => self.elementwise("Mul", node, &x, *learned)?,
            Operation::Shift { learned } => self.elementwise("Add", node, &x, *learned)?,
            Operation::Add => self.call("Sum", &self.inputs(node), name, Vec::new()),
            Operation::Concat { axis } => {
                let axis = integer("axis", *axis as i64 + 1);
                self.call("Concat", &self.inputs(node), name, vec![axis]);
            }
            Operation::Reshape => self.reshape(&x, name, node.shape()),
            Operation::Transpose { axes } => {
                let order = [0].into_iter().chain(batched(axes));
                self.call("Transpose", &[x], name, vec![integers("perm", order)]);
            }
            Operation::Gather { fill } => self.gather(node, &x, *fill)?,
            Operation::Gate(gate) => self.gate(node, &x, *gate)?,
        }
        Ok(())
    }

    /// Padding that counts is made entries of the input where rows or columns behind it do not
    /// count.
    fn average_pool(&mut self, node: &Node, x: &str, w: &Window, count_padding: bool) {
        let (mut w, extra) = unambiguous(w, self.read_size(node), positions(node));
        let (mut x, mut count) = (x.to_owned(), count_padding);
        if count && extra != [0, 0] {
            let [[top, bottom], [left, right]] = w.padding;
            let pads = [0, 0, top, left, 0, 0, bottom - extra[0], right - extra[1]];
            let pads = pads.into_iter().map(|n| n as i64);
            let pads = self.indices(&format!("{}.pads", node.name()), pads);
            let padded = self.part(node, "padded");
            self.call("Pad", &[x, pads], &padded, Vec::new());
            (w, count) = (w.padding([[0, extra[0]], [0, extra[1]]]), false);
            x = padded;
        }
        let mut attributes = pooling(&w);
        if w.dilation == [1, 1] {
            // Up to version 18 the attribute does not exist.
            attributes.retain(|attribute| attribute.name != "dilations");
        }
        attributes.push(integer("count_include_pad", i64::from(count)));
        self.call("AveragePool", &[x], node.name(), attributes);
    }

    /// Height and width of the image that a node reads.
    fn read_size(&self, node: &Node) -> [usize; 2] {
        let shape = self.read(node).shape();
        [shape[1], shape[2]]
    }

    /// The node that a node reads.
    fn read(&self, node: &Node) -> &Node {
        let id = node.inputs().next().expect("only the input reads none");
        &self.network.nodes()[id.index()]
    }

    /// A dense layer; along the last of several axes it is the product with the transpose, and a
    /// sum.
    fn dense(&mut self, node: &Node, x: &str, bias: bool) {
        let name = node.name();
        if node.shape().len() == 1 {
            let parameters = self.parameters(node);
            return self.with(x, &parameters, "Gemm", name, vec![integer("transB", 1)]);
        }
        let infos: Vec<_> = self.network.parameters_of(node).cloned().collect();
        let values = self.network.parameters().values();
        let (weight, shape) = (&values[infos[0].range()], infos[0].shape());
        let entry = |i: usize| weight[i % shape[0] * shape[1] + i / shape[0]].into_f64();
        let transposed = (0..weight.len()).map(entry);
        let weight = self.tensor(infos[0].name(), &[shape[1], shape[0]], transposed);
        if !bias {
            return self.call("MatMul", &[x, &weight], name, Vec::new());
        }
        let product = self.part(node, "product");
        self.call("MatMul", &[x, &weight], &product, Vec::new());
        let entries = values[infos[1].range()].iter().map(|v| v.into_f64());
        let bias = self.tensor(infos[1].name(), infos[1].shape(), entries);
        self.call("Add", &[&product, &bias], name, Vec::new());
    }

    /// A mean or maximum over axes, which from version 18 on are an input.
    fn reduce(&mut self, operator: &str, axes: &[usize], x: &str, name: &str) {
        if axes.is_empty() {
            return self.call("Identity", &[x], name, Vec::new());
        }
        let keep = integer("keepdims", 0);
        if self.opset < 18 {
            let axes = integers("axes", batched(axes));
            return self.call(operator, &[x], name, vec![axes, keep]);
        }
        let axes = batched(axes).map(|axis| axis as i64);
        let axes = self.indices(&format!("{name}.axes"), axes);
        self.call(operator, &[x, &axes], name, vec![keep]);
    }

    /// BatchNormalization has an attribute in `f32` for epsilon, so that is added to the variance
    /// here.
    fn batch_norm(&mut self, node: &Node, x: &str, axis: usize, epsilon: f64) -> Result<()> {
        let name = node.name();
        let mut arrays = self.parameters(node);
        let [mean, variance] = node.constants() else {
            unreachable!("batch normalisation has a mean and a variance");
        };
        let shifted: Vec<f64> = variance.values().iter().map(|v| v + epsilon).collect();
        let vanishes = |v: &&f64| T::from_f64(**v).into_f64() < f64::from(f32::MIN_POSITIVE);
        if let Some(v) = shifted
            .iter()
            .find(vanishes)
            .filter(|_| T::NAME == f32::NAME)
        {
            let problem =
                format!("its variance and epsilon make {v:e}, too small for f32; write it in f64");
            return Err(unwritable(node, problem));
        }
        arrays.push(self.numbers(node, "mean", mean.shape(), mean.values())?);
        arrays.push(self.numbers(node, "variance", variance.shape(), &shifted)?);
        let attributes = vec![float("epsilon", 0.0)];
        if axis == 0 {
            self.with(x, &arrays, "BatchNormalization", name, attributes);
            return Ok(());
        }
        // The axis goes to the place of channels and back; the exchange is its own inverse.
        let mut order: Vec<usize> = (0..=node.shape().len()).collect();
        order.swap(1, axis + 1);
        let perm = || vec![integers("perm", order.clone())];
        let (there, normalised) = (self.part(node, "there"), self.part(node, "normalised"));
        self.call("Transpose", &[x], &there, perm());
        self.with(
            &there,
            &arrays,
            "BatchNormalization",
            &normalised,
            attributes,
        );
        self.call("Transpose", &[&normalised], name, perm());
        Ok(())
    }

    fn elementwise(&mut self, operator: &str, node: &Node, x: &str, learned: bool) -> Result<()> {
        let arrays = if learned {
            self.parameters(node)
        } else {
            let constants = node.constants().iter();
            constants
                .map(|c| self.numbers(node, c.name(), c.shape(), c.values()))
                .collect::<Result<_>>()?
        };
        self.with(x, &arrays, operator, node.name(), Vec::new());
        Ok(())
    }

    /// Entries of the flattened value, behind which stands one with what fills up.
    fn gather(&mut self, node: &Node, x: &str, fill: f64) -> Result<()> {
        let name = node.name();
        let places = node.constants()[0].values();
        let width = self.read(node).width() as i64;
        let mut flat = x.to_owned();
        if self.read(node).shape().len() != 1 {
            flat = self.part(node, "flat");
            self.call("Flatten", &[x], &flat, vec![integer("axis", 1)]);
        }
        if places.iter().any(|&i| i < 0.0) {
            let pads = self.indices(&format!("{name}.pads"), [0, 0, 0, 1].into_iter());
            let fill = self.numbers(node, "fill", &[], &[fill])?;
            let padded = self.part(node, "padded");
            self.call("Pad", &[&flat, &pads, &fill], &padded, Vec::new());
            flat = padded;
        }
        let place = |&i: &f64| if i < 0.0 { width } else { i as i64 };
        let index = self.indices(&format!("{name}.index"), places.iter().map(place));
        let axis = vec![integer("axis", 1)];
        if node.shape().len() == 1 {
            self.call("Gather", &[flat, index], name, axis);
            return Ok(());
        }
        let taken = self.part(node, "taken");
        self.call("Gather", &[flat, index], &taken, axis);
        self.reshape(&taken, name, node.shape());
        Ok(())
    }
}
