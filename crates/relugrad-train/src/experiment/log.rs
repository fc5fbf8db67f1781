//! The logs of a training: lines of JSON, a table, TensorBoard's events.

use std::borrow::Cow;

use relugrad::Scalar;
use relugrad::loss::TargetKind;
use relugrad_io::{GrowingFile, OutputFolder};

use super::COMMAND;
pub(super) use super::lines::is_ours;
use super::lines::{Line, restored};
use super::tensorboard::Events;
use crate::configuration::{Configuration, penalty_names};
use crate::error::Result;
use crate::report::{EpochReport, StepReport};
use crate::score::Score;
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
        let table = table(configuration, epochs, trainer.kind());
        folder.write(&[(TABLE, table.as_bytes())], &mut [])?;
        Ok(Log {
            penalties: penalty_names(&configuration.penalties),
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
        let mut scalars = vec![("learning_rate".to_owned(), report.learning_rate)];
        let scores = [
            ("train", Some(report.train)),
            ("validation", report.validation),
        ];
        for (samples, score) in scores {
            let metrics = score.iter().flat_map(Score::metrics);
            scalars.extend(metrics.map(|(name, value)| (format!("{name}/{samples}"), value)));
        }
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

/// Refuses lines that no training has written, in a file that a training would replace. A damaged
/// one has other lines left.
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

/// A line for each epoch; `kind` is of the samples, which no epoch tells before the first.
pub(super) fn table(
    configuration: &Configuration,
    epochs: &[EpochReport],
    kind: TargetKind,
) -> String {
    let metrics = Score::none(kind).metrics();
    let mut csv = csv::Writer::from_writer(Vec::new());
    let mut heading: Vec<String> = ["epoch", "step", "learning_rate"]
        .map(str::to_owned)
        .to_vec();
    for samples in ["train", "validation"] {
        heading.extend(metrics.iter().map(|(name, _)| format!("{samples}_{name}")));
    }
    heading.push("best".to_owned());
    heading.extend(penalty_names(&configuration.penalties));
    let mut write = |cells: Vec<String>| csv.write_record(cells).expect("a vector takes all");
    write(heading);
    for e in epochs {
        let mut cells = vec![
            e.epoch.to_string(),
            e.step.to_string(),
            e.learning_rate.to_string(),
        ];
        for score in [Some(e.train), e.validation] {
            cells.extend(match score {
                Some(score) => score.metrics().iter().map(|(_, v)| v.to_string()).collect(),
                None => vec![String::new(); metrics.len()],
            });
        }
        cells.push(u8::from(e.best).to_string());
        cells.extend(e.train_penalties.iter().map(f64::to_string));
        write(cells);
    }
    let bytes = csv.into_inner().expect("a vector takes all");
    String::from_utf8(bytes).expect("names and numbers are text")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::score::Quality;

    #[test]
    fn the_table_has_a_column_for_each_penalty() {
        let epoch = EpochReport {
            epoch: 1,
            step: 20,
            learning_rate: 0.5,
            train: Score {
                loss: 0.25,
                quality: Quality::Classes { accuracy: 0.75 },
            },
            train_penalties: vec![8.0],
            validation: None,
            best: true,
        };
        let text = "[[penalties]]\nname = \"jacobian\"\nlambda = 1.0";
        let configuration = Configuration::from_toml(text).unwrap();
        let csv = table(&configuration, &[epoch], TargetKind::Classes);
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!(
            lines[0],
            "epoch,step,learning_rate,train_loss,train_accuracy,validation_loss,validation_accuracy,best,jacobian"
        );
        assert_eq!(lines[1], "1,20,0.5,0.25,0.75,,,1,8");
    }
}
