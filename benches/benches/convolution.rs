//! How fast are convolutions, each direction alone, beside a dense product on the same thread?
//!
//! Throughput counts floating-point operations, two for each multiply-add of a dense convolution
//! (so products that skip zeros may show more than the machine can do). `forward` is a trace,
//! `tangent` a row forward, `cotangent` one backward and `gradient` the weight's; `-half` has every
//! other cotangent 0 at random, as behind a ReLU, `-quarter` three of four, as behind max-pooling.
//! Ids are `channels→outputs`, kernel, positions, and the stride if it is not 1.

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group,
    criterion_main,
};
use ndarray::{Array, Array2, Array3, Dimension, ShapeBuilder};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use relugrad::{Builder, Network, Node, Seeds, Tangents, Window};

/// Samples of a batch.
const BATCH: usize = 32;

/// A convolution: `[channels, outputs, kernel, side of the image, stride, groups]`.
const SHAPES: [[usize; 6]; 9] = [
    [3, 16, 3, 32, 1, 1],
    [16, 16, 3, 32, 1, 1],
    [16, 32, 3, 32, 2, 1],
    [32, 32, 3, 16, 1, 1],
    [32, 64, 3, 16, 2, 1],
    [64, 64, 3, 8, 1, 1],
    [1, 16, 5, 28, 1, 1],
    [16, 32, 5, 14, 1, 1],
    [32, 32, 3, 16, 1, 32],
];

fn random<D: Dimension, S: ShapeBuilder<Dim = D>>(shape: S, share: f64) -> Array<f32, D> {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    Array::from_shape_simple_fn(shape, || {
        let value: f32 = random.sample(StandardNormal);
        if random.random_bool(share) {
            value
        } else {
            0.0
        }
    })
}

fn network([channels, outputs, kernel, side, stride, groups]: [usize; 6]) -> Network<f32> {
    let mut builder = Builder::new();
    let x = builder
        .input_shaped(&[channels, side, side])
        .expect("an image");
    let weight = random((outputs, channels / groups, kernel, kernel), 1.0);
    let padding = [[kernel / 2; 2]; 2];
    let window = Window::new([kernel; 2])
        .stride([stride; 2])
        .padding(padding);
    let y = builder
        .conv2d(x, weight, None, window, groups)
        .expect("it fits");
    builder.build(y).expect("it has an output")
}

/// The four directions of a network of one layer.
fn directions(group: &mut BenchmarkGroup<WallTime>, name: &str, network: &Network<f32>) {
    let inputs: Array2<f32> = random((BATCH, network.inputs()), 1.0);
    let trace = network.trace(inputs.view()).expect("finite");
    let operations: usize = network.nodes().iter().map(Node::multiply_adds).sum();
    group.throughput(Throughput::Elements(2 * (BATCH * operations) as u64));
    group.bench_function(BenchmarkId::new("forward", name), |b| {
        b.iter(|| network.trace(black_box(inputs.view())).expect("finite"));
    });
    let rows: Array3<f32> = random((BATCH, 1, network.inputs()), 1.0);
    let mut tangents = trace.tangents(rows.view()).expect("finite");
    group.bench_function(BenchmarkId::new("tangent", name), |b| {
        b.iter(|| trace.tangents_into(black_box(rows.view()), &mut tangents));
    });
    for (kind, share) in [("", 1.0), ("-half", 0.5), ("-quarter", 0.25)] {
        let seeds: Array3<f32> = random((BATCH, 1, network.outputs()), share);
        let seeds = Seeds::PerSample(seeds.view());
        let mut cotangents = trace.cotangents(seeds).expect("finite");
        group.bench_function(BenchmarkId::new(format!("cotangent{kind}"), name), |b| {
            let seeds = black_box(seeds);
            b.iter(|| trace.cotangents_into(seeds, &mut cotangents));
        });
        group.bench_function(BenchmarkId::new(format!("gradient{kind}"), name), |b| {
            b.iter(|| trace.weight_gradient(black_box(&cotangents), &tangents));
        });
    }
}

fn dense(group: &mut BenchmarkGroup<WallTime>) {
    let mut builder = Builder::new();
    let x = builder.input(512).expect("a row");
    let y = builder.dense(x, random((512, 512), 1.0), None);
    let network = builder.build(y.expect("it fits")).expect("an output");
    let inputs: Array2<f32> = random((512, 512), 1.0);
    let trace = network.trace(inputs.view()).expect("finite");
    let rows: Array3<f32> = random((512, 1, 512), 1.0);
    let mut tangents = Tangents::default();
    group.throughput(Throughput::Elements(2 << 27));
    group.bench_function("dense/512x512x512", |b| {
        b.iter(|| trace.tangents_into(black_box(rows.view()), &mut tangents));
    });
}

fn convolution(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("convolution");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_millis(50));
    group.measurement_time(Duration::from_millis(200));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1);
    pool.build_global().expect("no other pool is there");
    dense(&mut group);
    for shape in SHAPES {
        let [channels, outputs, kernel, side, stride, groups] = shape;
        let positions = side.div_ceil(stride);
        let mut name = format!("{channels}→{outputs},{kernel}x{kernel},{positions}x{positions}");
        if stride > 1 {
            name += &format!(",{stride}");
        }
        if groups > 1 {
            name += ",depthwise";
        }
        directions(&mut group, &name, &network(shape));
    }
    group.finish();
}

criterion_group!(benches, convolution);
criterion_main!(benches);
