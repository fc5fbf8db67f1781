//! The statements on random networks of every operation (`docs/theory.md`): all of
//! `relugrad_train::verify`, and the parameter gradients of all penalties against finite
//! differences.

use relugrad::{FiniteDifference, Loss, Objective, Penalty, Targets};
use relugrad_tests::cases::strategy;
use relugrad_tests::layered::{inputs, network};
use relugrad_train::evaluate::Samples;
use relugrad_train::verify::{Choices, verify};

/// Networks of each property; `RELUGRAD_CASES` sets it.
fn cases() -> u64 {
    std::env::var("RELUGRAD_CASES").map_or(256, |cases| cases.parse().expect("a number"))
}

#[test]
fn every_statement_holds_on_networks_of_every_operation() {
    let mut checked = 0;
    for seed in 0..cases() {
        let network = network(seed);
        let samples = Samples::of(inputs(&network, seed, 2), &[0, 1]);
        let choices = Choices {
            seed,
            cure_step: 0.5,
            ..Choices::default()
        };
        let report = verify(&network, &network, &samples, &choices, || true).unwrap();
        for outcome in &report.outcomes {
            assert!(
                outcome.verdict != relugrad_train::verify::Verdict::Fails,
                "network {seed}: {} ({}) is off by {:e}, allowed {:e}",
                outcome.theorem,
                outcome.statement,
                outcome.worst,
                outcome.tolerance
            );
            checked += outcome.cases;
        }
    }
    assert!(
        checked as u64 > 30 * cases(),
        "only {checked} cases were checked"
    );
}

/// Differences are wrong where a step crosses a kink, so a case that disagrees is tried with a
/// smaller step.
#[test]
fn parameter_gradients_are_those_of_differences_on_networks_of_every_operation() {
    let (loss, targets) = (Loss::softmax_cross_entropy(), Targets::Classes(&[1, 0]));
    let (mut agreed, mut all) = (0, 0);
    for seed in 0..cases().div_ceil(8) {
        let network = network(seed);
        let x = inputs(&network, seed, 2);
        for penalty in Penalty::all() {
            let objective = Objective::new(loss).with_strategy(strategy(seed));
            let objective = objective.with(penalty, 0.7).unwrap();
            let (_, exact) = objective.gradient(&network, x.view(), &targets).unwrap();
            let size = exact.values().iter().fold(1e-3, |m: f64, g| m.max(g.abs()));
            let agrees = |step: f64| {
                let difference = FiniteDifference::central(step).unwrap();
                let estimate =
                    difference.parameter_gradient(&objective, &network, x.view(), &targets);
                let estimate = estimate.unwrap();
                let mut pairs = exact.values().iter().zip(estimate.values());
                pairs.all(|(a, b)| (a - b).abs() <= 1e-5 * size)
            };
            all += 1;
            agreed += usize::from([1e-5, 1e-6, 1e-7].into_iter().any(agrees));
        }
    }
    // The rest lies on kinks: of dead units, of ties, of norms at 0.
    assert!(10 * agreed >= 9 * all, "{agreed} of {all} agree");
}
