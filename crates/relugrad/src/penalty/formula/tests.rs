//! Which door formulas take, what they promise, and what is refused.

use std::collections::BTreeMap;

use ndarray::{Array2, array};

use super::*;
use crate::{Loss, Mlp, Objective, Targets};

fn constants() -> BTreeMap<String, f64> {
    BTreeMap::new()
}

fn formula(text: &str) -> Formula {
    Formula::parse("own", text, constants()).unwrap_or_else(|error| panic!("{error}"))
}

fn door(text: &str) -> &'static str {
    formula(text).sees()
}

#[test]
fn each_formula_takes_the_cheapest_door() {
    for text in [
        "lse(f)",
        "dot(p, log(p))",
        "tr(S)",
        "norm2(r)",
        "loss^2",
        "relu(1 - dot(y, f))",
    ] {
        assert_eq!(door(text), "logits", "{text}");
    }
    for text in [
        "norm1(g)",
        "norm2(g)",
        "norm2(g)^2",
        "dot(r, G*r)",
        "r'*G*r",
        "sum(g.*g)/D",
        "norminf(J'*r)",
        "norm2(r^T*J)",
        "norm1(2*J'*r) + norm2(f)",
        "sqrt(r'*J*(J'*r) + 1)",
        "tr(outer(g, g))",
    ] {
        assert_eq!(door(text), "input gradient", "{text}");
    }
    for text in [
        "tr(G)",
        "tr(J*J')",
        "tr(J'*J)",
        "norm2(J)^2",
        "norm2(J)",
        "sum(J.*J)",
        "sum(J^2)",
        "dot(J, C*J)",
        "eigmax(G)",
        "eigmax(J'*J)",
        "eigmax(J'*S*J)",
        "trsqrt(J'*J)",
        "tr(J'*S*J)",
        "norm2(g)^2 + tr(S*G)",
        "norm2(g) + norm2(J'*p)",
        "sum(rownorms2(J))",
        "max(rownorms2(J - one*(y'*J)))",
        "lse(f - one*dot(y,f) + rownorms2(J - one*(y'*J))/2)",
        "norm2((2*J + C*J/K)'*p)",
        "logdet(I + G)",
    ] {
        assert_eq!(door(text), "Gram matrix", "{text}");
    }
    for text in [
        "norm1(J)",
        "sum(rownorms1(J))",
        "norm1(g) + tr(G)",
        "norm1(J'*y)",
        "sum(exp(J)) + tr(G)",
        "norm2(hold(J)*g)",
        "eigmax(J'*J + J'*S*J)",
    ] {
        assert_eq!(door(text), "Jacobian", "{text}");
    }
}

#[test]
fn only_what_the_form_shows_is_promised() {
    let invariant =
        |text: &str| formula(text).promises().invariance == Invariance::LogitDifferences;
    for text in [
        "2*K*tr(C*G)",
        "tr(S*G)",
        "tr(S*G*S*G)",
        "tr(S*G*S)",
        "eigmax(S*G*S)",
        "eigmax(C*G*C)",
        "eigmax(J'*S*J)",
        "dot(S*G*r, G*S*G*r)/dot(r, G*r)",
        "norm2(C*J)",
        "sum(rownorms1(C*J))",
        "norm1(g)*loss + norm2(p - y)",
        "f'*C*f + dot(C*f, C*f)",
        "tr(J'*S*J)",
        "norm2(J'*S)",
    ] {
        assert!(invariant(text), "{text}");
    }
    for text in [
        "tr(G)",
        "lse(f)",
        "dot(y, f)",
        "tr(S*G*G)",
        "tr(diag(p)*G)",
        "eigmax(G)",
        "norm2(J'*p)",
        "sum(f)",
        "tr(C*G) + max(f)",
        "sum(rownorms1(J - one*(y'*J)))",
        "f'*f",
        "sum(S*G)",
        "tr(S*G) + sum(C*G)",
        "(p'*f)^2 + tr(S*G)",
    ] {
        assert!(!invariant(text), "{text}");
    }
    assert!(formula("tr(C*G)").promises().function_of_jacobian);
    assert!(formula("y'*G*y").promises().function_of_jacobian);
    assert!(!formula("tr(G)*loss").promises().function_of_jacobian);
}

/// `φ(f + c, J + 1vᵀ)` of all formulas that promise invariance, and of some that do not.
#[test]
fn promises_are_kept() {
    let loss = Loss::softmax_cross_entropy();
    let f = [0.3, -0.4, 1.1, 0.2];
    let j = Array2::from_shape_fn((4, 6), |(k, d)| ((5 * k + 3 * d * d) as f64).sin());
    let v = array![0.5, -2.0, 0.1, 1.5, 0.0, -0.3];
    for text in [
        "tr(S*G*S*G) + 2*K*tr(C*G)",
        "eigmax(S*G*S) + eigmax(J'*S*J) + trsqrt(C*G*C)",
        "dot(S*G*r, G*S*G*r)/dot(r, G*r)",
        "f'*C*f + norm2(C*J) + norm1(J'*S)",
        "norm2(p) + f'*S*G*C*f + dot(C*f, S*f)",
    ] {
        let penalty = Penalty::Formula(formula(text));
        assert_eq!(
            penalty.promises().invariance,
            Invariance::LogitDifferences,
            "{text}"
        );
        let value = |f: &[f64], j: &Array2<f64>| {
            let found = penalty.value_at(&loss, &Targets::Classes(&[1]), f, j.view());
            found.unwrap().unwrap()
        };
        let (at, moved) = (value(&f, &j), value(&f.map(|f| f + 0.75), &(&j + &v)));
        assert!(
            (at - moved).abs() < 1e-10 * at.abs(),
            "{text}: {at} is not {moved}"
        );
    }
}

#[test]
fn what_is_no_penalty_is_refused_with_its_place() {
    let eps = || BTreeMap::from([("eps".to_owned(), 0.5)]);
    let fault = |text: &str, constants| match Formula::parse("own", text, constants) {
        Err(Error::Formula(error)) => (
            error.text()[error.place()].to_owned(),
            error.problem().to_owned(),
        ),
        other => panic!("{text}: {other:?}"),
    };
    for (text, place, words) in [
        ("tr(G) + f", "tr(G) + f", "[K] but a penalty is a number"),
        ("norm2(f + J)", "f + J", "`f` is [K] and `J` is [K, D]"),
        ("tr(J)", "tr(J)", "square matrix: `J` is [K, D]"),
        ("norm2(y*J)", "y*J", "^T behind the first"),
        ("norm2(J*J)", "J*J", "^T behind the first"),
        ("norm2(C*J*f)", "C*J*f", "^T behind the first"),
        ("dot(f, g)", "dot(f, g)", "`f` is [K] and `g` is [D]"),
        ("norm2(f/g)", "f/g", "./ each by each"),
        ("eigmax(S*G)", "eigmax(S*G)", "symmetric"),
        ("logdet(J)", "logdet(J)", "symmetric"),
        ("softmax(G)", "softmax(G)", "a vector"),
        ("tr(Q)", "Q", "no name `Q`; give a constant"),
        ("norm2(lost)", "lost", "did you mean `loss`?"),
        ("norn2(J)", "norn2", "did you mean `norm2`?"),
        ("f(2)", "f", "is not a function"),
        ("tr + 1", "tr", "no argument"),
        ("tr(G, G)", "tr(G, G)", "takes 1 argument, not 2"),
        ("tr(G)^f", "tr(G)^f", "an exponent is a number"),
        ("tr(G)^loss", "tr(G)^loss", "changes with the sample"),
        ("K*D + 1", "K*D + 1", "same number for all samples"),
        ("sum(y)^2", "sum(y)^2", "on targets"),
        ("hold(tr(G))", "hold(tr(G))", "what is held"),
        ("tr(G)/0", "", ""),
        ("tr(G)*(1/0)", "(1/0)", "not finite"),
        ("tr(G", "(", "not closed"),
        ("", "", "ends"),
    ] {
        if words.is_empty() {
            // Dividing by a zero that is found only when it runs.
            assert!(Formula::parse("own", text, constants()).is_ok());
            continue;
        }
        let (found, problem) = fault(text, constants());
        assert_eq!(found, place, "{text}: {problem}");
        assert!(problem.contains(words), "{text}: {problem}");
    }
    let (_, problem) = fault("tr(G)", eps());
    assert!(problem.contains("`eps` is given but not used"));
    let (_, problem) = fault("epz*tr(G)", eps());
    assert!(problem.contains("did you mean `eps`?"));
    for (name, value, words) in [
        ("K", 1.0, "meaning of its own"),
        ("T", 1.0, "meaning of its own"),
        ("exp", 1.0, "meaning of its own"),
        ("a b", 1.0, "cannot be called"),
        ("2", 1.0, "cannot be called"),
        ("", 1.0, "cannot be called"),
        ("c", f64::NAN, "must be finite"),
    ] {
        let (_, problem) = fault("tr(G)", BTreeMap::from([(name.to_owned(), value)]));
        assert!(problem.contains(words), "{problem}");
    }
    for name in ["", "A", "a b", "jacobian", "1a", "a/b", &"a".repeat(41)] {
        assert!(
            Formula::parse(name, "tr(G)", constants()).is_err(),
            "{name}"
        );
    }
}

#[test]
fn what_is_not_finite_names_formula_term_and_sample() {
    let network = Mlp::new(&[2, 4, 3]).build::<f64>(0).unwrap();
    let x = array![[0.5, -1.0], [0.25, 0.75]];
    let targets = Targets::Classes(&[0, 2]);
    for (text, expected) in [
        (
            "1 + log(y'*G*y - y'*G*y)",
            "the term `log(y'*G*y - y'*G*y)` of formula own is not finite at [0]",
        ),
        (
            "norm1(g) + sqrt(-norm1(J))",
            "the term `sqrt(-norm1(J))` of formula own is not finite at [0]",
        ),
        (
            "log(-norm2(g))",
            "the term `log(-norm2(g))` of formula own is not finite at [0]",
        ),
        (
            "exp(1000*lse(f)^0)*lse(f)",
            "the term `exp(1000*lse(f)^0)` of formula own is not finite at [0]",
        ),
    ] {
        let penalty = Penalty::Formula(formula(text));
        let objective = Objective::new(Loss::softmax_cross_entropy())
            .with(penalty, 1.0)
            .unwrap();
        let error = objective
            .value(&network, x.view(), &targets)
            .unwrap_err()
            .to_string();
        assert!(error.starts_with(expected), "{text}: {error}");
    }
    let penalty = Penalty::Formula(formula("sqrt(relu(-norm2(J)))"));
    let objective = Objective::new(Loss::softmax_cross_entropy())
        .with(penalty, 1.0)
        .unwrap();
    assert!(objective.value(&network, x.view(), &targets).is_ok());
    let error = objective
        .gradient(&network, x.view(), &targets)
        .unwrap_err()
        .to_string();
    let expected =
        "the derivative of the term `sqrt(relu(-norm2(J)))` of formula own is not finite at [0]";
    assert!(error.starts_with(expected), "{error}");
}

#[test]
fn formulas_are_known_by_name_text_and_constants() {
    let one = |name: &str, text: &str, eps: f64| {
        let constants = BTreeMap::from([("eps".to_owned(), eps)]);
        Penalty::Formula(Formula::parse(name, text, constants).unwrap())
    };
    let penalty = one("own", "eps * tr( G )", 0.5);
    assert_eq!(penalty, one("own", "eps*tr(G)", 0.5));
    assert_ne!(penalty, one("own", "eps*tr(G)", 0.25));
    assert_ne!(penalty, one("owl", "eps*tr(G)", 0.5));
    assert_ne!(penalty, one("own", "tr(G)*eps", 0.5));
    assert_eq!(penalty.spec().to_string(), "own(eps*tr(G), eps=0.5)");
    assert_eq!(Penalty::from_spec(&penalty.spec()).unwrap(), penalty);
    assert!(penalty.entry().is_none() && penalty.name() == "own");
}

#[test]
fn networks_of_several_sizes_share_a_formula() {
    let penalty = Penalty::Formula(formula("tr(C*G) + norm1(C*f)"));
    let objective = Objective::new(Loss::softmax_cross_entropy())
        .with(penalty, 1.0)
        .unwrap();
    let value = |network: &crate::Network<f64>, x: &Array2<f64>| {
        objective
            .value(network, x.view(), &Targets::Classes(&[0]))
            .unwrap()
            .value
    };
    let (small, large) = (Mlp::new(&[2, 4, 3]), Mlp::new(&[5, 4, 6]));
    let (small, large) = (small.build(0).unwrap(), large.build(0).unwrap());
    let (x, y) = (
        Array2::from_elem((1, 2), 0.5),
        Array2::from_elem((1, 5), 0.25),
    );
    let first = (value(&small, &x), value(&large, &y));
    assert_eq!(first, (value(&small, &x), value(&large, &y)));
}
