//! Every path of the engine on the golden cases of an independent program.

use ndarray::{Array3, s};
use relugrad::{Network, Objective, Penalty, Scalar, SweepStrategy};
use relugrad_tests::golden::{Case, cases};
use relugrad_tests::tolerance::{distance, relative_error};

/// Units of rounding that a case's longest chain of sums may collect: five layers of at most seven
/// units, forward and back, and an eigenproblem; the worst seen is about a quarter of it.
const UNITS: f64 = 512.0;

/// `nuclear` goes through `√λ`, which turns the rounding of a small eigenvalue into its root.
fn tolerance<T: Scalar>(penalty: &Penalty) -> f64 {
    let epsilon = T::EPSILON.into_f64();
    match penalty {
        Penalty::JacobianNuclear => 4.0 * epsilon.sqrt(),
        _ => UNITS * epsilon,
    }
}

fn doubles<'a, T: Scalar>(values: impl IntoIterator<Item = &'a T>) -> Vec<f64> {
    values.into_iter().map(|value| value.into_f64()).collect()
}

fn check<T: Scalar>(case: &Case, what: &str, found: &[f64]) {
    let error = distance(found, &case.expected(what), 0.0);
    let bound = UNITS * T::EPSILON.into_f64();
    assert!(
        error <= bound,
        "{what} of {} is off by {error:e}",
        case.name
    );
}

fn derivatives<T: Scalar>(case: &Case) {
    let network: Network<T> = case.network();
    let (loss, targets) = (case.loss(), case.targets::<T>());
    let trace = network.trace(case.array("inputs").view()).unwrap();
    let check = |what: &str, found: &[f64]| check::<T>(case, what, found);
    check("logits", &doubles(trace.logits()));
    check(
        "loss",
        &trace.losses(&loss, &targets.view()).unwrap().to_vec(),
    );
    check("jacobian", &doubles(&trace.jacobian().unwrap()));
    check(
        "jvp",
        &doubles(&trace.jvp(case.array("tangent").view()).unwrap()),
    );
    check(
        "vjp",
        &doubles(&trace.vjp(case.array("cotangent").view()).unwrap()),
    );
    check("gram", &doubles(&trace.gram().unwrap()));
    let gradient = trace.input_gradient(&loss, &targets.view()).unwrap();
    check("input_gradient", &doubles(&gradient));
    let curvature = trace.curvature(&loss).unwrap();
    check(
        "hvp",
        &doubles(&curvature.apply(case.array("tangent").view()).unwrap()),
    );
    check("hessian", &doubles(&curvature.to_dense().unwrap()));
    check(
        "hessian_eigenvalues",
        &doubles(&curvature.eigenpairs().unwrap().values),
    );
}

#[test]
fn derivatives_in_f64() {
    cases().iter().for_each(derivatives::<f64>);
}

#[test]
fn derivatives_in_f32() {
    cases().iter().for_each(derivatives::<f32>);
}

#[test]
fn jacobian_streamed_row_by_row() {
    for case in cases() {
        let network: Network<f64> = case.network();
        let trace = network.trace(case.array("inputs").view()).unwrap();
        let mut jacobian = Array3::zeros((trace.samples(), network.outputs(), network.inputs()));
        let visit = |block: relugrad::JacobianBlock<f64>| {
            let place = s![block.samples, block.rows, ..];
            jacobian.slice_mut(place).assign(&block.values);
        };
        trace
            .for_each_jacobian_block(trace.row_bytes(), visit)
            .unwrap();
        check::<f64>(&case, "jacobian", &doubles(&jacobian));
    }
}

fn loss_gradient<T: Scalar>(case: &Case) -> Vec<f64> {
    gradient::<T>(case, &Objective::new(case.loss())).1
}

fn gradient<T: Scalar>(case: &Case, objective: &Objective) -> (relugrad::Evaluation, Vec<f64>) {
    let network: Network<T> = case.network();
    let (inputs, targets) = (case.array("inputs"), case.targets::<T>());
    let found = objective.gradient(&network, inputs.view(), &targets.view());
    let (evaluation, gradient) = found.unwrap();
    (evaluation, doubles(gradient.values()))
}

fn penalties<T: Scalar>(case: &Case, route: SweepStrategy) {
    check::<T>(case, "loss_gradient", &loss_gradient::<T>(case));
    for expected in case.penalties() {
        let penalty = expected.penalty;
        let objective = Objective::new(case.loss()).with_strategy(route);
        let (evaluation, total) =
            gradient::<T>(case, &objective.with(penalty.clone(), 1.0).unwrap());
        let bound = tolerance::<T>(&penalty);
        let values = evaluation.sample_penalties.row(0).to_vec();
        let error = distance(&values, &expected.values, 0.0);
        assert!(
            error <= bound,
            "{penalty} of {} is off by {error:e}",
            case.name
        );
        let loss = case.expected("loss_gradient");
        let sum: Vec<f64> = loss
            .iter()
            .zip(&expected.gradient)
            .map(|(a, b)| a + b)
            .collect();
        let error = relative_error(&total, &sum);
        assert!(
            error <= bound,
            "the gradient of {penalty} of {} is off by {error:e}",
            case.name
        );
    }
}

#[test]
fn penalties_with_the_fewest_rows() {
    cases()
        .iter()
        .for_each(|case| penalties::<f64>(case, SweepStrategy::Fewest));
}

#[test]
fn penalties_with_all_rows() {
    cases()
        .iter()
        .for_each(|case| penalties::<f64>(case, SweepStrategy::AllRows));
}

#[test]
fn penalties_without_the_jacobian() {
    cases()
        .iter()
        .for_each(|case| penalties::<f64>(case, SweepStrategy::FirstLayerGram));
}

#[test]
fn penalties_through_subset_sums() {
    cases()
        .iter()
        .for_each(|case| penalties::<f64>(case, SweepStrategy::FourRussians));
}

#[test]
fn penalties_in_f32() {
    cases()
        .iter()
        .for_each(|case| penalties::<f32>(case, SweepStrategy::Fewest));
}

/// All penalties of a case in one objective: what they share must not change any of them.
#[test]
fn all_penalties_together() {
    for case in cases() {
        let mut objective = Objective::new(case.loss());
        let mut sum = case.expected("loss_gradient");
        for (i, expected) in case.penalties().into_iter().enumerate() {
            let lambda = 0.5 + 0.25 * i as f64;
            objective = objective.with(expected.penalty, lambda).unwrap();
            let pairs = sum.iter_mut().zip(&expected.gradient);
            pairs.for_each(|(sum, gradient)| *sum += lambda * gradient);
        }
        let error = relative_error(&gradient::<f64>(&case, &objective).1, &sum);
        let bound = tolerance::<f64>(&Penalty::JacobianNuclear);
        assert!(
            error <= bound,
            "the gradient of {} is off by {error:e}",
            case.name
        );
    }
}
