//! A penalty and a loss of one's own do what the built-in ones do.

use approx::assert_abs_diff_eq;
use ndarray::Array2;
use relugrad::penalty::{
    Described, GramAdjoint, GramPenalty, GramPoint, JacobianAdjoint, JacobianPenalty,
    JacobianPoint, Promises,
};
use relugrad::{Direction, Error, Loss, Mlp, Network, Objective, Penalty, Result};
use relugrad_train::Architecture;
use relugrad_train::compare::{Plan, Variant, compare};
use relugrad_train::data::{digits, stratified_split};
use relugrad_train::evaluate::Samples;
use relugrad_train::verify::{PenaltyReport, verify_penalty};

/// `‖J‖_F²` by rows, with what is wrong with it.
#[derive(Clone, Copy, Debug)]
struct Rows(Fault);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    /// The derivative is too large by this share.
    Derivative(f64),
    Length,
    Row,
    Value,
    Invariance,
    Degree,
}

impl Described for Rows {
    fn name(&self) -> &str {
        "own-rows"
    }

    fn promises(&self) -> Promises {
        match self.0 {
            Fault::Invariance => Promises::logit_differences(),
            Fault::Degree => Promises::default().with_degree(1),
            Fault::None | Fault::Derivative(_) | Fault::Length | Fault::Row | Fault::Value => {
                Promises::default().with_degree(2).of_jacobian()
            }
        }
    }
}

impl JacobianPenalty for Rows {
    fn evaluate(&self, at: &JacobianPoint, adjoint: Option<&mut JacobianAdjoint>) -> Result<f64> {
        let j = at.jacobian();
        if let Some(adjoint) = adjoint {
            match self.0 {
                Fault::Length => adjoint.add_logits(1.0, &[0.0]),
                Fault::Row => adjoint.add_row(1.0, 99, &vec![0.0; at.inputs()]),
                Fault::Derivative(share) => adjoint.add_jacobian(2.0 + 2.0 * share, j),
                Fault::None | Fault::Value | Fault::Invariance | Fault::Degree => {
                    adjoint.add_jacobian(2.0, j);
                }
            }
        }
        if self.0 == Fault::Value {
            return Ok(f64::NAN);
        }
        Ok(j.iter().map(|x| x * x).sum())
    }
}

fn network() -> Network<f64> {
    Mlp::new(&[5, 12, 9, 4]).build(3).unwrap()
}

fn samples() -> Samples<f64> {
    let images = Array2::from_shape_fn((12, 5), |(i, j)| ((7 * i + 3 * j) as f64).sin());
    Samples::of(images, (0..12).map(|i| i % 4).collect::<Vec<usize>>())
}

fn report(penalty: Penalty) -> PenaltyReport {
    let loss = Loss::softmax_cross_entropy();
    verify_penalty(&network(), &penalty, &loss, &samples(), 1).unwrap()
}

#[test]
fn values_and_gradients_are_those_of_the_built_in_penalty() {
    let (network, samples) = (network(), samples());
    let targets = samples.truth.targets();
    let of = |penalty| {
        let new = Objective::new(Loss::softmax_cross_entropy());
        let objective = new.with(penalty, 0.3).unwrap();
        objective
            .gradient(&network, samples.images.view(), &targets)
            .unwrap()
    };
    let (own, built_in) = (of(Penalty::rows(Rows(Fault::None))), of(Penalty::Jacobian));
    assert_abs_diff_eq!(own.0.value / built_in.0.value, 1.0, epsilon = 1e-14);
    for (a, b) in own.1.values().iter().zip(built_in.1.values()) {
        assert_abs_diff_eq!(a, b, epsilon = 1e-13);
    }
}

#[test]
fn every_built_in_penalty_passes() {
    for penalty in [Penalty::all(), Penalty::geometric()].concat() {
        let report = report(penalty);
        let mut checked = report.checks.iter().filter(|check| check.samples > 0);
        assert!(checked.all(|check| check.worst <= 1.0), "{report}");
        assert!(report.checks[0].samples > 6, "{report}");
    }
}

#[test]
fn what_is_wrong_with_a_penalty_is_seen() {
    assert!(report(Penalty::rows(Rows(Fault::None))).holds());
    for (fault, place) in [
        (Fault::Derivative(0.001), 0),
        (Fault::Derivative(-0.001), 0),
        (Fault::Invariance, 1),
        (Fault::Degree, 1),
    ] {
        let report = report(Penalty::rows(Rows(fault)));
        assert!(!report.checks[place].holds(), "{report}");
    }
}

#[test]
fn what_a_penalty_may_not_do_is_an_error_that_names_it() {
    let (network, samples) = (network(), samples());
    let message = |penalty| {
        let new = Objective::new(Loss::softmax_cross_entropy());
        let objective = new.with(penalty, 1.0).unwrap();
        let targets = samples.truth.targets();
        let found = objective.gradient(&network, samples.images.view(), &targets);
        found.unwrap_err().to_string()
    };
    let of = |fault| message(Penalty::rows(Rows(fault)));
    assert!(of(Fault::Length).starts_with(
        "penalty own-rows gives the derivative with respect to the logits 1 entries, not 4"
    ));
    assert!(of(Fault::Row).contains("row 99"));
    assert!(of(Fault::Value).starts_with("own-rows is not finite at [0]"));

    /// A derivative in `G` that is not symmetric.
    #[derive(Debug)]
    struct Skew;

    impl Described for Skew {
        fn name(&self) -> &str {
            "skew"
        }
    }

    impl GramPenalty for Skew {
        fn evaluate(&self, at: &GramPoint, adjoint: Option<&mut GramAdjoint>) -> Result<f64> {
            if let Some(adjoint) = adjoint {
                let k = at.outputs();
                let m: Vec<f64> = (0..k * k).map(|i| f64::from(i == 1)).collect();
                adjoint.add_gram(1.0, &m);
            }
            Ok(at.gram()[1])
        }
    }

    assert!(message(Penalty::gram(Skew)).contains("is not symmetric"));
}

#[test]
fn options_and_weights_out_of_range_are_refused() {
    let mut objective = Objective::new(Loss::softmax_cross_entropy());
    for weights in [&[1.0, -1.0][..], &[f64::NAN], &[0.0, 0.0]] {
        let refused = objective.set_sample_weights(weights);
        assert!(
            matches!(refused, Err(Error::SampleWeights { .. })),
            "{weights:?}"
        );
    }
    objective.set_sample_weights(&[1.0, 2.0]).unwrap();
    let (network, samples) = (network(), samples());
    let targets = samples.truth.targets();
    let found = objective.value(&network, samples.images.view(), &targets);
    assert!(matches!(found, Err(Error::Shape { .. })));
}

#[test]
fn weights_of_samples_are_those_of_repeated_ones() {
    let (network, samples) = (network(), samples());
    let all = [Penalty::all(), Penalty::geometric()].concat();
    let projected = |p: &Penalty| p.name() == "jacobian-projected";
    for penalty in all.into_iter().filter(|p| !projected(p)) {
        let objective = |weights: &[f64]| {
            let new = Objective::new(Loss::softmax_cross_entropy());
            let mut objective = new.with(penalty.clone(), 0.5).unwrap();
            objective.set_sample_weights(weights).unwrap();
            objective
        };
        let repeated = [0, 1, 1, 2, 2, 2];
        let images = samples.images.select(ndarray::Axis(0), &repeated);
        let labels = samples.truth.select(&repeated);
        let first = samples.images.slice(ndarray::s![..3, ..]);
        let weighted = objective(&[1.0, 2.0, 3.0]);
        let weighted = weighted.gradient(&network, first, &samples.truth.part(0..3));
        let counted = objective(&[]).gradient(&network, images.view(), &labels.targets());
        let ((a, g), (b, h)) = (weighted.unwrap(), counted.unwrap());
        let size = h
            .values()
            .iter()
            .fold(0.0, |size: f64, h| size.max(h.abs()));
        assert!((a.value - b.value).abs() < 1e-12 * b.value, "{penalty}");
        for (g, h) in g.values().iter().zip(h.values()) {
            assert!((g - h).abs() < 1e-12 * size, "{penalty}: {g} {h}");
        }
    }
}

#[test]
fn two_penalties_of_one_name_are_two_in_a_comparison() {
    let data = stratified_split(&digits(), 0.2, 0).unwrap();
    let cure = |step| Penalty::Cure {
        step,
        direction: Direction::Sign,
    };
    let variants = [cure(0.5), cure(1.5), Penalty::rows(Rows(Fault::None))];
    let variants = variants.map(|penalty| Variant::Penalty(penalty, 0.01));
    let mut plan = Plan::new(data, variants.to_vec());
    plan.model = Architecture::mlp(&[4]);
    plan.training.epochs = 1;
    plan.attacks.clear();
    let comparison = compare(&plan, None, &mut (), &|| true).unwrap();
    let names: Vec<&str> = comparison
        .runs
        .iter()
        .map(|run| &*run.regularizer)
        .collect();
    assert_eq!(
        names,
        ["none", "cure(step=0.5)", "cure(step=1.5)", "own-rows"]
    );
    for run in &comparison.runs {
        let means: Vec<&str> = run.evaluation.penalties.iter().map(|p| &*p.name).collect();
        assert_eq!(means, &names[1..]);
    }
    let again = compare(&plan, Some(comparison.clone()), &mut (), &|| true).unwrap();
    assert_eq!(again.runs, comparison.runs);
}
