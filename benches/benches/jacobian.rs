//! What does the exact Jacobian of a batch cost beside finite differences of the forward pass?
//!
//! Throughput counts entries of the Jacobians, `B·K·D`. In units of [`Size::row_flops`], the
//! forward pass of the batch, the exact Jacobian takes `1 + K`, central differences `2D`, forward
//! differences `2D` as the engine's oracle does them and `D + 1` with the unmoved logits computed
//! once (`forward-once`). Where differences of the whole batch would take too long, they are taken
//! of fewer samples, and the size in the id says so.

use std::hint::black_box;
use std::time::Duration;

use benches::{Problem, SIZES, Size, forward_jacobian};
use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group,
    criterion_main,
};
use relugrad::{FiniteDifference, Scalar};

/// The step of all differences; their cost does not depend on it.
const STEP: f64 = 1e-4;

/// Most samples of the largest network of which differences are taken.
const FEW: usize = 2;

fn exact<T: Scalar>(group: &mut BenchmarkGroup<WallTime>, size: Size) {
    let problem = Problem::<T>::new(size);
    group.throughput(Throughput::Elements(size.jacobian_entries()));
    let id = BenchmarkId::new(format!("exact/{}", T::NAME), size.label());
    group.bench_with_input(id, &problem, |b, problem| {
        b.iter(|| {
            let trace = problem.network.trace(black_box(problem.inputs.view()));
            trace.expect("finite").jacobian().expect("finite")
        });
    });
}

fn differences<T: Scalar>(group: &mut BenchmarkGroup<WallTime>, size: Size) {
    let problem = Problem::<T>::new(size);
    group.throughput(Throughput::Elements(size.jacobian_entries()));
    let schemes = [
        ("forward", FiniteDifference::forward(STEP)),
        ("central", FiniteDifference::central(STEP)),
    ];
    for (name, difference) in schemes {
        let difference = difference.expect("a positive step");
        let id = BenchmarkId::new(format!("{name}/{}", T::NAME), size.label());
        group.bench_with_input(id, &problem, |b, problem| {
            b.iter(|| difference.jacobian(&problem.network, black_box(problem.inputs.view())));
        });
    }
    let id = BenchmarkId::new(format!("forward-once/{}", T::NAME), size.label());
    group.bench_with_input(id, &problem, |b, problem| {
        b.iter(|| forward_jacobian(black_box(problem), STEP));
    });
}

fn jacobian(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("jacobian");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_millis(500));
    group.measurement_time(Duration::from_secs(2));
    let [small, middle, large] = SIZES;
    exact::<f32>(&mut group, small);
    exact::<f64>(&mut group, small);
    differences::<f32>(&mut group, small);
    differences::<f64>(&mut group, small);
    exact::<f32>(&mut group, middle);
    exact::<f64>(&mut group, middle);
    differences::<f32>(&mut group, middle);
    exact::<f32>(&mut group, large);
    exact::<f32>(&mut group, large.samples(FEW));
    differences::<f32>(&mut group, large.samples(FEW));
    group.finish();
}

criterion_group!(benches, jacobian);
criterion_main!(benches);
