//! What happens while a comparison runs: progress, and results kept as they come.

use std::ops::ControlFlow;

use anyhow::Result;
use relugrad::Network;
use relugrad_train::compare::{Comparison, Follow};
use relugrad_train::{EpochReport, StepReport};

use super::output::Output;
use super::progress::Progress;

/// Shows progress, and saves each network as soon as it is trained.
pub(super) struct Follower {
    progress: Progress,
    output: Option<Output>,
    failure: Option<anyhow::Error>,
}

impl Follower {
    pub(super) fn new(output: Option<Output>) -> Follower {
        Follower {
            progress: Progress::new(),
            output,
            failure: None,
        }
    }

    /// Writes the report, or says why something could not be written.
    pub(super) fn finish(mut self, comparison: &Comparison) -> Result<()> {
        self.progress.finish();
        if let Some(output) = &mut self.output
            && !(comparison.runs.is_empty() && comparison.diverged.is_empty())
        {
            output.save_report(comparison)?;
        }
        self.failure.map_or(Ok(()), Err)
    }

    /// Ends the comparison when a result cannot be saved.
    fn flow(&self) -> ControlFlow<()> {
        match self.failure.is_none() {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    }
}

impl Follow for Follower {
    fn run(&mut self, index: usize, runs: usize, regularizer: &str, seed: u64) {
        self.progress.run(index, runs, regularizer, seed);
    }

    fn step(&mut self, report: &StepReport) -> ControlFlow<()> {
        self.progress.step(report);
        self.flow()
    }

    fn epoch(&mut self, report: &EpochReport) {
        self.progress.epoch(report);
    }

    fn evaluation(&mut self, part: usize, parts: usize) -> ControlFlow<()> {
        self.progress.evaluation(part, parts);
        self.flow()
    }

    fn finished(&mut self, comparison: &Comparison, network: &Network<f32>) {
        let run = comparison.runs.last().expect("one is finished");
        self.progress.finished(run);
        if let Some(output) = &mut self.output {
            self.failure = output.save_run(comparison, run, network).err();
        }
    }

    fn diverged(&mut self, comparison: &Comparison) {
        let run = comparison.diverged.last().expect("one has diverged");
        self.progress.diverged(run);
        if let Some(output) = &mut self.output {
            self.failure = output.save_numbers(comparison).err();
        }
    }
}
