//! An attack of a user's own: evaluated, trained with and resumed as the built-in ones are.

use ndarray::{Array2, array};
use relugrad::{Loss, Mlp, Network, Objective, Scalar};
use relugrad_io::{Checkpoint, Metadata};
use relugrad_train::attack::{
    ATTACKS, AnyAttack, Attack, AttackOptions, Attacker, Norm, Pgd, Search,
};
use relugrad_train::data::{Split, digits, stratified_split};
use relugrad_train::evaluate::{Samples, score_under_attack};
use relugrad_train::robustness::{EvaluationOptions, evaluate};
use relugrad_train::{Adversarial, Configuration, Error, Trainer, Training};
use serde::{Deserialize, Serialize};

/// Gradient ascent with momentum (Dong et al. 2018), in ℓ∞.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Momentum {
    keep: f64,
}

impl Attack for Momentum {
    const NAME: &'static str = "momentum";
    const TITLE: &'static str = "MI-FGSM";

    fn search<T: Scalar>(
        &self,
        search: &mut Search<'_, T>,
        start: Array2<T>,
    ) -> relugrad::Result<()> {
        let (mut x, AttackOptions { steps, .. }) = (start, *search.options());
        let step_size = search.options().step_size;
        let mut momentum = Array2::zeros(x.dim());
        for _ in 0..steps {
            let gradients = search.look(&x)?.gradients;
            momentum = momentum.mapv(|m| T::from_f64(self.keep) * m) + gradients;
            search.climb(&mut x, momentum.clone(), |_| step_size);
        }
        search.keep(&x)
    }
}

/// Goes where it is told.
#[derive(Debug, Serialize)]
struct Lost {
    to: f64,
}

impl Attack for Lost {
    const NAME: &'static str = "lost";
    const TITLE: &'static str = "lost";

    fn search<T: Scalar>(
        &self,
        search: &mut Search<'_, T>,
        start: Array2<T>,
    ) -> relugrad::Result<()> {
        search.keep(&start.mapv(|_| T::from_f64(self.to)))
    }
}

fn data() -> Split {
    stratified_split(&digits().first(300).unwrap(), 0.25, 1).unwrap()
}

fn training(attack: impl Into<AnyAttack>) -> Training {
    Training {
        epochs: 2,
        batch_size: 48,
        adversarial: Some(Adversarial {
            method: attack.into(),
            steps: 3,
            ..Adversarial::default()
        }),
        ..Training::new(Objective::new(Loss::softmax_cross_entropy()))
    }
}

fn trainer<T: Scalar>(training: &Training) -> Trainer<T> {
    let network = Mlp::new(&[64, 16, 10]).build(1).unwrap();
    let data = data();
    Trainer::new(network, training.clone(), &data.train, Some(&data.test)).unwrap()
}

fn trained() -> Network<f32> {
    let mut trainer = trainer::<f32>(&training(Momentum { keep: 0.5 }));
    while !trainer.is_finished() {
        trainer.advance().unwrap();
    }
    trainer.into_network()
}

#[test]
fn training_with_an_own_attack_is_resumed_to_the_same_bytes() {
    let training = training(Momentum { keep: 0.5 });
    let mut whole = trainer::<f64>(&training);
    let bytes = |trainer: &Trainer<f64>| trainer.to_checkpoint(Metadata::new()).to_bytes();
    let mut saved = bytes(&whole).unwrap();
    while !whole.is_finished() {
        whole.advance().unwrap();
        let mut part = trainer::<f64>(&training);
        part.resume(Checkpoint::from_bytes(&saved).unwrap())
            .unwrap();
        part.advance().unwrap();
        saved = bytes(&part).unwrap();
        assert!(saved == bytes(&whole).unwrap());
    }
}

#[test]
fn an_own_attack_is_evaluated_beside_the_others_of_its_ball() {
    let (network, test) = (trained(), data().test);
    let own = |norm, epsilon| Attacker::new(Momentum { keep: 1.0 }, norm, epsilon, 10, 1);
    let evaluation = EvaluationOptions {
        linf: vec![0.1],
        l2: vec![],
        certified: 0,
        deepfool_steps: 0,
        pgd_steps: 5,
        apgd_steps: 5,
        further: vec![own(Norm::Linf, 0.1), own(Norm::Linf, 0.3)],
        ..EvaluationOptions::default()
    };
    let evaluated = evaluate(&network, &test, &evaluation, &mut (), &|| true).unwrap();
    let report = evaluated.report;
    let names: Vec<&str> = report.attacks.iter().map(|a| &*a.attack.name).collect();
    let built_in = ["noise", "FGSM", "PGD", "PGD", "APGD-CE", "APGD-DLR"];
    assert_eq!(names[..6], built_in);
    assert_eq!(names[6..], ["MI-FGSM", "MI-FGSM"]);
    assert_eq!(evaluated.adversarial.len(), 2);
    let sizes: Vec<f64> = report
        .worst
        .iter()
        .map(|w| w.attack.options.epsilon)
        .collect();
    assert_eq!(sizes, [0.1, 0.3]);
    // It does what it does by itself.
    let (loss, samples) = (Loss::softmax_cross_entropy(), Samples::new(&test));
    let alone = score_under_attack(&network, &loss, &own(Norm::Linf, 0.1), &samples, &|| true);
    let share = |attack: usize| report.attacks[attack].standing.share().unwrap();
    assert_eq!(alone.unwrap().quality.accuracy(), Some(share(6).share));
    assert!(share(6).count < share(0).count);
}

/// Equal options make equal attacks; every attack of the catalogue is read from its name, and
/// options are written beside it.
#[test]
fn attacks_are_known_by_kind_and_options() {
    let of = |keep| AnyAttack::from(Momentum { keep });
    assert_eq!(of(0.5), of(0.5));
    assert!(of(0.5) != of(0.25) && of(0.5) != Pgd {}.into());
    let json = serde_json::to_string(&of(0.5)).unwrap();
    assert_eq!(json, r#"{"name":"momentum","keep":0.5}"#);
    for entry in ATTACKS {
        let attack: AnyAttack = entry.name.parse().unwrap();
        let json = serde_json::to_string(&attack).unwrap();
        assert_eq!(json, format!("{:?}", entry.name));
        assert_eq!(serde_json::from_str::<AnyAttack>(&json).unwrap(), attack);
        let text = format!("[adversarial]\nmethod = {:?}", entry.name);
        let configuration = Configuration::from_toml(&text).unwrap();
        configuration.check().unwrap();
        assert_eq!(configuration.training.adversarial.unwrap().method, attack);
        assert!(!entry.meaning.is_empty());
    }
    let unknown = Configuration::from_toml("[adversarial]\nmethod = \"apgd-lr\"");
    let error = unknown.unwrap_err().to_string();
    assert!(error.contains("did you mean `apgd-dlr`?"), "{error}");
}

#[test]
fn what_an_own_attack_does_wrong_is_an_error() {
    let network = Mlp::new(&[2, 4, 2]).build::<f32>(0).unwrap();
    let (loss, x) = (Loss::softmax_cross_entropy(), array![[0.5, 0.25]]);
    for norm in [Norm::Linf, Norm::L2] {
        for (to, problem) in [
            (f64::NAN, "in [0, 1]"),
            (-0.5, "in [0, 1]"),
            (0.75, "at most epsilon"),
        ] {
            let lost = Attacker::new(Lost { to }, norm, 0.125, 1, 1);
            let error = lost.run(&network, &loss, x.view(), &[0], 0).unwrap_err();
            assert!(error.to_string().contains(problem), "{error}");
            let mut trainer = trainer::<f32>(&training(Lost { to }));
            let found = trainer.advance();
            assert!(matches!(found, Err(Error::Step { .. })), "{found:?}");
        }
    }
    let steps = Attacker::new(Momentum { keep: 0.5 }, Norm::L2, 0.5, 0, 1);
    assert!(matches!(steps.check(), Err(Error::OutOfRange { .. })));
}
