//! A program with the machines that run it, from whichever thread.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::forms::Formed;
use super::graph::Leaf;
use super::machine::{Machine, Seen, Unbounded};
use super::program::Program;
use super::shape::Sizes;
use crate::error::{Error, Result};

/// How many characters of a term errors show.
const SHOWN: usize = 60;

/// A formula in one of its forms, ready to run.
#[derive(Debug)]
pub(super) struct Code {
    program: Program,
    /// Machines that are not running.
    idle: Mutex<Vec<Machine>>,
}

/// The name and text of a formula, for errors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    pub(super) name: &'a str,
    pub(super) text: &'a str,
}

/// Derivatives of a formula with respect to what it sees.
pub(super) struct Derivatives<'a> {
    program: &'a Program,
    machine: &'a Machine,
}

impl Derivatives<'_> {
    /// The derivative with respect to a leaf, if it has one.
    pub(super) fn of(&self, leaf: Leaf) -> Option<&[f64]> {
        let adjoint = self.machine.adjoint(self.program.leaf(leaf)?);
        (!adjoint.is_empty()).then_some(adjoint)
    }
}

impl Code {
    pub(super) fn of(formed: &Formed) -> Code {
        Code {
            program: Program::of(formed),
            idle: Mutex::new(Vec::new()),
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Machine>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn sees(&self, leaf: Leaf) -> bool {
        self.program.leaf(leaf).is_some()
    }

    /// The value at a sample; `take` is given the derivatives, if there is one.
    pub(super) fn run(
        &self,
        source: Source,
        sizes: Sizes,
        seen: &Seen,
        take: Option<impl FnOnce(&Derivatives)>,
    ) -> Result<f64> {
        let kept = self.idle().pop().filter(|machine| machine.sizes == sizes);
        let mut machine = kept.unwrap_or_else(|| Machine::new(&self.program, sizes));
        let value = machine.value(&self.program, seen)?;
        let value = value.map_err(|at| self.not_finite(source, &at))?;
        if let Some(take) = take {
            let derived = machine.derive(&self.program, seen);
            derived.map_err(|at| self.not_finite(source, &at))?;
            take(&Derivatives {
                program: &self.program,
                machine: &machine,
            });
        }
        self.idle().push(machine);
        Ok(value)
    }

    /// The error that names a term.
    fn not_finite(&self, source: Source, at: &Unbounded) -> Error {
        let place = self.program.steps[at.step].place.clone();
        let text = source.text.get(place).unwrap_or(source.text);
        let mut term: String = text.chars().take(SHOWN).collect();
        if term.len() < text.len() {
            term.push('…');
        }
        let derivative = if at.derivative {
            "the derivative of "
        } else {
            ""
        };
        Error::NotFinite {
            what: format!("{derivative}the term `{term}` of formula {}", source.name),
            index: Vec::new(),
        }
    }
}
