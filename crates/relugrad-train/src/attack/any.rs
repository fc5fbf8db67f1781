//! An attack whose kind is known at run time.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use ndarray::Array2;
use relugrad::Scalar;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use toml::Table;

use super::{ATTACKS, Attack, AttackOptions, Effort, Norm, Search};
use crate::both::Both;
use crate::error::{Error, Result};
use crate::spec::{NameAlone, Spec, find, table};

/// Any [`Attack`]: one of [`ATTACKS`], which a file names, or a user's own, by `into()`.
#[derive(Clone)]
pub struct AnyAttack(Both<dyn Method<f32>, dyn Method<f64>>);

/// An attack on networks of one type of numbers.
trait Method<T: Scalar>: Send + Sync {
    fn names(&self) -> [&'static str; 2];
    fn own(&self) -> std::result::Result<Table, toml::ser::Error>;
    fn options(&self, norm: Norm, epsilon: f64, steps: usize, restarts: usize) -> AttackOptions;
    fn efforts(&self, plain: Effort, auto: Effort) -> Vec<Effort>;
    fn check(&self, options: &AttackOptions) -> Result<()>;
    fn classes(&self) -> usize;
    fn search(&self, search: &mut Search<'_, T>, start: Array2<T>) -> relugrad::Result<()>;
}

impl<T: Scalar, A: Attack> Method<T> for A {
    fn names(&self) -> [&'static str; 2] {
        [A::NAME, A::TITLE]
    }

    fn own(&self) -> std::result::Result<Table, toml::ser::Error> {
        table(self)
    }

    fn options(&self, norm: Norm, epsilon: f64, steps: usize, restarts: usize) -> AttackOptions {
        Attack::options(self, norm, epsilon, steps, restarts)
    }

    fn efforts(&self, plain: Effort, auto: Effort) -> Vec<Effort> {
        Attack::efforts(self, plain, auto)
    }

    fn check(&self, options: &AttackOptions) -> Result<()> {
        table(self).map_err(|error| Error::Configuration {
            problem: format!("the options of the attack {}: {error}", A::NAME),
        })?;
        Attack::check(self, options)
    }

    fn classes(&self) -> usize {
        Attack::classes(self)
    }

    fn search(&self, search: &mut Search<'_, T>, start: Array2<T>) -> relugrad::Result<()> {
        Attack::search(self, search, start)
    }
}

impl<A: Attack> From<A> for AnyAttack {
    fn from(attack: A) -> AnyAttack {
        let attack = Arc::new(attack);
        AnyAttack(Both::new(attack.clone(), attack))
    }
}

impl AnyAttack {
    /// Its name in options and files.
    pub fn name(&self) -> &'static str {
        self.single().names()[0]
    }

    /// Its name in tables.
    pub fn title(&self) -> &'static str {
        self.single().names()[1]
    }

    /// As for [`Attack::options`].
    pub fn options(
        &self,
        norm: Norm,
        epsilon: f64,
        steps: usize,
        restarts: usize,
    ) -> AttackOptions {
        self.single().options(norm, epsilon, steps, restarts)
    }

    /// As for [`Attack::efforts`].
    pub(crate) fn efforts(&self, plain: Effort, auto: Effort) -> Vec<Effort> {
        self.single().efforts(plain, auto)
    }

    /// As for [`Attack::check`].
    pub(super) fn check(&self, options: &AttackOptions) -> Result<()> {
        self.single().check(options)
    }

    /// As for [`Attack::classes`].
    pub(crate) fn classes(&self) -> usize {
        self.single().classes()
    }

    /// As for [`Attack::search`].
    pub(super) fn search<T: Scalar>(
        &self,
        search: &mut Search<'_, T>,
        start: Array2<T>,
    ) -> relugrad::Result<()> {
        self.0.of::<dyn Method<T>>().search(search, start)
    }

    fn single(&self) -> &dyn Method<f32> {
        self.0.of()
    }

    fn spec(&self) -> Spec {
        Spec {
            name: self.name().into(),
            options: self.single().own().unwrap_or_default(),
        }
    }
}

impl TryFrom<Spec> for AnyAttack {
    type Error = Error;

    fn try_from(spec: Spec) -> Result<AnyAttack> {
        let entry = find("attack", &ATTACKS, |entry| entry.name, &spec.name)?;
        (entry.read)(spec.options).map_err(|error| Error::Configuration {
            problem: format!("the attack {}: {}", entry.name, error.message()),
        })
    }
}

/// An attack of the catalogue with its defaults.
impl FromStr for AnyAttack {
    type Err = Error;

    fn from_str(name: &str) -> Result<AnyAttack> {
        let (name, options) = (name.to_owned(), Table::new());
        Spec { name, options }.try_into()
    }
}

/// The name alone, unless there are options.
impl Serialize for AnyAttack {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        NameAlone(self.spec()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for AnyAttack {
    fn deserialize<D: Deserializer<'de>>(source: D) -> std::result::Result<AnyAttack, D::Error> {
        let NameAlone(spec) = NameAlone::deserialize(source)?;
        spec.try_into().map_err(serde::de::Error::custom)
    }
}

impl PartialEq for AnyAttack {
    fn eq(&self, other: &AnyAttack) -> bool {
        self.spec() == other.spec()
    }
}

impl fmt::Debug for AnyAttack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.spec().fmt(f)
    }
}
