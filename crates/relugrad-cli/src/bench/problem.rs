//! The network and the data that are timed.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use ndarray::{Array1, Array2, Array4};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use relugrad::loss::TargetKind;
use relugrad::{Builder, Loss, Mlp, Network, Scalar, Window};
use relugrad_io::open_file;

use super::arguments::Arguments;

/// A network with a batch.
pub(super) struct Problem<T> {
    pub(super) network: Network<T>,
    /// `[B, D]`.
    pub(super) inputs: Array2<T>,
    /// `v` of Hessian-vector products; `[B, D]`.
    pub(super) vector: Array2<T>,
    pub(super) labels: Vec<usize>,
}

impl<T: Scalar> Problem<T> {
    pub(super) fn new(arguments: &Arguments) -> Result<Problem<T>> {
        let mut network = network(&arguments.net, arguments.seed)?;
        let shape = (arguments.batch, network.inputs());
        let mut random = ChaCha8Rng::seed_from_u64(arguments.seed.wrapping_add(1));
        let mut normal = || Array2::from_shape_simple_fn(shape, || random.sample(StandardNormal));
        let (mut inputs, mut vector): (Array2<f32>, Array2<f32>) = (normal(), normal());
        let classes = network.outputs().max(2);
        let mut labels: Vec<usize> = (0..arguments.batch)
            .map(|_| random.random_range(0..classes))
            .collect();
        if let Some(folder) = &arguments.weights {
            read_parameters(folder, &mut network)?;
            inputs = read_rows(&folder.join("x.bin"), shape)?;
            if folder.join("v.bin").exists() {
                vector = read_rows(&folder.join("v.bin"), shape)?;
            }
            labels = read_labels(&folder.join("y.bin"), arguments.batch, classes)?;
        }
        Ok(Problem {
            network: network.cast()?,
            inputs: inputs.mapv(|x| T::from_f64(x.into())),
            vector: vector.mapv(|x| T::from_f64(x.into())),
            labels,
        })
    }
}

impl<T: Scalar> Problem<T> {
    /// The usual loss for classes.
    pub(super) fn loss(&self) -> Loss {
        Loss::for_targets(TargetKind::Classes, self.network.outputs())
    }
}

fn network(net: &str, seed: u64) -> Result<Network<f32>> {
    if net == "lenet" {
        return Ok(lenet(seed)?);
    }
    let widths: Option<Vec<usize>> = net.split('-').map(|width| width.parse().ok()).collect();
    match widths {
        Some(widths) if widths.len() > 1 => Ok(Mlp::new(&widths).build(seed)?),
        _ if Path::new(net).exists() => Ok(relugrad_io::load_model(net)?.network().cast()?),
        _ => bail!(
            "`{net}` is neither a file nor a network; give widths such as 784-512-10, lenet, or a model file"
        ),
    }
}

/// Convolutions of 5×5 to 16 and 32 channels, each with ReLU and max-pooling, then dense layers of
/// 512 and 10.
fn lenet(seed: u64) -> relugrad::Result<Network<f32>> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut entry = |inputs: usize| {
        let normal: f32 = random.sample(StandardNormal);
        normal * (2.0 / inputs as f32).sqrt()
    };
    let mut builder = Builder::new();
    let mut node = builder.input_shaped(&[1, 28, 28])?;
    for (inputs, outputs) in [(1, 16), (16, 32)] {
        let shape = (outputs, inputs, 5, 5);
        let weight = Array4::from_shape_simple_fn(shape, || entry(25 * inputs));
        let window = Window::new([5, 5]).padding([[2, 2], [2, 2]]);
        node = builder.conv2d(node, weight, Some(Array1::zeros(outputs)), window, 1)?;
        node = builder.relu(node)?;
        node = builder.max_pool(node, Window::new([2, 2]).stride([2, 2]))?;
    }
    node = builder.flatten(node)?;
    let mut dense = |builder: &mut Builder<f32>, node, inputs, outputs| {
        let weight = Array2::from_shape_simple_fn((outputs, inputs), || entry(inputs));
        builder.dense(node, weight, Some(Array1::zeros(outputs)))
    };
    node = dense(&mut builder, node, 32 * 7 * 7, 512)?;
    node = builder.relu(node)?;
    node = dense(&mut builder, node, 512, 10)?;
    builder.build(node)
}

/// The numbers of a file, which must be so many.
fn read<const N: usize, V>(path: &Path, count: usize, value: fn([u8; N]) -> V) -> Result<Vec<V>> {
    let (mut file, length) = open_file(path)?;
    if count.checked_mul(N).map(|needed| needed as u64) != Some(length) {
        bail!(
            "{} has {length} bytes, but {count} numbers of {N} bytes are needed",
            path.display()
        );
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let (numbers, _) = bytes.as_chunks::<N>();
    Ok(numbers.iter().map(|&number| value(number)).collect())
}

fn read_floats(path: &Path, count: usize) -> Result<Vec<f32>> {
    let values = read(path, count, f32::from_le_bytes)?;
    if let Some(place) = values.iter().position(|v| !v.is_finite()) {
        bail!("{}: entry {place} is {}", path.display(), values[place]);
    }
    Ok(values)
}

fn read_rows(path: &Path, shape: (usize, usize)) -> Result<Array2<f32>> {
    let values = read_floats(path, shape.0 * shape.1)?;
    Ok(Array2::from_shape_vec(shape, values)?)
}

fn read_labels(path: &Path, batch: usize, classes: usize) -> Result<Vec<usize>> {
    let labels = read(path, batch, i64::from_le_bytes)?;
    let label = |&y: &i64| usize::try_from(y).ok().filter(|y| *y < classes);
    let known: Option<Vec<usize>> = labels.iter().map(label).collect();
    known.with_context(|| format!("{}: labels must be less than {classes}", path.display()))
}

/// Reads `w0.bin`, `b0.bin`, … into the parameters, which must be weights and biases.
fn read_parameters(folder: &Path, network: &mut Network<f32>) -> Result<()> {
    let (mut values, mut layer) = (Vec::new(), 0_usize);
    for info in network.parameters().layout() {
        let name = match info.shape().len() {
            1 => format!("b{}.bin", layer - 1),
            _ => {
                layer += 1;
                format!("w{}.bin", layer - 1)
            }
        };
        values.extend(read_floats(&folder.join(name), info.range().len())?);
    }
    network.parameters_mut().assign(&values)?;
    Ok(())
}
