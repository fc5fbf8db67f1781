//! T1 to T3: the network on a region (`docs/theory.md`, section 2).

use proptest::prelude::*;
use relugrad::Builder;
use relugrad_tests::cases::Case;
use relugrad_tests::graph::{GateKind, Op, array};
use relugrad_tests::matrix::{add, dot, norm, scaled, times, unit};
use relugrad_tests::oracle::Point;
use relugrad_tests::recipe::entries;
use relugrad_tests::run::{Residual, property};

use crate::setting::{Setting, any_loss, labels};
use relugrad_tests::segment::{Switch, next_kink};

/// A unit direction.
fn direction(case: &Case) -> Vec<f64> {
    unit(&entries(case.graph.inputs(), 1.0, &mut case.random()))
}

/// The largest step along a direction, if there is a kink at all.
fn largest_step(case: &Case, v: &[f64]) -> Option<(f64, Switch)> {
    next_kink(&case.graph, &case.graph.at(&case.inputs[0]), v)
}

fn forward(case: &Case, x: &[f64]) -> Vec<f64> {
    case.network()
        .forward(array(&[x.to_vec()]).view())
        .unwrap()
        .row(0)
        .to_vec()
}

/// Whether the engine sees the same pattern at two inputs.
fn same_region(case: &Case, x: &[f64], y: &[f64]) -> bool {
    let network = case.network();
    let trace = network
        .trace(array(&[x.to_vec(), y.to_vec()]).view())
        .unwrap();
    trace.pattern().same_region(0, trace.pattern(), 1)
}

fn affine_inside(case: &Case, residual: &Residual) -> Result<(), TestCaseError> {
    let (at, v) = (Setting::new(case), direction(case));
    let longest = largest_step(case, &v).map_or(2.0, |(step, _)| step.min(2.0));
    for share in [0.5, 1.0] {
        let delta = scaled(share * longest, &v);
        let moved = add(&forward(case, &add(at.x(), 1.0, &delta)), -1.0, &at.f);
        let (f, j) = case.sizes();
        residual.equal_all(
            "f(x + δ) − f(x)",
            &moved,
            &times(&at.j, &delta),
            f + 3.0 * j,
            at.units,
        )?;
    }
    Ok(())
}

/// **T1.** `f(x + δ) − f(x) = J δ` on the closure of a region, here up to and including its
/// boundary.
#[test]
fn network_is_affine_on_the_closure_of_its_activation_region() {
    property(any_loss(), |case, residual| affine_inside(&case, residual));
}

/// T1 with the end point in another region: past one kink the affine formula is wrong by what that
/// unit contributes.
#[test]
fn counter_network_is_affine_on_the_closure_of_its_activation_region() {
    property(labels(), |case, _| {
        let (at, v) = (Setting::new(&case), direction(&case));
        let Some((step, switch)) = largest_step(&case, &v) else {
            return Ok(());
        };
        let delta = scaled(1.01 * step, &v);
        let beyond = add(at.x(), 1.0, &delta);
        let point = case.graph.at(at.x());
        let mut other = point.pattern.clone();
        switch.apply(&mut other);
        prop_assume!(case.graph.pattern(&beyond) == other);
        let jump = norm(&jump(&case, &point, switch, &v));
        prop_assume!(jump * step > 1e-6 * case.sizes().0);
        let error = norm(&add(
            &add(&forward(&case, &beyond), -1.0, &at.f),
            -1.0,
            &times(&at.j, &delta),
        ));
        prop_assert!((error / (0.01 * step * jump) - 1.0).abs() < 1e-3, "{error}");
        Ok(())
    });
}

/// `(J′ − J) v` for the region behind one unit: the change of its derivative times what the logits
/// make of it.
fn jump(case: &Case, point: &Point, switch: Switch, v: &[f64]) -> Vec<f64> {
    let (b, change) = switch.rank_one(&case.graph, point);
    scaled(dot(&change, v), &b)
}

/// A region with empty interior: `relu(x) − relu(−x) = x`, yet `J = 0` at 0 by the convention.
#[test]
fn counter_jacobian_of_a_region_without_interior_need_not_be_a_derivative() {
    let mut builder = Builder::new();
    let x = builder.input(1).unwrap();
    let z = builder
        .dense(x, ndarray::array![[1.0], [-1.0]], None)
        .unwrap();
    let a = builder.relu(z).unwrap();
    let f = builder
        .dense(a, ndarray::array![[1.0, -1.0]], None)
        .unwrap();
    let network = builder.build(f).unwrap();
    let batch = ndarray::array![[0.0], [1e-300], [-1e-300]];
    let jacobian = network.trace(batch.view()).unwrap().jacobian().unwrap();
    assert_eq!(jacobian.as_slice().unwrap(), [0.0, 1.0, 1.0]);
}

fn pattern_along(case: &Case, factor: f64) -> Option<bool> {
    let v = direction(case);
    let (step, _) = largest_step(case, &v).filter(|(step, _)| *step < 20.0)?;
    let x = &case.inputs[0];
    Some(same_region(case, x, &add(x, factor * step, &v)))
}

/// **T2.** The pattern holds up to the step `t* = min m_j / −∇m_j·v`: at `(1 − 10⁻⁶) t*`, and at
/// fractions of it.
#[test]
fn pattern_holds_exactly_up_to_the_nearest_kink_along_a_direction() {
    property(any_loss(), |case, _| {
        for factor in [0.25, 0.75, 1.0 - 1e-6] {
            prop_assert!(pattern_along(&case, factor) != Some(false));
        }
        Ok(())
    });
}

/// T2 for a step longer by one part in a million: the pattern differs.
#[test]
fn counter_pattern_holds_exactly_up_to_the_nearest_kink_along_a_direction() {
    property(any_loss(), |case, _| {
        prop_assert!(pattern_along(&case, 1.0 + 1e-6) != Some(true));
        Ok(())
    });
}

fn homogeneous(case: &Case, residual: &Residual) -> Result<(), TestCaseError> {
    let mut case = case.clone();
    case.graph = case.graph.without_biases();
    let at = Setting::new(&case);
    residual.equal_all(
        "f = J x",
        &at.f,
        &times(&at.j, at.x()),
        case.sizes().0,
        at.units,
    )?;
    let network = case.network();
    let further = array(&[scaled(3.0, at.x())]);
    let j: Vec<f64> = network
        .trace(further.view())
        .unwrap()
        .jacobian()
        .unwrap()
        .into_iter()
        .collect();
    residual.equal_all("J(s x)", &j, &at.j.concat(), at.a, at.units)
}

/// **T3.** Without offsets and with gates that are linear on both sides, `f(x) = J x`, and
/// `J(s x) = J(x)` for `s > 0`.
#[test]
fn without_offsets_the_network_is_its_jacobian_times_the_input() {
    property(any_loss(), |case, residual| {
        let graph = case.graph.without_biases();
        prop_assume!(!graph.has_offsets());
        prop_assume!(graph.distance_from_kinks(&case.inputs[0]) > 1e-9);
        homogeneous(&case, residual)
    });
}

/// T3 with biases: `f ≠ J x`.
#[test]
fn counter_without_offsets_the_network_is_its_jacobian_times_the_input() {
    property(labels(), |mut case, _| {
        for op in &mut case.graph.nodes {
            if let Op::Dense { bias, weight, .. } = op {
                *bias = Some(vec![0.7; weight.len()]);
            }
            if let Op::Gate { kind, .. } = op {
                *kind = GateKind::Leaky(0.5);
            }
        }
        let at = Setting::new(&case);
        prop_assert!(norm(&add(&at.f, -1.0, &times(&at.j, at.x()))) > 1e-6 * norm(&at.f));
        Ok(())
    });
}
