//! The logs of a training: lines of JSON, a table, TensorBoard's events.

use std::borrow::Cow;
use std::fmt::Write as _;

use relugrad::Scalar;
use relugrad_io::{GrowingFile, OutputFolder};

use super::COMMAND;
pub(super) use super::lines::is_ours;
use super::lines::{Line, restored};
use super::tensorboard::Events;
use crate::configuration::Configuration;
use crate::error::Result;
use crate::report::{EpochReport, StepReport};
use crate::training::Trainer;

/// A line of JSON for each epoch and perhaps each step.
pub(super) const LINES: &str = "metrics.jsonl";

/// A line for each epoch.
pub(super) const TABLE: &str = "metrics.csv";

/// The logs of a training that goes on.
pub(super) struct Log {
    penalties: Vec<String>,
    lines: GrowingFile,
    steps: bool,
    events: Option<Events>,
}

impl Log {
    /// Opens the logs of a training, with the lines of what it has done.
    pub(super) fn open<T: Scalar>(
        folder: &mut OutputFolder,
        configuration: &Configuration,
        trainer: &Trainer<T>,
    ) -> Result<Log> {
        let (done, epochs) = (trainer.steps_done(), trainer.epochs());
        let earlier = folder.read(LINES)?.unwrap_or_default();
        if !folder.is_ours(LINES)? {
            check_lines(folder)?;
            folder.adopt(LINES)?;
        }
        let lines = folder.grow(LINES, &restored(&earlier, done, epochs))?;
        let table = table(configuration, epochs);
        folder.write(&[(TABLE, table.as_bytes())], &mut [])?;
        let penalties = configuration.penalties.iter().map(|p| p.name.clone());
        Ok(Log {
            penalties: penalties.collect(),
            lines,
            steps: configuration.log_steps,
            events: match configuration.tensorboard {
                true => Some(Events::create(folder, done)?),
                false => None,
            },
        })
    }

    pub(super) fn step(&mut self, report: &StepReport) -> Result<()> {
        if !self.steps {
            return Ok(());
        }
        let line = Line::Step(Cow::Borrowed(report));
        self.lines.append(&line.to_json())?;
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

    pub(super) fn epoch(&mut self, report: &EpochReport) -> Result<()> {
        let line = Line::Epoch(Cow::Borrowed(report));
        self.lines.append(&line.to_json())?;
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

    /// The files that are appended to.
    pub(super) fn growing(&mut self) -> Vec<&mut GrowingFile> {
        let events = self.events.as_mut().map(Events::file);
        events.into_iter().chain([&mut self.lines]).collect()
    }

    /// Ends the files that were appended to.
    pub(super) fn finish(&mut self, folder: &mut OutputFolder) -> Result<()> {
        Ok(folder.finish(&mut self.growing())?)
    }
}

/// Refuses lines that no training has written, in a file that a training would replace. A damaged one has other lines left.
pub(super) fn check_lines(folder: &OutputFolder) -> Result<()> {
    match folder.read(LINES)? {
        Some(bytes) if !is_ours(&bytes) => Err(relugrad_io::Error::Changed {
            path: folder.path().join(LINES),
            command: COMMAND,
        }
        .into()),
        _ => Ok(()),
    }
}

/// A line for each epoch. Names of penalties hold no character that needs quoting.
pub(super) fn table(configuration: &Configuration, epochs: &[EpochReport]) -> String {
    let mut csv = "epoch,step,learning_rate,train_loss,train_accuracy,validation_loss,validation_accuracy,best".to_owned();
    for penalty in &configuration.penalties {
        write!(csv, ",{}", penalty.name).expect("a String takes all");
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
        let text = "[[penalties]]\nname = \"jacobian\"\nlambda = 1.0";
        let csv = table(&Configuration::from_toml(text).unwrap(), &[epoch]);
        let lines: Vec<&str> = csv.lines().collect();
        assert!(lines[0].ends_with("best,jacobian"));
        assert_eq!(lines[1], "1,20,0.5,0.25,0.75,,0.5,1,8");
    }
}
