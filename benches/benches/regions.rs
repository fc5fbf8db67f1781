//! What does the geometry of regions cost?
//!
//! A walk along a segment crosses some hundred kinks. With incremental updates a crossing costs a
//! forward row behind its gate, and with the Jacobian a backward row before it; evaluated afresh it
//! would be a forward row, and `K` backward rows. Beside them the forward pass of one sample, the
//! distances to all hyperplanes of a region, and a slice.

use std::hint::black_box;

use benches::{Problem, SIZES, Size};
use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, SamplingMode, criterion_group, criterion_main,
};
use ndarray::{Array1, ArrayView1, Axis};
use relugrad::{Network, Plane};

/// Crosses everything on the segment and returns how many kinks there were.
fn walk(network: &Network<f64>, x: ArrayView1<f64>, z: ArrayView1<f64>, jacobian: bool) -> usize {
    let mut walk = network.walk(x, z, 1.0).expect("finite");
    if jacobian {
        walk.jacobian().expect("finite");
    }
    let mut kinks = 0;
    while walk.cross().expect("finite").is_some() {
        kinks += 1;
    }
    kinks
}

/// The Jacobian of every region on the segment, each from a trace of its own.
fn afresh(network: &Network<f64>, x: ArrayView1<f64>, z: ArrayView1<f64>) -> usize {
    let mut walk = network.walk(x, z, 1.0).expect("finite");
    let mut kinks = 0;
    loop {
        let middle = 0.5 * (walk.start() + walk.end());
        let at: Array1<f64> = &x + &(&z * middle);
        let trace = network.trace(at.view().insert_axis(Axis(0)));
        black_box(trace.expect("finite").jacobian().expect("finite"));
        if walk.cross().expect("finite").is_none() {
            return kinks;
        }
        kinks += 1;
    }
}

fn size(group: &mut BenchmarkGroup<WallTime>, size: Size) {
    let problem = Problem::<f64>::new(size);
    let network = &problem.network;
    let (x, y) = (problem.inputs.row(0), problem.inputs.row(1));
    let z = &y - &x;
    let mut run = |name: &str, work: &dyn Fn() -> usize| {
        group.bench_function(BenchmarkId::new(name, size.label()), |b| b.iter(work));
    };
    run("forward", &|| {
        let trace = network.trace(black_box(x).insert_axis(Axis(0)));
        trace.expect("finite").samples()
    });
    run("walk", &|| walk(network, black_box(x), z.view(), false));
    run("walk-with-jacobian", &|| {
        walk(network, black_box(x), z.view(), true)
    });
    run("jacobians-afresh", &|| {
        afresh(network, black_box(x), z.view())
    });
    run("distances", &|| {
        let region = network.region(black_box(x)).expect("finite");
        region.hyperplanes()
    });
    let points = [x, y, problem.inputs.row(2)];
    let plane = Plane::through(points).expect("no line");
    let length = z.dot(&z).sqrt();
    let window = [[0.0, 0.25 * length]; 2];
    run("slice", &|| {
        let cells = network.slice(black_box(&plane), window, 1 << 20);
        cells.expect("few enough").len()
    });
}

fn regions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("regions");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    for s in SIZES {
        size(&mut group, s);
    }
    group.finish();
}

criterion_group!(all, regions);
criterion_main!(all);
