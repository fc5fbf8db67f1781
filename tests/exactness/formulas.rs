//! Penalties written as formulas: those that are built in, and random ones.

use std::collections::BTreeMap;

use ndarray::{Array1, Array2};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use relugrad::penalty::Formula;
use relugrad::{Error, Loss, Mlp, Network, Objective, Penalty, Scalar, SweepStrategy, Targets};
use relugrad_tests::cases::{Case, ROUTES, Shapes};
use relugrad_tests::difference::slope;
use relugrad_tests::formula::{Kind, formula, garbage};
use relugrad_tests::matrix::norm;
use relugrad_tests::parameter::penalty_gradient;
use relugrad_tests::run::{Residual, property};
use relugrad_tests::tolerance::{GRADIENT, relative_error, slope_error};

/// Error of the difference quotient that is accepted, a third of what is asserted.
const DIFFERENCE: f64 = GRADIENT / 3.0;

/// The step by which a kink at the very point is seen.
const ASIDE: f64 = 1e-5;

/// The shortest gradient that is looked at.
const SMALLEST: f64 = 1e-3;

/// Every built-in penalty of `f`, `y` and `G`, `g` or `J`, as formulas; all but the projected
/// Jacobian, which is random.
const BUILT_IN: [(&str, &[&str]); 13] = [
    (
        "input-gradient",
        &["dot(g, g)", "norm2(g)^2", "dot(r, G*r)", "sum((J'*r)^2)"],
    ),
    ("input-gradient-l2", &["norm2(g)", "norm2(J'*r)"]),
    ("input-gradient-l1", &["norm1(g)", "sum(abs(g))"]),
    ("input-gradient-linf", &["norminf(g)", "max(abs(J'*r))"]),
    (
        "jacobian",
        &[
            "tr(G)",
            "norm2(J)^2",
            "sum(J.*J)",
            "tr(J'*J)",
            "sum(rownorms2(J)^2)",
        ],
    ),
    ("jacobian-spectral", &["eigmax(G)", "eigmax(J'*J)"]),
    ("jacobian-nuclear", &["trsqrt(G)"]),
    ("jacobian-probabilities", &["tr(S*G*S)", "norm2(S*J)^2"]),
    (
        "cross-lipschitz",
        &[
            "2*K*tr(C*G)",
            "2*K*norm2(C*J)^2",
            "2*K*tr(G) - 2*one^T*G*one",
        ],
    ),
    ("curvature-trace", &["tr(S*G)", "tr(J'*S*J)"]),
    ("curvature-frobenius", &["tr(S*G*S*G)", "sum((J'*S*J)^2)"]),
    ("curvature-spectral", &["eigmax(J'*S*J)"]),
    (
        "curvature-directional",
        &["dot(S*G*r, G*S*G*r)/dot(r, G*r)"],
    ),
];

fn parsed(text: &str) -> Penalty {
    let constants = match text.contains("eps") {
        true => BTreeMap::from([("eps".to_owned(), 0.3)]),
        false => BTreeMap::new(),
    };
    let parsed = Formula::parse("own", text, constants);
    Penalty::Formula(parsed.unwrap_or_else(|error| panic!("{error}")))
}

/// The values at samples and the gradient of a penalty, alone and beside another one of `G`.
fn found<T: Scalar>(
    penalty: &Penalty,
    (network, x, targets): (&Network<T>, &Array2<T>, &Targets<T>),
    (loss, route, beside): (Loss, SweepStrategy, bool),
) -> (Vec<f64>, Vec<f64>) {
    let objective = Objective::new(loss).penalties_only().with_strategy(route);
    let mut objective = objective.with(penalty.clone(), 1.0).unwrap();
    if beside {
        objective = objective.with(Penalty::Jacobian, 0.01).unwrap();
    }
    let (value, gradient) = objective.gradient(network, x.view(), targets).unwrap();
    let gradient = gradient.values().iter().map(|g| g.into_f64()).collect();
    (value.sample_penalties.row(0).to_vec(), gradient)
}

fn compare<T: Scalar>(k: usize, loss: Loss) {
    const D: usize = 7;
    let network = Mlp::new(&[D, 16, 13, k]).build::<T>(k as u64).unwrap();
    let number = |(i, j): (usize, usize)| T::from_f64(((7 * i + 3 * j + k) as f64).sin());
    let x = Array2::from_shape_fn((5, D), number);
    let values = Array2::from_shape_fn((5, k), |(i, j)| number((j + 2, i)));
    let labels: Vec<usize> = (0..5).map(|i| i % loss.classes(k)).collect();
    let targets = match loss {
        Loss::SquaredError => Targets::Values(values.view()),
        _ => Targets::Classes(&labels),
    };
    let tolerance = 1e5 * T::EPSILON.into_f64();
    for (name, texts) in BUILT_IN {
        let built_in: Penalty = name.parse().unwrap();
        for (&text, route) in texts
            .iter()
            .flat_map(|text| ROUTES.map(|route| (text, route)))
        {
            for beside in [false, true] {
                let of = |penalty| found(penalty, (&network, &x, &targets), (loss, route, beside));
                let (expected, formula) = (of(&built_in), of(&parsed(text)));
                let what = format!(
                    "{text} as {name}, {loss:?}, K = {k}, {route:?}, {}",
                    T::NAME
                );
                for (a, b) in expected.0.iter().zip(&formula.0) {
                    let size = expected.0.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
                    assert!((a - b).abs() <= tolerance * size, "{what}: {a} is not {b}");
                }
                let error = relative_error(&formula.1, &expected.1);
                // Roots of what rounding leaves of small eigenvalues.
                let tolerance = if name == "jacobian-nuclear" {
                    tolerance.sqrt()
                } else {
                    tolerance
                };
                assert!(error <= tolerance, "{what}: {error}");
            }
        }
    }
}

/// Values and gradients of built-in penalties, by every route, alone and beside others, in both
/// precisions, for all losses.
#[test]
fn formulas_of_built_in_penalties_are_equal_to_them() {
    for k in 1..=12 {
        let classes = match k {
            1 => Loss::Logistic,
            _ => Loss::softmax_cross_entropy(),
        };
        for loss in [classes, Loss::SquaredError] {
            compare::<f64>(k, loss);
            compare::<f32>(k, loss);
        }
    }
}

/// A random formula whose value is a number, with at least three levels.
fn random_formula(random: &mut ChaCha8Rng) -> (String, Penalty) {
    let levels = random.random_range(3..=4);
    loop {
        let text = formula(Kind::Scalar, levels, random);
        let constants = match text.contains("eps") {
            true => BTreeMap::from([("eps".to_owned(), 0.3)]),
            false => BTreeMap::new(),
        };
        match Formula::parse("own", &text, constants) {
            Ok(formula) => return (text, Penalty::Formula(formula)),
            Err(Error::Formula(error)) => {
                // Some have no network in them, and a few are long.
                let problem = error.problem();
                let known = ["depend on", "operations", "bytes"];
                assert!(known.iter().any(|part| problem.contains(part)), "{error}");
            }
            Err(other) => panic!("{other}"),
        }
    }
}

/// Derivatives of random formulas with respect to logits and Jacobian against differences. Where
/// these do not agree over steps, a kink is near, and the case is left out.
#[test]
fn derivatives_of_random_formulas_agree_with_differences() {
    property(
        (any::<u64>(), 1usize..6, 1usize..6),
        |(seed, k, d), residual| {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let (text, penalty) = random_formula(&mut random);
            let mut number = || random.random_range(-1.0..1.0);
            let f = Array1::from_shape_simple_fn(k, &mut number);
            let j = Array2::from_shape_simple_fn((k, d), &mut number);
            let moves = (
                Array1::from_shape_simple_fn(k, &mut number),
                Array2::from_shape_simple_fn((k, d), &mut number),
            );
            let values = Array2::from_shape_simple_fn((1, k), &mut number);
            let (loss, targets) = match seed % 2 {
                0 => (Loss::SquaredError, Targets::Values(values.view())),
                _ if k == 1 => (Loss::Logistic, Targets::Classes(&[1])),
                _ => (Loss::softmax_cross_entropy(), Targets::Classes(&[0])),
            };
            let at = |t: f64| {
                let (f, j) = (&f + &(t * &moves.0), &j + &(t * &moves.1));
                let value = penalty.value_at(&loss, &targets, f.as_slice().unwrap(), j.view());
                value.map_or(f64::NAN, |value| value.unwrap())
            };
            let exact = penalty.derivatives_at(&loss, &targets, f.as_slice().unwrap(), j.view());
            // Exponentials of exponentials may overflow.
            prop_assume!(exact.is_ok());
            let exact = exact.unwrap().unwrap();
            prop_assert_eq!(exact.value, at(0.0));
            let held = text.contains("hold");
            prop_assume!(!held);
            let length = (norm(exact.logits.as_slice().unwrap()).powi(2)
                + norm(exact.jacobian.as_slice().unwrap()).powi(2))
            .sqrt();
            let along = (&exact.logits * &moves.0).sum() + (&exact.jacobian * &moves.1).sum();
            check(&text, at, (along, length), residual)
        },
    );
}

/// A derivative against differences of values, which have to be trusted first.
fn check(
    text: &str,
    value: impl Fn(f64) -> f64,
    (exact, length): (f64, f64),
    residual: &Residual,
) -> TestCaseResult {
    // What is 0 but for rounding has no derivative that differences could see.
    prop_assume!(length > SMALLEST);
    // On a kink differences to both sides may have a mean that is no derivative.
    let (up, here, down) = (value(ASIDE), value(0.0), value(-ASIDE));
    prop_assume!((up + down - 2.0 * here).abs() < 0.01 * ASIDE * length);
    let (found, error) = slope(value, 1e-3);
    prop_assume!(error <= DIFFERENCE * length.max(found.abs()));
    let error = slope_error(found, exact, length);
    residual.within(
        &format!("{text}: {found:e}, {exact:e}"),
        error,
        1.0,
        GRADIENT,
    )
}

/// The same through the parameters of a network.
#[test]
fn parameter_gradients_of_random_formulas_agree_with_differences() {
    property(any::<u64>(), |seed, residual| {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let (text, penalty) = random_formula(&mut random);
        prop_assume!(!text.contains("hold"));
        let k = random.random_range(2..5);
        let network = Mlp::new(&[3, 6, k]).build::<f64>(seed).unwrap();
        let x = Array2::from_shape_simple_fn((2, 3), || random.random_range(-1.0..1.0));
        let targets = Targets::Classes(&[0, 1]);
        let objective = Objective::new(Loss::softmax_cross_entropy()).penalties_only();
        let objective = objective.with(penalty, 1.0).unwrap();
        let found = objective.gradient(&network, x.view(), &targets);
        prop_assume!(found.is_ok());
        let gradient = found.unwrap().1;
        let mut number = || random.random_range(-1.0..1.0);
        let direction = Array1::from_shape_simple_fn(gradient.len(), &mut number);
        let value = |t: f64| {
            let mut moved = network.clone();
            let parameters = moved.parameters_mut().values_mut().iter_mut();
            parameters.zip(&direction).for_each(|(p, u)| *p += t * u);
            let value = objective.value(&moved, x.view(), &targets);
            value.map_or(f64::NAN, |value| value.value)
        };
        let exact = gradient
            .values()
            .iter()
            .zip(&direction)
            .map(|(g, u)| g * u)
            .sum();
        let length = norm(gradient.values());
        check(&text, value, (exact, length), residual)
    });
}

/// What the random networks of all other tests make of formulas by every route.
#[test]
fn formulas_take_every_route_of_random_networks() {
    let pairs = [
        ("curvature-frobenius", "tr(S*G*S*G)"),
        ("cross-lipschitz", "2*K*tr(C*G)"),
        ("input-gradient", "dot(r, G*r)"),
        ("jacobian", "tr(J*J')"),
    ];
    property(Shapes::any().cases(), |case: Case, residual| {
        for (name, text) in pairs {
            let (built_in, formula) = (name.parse().unwrap(), parsed(text));
            for route in ROUTES {
                let expected = penalty_gradient(&case, &built_in, route);
                let found = penalty_gradient(&case, &formula, route);
                prop_assume!(norm(&expected) > 1e-100);
                residual.within(text, relative_error(&found, &expected), 1.0, 1e-9)?;
            }
        }
        Ok(())
    });
}

/// No text makes the parser panic, and what it refuses it can show.
#[test]
fn no_text_is_too_strange() {
    property((any::<u64>(), 0usize..60), |(seed, length), _| {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut text = garbage(length, &mut random);
        if seed % 3 == 0 {
            // A good formula with a part that is not.
            text = formula(Kind::Scalar, 3, &mut random);
            let places: Vec<usize> = text.char_indices().map(|(i, _)| i).collect();
            let place = places[random.random_range(0..places.len())];
            text.insert_str(place, &garbage(1, &mut random));
        }
        let constants = BTreeMap::new();
        match Formula::parse("own", &text, constants.clone()) {
            Ok(formula) => {
                let again = Formula::parse("own", formula.text(), constants);
                prop_assert_eq!(again.unwrap(), formula);
            }
            Err(Error::Formula(error)) => {
                prop_assert!(!error.to_string().is_empty());
                prop_assert!(text.is_char_boundary(error.place().start));
            }
            Err(other) => return Err(TestCaseError::fail(other.to_string())),
        }
        Ok(())
    });
}
