//! `f32` against `f64`: the same network, to the rounding of `f32`.

use proptest::prelude::*;
use relugrad::{Loss, Network, Objective, Penalty, Scalar, Targets};
use relugrad_tests::cases::{Case, Shapes};
use relugrad_tests::graph::array;
use relugrad_tests::matrix::{
    add, centring, eigen, frobenius, norm, product, rows, singular_values,
};
use relugrad_tests::penalty::second_point;
use relugrad_tests::run::property;
use relugrad_tests::tolerance::relative_error;

/// The case with all numbers rounded to `f32`, so that both precisions see the same network and
/// batch.
fn rounded(mut case: Case) -> Case {
    let round =
        |values: &[f64]| -> Vec<f64> { values.iter().map(|&v| f64::from(v as f32)).collect() };
    case.graph = case.graph.with_parameters(&round(&case.graph.parameters()));
    case.inputs = case.inputs.iter().map(|x| round(x)).collect();
    case.targets = case.targets.iter().map(|t| round(t)).collect();
    case
}

fn doubles<T: Scalar>(values: impl IntoIterator<Item = T>) -> Vec<f64> {
    values.into_iter().map(Scalar::into_f64).collect()
}

/// Units of `f32` rounding, relative to the size of all terms.
fn bound(case: &Case) -> f64 {
    case.roundings() / f64::EPSILON * f64::from(f32::EPSILON)
}

#[test]
fn logits_and_jacobians_agree_to_single_rounding() {
    property(Shapes::any().cases(), |case, residual| {
        let case = rounded(case);
        prop_assume!(case.distance_from_kinks() > 1e-4);
        let double = case.network();
        let single: Network<f32> = double.cast().unwrap();
        let batch = case.batch();
        let (wide, narrow) = (
            double.trace(batch.view()).unwrap(),
            batch.mapv(|x| x as f32),
        );
        let narrow = single.trace(narrow.view()).unwrap();
        prop_assume!((0..case.inputs.len()).all(|i| wide.pattern().same_region(
            i,
            narrow.pattern(),
            i
        )));
        let (f, j) = case.sizes();
        let (found, expected) = (
            doubles(narrow.logits().to_owned()),
            doubles(wide.logits().to_owned()),
        );
        residual.equal_all("logits", &found, &expected, f, bound(&case))?;
        residual.equal_all(
            "J",
            &doubles(narrow.jacobian().unwrap()),
            &doubles(wide.jacobian().unwrap()),
            j,
            bound(&case),
        )?;
        let (found, expected) = (
            doubles(narrow.gram().unwrap()),
            doubles(wide.gram().unwrap()),
        );
        residual.equal_all("G", &found, &expected, j * j, 2.0 * bound(&case))
    });
}

/// Whether a penalty does not magnify rounding at any sample: no near ties, zero norms or repeated
/// eigenvalues, and sums that do not cancel.
fn well_conditioned(case: &Case, penalty: &Penalty) -> bool {
    let (_, size) = case.sizes();
    (0..case.inputs.len()).all(|i| {
        let at = case.derivatives(i);
        let mut order: Vec<f64> = at.gradient.iter().map(|g| g.abs()).collect();
        order.sort_by(|a, b| b.total_cmp(a));
        let simple = |v: &[f64]| v.len() < 2 || v[1] < 0.9 * v[0];
        let (h, singular) = (eigen(&at.hessian()).0, singular_values(&at.jacobian));
        let plain = frobenius(&at.jacobian) > 0.05 * size
            && norm(&at.gradient) > 0.02 * size * norm(&at.loss.residual);
        let clear = order[order.len() - 1] > 0.01 * order[0] && simple(&order);
        let special = match penalty {
            Penalty::JacobianNuclear => singular[singular.len() - 1] > 0.2 * singular[0],
            Penalty::JacobianSpectral => simple(&singular),
            Penalty::CrossLipschitz => {
                let centred = product(&centring(at.jacobian.len()), &at.jacobian);
                frobenius(&centred) > 0.05 * size
            }
            Penalty::CurvatureSpectral => simple(&h),
            Penalty::Cure { step, direction } => {
                let moved = second_point(&at, &case.inputs[i], *step, *direction);
                clear && case.graph.distance_from_kinks(&moved) > 1e-3
            }
            _ => clear,
        };
        plain && special && h[0] > 1e-3 * size * size * frobenius(&at.loss.hessian)
    })
}

fn targets<T: Scalar>(case: &Case) -> ndarray::Array2<T> {
    array(&case.targets).mapv(T::from_f64)
}

fn gradient<T: Scalar>(case: &Case, objective: &Objective) -> (f64, Vec<f64>) {
    let network = case.network().cast::<T>().unwrap();
    let inputs = case.batch().mapv(T::from_f64);
    let targets = targets::<T>(case);
    let targets = match case.loss {
        Loss::SquaredError => Targets::Values(targets.view()),
        _ => Targets::Probabilities(targets.view()),
    };
    let (evaluation, gradient) = objective
        .gradient(&network, inputs.view(), &targets)
        .unwrap();
    (evaluation.penalties[0], doubles(gradient.values().to_vec()))
}

/// The whole gradient of loss and penalty. A few thousand roundings: those of the sweeps, magnified
/// by the condition numbers that [`well_conditioned`] admits.
#[test]
fn penalties_and_gradients_agree_to_single_rounding() {
    let shapes = Shapes {
        width: 6..=24,
        outputs: 1..=4,
        inputs: 1..=6,
        batch: 1..=2,
        unusual: false,
        ..Shapes::any()
    };
    let strategy = (shapes.cases(), prop::sample::select(Penalty::all()));
    property(strategy, |(case, penalty), residual| {
        let case = rounded(case);
        prop_assume!(case.distance_from_kinks() > 1e-4 && well_conditioned(&case, &penalty));
        let objective = case.objective(&penalty, case.strategy());
        let (wide, narrow) = (
            gradient::<f64>(&case, &objective),
            gradient::<f32>(&case, &objective),
        );
        let bound = 4096.0 * f64::from(f32::EPSILON);
        residual.equal(penalty.name(), (narrow.0, wide.0), wide.0, bound)?;
        residual.within(
            penalty.name(),
            relative_error(&narrow.1, &wide.1),
            1.0,
            bound,
        )
    });
}

/// Casting to `f32` rounds each parameter once, and casting back changes nothing.
#[test]
fn a_cast_rounds_each_parameter_once() {
    property(Shapes::any().cases(), |case, residual| {
        let single: Network<f32> = case.network().cast().unwrap();
        let back: Network<f64> = single.cast().unwrap();
        let (found, expected) = (back.parameters().values(), case.graph.parameters());
        let differences = add(found, -1.0, &expected);
        for (difference, expected) in differences.iter().zip(&expected) {
            residual.within(
                "rounding",
                *difference,
                expected.abs(),
                f64::from(f32::EPSILON) / 2.0,
            )?;
        }
        let again: Network<f32> = back.cast().unwrap();
        prop_assert_eq!(again.parameters().values(), single.parameters().values());
        let bits = |network: &Network<f32>| network.forward(case.batch().mapv(|x| x as f32).view());
        prop_assert_eq!(bits(&again).unwrap(), bits(&single).unwrap());
        prop_assert_eq!(rows(found, 1).len(), expected.len());
        Ok(())
    });
}
