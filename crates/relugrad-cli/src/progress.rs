//! Progress on the standard error: a bar on a terminal, otherwise plain lines.

use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use relugrad_train::compare::{ADVERSARIAL, Measures, PLAIN};
use relugrad_train::{EpochReport, Event, Observer, Parts, Quality, Score, StepReport};

use crate::data::tell_reading;
use crate::waiting::Waiting;
use crate::{interrupt, print};

/// How often plain lines tell of an unfinished run of a comparison.
const INTERVAL: Duration = Duration::from_secs(10);

/// An evaluation counts as this share of its run's training.
const EVALUATION_SHARE: f64 = 0.5;

/// Units of the bar for one run.
const RUN_UNITS: u64 = 1000;

/// A bar that is shown on a terminal only; `template` as for indicatif, with what comes behind the
/// bar.
pub(crate) fn bar(template: &str) -> ProgressBar {
    let target = match std::io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr_with_hz(10),
        false => ProgressDrawTarget::hidden(),
    };
    let style = ProgressStyle::with_template(&format!("{{bar:20}} {template}"));
    let style = style.expect("the template is well-formed");
    ProgressBar::with_draw_target(None, target).with_style(style.progress_chars("=> "))
}

/// Shows the progress of whatever tells its events.
pub(crate) struct Progress {
    bar: ProgressBar,
    terminal: bool,
    begun: bool,
    what: String,
    /// The run of a comparison: its number from 0, and its title.
    run: Option<(usize, String)>,
    epoch: String,
    last_line: Instant,
    /// Says what is done where no bar is shown.
    waiting: Option<Waiting>,
    /// Says on a terminal that samples are read.
    reading: Option<Waiting>,
}

impl Progress {
    /// `what` is done, such as `training`.
    pub(crate) fn new(what: &str, template: &str) -> Progress {
        Progress {
            bar: bar(template),
            terminal: std::io::stderr().is_terminal(),
            begun: false,
            run: None,
            epoch: String::new(),
            last_line: Instant::now(),
            waiting: Waiting::beside_a_bar(what),
            what: what.to_owned(),
            reading: None,
        }
    }

    /// The same for work that reads its samples first.
    pub(crate) fn reading(what: &str, template: &str) -> Progress {
        let mut progress = Progress::new(what, template);
        progress.reading = progress.terminal.then(|| Waiting::new(what));
        progress
    }

    pub(crate) fn finish(&mut self) {
        self.waiting = None;
        self.bar.finish_and_clear();
    }

    fn begin_run(
        &mut self,
        (index, runs): (usize, usize),
        (regularizer, lambda): (&str, f64),
        seed: u64,
    ) {
        let weight = match regularizer {
            PLAIN => String::new(),
            ADVERSARIAL => format!(" ε={lambda}"),
            _ => format!(" λ={lambda}"),
        };
        let title = format!("[{}/{runs}] {regularizer}{weight}, seed {seed}", index + 1);
        self.line(&title);
        self.run = Some((index, title));
        self.bar.set_length(runs as u64 * RUN_UNITS);
        self.advance(0.0);
    }

    fn step(&mut self, report: &StepReport) {
        self.epoch = format!("epoch {}, loss {:.4}", report.epoch, report.loss);
        match self.run {
            Some(_) => {
                let trained = report.step as f64 / report.steps as f64;
                self.advance(trained / (1.0 + EVALUATION_SHARE));
            }
            None => self.training(report),
        }
        self.say(&self.epoch);
    }

    fn training(&mut self, report: &StepReport) {
        self.bar.set_position(report.step);
        if !self.begun {
            self.begun = true;
            self.bar.set_length(report.steps);
            // A resumed training is not as fast as its first step would have it.
            self.bar.reset_eta();
        }
    }

    fn epoch(&mut self, report: &EpochReport) {
        match self.run {
            None => {
                let line = epoch(report);
                match self.terminal {
                    true => self.bar.println(line),
                    false => self.line(&line),
                }
            }
            Some(_) if self.last_line.elapsed() >= INTERVAL => {
                if let Some(score) = report.validation {
                    self.line(&format!("      {}, test {}", self.epoch, score.quality));
                }
            }
            Some(_) => {}
        }
    }

    fn part(&self, done: usize, parts: usize) {
        if self.run.is_none() {
            if let Some(waiting) = &self.waiting {
                waiting.set(format!("{}: {done} of {parts}", self.what));
            }
            self.bar.set_length(parts as u64);
            return self.bar.set_position(done as u64);
        }
        let share = done as f64 / parts as f64;
        self.advance((1.0 + EVALUATION_SHARE * share) / (1.0 + EVALUATION_SHARE));
        self.say(&format!("evaluation {}/{parts}", done + 1));
    }

    /// Sets the bar to a share of the present run.
    fn advance(&self, share: f64) {
        let units = (share * RUN_UNITS as f64) as u64;
        let before = self.run.as_ref().map_or(0, |(index, _)| *index as u64);
        self.bar.set_position(before * RUN_UNITS + units);
    }

    /// Puts words behind the bar.
    fn say(&self, text: &str) {
        let text = match &self.run {
            Some((_, title)) => format!("{title}, {text}"),
            None => text.to_owned(),
        };
        match &self.waiting {
            Some(waiting) => waiting.set(text),
            None => self.bar.set_message(text),
        }
    }

    /// Prints a line unless a bar is shown.
    fn line(&mut self, line: &str) {
        if !self.terminal {
            print::note(line);
            self.last_line = Instant::now();
            self.waiting.iter().for_each(Waiting::said);
        }
    }
}

impl Observer for Progress {
    fn on(&mut self, event: Event<'_>) -> ControlFlow<()> {
        match event {
            Event::Ready => interrupt::keep(),
            Event::Samples(parts) => {
                self.reading = None;
                samples(parts);
            }
            Event::Step(report) => self.step(report),
            Event::Epoch(report) => self.epoch(report),
            Event::Part { done, parts } => self.part(done, parts),
            Event::Run {
                index,
                runs,
                regularizer,
                lambda,
                seed,
            } => self.begin_run((index, runs), (regularizer, lambda), seed),
            Event::Finished(comparison, _) => {
                self.advance(1.0);
                let last = comparison.runs.last().map(|run| &run.evaluation.quality);
                let clean = last.map_or_else(String::new, |quality| match quality {
                    Measures::Classes { clean_accuracy, .. } => {
                        format!(", clean accuracy {:.2} %", 100.0 * clean_accuracy)
                    }
                    Measures::Values { clean_mse, .. } => format!(", clean MSE {clean_mse:.4e}"),
                });
                self.line(&format!("      done{clean}"));
            }
            Event::Diverged(comparison) => {
                self.advance(1.0);
                let run = comparison.diverged.last();
                let place = run.map(|run| run.at.to_string());
                self.line(&format!("      {}", place.unwrap_or_default()));
            }
        }
        ControlFlow::Continue(())
    }
}

/// What is trained on.
fn samples(parts: &Parts) {
    let validation = parts.validation.as_ref();
    let validation = validation.map_or(String::new(), |part| {
        format!(", {} validation", part.samples())
    });
    print::note(format_args!(
        "{}: {} training{validation} and {} test samples of {}",
        parts.train.name(),
        parts.train.samples(),
        parts.test.samples(),
        parts.train.kind_in_words()
    ));
    tell_reading(&parts.train);
}

/// An epoch in a line.
fn epoch(report: &EpochReport) -> String {
    let shown = |score: Score| match score.quality {
        Quality::Classes { .. } => format!("loss {:.4}, {}", score.loss, score.quality),
        Quality::Values { .. } => format!("loss {:.4e}, {}", score.loss, score.quality),
    };
    let mut line = format!("epoch {}: {}", report.epoch, shown(report.train));
    if let Some(score) = report.validation {
        line += &format!("; validation {}", shown(score));
        line += if report.best { " (best)" } else { "" };
    }
    line
}
