//! Optimizers: how a gradient changes the parameters. A trait, its catalogue, and one file for
//! each.
//!
//! To add one of your own, implement [`Optimizer`] and give it to [`Training`](crate::Training); it
//! is then trained with, stored in checkpoints and resumed to the same bytes as those here are. In
//! this crate a new one is a file of this folder and its lines below.

mod adam;
mod adamw;
mod any;
mod sgd;
mod state;

use std::fmt;

use relugrad::Scalar;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use adam::Adam;
pub use adamw::AdamW;
pub use any::AnyOptimizer;
pub use sgd::Sgd;
pub use state::{OptimizerState, State};

use crate::error::Result;
use crate::spec::OptionInfo;

/// The optimizers that a configuration can name.
pub const OPTIMIZERS: [Entry; 3] = [
    Entry::of::<Sgd>(),
    Entry::of::<Adam>(),
    Entry::of::<AdamW>(),
];

/// An update rule, which is the way to add one. Its fields are its options; two with equal ones are
/// the same.
///
/// In what follows `t` counts steps from 1, `g_t` is the gradient, `η` the learning rate and `ω`
/// the weight decay.
///
/// ```
/// use relugrad::{Loss, Mlp, Objective, Scalar};
/// use relugrad_train::data::{digits, stratified_split};
/// use relugrad_train::optimizer::{Optimizer, State};
/// use relugrad_train::{Training, train};
/// use serde::Serialize;
///
/// /// Lion (Chen et al. 2023): the sign of a momentum.
/// #[derive(Debug, Serialize)]
/// struct Lion {
///     beta1: f64,
///     beta2: f64,
/// }
///
/// impl Optimizer for Lion {
///     const NAME: &'static str = "lion";
///
///     fn buffers(&self, parameters: usize) -> Vec<(&'static str, usize)> {
///         vec![("momentum", parameters)]
///     }
///
///     fn step<T: Scalar>(&self, state: &mut State<T>, parameters: &mut [T], gradient: &[T], rate: f64) {
///         let [momentum] = state.buffers();
///         let mix = |keep: f64, m: T, g: T| T::from_f64(keep) * m + T::from_f64(1.0 - keep) * g;
///         for ((p, &g), m) in parameters.iter_mut().zip(gradient).zip(momentum) {
///             *p -= T::from_f64(rate) * mix(self.beta1, *m, g).signum();
///             *m = mix(self.beta2, *m, g);
///         }
///     }
/// }
///
/// let data = stratified_split(&digits().first(200)?, 0.2, 0)?;
/// let training = Training {
///     optimizer: Lion { beta1: 0.9, beta2: 0.99 }.into(),
///     epochs: 3,
///     ..Training::new(Objective::new(Loss::softmax_cross_entropy()))
/// };
/// let mut network = Mlp::new(&[64, 32, 10]).build::<f32>(0)?;
/// let history = train(&mut network, &data, &training, &mut ())?;
/// assert!(history.epochs[2].train.loss < history.epochs[0].train.loss);
/// # Ok::<(), relugrad_train::Error>(())
/// ```
pub trait Optimizer: fmt::Debug + Serialize + Send + Sync + 'static {
    /// Its name in options and files.
    const NAME: &'static str;

    /// What it is, in a few words.
    const MEANING: &'static str = "";

    /// The learning rate that it has unless one is given.
    const LEARNING_RATE: f64 = 1e-3;

    /// Its options; their ranges are checked before a training.
    const OPTIONS: &'static [OptionInfo] = &[];

    /// Refuses options that do not go together.
    ///
    /// # Errors
    /// Those of the optimizer.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// The names and lengths of the arrays that it keeps from step to step for so many parameters.
    /// They begin as zeros, are all that [`State`] has besides the number of steps, and go into
    /// checkpoints under these names.
    fn buffers(&self, parameters: usize) -> Vec<(&'static str, usize)>;

    /// Takes a step of learning rate `rate`; `parameters` and `gradient` are as long as those that
    /// [`buffers`](Self::buffers) was asked for. Equal arguments must give equal bits.
    fn step<T: Scalar>(
        &self,
        state: &mut State<T>,
        parameters: &mut [T],
        gradient: &[T],
        rate: f64,
    );
}

/// An optimizer of the catalogue.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its name in options and files.
    pub name: &'static str,
    /// What it is.
    pub meaning: &'static str,
    /// Its learning rate unless one is given.
    pub learning_rate: f64,
    /// Its options.
    pub options: &'static [OptionInfo],
    read: fn(toml::Table) -> std::result::Result<AnyOptimizer, toml::de::Error>,
}

impl Entry {
    const fn of<O: Optimizer + DeserializeOwned>() -> Entry {
        Entry {
            name: O::NAME,
            meaning: O::MEANING,
            learning_rate: O::LEARNING_RATE,
            options: O::OPTIONS,
            read: |table| Ok(table.try_into::<O>()?.into()),
        }
    }
}
