//! A loss of one's own: counts that a network predicts, by Poisson's likelihood.
//!
//! The network gives the logarithm `f` of a rate, so that up to a constant of the data the loss is
//! `ℓ = Σ_k e^{f_k} − y_k f_k`, with `r = e^f − y` and `S = diag(e^f)`. With these every penalty
//! has an exact gradient; here the trace of the Hessian of the loss in the input keeps the rate
//! smooth. Run it by `cargo run --release -p relugrad --example own_loss`.

use ndarray::{Array2, Axis};
use relugrad::loss::{LossFunction, TargetKind};
use relugrad::{FiniteDifference, Loss, Mlp, Objective, Penalty, Result, Targets, Workspace};

#[derive(Debug)]
struct Poisson;

impl LossFunction for Poisson {
    fn name(&self) -> &str {
        "poisson"
    }

    fn check(&self, targets: TargetKind, _: usize) -> std::result::Result<(), String> {
        match targets {
            TargetKind::Values => Ok(()),
            TargetKind::Classes | TargetKind::Probabilities => {
                Err("counts values; take softmax cross-entropy for classes".to_owned())
            }
        }
    }

    /// The state, which the other functions are given, holds the rates.
    fn evaluate(&self, f: &[f64], y: &[f64], r: &mut [f64], state: &mut [f64]) -> f64 {
        let mut loss = 0.0;
        for k in 0..f.len() {
            state[k] = f[k].exp();
            r[k] = state[k] - y[k];
            loss += state[k] - y[k] * f[k];
        }
        loss
    }

    /// `S v` for every row `v`.
    fn hessian_times(&self, state: &[f64], rows: &[f64], out: &mut [f64]) {
        let rates = state[..state.len() / 2].iter().cycle();
        let entries = out.iter_mut().zip(rows).zip(rates);
        entries.for_each(|((out, v), rate)| *out = rate * v);
    }

    /// `∂⟨S̄, S⟩/∂f_k = S̄_kk e^{f_k}`.
    fn hessian_pullback(&self, state: &[f64], s_bar: &[f64], out: &mut [f64]) {
        let diagonal = s_bar.iter().step_by(out.len() + 1);
        let entries = out.iter_mut().zip(diagonal).zip(state);
        entries.for_each(|((out, s), rate)| *out = s * rate);
    }
}

fn main() -> Result<()> {
    // Counts around the rate 2 + 1.5 sin 3x, as a fixed sequence of remainders makes them.
    let x = Array2::from_shape_fn((200, 1), |(i, _)| (i as f64 + 0.5) / 100.0 - 1.0);
    let rate = x.mapv(|x| 2.0 + 1.5 * (3.0 * x).sin());
    let noise = |i: usize| (i * 7919 % 200) as f64 / 200.0;
    let y = Array2::from_shape_fn((200, 1), |(i, _)| (rate[(i, 0)] + noise(i)).floor());
    let targets = Targets::Values(y.view());

    let mut network = Mlp::new(&[1, 32, 32, 1]).build::<f64>(0)?;
    let objective = Objective::new(Loss::own(&Poisson)).with(Penalty::CurvatureTrace, 0.001)?;

    // The formulas above against differences of the loss.
    let (_, gradient) = objective.gradient(&network, x.view(), &targets)?;
    let check = FiniteDifference::central(1e-6)?;
    let estimate = check.parameter_gradient(&objective, &network, x.view(), &targets)?;
    let pairs = gradient.values().iter().zip(estimate.values());
    let error = pairs.fold(0.0, |most: f64, (a, b)| most.max((a - b).abs()));
    println!("largest error of the gradient: {error:.1e}");
    assert!(error < 1e-6);

    let mut workspace = Workspace::new();
    for step in 0..=1000 {
        objective.gradient_into(&network, x.view(), &targets, &mut workspace)?;
        let found = workspace.evaluation().expect("it was just evaluated");
        if step % 250 == 0 {
            println!(
                "step {step:4}: loss {:.4}, tr H {:.3}",
                found.loss, found.penalties[0]
            );
        }
        let gradient = workspace.gradient().expect("it was just computed").values();
        let parameters = network.parameters_mut().values_mut().iter_mut();
        parameters.zip(gradient).for_each(|(p, g)| *p -= 0.05 * g);
    }
    let found = network.forward(x.view())?.mapv(f64::exp);
    let error = (found - rate)
        .mapv(f64::abs)
        .mean_axis(Axis(0))
        .expect("samples");
    println!("mean error of the rate: {:.2}", error[0]);
    assert!(error[0] < 0.3);
    Ok(())
}

#[test]
fn it_runs() -> Result<()> {
    main()
}
