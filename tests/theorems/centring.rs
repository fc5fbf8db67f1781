//! T42 to T45: what softmax cannot see (`docs/theory.md`, section 7).

use proptest::prelude::*;
use relugrad::{Direction, Objective, Penalty, SweepStrategy};
use relugrad_tests::cases::Case;
use relugrad_tests::graph::Op;
use relugrad_tests::matrix::{
    Matrix, add, centring, chain, dot, frobenius, norm, outer, plus, product, scaled, times, trace,
};
use relugrad_tests::penalty::cross_lipschitz;
use relugrad_tests::recipe::entries;
use relugrad_tests::run::{EPSILON, Residual, property};
use relugrad_tests::tolerance::relative_error;

use crate::setting::{Setting, affine, any_loss, chains, draws, gram_of, labels, softmax, squared};

type Outcome = Result<(), TestCaseError>;

/// The sum of the rows of `J`.
fn row_sum(j: &Matrix) -> Vec<f64> {
    j.iter()
        .fold(vec![0.0; j[0].len()], |sum, row| add(&sum, 1.0, row))
}

pub(crate) fn t42(case: &Case, residual: &Residual) -> Outcome {
    let at = Setting::new(case);
    let (k, x) = (at.k as f64, at.value(&Penalty::CrossLipschitz));
    let size = 4.0 * k * at.a * at.a;
    let centred = frobenius(&product(&centring(at.k), &at.j)).powi(2);
    residual.equal("2K ‖CJ‖²", (x, 2.0 * k * centred), size, at.units)?;
    let jacobian = at.value(&Penalty::Jacobian);
    let parts = 2.0 * k * jacobian - 2.0 * norm(&row_sum(&at.j)).powi(2);
    residual.equal("2K ‖J‖² − 2‖ΣJ‖²", (x, parts), size, at.units)?;
    residual.at_most("≤ 2K ‖J‖²", (x, 2.0 * k * jacobian), size, at.units)
}

/// **T42.** `X = 2K ‖C J‖_F² = 2K ‖J‖_F² − 2 ‖Σ J_k‖² ≤ 2K ‖J‖_F²`, with equality if the rows sum
/// to zero.
#[test]
fn cross_lipschitz_is_the_centred_jacobian_penalty() {
    property(any_loss(), |case, residual| t42(&case, residual));
    property(draws(2), |draw, residual| {
        let (j, f) = draw.numbers();
        let at = Setting::new(&affine(&product(&centring(draw.k), &j), &f, draw.label));
        let bound = 2.0 * draw.k as f64 * at.value(&Penalty::Jacobian);
        residual.equal(
            "equality",
            (at.value(&Penalty::CrossLipschitz), bound),
            bound,
            at.units,
        )
    });
}

/// T42 for rows that do not sum to zero: the inequality is strict.
#[test]
fn counter_cross_lipschitz_is_the_centred_jacobian_penalty() {
    property(draws(2), |draw, _| {
        let (j, f) = draw.numbers();
        prop_assume!(norm(&row_sum(&j)) > 1e-3);
        let at = Setting::new(&affine(&j, &f, draw.label));
        let bound = 2.0 * draw.k as f64 * at.value(&Penalty::Jacobian);
        prop_assert!(at.value(&Penalty::CrossLipschitz) < bound - 1e-6);
        Ok(())
    });
}

/// `2K ‖J − 1 cᵀ‖_F²`.
fn with_common_row(at: &Setting, c: &[f64]) -> f64 {
    let ones = vec![1.0; at.k];
    2.0 * at.k as f64 * frobenius(&plus(&at.j, -1.0, &outer(&ones, c))).powi(2)
}

pub(crate) fn t43(case: &Case, residual: &Residual) -> Outcome {
    let at = Setting::new(case);
    let (mean, x) = (
        scaled(1.0 / at.k as f64, &row_sum(&at.j)),
        at.value(&Penalty::CrossLipschitz),
    );
    let size = 4.0 * at.k as f64 * at.a * at.a;
    residual.equal("mean row", (with_common_row(&at, &mean), x), size, at.units)?;
    let c = entries(at.d, 1.0, &mut case.random());
    let other = x + 2.0 * (at.k as f64).powi(2) * norm(&add(&c, -1.0, &mean)).powi(2);
    let size = size + 8.0 * (at.k as f64).powi(2) * (1.0 + dot(&c, &c));
    residual.equal("any row", (with_common_row(&at, &c), other), size, at.units)
}

/// **T43.** `X = min_c 2K ‖J − 1 cᵀ‖_F²`, at the mean row.
#[test]
fn cross_lipschitz_is_the_jacobian_penalty_minimised_over_a_common_row() {
    property(any_loss(), |case, residual| t43(&case, residual));
}

/// T43 for any other row: larger.
#[test]
fn counter_cross_lipschitz_is_the_jacobian_penalty_minimised_over_a_common_row() {
    property(draws(2), |draw, _| {
        let (j, f) = draw.numbers();
        let at = Setting::new(&affine(&j, &f, draw.label));
        let mut c = scaled(1.0 / draw.k as f64, &row_sum(&j));
        c[0] += 1e-3;
        prop_assert!(with_common_row(&at, &c) > at.value(&Penalty::CrossLipschitz) + 1e-6);
        Ok(())
    });
}

/// Adds an affine function of the last hidden layer to the logits of `classes`: one row to rows of
/// the last weight.
fn shifted(case: &Case, classes: std::ops::Range<usize>) -> Case {
    let (mut shifted, mut random) = (case.clone(), case.random());
    let Some(Op::Dense { weight, bias, .. }) = shifted.graph.nodes.last_mut() else {
        panic!("the last node of a chain is a dense layer");
    };
    let (row, offset) = (entries(weight[0].len(), 0.5, &mut random), 0.7);
    for class in classes {
        weight[class] = add(&weight[class], 1.0, &row);
        if let Some(bias) = bias {
            bias[class] += offset;
        }
    }
    shifted
}

/// Penalties that see only differences of logits.
fn blind() -> Vec<Penalty> {
    let direction = Direction::Gradient { held: false };
    vec![
        Penalty::InputGradient,
        Penalty::InputGradientL1,
        Penalty::JacobianProbabilities,
        Penalty::CrossLipschitz,
        Penalty::CurvatureTrace,
        Penalty::CurvatureFrobenius,
        Penalty::CurvatureSpectral,
        Penalty::Cure {
            step: 1e-3,
            direction,
        },
    ]
}

/// **T44.** A common function added to all logits changes none of the penalties that softmax sees,
/// and the Jacobian penalty by `2⟨∇s, ΣJ⟩ + K ‖∇s‖²`.
#[test]
fn adding_a_common_function_to_all_logits_changes_only_the_jacobian_penalty() {
    property(chains(), |case, residual| {
        let (at, other) = (
            Setting::new(&case),
            Setting::new(&shifted(&case, 0..case.graph.outputs())),
        );
        prop_assume!(norm(&at.g) > 1e-2 * at.a * norm(&at.r));
        let a = at.a.max(other.a);
        for penalty in blind() {
            let size = (1.0 + a * a).powi(2) * 4.0 * at.k as f64 * (1.0 + other.r_size).powi(2);
            residual.equal(
                penalty.name(),
                (other.value(&penalty), at.value(&penalty)),
                size,
                16.0 * at.units,
            )?;
        }
        let s = add(&other.j[0], -1.0, &at.j[0]);
        let change = 2.0 * dot(&s, &row_sum(&at.j)) + at.k as f64 * dot(&s, &s);
        let found = other.value(&Penalty::Jacobian) - at.value(&Penalty::Jacobian);
        residual.equal("‖J‖²", (found, change), a * a * 4.0 * at.k as f64, at.units)
    });
}

/// T44 for a function added to one logit only, and for the squared error: the penalties change.
#[test]
fn counter_adding_a_common_function_to_all_logits_changes_only_the_jacobian_penalty() {
    property(chains(), |case, _| {
        let (at, other) = (Setting::new(&case), Setting::new(&shifted(&case, 0..1)));
        prop_assume!(norm(&add(&other.j[0], -1.0, &at.j[0])) > 1e-2 * at.a);
        let changes = blind()
            .into_iter()
            .map(|p| (other.value(&p) / at.value(&p) - 1.0).abs());
        prop_assert!(changes.fold(0.0, f64::max) > 1e-6);
        Ok(())
    });
    property(squared(), |case, _| {
        let (at, other) = (
            Setting::new(&case),
            Setting::new(&shifted(&case, 0..case.graph.outputs())),
        );
        prop_assume!(norm(&add(&other.j[0], -1.0, &at.j[0])) > 1e-2 * at.a);
        let penalty = Penalty::CurvatureTrace;
        prop_assert!((other.value(&penalty) / at.value(&penalty) - 1.0).abs() > 1e-9);
        Ok(())
    });
}

/// The Helmert rows: orthonormal and orthogonal to 1.
fn helmert(size: usize) -> Matrix {
    let entry = |row: usize, column: usize| match column {
        column if column <= row => 1.0,
        column if column == row + 1 => -(row as f64 + 1.0),
        _ => 0.0,
    };
    let row = |row: usize| {
        relugrad_tests::matrix::unit(&(0..size).map(|c| entry(row, c)).collect::<Vec<f64>>())
    };
    (0..size - 1).map(row).collect()
}

/// **T45.** With `Q` of `K − 1` orthonormal centred rows, `CGC = Qᵀ G_Q Q`, the penalties are
/// functions of `Q J`, and the engine's gradients by `K − 1` rows and by `K` rows are the same.
#[test]
fn centred_seeds_carry_everything_that_sees_only_logit_differences() {
    property(softmax(), |case, residual| {
        let at = Setting::new(&case);
        let q = helmert(at.k);
        let qt = relugrad_tests::matrix::transpose(&q);
        let (gq, sq, rq) = (
            chain(&[&q, &at.gram, &qt]),
            chain(&[&q, &at.s, &qt]),
            times(&q, &at.r),
        );
        let centred = chain(&[&centring(at.k), &at.gram, &centring(at.k)]).concat();
        let (k, size) = (at.k as f64, at.a * at.a);
        residual.equal_all(
            "CGC",
            &chain(&[&qt, &gq, &q]).concat(),
            &centred,
            size,
            at.units,
        )?;
        let forms = [
            (
                Penalty::InputGradient,
                dot(&rq, &times(&gq, &rq)),
                size * at.r_size.powi(2),
            ),
            (
                Penalty::JacobianProbabilities,
                trace(&chain(&[&sq, &gq, &sq])),
                size * at.s_size.powi(2),
            ),
            (
                Penalty::CrossLipschitz,
                2.0 * k * trace(&gq),
                4.0 * k * size,
            ),
            (
                Penalty::CurvatureTrace,
                trace(&product(&sq, &gq)),
                size * at.s_size,
            ),
            (
                Penalty::CurvatureFrobenius,
                trace(&chain(&[&sq, &gq, &sq, &gq])),
                (size * at.s_size).powi(2),
            ),
        ];
        for (penalty, form, size) in forms {
            residual.equal(penalty.name(), (at.value(&penalty), form), size, at.units)?;
        }
        Ok(())
    });
    property(labels(), |case, residual| {
        let gradient = |route: SweepStrategy| {
            let objective = Objective::new(case.loss)
                .with(Penalty::CurvatureTrace, 1.0)
                .unwrap();
            let objective = objective
                .with(Penalty::CrossLipschitz, 0.1)
                .unwrap()
                .with_strategy(route);
            let found =
                objective.gradient(&case.network(), case.batch().view(), &case.owned.view());
            found.unwrap().1.values().to_vec()
        };
        let error = relative_error(
            &gradient(SweepStrategy::Fewest),
            &gradient(SweepStrategy::AllRows),
        );
        residual.within("gradient", error, 1.0, 1e5 * EPSILON)
    });
}

/// T45 for the Frobenius penalty: `tr G_Q` is not it.
#[test]
fn counter_centred_seeds_carry_everything_that_sees_only_logit_differences() {
    property(draws(2), |draw, _| {
        let (j, f) = draw.numbers();
        prop_assume!(norm(&row_sum(&j)) > 1e-2);
        let at = Setting::new(&affine(&j, &f, draw.label));
        let carried = trace(&gram_of(&product(&helmert(draw.k), &j)));
        prop_assert!(carried < at.value(&Penalty::Jacobian) - 1e-6);
        prop_assert!((cross_lipschitz(&j) / (2.0 * draw.k as f64 * carried) - 1.0).abs() < 1e-9);
        Ok(())
    });
}
