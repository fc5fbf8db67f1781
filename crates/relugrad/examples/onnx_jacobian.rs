//! Exact Jacobians of a network in an ONNX file.
//!
//! `cargo run --release -p relugrad --example onnx_jacobian -- model.onnx` reads any model of
//! affine maps and piecewise linear gates; without a file one is made. Inputs are random numbers
//! here; `relugrad derive` does the same from the command line.

use std::error::Error;

use ndarray::{Array2, Axis};
use relugrad::{Loss, Mlp};
use relugrad_io::{load_onnx, onnx_from_bytes, onnx_to_bytes};

fn main() -> Result<(), Box<dyn Error>> {
    let network = match std::env::args()
        .nth(1)
        .filter(|path| path.ends_with(".onnx"))
    {
        Some(path) => load_onnx(path)?.into_network(),
        None => {
            let made = Mlp::new(&[6, 32, 32, 3]).build::<f64>(0)?;
            onnx_from_bytes(&onnx_to_bytes(&made)?)?.into_network()
        }
    };
    let (k, d) = (network.outputs(), network.inputs());
    let wave = |(i, j): (usize, usize)| ((7 * i + 3 * j) as f64).sin();
    let inputs = Array2::from_shape_fn((4, d), wave);

    let trace = network.trace(inputs.view())?;
    let jacobian = trace.jacobian()?; // [B, K, D]
    let logits = trace.logits();
    let curvature = trace.curvature(&Loss::softmax_cross_entropy())?;
    let norms = curvature.spectral_norm()?;
    for (sample, j) in jacobian.outer_iter().enumerate() {
        let frobenius = (&j * &j).sum().sqrt();
        let (kinks, norm) = (trace.kinks()[sample], norms[sample]);
        println!(
            "sample {sample}: ‖J‖_F = {frobenius:.3}, ‖H‖₂ = {norm:.3}, {kinks} units on a kink"
        );
    }

    // Models are affine between kinks: a small step changes the logits by J times the step, without
    // any error but rounding.
    let delta = Array2::from_shape_fn((4, d), |(i, j)| 1e-7 * wave((j, i)));
    let moved = network.forward((&inputs + &delta).view())?;
    for sample in 0..4 {
        let expected = jacobian.index_axis(Axis(0), sample).dot(&delta.row(sample));
        let found = &moved.row(sample) - &logits.row(sample);
        assert!((0..k).all(|i| (found[i] - expected[i]).abs() < 1e-12 * (1.0 + logits[(sample, i)].abs())));
    }
    Ok(())
}

#[test]
fn it_runs() -> Result<(), Box<dyn Error>> {
    main()
}
