//! The Gram form of the parameter gradient against the row form: `A = ∂φ/∂J` by hand, through the
//! public sweeps.
//!
//! For a penalty that depends on `J` alone, `∂φ/∂θ` is one backward sweep of the identity, one
//! forward sweep of the rows of `A`, and one product a layer. No Gram matrix is formed.

use ndarray::{Array2, Array3};
use proptest::prop_assume;
use proptest::test_runner::TestCaseResult;
use relugrad::{Cotangents, Penalty, Seeds, SweepStrategy, Tangents};
use relugrad_tests::cases::{Case, Losses, ROUTES, Shapes};
use relugrad_tests::graph::array;
use relugrad_tests::matrix::{
    Matrix, add, centring, flatten, frobenius, multiple, norm, product, product_transposed, scaled,
    times, trace,
};
use relugrad_tests::parameter::penalty_gradient;
use relugrad_tests::recipe::uniform;
use relugrad_tests::run::{Residual, property};
use relugrad_tests::tolerance::relative_error;

/// `∂φ/∂θ` of the mean of `φ` for `A = ∂φ/∂J` of each sample.
pub(crate) fn row_form(case: &Case, a: impl Fn(usize) -> Matrix) -> Vec<f64> {
    let network = case.network();
    let trace = network.trace(case.batch().view()).unwrap();
    let (b, k, d) = (case.inputs.len(), network.outputs(), network.inputs());
    let rows: Vec<f64> = (0..b).flat_map(|i| flatten(&a(i))).collect();
    let a = Array3::from_shape_vec((b, k, d), rows).unwrap();
    let identity = Array2::eye(k);
    let cotangents = trace.cotangents(Seeds::Shared(identity.view())).unwrap();
    let tangents = trace.tangents(a.view()).unwrap();
    let gradient = trace.weight_gradient(&cotangents, &tangents).unwrap();
    scaled(1.0 / b as f64, gradient.values())
}

fn check(
    case: &Case,
    penalty: &Penalty,
    residual: &Residual,
    a: impl Fn(usize) -> Matrix,
) -> TestCaseResult {
    let expected = row_form(case, a);
    for route in ROUTES {
        let found = penalty_gradient(case, penalty, route);
        residual.within(
            penalty.name(),
            relative_error(&found, &expected),
            1.0,
            64.0 * case.roundings() * amplification(case),
        )?;
    }
    Ok(())
}

/// How much larger the terms of `J` are than their sums, squared; rounding grows with it.
pub(crate) fn amplification(case: &Case) -> f64 {
    let size = |x: &Vec<f64>| frobenius(case.graph.at(x).jacobian());
    let least = case.inputs.iter().map(size).fold(0.0, f64::max);
    if least == 0.0 {
        1.0
    } else {
        (case.sizes().1 / least).powi(2)
    }
}

/// `∂‖J‖_F²/∂J = 2 J`.
#[test]
fn frobenius_penalty_has_the_rows_of_the_jacobian() {
    property(Shapes::any().cases(), |case, residual| {
        let a = |i: usize| multiple(2.0, &case.derivatives(i).jacobian);
        check(&case, &Penalty::Jacobian, residual, a)
    });
}

/// `∂/∂J 2K tr(C J Jᵀ) = 4K C J`.
#[test]
fn cross_lipschitz_penalty_has_the_centred_rows() {
    let shapes = Shapes {
        outputs: 2..=12,
        ..Shapes::any()
    };
    property(shapes.cases(), |case, residual| {
        let k = case.graph.outputs();
        let a = |i: usize| {
            multiple(
                4.0 * k as f64,
                &product(&centring(k), &case.derivatives(i).jacobian),
            )
        };
        prop_assume!((0..case.inputs.len()).any(|i| not_cancelled(&a(i), &case)));
        check(&case, &Penalty::CrossLipschitz, residual, a)
    });
}

fn not_cancelled(a: &Matrix, case: &Case) -> bool {
    frobenius(a) > 1e-3 * case.sizes().1
}

/// With squared error `S = I` does not depend on the parameters: `∂ tr H/∂J = 2 S J = 2 J`.
#[test]
fn curvature_trace_of_squared_error_has_the_rows_of_the_jacobian() {
    let shapes = Shapes {
        losses: Losses::Squared,
        ..Shapes::any()
    };
    property(shapes.cases(), |case, residual| {
        let a = |i: usize| multiple(2.0, &case.derivatives(i).jacobian);
        check(&case, &Penalty::CurvatureTrace, residual, a)
    });
}

/// Softmax: `∂ tr(S G)/∂J = 2 S J` at constant `S`, and `f̄ = S p̄` with `p̄ = diag(G) − 2 G p`
/// through the logits.
#[test]
fn curvature_trace_of_softmax_has_a_row_and_a_logit_part() {
    let shapes = Shapes {
        losses: Losses::Softmax,
        unusual: false,
        ..Shapes::any()
    };
    property(shapes.cases(), |case, residual| {
        let mut expected = row_form(&case, |i| {
            let at = case.derivatives(i);
            multiple(2.0, &product(&at.loss.hessian, &at.jacobian))
        });
        let share = 1.0 / case.inputs.len() as f64;
        for i in 0..case.inputs.len() {
            expected = add(&expected, share, &logit_part(&case, i));
        }
        let found = penalty_gradient(&case, &Penalty::CurvatureTrace, SweepStrategy::Fewest);
        let at = (0..case.inputs.len()).map(|i| case.derivatives(i));
        let largest = at.map(|at| trace(&at.hessian())).fold(0.0, f64::max);
        prop_assume!(largest > 1e-4 * case.sizes().1.powi(2));
        residual.within(
            "∂ tr H",
            relative_error(&found, &expected),
            1.0,
            1e5 * case.roundings(),
        )
    });
}

fn logit_part(case: &Case, sample: usize) -> Vec<f64> {
    let at = case.derivatives(sample);
    let gram = product_transposed(&at.jacobian, &at.jacobian);
    let gp = times(&gram, &at.loss.probabilities);
    let diagonal: Vec<f64> = (0..gram.len()).map(|k| gram[k][k]).collect();
    let p_bar = add(&diagonal, -1.0, &scaled(2.0, &gp));
    let f_bar = times(&at.loss.hessian, &p_bar);
    let point = case.graph.at(&case.inputs[sample]);
    case.graph.logit_pullback(&point, &f_bar)
}

/// A sweep may be repeated into buffers that another batch has used.
#[test]
fn sweeps_into_used_buffers_are_the_same() {
    let strategy = (Shapes::any().cases(), Shapes::any().cases());
    property(strategy, |(first, second), _| {
        let (mut cotangents, mut tangents) = (Cotangents::default(), Tangents::default());
        gradient_of_rows(&first, &mut cotangents, &mut tangents);
        let used = gradient_of_rows(&second, &mut cotangents, &mut tangents);
        let fresh = gradient_of_rows(
            &second,
            &mut Cotangents::default(),
            &mut Tangents::default(),
        );
        proptest::prop_assert!(used == fresh);
        Ok(())
    });
}

/// `½ ∂‖J‖_F²/∂θ` summed over the batch.
fn gradient_of_rows(
    case: &Case,
    cotangents: &mut Cotangents<f64>,
    tangents: &mut Tangents<f64>,
) -> Vec<f64> {
    let network = case.network();
    let trace = network.trace(case.batch().view()).unwrap();
    let identity = Array2::eye(network.outputs());
    trace
        .cotangents_into(Seeds::Shared(identity.view()), cotangents)
        .unwrap();
    trace
        .tangents_into(cotangents.at_input(), tangents)
        .unwrap();
    let gradient = trace.weight_gradient(cotangents, tangents).unwrap();
    gradient.values().to_vec()
}

/// The ordinary backward pass, for any cotangent, against the oracle's matrices.
#[test]
fn parameter_vjp_equals_the_oracle() {
    property(Shapes::any().cases(), |case, residual| {
        let (network, mut random) = (case.network(), case.random());
        let u = uniform(case.inputs.len(), network.outputs(), 1.0, &mut random);
        let trace = network.trace(case.batch().view()).unwrap();
        let found = trace.parameter_vjp(array(&u).view()).unwrap();
        let mut expected = vec![0.0; found.len()];
        for (x, u) in case.inputs.iter().zip(&u) {
            expected = add(
                &expected,
                1.0,
                &case.graph.logit_pullback(&case.graph.at(x), u),
            );
        }
        let (logits, jacobian) = case.sizes();
        let size = norm(&expected).max(1e-3 * (logits + jacobian));
        residual.equal_all(
            "Σ Bᵀ u",
            found.values(),
            &expected,
            size,
            16.0 * case.roundings(),
        )
    });
}
