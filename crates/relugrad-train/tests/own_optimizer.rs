//! An optimizer of a user's own: trained with, stored in checkpoints and resumed as the built-in
//! ones are.

use relugrad::{Loss, Mlp, Objective, Scalar};
use relugrad_io::{Checkpoint, Metadata};
use relugrad_train::data::{Split, digits, stratified_split};
use relugrad_train::optimizer::{Optimizer, State};
use relugrad_train::{Adam, AnyOptimizer, Error, OptionInfo, Range, Sgd, Trainer, Training};
use serde::Serialize;

/// RMSprop (Tieleman & Hinton 2012) whose rate decays with a number that it keeps itself.
#[derive(Debug, Serialize)]
struct RmsProp {
    keep: f64,
    decay: f64,
}

impl Default for RmsProp {
    fn default() -> RmsProp {
        RmsProp {
            keep: 0.9,
            decay: 0.99,
        }
    }
}

impl Optimizer for RmsProp {
    const NAME: &'static str = "rmsprop";
    const OPTIONS: &'static [OptionInfo] = &[OptionInfo {
        name: "keep",
        meaning: "how much of the mean of squares is kept",
        range: Range::BELOW_ONE,
    }];

    fn buffers(&self, parameters: usize) -> Vec<(&'static str, usize)> {
        vec![("mean_square", parameters), ("decayed", 1)]
    }

    fn step<T: Scalar>(
        &self,
        state: &mut State<T>,
        parameters: &mut [T],
        gradient: &[T],
        rate: f64,
    ) {
        let [squares, decayed] = state.buffers();
        decayed[0] = T::ONE - (T::ONE - decayed[0]) * T::from_f64(self.decay);
        let rate = T::from_f64(rate) * (T::ONE - decayed[0]);
        let (keep, new) = (T::from_f64(self.keep), T::from_f64(1.0 - self.keep));
        for ((p, &g), v) in parameters.iter_mut().zip(gradient).zip(squares) {
            *v = keep * *v + new * g * g;
            *p -= rate * g / (v.sqrt() + T::from_f64(1e-8));
        }
    }
}

fn small() -> Split {
    stratified_split(&digits().first(200).unwrap(), 0.25, 1).unwrap()
}

fn trainer<T: Scalar>(optimizer: impl Into<AnyOptimizer>) -> Result<Trainer<T>, Error> {
    let training = Training {
        optimizer: optimizer.into(),
        epochs: 2,
        batch_size: 48,
        ..Training::new(Objective::new(Loss::softmax_cross_entropy()))
    };
    let data = small();
    let network = Mlp::new(&[64, 16, 10]).build(1)?;
    Trainer::new(network, training, &data.train, Some(&data.test))
}

fn bytes<T: Scalar>(trainer: &Trainer<T>) -> Vec<u8> {
    trainer.to_checkpoint(Metadata::new()).to_bytes().unwrap()
}

fn resumes_bit_exactly<T: Scalar>(optimizer: fn() -> AnyOptimizer) {
    let mut whole = trainer::<T>(optimizer()).unwrap();
    let mut saved = bytes(&whole);
    while !whole.is_finished() {
        whole.advance().unwrap();
        let mut part = trainer::<T>(optimizer()).unwrap();
        part.resume(Checkpoint::from_bytes(&saved).unwrap())
            .unwrap();
        part.advance().unwrap();
        saved = bytes(&part);
        assert!(saved == bytes(&whole));
    }
    let epochs = whole.epochs();
    assert!(epochs[1].train.loss < epochs[0].train.loss);
}

#[test]
fn an_own_optimizer_is_resumed_to_the_same_bytes() {
    resumes_bit_exactly::<f32>(|| RmsProp::default().into());
    resumes_bit_exactly::<f64>(|| RmsProp::default().into());
    resumes_bit_exactly::<f32>(|| Sgd::default().into());
}

#[test]
fn buffers_of_another_optimizer_are_refused_by_name_and_size() {
    let mut own = trainer::<f32>(RmsProp::default()).unwrap();
    own.advance().unwrap();
    let checkpoint = own.to_checkpoint(Metadata::new());
    let mut adam = trainer::<f32>(Adam::default()).unwrap();
    let error = adam.resume(checkpoint.clone()).unwrap_err().to_string();
    for part in ["decayed [1]", "mean_square [", "adam (first_moment ["] {
        assert!(error.contains(part), "{error}");
    }
    let mut shorter = checkpoint;
    shorter.arrays[0].1.pop();
    assert!(own.resume(shorter).is_err());
}

/// Earlier versions stored an empty second array for SGD.
#[test]
fn a_checkpoint_of_sgd_of_earlier_versions_is_read() {
    let mut sgd = trainer::<f32>(Sgd::default()).unwrap();
    sgd.advance().unwrap();
    let mut earlier = sgd.to_checkpoint(Metadata::new());
    earlier.arrays.push(("second_moment".into(), Vec::new()));
    let mut resumed = trainer::<f32>(Sgd::default()).unwrap();
    let earlier = Checkpoint::from_bytes(&earlier.to_bytes().unwrap()).unwrap();
    resumed.resume(earlier).unwrap();
    assert!(bytes(&resumed) == bytes(&sgd));
}

/// Does what it is told, right or wrong.
#[derive(Debug, Serialize)]
struct Wrong {
    names: Vec<String>,
    number: f64,
}

impl Optimizer for Wrong {
    const NAME: &'static str = "wrong";

    fn buffers(&self, _: usize) -> Vec<(&'static str, usize)> {
        let all = ["a", "b"].into_iter();
        let named = |name: &&str| self.names.iter().filter(|own| own == name).count();
        all.flat_map(|name| std::iter::repeat_n((name, 1), named(&name)))
            .collect()
    }

    fn step<T: Scalar>(&self, state: &mut State<T>, parameters: &mut [T], _: &[T], _: f64) {
        match self.names.len() {
            0 => parameters[0] = T::from_f64(self.number),
            _ => state.buffers::<1>()[0][0] = T::from_f64(self.number),
        }
    }
}

#[test]
fn what_an_own_optimizer_does_wrong_is_an_error() {
    let wrong = |names: &[&str], number| Wrong {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        number,
    };
    let error = trainer::<f32>(wrong(&["b", "b"], 0.0)).err().unwrap();
    assert!(error.to_string().contains("two buffers called `b`"));
    for (names, what) in [
        (&[][..], "a parameter"),
        (&["a"], "a moment of the optimizer"),
    ] {
        let mut trainer = trainer::<f32>(wrong(names, f64::NAN)).unwrap();
        match trainer.advance() {
            Err(Error::Diverged { at }) => assert_eq!(at.quantity, what),
            other => panic!("{other:?}"),
        }
    }
    let keep = RmsProp {
        keep: 1.0,
        ..RmsProp::default()
    };
    assert!(matches!(
        trainer::<f32>(keep).err().unwrap(),
        Error::OutOfRange { option: "keep", .. }
    ));
}
