//! Progress on the standard error: a bar on a terminal, otherwise plain lines.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use relugrad_train::compare::{Diverged, Run};
use relugrad_train::{EpochReport, StepReport};

use crate::print;

/// How often plain lines tell of an unfinished run.
const INTERVAL: Duration = Duration::from_secs(10);

/// An evaluation counts as this share of its run's training.
const EVALUATION_SHARE: f64 = 0.5;

/// Units of the bar for one run.
const RUN_UNITS: u64 = 1000;

pub(super) struct Progress {
    bar: ProgressBar,
    terminal: bool,
    /// Number of the run from 0, number of runs, and its title.
    run: (usize, usize, String),
    epoch: String,
    last_line: Instant,
}

impl Progress {
    pub(super) fn new() -> Progress {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal {
            ProgressDrawTarget::stderr_with_hz(10)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(RUN_UNITS), target);
        let style = ProgressStyle::with_template("{bar:30} {percent:>3}%  {eta} left  {msg}");
        bar.set_style(
            style
                .expect("the template is well-formed")
                .progress_chars("=> "),
        );
        Progress {
            bar,
            terminal,
            run: (0, 1, String::new()),
            epoch: String::new(),
            last_line: Instant::now(),
        }
    }

    pub(super) fn run(&mut self, index: usize, runs: usize, regularizer: &str, seed: u64) {
        let title = format!("[{}/{runs}] {regularizer}, seed {seed}", index + 1);
        self.line(&title);
        self.run = (index, runs, title);
        self.bar.set_length(runs as u64 * RUN_UNITS);
        self.advance(0.0);
    }

    pub(super) fn step(&mut self, report: &StepReport) {
        self.epoch = format!("epoch {}, loss {:.4}", report.epoch, report.loss);
        let trained = report.step as f64 / report.steps as f64;
        self.advance(trained / (1.0 + EVALUATION_SHARE));
        if self.terminal {
            self.bar
                .set_message(format!("{}, {}", self.run.2, self.epoch));
        }
    }

    pub(super) fn epoch(&mut self, report: &EpochReport) {
        if self.last_line.elapsed() >= INTERVAL {
            let line = format!(
                "      {}, test accuracy {:.2} %",
                self.epoch,
                100.0 * report.validation_accuracy.unwrap_or(f64::NAN)
            );
            self.line(&line);
        }
    }

    pub(super) fn evaluation(&mut self, part: usize, parts: usize) {
        let done = part as f64 / parts as f64;
        self.advance((1.0 + EVALUATION_SHARE * done) / (1.0 + EVALUATION_SHARE));
        if self.terminal {
            self.bar
                .set_message(format!("{}, evaluation {}/{parts}", self.run.2, part + 1));
        }
    }

    pub(super) fn finished(&mut self, run: &Run) {
        self.advance(1.0);
        let accuracy = 100.0 * run.evaluation.clean_accuracy;
        self.line(&format!("      done, clean accuracy {accuracy:.2} %"));
    }

    pub(super) fn diverged(&mut self, run: &Diverged) {
        self.advance(1.0);
        self.line(&format!("      {}", run.at));
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// Sets the bar to a share of the present run.
    fn advance(&self, share: f64) {
        let units = (share * RUN_UNITS as f64) as u64;
        self.bar.set_position(self.run.0 as u64 * RUN_UNITS + units);
    }

    /// Prints a line unless a bar is shown.
    fn line(&mut self, line: &str) {
        if !self.terminal {
            print::note(line);
            self.last_line = Instant::now();
        }
    }
}
