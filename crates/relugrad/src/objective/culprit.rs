//! Whose fault it is that a gradient is not finite.

use std::ops::Range;

use ndarray::{ArrayView2, s};

use super::workspace::Workspace;
use super::{Objective, Term};
use crate::error::{Error, Result};
use crate::loss::Targets;
use crate::network::Network;
use crate::parameters::Parameters;
use crate::scalar::Scalar;

/// A network with a batch.
type Batch<'a, 't, T> = (&'a Network<T>, ArrayView2<'a, T>, &'a Targets<'t, T>);

impl Objective {
    /// Refuses a gradient with an entry that does not fit; the error names the term, the parameter
    /// and the sample.
    ///
    /// Cost: nothing but a look at all entries, unless one does not fit. Then terms are evaluated
    /// by themselves, and halves of the batch down to a sample.
    pub(super) fn check_gradient<T: Scalar>(
        &self,
        batch: Batch<T>,
        gradient: &Parameters<T>,
        fits: &dyn Fn(T) -> bool,
    ) -> Result<()> {
        match gradient.values().iter().position(|&g| !fits(g)) {
            None => Ok(()),
            Some(index) => {
                let (term, sample) = self.culprit(batch, fits);
                let parameter = gradient.name_at(index).to_owned();
                Err(Error::Gradient {
                    term,
                    parameter,
                    sample,
                })
            }
        }
    }

    fn culprit<T: Scalar>(
        &self,
        batch: Batch<T>,
        fits: &dyn Fn(T) -> bool,
    ) -> (String, Option<usize>) {
        let all = 0..batch.1.nrows();
        for (name, part) in self.parts() {
            let breaks = |samples: &Range<usize>| part.breaks(batch, samples.clone(), fits);
            if !breaks(&all) {
                continue;
            }
            let mut samples = all;
            while samples.len() > 1 {
                let middle = samples.start + samples.len() / 2;
                let first = samples.start..middle;
                samples = if breaks(&first) {
                    first
                } else {
                    middle..samples.end
                };
            }
            return (name, breaks(&samples).then_some(samples.start));
        }
        ("the sum of all terms".to_owned(), None)
    }

    /// The loss and each term by itself, with its name.
    fn parts(&self) -> impl Iterator<Item = (String, Objective)> {
        let part = |terms: Vec<Term>, penalties_only| Objective {
            penalties_only,
            ..self.with_terms(terms)
        };
        let loss = (!self.penalties_only).then(|| ("the loss".to_owned(), part(Vec::new(), false)));
        let term = move |term: &Term| (term.penalty.to_string(), part(vec![term.clone()], true));
        loss.into_iter().chain(self.terms.iter().map(term))
    }

    /// Whether the part of some samples in the gradient does not fit.
    fn breaks<T: Scalar>(
        &self,
        (network, inputs, targets): Batch<T>,
        samples: Range<usize>,
        fits: &dyn Fn(T) -> bool,
    ) -> bool {
        let mut part = self.clone();
        let share = if part.sample_weights.is_empty() {
            samples.len() as f64 / inputs.nrows() as f64
        } else {
            part.sample_weights = self.sample_weights[samples.clone()].to_vec();
            part.sample_weights.iter().sum::<f64>() / self.sample_weights.iter().sum::<f64>()
        };
        if share == 0.0 {
            return false;
        }
        part.terms.iter_mut().for_each(|term| term.lambda *= share);
        let mut workspace = Workspace::new();
        let targets = targets.part(samples.clone());
        let inputs = inputs.slice(s![samples, ..]);
        let found = part.evaluate_here(network, inputs, &targets, &mut workspace, true);
        let adjoint = workspace.adjoint.as_ref();
        let broken = |g: &T| !fits(*g);
        found.is_err() || adjoint.is_some_and(|a| a.parameters.values().iter().any(broken))
    }
}
