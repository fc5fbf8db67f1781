//! What do the curvature of a batch and its products with vectors cost?
//!
//! In units of [`Size::row_flops`], the forward pass of the batch, a Hessian-vector product of
//! every sample takes 3, by central differences of the input gradient 4, and the norm of every
//! Hessian `1 + K`, all with the forward pass and with every unit active.

use std::hint::black_box;
use std::time::Duration;

use benches::{Problem, SIZES, Size};
use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, SamplingMode, criterion_group, criterion_main,
};
use relugrad::{FiniteDifference, Loss};

/// The step of differences; their cost does not depend on it.
const STEP: f64 = 1e-4;

fn size(group: &mut BenchmarkGroup<WallTime>, size: Size) {
    let problem = Problem::<f32>::new(size);
    let (network, loss) = (&problem.network, Loss::softmax_cross_entropy());
    let vector = problem.inputs.mapv(f32::sin);
    group.bench_function(BenchmarkId::new("product", size.label()), |b| {
        b.iter(|| {
            let trace = network
                .trace(black_box(problem.inputs.view()))
                .expect("finite");
            let curvature = trace.curvature(&loss).expect("the loss fits");
            curvature.apply(vector.view()).expect("the shape fits")
        });
    });
    let difference = FiniteDifference::central(STEP).expect("a positive step");
    group.bench_function(
        BenchmarkId::new("product-by-differences", size.label()),
        |b| {
            b.iter(|| {
                let inputs = black_box(problem.inputs.view());
                let vector = vector.view();
                difference.hvp(network, &loss, inputs, &problem.targets(), vector)
            });
        },
    );
    group.bench_function(BenchmarkId::new("norm", size.label()), |b| {
        b.iter(|| {
            let trace = network
                .trace(black_box(problem.inputs.view()))
                .expect("finite");
            trace
                .curvature(&loss)
                .expect("the loss fits")
                .frobenius_norm()
                .expect("finite")
        });
    });
}

fn curvature(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("curvature");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_millis(500));
    group.measurement_time(Duration::from_secs(2));
    SIZES.iter().for_each(|&each| size(&mut group, each));
    group.finish();
}

criterion_group!(benches, curvature);
criterion_main!(benches);
