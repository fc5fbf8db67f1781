//! The comparisons that the other tests make must fail for derivatives that are slightly wrong.

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use relugrad::{Penalty, SweepStrategy};
use relugrad_tests::cases::{Case, Losses, Shapes};
use relugrad_tests::matrix::{multiple, norm, product, scaled, unit};
use relugrad_tests::parameter::{along, penalty_gradient, penalty_slope};
use relugrad_tests::run::{Residual, property};
use relugrad_tests::tolerance::{GRADIENT, relative_error, slope_error};

/// Single samples with a penalty whose gradient differences see well.
fn cases() -> impl Strategy<Value = Case> {
    let shapes = Shapes {
        losses: Losses::Softmax,
        outputs: 3..=6,
        ..Shapes::plain()
    };
    shapes.cases()
}

/// The error of a wrong gradient along a direction, as the tests of gradients measure it; `None`
/// where they reject.
fn error_along(case: &Case, penalty: &Penalty, wrong: &[f64], direction: &[f64]) -> Option<f64> {
    let (found, estimate) = penalty_slope(case, penalty, direction)?;
    let length = norm(wrong);
    let visible = estimate <= GRADIENT / 3.0 * length.max(found.abs());
    visible.then(|| slope_error(found, along(wrong, direction), length))
}

#[test]
fn a_gradient_wrong_by_a_thousandth_fails() {
    let penalties = [
        Penalty::InputGradient,
        Penalty::Jacobian,
        Penalty::CurvatureTrace,
    ];
    property(
        (cases(), prop::sample::select(penalties.to_vec())),
        |(case, penalty), _| {
            let exact = penalty_gradient(&case, &penalty, SweepStrategy::Fewest);
            prop_assume!(norm(&exact) > 0.0);
            let direction = unit(&exact);
            let right = error_along(&case, &penalty, &exact, &direction);
            let wrong = error_along(&case, &penalty, &scaled(1.001, &exact), &direction);
            prop_assume!(right.is_some() && wrong.is_some());
            prop_assert!(right.unwrap() <= GRADIENT);
            prop_assert!(
                wrong.unwrap() > 9e-4,
                "an error of a thousandth measures {:?}",
                wrong
            );
            Ok(())
        },
    );
}

/// The sign of the entry that weighs most, and of one layer.
#[test]
fn one_wrong_sign_fails() {
    property(cases(), |case, _| {
        let exact = penalty_gradient(&case, &Penalty::Jacobian, SweepStrategy::Fewest);
        prop_assume!(norm(&exact) > 0.0);
        let largest = (0..exact.len()).max_by(|&i, &j| exact[i].abs().total_cmp(&exact[j].abs()));
        let mut wrong = exact.clone();
        wrong[largest.unwrap()] *= -1.0;
        let mut direction = vec![0.0; exact.len()];
        direction[largest.unwrap()] = 1.0;
        let error = error_along(&case, &Penalty::Jacobian, &wrong, &direction);
        prop_assume!(error.is_some());
        prop_assert!(error.unwrap() > 1e-3 && relative_error(&wrong, &exact) > 1e-3);
        Ok(())
    });
}

/// The gradient of `tr H` with the dependence of `S` on the logits left out: only `2 S J` through
/// the row form.
#[test]
fn a_forgotten_logit_part_fails() {
    property(cases(), |case, _| {
        let at = case.derivatives(0);
        let wrong = crate::gram_form::row_form(&case, |_| {
            multiple(2.0, &product(&at.loss.hessian, &at.jacobian))
        });
        let exact = penalty_gradient(&case, &Penalty::CurvatureTrace, SweepStrategy::Fewest);
        prop_assume!(relative_error(&wrong, &exact) > 1e-3);
        let difference: Vec<f64> = wrong.iter().zip(&exact).map(|(a, b)| a - b).collect();
        let error = error_along(&case, &Penalty::CurvatureTrace, &wrong, &unit(&difference));
        prop_assume!(error.is_some());
        prop_assert!(error.unwrap() > 1e-4, "{:?}", error);
        Ok(())
    });
}

/// Where classes are certain or `G` is a multiple of the identity the logit part may vanish; here
/// it does not.
#[test]
fn the_logit_part_is_seldom_negligible() {
    let seen = std::cell::Cell::new(0_u32);
    property(cases(), |case, _| {
        let at = case.derivatives(0);
        let wrong = crate::gram_form::row_form(&case, |_| {
            multiple(2.0, &product(&at.loss.hessian, &at.jacobian))
        });
        let exact = penalty_gradient(&case, &Penalty::CurvatureTrace, SweepStrategy::Fewest);
        seen.set(seen.get() + u32::from(relative_error(&wrong, &exact) > 1e-3));
        Ok(())
    });
    assert!(f64::from(seen.get()) > 0.7 * f64::from(relugrad_tests::run::case_count()));
}

/// [`Residual`] itself: what is outside the bound fails, and so does NaN.
#[test]
fn a_residual_outside_its_bound_fails() {
    let residual = Residual::default();
    let outcomes: [TestCaseResult; 5] = [
        residual.within("0.1 %", 1e-3, 1.0, 1e-7),
        residual.within("NaN", f64::NAN, 1.0, 1e-7),
        residual.within("nothing to be relative to", 1e-300, 0.0, 1e-7),
        residual.equal_all("length", &[1.0], &[1.0, 2.0], 1.0, 1.0),
        residual.equal_all("NaN", &[f64::NAN], &[1.0], 1.0, 1e-7),
    ];
    assert!(outcomes.iter().all(Result::is_err));
    assert!(residual.within("zero", 0.0, 0.0, 1e-7).is_ok());
    assert!(residual.at_most("order", (1.0, 2.0), 1.0, 1e-7).is_ok());
    assert!(residual.at_most("order", (2.0, 1.0), 1.0, 1e-7).is_err());
}
