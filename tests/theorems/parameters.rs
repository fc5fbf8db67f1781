//! T59 and T60: the parameters (`docs/theory.md`, section 10).

use proptest::prelude::*;
use relugrad::Penalty;
use relugrad_tests::cases::{Case, Losses, Shapes};
use relugrad_tests::graph::{Graph, Op};
use relugrad_tests::matrix::{dot, inner, multiple, norm, plus, singular_values, times};
use relugrad_tests::parameter::penalty_gradient;
use relugrad_tests::run::{Residual, property};

use crate::setting::{Setting, any_loss, chains, labels};

type Outcome = Result<(), TestCaseError>;

/// The part of a parameter vector that belongs to arrays whose name ends so.
fn part(case: &Case, values: &[f64], ending: &str) -> Vec<f64> {
    let network = case.network();
    let layout = network.parameters().layout();
    let named = layout.iter().filter(|info| info.name().ends_with(ending));
    named
        .flat_map(|info| values[info.range()].to_vec())
        .collect()
}

/// **T59.** `∂φ/∂b = 0`, as bits, for penalties of `J` alone.
#[test]
fn jacobian_penalties_do_not_depend_on_biases() {
    use Penalty::{CrossLipschitz, Jacobian, JacobianNuclear, JacobianSpectral};
    let penalties = prop::sample::select(vec![
        Jacobian,
        JacobianSpectral,
        JacobianNuclear,
        CrossLipschitz,
    ]);
    property((any_loss(), penalties), |(case, penalty), _| {
        let (network, batch) = (case.network(), case.batch());
        let gradient = |lambda: f64| {
            let objective = relugrad::Objective::new(case.loss)
                .with_strategy(case.strategy())
                .with(penalty.clone(), lambda)
                .unwrap();
            let found = objective.gradient(&network, batch.view(), &case.owned.view());
            found.unwrap().1.values().to_vec()
        };
        let (with, without) = (
            part(&case, &gradient(1.0), "bias"),
            part(&case, &gradient(0.0), "bias"),
        );
        prop_assert_eq!(with, without);
        Ok(())
    });
}

/// T59 for a penalty that depends on the logits: its bias gradient is not zero.
#[test]
fn counter_jacobian_penalties_do_not_depend_on_biases() {
    property(labels(), |case, _| {
        let gradient = penalty_gradient(&case, &Penalty::InputGradient, case.strategy());
        let at = Setting::new(&case);
        let biases = part(&case, &gradient, "bias");
        prop_assume!(!biases.is_empty() && norm(&at.g) > 1e-4 * at.a * at.r_size);
        prop_assume!(at.s_size > 1e-6);
        let u = times(&at.s, &times(&at.j, &at.g));
        let through = case.graph.logit_pullback(&case.graph.at(at.x()), &u);
        prop_assume!(norm(&part(&case, &through, "bias")) > 1e-6 * norm(&through));
        prop_assert!(norm(&biases) > 1e-12 * norm(&gradient));
        Ok(())
    });
}

/// `⟨W_l, ∂φ/∂W_l⟩` for every dense layer.
fn products(case: &Case, gradient: &[f64]) -> Vec<f64> {
    let (network, values) = (case.network(), case.graph.parameters());
    let weights = network
        .parameters()
        .layout()
        .iter()
        .filter(|info| info.name().ends_with("weight"));
    weights
        .map(|info| dot(&values[info.range()], &gradient[info.range()]))
        .collect()
}

/// Euler's relation of a chain for a penalty of this degree.
fn euler(case: &Case, penalty: &Penalty, degree: f64, residual: &Residual) -> Outcome {
    let at = Setting::new(case);
    let gradient = penalty_gradient(case, penalty, case.strategy());
    let (expected, loss) = (degree * at.value(penalty), at.r_size * case.sizes().0);
    let size = 4.0 * at.k as f64 * at.a * at.a.max(1.0) + loss;
    for found in products(case, &gradient) {
        residual.equal(penalty.name(), (found, expected), size, 16.0 * at.units)?;
    }
    Ok(())
}

/// **T60.** `⟨W_l, ∂φ/∂W_l⟩ = n φ` for every layer of a chain.
#[test]
fn euler_relation_holds_for_every_layer_that_all_paths_pass() {
    use Penalty::{CrossLipschitz, Jacobian, JacobianNuclear, JacobianSpectral};
    let penalties = vec![
        (Jacobian, 2.0),
        (CrossLipschitz, 2.0),
        (JacobianSpectral, 2.0),
        (JacobianNuclear, 1.0),
    ];
    property(
        (chains(), prop::sample::select(penalties)),
        |(case, (penalty, degree)), residual| {
            prop_assume!(case.graph.is_chain());
            let singular = singular_values(&Setting::new(&case).j);
            prop_assume!(degree > 1.5 || singular[singular.len() - 1] > 1e-2 * singular[0]);
            euler(&case, &penalty, degree, residual)
        },
    );
}

/// The Jacobian without the paths through a node: `R_l`.
fn bypass(graph: &Graph, x: &[f64], node: usize) -> Vec<Vec<f64>> {
    let point = graph.at(x);
    let through = relugrad_tests::matrix::product(
        &graph.sensitivity(node, &point.pattern),
        &point.jacobians[node],
    );
    plus(point.jacobian(), -1.0, &through)
}

fn with_skip() -> impl Strategy<Value = Case> {
    let shapes = Shapes {
        losses: Losses::Label,
        batch: 1..=1,
        depth: 1..=2,
        width: 4..=12,
        ..Shapes::any()
    };
    let skip = |case: &Case| matches!(case.graph.nodes.last(), Some(Op::Sum(_)));
    shapes
        .cases()
        .prop_filter("no skip from the input to the output", skip)
}

/// T60 inside a skip connection: `⟨A, R_l⟩ = 2⟨J, R_l⟩` is missing for the last layer of the main
/// branch.
#[test]
fn counter_euler_relation_holds_for_every_layer_that_all_paths_pass() {
    property(with_skip(), |case, residual| {
        let at = Setting::new(&case);
        let node = case.graph.nodes.len() - 3;
        let around = bypass(&case.graph, at.x(), node);
        let missing = inner(&multiple(2.0, &at.j), &around);
        let gradient = penalty_gradient(&case, &Penalty::Jacobian, case.strategy());
        let all = products(&case, &gradient);
        let (found, expected) = (all[all.len() - 2], 2.0 * at.value(&Penalty::Jacobian));
        let size = at.a * at.a + at.r_size * case.sizes().0;
        residual.equal(
            "n φ − ⟨A, R⟩",
            (found, expected - missing),
            size,
            16.0 * at.units,
        )?;
        prop_assume!(missing.abs() > 1e-6 * size);
        prop_assert!((found - expected).abs() > 1e-7 * size);
        Ok(())
    });
}
