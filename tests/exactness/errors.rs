//! What is not a network, a batch or an objective is refused with a typed error, and nothing
//! panics.

use ndarray::{Array2, Array3, array};
use proptest::prelude::*;
use relugrad::{
    Builder, Direction, Error, FiniteDifference, Gate, Loss, Mlp, Network, Objective, Penalty,
    Seeds, Targets,
};
use relugrad_tests::cases::{Case, Shapes};
use relugrad_tests::run::property;

fn network() -> Network<f64> {
    Mlp::new(&[3, 5, 4]).build(1).unwrap()
}

const BAD: [f64; 3] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];

#[test]
fn inputs_that_are_not_finite_are_located() {
    property(
        (
            Shapes::any().cases(),
            any::<prop::sample::Index>(),
            0..3_usize,
        ),
        |(case, at, bad), _| {
            let mut batch = case.batch();
            let columns = batch.ncols();
            let index = at.index(batch.len());
            batch[(index / columns, index % columns)] = BAD[bad];
            let error = case.network().trace(batch.view()).unwrap_err();
            let place = vec![index / columns, index % columns];
            prop_assert_eq!(
                error,
                Error::NotFinite {
                    what: "inputs".into(),
                    index: place
                }
            );
            Ok(())
        },
    );
}

/// A parameter that is not finite is refused by `assign`; written behind its back it shows itself
/// in the trace, unless nothing reads it.
#[test]
fn parameters_that_are_not_finite_are_reported() {
    let strategy = (
        Shapes::any().cases(),
        any::<prop::sample::Index>(),
        0..3_usize,
    );
    property(strategy, |(case, at, bad), _| {
        let mut network = case.network();
        let mut values = case.graph.parameters();
        prop_assume!(!values.is_empty());
        let index = at.index(values.len());
        values[index] = BAD[bad];
        let refused = network.parameters_mut().assign(&values);
        let refused = matches!(refused, Err(Error::NotFinite { .. }));
        prop_assert!(refused);
        prop_assert_eq!(network.parameters().values(), case.graph.parameters());
        network.parameters_mut().values_mut()[index] = BAD[bad];
        match network.trace(case.batch().view()) {
            Err(Error::NotFinite { .. }) => {}
            Err(error) => prop_assert!(false, "{}", error),
            Ok(trace) => prop_assert!(trace.logits().iter().all(|f| f.is_finite())),
        }
        Ok(())
    });
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let network = network();
    let wrong = |error: Error| assert!(matches!(error, Error::Shape { .. }), "{error}");
    wrong(network.trace(Array2::zeros((2, 4)).view()).unwrap_err());
    let inputs = array![[1.0, 2.0, 3.0], [0.5, -1.0, 2.0]];
    let trace = network.trace(inputs.view()).unwrap();
    wrong(trace.jvp(Array2::zeros((2, 4)).view()).unwrap_err());
    wrong(trace.jvp(Array2::zeros((1, 3)).view()).unwrap_err());
    wrong(trace.vjp(Array2::zeros((2, 3)).view()).unwrap_err());
    wrong(
        trace
            .parameter_vjp(Array2::zeros((3, 4)).view())
            .unwrap_err(),
    );
    wrong(
        trace
            .cotangents(Seeds::Shared(Array2::zeros((1, 3)).view()))
            .unwrap_err(),
    );
    wrong(
        trace
            .cotangents(Seeds::PerSample(Array3::zeros((1, 1, 4)).view()))
            .unwrap_err(),
    );
    wrong(trace.tangents(Array3::zeros((2, 1, 4)).view()).unwrap_err());
    let one = trace
        .cotangents(Seeds::Shared(Array2::zeros((1, 4)).view()))
        .unwrap();
    let two = trace.tangents(Array3::zeros((2, 2, 3)).view()).unwrap();
    wrong(trace.weight_gradient(&one, &two).unwrap_err());
    let curvature = trace.curvature(&Loss::softmax_cross_entropy()).unwrap();
    wrong(curvature.apply(Array2::zeros((2, 2)).view()).unwrap_err());
    let empty = network.trace(Array2::zeros((0, 3)).view()).unwrap_err();
    assert!(matches!(empty, Error::EmptyBatch { .. }));
    assert!(matches!(
        trace.for_each_jacobian_block(0, |_| ()),
        Err(Error::MemoryBound { .. })
    ));
}

fn evaluate(targets: &Targets<f64>, loss: Loss) -> Error {
    let inputs = array![[1.0, 2.0, 3.0], [0.5, -1.0, 2.0]];
    Objective::new(loss)
        .gradient(&network(), inputs.view(), targets)
        .unwrap_err()
}

#[test]
fn targets_that_do_not_fit_are_refused() {
    let softmax = Loss::softmax_cross_entropy();
    let error = evaluate(&Targets::Classes(&[0, 4]), softmax);
    assert_eq!(
        error,
        Error::Label {
            sample: 1,
            label: 4,
            classes: 4
        }
    );
    assert!(matches!(
        evaluate(&Targets::Classes(&[0]), softmax),
        Error::Shape { .. }
    ));
    let negative = array![[1.5, -0.5, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]];
    let error = evaluate(&Targets::Probabilities(negative.view()), softmax);
    assert!(matches!(
        error,
        Error::TargetProbabilities { sample: 0, .. }
    ));
    let narrow = array![[1.0, 0.0, 0.0]];
    assert!(matches!(
        evaluate(&Targets::Values(narrow.view()), Loss::SquaredError),
        Error::Shape { .. }
    ));
    assert!(matches!(
        evaluate(&Targets::Values(negative.view()), softmax),
        Error::Loss { .. }
    ));
    assert!(matches!(
        evaluate(&Targets::Classes(&[0, 1]), Loss::Logistic),
        Error::Loss { .. }
    ));
    for value in BAD {
        let bad = Array2::from_elem((2, 4), value);
        let error = evaluate(&Targets::Values(bad.view()), Loss::SquaredError);
        assert!(matches!(error, Error::NotFinite { .. }));
    }
    for label_smoothing in [-0.1, 1.5, f64::NAN] {
        let error = evaluate(
            &Targets::Classes(&[0, 1]),
            Loss::SoftmaxCrossEntropy { label_smoothing },
        );
        assert!(matches!(error, Error::OutOfRange { .. }));
    }
}

#[test]
fn options_out_of_range_are_refused() {
    let refused = |penalty: Penalty, lambda: f64| {
        let objective = Objective::new(Loss::SquaredError).with(penalty, lambda);
        assert!(matches!(objective, Err(Error::OutOfRange { .. })));
    };
    for lambda in [-1.0, f64::NAN, f64::INFINITY] {
        refused(Penalty::Jacobian, lambda);
        refused(
            Penalty::Cure {
                step: lambda,
                direction: Direction::Sign,
            },
            1.0,
        );
        let mut objective = Objective::new(Loss::SquaredError)
            .with(Penalty::Jacobian, 1.0)
            .unwrap();
        assert!(objective.set_lambda(0, lambda).is_err() && objective.set_lambda(1, 1.0).is_err());
        assert!(FiniteDifference::central(lambda).is_err());
        assert!(
            matches!(
                Mlp::new(&[2, 2, 2])
                    .gate(Gate::LeakyRelu { slope: lambda })
                    .build::<f64>(0),
                Err(Error::OutOfRange { .. }) | Err(Error::NotFinite { .. })
            ) == !lambda.is_finite()
        );
    }
    refused(Penalty::JacobianProjected { rows: 0, seed: 0 }, 1.0);
    assert!(matches!(
        "curvature-tace".parse::<Penalty>(),
        Err(Error::UnknownPenalty { .. })
    ));
}

#[test]
fn graphs_that_are_not_networks_are_refused() {
    let mut builder = Builder::<f64>::new();
    assert!(matches!(
        builder.clone().input(0),
        Err(Error::ZeroWidth { .. })
    ));
    let x = builder.input(2).unwrap();
    assert!(matches!(builder.input(2), Err(Error::InputNodes { .. })));
    let weight = Array2::from_elem((3, 2), 1.0);
    let z = builder.dense(x, weight.clone(), None).unwrap();
    assert!(matches!(builder.sum(&[x, z]), Err(Error::Shape { .. })));
    assert!(matches!(builder.sum(&[]), Err(Error::ZeroWidth { .. })));
    assert!(matches!(
        builder.dense(z, weight.clone(), None),
        Err(Error::Shape { .. })
    ));
    let bias = Some(array![1.0]);
    assert!(matches!(
        builder.dense(x, weight.clone(), bias),
        Err(Error::Shape { .. })
    ));
    assert!(matches!(
        builder.dense(x, Array2::zeros((0, 2)), None),
        Err(Error::ZeroWidth { .. })
    ));
    assert!(matches!(
        builder.prelu(z, array![0.1]),
        Err(Error::Shape { .. })
    ));
    for value in BAD {
        assert!(matches!(
            builder.prelu(z, array![0.1, 0.2, value]),
            Err(Error::NotFinite { .. })
        ));
        let bad = Array2::from_elem((3, 2), value);
        assert!(matches!(
            builder.clone().dense(x, bad, None),
            Err(Error::NotFinite { .. })
        ));
    }
    let mut larger = builder.clone();
    let beyond = larger.relu(z).unwrap();
    assert!(matches!(
        builder.relu(beyond),
        Err(Error::UnknownNode { .. })
    ));
}

/// Pre-activations that are exactly zero are counted per sample, by the convention the unit is
/// inactive, and all derivatives are those of that pattern.
#[test]
fn exact_zeros_are_counted_and_inactive() {
    let mut builder = Builder::new();
    let x = builder.input(2).unwrap();
    let z = builder
        .dense(x, array![[1.0, -1.0], [1.0, 1.0], [2.0, 0.0]], None)
        .unwrap();
    let a = builder.gate(z, Gate::LeakyRelu { slope: 0.25 }).unwrap();
    let f = builder.dense(a, array![[1.0, 1.0, 1.0]], None).unwrap();
    let network = builder.build(f).unwrap();
    let batch = array![[1.0, 1.0], [0.0, 0.0], [1.0, 0.5], [0.0, 3.0]];
    let trace = network.trace(batch.view()).unwrap();
    assert_eq!(trace.kinks(), [1, 3, 0, 1]);
    assert!(!trace.pattern().is_active(0, 0, 0) && trace.pattern().is_active(0, 0, 1));
    let jacobian = trace.jacobian().unwrap();
    assert_eq!(jacobian.as_slice().unwrap()[..4], [3.25, 0.75, 1.0, 0.0]);
    let objective = Objective::new(Loss::Logistic)
        .with(Penalty::Jacobian, 1.0)
        .unwrap();
    let found = objective
        .value(&network, batch.view(), &Targets::Classes(&[0, 1, 1, 0]))
        .unwrap();
    assert_eq!(found.samples_on_kink, 3);
}

/// Probabilities that underflow: everything stays finite, and what vanishes is 0.
#[test]
fn certain_predictions_have_finite_penalties() {
    let strategy = (Shapes::any().cases(), 2..6_i32);
    property(strategy, |(case, power), _| {
        let Some(case) = magnified(&case, 10_f64.powi(power)) else {
            return Ok(());
        };
        for penalty in crate::values::penalties() {
            let objective = case.objective(&penalty, relugrad::SweepStrategy::Fewest);
            let found =
                objective.gradient(&case.network(), case.batch().view(), &case.owned.view());
            let (evaluation, gradient) =
                found.map_err(|e| TestCaseError::fail(format!("{penalty}: {e}")))?;
            prop_assert!(evaluation.value.is_finite());
            prop_assert!(
                gradient.values().iter().all(|g| g.is_finite()),
                "{}",
                penalty
            );
        }
        let network = case.network();
        let trace = network.trace(case.batch().view()).unwrap();
        let pairs = trace.curvature(&case.loss).unwrap().eigenpairs();
        let vectors = pairs
            .map_err(|e| TestCaseError::fail(e.to_string()))?
            .vectors;
        prop_assert!(vectors.iter().all(|v| v.is_finite()));
        Ok(())
    });
}

/// The case with its last dense layer multiplied by `factor`, if that is its output.
fn magnified(case: &Case, factor: f64) -> Option<Case> {
    let mut case = case.clone();
    let relugrad_tests::graph::Op::Dense { weight, .. } = case.graph.nodes.last_mut()? else {
        return None;
    };
    weight.iter_mut().flatten().for_each(|w| *w *= factor);
    Some(case)
}
