//! Training on the digits as a user of the library does it.

use approx::assert_abs_diff_eq;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};

use relugrad::{Loss, Mlp, Network, Objective, Penalty};
use relugrad_io::{Checkpoint, Metadata};
use relugrad_train::attack::Pgd;
use relugrad_train::data::{Augmentation, Split, digits, stratified_split};
use relugrad_train::{
    Adam, AdamW, Adversarial, AnyOptimizer, BestBy, Curve, EarlyStopping, Error, Event, History,
    Ramp, RampCurve, Schedule, Sgd, Trainer, Training, train,
};

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
        ramp: Ramp::linear(0.5),
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
    assert!(history.complete && last.train.loss < 0.5 * first.train.loss);
    assert!(
        last.validation.unwrap().quality.accuracy() > Some(0.7),
        "{last:?}"
    );
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
fn an_observer_can_stop_it() {
    let mut stop = |event: Event<'_>| {
        let seventh = matches!(event, Event::Step(report) if report.step == 7);
        if seventh {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let training = Training::new(Objective::new(Loss::softmax_cross_entropy()));
    let mut network = Mlp::new(&[64, 8, 10]).build::<f32>(3).unwrap();
    let history = train(&mut network, &small(), &training, &mut stop).unwrap();
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
            ramp: Ramp::linear(-1.0),
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
        optimizer: Sgd::default().into(),
        ..Training::new(Objective::new(Loss::softmax_cross_entropy()))
    };
    let mut network = Mlp::new(&[64, 8, 10]).build::<f32>(3).unwrap();
    let error = train(&mut network, &small(), &training, &mut ()).unwrap_err();
    let Error::Diverged { at } = error else {
        panic!("{error}");
    };
    assert!(
        at.epoch == 1 && at.step > 1 && !at.quantity.is_empty(),
        "{at}"
    );
}

#[test]
fn a_moment_that_overflows_is_a_divergence() {
    // The square of a gradient above 1.8e19 does not fit into f32, while the step itself is small.
    let objective = Objective::new(Loss::softmax_cross_entropy())
        .with(Penalty::Jacobian, 1e25)
        .unwrap();
    let training = Training {
        optimizer: Adam::default().into(),
        ..Training::new(objective)
    };
    let mut network = Mlp::new(&[64, 8, 10]).build::<f32>(3).unwrap();
    let error = train(&mut network, &small(), &training, &mut ()).unwrap_err();
    let Error::Diverged { at } = error else {
        panic!("{error}");
    };
    assert_eq!(at.quantity, "a moment of the optimizer");
}

/// A training with everything that has a state or is random.
fn everything(optimizer: impl Into<AnyOptimizer>) -> Training {
    let objective = Objective::new(Loss::softmax_cross_entropy())
        .with(Penalty::Jacobian, 0.01)
        .unwrap();
    let objective = objective
        .with(Penalty::JacobianProjected { rows: 2, seed: 3 }, 0.01)
        .unwrap();
    Training {
        optimizer: optimizer.into(),
        epochs: 3,
        batch_size: 48,
        learning_rate: 3e-3,
        schedule: Schedule {
            name: Curve::OneCycle,
            warmup: 0.5,
            ..Schedule::default()
        },
        ramp: Ramp {
            name: RampCurve::Cosine,
            epochs: 1.5,
        },
        penalty_interval: 2,
        clip: Some(0.5),
        adversarial: Some(Adversarial {
            method: Pgd {}.into(),
            steps: 2,
            share: 0.5,
            ..Adversarial::default()
        }),
        augmentation: Augmentation {
            shift: 1,
            flip: true,
            ..Augmentation::default()
        },
        seed: 5,
        ..Training::new(objective)
    }
}

fn trainer<T: relugrad::Scalar>(training: &Training) -> Trainer<T> {
    let data = small();
    let network = Mlp::new(&[64, 24, 10]).build(1).unwrap();
    Trainer::new(network, training.clone(), &data.train, Some(&data.test)).unwrap()
}

fn bytes<T: relugrad::Scalar>(trainer: &Trainer<T>) -> Vec<u8> {
    trainer.to_checkpoint(Metadata::new()).to_bytes().unwrap()
}

/// Interrupted after every step, the training ends in the same bytes.
fn resumes_bit_exactly<T: relugrad::Scalar>(optimizer: impl Into<AnyOptimizer>) {
    let training = everything(optimizer);
    let mut whole = trainer::<T>(&training);
    while !whole.is_finished() {
        whole.advance().unwrap();
    }
    let mut saved = bytes(&trainer::<T>(&training));
    loop {
        let mut part = trainer::<T>(&training);
        part.resume(Checkpoint::from_bytes(&saved).unwrap())
            .unwrap();
        if part.is_finished() {
            break;
        }
        part.advance().unwrap();
        saved = bytes(&part);
    }
    assert!(saved == bytes(&whole));
}

#[test]
fn an_interrupted_training_ends_in_the_same_bytes() {
    resumes_bit_exactly::<f32>(AdamW::default());
    resumes_bit_exactly::<f64>(Sgd::default());
}

/// A training that is stopped in its look at the validation samples is where it was before the
/// step, to the bit.
#[test]
fn a_training_that_is_stopped_is_where_it_was() {
    let training = everything(Adam::default());
    let (mut whole, mut stopped) = (trainer::<f32>(&training), trainer::<f32>(&training));
    let mut stops = 0;
    while !whole.is_finished() {
        let before = bytes(&stopped);
        assert_eq!(stopped.advance_while(&|| false).unwrap(), None);
        let asked = AtomicUsize::new(0);
        // Once before the step, and then before each batch of validation samples.
        let go_on = || asked.fetch_add(1, Ordering::SeqCst) == 0;
        if stopped.advance_while(&go_on).unwrap().is_none() {
            stops += 1;
            assert!(bytes(&stopped) == before);
            stopped.advance().unwrap();
        }
        whole.advance().unwrap();
        assert!(bytes(&stopped) == bytes(&whole));
    }
    assert_eq!(stops, whole.epochs().len());
}

#[test]
fn a_checkpoint_of_something_else_is_refused() {
    let training = everything(Adam::default());
    let mut started = trainer::<f32>(&training);
    started.advance().unwrap();
    let saved = bytes(&started);
    let checkpoint = || Checkpoint::from_bytes(&saved).unwrap();
    let refused = |error: Error| matches!(error, Error::Checkpoint { .. });
    let mut sgd = trainer::<f32>(&everything(Sgd::default()));
    assert!(refused(sgd.resume(checkpoint()).unwrap_err()));
    let data = small();
    let network = Mlp::new(&[64, 23, 10]).build(1).unwrap();
    let mut wider = Trainer::new(network, training.clone(), &data.train, None).unwrap();
    assert!(refused(wider.resume(checkpoint()).unwrap_err()));
    let network = Mlp::new(&[64, 24, 10]).build(1).unwrap();
    let mut others = Trainer::new(network, training.clone(), &data.test, None).unwrap();
    assert!(refused(others.resume(checkpoint()).unwrap_err()));
    let mut double = trainer::<f64>(&training);
    let wide = Checkpoint::<f64>::from_bytes(&saved).unwrap();
    assert!(refused(double.resume(wide).unwrap_err()));
    assert!(trainer::<f32>(&training).resume(checkpoint()).is_ok());
}

/// Between two steps with penalties there is none, and their weight is as many times larger.
#[test]
fn lazy_penalties_are_rescaled() {
    let objective = Objective::new(Loss::softmax_cross_entropy())
        .with(Penalty::Jacobian, 0.25)
        .unwrap();
    let training = Training {
        penalty_interval: 3,
        ..Training::new(objective)
    };
    let mut trainer = trainer::<f64>(&training);
    for step in 0..5 {
        let report = trainer.advance().unwrap().step;
        match step % 3 {
            0 => {
                let expected = report.loss + 3.0 * 0.25 * report.penalties[0];
                assert_abs_diff_eq!(report.objective, expected, epsilon = 1e-12 * expected);
            }
            _ => assert!(report.penalties.is_empty() && report.objective == report.loss),
        }
    }
}

/// Plain gradient descent moves by the learning rate times the clipped gradient.
#[test]
fn long_gradients_are_clipped() {
    let training = Training {
        optimizer: Sgd {
            momentum: 0.0,
            ..Sgd::default()
        }
        .into(),
        learning_rate: 0.5,
        clip: Some(0.01),
        ..Training::new(Objective::new(Loss::softmax_cross_entropy()))
    };
    let mut trainer = trainer::<f64>(&training);
    let before = trainer.network().parameters().values().to_vec();
    let report = trainer.advance().unwrap().step;
    let after = trainer.network().parameters().values();
    let moved: f64 = before.iter().zip(after).map(|(a, b)| (a - b).powi(2)).sum();
    assert!(report.gradient_norm > 0.01 && (moved.sqrt() - 0.5 * 0.01).abs() < 1e-12);
}

#[test]
fn training_stops_when_no_better_epoch_comes() {
    let training = Training {
        epochs: 200,
        learning_rate: 0.05,
        stopping: EarlyStopping {
            metric: Some(BestBy::Loss),
            patience: Some(4),
        },
        ..Training::new(Objective::new(Loss::softmax_cross_entropy()))
    };
    let mut trainer = trainer::<f32>(&training);
    while !trainer.is_finished() {
        trainer.advance().unwrap();
    }
    let epochs = trainer.epochs();
    let best = epochs.iter().rposition(|epoch| epoch.best).unwrap();
    assert!(epochs.len() < 200 && epochs.len() - 1 - best == 4);
    let losses = epochs.iter().map(|epoch| epoch.validation.unwrap().loss);
    assert_eq!(
        epochs[best].validation.map(|score| score.loss),
        losses.reduce(f64::min)
    );
}
