//! The logs of a training: lines of JSON, a table, TensorBoard's events.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use relugrad::Scalar;
use relugrad_io::write_whole;
use serde::Serialize;

use super::failed;
use super::tensorboard::Events;
use crate::configuration::Configuration;
use crate::error::Result;
use crate::training::{EpochReport, StepReport, Trainer};

/// A line of JSON for each epoch and perhaps each step.
pub(super) const LINES: &str = "metrics.jsonl";

/// A line for each epoch.
pub(super) const TABLE: &str = "metrics.csv";

/// The logs of a training that goes on.
pub(super) struct Log {
    folder: PathBuf,
    penalties: Vec<String>,
    lines: BufWriter<File>,
    steps: bool,
    events: Option<Events>,
}

/// A line of `metrics.jsonl`.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Line<'a> {
    Step(&'a StepReport),
    Epoch(&'a EpochReport),
}

impl Log {
    /// Opens the logs of a training. Lines of steps that a killed process had taken after its last checkpoint are removed:
    /// they will be taken again.
    pub(super) fn open<T: Scalar>(
        folder: &Path,
        configuration: &Configuration,
        trainer: &Trainer<T>,
    ) -> Result<Log> {
        let path = folder.join(LINES);
        let done = trainer.steps_done();
        let earlier = fs::read_to_string(&path).unwrap_or_default();
        let kept = earlier
            .split_inclusive('\n')
            .filter(|line| taken(line, done));
        write_whole(&path, kept.collect::<String>().as_bytes(), true)?;
        let file = File::options().append(true).open(&path);
        let penalties = configuration.penalties.iter().map(|p| p.name.clone());
        let log = Log {
            folder: folder.to_owned(),
            penalties: penalties.collect(),
            lines: BufWriter::new(file.map_err(|source| failed(&path, source))?),
            steps: configuration.log_steps,
            events: match configuration.tensorboard {
                true => Some(Events::create(folder, done)?),
                false => None,
            },
        };
        log.table(trainer.epochs())?;
        Ok(log)
    }

    pub(super) fn step(&mut self, report: &StepReport) -> Result<()> {
        if !self.steps {
            return Ok(());
        }
        self.line(&Line::Step(report))?;
        let Some(events) = &mut self.events else {
            return Ok(());
        };
        let mut scalars = vec![
            ("step/loss".to_owned(), report.loss),
            ("step/objective".to_owned(), report.objective),
            ("step/gradient_norm".to_owned(), report.gradient_norm),
            ("step/learning_rate".to_owned(), report.learning_rate),
        ];
        let names = self
            .penalties
            .iter()
            .map(|name| format!("step/penalty/{name}"));
        scalars.extend(names.zip(report.penalties.iter().copied()));
        events.scalars(report.step, &scalars)
    }

    pub(super) fn epoch(&mut self, report: &EpochReport, all: &[EpochReport]) -> Result<()> {
        self.line(&Line::Epoch(report))?;
        self.table(all)?;
        let Some(events) = &mut self.events else {
            return Ok(());
        };
        let mut scalars = vec![
            ("loss/train".to_owned(), report.train_loss),
            ("accuracy/train".to_owned(), report.train_accuracy),
            ("learning_rate".to_owned(), report.learning_rate),
        ];
        let loss = report
            .validation_loss
            .map(|v| ("loss/validation".to_owned(), v));
        let accuracy = report.validation_accuracy;
        let accuracy = accuracy.map(|v| ("accuracy/validation".to_owned(), v));
        scalars.extend(loss.into_iter().chain(accuracy));
        let names = self.penalties.iter().map(|name| format!("penalty/{name}"));
        scalars.extend(names.zip(report.train_penalties.iter().copied()));
        events.scalars(report.step, &scalars)
    }

    /// Hands everything to the operating system, so that a killed process does not lose it.
    pub(super) fn flush(&mut self) -> Result<()> {
        let path = self.folder.join(LINES);
        self.lines.flush().map_err(|source| failed(&path, source))?;
        self.events.as_mut().map_or(Ok(()), Events::flush)
    }

    fn line(&mut self, line: &Line) -> Result<()> {
        let json = serde_json::to_string(line).expect("finite numbers and strings are JSON");
        let written = writeln!(self.lines, "{json}");
        written.map_err(|source| failed(&self.folder.join(LINES), source))
    }

    fn table(&self, epochs: &[EpochReport]) -> Result<()> {
        let csv = table(&self.penalties, epochs);
        Ok(write_whole(&self.folder.join(TABLE), csv.as_bytes(), true)?)
    }
}

/// Whether a line is whole, and of a step that has been taken.
fn taken(line: &str, done: u64) -> bool {
    let value: serde_json::Value = match line.ends_with('\n') {
        true => serde_json::from_str(line).unwrap_or_default(),
        false => return false,
    };
    value["step"].as_u64().is_some_and(|step| step <= done)
}

/// A line for each epoch. Names of penalties hold no character that needs quoting.
fn table(penalties: &[String], epochs: &[EpochReport]) -> String {
    let mut csv = "epoch,step,learning_rate,train_loss,train_accuracy,validation_loss,validation_accuracy,best".to_owned();
    for name in penalties {
        write!(csv, ",{name}").expect("a String takes all");
    }
    csv.push('\n');
    for e in epochs {
        let number = |value: Option<f64>| value.map_or(String::new(), |v| v.to_string());
        write!(
            csv,
            "{},{},{},{},{},{},{},{}",
            e.epoch,
            e.step,
            e.learning_rate,
            e.train_loss,
            e.train_accuracy,
            number(e.validation_loss),
            number(e.validation_accuracy),
            u8::from(e.best),
        )
        .expect("a String takes all");
        for mean in &e.train_penalties {
            write!(csv, ",{mean}").expect("a String takes all");
        }
        csv.push('\n');
    }
    csv
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_steps_to_be_taken_again_are_told() {
        assert!(taken("{\"kind\":\"step\",\"step\":7}\n", 7));
        assert!(!taken("{\"kind\":\"step\",\"step\":8}\n", 7));
        assert!(!taken("{\"kind\":\"step\",\"step\":7}", 7));
        assert!(!taken("{\"kind\":\"st\n", 7));
    }

    #[test]
    fn the_table_has_a_column_for_each_penalty() {
        let epoch = EpochReport {
            epoch: 1,
            step: 20,
            learning_rate: 0.5,
            train_loss: 0.25,
            train_accuracy: 0.75,
            train_penalties: vec![8.0],
            validation_loss: None,
            validation_accuracy: Some(0.5),
            best: true,
        };
        let csv = table(&["jacobian".into()], &[epoch]);
        let lines: Vec<&str> = csv.lines().collect();
        assert!(lines[0].ends_with("best,jacobian"));
        assert_eq!(lines[1], "1,20,0.5,0.25,0.75,,0.5,1,8");
    }
}
