//! Control: the exact linearisation of a network model at a state, how far it holds, and a
//! regulator made of it.
//!
//! A network `ẋ = f(x, u)` models a system. In the activation region of an operating point it *is*
//! `ẋ = A x + B u + c`: no remainder, until a unit switches; and where that happens is known. Run
//! it by `cargo run --release -p relugrad --example linearisation`.

use ndarray::{Array1, Array2, Axis, array, s};
use relugrad::{Loss, Mlp, Network, Norm, Objective, Result, Targets};

/// Seconds of a step.
const STEP: f64 = 0.1;

/// Rates of angle and angular velocity of a pendulum near its upper equilibrium, at these and a
/// torque.
fn pendulum(angle: f64, velocity: f64, torque: f64) -> [f64; 2] {
    [velocity, angle.sin() - 0.1 * velocity + torque]
}

/// A model of the system, fitted to samples of it.
fn model() -> Result<Network<f64>> {
    let wide = |i: usize, prime: usize| 2.0 * (i * prime % 1009) as f64 / 1009.0 - 1.0;
    let inputs = Array2::from_shape_fn((400, 3), |(i, j)| wide(i + 1, [31, 97, 389][j]));
    let outputs = inputs
        .rows()
        .into_iter()
        .flat_map(|row| pendulum(row[0], row[1], row[2]));
    let outputs = Array2::from_shape_vec((400, 2), outputs.collect()).expect("two numbers a row");
    let mut network = Mlp::new(&[3, 16, 16, 2]).build::<f64>(3)?;
    let (objective, targets) = (
        Objective::new(Loss::SquaredError),
        Targets::Values(outputs.view()),
    );
    let mut momentum = vec![0.0; network.parameters().len()];
    for _ in 0..3000 {
        let (_, gradient) = objective.gradient(&network, inputs.view(), &targets)?;
        let parameters = network.parameters_mut().values_mut().iter_mut();
        for ((p, g), m) in parameters.zip(gradient.values()).zip(&mut momentum) {
            *m = 0.9 * *m + g;
            *p -= 0.05 * *m;
        }
    }
    Ok(network)
}

/// The gain `K` of `u = −K x` that is optimal for `Σ ‖x‖² + 0.1 u²`, by iteration of Riccati's
/// equation.
fn regulator(a: &Array2<f64>, b: &Array2<f64>) -> Array2<f64> {
    let mut p: Array2<f64> = Array2::eye(2);
    let mut gain = Array2::zeros((1, 2));
    for _ in 0..500 {
        let (pa, pb) = (p.dot(a), p.dot(b));
        gain = b.t().dot(&pa) / (0.1 + b.t().dot(&pb)[(0, 0)]);
        p = Array2::eye(2) + a.t().dot(&pa) - a.t().dot(&pb).dot(&gain);
    }
    gain
}

fn main() -> Result<()> {
    let network = model()?;
    let operating = array![0.05, 0.0, 0.0];
    let region = network.region(operating.view())?;
    let (jacobian, offset) = region.affine_map()?;
    let (a, b) = (
        jacobian.slice(s![.., ..2]).to_owned(),
        jacobian.slice(s![.., 2..]).to_owned(),
    );
    println!("A =\n{a:.3}\nB =\n{b:.3}\nc = {offset:.4}");

    // The linearisation is the model itself as far as the nearest kink in any direction.
    let radius = region.kink_distances().get(Norm::Linf);
    println!("it is exact for changes of up to {radius:.4} of every entry");
    let near: Array1<f64> = &operating + &(array![0.9, -0.9, 0.9] * radius);
    let step = network.forward(near.view().insert_axis(Axis(0)))?;
    assert!(
        (jacobian.dot(&near) + &offset - step.row(0))
            .iter()
            .all(|e| e.abs() < 1e-12)
    );

    // Along the way of the regulator `next_crossing` would tell when to linearise anew; here the
    // first one does.
    let gain = regulator(&(Array2::eye(2) + STEP * &a), &(STEP * &b));
    println!("u = −K x with K = {gain:.2}");
    let mut state = array![0.3, 0.0];
    for _ in 0..200 {
        let torque = -gain.dot(&state);
        let rates = pendulum(state[0], state[1], torque[0]);
        state += &(STEP * &Array1::from_iter(rates));
    }
    println!("after 20 s from 0.3 rad: {state:.4}");
    assert!(state.iter().all(|x| x.abs() < 0.05));
    Ok(())
}

#[test]
fn it_runs() -> Result<()> {
    main()
}
