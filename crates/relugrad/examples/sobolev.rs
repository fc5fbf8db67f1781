//! Regression with derivatives: a network that fits values of a function and its gradients.
//!
//! The objective is `mean ½ (f − y)² + ½ λ ‖∇f − ∇y‖²` (Czarnecki et al. 2017, *Sobolev training
//! for neural networks*). The gradients of the target are data, one for each sample, so this is not
//! a penalty of a sample's own Jacobian; but the sweeps under all penalties are public. With
//! `A = ∂φ/∂J` the weight gradient of the pair of cotangents and tangents of `A` is all there is to
//! it, since `J` depends on no bias. Run it by `cargo run --release -p relugrad --example sobolev`.

use ndarray::{Array2, ArrayView2, Axis};
use relugrad::{Mlp, Network, Result, Seeds};

/// Values, and gradients as rows.
fn target(x: ArrayView2<f64>) -> (Array2<f64>, Array2<f64>) {
    let value = |x: f64, y: f64| (2.0 * x).sin() * y;
    let values = x
        .map_axis(Axis(1), |x| value(x[0], x[1]))
        .insert_axis(Axis(1));
    let gradients = Array2::from_shape_fn(x.dim(), |(i, axis)| match axis {
        0 => 2.0 * (2.0 * x[(i, 0)]).cos() * x[(i, 1)],
        _ => (2.0 * x[(i, 0)]).sin(),
    });
    (values, gradients)
}

/// Mean squared errors of values and gradients, and the derivative of the objective with respect to
/// the parameters.
fn step(network: &Network<f64>, x: ArrayView2<f64>, lambda: f64) -> Result<(f64, f64, Vec<f64>)> {
    let (values, gradients) = target(x);
    let (trace, samples) = (network.trace(x)?, x.nrows() as f64);
    let residual = &trace.logits() - &values;
    let mut derivative = trace.parameter_vjp((&residual / samples).view())?;

    let cotangents = trace.cotangents(Seeds::identity(1))?; // J, one row a sample
    let error = &cotangents.at_input() - &gradients.insert_axis(Axis(1));
    let tangents = trace.tangents((&error * (lambda / samples)).view())?; // of A = λ (J − ∇y)
    let of_gradients = trace.weight_gradient(&cotangents, &tangents)?;
    let pairs = derivative
        .values_mut()
        .iter_mut()
        .zip(of_gradients.values());
    pairs.for_each(|(sum, part)| *sum += part);
    let mean = |square: f64| square / samples;
    Ok((
        mean(residual.mapv(|r| r * r).sum()),
        mean(error.mapv(|e| e * e).sum()),
        derivative.values().to_vec(),
    ))
}

fn main() -> Result<()> {
    let grid = |n: usize| {
        let at = move |i: usize| 2.0 * i as f64 / (n - 1) as f64 - 1.0;
        Array2::from_shape_fn((n * n, 2), move |(i, axis)| {
            at(if axis == 0 { i / n } else { i % n })
        })
    };
    let (train, test) = (grid(8), grid(31));
    let mut errors = Vec::new();
    for lambda in [0.0, 0.1] {
        let mut network = Mlp::new(&[2, 128, 128, 1]).build::<f64>(0)?;
        let mut momentum = vec![0.0; network.parameters().len()];
        for _ in 0..4000 {
            let (_, _, gradient) = step(&network, train.view(), lambda)?;
            let parameters = network.parameters_mut().values_mut().iter_mut();
            for ((p, g), m) in parameters.zip(gradient).zip(&mut momentum) {
                *m = 0.9 * *m + g;
                *p -= 0.02 * *m;
            }
        }
        let (value, gradient, _) = step(&network, test.view(), lambda)?;
        println!("λ = {lambda}: test errors {value:.5} of values, {gradient:.4} of gradients");
        errors.push((value, gradient));
    }
    assert!(errors[1].0 < errors[0].0 && errors[1].1 < errors[0].1);
    Ok(())
}

#[test]
fn it_runs() -> Result<()> {
    main()
}
