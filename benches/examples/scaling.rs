//! How the time of a training step grows with batch, logits, features, depth, width, activity and
//! threads.
//!
//! Everything but the one quantity is as in a 256-256-256-10 with a batch of 64, half of its units
//! active, on one thread, `f32`. Prints a Markdown table for each quantity and draws all of them.
//! Run it in release mode:
//!
//!     cargo run --release -p benches --example scaling -- docs/scaling.svg

use std::error::Error;
use std::time::Duration;

use benches::{interleaved, objective, readable};
use ndarray::{Array2, Axis};
use plotters::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use relugrad::{Mlp, Network, Objective, Penalty, Targets, Workspace};

/// Rounds of interleaved measurements.
const ROUNDS: usize = 15;

/// Labels of the axes of times, in milliseconds.
const TICKS: [f64; 9] = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0];

/// Seed of weights and data.
const SEED: u64 = 20;

/// What is timed.
#[derive(Clone, Copy)]
struct Setting {
    batch: usize,
    logits: usize,
    features: usize,
    hidden: usize,
    width: usize,
    /// Percent of the units that are active.
    activity: usize,
    threads: usize,
}

const BASE: Setting = Setting {
    batch: 64,
    logits: 10,
    features: 256,
    hidden: 2,
    width: 256,
    activity: 50,
    threads: 1,
};

/// A quantity, the values that it takes, and how it is set.
type Quantity = (&'static str, &'static [usize], fn(&mut Setting, usize));

const QUANTITIES: [Quantity; 7] = [
    (
        "samples in the batch",
        &[8, 16, 32, 64, 128, 256, 512],
        |s, n| s.batch = n,
    ),
    ("logits", &[2, 5, 10, 20, 50, 100], |s, n| s.logits = n),
    (
        "features",
        &[64, 128, 256, 512, 1024, 2048, 4096],
        |s, n| s.features = n,
    ),
    ("hidden layers", &[1, 2, 3, 4, 6, 8], |s, n| s.hidden = n),
    (
        "units of a layer",
        &[32, 64, 128, 256, 512, 1024],
        |s, n| s.width = n,
    ),
    (
        "active units, percent",
        &[5, 10, 20, 30, 50, 70, 90],
        |s, n| s.activity = n,
    ),
    ("threads", &[1, 2, 4, 8], |s, n| s.threads = n),
];

/// The steps that are timed, in the order of the table's columns.
const STEPS: [&str; 3] = ["plain", "input-gradient", "jacobian"];

/// A value of a quantity with the times of the steps.
type Point = (usize, Vec<Duration>);

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1);
    let processors = std::thread::available_parallelism()?.get();
    let mut measured = Vec::new();
    for (name, values, set) in QUANTITIES {
        println!("\n| {name} | {} |", STEPS.join(" | "));
        println!("| ---: |{}", " ---: |".repeat(STEPS.len()));
        let mut points: Vec<Point> = Vec::new();
        for &value in values {
            let mut setting = BASE;
            set(&mut setting, value);
            if setting.threads > processors {
                break;
            }
            let times = times(setting)?;
            let cells: Vec<String> = times.iter().map(|&time| readable(time)).collect();
            println!("| {value} | {} |", cells.join(" | "));
            points.push((value, times));
        }
        measured.push((name, points));
    }
    match path {
        Some(path) => draw(&path, &measured),
        None => Ok(()),
    }
}

/// The median time of each step.
fn times(setting: Setting) -> Result<Vec<Duration>, Box<dyn Error>> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(setting.threads)
        .build()?;
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let inputs = Array2::from_shape_simple_fn((setting.batch, setting.features), || {
        random.sample::<f32, _>(StandardNormal)
    });
    let label = |_| random.random_range(0..setting.logits);
    let labels: Vec<usize> = (0..setting.batch).map(label).collect();
    let network = network(setting, &inputs)?;
    let objectives = [
        objective(&[]),
        objective(&[Penalty::InputGradient]),
        objective(&[Penalty::Jacobian]),
    ];
    let task = |objective: Objective| -> Box<dyn FnMut() + '_> {
        let (mut workspace, pool, labels) = (Workspace::new(), &pool, &labels);
        let (network, inputs) = (&network, inputs.view());
        Box::new(move || {
            let step = || {
                let targets = Targets::Classes(labels);
                objective.gradient_into(network, inputs, &targets, &mut workspace)
            };
            pool.install(step).expect("finite");
        })
    };
    Ok(interleaved(ROUNDS, &mut objectives.map(task)))
}

/// He-normal weights, and in each layer the bias at which the wanted share of its units is active
/// on the inputs.
fn network(setting: Setting, inputs: &Array2<f32>) -> Result<Network<f32>, Box<dyn Error>> {
    let mut widths = vec![setting.features];
    widths.extend(vec![setting.width; setting.hidden]);
    widths.push(setting.logits);
    let mut network = Mlp::new(&widths).build::<f32>(SEED)?;
    let layout = network.parameters().layout().to_vec();
    let mut below = inputs.clone();
    for layer in layout.chunks_exact(2).take(setting.hidden) {
        let values = network.parameters_mut().values_mut();
        let shape = (layer[0].shape()[0], layer[0].shape()[1]);
        let weight = ndarray::ArrayView2::from_shape(shape, &values[layer[0].range()])?;
        let mut z = below.dot(&weight.t());
        let mut sorted: Vec<f32> = z.iter().copied().collect();
        sorted.sort_unstable_by(f32::total_cmp);
        let bias = -sorted[(sorted.len() - 1) * (100 - setting.activity) / 100];
        values[layer[1].range()].fill(bias);
        z.mapv_inplace(|z| (z + bias).max(0.0));
        // Weights that keep the scale, whatever the activity.
        let scale = z
            .map_axis(Axis(1), |row| row.dot(&row))
            .mean()
            .unwrap_or(1.0);
        let scale = (shape.0 as f32 / scale.max(1e-6)).sqrt();
        values[layer[0].range()]
            .iter_mut()
            .for_each(|w| *w *= scale);
        values[layer[1].range()].fill(bias * scale);
        below = z * scale;
    }
    Ok(network)
}

/// One chart for each quantity, both axes logarithmic.
fn draw(path: &str, measured: &[(&str, Vec<Point>)]) -> Result<(), Box<dyn Error>> {
    let colours = [
        RGBColor(0, 114, 178),
        RGBColor(213, 94, 0),
        RGBColor(0, 158, 115),
    ];
    let root = SVGBackend::new(path, (1040, 560)).into_drawing_area();
    root.fill(&WHITE)?;
    for (area, (name, points)) in root.split_evenly((2, 4)).iter().zip(measured) {
        let milliseconds = |time: &Duration| 1e3 * time.as_secs_f64();
        let all = || points.iter().flat_map(|(_, times)| times).map(milliseconds);
        let bounds = all().fold((f64::MAX, 0.0f64), |(low, high), t| {
            (low.min(t), high.max(t))
        });
        let ends = (points[0].0 as f64, points[points.len() - 1].0 as f64);
        let mut chart = ChartBuilder::on(area)
            .caption(name, ("sans-serif", 15))
            .margin(8)
            .x_label_area_size(24)
            .y_label_area_size(48)
            .build_cartesian_2d(
                (ends.0..ends.1.max(1.01 * ends.0))
                    .log_scale()
                    .with_key_points(points.iter().map(|(x, _)| *x as f64).collect()),
                (0.8 * bounds.0..1.25 * bounds.1)
                    .log_scale()
                    .with_key_points(TICKS.to_vec()),
            )?;
        chart
            .configure_mesh()
            .disable_mesh()
            .x_label_formatter(&|x| format!("{x:.0}"))
            .y_label_formatter(&|t| format!("{t} ms"))
            .draw()?;
        for (step, &colour) in colours.iter().enumerate() {
            let line = || {
                points
                    .iter()
                    .map(|(x, times)| (*x as f64, milliseconds(&times[step])))
            };
            chart.draw_series(LineSeries::new(line(), colour.stroke_width(2)))?;
            chart.draw_series(line().map(|at| Circle::new(at, 3, colour.filled())))?;
        }
    }
    let legend = root.split_evenly((2, 4));
    for (i, (step, colour)) in STEPS.iter().zip(colours).enumerate() {
        let (x, y) = (60, 60 + 30 * i as i32);
        legend[7].draw(&PathElement::new(
            [(x, y), (x + 24, y)],
            colour.stroke_width(3),
        ))?;
        let style = ("sans-serif", 15).into_font();
        legend[7].draw(&Text::new(format!("{step} step"), (x + 32, y - 8), style))?;
    }
    root.present()?;
    Ok(())
}
