//! Training on the digits as a user of the library does it.

use std::ops::ControlFlow;

use relugrad::{Loss, Mlp, Network, Objective, Penalty};
use relugrad_train::data::{Split, digits, stratified_split};
use relugrad_train::{Error, History, Optimizer, StepReport, Training, Watch, train};

fn small() -> Split {
    stratified_split(&digits().first(400).unwrap(), 0.25, 1).unwrap()
}

fn run(penalty: Option<(Penalty, f64)>, epochs: usize) -> (Network<f32>, History) {
    let mut objective = Objective::new(Loss::softmax_cross_entropy());
    if let Some((penalty, lambda)) = penalty {
        objective = objective.with(penalty, lambda).unwrap();
    }
    let training = Training {
        epochs,
        batch_size: 16,
        warmup_epochs: 0.5,
        ..Training::new(objective)
    };
    let mut network = Mlp::new(&[64, 32, 10]).build(3).unwrap();
    let history = train(&mut network, &small(), &training, &mut ()).unwrap();
    (network, history)
}

#[test]
fn training_descends_and_generalises() {
    let (_, history) = run(None, 15);
    let (first, last) = (&history.epochs[0], &history.epochs[14]);
    assert!(history.complete && last.train_loss < 0.5 * first.train_loss);
    assert!(last.test_accuracy > 0.7, "{last:?}");
}

#[test]
fn a_penalty_is_lower_when_it_is_trained() {
    let plain = run(Some((Penalty::Jacobian, 0.0)), 5).1;
    let trained = run(Some((Penalty::Jacobian, 0.05)), 5).1;
    let last = |history: &History| history.epochs[4].train_penalties[0];
    assert!(last(&trained) < 0.5 * last(&plain));
}

#[test]
fn equal_seeds_give_equal_bits_for_any_number_of_threads() {
    let weights = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let penalty = Some((Penalty::CurvatureFrobenius, 0.01));
        pool.unwrap()
            .install(|| run(penalty, 2).0.parameters().values().to_vec())
    };
    let one = weights(1);
    assert!(one == weights(2) && one == weights(5));
}

#[test]
fn a_watcher_can_stop_it() {
    struct Stop;
    impl Watch for Stop {
        fn step(&mut self, report: &StepReport) -> ControlFlow<()> {
            if report.step == 7 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        }
    }
    let training = Training::new(Objective::new(Loss::softmax_cross_entropy()));
    let mut network = Mlp::new(&[64, 8, 10]).build::<f32>(3).unwrap();
    let history = train(&mut network, &small(), &training, &mut Stop).unwrap();
    assert!(!history.complete && history.epochs.len() == 1);
}

#[test]
fn options_out_of_range_are_refused() {
    let good = Training::new(Objective::new(Loss::softmax_cross_entropy()));
    let bad = [
        Training {
            epochs: 0,
            ..good.clone()
        },
        Training {
            batch_size: 0,
            ..good.clone()
        },
        Training {
            learning_rate: f64::NAN,
            ..good.clone()
        },
        Training {
            warmup_epochs: -1.0,
            ..good.clone()
        },
    ];
    assert!(
        bad.iter()
            .all(|training| matches!(training.check(), Err(Error::OutOfRange { .. })))
    );
}

#[test]
fn a_diverging_run_names_its_step() {
    let training = Training {
        learning_rate: 1e30,
        optimizer: Optimizer::sgd(),
        ..Training::new(Objective::new(Loss::softmax_cross_entropy()))
    };
    let mut network = Mlp::new(&[64, 8, 10]).build::<f32>(3).unwrap();
    let error = train(&mut network, &small(), &training, &mut ()).unwrap_err();
    assert!(matches!(error, Error::Step { epoch: 1, .. }), "{error}");
}
