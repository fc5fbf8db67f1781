//! The input gradient and the input Hessian in all their forms.

use ndarray::{Array2, Axis};
use proptest::prelude::*;
use relugrad::{FiniteDifference, Penalty, SweepStrategy};
use relugrad_tests::cases::{Case, Shapes};
use relugrad_tests::difference::{derivative, holding_step};
use relugrad_tests::graph::array;
use relugrad_tests::loss::LossPoint;
use relugrad_tests::matrix::{
    Matrix, add, eigen, flatten, frobenius, norm, outer, plus, rows, scaled, times, trace, unit,
    zeros,
};
use relugrad_tests::recipe::uniform;
use relugrad_tests::run::property;

/// Sizes of one sample of a case: of `J`, of `r` and of `S`, each with what the rounding of the
/// logits adds.
struct Sizes {
    jacobian: f64,
    residual: f64,
    hessian: f64,
}

fn sizes(case: &Case, loss: &LossPoint) -> Sizes {
    let (logits, jacobian) = case.sizes();
    let s = frobenius(&loss.hessian);
    Sizes {
        jacobian,
        residual: norm(&loss.residual) + s * logits,
        hessian: s * (1.0 + 2.0 * logits),
    }
}

impl Sizes {
    fn curvature(&self) -> f64 {
        self.jacobian.powi(2) * self.hessian
    }
}

#[test]
fn losses_and_input_gradients_equal_the_oracle() {
    property(Shapes::any().cases(), |case, residual| {
        let network = case.network();
        let trace = network.trace(case.batch().view()).unwrap();
        let losses = trace.losses(&case.loss, &case.owned.view()).unwrap();
        let found = trace
            .input_gradient(&case.loss, &case.owned.view())
            .unwrap();
        for i in 0..case.inputs.len() {
            let expected = case.derivatives(i);
            let sizes = sizes(&case, &expected.loss);
            let size = 1.0 + case.sizes().0 * (1.0 + norm(&expected.loss.residual));
            residual.equal(
                "loss",
                (losses[i], expected.loss.value),
                size,
                4.0 * case.roundings(),
            )?;
            let (found, scale) = (found.row(i).to_vec(), sizes.jacobian * sizes.residual);
            residual.equal_all(
                "g",
                &found,
                &expected.gradient,
                scale,
                2.0 * case.roundings(),
            )?;
        }
        Ok(())
    });
}

#[test]
fn dense_hessian_is_symmetric_and_equals_the_oracle() {
    property(Shapes::any().cases(), |case, residual| {
        let network = case.network();
        let trace = network.trace(case.batch().view()).unwrap();
        let dense = trace.curvature(&case.loss).unwrap().to_dense().unwrap();
        for (i, found) in dense.outer_iter().enumerate() {
            let expected = case.derivatives(i);
            let scale = sizes(&case, &expected.loss).curvature();
            let entries: Vec<f64> = found.iter().copied().collect();
            let transposed: Vec<f64> = found.t().iter().copied().collect();
            let bound = 4.0 * case.roundings();
            residual.equal_all("Hᵀ", &transposed, &entries, scale, bound)?;
            residual.equal_all("H", &entries, &flatten(&expected.hessian()), scale, bound)?;
        }
        Ok(())
    });
}

#[test]
fn factored_product_equals_the_dense_one() {
    property(Shapes::any().cases(), |case, residual| {
        let (network, mut random) = (case.network(), case.random());
        let trace = network.trace(case.batch().view()).unwrap();
        let curvature = trace.curvature(&case.loss).unwrap();
        let v = uniform(case.inputs.len(), network.inputs(), 1.0, &mut random);
        let (found, dense) = (
            curvature.apply(array(&v).view()).unwrap(),
            curvature.to_dense().unwrap(),
        );
        for (i, v) in v.iter().enumerate() {
            let entries: Vec<f64> = dense.index_axis(Axis(0), i).iter().copied().collect();
            let expected = times(&rows(&entries, v.len()), v);
            let scale = sizes(&case, &case.derivatives(i).loss).curvature() * norm(v);
            residual.equal_all(
                "H v",
                &found.row(i).to_vec(),
                &expected,
                scale,
                4.0 * case.roundings(),
            )?;
        }
        Ok(())
    });
}

#[test]
fn norms_and_eigenpairs_are_those_of_the_dense_hessian() {
    property(Shapes::any().cases(), |case, residual| {
        let network = case.network();
        let trace_ = network.trace(case.batch().view()).unwrap();
        let curvature = trace_.curvature(&case.loss).unwrap();
        let pairs = curvature.eigenpairs().unwrap();
        let norms = (
            curvature.hessian_trace().unwrap(),
            curvature.frobenius_norm().unwrap(),
            curvature.spectral_norm().unwrap(),
        );
        for i in 0..case.inputs.len() {
            let at = case.derivatives(i);
            let (h, scale) = (at.hessian(), sizes(&case, &at.loss).curvature());
            let bound = 8.0 * case.roundings();
            residual.equal("tr H", (norms.0[i], trace(&h)), scale, bound)?;
            residual.equal("‖H‖_F", (norms.1[i], frobenius(&h)), scale, bound)?;
            residual.equal("‖H‖₂", (norms.2[i], eigen(&h).0[0].max(0.0)), scale, bound)?;
            let (mut sum, d) = (zeros(network.inputs(), network.inputs()), network.inputs());
            let vectors = pairs.vectors.index_axis(Axis(0), i);
            for (&value, vector) in pairs.values.row(i).iter().zip(vectors.outer_iter()) {
                sum = plus(&sum, value, &outer(&vector.to_vec(), &vector.to_vec()));
            }
            prop_assert_eq!(sum.len(), d);
            residual.equal_all("Σ λ w wᵀ", &flatten(&sum), &flatten(&h), scale, bound)?;
        }
        Ok(())
    });
}

/// Differences of the exact input gradient along `direction`, a row for each sample, and the
/// estimate of their error.
fn difference(case: &Case, direction: &Matrix) -> Option<(Matrix, f64)> {
    let moved = |t: f64| plus(&case.inputs, t, direction);
    let patterns =
        |inputs: &Matrix| -> Vec<_> { inputs.iter().map(|x| case.graph.pattern(x)).collect() };
    let here = patterns(&case.inputs);
    let gain = 1.0 + 8.0 * case.sizes().1;
    let step = holding_step(0.1 / gain, 1e-8, |t| patterns(&moved(t)) == here)?;
    let network = case.network();
    let gradients = |t: f64| {
        let trace = network.trace(array(&moved(t)).view()).unwrap();
        let found = trace
            .input_gradient(&case.loss, &case.owned.view())
            .unwrap();
        found.iter().copied().collect::<Vec<f64>>()
    };
    let quotient = derivative(gradients, step);
    Some((rows(&quotient.value, case.graph.inputs()), quotient.error))
}

/// The product with any vector is the derivative of the exact input gradient; relative error at
/// most 1e-7 of `‖H‖_F`, as far as differences can see.
#[test]
fn hessian_vector_product_is_the_derivative_of_the_input_gradient() {
    property(Shapes::any().cases(), |case, residual| {
        let mut random = case.random();
        let v = uniform(case.inputs.len(), case.graph.inputs(), 1.0, &mut random);
        let v: Matrix = v.iter().map(|v| unit(v)).collect();
        let quotient = difference(&case, &v);
        prop_assume!(quotient.is_some());
        let ((expected, error), network) = (quotient.unwrap(), case.network());
        let trace = network.trace(case.batch().view()).unwrap();
        let found = trace
            .curvature(&case.loss)
            .unwrap()
            .apply(array(&v).view())
            .unwrap();
        let norms: Vec<f64> = (0..v.len())
            .map(|i| frobenius(&case.derivatives(i).hessian()))
            .collect();
        let scale = norm(&norms).max(frobenius(&expected));
        prop_assume!(error <= 3e-8 * scale);
        let found: Vec<f64> = found.iter().copied().collect();
        residual.within(
            "H v",
            norm(&add(&found, -1.0, &flatten(&expected))),
            scale,
            1e-7,
        )
    });
}

/// The engine's own difference quotients agree with the exact numbers to what their step allows.
#[test]
fn differences_of_the_engine_agree_with_the_exact_derivatives() {
    let shapes = Shapes {
        batch: 1..=1,
        unusual: false,
        ..Shapes::any()
    };
    property(shapes.cases(), |case, residual| {
        let step = holding_step(1e-4, 1e-6, |t| {
            (0..case.graph.inputs()).all(|j| {
                let mut moved = case.inputs[0].clone();
                moved[j] += t;
                case.graph.pattern(&moved) == case.graph.pattern(&case.inputs[0])
            })
        });
        prop_assume!(step.is_some());
        let (at, network) = (case.derivatives(0), case.network());
        let central = FiniteDifference::central(step.unwrap()).unwrap();
        let (batch, targets) = (case.batch(), case.owned.view());
        let size = case.sizes();
        let scale = (1.0 + size.1).powi(3) * (1.0 + size.0);
        let g = central
            .input_gradient(&network, &case.loss, batch.view(), &targets)
            .unwrap();
        residual.equal_all("g", &g.row(0).to_vec(), &at.gradient, scale, 1e-7)?;
        let h = central
            .hessian(&network, &case.loss, batch.view(), &targets)
            .unwrap();
        let h: Vec<f64> = h.iter().copied().collect();
        residual.equal_all("H", &h, &flatten(&at.hessian()), scale, 1e-7)?;
        let v = unit(&vec![1.0; case.graph.inputs()]);
        let rows = Array2::from_shape_vec((1, v.len()), v.clone()).unwrap();
        let hv = central
            .hvp(&network, &case.loss, batch.view(), &targets, rows.view())
            .unwrap();
        residual.equal_all(
            "H v",
            &hv.row(0).to_vec(),
            &times(&at.hessian(), &v),
            scale,
            1e-7,
        )
    });
}

/// The curvature penalties are the numbers that [`relugrad::Curvature`] reports, squared where they
/// say so.
#[test]
fn curvature_penalties_are_the_reported_norms() {
    property(Shapes::any().cases(), |case, residual| {
        let network = case.network();
        let trace = network.trace(case.batch().view()).unwrap();
        let h = trace.curvature(&case.loss).unwrap();
        let squares = h.frobenius_norm().unwrap().mapv(|n| n * n);
        let norms = [
            (Penalty::CurvatureTrace, h.hessian_trace().unwrap().to_vec()),
            (Penalty::CurvatureFrobenius, squares.to_vec()),
            (
                Penalty::CurvatureSpectral,
                h.spectral_norm().unwrap().to_vec(),
            ),
        ];
        let scales =
            (0..case.inputs.len()).map(|i| sizes(&case, &case.derivatives(i).loss).curvature());
        let scale = scales.fold(0.0, f64::max);
        for (penalty, expected) in norms {
            let objective = case.objective(&penalty, SweepStrategy::Fewest);
            let found = objective
                .value(&network, case.batch().view(), &case.owned.view())
                .unwrap();
            let scale = if penalty == Penalty::CurvatureFrobenius {
                scale * scale
            } else {
                scale
            };
            let values = found.sample_penalties.row(0).to_vec();
            let unit = if scale > 0.0 { 1.0 / scale } else { 1.0 };
            let (values, expected) = (scaled(unit, &values), scaled(unit, &expected));
            residual.equal_all(
                penalty.name(),
                &values,
                &expected,
                1.0,
                16.0 * case.roundings(),
            )?;
        }
        Ok(())
    });
}
