//! How much of CURE's finite difference comes from kinks, before and after training, with and
//! without CURE.
//!
//! For networks as `relugrad compare` trains them on the digits, and for several steps `h`, the
//! change `Δ = ∇ℓ(x + hz) − ∇ℓ(x)` along `z = sign(g)/‖sign(g)‖` is split exactly into
//! `Δ = smooth + kinks` at every test sample. The two are not orthogonal, so their squared norms do
//! not add up to `‖Δ‖²`, but `⟨smooth, Δ⟩` and `⟨kinks, Δ⟩` do: the share of the kinks is
//! `Σ ⟨kinks, Δ⟩ / Σ ‖Δ‖²` over the samples.
//!
//! `cargo run --release -p relugrad-train --example kink_share [FILE.svg]` prints the table of
//! `docs/results.md` and draws its plot.

use std::error::Error;
use std::path::Path;

use ndarray::Array1;
use plotters::prelude::*;
use relugrad::{Direction, Loss, Mlp, Network, Objective, Penalty, gradient_change};
use relugrad_train::data::{Split, digits, stratified_split};
use relugrad_train::evaluate::Samples;
use relugrad_train::{Ramp, Result, Training, train};

const STEPS: [f64; 7] = [0.03, 0.1, 0.3, 0.75, 1.5, 3.0, 6.0];

/// Name, weight of CURE, and epochs of each network.
const NETWORKS: [(&str, f64, usize); 3] = [
    ("not trained", 0.0, 0),
    ("trained without a penalty", 0.0, 30),
    ("trained with CURE, λ = 0.3", 0.3, 30),
];

const COLOURS: [RGBColor; 3] = [RGBColor(120, 120, 120), BLACK, RGBColor(213, 94, 0)];

/// Means over samples for one network and step.
#[derive(Clone, Copy, Default)]
struct Means {
    crossings: f64,
    total: f64,
    smooth: f64,
    kinks: f64,
    /// `⟨kinks, Δ⟩`.
    projected: f64,
}

impl Means {
    fn share(&self) -> f64 {
        self.projected / self.total
    }
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let data = stratified_split(&digits(), 0.2, 0)?;
    let test: Samples<f64> = Samples::new(&data.test);
    println!("| network | h | crossings | ‖Δ‖² | ‖smooth‖² | ‖kinks‖² | share of kinks |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    let mut curves = Vec::new();
    for (name, lambda, epochs) in NETWORKS {
        let network = network(&data, lambda, epochs)?.cast::<f64>()?;
        let mut curve = Vec::new();
        for h in STEPS {
            let means = means(&network, &test, h)?;
            print_row(name, h, &means);
            curve.push((h, means.share()));
        }
        curves.push((name, curve));
    }
    if let Some(file) = std::env::args_os().nth(1) {
        draw(Path::new(&file), &curves)?;
    }
    Ok(())
}

fn network(data: &Split, lambda: f64, epochs: usize) -> Result<Network<f32>> {
    let mut network = Mlp::new(&[64, 128, 128, 10]).build::<f32>(0)?;
    if epochs == 0 {
        return Ok(network);
    }
    let cure = Penalty::Cure {
        step: 1.5,
        direction: Direction::Sign,
    };
    let objective = Objective::new(Loss::softmax_cross_entropy()).with(cure, lambda)?;
    let training = Training {
        epochs,
        ramp: Ramp::linear(3.0),
        ..Training::new(objective)
    };
    train(&mut network, data, &training, &mut ())?;
    Ok(network)
}

fn means(network: &Network<f64>, test: &Samples<f64>, h: f64) -> Result<Means> {
    let loss = Loss::softmax_cross_entropy();
    let trace = network.trace(test.images.view())?;
    let gradients = trace.input_gradient(&loss, &test.truth.targets())?;
    let squared = |v: &Array1<f64>| v.dot(v);
    let (mut means, n) = (Means::default(), test.len() as f64);
    for (i, g) in gradients.rows().into_iter().enumerate() {
        let signs: Array1<f64> = g
            .iter()
            .map(|&g| if g == 0.0 { 0.0 } else { g.signum() })
            .collect();
        let z = &signs / squared(&signs).sqrt().max(1.0);
        let pieces = network.pieces(test.images.row(i), z.view(), h)?;
        let targets = test.truth.part(i..i + 1);
        let change = gradient_change(&pieces, &loss, &targets)?;
        let total = &change.smooth + &change.kinks;
        means.crossings += (pieces.len() - 1) as f64 / n;
        means.total += squared(&total) / n;
        means.smooth += squared(&change.smooth) / n;
        means.kinks += squared(&change.kinks) / n;
        means.projected += change.kinks.dot(&total) / n;
    }
    Ok(means)
}

fn print_row(name: &str, h: f64, means: &Means) {
    let Means {
        crossings,
        total,
        smooth,
        kinks,
        ..
    } = means;
    let share = 100.0 * means.share();
    println!(
        "| {name} | {h} | {crossings:.1} | {total:.2e} | {smooth:.2e} | {kinks:.2e} | {share:.0} % |"
    );
}

/// A plot of the shares in percent against the step.
fn draw(
    file: &Path,
    curves: &[(&str, Vec<(f64, f64)>)],
) -> std::result::Result<(), Box<dyn Error>> {
    let root = SVGBackend::new(file, (640, 380)).into_drawing_area();
    root.fill(&WHITE)?;
    let shares = curves.iter().flat_map(|(_, curve)| curve);
    let (low, high) = shares.fold((0.0_f64, 1.0_f64), |(low, high), &(_, share)| {
        (low.min(share), high.max(share))
    });
    let (low, high) = (100.0 * low - 3.0, 100.0 * high + 3.0);
    let mut chart = ChartBuilder::on(&root)
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(56)
        .build_cartesian_2d((0.025..7.2).log_scale(), low..high)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(RGBColor(225, 225, 225))
        .x_desc("step h (input units, pixels in [0, 1])")
        .y_desc("share of kinks in CURE, %")
        .x_label_formatter(&|h| format!("{h}"))
        .y_label_formatter(&|share| format!("{share:.0}"))
        .label_style(("sans-serif", 14))
        .draw()?;
    for ((name, curve), colour) in curves.iter().zip(COLOURS) {
        let points = || curve.iter().map(|&(h, share)| (h, 100.0 * share));
        chart
            .draw_series(LineSeries::new(points(), colour.stroke_width(2)))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        chart.draw_series(points().map(|point| Circle::new(point, 4, colour.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::Coordinate(330, 30))
        .background_style(WHITE)
        .label_font(("sans-serif", 14))
        .draw()?;
    root.present()?;
    Ok(())
}
