//! What does a training step cost with each penalty: value and gradient in all parameters of loss
//! and penalty?
//!
//! - `step`: the plain loss and five penalties.
//! - `gram`: every penalty that is a function of the Gram matrix alone, and `all` of them together,
//!   which share their sweeps. The target is `all ≤ 1.25 ×` the dearest one.
//! - `parameter-gradient`: the exact gradient against central differences. `every-parameter` is a
//!   whole gradient of a small network. `one-of-P` is the derivative along one parameter out of
//!   `P`: a whole gradient takes `P` times as long, which is extrapolated and not measured.
//!
//! Throughput counts samples. A forward pass takes [`Size::row_flops`] operations; a plain step
//! takes three of them, and a Gram penalty with `R` rows (`K`, or `K − 1` where only differences of
//! logits matter) `3R` more.

use std::hint::black_box;
use std::time::Duration;

use benches::{Problem, SIZES, SMALL, Size, objective, step_penalties, together};
use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group,
    criterion_main,
};
use ndarray::Array1;
use relugrad::{FiniteDifference, Objective, Penalty, Scalar, Workspace};

/// The step of all differences; their cost does not depend on it.
const STEP: f64 = 1e-4;

fn group<'c>(criterion: &'c mut Criterion, name: &str) -> BenchmarkGroup<'c, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(20).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_millis(300));
    group.measurement_time(Duration::from_secs(1));
    group
}

/// Times one exact step whose buffers are reused, as in training.
fn exact<T: Scalar>(
    group: &mut BenchmarkGroup<WallTime>,
    name: &str,
    size: Size,
    objective: &Objective,
) {
    let problem = Problem::<T>::new(size);
    let mut workspace = Workspace::new();
    group.throughput(Throughput::Elements(size.batch as u64));
    let id = BenchmarkId::new(format!("{name}/{}", T::NAME), size.label());
    group.bench_with_input(id, &problem, |b, problem| {
        b.iter(|| {
            let (network, inputs) = (&problem.network, black_box(problem.inputs.view()));
            objective
                .gradient_into(network, inputs, &problem.targets(), &mut workspace)
                .expect("finite");
        });
    });
}

fn step(criterion: &mut Criterion) {
    let mut group = group(criterion, "step");
    for size in SIZES {
        for (name, objective) in step_penalties() {
            exact::<f32>(&mut group, &name, size, &objective);
        }
    }
    group.finish();
}

fn gram(criterion: &mut Criterion) {
    let mut group = group(criterion, "gram");
    for size in SIZES {
        for (name, objective) in together() {
            exact::<f32>(&mut group, &name, size, &objective);
        }
    }
    group.finish();
}

/// Central differences in every parameter of the small network.
fn every_parameter(group: &mut BenchmarkGroup<WallTime>, objective: &Objective) {
    let problem = Problem::<f64>::new(SMALL);
    let central = FiniteDifference::central(STEP).expect("a positive step");
    let id = BenchmarkId::new("central-every-parameter/f64", SMALL.label());
    group.throughput(Throughput::Elements(SMALL.batch as u64));
    group.bench_with_input(id, &problem, |b, problem| {
        b.iter(|| {
            let (network, inputs) = (&problem.network, black_box(problem.inputs.view()));
            central.parameter_gradient(objective, network, inputs, &problem.targets())
        });
    });
}

/// A central difference along the first parameter; the id says out of how many.
fn one_parameter(group: &mut BenchmarkGroup<WallTime>, size: Size, objective: &Objective) {
    let problem = Problem::<f64>::new(size);
    let central = FiniteDifference::central(STEP).expect("a positive step");
    let parameters = problem.network.parameters().len();
    let mut direction = Array1::zeros(parameters);
    direction[0] = 1.0;
    let id = BenchmarkId::new(format!("central-one-of-{parameters}/f64"), size.label());
    group.throughput(Throughput::Elements(size.batch as u64));
    group.bench_with_input(id, &problem, |b, problem| {
        b.iter(|| {
            let (network, inputs) = (&problem.network, black_box(problem.inputs.view()));
            central.along(objective, network, inputs, &problem.targets(), &direction)
        });
    });
}

fn parameter_gradient(criterion: &mut Criterion) {
    let mut group = group(criterion, "parameter-gradient");
    let objective = objective(&[Penalty::Jacobian]);
    exact::<f64>(&mut group, "exact", SMALL, &objective);
    every_parameter(&mut group, &objective);
    for size in SIZES {
        exact::<f64>(&mut group, "exact", size, &objective);
        one_parameter(&mut group, size, &objective);
    }
    group.finish();
}

criterion_group!(benches, step, gram, parameter_gradient);
criterion_main!(benches);
