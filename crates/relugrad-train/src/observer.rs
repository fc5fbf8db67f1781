//! What long work tells of itself while it goes on.

use std::ops::ControlFlow;

use relugrad::Network;

use crate::comparison::Comparison;
use crate::configuration::Parts;
use crate::report::{EpochReport, StepReport};

/// What has happened in a training, a comparison, an evaluation or a survey.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A training has its samples and its network, and no file has been touched: what is
    /// interrupted from now on is kept.
    Ready,
    /// The samples of a training are read.
    Samples(&'a Parts),
    /// A step was taken.
    Step(&'a StepReport),
    /// An epoch has ended.
    Epoch(&'a EpochReport),
    /// So many of the `parts` of an evaluation or a survey are done.
    Part {
        /// How many.
        done: usize,
        /// Of how many.
        parts: usize,
    },
    /// A run of a comparison begins.
    Run {
        /// Its number from 0.
        index: usize,
        /// How many there are.
        runs: usize,
        /// What is trained.
        regularizer: &'a str,
        /// The weight of the penalty, or the size of adversarial examples; 0 without either.
        lambda: f64,
        /// Its seed.
        seed: u64,
    },
    /// The last run of a comparison so far has been trained and evaluated.
    Finished(&'a Comparison, &'a Network<f32>),
    /// The last run that diverged of a comparison so far has diverged.
    Diverged(&'a Comparison),
}

/// Someone who watches long work: a closure will do, and `()` watches nothing. `Break` ends the
/// work as a [`GoOn`](relugrad::GoOn) does that says no; unlike that, an observer is told what
/// happens and may keep what it is told.
pub trait Observer {
    /// Hears of an event.
    fn on(&mut self, event: Event<'_>) -> ControlFlow<()>;
}

impl Observer for () {
    fn on(&mut self, _: Event<'_>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

impl<F: FnMut(Event<'_>) -> ControlFlow<()>> Observer for F {
    fn on(&mut self, event: Event<'_>) -> ControlFlow<()> {
        self(event)
    }
}

/// Ends work that an observer ends.
pub(crate) fn tell(observer: &mut dyn Observer, event: Event<'_>) -> relugrad::Result<()> {
    match observer.on(event) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(relugrad::Error::Stopped),
    }
}
