//! Progress of a training on the standard error: a bar on a terminal, otherwise a line for each epoch.

use std::io::IsTerminal;
use std::ops::ControlFlow;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use relugrad_train::{EpochReport, StepReport, Watch};

use crate::{interrupt, print};

/// Shows progress.
pub(super) struct Progress {
    bar: ProgressBar,
    terminal: bool,
    begun: bool,
}

impl Progress {
    pub(super) fn new() -> Progress {
        let terminal = std::io::stderr().is_terminal();
        let target = match terminal {
            true => ProgressDrawTarget::stderr_with_hz(10),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(None, target);
        let style = ProgressStyle::with_template("{bar:30} {percent:>3}%  {eta} left  {msg}");
        let style = style.expect("the template is well-formed");
        bar.set_style(style.progress_chars("=> "));
        Progress {
            bar,
            terminal,
            begun: false,
        }
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Watch for Progress {
    fn begin(&mut self) {
        interrupt::keep();
    }

    fn step(&mut self, report: &StepReport) -> ControlFlow<()> {
        if !self.begun {
            self.begun = true;
            self.bar.set_length(report.steps);
            // A resumed training is not as fast as its first step would have it.
            self.bar.set_position(report.step);
            self.bar.reset_eta();
        }
        self.bar.set_position(report.step);
        if self.terminal {
            let (epoch, loss) = (report.epoch, report.loss);
            self.bar
                .set_message(format!("epoch {epoch}, loss {loss:.4}"));
        }
        ControlFlow::Continue(())
    }

    fn epoch(&mut self, report: &EpochReport) {
        let mut line = format!(
            "epoch {}: loss {:.4}, accuracy {:.2} %",
            report.epoch,
            report.train_loss,
            100.0 * report.train_accuracy
        );
        if let (Some(loss), Some(accuracy)) = (report.validation_loss, report.validation_accuracy) {
            let percent = 100.0 * accuracy;
            line += &format!("; validation loss {loss:.4}, accuracy {percent:.2} %");
        }
        if report.best && report.validation_loss.is_some() {
            line += " (best)";
        }
        match self.terminal {
            true => self.bar.println(line),
            false => print::note(line),
        }
    }
}
