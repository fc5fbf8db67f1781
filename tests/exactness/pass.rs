//! Passes: what goes back from derivatives that a host gives.

use std::sync::Arc;

use ndarray::{Array2, Array3, Axis};
use proptest::prelude::*;
use rand::RngExt;
use relugrad::{Parameters, Pass, Seeds};
use relugrad_tests::cases::{Case, Shapes};
use relugrad_tests::run::{Residual, property};

/// Derivatives as a host may give them, with no symmetry.
struct Bars {
    logits: Array2<f64>,
    gram: Array3<f64>,
    jacobian: Array3<f64>,
    u: Array2<f64>,
    vjp: Array2<f64>,
}

fn bars(case: &Case) -> Bars {
    let (network, mut random) = (case.network(), case.random());
    let (b, k, d) = (case.inputs.len(), network.outputs(), network.inputs());
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
fn expected(case: &Case, bars: &Bars) -> [Vec<f64>; 4] {
    let network = case.network();
    let trace = network.trace(case.batch().view()).unwrap();
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
        let (network, bars) = (Arc::new(case.network()), bars(&case));
        let mut pass = Pass::new(network, case.batch().view()).unwrap();
        let expected = expected(&case, &bars);
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
        let (network, bars) = (Arc::new(case.network()), bars(&case));
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

#[test]
fn derivatives_of_other_shapes_and_not_finite_ones_are_refused() {
    let network = relugrad::Mlp::new(&[3, 5, 2]).build::<f64>(1).unwrap();
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
    let other = relugrad::Mlp::new(&[3, 6, 2]).build::<f64>(1).unwrap();
    let mut other = other.parameters().zeros_like();
    let error = pass.add_logits_gradient(Array2::zeros((2, 2)).view(), &mut other, false);
    assert!(matches!(error, Err(relugrad::Error::Shape { .. })));
    let nan = Array2::from_elem((2, 3), f64::NAN);
    assert!(pass.run(Arc::clone(pass.network()), nan.view()).is_err());
    assert_eq!(pass.trace().samples(), 0);
}
