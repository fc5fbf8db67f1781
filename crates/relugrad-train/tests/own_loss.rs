//! A loss of one's own on values, with penalties of one's own beside it, does what built-in ones
//! do.

use approx::assert_abs_diff_eq;
use ndarray::{Array2, Axis, concatenate};
use relugrad::loss::{LossFunction, TargetKind};
use relugrad::penalty::{Described, InputGradientPenalty, Promises};
use relugrad::penalty::{GradientAdjoint, GradientPoint};
use relugrad::{Loss, Mlp, Objective, Penalty, Result};
use relugrad_io::{Checkpoint, Metadata};
use relugrad_train::attack::{ATTACKS, Attacker, Norm, Pgd};
use relugrad_train::compare::{Measures, Plan, Variant, compare};
use relugrad_train::data::{Dataset, Split, Truth};
use relugrad_train::evaluate::{Quality, Samples, score, score_under_attack};
use relugrad_train::robustness::{EvaluationOptions, evaluate};
use relugrad_train::verify::verify_penalty;
use relugrad_train::{Architecture, Error, Sgd, Trainer, Training, loss_for};

/// `c² Σ_k log cosh((f_k − y_k)/c)`.
#[derive(Debug)]
struct LogCosh(f64);

impl LossFunction for LogCosh {
    fn name(&self) -> &str {
        "log-cosh"
    }

    fn options(&self) -> Vec<(&'static str, f64)> {
        vec![("scale", self.0)]
    }

    fn check(&self, targets: TargetKind, _: usize) -> std::result::Result<(), String> {
        match targets {
            TargetKind::Values => Ok(()),
            TargetKind::Classes | TargetKind::Probabilities => {
                Err("needs values as targets, not classes; use softmax cross-entropy".into())
            }
        }
    }

    fn evaluate(&self, f: &[f64], y: &[f64], r: &mut [f64], state: &mut [f64]) -> f64 {
        let mut sum = 0.0;
        for k in 0..f.len() {
            let e = (f[k] - y[k]) / self.0;
            state[k] = e.tanh();
            r[k] = self.0 * state[k];
            sum += e.abs() + (-2.0 * e.abs()).exp().ln_1p() - 2f64.ln();
        }
        self.0.powi(2) * sum
    }

    fn hessian_times(&self, state: &[f64], rows: &[f64], out: &mut [f64]) {
        let k = state.len() / 2;
        for (i, (out, v)) in out.iter_mut().zip(rows).enumerate() {
            *out = (1.0 - state[i % k].powi(2)) * v;
        }
    }

    fn hessian_pullback(&self, state: &[f64], s_bar: &[f64], out: &mut [f64]) {
        let k = out.len();
        for (i, out) in out.iter_mut().enumerate() {
            let t = state[i];
            *out = s_bar[i * k + i] * -2.0 * t * (1.0 - t * t) / self.0;
        }
    }
}

static WIDE: LogCosh = LogCosh(2.0);
static NARROW: LogCosh = LogCosh(0.5);

/// `‖g‖²`.
#[derive(Debug)]
struct Square;

impl Described for Square {
    fn name(&self) -> &str {
        "own-square"
    }

    fn promises(&self) -> Promises {
        Promises::default().with_degree(2)
    }
}

impl InputGradientPenalty for Square {
    fn evaluate(&self, at: &GradientPoint, adjoint: Option<&mut GradientAdjoint>) -> Result<f64> {
        if let Some(adjoint) = adjoint {
            adjoint.add_gradient(2.0, at.gradient());
        }
        Ok(at.squared_length())
    }
}

fn noise(i: usize, j: usize) -> f64 {
    (((3 * i + j + 1) as f64 * 12.9898).sin() * 43_758.545_3).rem_euclid(1.0)
}

/// Samples of three features with two values.
fn data(n: usize, from: usize) -> Dataset {
    let x = Array2::from_shape_fn((n, 3), |(i, j)| noise(i + from, j) as f32);
    let value = |(i, k): (usize, usize)| {
        let [a, b, c] = [0, 1, 2].map(|j| f64::from(x[(i, j)]));
        if k == 0 { a - 2.0 * b } else { (c - a).abs() }
    };
    let y = Array2::from_shape_fn((n, 2), value);
    Dataset::with_values("own", x, y, vec![3]).unwrap()
}

fn split() -> Split {
    Split::new(data(90, 0), data(30, 90)).unwrap()
}

fn trainer(loss: Loss) -> Trainer<f64> {
    let objective = Objective::new(loss).with(Penalty::Jacobian, 0.01).unwrap();
    let objective = objective
        .with(Penalty::input_gradient(Square), 0.1)
        .unwrap();
    let training = Training {
        epochs: 3,
        batch_size: 16,
        ..Training::new(objective)
    };
    let network = Mlp::new(&[3, 10, 2]).build(0).unwrap();
    let data = split();
    Trainer::new(network, training, &data.train, Some(&data.test)).unwrap()
}

#[test]
fn a_training_is_resumed_to_the_same_bytes_and_with_no_other_loss() {
    let bytes = |trainer: &Trainer<f64>| trainer.to_checkpoint(Metadata::new()).to_bytes().unwrap();
    let mut whole = trainer(Loss::own(&WIDE));
    let mut saved = bytes(&whole);
    while !whole.is_finished() {
        whole.advance().unwrap();
        let mut part = trainer(Loss::own(&WIDE));
        part.resume(Checkpoint::from_bytes(&saved).unwrap())
            .unwrap();
        part.advance().unwrap();
        saved = bytes(&part);
        assert!(saved == bytes(&whole));
    }
    let epochs = whole.epochs();
    assert!(epochs[2].train.loss < epochs[0].train.loss);
    assert!(
        epochs
            .iter()
            .all(|epoch| epoch.train.quality.mse().is_some())
    );
    for loss in [Loss::own(&NARROW), Loss::SquaredError] {
        let refused = trainer(loss).resume(Checkpoint::from_bytes(&saved).unwrap());
        let message = refused.unwrap_err().to_string();
        assert!(
            message.contains("with the loss log-cosh(scale=2.0), not "),
            "{message}"
        );
    }
}

#[test]
fn penalties_are_verified_compared_and_evaluated_with_it() {
    let loss = Loss::own(&NARROW);
    let own = Penalty::input_gradient(Square);
    let network = Mlp::new(&[3, 10, 2]).build::<f64>(1).unwrap();
    let samples = Samples::new(&split().test);
    for penalty in [own.clone(), Penalty::CurvatureFrobenius] {
        let report = verify_penalty(&network, &penalty, &loss, &samples, 0).unwrap();
        assert!(report.holds(), "{report}");
    }
    let mut plan = Plan::new(split(), [(own.clone(), 0.1), (Penalty::InputGradient, 0.1)]);
    assert_eq!(*plan.loss(), Loss::SquaredError);
    plan.training.objective = Objective::new(loss);
    plan.model = Architecture::mlp(&[8]);
    plan.training.epochs = 2;
    let comparison = compare(&plan, None, &mut (), &|| true).unwrap();
    let [_, own_run, built_in] = &comparison.runs[..] else {
        panic!("{comparison:?}");
    };
    assert_eq!(own_run.regularizer, "own-square");
    // The same penalty, up to the order of sums.
    let error = |run: &relugrad_train::compare::Run| run.evaluation.quality.clean();
    assert_abs_diff_eq!(error(own_run) / error(built_in), 1.0, epsilon = 1e-3);
    assert!(matches!(
        own_run.evaluation.quality,
        Measures::Values { .. }
    ));

    let options = EvaluationOptions {
        linf: vec![0.05],
        l2: vec![],
        apgd_steps: 10,
        loss: Some(loss),
        penalties: vec![own, Penalty::InputGradient],
        ..EvaluationOptions::default()
    };
    let found = evaluate(&network, &split().test, &options, &mut (), &|| true).unwrap();
    let clean = score(&network, &loss, &samples, &|| true).unwrap();
    assert_eq!(found.report.loss, clean.loss);
    let means: Vec<f64> = found
        .report
        .penalties
        .iter()
        .map(|(_, mean)| *mean)
        .collect();
    assert!(means[0] > 0.0 && (means[0] / means[1] - 1.0).abs() < 1e-12);
    let logits = network.forward(found.adversarial[0].view()).unwrap();
    for (i, sample) in found.report.samples.iter().enumerate() {
        let worst = sample
            .losses
            .iter()
            .fold(sample.loss, |a: f64, &b| a.max(b));
        let row = logits.row(i).to_vec();
        let (value, _) = loss.evaluate(&row, &samples.truth.part(i..i + 1)).unwrap();
        assert_abs_diff_eq!(value, worst, epsilon = 1e-12);
    }
    // PGD is run twice, the union is what its parts are, and the difference of logits needs classes.
    let (all, left_out) = (ATTACKS.len(), found.report.left_out.len());
    assert_eq!((found.report.attacks.len(), left_out), (all - 1, 3));
}

/// Attacks raise the loss, with more steps and starts never less, and stay in ball and box.
#[test]
fn attacks_raise_the_loss_of_values() {
    let samples: Samples<f64> = Samples::new(&data(20, 7));
    for seed in 0..6 {
        let network = Mlp::new(&[3, 9, 9, 2]).build::<f64>(seed).unwrap();
        for (loss, norm) in [
            (Loss::own(&WIDE), Norm::L2),
            (Loss::SquaredError, Norm::Linf),
        ] {
            let clean = score(&network, &loss, &samples, &|| true).unwrap();
            let mut before = clean.loss;
            for restarts in 1..4 {
                let pgd = Attacker::new(Pgd {}, norm, 0.1, 8, restarts);
                let found = score_under_attack(&network, &loss, &pgd, &samples, &|| true).unwrap();
                assert!(found.loss >= before && found.loss > clean.loss, "{seed}");
                before = found.loss;
                let (x, y) = (samples.images.view(), samples.truth.clone());
                let outcome = pgd.run(&network, &loss, x, y, 0).unwrap();
                assert!(outcome.adversarial.iter().all(|x| (0.0..=1.0).contains(x)));
                assert!(outcome.fooled.iter().all(|fooled| !fooled));
                let mean = outcome.losses.iter().sum::<f64>() / 20.0;
                assert_abs_diff_eq!(mean, found.loss, epsilon = 1e-12 * mean);
            }
        }
    }
}

#[test]
fn the_loss_follows_from_the_data_unless_it_is_given() {
    let values = data(4, 0);
    let images = values.images().clone();
    let classes = |n| Dataset::new("c", images.clone(), vec![0, 1, 0, 1], n, vec![3]).unwrap();
    let network = |outputs| Mlp::new(&[3, outputs]).build::<f32>(0).unwrap();
    let found = |outputs, data: &Dataset, given| loss_for(&network(outputs), data, given);
    assert_eq!(found(2, &values, None).unwrap(), Loss::SquaredError);
    assert_eq!(found(1, &classes(2), None).unwrap(), Loss::Logistic);
    let softmax = Loss::softmax_cross_entropy();
    assert_eq!(found(3, &classes(3), None).unwrap(), softmax);
    assert_eq!(
        found(3, &classes(3), Some(Loss::SquaredError)).unwrap(),
        Loss::SquaredError
    );
    for (outputs, data, given, part) in [
        (2, &values, Some(softmax), "needs classes"),
        (
            3,
            &values,
            None,
            "the model has 3 logits but own has 2 values",
        ),
        (
            2,
            &classes(3),
            None,
            "the model has 2 logits but c has 3 classes",
        ),
        (
            1,
            &classes(2),
            Some(softmax),
            "the model has 1 logit but c has 2 classes",
        ),
        (
            1,
            &classes(2),
            Some(Loss::SquaredError),
            "the model has 1 logit but c has 2 classes",
        ),
        (
            2,
            &classes(2),
            Some(Loss::Logistic),
            "needs a network with one logit, not 2",
        ),
        (
            2,
            &classes(2),
            Some(Loss::own(&WIDE)),
            "log-cosh needs values as targets",
        ),
    ] {
        let message = found(outputs, data, given).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn what_needs_classes_is_refused_before_the_first_step() {
    let start = |objective: Objective| {
        let network = Mlp::new(&[3, 4, 2]).build::<f32>(0).unwrap();
        Trainer::new(network, Training::new(objective), &split().train, None).map(drop)
    };
    let with = |penalty: Penalty| {
        Objective::new(Loss::SquaredError)
            .with(penalty, 1.0)
            .unwrap()
    };
    let refused = start(with(Penalty::CrossLipschitz)).unwrap_err();
    assert!(matches!(refused, Error::Penalty { .. }), "{refused}");
    assert!(refused.to_string().ends_with("take jacobian"), "{refused}");
    let twice = with(Penalty::Jacobian)
        .with(Penalty::Jacobian, 2.0)
        .unwrap();
    assert!(
        start(twice)
            .unwrap_err()
            .to_string()
            .contains("jacobian is there twice")
    );
    let mut plan = Plan::new(split(), [(Penalty::Jacobian, 0.1)]);
    plan.variants.push(Variant::Penalty(Penalty::Jacobian, 0.1));
    assert!(matches!(plan.check(), Err(Error::Penalty { .. })));
    let dlr = Attacker::new(
        "apgd-dlr"
            .parse::<relugrad_train::attack::AnyAttack>()
            .unwrap(),
        Norm::Linf,
        0.1,
        2,
        1,
    );
    let (network, samples) = (
        Mlp::new(&[3, 2]).build::<f64>(0).unwrap(),
        Samples::new(&data(2, 0)),
    );
    let found = dlr.run(
        &network,
        &Loss::SquaredError,
        samples.images.view(),
        samples.truth.clone(),
        0,
    );
    assert!(
        found
            .unwrap_err()
            .to_string()
            .contains("needs 3 classes, but the samples have values")
    );
}

/// A training with weights is that of repeated samples, when every batch has all.
#[test]
fn weights_train_as_repeated_samples_do() {
    let (once, weights) = (
        data(12, 0),
        [1.0, 2.0, 0.0, 3.0, 1.0, 1.0, 2.0, 1.0, 0.0, 1.0, 1.0, 1.0],
    );
    let repeated: Vec<usize> = (0..12).flat_map(|i| vec![i; weights[i] as usize]).collect();
    let train = |data: &Dataset| {
        let training = Training {
            epochs: 4,
            batch_size: 100,
            learning_rate: 0.1,
            optimizer: Sgd::default().into(),
            ..Training::new(
                Objective::new(Loss::SquaredError)
                    .with(Penalty::Jacobian, 0.1)
                    .unwrap(),
            )
        };
        let network = Mlp::new(&[3, 6, 2]).build::<f64>(2).unwrap();
        let mut trainer = Trainer::new(network, training, data, Some(data)).unwrap();
        while !trainer.is_finished() {
            trainer.advance().unwrap();
        }
        let last = trainer.epochs().last().unwrap().clone();
        (trainer.into_network().parameters().values().to_vec(), last)
    };
    let (a, first) = train(&once.clone().with_weights(weights.to_vec()).unwrap());
    let (b, second) = train(&once.subset(&repeated).unwrap());
    for (a, b) in a.iter().zip(&b) {
        assert_abs_diff_eq!(a, b, epsilon = 1e-12);
    }
    for (a, b) in [
        (first.train, second.train),
        (first.validation.unwrap(), second.validation.unwrap()),
    ] {
        let (Quality::Values { mse, r2 }, Quality::Values { mse: m, r2: r }) =
            (a.quality, b.quality)
        else {
            panic!("{a:?}");
        };
        assert!(
            (mse - m).abs() < 1e-12 && (r2 - r).abs() < 1e-12 && (a.loss - b.loss).abs() < 1e-12
        );
    }
    assert!(once.with_weights(vec![1.0; 3]).is_err());
}

/// Joining data sets keeps values and weights; others do not join.
#[test]
fn data_sets_of_one_kind_are_joined() {
    let (a, b) = (data(3, 0), data(2, 3));
    let joined = a
        .followed_by(&b.clone().with_weights(vec![2.0, 3.0]).unwrap())
        .unwrap();
    assert_eq!(joined.weights(), [1.0, 1.0, 1.0, 2.0, 3.0]);
    let values = concatenate![
        Axis(0),
        a.values().unwrap().view(),
        b.values().unwrap().view()
    ];
    assert_eq!(*joined.truth(), Truth::Values(values));
    let classes = Dataset::new("c", a.images().clone(), vec![0, 1, 0], 2, vec![3]).unwrap();
    let message = a.followed_by(&classes).unwrap_err().to_string();
    assert_eq!(
        message,
        "the training samples have 2 values but the test samples 2 classes"
    );
}
