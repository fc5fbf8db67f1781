//! An optimizer whose kind is known at run time.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use relugrad::Scalar;
use serde::{Deserialize, Serialize};
use toml::Table;

use super::{OPTIMIZERS, Optimizer, State};
use crate::both::Both;
use crate::error::{Error, Result};
use crate::spec::{Spec, check_options, find, table};

/// Any [`Optimizer`]: one of [`OPTIMIZERS`], which a file names by its [`Spec`], or a user's own,
/// by `into()`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(into = "Spec", try_from = "Spec")]
pub struct AnyOptimizer(Both<dyn Rule<f32>, dyn Rule<f64>>);

/// An optimizer for one type of numbers.
trait Rule<T>: Send + Sync {
    fn name(&self) -> &'static str;
    fn options(&self) -> std::result::Result<Table, toml::ser::Error>;
    fn check(&self) -> Result<()>;
    fn buffers(&self, parameters: usize) -> Vec<(&'static str, usize)>;
    fn step(&self, state: &mut State<T>, parameters: &mut [T], gradient: &[T], rate: f64);
}

impl<T: Scalar, O: Optimizer> Rule<T> for O {
    fn name(&self) -> &'static str {
        O::NAME
    }

    fn options(&self) -> std::result::Result<Table, toml::ser::Error> {
        table(self)
    }

    fn check(&self) -> Result<()> {
        let options = Rule::<T>::options(self).map_err(|error| Error::Configuration {
            problem: format!("the options of the optimizer {}: {error}", O::NAME),
        })?;
        check_options(&options, O::OPTIONS)?;
        Optimizer::check(self)?;
        let buffers = Optimizer::buffers(self, 1);
        let twice = (1..buffers.len()).find(|&i| buffers[..i].iter().any(|b| b.0 == buffers[i].0));
        match twice {
            None => Ok(()),
            Some(i) => Err(Error::Configuration {
                problem: format!(
                    "the optimizer {} has two buffers called `{}`; give each a name of its own",
                    O::NAME,
                    buffers[i].0
                ),
            }),
        }
    }

    fn buffers(&self, parameters: usize) -> Vec<(&'static str, usize)> {
        Optimizer::buffers(self, parameters)
    }

    fn step(&self, state: &mut State<T>, parameters: &mut [T], gradient: &[T], rate: f64) {
        Optimizer::step(self, state, parameters, gradient, rate);
    }
}

impl<O: Optimizer> From<O> for AnyOptimizer {
    fn from(optimizer: O) -> AnyOptimizer {
        let optimizer = Arc::new(optimizer);
        AnyOptimizer(Both::new(optimizer.clone(), optimizer))
    }
}

impl AnyOptimizer {
    /// Its name in options and files.
    pub fn name(&self) -> &'static str {
        self.single().name()
    }

    /// Refuses options that are out of range or do not go together.
    ///
    /// # Errors
    /// [`Error::OutOfRange`], and those of [`Optimizer::check`].
    pub fn check(&self) -> Result<()> {
        self.single().check()
    }

    /// As for [`Optimizer::buffers`].
    pub(super) fn buffers(&self, parameters: usize) -> Vec<(&'static str, usize)> {
        self.single().buffers(parameters)
    }

    pub(super) fn step<T: Scalar>(
        &self,
        state: &mut State<T>,
        parameters: &mut [T],
        gradient: &[T],
        rate: f64,
    ) {
        let rule = self.0.of::<dyn Rule<T>>();
        rule.step(state, parameters, gradient, rate);
    }

    fn single(&self) -> &dyn Rule<f32> {
        self.0.of()
    }
}

/// Kind and options; [`AnyOptimizer::check`] refuses options that cannot be written.
impl From<AnyOptimizer> for Spec {
    fn from(optimizer: AnyOptimizer) -> Spec {
        Spec {
            name: optimizer.name().into(),
            options: optimizer.single().options().unwrap_or_default(),
        }
    }
}

impl TryFrom<Spec> for AnyOptimizer {
    type Error = Error;

    fn try_from(spec: Spec) -> Result<AnyOptimizer> {
        let entry = find("optimizer", &OPTIMIZERS, |entry| entry.name, &spec.name)?;
        (entry.read)(spec.options).map_err(|error| Error::Configuration {
            problem: format!("the optimizer {}: {}", entry.name, error.message()),
        })
    }
}

/// An optimizer of the catalogue with its defaults.
impl FromStr for AnyOptimizer {
    type Err = Error;

    fn from_str(name: &str) -> Result<AnyOptimizer> {
        let (name, options) = (name.to_owned(), Table::new());
        Spec { name, options }.try_into()
    }
}

impl PartialEq for AnyOptimizer {
    fn eq(&self, other: &AnyOptimizer) -> bool {
        Spec::from(self.clone()) == Spec::from(other.clone())
    }
}

impl fmt::Debug for AnyOptimizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Spec::from(self.clone()).fmt(f)
    }
}
