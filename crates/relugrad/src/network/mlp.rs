//! Multilayer perceptrons with random weights.

use ndarray::{Array1, Array2};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

use super::{Builder, Gate, Network};
use crate::error::{Error, Result};
use crate::scalar::Scalar;

/// Distribution of random weights. Biases start at 0.
///
/// With `n` inputs and the gate's inactive slope `α`, both have variance `2 / ((1 + α²) n)`, which
/// keeps the mean square of the pre-activations from layer to layer (He et al. 2015, *Delving Deep
/// into Rectifiers*, equations 10 and 15). The last layer, which no gate follows, has variance
/// `1 / n`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Initialization {
    /// Normal with mean 0.
    #[default]
    HeNormal,
    /// Uniform on an interval around 0.
    HeUniform,
}

/// A recipe for a network of dense layers with gates between them.
///
/// | option | default | purpose |
/// | --- | --- | --- |
/// | `widths` | | `[D, n_1, …, n_{L−1}, K]`: inputs, hidden layers, logits |
/// | `gate` | ReLU | the gate after every layer but the last |
/// | `bias` | yes | whether the layers have biases |
/// | `initialization` | He-normal | distribution of the weights |
///
/// ```
/// use relugrad::{Gate, Mlp};
///
/// let network = Mlp::new(&[64, 128, 10]).gate(Gate::Abs).build::<f32>(7)?;
/// assert_eq!(network.parameters().len(), 64 * 128 + 128 + 128 * 10 + 10);
/// # Ok::<(), relugrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Mlp {
    widths: Vec<usize>,
    gate: Gate,
    bias: bool,
    initialization: Initialization,
}

impl Mlp {
    /// Dense layers of the given widths, the first being the number of inputs.
    pub fn new(widths: &[usize]) -> Mlp {
        Mlp {
            widths: widths.to_vec(),
            gate: Gate::Relu,
            bias: true,
            initialization: Initialization::HeNormal,
        }
    }

    /// Uses this gate after every layer but the last.
    pub fn gate(mut self, gate: Gate) -> Mlp {
        self.gate = gate;
        self
    }

    /// Whether the layers have biases.
    pub fn bias(mut self, bias: bool) -> Mlp {
        self.bias = bias;
        self
    }

    /// Draws the weights from this distribution.
    pub fn initialization(mut self, initialization: Initialization) -> Mlp {
        self.initialization = initialization;
        self
    }

    /// Draws the weights. Equal seeds give equal networks; `f32` weights are the rounded `f64`
    /// ones.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for fewer than two widths, [`Error::ZeroWidth`], or a gate's slope
    /// that is not finite, and [`Error::TooLarge`].
    pub fn build<T: Scalar>(&self, seed: u64) -> Result<Network<T>> {
        if self.widths.len() < 2 {
            return Err(Error::OutOfRange {
                option: "number of widths".into(),
                value: self.widths.len() as f64,
                expected: "at least 2 (inputs and outputs)",
            });
        }
        if !self.fits::<T>() {
            return Err(Error::TooLarge {
                widths: self.widths.clone(),
            });
        }
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut builder = Builder::new();
        let mut node = builder.input(self.widths[0])?;
        let layers = self.widths.len() - 1;
        for (layer, pair) in self.widths.windows(2).enumerate() {
            let last = layer + 1 == layers;
            let weight = self.weight(pair[1], pair[0], last, &mut random);
            let bias = self.bias.then(|| Array1::zeros(pair[1]));
            node = builder.dense(node, weight, bias)?;
            if !last {
                node = builder.gate(node, self.gate)?;
            }
        }
        builder.build(node)
    }

    /// Whether all weights and biases can be held in memory, as far as the allocator knows.
    fn fits<T>(&self) -> bool {
        let mut layers = self.widths.windows(2);
        let add = |sum: usize, pair: &[usize]| {
            let inputs = pair[0].checked_add(1)?;
            inputs.checked_mul(pair[1])?.checked_add(sum)
        };
        let entries = layers.try_fold(0, add);
        entries.is_some_and(|entries| Vec::<T>::new().try_reserve_exact(entries).is_ok())
    }

    fn weight<T: Scalar>(
        &self,
        outputs: usize,
        inputs: usize,
        last: bool,
        random: &mut ChaCha8Rng,
    ) -> Array2<T> {
        let slope = if last {
            1.0
        } else {
            self.gate.inactive_slope()
        };
        let deviation = (2.0 / ((1.0 + slope * slope) * inputs as f64)).sqrt();
        Array2::from_shape_simple_fn((outputs, inputs), || {
            let unit: f64 = match self.initialization {
                Initialization::HeNormal => random.sample(StandardNormal),
                Initialization::HeUniform => 3f64.sqrt() * random.random_range(-1.0..1.0),
            };
            T::from_f64(deviation * unit)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean_square(initialization: Initialization, gate: Gate, layer: usize) -> f64 {
        let mlp = Mlp::new(&[200, 300, 100]).gate(gate);
        let network: Network<f64> = mlp.initialization(initialization).build(1).unwrap();
        let weight = network.parameters().array(2 * layer).unwrap();
        weight.iter().map(|w| w * w).sum::<f64>() / weight.len() as f64
    }

    #[test]
    fn variances_follow_the_gate_and_the_last_layer_has_none() {
        for initialization in [Initialization::HeNormal, Initialization::HeUniform] {
            let close = |found: f64, expected: f64| (found / expected - 1.0).abs() < 0.05;
            assert!(close(
                mean_square(initialization, Gate::Relu, 0),
                2.0 / 200.0
            ));
            assert!(close(
                mean_square(initialization, Gate::Abs, 0),
                1.0 / 200.0
            ));
            assert!(close(
                mean_square(initialization, Gate::Relu, 1),
                1.0 / 300.0
            ));
        }
    }

    #[test]
    fn equal_seeds_give_equal_networks() {
        let weights = |seed| {
            let network = Mlp::new(&[3, 4, 2]).build::<f64>(seed).unwrap();
            network.parameters().values().to_vec()
        };
        assert_eq!(weights(5), weights(5));
        assert_ne!(weights(5), weights(6));
    }

    #[test]
    fn too_few_or_empty_layers_are_refused() {
        assert!(matches!(
            Mlp::new(&[3]).build::<f32>(0),
            Err(Error::OutOfRange { .. })
        ));
        assert!(matches!(
            Mlp::new(&[3, 0, 2]).build::<f32>(0),
            Err(Error::ZeroWidth { .. })
        ));
        for width in [1 << 40, usize::MAX] {
            let huge = Mlp::new(&[width, width, 2]).build::<f32>(0);
            assert!(matches!(huge, Err(Error::TooLarge { .. })));
        }
    }
}
