//! How much of CURE's finite difference comes from kinks, before and after training with CURE.
//!
//! For networks trained on the digits without a penalty and with CURE (as `relugrad compare` trains them), and for
//! several steps `h`, the change `Δ = ∇ℓ(x + hz) − ∇ℓ(x)` along `z = sign(g)/‖sign(g)‖` is split exactly into
//! `Δ = smooth + kinks` at every test sample. The two are not orthogonal, so their squared norms do not add up to
//! `‖Δ‖²`; the table gives the means of all three.
//!
//! `cargo run --release -p relugrad-train --example kink_share` prints the table of `docs/results.md`.

use ndarray::Array1;
use relugrad::{Direction, Loss, Mlp, Network, Objective, Penalty, Targets, gradient_change};
use relugrad_train::data::{digits, stratified_split};
use relugrad_train::evaluate::Samples;
use relugrad_train::{Result, Training, train};

const STEPS: [f64; 5] = [0.1, 0.3, 0.75, 1.5, 3.0];

/// Sums over samples: crossings, `‖Δ‖²`, `‖smooth‖²`, `‖kinks‖²`.
type Sums = [f64; 4];

fn main() -> Result<()> {
    let data = stratified_split(&digits(), 0.2, 0)?;
    let test: Samples<f64> = Samples::new(&data.test);
    println!("| trained with | h | crossings | ‖Δ‖² | ‖smooth‖² | ‖kinks‖² |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: |");
    let cure = Penalty::Cure {
        step: 1.5,
        direction: Direction::Sign,
    };
    for (name, lambda) in [("nothing", 0.0), ("cure, λ = 0.3", 0.3)] {
        let objective = Objective::new(Loss::softmax_cross_entropy()).with(cure.clone(), lambda)?;
        let training = Training {
            warmup_epochs: 3.0,
            ..Training::new(objective)
        };
        let mut network = Mlp::new(&[64, 128, 128, 10]).build::<f32>(0)?;
        train(&mut network, &data, &training, &mut ())?;
        let network = network.cast::<f64>();
        for h in STEPS {
            let means = sums(&network, &test, h)?.map(|sum| sum / test.len() as f64);
            let [crossings, total, smooth, kinks] = means;
            println!(
                "| {name} | {h} | {crossings:.1} | {total:.3e} | {smooth:.3e} | {kinks:.3e} |"
            );
        }
    }
    Ok(())
}

fn sums(network: &Network<f64>, test: &Samples<f64>, h: f64) -> Result<Sums> {
    let loss = Loss::softmax_cross_entropy();
    let trace = network.trace(test.images.view())?;
    let gradients = trace.input_gradient(&loss, &Targets::Classes(&test.labels))?;
    let squared = |v: &Array1<f64>| v.dot(v);
    let mut sums = Sums::default();
    for (i, g) in gradients.rows().into_iter().enumerate() {
        let signs: Array1<f64> = g
            .iter()
            .map(|&g| if g == 0.0 { 0.0 } else { g.signum() })
            .collect();
        let z = &signs / squared(&signs).sqrt().max(1.0);
        let pieces = network.pieces(test.images.row(i), z.view(), h)?;
        let targets = Targets::Classes(&test.labels[i..=i]);
        let change = gradient_change(&pieces, &loss, &targets)?;
        let total = &change.smooth + &change.kinks;
        let sample = [
            (pieces.len() - 1) as f64,
            squared(&total),
            squared(&change.smooth),
            squared(&change.kinks),
        ];
        sums.iter_mut()
            .zip(sample)
            .for_each(|(sum, value)| *sum += value);
    }
    Ok(sums)
}
