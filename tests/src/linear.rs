//! Affine layers other than dense ones, each as an explicit list of terms.

use ndarray::{ArrayD, IxDyn};
use relugrad::{Builder, NodeId, NodeSpec, Operation, Window};

use crate::matrix::{Matrix, add, zeros};

/// An affine layer on images or vectors.
#[derive(Clone, Debug, PartialEq)]
pub enum Layer {
    /// An operation of the engine.
    Operation {
        /// Which one; it is described alike, and computed here from its description.
        operation: Operation,
        /// Shapes of the nodes that it reads.
        shapes: Vec<[usize; 3]>,
        /// Channels of the result, of a convolution only.
        outputs: usize,
        /// Its constants, of a batch normalisation only: means and variances.
        constants: Vec<Vec<f64>>,
    },
    /// A factor for each channel and a summand for all; the learned one of them is a parameter.
    ScaleShift {
        /// Channels, height and width.
        shape: [usize; 3],
        /// The factors.
        factor: Vec<f64>,
        /// The summand.
        summand: f64,
        /// Whether the factors are parameters, or the summand.
        learned: bool,
    },
    /// `length` entries of an axis from `start` on with a step.
    Slice {
        /// Channels, height and width.
        shape: [usize; 3],
        /// Which axis.
        axis: usize,
        /// First entry, step and number of entries.
        range: (usize, isize, usize),
    },
    /// Constant entries before and after an axis.
    Pad {
        /// Channels, height and width.
        shape: [usize; 3],
        /// Which axis.
        axis: usize,
        /// How many before and after.
        margins: [usize; 2],
        /// Their value.
        value: f64,
    },
}

/// `coefficient · θ_parameter · x_input`, a part of one output; what is missing is 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// Which output.
    pub output: usize,
    /// Which of the nodes that are read, and which unit of it.
    pub input: Option<(usize, usize)>,
    /// Which of the layer's parameters.
    pub parameter: Option<usize>,
    /// A constant.
    pub coefficient: f64,
}

/// A layer with its parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    layer: Layer,
    /// Its parameters in the engine's order.
    pub parameters: Vec<f64>,
    terms: Vec<Term>,
    /// The shape of its value.
    shape: Vec<usize>,
}

/// Place of an entry in a row-major array.
fn at(shape: [usize; 3], [c, i, j]: [usize; 3]) -> usize {
    (c * shape[1] + i) * shape[2] + j
}

/// All places of an array, in order.
fn places(shape: [usize; 3]) -> impl Iterator<Item = [usize; 3]> {
    let [channels, height, width] = shape;
    let row = move |c, i| (0..width).map(move |j| [c, i, j]);
    (0..channels).flat_map(move |c| (0..height).flat_map(move |i| row(c, i)))
}

fn replaced(mut shape: [usize; 3], axis: usize, length: usize) -> [usize; 3] {
    shape[axis] = length;
    shape
}

/// A tap of a kernel with the place that it sees, unless that is padding.
type Tap<P> = (usize, Option<P>);

/// For each position of a window along an axis of length `n`: its taps, as pairs of tap and entry,
/// and how many of all taps lie within the padded axis.
fn taps(window: &Window, axis: usize, n: usize) -> Vec<Vec<Tap<usize>>> {
    let [before, after] = window.padding[axis];
    let (kernel, dilation) = (window.kernel[axis], window.dilation[axis]);
    let extent = dilation * (kernel - 1) + 1;
    let starts = (0..=(before + n + after - extent)).step_by(window.stride[axis]);
    let tap = |start: usize, k: usize| {
        let place = start + k * dilation;
        (
            k,
            (before..before + n)
                .contains(&place)
                .then(|| place - before),
        )
    };
    starts
        .map(|start| (0..kernel).map(|k| tap(start, k)).collect())
        .collect()
}

/// For each position of a window over `[_, height, width]`, in order, its taps: number of the tap
/// within the kernel, and the place if it is not in the padding.
fn windows(window: &Window, [_, height, width]: [usize; 3]) -> Vec<Vec<Tap<[usize; 2]>>> {
    let (down, right) = (taps(window, 0, height), taps(window, 1, width));
    let mut all = Vec::new();
    for rows in &down {
        for columns in &right {
            let pairs = rows
                .iter()
                .flat_map(|row| columns.iter().map(move |column| (row, column)));
            let tap = |(&(k, i), &(l, j)): (&Tap<usize>, &Tap<usize>)| {
                (k * window.kernel[1] + l, i.zip(j).map(|(i, j)| [i, j]))
            };
            all.push(pairs.map(tap).collect());
        }
    }
    all
}

/// The entries that each window of a maximum over `shape` sees, channel by channel.
pub fn pooled(shape: [usize; 3], window: &Window) -> Vec<Vec<usize>> {
    let positions = windows(window, shape);
    let seen = |c: usize| {
        positions.iter().map(move |taps| {
            let places = taps.iter().filter_map(|(_, place)| *place);
            places.map(|[i, j]| at(shape, [c, i, j])).collect()
        })
    };
    (0..shape[0]).flat_map(seen).collect()
}

/// The shape of a layer's value, and its terms.
type Described = (Vec<usize>, Vec<Term>);

impl Layer {
    /// An operation without outputs of its own and without constants.
    pub fn of(operation: Operation, shapes: Vec<[usize; 3]>) -> Layer {
        Layer::Operation {
            operation,
            shapes,
            outputs: 0,
            constants: Vec::new(),
        }
    }

    /// Number of its parameters.
    pub fn parameters(&self) -> usize {
        match self {
            Layer::Operation { .. } => {
                let arrays = self.arrays(&self.terms().0).into_iter();
                let learned = arrays.filter(|(learned, _)| *learned);
                learned
                    .map(|(_, shape)| shape.iter().product::<usize>())
                    .sum()
            }
            Layer::ScaleShift {
                learned: true,
                factor,
                ..
            } => factor.len(),
            Layer::ScaleShift { learned: false, .. } => 1,
            Layer::Slice { .. } | Layer::Pad { .. } => 0,
        }
    }

    /// The arrays of an operation with such a value: whether each is learned, and its shape.
    fn arrays(&self, shape: &[usize]) -> Vec<(bool, Vec<usize>)> {
        let Layer::Operation {
            operation, shapes, ..
        } = self
        else {
            return Vec::new();
        };
        let arrays = operation.arrays(&shapes[0], shape).into_iter();
        let known = arrays.map(|array| (array.learned, array.shape.expect("it is known")));
        known.collect()
    }

    fn terms(&self) -> Described {
        match self {
            Layer::Operation {
                operation,
                shapes,
                outputs,
                constants,
            } => computed(operation, shapes, *outputs, constants),
            Layer::ScaleShift {
                shape,
                factor,
                summand,
                learned,
            } => {
                let mut terms = Vec::new();
                for (unit, [c, ..]) in places(*shape).enumerate() {
                    let (scale, shift) = if *learned {
                        ((Some(c), 1.0), (None, *summand))
                    } else {
                        ((None, factor[c]), (Some(0), 1.0))
                    };
                    terms.push(term(unit, Some((0, unit)), scale.0, scale.1));
                    terms.push(term(unit, None, shift.0, shift.1));
                }
                (shape.to_vec(), terms)
            }
            Layer::Slice {
                shape,
                axis,
                range: (start, step, length),
            } => {
                let (shape, axis, start, step) = (*shape, *axis, *start as isize, *step);
                moved(replaced(shape, axis, *length), |place| {
                    let entry = start + step * place[axis] as isize;
                    let from = replaced(place, axis, entry as usize);
                    term(0, Some((0, at(shape, from))), None, 1.0)
                })
            }
            Layer::Pad {
                shape,
                axis,
                margins: [before, after],
                value,
            } => {
                let (shape, axis) = (*shape, *axis);
                let inside = *before..before + shape[axis];
                moved(replaced(shape, axis, inside.end + after), |place| {
                    if !inside.contains(&place[axis]) {
                        return term(0, None, None, *value);
                    }
                    let from = replaced(place, axis, place[axis] - before);
                    term(0, Some((0, at(shape, from))), None, 1.0)
                })
            }
        }
    }
}

/// What an operation of the engine computes.
fn computed(
    operation: &Operation,
    shapes: &[[usize; 3]],
    outputs: usize,
    constants: &[Vec<f64>],
) -> Described {
    let shape = shapes[0];
    match operation {
        Operation::Conv2d {
            window,
            groups,
            bias,
        } => convolution(shape, outputs, window, (*groups, *bias)),
        Operation::AveragePool {
            window,
            count_padding,
        } => average(shape, window, *count_padding),
        Operation::Mean { axes } if axes[..] == [1, 2] => {
            let window = Window::new([shape[1], shape[2]]);
            (vec![shape[0]], average(shape, &window, false).1)
        }
        Operation::BatchNorm { axis, epsilon } => {
            let (mean, variance, mut terms) = (&constants[0], &constants[1], Vec::new());
            for (unit, place) in places(shape).enumerate() {
                let k = place[*axis];
                let inverse = 1.0 / (variance[k] + epsilon).sqrt();
                terms.push(term(unit, Some((0, unit)), Some(k), inverse));
                terms.push(term(unit, None, Some(k), -mean[k] * inverse));
                terms.push(term(unit, None, Some(mean.len() + k), 1.0));
            }
            (shape.to_vec(), terms)
        }
        Operation::Concat { axis } => concatenation(shapes, *axis),
        Operation::Transpose { axes } => {
            let transposed = [0, 1, 2].map(|k: usize| shape[axes[k]]);
            moved(transposed, |place| {
                let mut from = [0; 3];
                (0..3).for_each(|k| from[axes[k]] = place[k]);
                term(0, Some((0, at(shape, from))), None, 1.0)
            })
        }
        other => panic!("no oracle computes `{other}`"),
    }
}

/// A layer whose outputs are entries of its input, or constants.
fn moved(shape: [usize; 3], entry: impl Fn([usize; 3]) -> Term) -> Described {
    let numbered = places(shape).enumerate();
    let terms = numbered.map(|(output, place)| Term {
        output,
        ..entry(place)
    });
    (shape.to_vec(), terms.collect())
}

fn convolution(
    shape: [usize; 3],
    outputs: usize,
    window: &Window,
    (groups, bias): (usize, bool),
) -> Described {
    let (positions, taps) = (windows(window, shape), window.kernel[0] * window.kernel[1]);
    let (channels, mut terms) = (shape[0] / groups, Vec::new());
    for o in 0..outputs {
        let group = o / (outputs / groups);
        for (p, window) in positions.iter().enumerate() {
            let output = o * positions.len() + p;
            for c in 0..channels {
                let inside = window
                    .iter()
                    .filter_map(|(tap, place)| Some((tap, (*place)?)));
                for (tap, [i, j]) in inside {
                    let unit = at(shape, [group * channels + c, i, j]);
                    let parameter = (o * channels + c) * taps + tap;
                    terms.push(term(output, Some((0, unit)), Some(parameter), 1.0));
                }
            }
            if bias {
                terms.push(term(output, None, Some(outputs * channels * taps + o), 1.0));
            }
        }
    }
    (seen_through(window, shape, outputs), terms)
}

/// The shape of an image of so many channels that has a place for each position of a window.
fn seen_through(window: &Window, [_, height, width]: [usize; 3], channels: usize) -> Vec<usize> {
    let positions = [taps(window, 0, height), taps(window, 1, width)];
    vec![channels, positions[0].len(), positions[1].len()]
}

fn term(
    output: usize,
    input: Option<(usize, usize)>,
    parameter: Option<usize>,
    coefficient: f64,
) -> Term {
    Term {
        output,
        input,
        parameter,
        coefficient,
    }
}

fn average(shape: [usize; 3], window: &Window, count_padding: bool) -> Described {
    let (positions, mut terms) = (windows(window, shape), Vec::new());
    for c in 0..shape[0] {
        for (p, window) in positions.iter().enumerate() {
            let seen: Vec<[usize; 2]> = window.iter().filter_map(|(_, place)| *place).collect();
            let count = if count_padding {
                window.len()
            } else {
                seen.len()
            };
            for [i, j] in seen {
                let input = Some((0, at(shape, [c, i, j])));
                terms.push(term(
                    c * positions.len() + p,
                    input,
                    None,
                    1.0 / count as f64,
                ));
            }
        }
    }
    (seen_through(window, shape, shape[0]), terms)
}

fn concatenation(shapes: &[[usize; 3]], axis: usize) -> Described {
    let length = shapes.iter().map(|shape| shape[axis]).sum();
    let (whole, mut start, mut terms) = (replaced(shapes[0], axis, length), 0, Vec::new());
    for (node, &shape) in shapes.iter().enumerate() {
        for (unit, place) in places(shape).enumerate() {
            let output = at(whole, replaced(place, axis, start + place[axis]));
            terms.push(term(output, Some((node, unit)), None, 1.0));
        }
        start += shape[axis];
    }
    (whole.to_vec(), terms)
}

impl Linear {
    /// A layer with parameters in the engine's order.
    pub fn new(layer: Layer, parameters: Vec<f64>) -> Linear {
        assert_eq!(parameters.len(), layer.parameters());
        let (shape, terms) = layer.terms();
        Linear {
            layer,
            parameters,
            terms,
            shape,
        }
    }

    /// The sums over these groups of units of one node: no layer of the engine, but a bound of its
    /// maxima.
    pub fn sums(groups: &[Vec<usize>]) -> Linear {
        let numbered = groups.iter().enumerate();
        let terms = numbered.flat_map(|(output, group)| {
            let unit = move |&unit: &usize| term(output, Some((0, unit)), None, 1.0);
            group.iter().map(unit)
        });
        Linear {
            layer: Layer::of(Operation::Concat { axis: 0 }, Vec::new()),
            parameters: Vec::new(),
            terms: terms.collect(),
            shape: vec![groups.len()],
        }
    }

    /// Number of its outputs.
    pub fn width(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether some output is more than a linear function of the inputs.
    pub fn has_offsets(&self) -> bool {
        self.terms.iter().any(|term| term.input.is_none())
    }

    fn factor(&self, term: &Term) -> f64 {
        term.coefficient * term.parameter.map_or(1.0, |p| self.parameters[p])
    }

    /// Its outputs for values of the nodes that it reads.
    pub fn values(&self, below: &[&Vec<f64>]) -> Vec<f64> {
        let mut values = vec![0.0; self.width()];
        for term in &self.terms {
            let value = term.input.map_or(1.0, |(node, unit)| below[node][unit]);
            values[term.output] += self.factor(term) * value;
        }
        values
    }

    /// The derivative of its outputs in `width` variables, from those of the nodes that it reads.
    pub fn derivatives(&self, below: &[&Matrix], width: usize) -> Matrix {
        let mut rows = zeros(self.width(), width);
        for term in &self.terms {
            if let Some((node, unit)) = term.input {
                rows[term.output] = add(&rows[term.output], self.factor(term), &below[node][unit]);
            }
        }
        rows
    }

    /// The sum over terms of `coefficient · product(output, input)` for each parameter: with the
    /// cotangent of the output times the value of the input it is the gradient of what the
    /// cotangent is of.
    pub fn pullback(&self, product: impl Fn(usize, Option<(usize, usize)>) -> f64) -> Vec<f64> {
        let mut gradient = vec![0.0; self.parameters.len()];
        for term in &self.terms {
            if let Some(p) = term.parameter {
                gradient[p] += term.coefficient * product(term.output, term.input);
            }
        }
        gradient
    }

    /// The same layer with all constants and parameters replaced by their absolute values.
    pub fn absolute(&self) -> Linear {
        let mut linear = self.clone();
        linear
            .terms
            .iter_mut()
            .for_each(|term| term.coefficient = term.coefficient.abs());
        linear.parameters = self.parameters.iter().map(|p| p.abs()).collect();
        linear
    }

    /// Size of the terms of each output.
    pub fn scales(&self, below: &[&Vec<f64>]) -> Vec<f64> {
        let absolute: Vec<Vec<f64>> = below
            .iter()
            .map(|values| values.iter().map(|v| v.abs()).collect())
            .collect();
        self.absolute().values(&absolute.iter().collect::<Vec<_>>())
    }

    /// Adds it to an engine's network between nodes of rank 1.
    pub fn build(&self, builder: &mut Builder<f64>, from: &[NodeId]) -> relugrad::Result<NodeId> {
        let node = match &self.layer {
            Layer::Operation {
                operation,
                shapes,
                constants,
                ..
            } => {
                let pairs = from.iter().zip(shapes);
                let images = pairs.map(|(&node, shape)| builder.reshape(node, shape));
                let images = images.collect::<relugrad::Result<Vec<_>>>()?;
                builder.add(self.spec(operation.clone(), constants), &images)
            }
            Layer::ScaleShift {
                shape,
                factor,
                summand,
                learned,
            } => {
                let x = builder.reshape(from[0], shape)?;
                let (factor, summand) = match learned {
                    true => (&self.parameters, *summand),
                    false => (factor, self.parameters[0]),
                };
                let factor = array(&[shape[0], 1, 1], factor);
                let scaled = builder.scale(x, factor, *learned)?;
                builder.shift(scaled, array(&[], &[summand]), !learned)
            }
            Layer::Slice { shape, axis, range } => {
                let x = builder.reshape(from[0], shape)?;
                let (start, step, count) = *range;
                builder.slice(x, *axis, start, step, count)
            }
            Layer::Pad {
                shape,
                axis,
                margins,
                value,
            } => {
                let x = builder.reshape(from[0], shape)?;
                builder.pad(x, *axis, *margins, *value)
            }
        };
        builder.flatten(node?)
    }

    fn spec(&self, operation: Operation, constants: &[Vec<f64>]) -> NodeSpec<f64> {
        let (mut learned, mut fixed) = (Vec::new(), Vec::new());
        let (mut rest, mut constants) = (&self.parameters[..], constants.iter());
        for (is_learned, shape) in self.layer.arrays(&self.shape) {
            if is_learned {
                let (values, others) = rest.split_at(shape.iter().product());
                learned.push(array(&shape, values));
                rest = others;
            } else {
                fixed.push(array(
                    &shape,
                    constants.next().expect("it has the constant"),
                ));
            }
        }
        NodeSpec {
            name: None,
            operation,
            shape: self.shape.clone(),
            parameters: learned,
            constants: fixed,
        }
    }
}

fn array(shape: &[usize], values: &[f64]) -> ArrayD<f64> {
    ArrayD::from_shape_vec(IxDyn(shape), values.to_vec()).expect("it fits")
}
