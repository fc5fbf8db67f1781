//! T4 to T14: sweeps and parameter gradients (`docs/theory.md`, sections 2 and 3).

use std::cmp::Ordering;

use ndarray::{Array3, Axis};
use proptest::prelude::*;
use relugrad::{Loss, Penalty, Seeds};
use relugrad_tests::cases::{Case, Shapes};
use relugrad_tests::difference::{derivative, holding_step, slope};
use relugrad_tests::graph::{GateKind, Op, array};
use relugrad_tests::linear::Linear;
use relugrad_tests::loss::evaluate;
use relugrad_tests::matrix::{
    Matrix, add, chain, dot, flatten, frobenius, identity, inner, multiple, norm, plus, product,
    product_transposed, rows, scaled, times, transpose, transposed_times, unit,
};
use relugrad_tests::oracle::Point;
use relugrad_tests::parameter::penalty_gradient;
use relugrad_tests::recipe::{entries, uniform};
use relugrad_tests::run::{Residual, property};
use relugrad_tests::tolerance::{GRADIENT, relative_error};

use crate::gram_table::{point, through_the_probabilities};
use crate::setting::{
    Setting, any_loss, dense_chains, draws, gram_of, labels, orthogonal, softmax, symmetric,
};

type Outcome = Result<(), TestCaseError>;

/// `∂⟨A, V J⟩/∂θ` by the engine's sweeps, at constant `V` and `A`.
fn rows_gradient(case: &Case, seeds: &Matrix, a: &Matrix) -> Vec<f64> {
    let (network, batch) = (case.network(), case.batch());
    let trace = network.trace(batch.view()).unwrap();
    let cotangents = trace
        .cotangents(Seeds::Shared(array(seeds).view()))
        .unwrap();
    let tangents = trace
        .tangents(array(a).insert_axis(Axis(0)).view())
        .unwrap();
    trace
        .weight_gradient(&cotangents, &tangents)
        .unwrap()
        .values()
        .to_vec()
}

/// `∂⟨u, f⟩/∂θ` by the engine.
fn logit_gradient(case: &Case, u: &[f64]) -> Vec<f64> {
    let (network, batch) = (case.network(), case.batch());
    let trace = network.trace(batch.view()).unwrap();
    trace
        .parameter_vjp(array(&[u.to_vec()]).view())
        .unwrap()
        .values()
        .to_vec()
}

/// The derivative along a direction in parameter space of a function of the oracle's point, if a
/// step holds.
fn difference(
    case: &Case,
    direction: &[f64],
    phi: impl Fn(&[f64], &Matrix) -> f64,
) -> Option<(f64, f64)> {
    let x = &case.inputs[0];
    let here = case.graph.pattern(x);
    let step = holding_step(1e-2, 1e-6, |t| {
        case.graph.moved(direction, t).pattern(x) == here
    })?;
    let moved = |t: f64| {
        let point = case.graph.moved(direction, t).at(x);
        phi(point.logits(), point.jacobian())
    };
    Some(slope(moved, step))
}

/// Checks a gradient against differences along a random direction and itself, or rejects.
fn agrees(
    case: &Case,
    gradient: &[f64],
    phi: impl Fn(&[f64], &Matrix) -> f64,
    residual: &Residual,
) -> Outcome {
    let random = unit(&entries(gradient.len(), 1.0, &mut case.random()));
    for direction in [random, unit(gradient)] {
        let found = difference(case, &direction, &phi);
        prop_assume!(found.is_some());
        let (found, estimate) = found.unwrap();
        let size = norm(gradient).max(found.abs());
        prop_assume!(estimate <= GRADIENT / 3.0 * size);
        residual.equal(
            "derivative",
            (found, dot(gradient, &direction)),
            size,
            GRADIENT,
        )?;
    }
    Ok(())
}

pub(crate) fn t4(case: &Case, residual: &Residual) -> Outcome {
    let ((network, batch), mut random) = ((case.network(), case.batch()), case.random());
    let (u, v) = (
        entries(network.outputs(), 1.0, &mut random),
        entries(network.inputs(), 1.0, &mut random),
    );
    let trace = network.trace(batch.view()).unwrap();
    let all = |values: &[f64]| array(&vec![values.to_vec(); case.inputs.len()]);
    let jv = trace.jvp(all(&v).view()).unwrap().row(0).to_vec();
    let jtu = trace.vjp(all(&u).view()).unwrap().row(0).to_vec();
    let size = case.sizes().1 * norm(&u) * norm(&v);
    residual.equal(
        "⟨u, J v⟩",
        (dot(&u, &jv), dot(&jtu, &v)),
        size,
        16.0 * case.roundings(),
    )
}

/// **T4.** `⟨u, J v⟩ = ⟨Jᵀu, v⟩`, on and off kinks; the rows of backward sweeps are the columns of
/// forward sweeps.
#[test]
fn forward_and_backward_sweeps_are_adjoint() {
    property(any_loss(), |case, residual| t4(&case, residual));
    property(any_loss(), |mut case, residual| {
        case.inputs = vec![vec![0.0; case.graph.inputs()]];
        t4(&case, residual)
    });
}

/// T4 with sweeps that use the patterns of different inputs: not adjoint.
#[test]
fn counter_forward_and_backward_sweeps_are_adjoint() {
    property(labels(), |case, _| {
        let (at, other) = (Setting::new(&case), scaled(-1.0, &case.inputs[0]));
        let network = case.network();
        let trace = network.trace(array(&[other]).view()).unwrap();
        let mut random = case.random();
        let (u, v) = (
            entries(at.k, 1.0, &mut random),
            entries(at.d, 1.0, &mut random),
        );
        let jtu = trace
            .vjp(array(std::slice::from_ref(&u)).view())
            .unwrap()
            .row(0)
            .to_vec();
        let j = rows(
            &trace.jacobian().unwrap().into_iter().collect::<Vec<f64>>(),
            at.d,
        );
        let gap = dot(&u, &times(&plus(&at.j, -1.0, &j), &v));
        prop_assume!(gap.abs() > 1e-6 * at.a);
        prop_assert!((dot(&u, &times(&at.j, &v)) - dot(&jtu, &v)).abs() > 1e-7 * at.a);
        Ok(())
    });
}

/// Differences along a unit direction of the loss and of the exact input gradient.
fn input_differences(case: &Case, v: &[f64], step: f64) -> (f64, Vec<f64>) {
    let (x, t) = (&case.inputs[0], &case.targets[0]);
    let loss = |h: f64| evaluate(&case.loss, &case.graph.logits(&add(x, h, v)), t).value;
    let gradient = |h: f64| {
        relugrad_tests::penalty::Derivatives::at(&case.graph, &case.loss, &add(x, h, v), t).gradient
    };
    (slope(loss, step).0, derivative(gradient, step).value)
}

/// **T5.** `∇ₓℓ = Jᵀ r` and `∇²ₓℓ = Jᵀ S J`, against differences inside the region.
#[test]
fn input_gradient_and_hessian_are_jacobian_products() {
    property(any_loss(), |case, residual| {
        let at = Setting::new(&case);
        let v = unit(&entries(at.d, 1.0, &mut case.random()));
        let same = |t: f64| case.graph.pattern(&add(at.x(), t, &v)) == case.graph.pattern(at.x());
        let first = 0.02 / (1.0 + norm(&times(&at.j, &v)));
        let step = holding_step(first, 1e-5, same);
        prop_assume!(step.is_some());
        let (slope, hv) = input_differences(&case, &v, step.unwrap());
        let size = 1.0 + case.sizes().0 + at.a * (1.0 + at.a) * (1.0 + at.r_size);
        residual.equal("g·v", (slope, dot(&at.g, &v)), size, 1e-8)?;
        residual.equal_all("H v", &hv, &times(&at.h, &v), size, 1e-8)
    });
}

/// T5 with a quotient across a kink: it disagrees.
#[test]
fn counter_input_gradient_and_hessian_are_jacobian_products() {
    property(labels(), |case, _| {
        let at = Setting::new(&case);
        let v = unit(&entries(at.d, 1.0, &mut case.random()));
        let other = case.graph.at(&add(at.x(), 1.0, &v));
        prop_assume!(frobenius(&plus(other.jacobian(), -1.0, &at.j)) > 1e-2 * at.a);
        let (x, t) = (at.x(), &at.t);
        let gradient = |h: f64| {
            relugrad_tests::penalty::Derivatives::at(&case.graph, &case.loss, &add(x, h, &v), t)
                .gradient
        };
        let quotient = add(&gradient(1.0), -1.0, &at.g);
        prop_assume!(norm(&quotient) > 1e-6);
        prop_assert!(norm(&add(&quotient, -1.0, &times(&at.h, &v))) > 1e-9);
        Ok(())
    });
}

/// `Σ c Bᵀ A Fᵀ` over the terms of each parameter of an affine layer; offsets have no part in it.
fn linear_gradient(
    point: &Point,
    (from, layer): (&[usize], &Linear),
    above: &Matrix,
    a: &Matrix,
) -> Vec<f64> {
    let above = transpose(above);
    let tangent = |(node, unit): (usize, usize)| times(a, &point.jacobians[from[node]][unit]);
    layer.pullback(|output, input| input.map_or(0.0, |i| dot(&above[output], &tangent(i))))
}

/// `Bᵀ A Fᵀ` for the dense layers and the slope entries for PReLU, from the oracle's matrices.
fn oracle_gradient(case: &Case, a: &Matrix) -> Vec<f64> {
    let (point, mut all, mut gates) = (point(case), Vec::new(), 0);
    for (node, op) in case.graph.nodes.iter().enumerate() {
        let above = || case.graph.sensitivity(node, &point.pattern);
        match op {
            Op::Dense { from, bias, .. } => {
                let below = product_transposed(a, &point.jacobians[*from]);
                all.extend(flatten(&product(&transpose(&above()), &below)));
                all.extend(bias.iter().flatten().map(|_| 0.0));
            }
            Op::Gate { from, kind } => {
                if let GateKind::Prelu(slopes) = kind {
                    let (b, t) = (above(), product_transposed(a, &point.jacobians[*from]));
                    for unit in 0..slopes.len() {
                        let sum: f64 = (0..b.len()).map(|k| b[k][unit] * t[k][unit]).sum();
                        all.push(if point.pattern[gates][unit] == 1 {
                            0.0
                        } else {
                            sum
                        });
                    }
                }
                gates += 1;
            }
            Op::Max { .. } => gates += 1,
            Op::Linear { from, layer } => {
                all.extend(linear_gradient(&point, (from, layer), &above(), a));
            }
            _ => {}
        }
    }
    all
}

fn random_a(case: &Case) -> Matrix {
    uniform(
        case.graph.outputs(),
        case.graph.inputs(),
        1.0,
        &mut case.random(),
    )
}

/// **T6.** `∂φ/∂W = Bᵀ A Fᵀ`: cotangents times tangents, for `φ = ⟨A, J⟩`, also through sums and
/// skips.
#[test]
fn parameter_gradient_is_cotangents_times_tangents() {
    property(any_loss(), |case, residual| {
        let a = random_a(&case);
        let found = rows_gradient(&case, &identity(case.graph.outputs()), &a);
        let exact = oracle_gradient(&case, &a);
        let size = norm(&exact).max(1e-2 * case.sizes().1);
        residual.within(
            "Bᵀ A Fᵀ",
            norm(&add(&found, -1.0, &exact)),
            size,
            64.0 * case.roundings(),
        )?;
        agrees(&case, &found, |_, j| inner(&a, j), residual)
    });
}

/// A step in parameter space that crosses kinks.
const STEP: f64 = 3.0;

/// T6 with a difference quotient across a change of pattern: it disagrees, since `J` jumps.
#[test]
fn counter_parameter_gradient_is_cotangents_times_tangents() {
    property(labels(), |case, _| {
        let a = random_a(&case);
        let gradient = rows_gradient(&case, &identity(case.graph.outputs()), &a);
        let direction = unit(&entries(gradient.len(), 1.0, &mut case.random()));
        let moved = case.graph.moved(&direction, STEP);
        let (here, x) = (point(&case), &case.inputs[0]);
        let (there, frozen) = (moved.at(x), moved.frozen(x, &here.pattern));
        let jump = plus(there.jacobian(), -1.0, frozen.jacobian());
        prop_assume!(frobenius(&jump) > 1e-6 * frobenius(here.jacobian()));
        let change = inner(&a, &plus(there.jacobian(), -1.0, here.jacobian()));
        let quotient = change / STEP;
        let gap = (quotient - dot(&gradient, &direction)).abs();
        prop_assume!(quotient.abs() > 1e-3 * norm(&gradient));
        prop_assert!(gap > 1e-7 * norm(&gradient));
        Ok(())
    });
}

/// **T7.** The forward sweep of the rows of `J` ends in `G`, and with `A = 2 Ḡ J` gives `∂φ(G)/∂θ`.
#[test]
fn forward_sweep_of_the_rows_delivers_gram_matrix_and_gradient() {
    property(any_loss(), |case, residual| {
        let at = Setting::new(&case);
        let (network, batch) = (case.network(), case.batch());
        let trace = network.trace(batch.view()).unwrap();
        let tangents = trace
            .tangents(array(&at.j).insert_axis(Axis(0)).view())
            .unwrap();
        let delivered: Vec<f64> = tangents.at_output().iter().copied().collect();
        residual.equal_all("G", &delivered, &at.gram.concat(), at.a * at.a, at.units)?;
        let g_bar = symmetric(at.k, &mut case.random());
        let a = multiple(2.0, &product(&g_bar, &at.j));
        let found = rows_gradient(&case, &identity(at.k), &a);
        agrees(&case, &found, |_, j| inner(&g_bar, &gram_of(j)), residual)
    });
}

/// T7 with a representative of `Ḡ` that is not symmetric: `2 Ḡ J` is a wrong gradient.
#[test]
fn counter_forward_sweep_of_the_rows_delivers_gram_matrix_and_gradient() {
    property(labels(), |case, _| {
        let at = Setting::new(&case);
        let skew = uniform(at.k, at.k, 1.0, &mut case.random());
        let wrong = multiple(2.0, &product(&skew, &at.j));
        let right = product(&plus(&skew, 1.0, &transpose(&skew)), &at.j);
        prop_assume!(
            at.generic() && frobenius(&plus(&wrong, -1.0, &right)) > 1e-3 * frobenius(&right)
        );
        let [wrong, right] = [wrong, right].map(|a| rows_gradient(&case, &identity(at.k), &a));
        prop_assume!(norm(&right) > 1e-3 * at.a);
        prop_assert!(relative_error(&wrong, &right) > 1e-6);
        Ok(())
    });
}

/// The two parts of the gradient of `tr H`: that at constant logits, and that through them.
fn trace_parts(at: &Setting) -> (Vec<f64>, Vec<f64>) {
    let a = multiple(2.0, &product(&at.s, &at.j));
    let loss = evaluate(&at.case.loss, &at.f, &at.t);
    let f_bar = through_the_probabilities(&at.gram, &loss);
    (
        rows_gradient(&at.case, &identity(at.k), &a),
        logit_gradient(&at.case, &f_bar),
    )
}

/// **T8.** `f̄` joins the backward pass of the loss: the gradient of `ℓ + λ tr H` is the row part at
/// constant logits and one pull-back of `r + λ f̄`.
#[test]
fn logit_cotangent_joins_the_backward_pass_of_the_loss() {
    property(softmax(), |case, residual| {
        let (at, lambda) = (Setting::new(&case), 0.5);
        let (row_part, logit_part) = trace_parts(&at);
        let loss = logit_gradient(&case, &at.r);
        let sum = add(&loss, lambda, &add(&row_part, 1.0, &logit_part));
        let objective = relugrad::Objective::new(case.loss)
            .with_strategy(case.strategy())
            .with(Penalty::CurvatureTrace, lambda)
            .unwrap();
        let found = objective
            .gradient(&case.network(), case.batch().view(), &case.owned.view())
            .unwrap()
            .1;
        let size = norm(&row_part) + norm(&logit_part) + norm(&loss);
        prop_assume!(at.generic());
        residual.within(
            "sum",
            norm(&add(&sum, -1.0, found.values())),
            size,
            1e4 * at.units,
        )?;
        prop_assume!(at.s_size > 1e-6);
        let total = |f: &[f64], j: &Matrix| {
            let loss = evaluate(&case.loss, f, &at.t);
            loss.value + lambda * inner(&loss.hessian, &gram_of(j))
        };
        agrees(&case, found.values(), total, residual)
    });
}

/// T8 with `f̄` left out: a wrong gradient.
#[test]
fn counter_logit_cotangent_joins_the_backward_pass_of_the_loss() {
    property(labels(), |case, _| {
        let at = Setting::new(&case);
        let (row_part, logit_part) = trace_parts(&at);
        prop_assume!(norm(&logit_part) > 1e-3 * norm(&row_part) && norm(&row_part) > 0.0);
        let exact = penalty_gradient(&case, &Penalty::CurvatureTrace, case.strategy());
        prop_assert!(relative_error(&row_part, &exact) > 1e-4);
        Ok(())
    });
}

/// **T9.** `⟨S̄, ∂S/∂f⟩` is `S (diag S̄ − 2 S̄ p)` for softmax, `S̄ p(1−p)(1−2p)` for the logistic
/// loss, 0 for squared error.
#[test]
fn logit_hessian_cotangent_chains_through_the_probabilities() {
    property(draws(2), |draw, residual| {
        let (f, mut random) = (draw.numbers().1, draw.random());
        let (s_bar, df) = (
            symmetric(draw.k, &mut random),
            unit(&entries(draw.k, 1.0, &mut random)),
        );
        let losses = [
            (
                Loss::softmax_cross_entropy(),
                f.clone(),
                df.clone(),
                s_bar.clone(),
            ),
            (Loss::SquaredError, f.clone(), df.clone(), s_bar.clone()),
            (
                Loss::Logistic,
                f[..1].to_vec(),
                vec![1.0],
                vec![s_bar[0][..1].to_vec()],
            ),
        ];
        for (loss, f, df, s_bar) in losses {
            let at = |f: &[f64]| evaluate(&loss, f, &vec![0.0; f.len()]);
            let (found, _) = slope(|h| inner(&s_bar, &at(&add(&f, h, &df)).hessian), 1e-2);
            let here = at(&f);
            let exact = match loss {
                Loss::SquaredError => 0.0,
                Loss::Logistic => {
                    s_bar[0][0] * here.hessian[0][0] * (1.0 - 2.0 * here.probabilities[0])
                }
                _ => dot(&through_the_probabilities(&s_bar, &here), &df),
            };
            residual.equal(loss.name(), (found, exact), frobenius(&s_bar), 1e-9)?;
        }
        Ok(())
    });
}

/// T9 for an `S̄` that is not symmetric: a wrong vector.
#[test]
fn counter_logit_hessian_cotangent_chains_through_the_probabilities() {
    property(draws(3), |draw, _| {
        let (f, mut random) = (draw.numbers().1, draw.random());
        let (skew, df) = (
            uniform(draw.k, draw.k, 1.0, &mut random),
            entries(draw.k, 1.0, &mut random),
        );
        let loss = Loss::softmax_cross_entropy();
        let here = evaluate(&loss, &f, &vec![0.0; draw.k]);
        let half = multiple(0.5, &plus(&skew, 1.0, &transpose(&skew)));
        let [wrong, right] = [skew, half].map(|s| dot(&through_the_probabilities(&s, &here), &df));
        prop_assume!((wrong - right).abs() > 1e-5);
        let moved = |h: f64| evaluate(&loss, &add(&f, h, &df), &vec![0.0; draw.k]).hessian;
        let (found, _) = slope(|h| moved(h)[0][1] - moved(h)[1][0], 1e-3);
        prop_assert!(
            found.abs() < 1e-9,
            "S is symmetric, so only the symmetric part of S̄ counts"
        );
        Ok(())
    });
}

/// `φ(f, J) = ‖V J‖_F²` with the seeds `V = (r; p)`, and the gradient by T10, without its part
/// through `V` if not `whole`.
fn dependent_seeds(at: &Setting, whole: bool) -> Vec<f64> {
    let seeds = vec![at.r.clone(), at.p.clone()];
    let n_bar = multiple(2.0, &product(&seeds, &at.j));
    let v_bar = product_transposed(&n_bar, &at.j);
    let f_bar = times(&at.s, &add(&v_bar[0], 1.0, &v_bar[1]));
    let rows = rows_gradient(&at.case, &seeds, &n_bar);
    add(
        &rows,
        if whole { 1.0 } else { 0.0 },
        &logit_gradient(&at.case, &f_bar),
    )
}

/// **T10.** Seeds that depend on the logits send back `V̄ = N̄ Jᵀ`, which the forward sweep of `N̄`
/// delivers.
#[test]
fn seeds_that_depend_on_the_logits_send_back_output_tangents() {
    property(softmax(), |case, residual| {
        let at = Setting::new(&case);
        let phi = |f: &[f64], j: &Matrix| {
            let loss = evaluate(&case.loss, f, &at.t);
            frobenius(&product(&[loss.residual, loss.probabilities], j)).powi(2)
        };
        agrees(&case, &dependent_seeds(&at, true), phi, residual)
    });
}

/// T10 with `V̄` left out: a wrong gradient.
#[test]
fn counter_seeds_that_depend_on_the_logits_send_back_output_tangents() {
    property(labels(), |case, _| {
        let at = Setting::new(&case);
        let [whole, without] = [true, false].map(|whole| dependent_seeds(&at, whole));
        prop_assume!(norm(&add(&whole, -1.0, &without)) > 1e-3 * norm(&whole));
        let phi = |f: &[f64], j: &Matrix| {
            let loss = evaluate(&case.loss, f, &at.t);
            frobenius(&product(&[loss.residual, loss.probabilities], j)).powi(2)
        };
        let direction = unit(&add(&whole, -1.0, &without));
        let found = difference(&case, &direction, phi);
        prop_assume!(found.is_some_and(|(_, estimate)| estimate < 1e-6 * norm(&whole)));
        prop_assert!((found.unwrap().0 - dot(&without, &direction)).abs() > 1e-4 * norm(&whole));
        Ok(())
    });
}

/// **T11.** The projected estimate: exact for orthonormal rows, and the engine's random rows have
/// the stated mean, to seven standard deviations of 400 draws; the variance is that of the
/// statement to a factor of two.
#[test]
fn random_unit_seeds_estimate_the_frobenius_norm_without_bias() {
    property(draws(2), |draw, residual| {
        let (j, mut random) = (draw.numbers().0, draw.random());
        let v = orthogonal(draw.k, &mut random);
        let sum: f64 = v
            .iter()
            .map(|v| norm(&transposed_times(&j, v)).powi(2))
            .sum();
        let exact = frobenius(&j).powi(2);
        residual.equal("orthonormal", (sum, exact), exact, 1e-12)
    });
    property(draws(2), |draw, _| {
        let (mut case, draws) = (
            crate::setting::affine(&draw.numbers().0, &vec![0.0; draw.k], 0),
            400_usize,
        );
        case.inputs = vec![case.inputs[0].clone(); draws];
        case.owned = relugrad_tests::golden::OwnedTargets::Classes(vec![0; draws]);
        let penalty = Penalty::JacobianProjected {
            rows: 1,
            seed: draw.seed,
        };
        let objective = case.objective(&penalty, case.strategy());
        let found = objective
            .value(&case.network(), case.batch().view(), &case.owned.view())
            .unwrap();
        let gram = gram_of(&draw.numbers().0);
        let (k, trace) = (draw.k as f64, relugrad_tests::matrix::trace(&gram));
        let variance = 2.0 * (k * inner(&gram, &gram) - trace * trace) / (k + 2.0);
        let values = found.sample_penalties.row(0).to_vec();
        let mean = values.iter().sum::<f64>() / draws as f64;
        prop_assert!((mean - trace).abs() < 7.0 * (variance / draws as f64).sqrt() + 1e-12);
        let spread = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (draws as f64 - 1.0);
        prop_assert!(spread < 2.0 * variance + 1e-12 && spread > 0.5 * variance - 1e-12);
        Ok(())
    });
}

/// T11 for seeds in one orthant: biased.
#[test]
fn counter_random_unit_seeds_estimate_the_frobenius_norm_without_bias() {
    property(draws(2), |draw, _| {
        let (j, mut random) = (vec![vec![1.0]; draw.k], draw.random());
        let count = 200;
        let mut sum = 0.0;
        for _ in 0..count {
            let v: Vec<f64> = entries(draw.k, 1.0, &mut random)
                .iter()
                .map(|v| v.abs())
                .collect();
            sum += draw.k as f64 * norm(&transposed_times(&j, &unit(&v))).powi(2);
        }
        prop_assert!(sum / f64::from(count) > 1.3 * frobenius(&j).powi(2));
        Ok(())
    });
}

/// The first layer's `B₁` and `W₁`.
fn first_layer(case: &Case) -> (Matrix, Matrix) {
    let Op::Dense { weight, .. } = &case.graph.nodes[1] else {
        panic!("the chain begins with a dense layer");
    };
    (
        case.graph.sensitivity(1, &point(case).pattern),
        weight.clone(),
    )
}

/// **T12.** `G = B₁ Γ B₁ᵀ`, `W₁Jᵀ = Γ B₁ᵀ` and `∂φ/∂W₁ = 2 B₁ᵀ Ḡ B₁ W₁` with `Γ = W₁ W₁ᵀ`.
#[test]
fn gram_order_through_the_first_layer_gives_the_same_gradient() {
    property(dense_chains(), |case, residual| {
        let at = Setting::new(&case);
        let ((b, w), g_bar) = (first_layer(&case), symmetric(at.k, &mut case.random()));
        let gamma = gram_of(&w);
        let order = chain(&[&b, &gamma, &transpose(&b)]).concat();
        residual.equal_all("B₁ΓB₁ᵀ", &order, &at.gram.concat(), at.a * at.a, at.units)?;
        let lower = lower_half(&gamma);
        let order = symmetric_part(&chain(&[&b, &lower, &transpose(&b)])).concat();
        residual.equal_all("B₁LB₁ᵀ", &order, &at.gram.concat(), at.a * at.a, at.units)?;
        let (left, right) = (
            product_transposed(&w, &at.j).concat(),
            product(&gamma, &transpose(&b)).concat(),
        );
        residual.equal_all("ΓB₁ᵀ", &left, &right, at.a * frobenius(&w), at.units)?;
        let a = multiple(2.0, &product(&g_bar, &at.j));
        let found = rows_gradient(&case, &identity(at.k), &a);
        let exact = multiple(2.0, &chain(&[&transpose(&b), &g_bar, &b, &w])).concat();
        let size = (at.a * at.a + 1.0) * frobenius(&g_bar) * (1.0 + frobenius(&b)).powi(2);
        residual.equal_all("∂φ/∂W₁", &found[..exact.len()], &exact, size, at.units)
    });
}

/// **T12** at the other end: `G = c F Jᵀ`, and with `τ = Ḡ J Fᵀ` the last layers' gradients are
/// `2 d_j Σ_r U_rj τ_r` and `2 d_j W_j · τ_r`.
#[test]
fn last_layers_share_the_sums_of_mixed_tangents() {
    property(dense_chains(), |case, residual| {
        let case = with_gates(case, &GateKind::Relu);
        let (at, x) = (Setting::new(&case), point(&case));
        let nodes = &case.graph.nodes;
        let [
            ..,
            Op::Dense {
                from, weight: w, ..
            },
            _,
            Op::Dense { weight: u, .. },
        ] = &nodes[..]
        else {
            panic!("the chain ends in dense layers around a gate");
        };
        let (c, f) = (
            case.graph.sensitivity(*from, &x.pattern),
            &x.jacobians[*from],
        );
        let f_j = transpose(&product_transposed(&at.j, f));
        let order = product(&c, &f_j).concat();
        residual.equal_all("cFJᵀ", &order, &at.gram.concat(), at.a * at.a, at.units)?;
        let g_bar = symmetric(at.k, &mut case.random());
        let tau = product(&g_bar, &transpose(&f_j));
        let open = x.pattern.last().expect("it has a gate");
        let closed_or = |j: usize, row: Vec<f64>| scaled(2.0 * open[j] as f64, &row);
        let inner = |j: usize| {
            let u_j: Vec<f64> = u.iter().map(|row| row[j]).collect();
            closed_or(j, transposed_times(&tau, &u_j))
        };
        let of_w: Matrix = (0..w.len()).map(inner).collect();
        let of_u: Matrix = (0..w.len())
            .map(|j| closed_or(j, times(&tau, &w[j])))
            .collect();
        let network = case.network();
        let weights = network.parameters().layout().iter();
        let weights: Vec<_> = weights.filter(|info| info.shape().len() == 2).collect();
        let [.., w_info, u_info] = &weights[..] else {
            panic!("it has two weights");
        };
        let a = multiple(2.0, &product(&g_bar, &at.j));
        let found = rows_gradient(&case, &identity(at.k), &a);
        let factors = (1.0 + frobenius(w) + frobenius(u)) * (1.0 + frobenius(f));
        let size = (at.a * at.a + 1.0) * frobenius(&g_bar) * factors.powi(2);
        let of_u = transpose(&of_u).concat();
        residual.equal_all(
            "∂φ/∂W",
            &found[w_info.range()],
            &of_w.concat(),
            size,
            at.units,
        )?;
        residual.equal_all("∂φ/∂U", &found[u_info.range()], &of_u, size, at.units)
    });
}

/// The lower triangular `L` with `L + Lᵀ = 2 M`.
fn lower_half(m: &Matrix) -> Matrix {
    let entry = |i: usize, j: usize| match i.cmp(&j) {
        Ordering::Greater => 2.0 * m[i][j],
        Ordering::Equal => m[i][j],
        Ordering::Less => 0.0,
    };
    let row = |i: usize| (0..m.len()).map(|j| entry(i, j)).collect();
    (0..m.len()).map(row).collect()
}

/// `(M + Mᵀ)/2`.
fn symmetric_part(m: &Matrix) -> Matrix {
    multiple(0.5, &plus(m, 1.0, &transpose(m)))
}

/// T12 where the input also bypasses the first layer: `B₁ΓB₁ᵀ ≠ G`.
#[test]
fn counter_gram_order_through_the_first_layer_gives_the_same_gradient() {
    property(dense_chains(), |mut case, _| {
        let (k, d) = (case.graph.outputs(), case.graph.inputs());
        let last = case.graph.nodes.len() - 1;
        let weight = uniform(k, d, 1.0, &mut case.random());
        let skip = case.graph.push(Op::Dense {
            from: 0,
            weight,
            bias: None,
        });
        case.graph.push(Op::Sum(vec![last, skip]));
        let (at, (b, w)) = (Setting::new(&case), first_layer(&case));
        let order = chain(&[&b, &gram_of(&w), &transpose(&b)]);
        prop_assert!(frobenius(&plus(&order, -1.0, &at.gram)) > 1e-9 * at.a);
        Ok(())
    });
}

/// A chain all of whose gates are of this kind.
fn with_gates(mut case: Case, kind: &GateKind) -> Case {
    for op in &mut case.graph.nodes {
        if let Op::Gate { kind: gate, .. } = op {
            *gate = kind.clone();
        }
    }
    case
}

/// Entries of the gradient of `φ(J)` in the rows of `W` before, and the columns of `W` after,
/// inactive units.
fn inactive_entries(case: &Case, a: &Matrix) -> Vec<f64> {
    let gradient = rows_gradient(case, &identity(case.graph.outputs()), a);
    let (network, pattern) = (case.network(), case.graph.pattern(&case.inputs[0]));
    let weights: Vec<_> = network
        .parameters()
        .layout()
        .iter()
        .filter(|info| info.shape().len() == 2)
        .collect();
    let mut all = Vec::new();
    for (gate, choices) in pattern.iter().enumerate() {
        let before = rows(&gradient[weights[gate].range()], weights[gate].shape()[1]);
        let after = rows(
            &gradient[weights[gate + 1].range()],
            weights[gate + 1].shape()[1],
        );
        for unit in (0..choices.len()).filter(|&unit| choices[unit] == 0) {
            all.extend(&before[unit]);
            all.extend(after.iter().map(|row| row[unit]));
        }
    }
    all
}

/// **T13.** Inactive ReLU units contribute exact zeros to the gradient of the weights before and
/// after them.
#[test]
fn inactive_units_contribute_exact_zeros() {
    property(dense_chains(), |case, _| {
        let case = with_gates(case, &GateKind::Relu);
        prop_assert!(
            inactive_entries(&case, &random_a(&case))
                .iter()
                .all(|entry| *entry == 0.0)
        );
        Ok(())
    });
}

/// T13 for leaky ReLU: the entries are not zero.
#[test]
fn counter_inactive_units_contribute_exact_zeros() {
    property(dense_chains(), |case, _| {
        let case = with_gates(case, &GateKind::Leaky(0.3));
        let entries = inactive_entries(&case, &random_a(&case));
        prop_assume!(!entries.is_empty());
        prop_assert!(entries.iter().any(|entry| *entry != 0.0));
        Ok(())
    });
}

fn prelu() -> impl Strategy<Value = Case> {
    let shapes = Shapes {
        every_operation: false,
        ..Shapes::plain()
    };
    shapes.cases().prop_map(|mut case| {
        for node in 0..case.graph.nodes.len() {
            let width = case.graph.width(node);
            if let Op::Gate { kind, .. } = &mut case.graph.nodes[node] {
                *kind = GateKind::Prelu(vec![0.25; width]);
            }
        }
        case
    })
}

/// The slope entries of a gradient, and those of all units by the formula, active ones included.
fn slope_entries(case: &Case, a: &Matrix) -> (Vec<f64>, Vec<(bool, f64)>) {
    let (point, network) = (point(case), case.network());
    let gradient = rows_gradient(case, &identity(case.graph.outputs()), a);
    let slopes = network
        .parameters()
        .layout()
        .iter()
        .filter(|info| info.name().ends_with("slope"));
    let found = slopes
        .flat_map(|info| gradient[info.range()].to_vec())
        .collect();
    let (mut expected, mut gate) = (Vec::new(), 0);
    for (node, op) in case.graph.nodes.iter().enumerate() {
        if let Op::Gate { from, .. } = op {
            let above = transpose(&case.graph.sensitivity(node, &point.pattern));
            let below = product_transposed(&point.jacobians[*from], a);
            for (unit, &choice) in point.pattern[gate].iter().enumerate() {
                expected.push((choice == 1, dot(&above[unit], &below[unit])));
            }
            gate += 1;
        }
    }
    (found, expected)
}

/// **T14.** `∂φ/∂α` of an inactive unit is the cotangent above times the tangent below, and 0 of an
/// active one.
#[test]
fn slope_gradient_is_cotangent_above_times_tangent_below() {
    property(prelu(), |case, residual| {
        let a = random_a(&case);
        let (found, expected) = slope_entries(&case, &a);
        let exact: Vec<f64> = expected
            .iter()
            .map(|&(active, e)| if active { 0.0 } else { e })
            .collect();
        let size = norm(&exact).max(1e-2 * case.sizes().1);
        residual.equal_all("∂φ/∂α", &found, &exact, size, 64.0 * case.roundings())?;
        let gradient = rows_gradient(&case, &identity(case.graph.outputs()), &a);
        agrees(&case, &gradient, |_, j| inner(&a, j), residual)
    });
}

/// T14 with active units included in the sum: a wrong derivative.
#[test]
fn counter_slope_gradient_is_cotangent_above_times_tangent_below() {
    property(prelu(), |case, _| {
        let (found, expected) = slope_entries(&case, &random_a(&case));
        let all: f64 = expected.iter().map(|(_, e)| e).sum();
        let active: f64 = expected
            .iter()
            .filter(|(active, _)| *active)
            .map(|(_, e)| e)
            .sum();
        prop_assume!(active.abs() > 1e-6 * (1.0 + all.abs()));
        prop_assert!((found.iter().sum::<f64>() - all).abs() > 1e-7 * (1.0 + all.abs()));
        Ok(())
    });
}

/// Seeds for each sample alone give what shared seeds give.
#[test]
fn seeds_of_each_sample_are_shared_seeds_repeated() {
    property(any_loss(), |case, residual| {
        let (network, batch, k) = (case.network(), case.batch(), case.graph.outputs());
        let trace = network.trace(batch.view()).unwrap();
        let seeds = uniform(2, k, 1.0, &mut case.random());
        let shared = trace
            .cotangents(Seeds::Shared(array(&seeds).view()))
            .unwrap();
        let repeated = Array3::from_shape_vec((1, 2, k), seeds.concat()).unwrap();
        let own = trace.cotangents(Seeds::PerSample(repeated.view())).unwrap();
        let flat = |a: ndarray::ArrayView3<f64>| a.iter().copied().collect::<Vec<f64>>();
        let size = case.sizes().1 * k as f64;
        residual.equal_all(
            "V J",
            &flat(shared.at_input()),
            &flat(own.at_input()),
            size,
            16.0 * case.roundings(),
        )?;
        Ok(())
    });
}
