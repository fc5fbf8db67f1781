//! Passes: what goes back from derivatives that a host gives.

use std::sync::Arc;

use ndarray::{Array2, Array3, Array4, Axis};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use relugrad::{Builder, Gate, Mlp, Network, Parameters, Pass, Seeds, Window};
use relugrad_tests::cases::{Case, Shapes};
use relugrad_tests::run::{Residual, property};
use relugrad_tests::tolerance::relative_error;

/// Derivatives as a host may give them, with no symmetry.
struct Bars {
    logits: Array2<f64>,
    gram: Array3<f64>,
    jacobian: Array3<f64>,
    u: Array2<f64>,
    vjp: Array2<f64>,
}

fn bars(network: &Network<f64>, b: usize, mut random: ChaCha8Rng) -> Bars {
    let (k, d) = (network.outputs(), network.inputs());
    let mut entry = || random.random_range(-1.0..1.0);
    Bars {
        logits: Array2::from_shape_simple_fn((b, k), &mut entry),
        gram: Array3::from_shape_simple_fn((b, k, k), &mut entry),
        jacobian: Array3::from_shape_simple_fn((b, k, d), &mut entry),
        u: Array2::from_shape_simple_fn((b, k), &mut entry),
        vjp: Array2::from_shape_simple_fn((b, d), &mut entry),
    }
}

/// What the sweeps and the weight gradient say of the same derivatives, one after the other.
fn expected(network: &Network<f64>, batch: &Array2<f64>, bars: &Bars) -> [Vec<f64>; 4] {
    let trace = network.trace(batch.view()).unwrap();
    let jacobian = trace.jacobian().unwrap();
    let mut rows = Array3::zeros(jacobian.raw_dim());
    let samples = rows.outer_iter_mut().zip(jacobian.outer_iter());
    for ((mut a, j), bar) in samples.zip(bars.gram.outer_iter()) {
        a.assign(&(&bar + &bar.t()).dot(&j));
    }
    let pair = |seeds: Seeds<f64>, rows: &Array3<f64>| {
        let cotangents = trace.cotangents(seeds).unwrap();
        let tangents = trace.tangents(rows.view()).unwrap();
        let gradient = trace.weight_gradient(&cotangents, &tangents).unwrap();
        gradient.into_values()
    };
    let all = Seeds::identity(network.outputs());
    let own = Seeds::PerSample(bars.u.view().insert_axis(Axis(1)));
    let logits = trace.parameter_vjp(bars.logits.view()).unwrap();
    [
        logits.into_values(),
        pair(all, &rows),
        pair(all, &bars.jacobian),
        pair(own, &bars.vjp.clone().insert_axis(Axis(1))),
    ]
}

/// The four parts of a gradient, each alone.
fn found(pass: &mut Pass<f64>, bars: &Bars) -> [Vec<f64>; 4] {
    let zero = pass.network().parameters().zeros_like();
    let alone = |add: &mut dyn FnMut(&mut Parameters<f64>)| {
        let mut gradient = zero.clone();
        add(&mut gradient);
        gradient.into_values()
    };
    [
        alone(&mut |to| {
            let x = pass.add_logits_gradient(bars.logits.view(), to, false);
            assert!(x.unwrap().is_none());
        }),
        alone(&mut |to| pass.add_gram_gradient(bars.gram.view(), to).unwrap()),
        alone(&mut |to| {
            pass.add_jacobian_gradient(bars.jacobian.view(), to)
                .unwrap();
        }),
        alone(&mut |to| {
            let u_bar = pass.add_vjp_gradient(bars.u.view(), bars.vjp.view(), to);
            let jvp = pass.trace().jvp(bars.vjp.view()).unwrap();
            assert_eq!(u_bar.unwrap(), jvp);
        }),
    ]
}

fn same(
    case: &Case,
    residual: &Residual,
    found: &[Vec<f64>; 4],
    expected: &[Vec<f64>; 4],
) -> Result<(), TestCaseError> {
    let names = ["logits", "gram", "jacobian", "vjp"];
    for ((name, found), expected) in names.iter().zip(found).zip(expected) {
        let scale = expected.iter().fold(0.0, |most: f64, g| most.max(g.abs()));
        let scale = scale.max(case.sizes().0).max(case.sizes().1.powi(2));
        residual.equal_all(name, found, expected, scale, 100.0 * case.roundings())?;
    }
    Ok(())
}

/// Whatever was kept of an earlier question, and also the second time.
#[test]
fn gradients_of_a_pass_are_those_of_its_sweeps() {
    property(Shapes::any().cases(), |case, residual| {
        let (network, batch) = (case.network(), case.batch());
        let bars = bars(&network, batch.nrows(), case.random());
        let expected = expected(&network, &batch, &bars);
        let mut pass = Pass::new(Arc::new(network), batch.view()).unwrap();
        same(&case, residual, &found(&mut pass, &bars), &expected)?;
        pass.gram().unwrap();
        same(&case, residual, &found(&mut pass, &bars), &expected)?;
        pass.vjp(bars.logits.view()).unwrap();
        same(&case, residual, &found(&mut pass, &bars), &expected)
    });
}

#[test]
fn a_pass_gives_what_its_trace_gives() {
    property(Shapes::any().cases(), |case, residual| {
        let network = Arc::new(case.network());
        let bars = bars(&network, case.inputs.len(), case.random());
        let other = Array2::from_elem((3, network.inputs()), 0.5);
        let mut pass = Pass::new(Arc::clone(&network), other.view()).unwrap();
        pass.run(network, case.batch().view()).unwrap();
        let (gram, jacobian) = (pass.gram().unwrap(), pass.jacobian().unwrap());
        let vjp = pass.vjp(bars.u.view()).unwrap();
        let trace = pass.trace();
        prop_assert_eq!(&vjp, &trace.vjp(bars.u.view()).unwrap());
        let rounding = case.roundings();
        let flat = |array: &Array3<f64>| array.iter().copied().collect::<Vec<f64>>();
        let scale = case.sizes().1;
        let expected = flat(&trace.jacobian().unwrap());
        residual.equal_all("J", &flat(&jacobian), &expected, scale, rounding)?;
        let expected = flat(&trace.gram().unwrap());
        residual.equal_all(
            "G",
            &flat(&gram),
            &expected,
            scale * scale,
            100.0 * rounding,
        )?;
        let mut gradient = pass.network().parameters().zeros_like();
        let x_bar = pass.add_logits_gradient(bars.u.view(), &mut gradient, true);
        prop_assert_eq!(x_bar.unwrap().unwrap(), vjp);
        Ok(())
    });
}

/// A convolution and dense layers, with weights of a few sines.
fn images() -> Network<f64> {
    let mut builder = Builder::new();
    let x = builder.input_shaped(&[1, 16, 16]).unwrap();
    let weight = Array4::from_shape_fn((8, 1, 3, 3), |(o, _, i, j)| {
        (0.7 * (o * 9 + i * 3 + j) as f64).sin()
    });
    let window = Window::new([3, 3]).padding([[1, 1], [1, 1]]);
    let conv = builder.conv2d(x, weight, None, window, 1).unwrap();
    let active = builder.gate(conv, Gate::Relu).unwrap();
    let flat = builder.reshape(active, &[8 * 256]).unwrap();
    let weight = Array2::from_shape_fn((10, 2048), |(i, j)| (0.3 * (i * 2048 + j) as f64).sin());
    let f = builder.dense(flat, weight, None).unwrap();
    builder.build(f).unwrap()
}

/// Where the rows of all samples do not fit, they are swept in blocks.
#[test]
fn batches_of_several_blocks_have_the_same_gradients() {
    let dense = Mlp::new(&[30, 300, 250, 10]).build::<f64>(3).unwrap();
    for (network, samples) in [(dense, 450), (images(), 60)] {
        let mut random = ChaCha8Rng::seed_from_u64(5);
        let mut entry = || random.random_range(-1.0..1.0);
        let batch = Array2::from_shape_simple_fn((samples, network.inputs()), &mut entry);
        let bars = bars(&network, samples, random);
        let expected = expected(&network, &batch, &bars);
        let trace = network.trace(batch.view()).unwrap();
        let (gram, jacobian) = (trace.gram().unwrap(), trace.jacobian().unwrap());
        let mut pass = Pass::new(Arc::new(network.clone()), batch.view()).unwrap();
        for _ in 0..2 {
            let flat = |array: &Array3<f64>| array.iter().copied().collect::<Vec<f64>>();
            assert!(relative_error(&flat(&pass.gram().unwrap()), &flat(&gram)) < 1e-13);
            assert_eq!(pass.jacobian().unwrap(), jacobian);
            for (found, expected) in found(&mut pass, &bars).iter().zip(&expected) {
                let error = relative_error(found, expected);
                assert!(error < 1e-12, "{error}");
            }
        }
    }
}

#[test]
fn derivatives_of_other_shapes_and_not_finite_ones_are_refused() {
    let network = Mlp::new(&[3, 5, 2]).build::<f64>(1).unwrap();
    let x = Array2::from_elem((2, 3), 0.5);
    let mut pass = Pass::new(Arc::new(network), x.view()).unwrap();
    let mut gradient = pass.network().parameters().zeros_like();
    let error = pass.add_gram_gradient(Array3::zeros((2, 2, 3)).view(), &mut gradient);
    assert_eq!(
        error.unwrap_err().to_string(),
        "the derivative with respect to G has shape [2, 2, 3] but [2, 2, 2] is needed"
    );
    let error =
        pass.add_jacobian_gradient(Array3::from_elem((2, 2, 3), f64::NAN).view(), &mut gradient);
    assert!(matches!(error, Err(relugrad::Error::NotFinite { .. })));
    let other = Mlp::new(&[3, 6, 2]).build::<f64>(1).unwrap();
    let mut other = other.parameters().zeros_like();
    let error = pass.add_logits_gradient(Array2::zeros((2, 2)).view(), &mut other, false);
    assert!(matches!(error, Err(relugrad::Error::Shape { .. })));
    let nan = Array2::from_elem((2, 3), f64::NAN);
    assert!(pass.run(Arc::clone(pass.network()), nan.view()).is_err());
    assert_eq!(pass.trace().samples(), 0);
}
