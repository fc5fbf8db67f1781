//! Small networks, and files made by hand.

use ndarray::{Array1, Array2, ArrayD, IxDyn};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use relugrad::{BatchNorm, Builder, Gate, Network, NodeId, Scalar, Window};

/// Finite numbers of all magnitudes, zeros of both signs among them, fixed by the seed.
pub(crate) struct Numbers(ChaCha8Rng);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Numbers {
        Numbers(ChaCha8Rng::seed_from_u64(seed))
    }

    fn next<T: Scalar>(&mut self) -> T {
        match self.0.random_range(0..8) {
            0 => T::ZERO,
            1 => -T::ZERO,
            2 => T::from_f64(f64::from(f32::MAX)),
            3 => T::from_f64(f64::from(f32::from_bits(1))),
            _ => {
                let scale: i32 = self.0.random_range(-30..30);
                T::from_f64(self.0.random_range(-1.0..1.0) * 10f64.powi(scale))
            }
        }
    }

    fn vector<T: Scalar>(&mut self, length: usize) -> Array1<T> {
        Array1::from_shape_simple_fn(length, || self.next())
    }

    fn matrix<T: Scalar>(&mut self, rows: usize, columns: usize) -> Array2<T> {
        Array2::from_shape_simple_fn((rows, columns), || self.next())
    }
}

/// A residual network with every gate, layers with and without bias, and a name of its own.
pub(crate) fn every_operation<T: Scalar>(seed: u64) -> Network<T> {
    let mut numbers = Numbers::new(seed);
    let mut builder = Builder::new();
    let x = builder.input(3).unwrap();
    let mut branches: Vec<NodeId> = vec![x];
    let gates = [Gate::Relu, Gate::LeakyRelu { slope: 0.1 }, Gate::Abs];
    for (i, gate) in gates.into_iter().enumerate() {
        let bias = (i != 1).then(|| numbers.vector(3));
        let z = builder.dense(x, numbers.matrix(3, 3), bias).unwrap();
        branches.push(builder.gate(z, gate).unwrap());
    }
    let sum = builder.sum(&branches).unwrap();
    let a = builder.prelu(sum, numbers.vector(3)).unwrap();
    let twice = builder.sum(&[a, a, sum]).unwrap();
    let f = builder.dense(twice, numbers.matrix(2, 3), Some(numbers.vector(2)));
    let f = f.unwrap();
    builder.rename(f, "the \"head\".0 ü").unwrap();
    builder.build(f).unwrap()
}

/// Name, dtype, shape and bytes of a tensor.
pub(crate) type Tensor<'a> = (&'a str, &'a str, &'a [usize], Vec<u8>);

/// A file with this graph and these tensors, written without the code under test.
pub(crate) fn file(graph: &str, tensors: &[Tensor]) -> Vec<u8> {
    let graph = serde_json::to_string(graph).unwrap();
    raw(
        &format!(r#""__metadata__":{{"relugrad":{graph}}}"#),
        tensors,
    )
}

/// A file whose header begins with `first`.
pub(crate) fn raw(first: &str, tensors: &[Tensor]) -> Vec<u8> {
    let (mut header, mut data) = (format!("{{{first}"), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        let (start, end) = (data.len(), data.len() + bytes.len());
        header += &format!(
            r#"{}"{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{start},{end}]}}"#,
            if header.len() > 1 { "," } else { "" }
        );
        data.extend(bytes);
    }
    header.push('}');
    let length = (header.len() as u64).to_le_bytes();
    [&length, header.as_bytes(), &data].concat()
}

/// Little-endian bytes of `f64`.
pub(crate) fn doubles(values: &[f64]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

/// A network on images with every operation that [`every_operation`] lacks, of moderate numbers.
pub(crate) fn images(seed: u64) -> Network<f64> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut draw = |shape: &[usize]| {
        ArrayD::from_shape_simple_fn(IxDyn(shape), || random.random_range(-1.0..1.0))
    };
    let mut b = Builder::new();
    let x = b.input_shaped(&[2, 6, 5]).unwrap();
    let window = Window::new([3, 2]).stride([2, 1]).padding([[1, 0], [0, 2]]);
    let weight = draw(&[4, 1, 3, 2]).into_dimensionality().unwrap();
    let bias = draw(&[4]).into_dimensionality().unwrap();
    let z = b
        .conv2d(x, weight, Some(bias), window.dilation([1, 2]), 2)
        .unwrap();
    let mut vector = |n: usize| draw(&[n]).into_dimensionality().unwrap();
    let norm = |n: usize, vector: &mut dyn FnMut(usize) -> Array1<f64>| BatchNorm {
        scale: vector(n),
        shift: vector(n),
        mean: vector(n),
        variance: vector(n).mapv(f64::abs),
        epsilon: 0.01,
    };
    let z = b.batch_norm(z, 0, norm(4, &mut vector)).unwrap();
    let z = b.batch_norm(z, 2, norm(5, &mut vector)).unwrap();
    let a = b
        .gate(
            z,
            Gate::Clip {
                min: -0.4,
                max: 0.9,
            },
        )
        .unwrap();
    let pooled = b
        .average_pool(a, Window::new([2, 2]).padding([[1, 1], [0, 1]]), true)
        .unwrap();
    let pooled = b
        .max_pool(pooled, Window::new([2, 3]).stride([1, 2]).ceil(true))
        .unwrap();
    let slopes = draw(&[4, 1, 1]);
    let a = b.prelu_shared(pooled, slopes).unwrap();
    let scaled = b.scale(a, draw(&[4, 1, 1]), true).unwrap();
    let scaled = b.scale(scaled, draw(&[1, 3, 1]), false).unwrap();
    let shifted = b.shift(scaled, draw(&[]), true).unwrap();
    let shifted = b.shift(shifted, draw(&[3, 2]), false).unwrap();
    let a = b.gate(shifted, Gate::LeakyRelu { slope: 0.1 }).unwrap();
    let joined = b.concat(&[a, pooled, a], 1).unwrap();
    let turned = b.transpose(joined, &[2, 0, 1]).unwrap();
    let rows = draw(&[3, 9]).into_dimensionality().unwrap();
    let biases = draw(&[3]).into_dimensionality().unwrap();
    let dense = b.dense(turned, rows, Some(biases)).unwrap();
    let rows = draw(&[4, 3]).into_dimensionality().unwrap();
    let dense = b.dense(dense, rows, None).unwrap();
    let largest = b.max(dense, 1).unwrap();
    let padded = b.pad(largest, 0, [1, 2], -0.25).unwrap();
    let mean = b.mean(dense, &[0, 2]).unwrap();
    let flat = b.flatten(padded).unwrap();
    let all = b.concat(&[flat, mean], 0).unwrap();
    let rows = draw(&[3, 24]).into_dimensionality().unwrap();
    let f = b.dense(all, rows, None).unwrap();
    b.build(f).unwrap()
}
