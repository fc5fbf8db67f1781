//! Networks with a batch of data, fixed by their sizes.

use ndarray::{Array2, s};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use relugrad::{Mlp, Network, Scalar, Targets};

/// Seed of the weights, and of the data.
const SEED: u64 = 20;

/// Widths of a ReLU network and the number of samples.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// `[D, n_1, …, K]`.
    pub widths: &'static [usize],
    /// Number of samples `B`.
    pub batch: usize,
}

/// The sizes of the benchmarks: those of networks for 8×8 digits, 28×28 digits and 32×32 colour
/// images.
pub const SIZES: [Size; 3] = [
    Size {
        widths: &[64, 128, 128, 10],
        batch: 64,
    },
    Size {
        widths: &[784, 256, 256, 10],
        batch: 32,
    },
    Size {
        widths: &[3072, 512, 10],
        batch: 8,
    },
];

/// A size at which a finite difference in every parameter is affordable.
pub const SMALL: Size = Size {
    widths: &[8, 16, 16, 4],
    batch: 8,
};

impl Size {
    /// Its part of a benchmark's name, such as `64-128-10x32` for a batch of 32.
    pub fn label(&self) -> String {
        let widths: Vec<String> = self.widths.iter().map(usize::to_string).collect();
        format!("{}x{}", widths.join("-"), self.batch)
    }

    /// The same network with fewer samples.
    pub fn samples(self, batch: usize) -> Size {
        Size { batch, ..self }
    }

    /// Floating-point operations of one row per sample through all layers: a forward pass, or one
    /// row of a sweep.
    pub fn row_flops(&self) -> u64 {
        let weights: usize = self.widths.windows(2).map(|pair| pair[0] * pair[1]).sum();
        2 * (weights * self.batch) as u64
    }

    /// Number of entries of the Jacobians of the batch, `B·K·D`.
    pub fn jacobian_entries(&self) -> u64 {
        let (d, k) = (self.widths[0], self.widths[self.widths.len() - 1]);
        (self.batch * d * k) as u64
    }
}

/// A network, a batch of standard normal inputs and random labels.
#[derive(Clone, Debug)]
pub struct Problem<T> {
    /// He-normal weights, biases 0.
    pub network: Network<T>,
    /// `[B, D]`.
    pub inputs: Array2<T>,
    /// `[B]`.
    pub labels: Vec<usize>,
}

impl<T: Scalar> Problem<T> {
    /// The problem of that size. All numbers are `f32` numbers, so that every precision sees the
    /// same problem.
    pub fn new(size: Size) -> Problem<T> {
        let network = Mlp::new(size.widths).build::<f32>(SEED);
        let network = network.expect("sizes are at least 1");
        let mut random = ChaCha8Rng::seed_from_u64(SEED);
        let inputs = Array2::from_shape_simple_fn((size.batch, network.inputs()), || {
            let x: f32 = random.sample(StandardNormal);
            T::from_f64(f64::from(x))
        });
        let label = |_| random.random_range(0..network.outputs());
        Problem {
            labels: (0..size.batch).map(label).collect(),
            network: network.cast().expect("every precision holds them"),
            inputs,
        }
    }

    /// The labels as targets.
    pub fn targets(&self) -> Targets<'_, T> {
        Targets::Classes(&self.labels)
    }

    /// The first samples only.
    pub fn first(&self, samples: usize) -> Problem<T> {
        Problem {
            network: self.network.clone(),
            inputs: self.inputs.slice(s![..samples, ..]).to_owned(),
            labels: self.labels[..samples].to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precisions_see_the_same_problem() {
        let (single, double) = (Problem::<f32>::new(SMALL), Problem::<f64>::new(SMALL));
        assert_eq!(single.inputs.mapv(f64::from), double.inputs);
        assert_eq!(single.labels, double.labels);
        let weights = single.network.cast::<f64>().unwrap();
        assert_eq!(weights.parameters(), double.network.parameters());
    }

    #[test]
    fn labels_and_counts_follow_from_the_size() {
        assert_eq!(SIZES[2].label(), "3072-512-10x8");
        assert_eq!(SMALL.row_flops(), 2 * 8 * (8 * 16 + 16 * 16 + 16 * 4));
        assert_eq!(SMALL.jacobian_entries(), 8 * 8 * 4);
    }
}
