//! Layers with random weights.

use ndarray::{Array, Array1, Dimension, ShapeBuilder};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use relugrad::{BatchNorm, Builder, Network, NodeId, Scalar};
use relugrad_io::{Budget, Limits};

use super::layer::{Conv, Layer};
use crate::channels::ChannelStatistics;
use crate::error::Result;

/// How often a weight is in memory while it is made: as it is drawn, checked, and in a list of
/// parameters that grows.
const COPIES: usize = 4;

/// How much smaller the last weights of a residual branch start.
const BRANCH_SCALE: f64 = 0.1;

pub(super) fn build<T: Scalar>(
    layers: &[Layer],
    memory: u64,
    shape: &[usize],
    classes: usize,
    seed: u64,
    standardisation: Option<&ChannelStatistics>,
) -> Result<Network<T>> {
    let budget = Limits {
        memory: Limits::of_process().memory.or(Some(memory)),
    }
    .budget(0);
    budget.nodes(count(layers))?;
    let mut builder = Builder::with_room(budget.room() / COPIES);
    let product = shape.iter().try_fold(1usize, |p, &n| p.checked_mul(n));
    // The builder refuses a size that does not exist.
    let flat = [product.unwrap_or(usize::MAX)];
    // Dense layers need no images, and a vector needs no reshaping.
    let images = layers
        .iter()
        .any(|layer| !matches!(layer, Layer::Dense { .. } | Layer::Gate(_)));
    let node = builder.input_shaped(if images { shape } else { &flat })?;
    let mut draft = Draft {
        builder,
        budget,
        place: Vec::new(),
        random: ChaCha8Rng::seed_from_u64(seed),
    };
    let node = match standardisation {
        Some(statistics) => {
            statistics.check_shape(shape)?;
            statistics.add(&mut draft.builder, node)?
        }
        None => node,
    };
    let size = Size {
        channels: shape.first().copied().unwrap_or(0),
        values: Some(flat[0]),
    };
    draft.check(size, layers)?;
    let node = draft.layers(node, layers, 1.0)?;
    let node = draft.dense(node, classes, true, 1.0)?;
    let network = draft.builder.build(node)?;
    draft.budget.values(&network)?;
    Ok(network)
}

/// How many values there are somewhere, as far as that is known before the layers are made.
#[derive(Clone, Copy)]
struct Size {
    channels: usize,
    /// The values of all channels; not known behind windows.
    values: Option<usize>,
}

impl Size {
    fn flat(values: usize) -> Size {
        Size {
            channels: values,
            values: Some(values),
        }
    }

    fn image(channels: usize) -> Size {
        Size {
            channels,
            values: None,
        }
    }

    /// The outputs of a layer and the weights of each, if there are some and their number is known.
    fn weights(self, layer: &Layer) -> Option<[usize; 2]> {
        match layer {
            Layer::Dense { outputs, .. } => Some([*outputs, self.values?]),
            Layer::Conv(conv) => Some([conv.outputs, taps(conv, self.channels)]),
            Layer::Gate(_)
            | Layer::MaxPool(_)
            | Layer::AveragePool(_)
            | Layer::GlobalAverage {}
            | Layer::Maxout { .. }
            | Layer::BatchNorm {}
            | Layer::Residual { .. } => None,
        }
    }

    /// The size behind a layer without branches.
    fn behind(self, layer: &Layer) -> Size {
        match layer {
            Layer::Gate(_) | Layer::BatchNorm {} | Layer::Residual { .. } => self,
            Layer::Dense { outputs, .. } => Size::flat(*outputs),
            Layer::Conv(conv) => Size::image(conv.outputs),
            Layer::MaxPool(_) | Layer::AveragePool(_) => Size::image(self.channels),
            Layer::GlobalAverage {} => Size::flat(self.channels),
            Layer::Maxout { pieces } => {
                let share = |values: usize| values / (*pieces).max(1);
                Size {
                    channels: share(self.channels),
                    values: self.values.map(share),
                }
            }
        }
    }
}

/// A network in the making.
struct Draft<T> {
    builder: Builder<T>,
    /// What is left for its weights.
    budget: Budget,
    /// Numbers from 1 of the layer that is being made, and of those that it is in.
    place: Vec<usize>,
    random: ChaCha8Rng,
}

impl<T: Scalar> Draft<T> {
    /// Sees that the budget is enough for the layers, before one of them is made.
    fn check(&mut self, size: Size, layers: &[Layer]) -> Result<()> {
        let left = self.budget.clone();
        self.pay_ahead(size, layers)?;
        self.budget = left;
        Ok(())
    }

    /// Pays for all weights whose number follows without making the layers, and returns the size
    /// behind them.
    fn pay_ahead(&mut self, mut size: Size, layers: &[Layer]) -> Result<Size> {
        for (i, layer) in layers.iter().enumerate() {
            self.place.push(i + 1);
            if let Some([outputs, inputs]) = size.weights(layer) {
                self.pay(outputs, inputs)?;
            }
            size = if let Layer::Residual { layers, shortcut } = layer {
                self.pay_ahead(size, shortcut)?;
                self.pay_ahead(size, layers)?
            } else {
                size.behind(layer)
            };
            self.place.pop();
        }
        Ok(size)
    }

    /// Adds layers one after the other; the last weights are multiplied by `last`.
    fn layers(&mut self, mut node: NodeId, layers: &[Layer], last: f64) -> Result<NodeId> {
        for (i, layer) in layers.iter().enumerate() {
            let gain = if let Some(Layer::Gate(gate)) = layers.get(i + 1) {
                2.0 / (1.0 + gate.inactive_slope().powi(2))
            } else {
                2.0
            };
            let scale = if i + 1 == layers.len() { last } else { 1.0 };
            self.place.push(i + 1);
            node = self.layer(node, layer, gain * scale * scale)?;
            self.place.pop();
        }
        Ok(node)
    }

    /// Adds a layer; its weights have `gain` times the variance `1/n`.
    fn layer(&mut self, node: NodeId, layer: &Layer, gain: f64) -> Result<NodeId> {
        let builder = &mut self.builder;
        Ok(match layer {
            Layer::Dense { outputs, bias } => self.dense(node, *outputs, *bias, gain)?,
            Layer::Conv(conv) => {
                let (channels, window) = (builder.shape(node)?[0], conv.window());
                let [height, width] = window.kernel;
                let shape = (conv.outputs, channels / conv.groups.max(1), height, width);
                let taps = taps(conv, channels);
                self.pay(conv.outputs, taps)?;
                let weight = self.weights(shape, taps, gain);
                let bias = conv.bias.then(|| Array1::zeros(conv.outputs));
                self.builder
                    .conv2d(node, weight, bias, window, conv.groups)?
            }
            Layer::Gate(gate) => builder.gate(node, *gate)?,
            Layer::MaxPool(pool) => builder.max_pool(node, pool.window())?,
            Layer::AveragePool(pool) => builder.average_pool(node, pool.window(), false)?,
            Layer::GlobalAverage {} => builder.mean(node, &[1, 2])?,
            Layer::Maxout { pieces } => builder.maxout(node, *pieces)?,
            Layer::BatchNorm {} => {
                let channels = builder.shape(node)?[0];
                let norm = BatchNorm {
                    scale: Array1::ones(channels),
                    shift: Array1::zeros(channels),
                    mean: Array1::zeros(channels),
                    variance: Array1::ones(channels),
                    epsilon: 0.0,
                };
                builder.batch_norm(node, 0, norm)?
            }
            Layer::Residual { layers, shortcut } => {
                let branch = self.layers(node, layers, BRANCH_SCALE)?;
                let shortcut = self.layers(node, shortcut, std::f64::consts::FRAC_1_SQRT_2)?;
                self.builder.sum(&[shortcut, branch])?
            }
        })
    }

    fn dense(&mut self, node: NodeId, outputs: usize, bias: bool, gain: f64) -> Result<NodeId> {
        let node = self.builder.flatten(node)?;
        let inputs = self.builder.shape(node)?[0];
        self.pay(outputs, inputs)?;
        let weight = self.weights((outputs, inputs), inputs, gain);
        let bias = bias.then(|| Array1::zeros(outputs));
        Ok(self.builder.dense(node, weight, bias)?)
    }

    /// Pays for the weights of a layer before they are made.
    fn pay(&self, outputs: usize, inputs: usize) -> Result<()> {
        let what = || {
            let numbers: Vec<String> = self.place.iter().map(usize::to_string).collect();
            let layer = match &numbers[..] {
                [] => "the layer to the logits".into(),
                numbers => format!("layer {}", numbers.join(".")),
            };
            format!("{layer}, with {outputs} outputs of {inputs} weights each,")
        };
        let size = COPIES * size_of::<T>();
        self.budget.array(&[outputs, inputs.max(1)], size, what)?;
        Ok(())
    }

    fn weights<D: Dimension>(
        &mut self,
        shape: impl ShapeBuilder<Dim = D>,
        inputs: usize,
        gain: f64,
    ) -> Array<T, D> {
        let deviation = (gain / inputs as f64).sqrt();
        let mut draw = || {
            let unit: f64 = self.random.sample(StandardNormal);
            T::from_f64(deviation * unit)
        };
        Array::from_shape_simple_fn(shape, &mut draw)
    }
}

/// How many weights an output of a convolution has.
fn taps(conv: &Conv, channels: usize) -> usize {
    let [height, width] = conv.window().kernel;
    let inputs = channels / conv.groups.max(1);
    inputs.saturating_mul(height).saturating_mul(width)
}

/// How many layers there are, those of branches included.
fn count(layers: &[Layer]) -> usize {
    let one = |layer: &Layer| {
        let Layer::Residual { layers, shortcut } = layer else {
            return 1;
        };
        1 + count(layers) + count(shortcut)
    };
    layers.iter().map(one).sum()
}
