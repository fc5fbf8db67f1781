//! `relugrad train`.

mod arguments;

use std::path::Path;

use anyhow::anyhow;
use relugrad_train::Configuration;
use relugrad_train::experiment::{Experiment, Outcome};
use serde_json::json;

pub(crate) use arguments::Arguments;

use crate::failure::Failure;
use crate::progress::Progress;
use crate::{interrupt, print};

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let threads = arguments.threads.start()?;
    let mut experiment = experiment(arguments)?;
    let mut progress = Progress::reading(
        "reading the samples",
        "{percent:>3}%  {eta} left  {wide_msg}",
    );
    let outcome = threads.run(|| experiment.run(&mut progress, &interrupt::go_on));
    progress.finish();
    let outcome = outcome.map_err(|error| failed(&experiment, error))?;
    show(arguments, &experiment, &outcome);
    for warning in &outcome.warnings {
        print::note(format_args!(
            "warning: {warning}; try a smaller learning rate (--lr) or smaller weights of penalties"
        ));
    }
    match (outcome.complete, outcome.last_test.and(outcome.best_test)) {
        (true, Some(_)) => Ok(()),
        (true, None) => Err(Failure::Interrupted(
            "the training is finished, but not tested".into(),
        )),
        (false, _) => Err(Failure::Interrupted(format!(
            "stopped after step {}; go on with --resume",
            outcome.steps
        ))),
    }
}

fn experiment(arguments: &Arguments) -> Result<Experiment, Failure> {
    if let Some(folder) = &arguments.resume {
        return Ok(Experiment::resume(folder, &arguments.values()?)?);
    }
    let configuration = arguments.configuration()?;
    let folder = arguments.out.as_ref().expect("it is required");
    if let Some(given) = &arguments.config {
        keep_given(given, folder, &configuration)?;
    }
    Ok(Experiment::create(
        folder,
        configuration,
        arguments.overwrite,
    )?)
}

/// Refuses to replace the file of --config by the whole configuration, unless that is what it
/// holds.
fn keep_given(given: &Path, folder: &Path, configuration: &Configuration) -> Result<(), Failure> {
    let file = folder.join("config.toml");
    let same = file.canonicalize().ok() == given.canonicalize().ok();
    let text = std::fs::read_to_string(given).unwrap_or_default();
    match same && text != configuration.to_toml() {
        true => Err(anyhow::Error::from(relugrad_io::Error::OutputIsInput { path: file }).into()),
        false => Ok(()),
    }
}

/// An error, and where the last good state is.
fn failed(experiment: &Experiment, error: relugrad_train::Error) -> Failure {
    let diverged = matches!(error, relugrad_train::Error::Diverged { .. });
    match experiment.kept() {
        Some(kept) => {
            let error = anyhow::Error::from(error);
            Failure::Failed(anyhow!(
                "{error:#}; the last checkpoint is {}",
                kept.display()
            ))
        }
        None if diverged => {
            let error = anyhow::Error::from(error);
            Failure::Failed(anyhow!("{error:#}; there is no checkpoint yet"))
        }
        None => error.into(),
    }
}

fn show(arguments: &Arguments, experiment: &Experiment, outcome: &Outcome) {
    let best = outcome.epochs.iter().rfind(|epoch| epoch.best);
    if arguments.json {
        let json = json!({
            "complete": outcome.complete, "steps": outcome.steps, "epochs": outcome.epochs.len(),
            "best_epoch": best.map(|epoch| epoch.epoch),
            "best": experiment.best(), "last": experiment.last(),
            "best_test": outcome.best_test, "last_test": outcome.last_test,
            "doubts": outcome.warnings,
        });
        return print::line(json);
    }
    if !outcome.complete {
        return;
    }
    let models = [
        (
            "best",
            experiment.best(),
            best.map(|b| b.epoch),
            outcome.best_test,
        ),
        (
            "last",
            experiment.last(),
            Some(outcome.epochs.len()),
            outcome.last_test,
        ),
    ];
    for (name, path, epoch, test) in models {
        let test = test.map_or("interrupted".into(), |score| score.to_string());
        let (epoch, path) = (epoch.unwrap_or(0), path.display());
        print::line(format_args!("{name}  epoch {epoch:<4} test {test}  {path}"));
    }
}
