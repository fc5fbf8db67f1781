//! Going on with the training of a folder: what may have changed there, and what may be changed.

use std::path::Path;

use relugrad::loss::TargetKind;
use relugrad_io::{Checkpoint, Earlier, OutputFolder};
use toml::Value;

use super::{BEST, COMMAND, CONFIGURATION, CONFIGURATION_KEY, Experiment, LAST, Mode, files, log};
use crate::configuration::{Change, Configuration};
use crate::error::{Error, Result};
use crate::report::EpochReport;
use crate::training::{State, is_over};

/// A checkpoint without its numbers.
struct Stored {
    /// The text of its configuration.
    text: Option<String>,
    state: State,
}

impl Experiment {
    /// Opens the folder of a training to go on with it, with other values for some keys of its
    /// configuration, such as `epochs`.
    ///
    /// The folder stays locked until the experiment is dropped.
    ///
    /// # Errors
    /// Those of [`Configuration::load`], [`Configuration::check`], [`OutputFolder::open`] and
    /// [`OutputFolder::begin`]; [`Error::Edited`] if the configuration's file differs from the
    /// checkpoint's by more than these values; [`Error::FixedKey`] for values that cannot change;
    /// [`Error::NoRun`] for what is no folder of a training; [`Error::Given`] for wrong values;
    /// [`Error::Configuration`] for changes of a training that is over and stays so;
    /// [`Error::Best`] if the best checkpoint is of another training.
    pub fn resume(folder: &Path, values: &[(String, Value)]) -> Result<Experiment> {
        let path = folder.join(CONFIGURATION);
        check_folder(folder)?;
        let mut folder = OutputFolder::open(folder, COMMAND, Earlier::Resume)?;
        let bytes = folder.read(CONFIGURATION)?;
        let bytes = bytes.ok_or_else(|| no_run(folder.path(), "has no config.toml"))?;
        let filed = Configuration::from_bytes(&path, &bytes)?;
        let last = stored(&folder, LAST)?;
        let best = stored(&folder, BEST)?;
        if let Some(last) = &last {
            let checked = last.state.check_best(best.as_ref().map(|best| &best.state));
            checked.map_err(|problem| Error::Best {
                path: folder.path().join(BEST),
                problem,
            })?;
        }
        if !folder.is_listed() {
            adopt(&mut folder)?;
        }
        let trained = match last.as_ref().and_then(|last| last.text.as_ref()) {
            Some(text) => Configuration::from_toml(text)?,
            None => filed.clone(),
        };
        let step = last.as_ref().map_or(0, |last| last.state.step());
        let given = |error: Error| Error::Given(Box::new(error));
        let mut configuration = trained.with(values).map_err(given)?;
        configuration.check().map_err(given)?;
        if !folder.is_ours(CONFIGURATION)? {
            check_edited(&path, &trained, &filed, &configuration)?;
        }
        if let Some(last) = &last {
            check_epochs(&trained, &configuration, last.state.epochs().len())?;
            trained.check_changes(&configuration)?;
            let changes = trained.differences(&configuration, step);
            check_over(&trained, &configuration, last.state.epochs(), &changes)?;
            configuration.changes.extend(changes);
        }
        let rewritten = check_words(&folder, &bytes, &filed, &configuration)?;
        if rewritten {
            folder.adopt(CONFIGURATION)?;
        }
        let mut names = files(&[LAST, BEST, log::TABLE]);
        names.extend(rewritten.then(|| CONFIGURATION.to_owned()));
        folder.begin(&names, &configuration.inputs())?;
        Ok(Experiment {
            folder,
            mode: Mode::Resume {
                checkpoint: last.is_some(),
                changed: last.is_some() && trained != configuration,
                rewritten,
            },
            configuration,
            test_samples: None,
            begun: false,
        })
    }
}

/// Sees that there is a folder.
fn check_folder(path: &Path) -> Result<()> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(no_run(path, "is no folder")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(no_run(path, "is not there"))
        }
        Err(source) => Err(Error::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

fn no_run(path: &Path, found: &'static str) -> Error {
    Error::NoRun {
        path: path.to_owned(),
        found,
    }
}

/// Refuses changes of a training that was over before and is so with them.
fn check_over(
    trained: &Configuration,
    wanted: &Configuration,
    done: &[EpochReport],
    changes: &[Change],
) -> Result<()> {
    let over =
        |one: &Configuration| is_over(done, one.training.epochs, one.training.stopping.patience);
    if changes.is_empty() || !over(trained) || !over(wanted) {
        return Ok(());
    }
    let (epochs, all) = (done.len(), wanted.training.epochs);
    let problem = match epochs < all {
        true => format!(
            "the training was ended after epoch {epochs} by early-stopping.patience; raise that with --set, too"
        ),
        false => {
            let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
            format!(
                "the {epochs} epochs of the training are done, so nothing would be trained with what is changed ({}); \
                 give more by --epochs",
                changes.join(", ")
            )
        }
    };
    Err(Error::Configuration { problem })
}

/// Refuses a configuration's file that differs from the one that was trained with, unless by values
/// that are given.
fn check_edited(
    path: &Path,
    trained: &Configuration,
    filed: &Configuration,
    wanted: &Configuration,
) -> Result<()> {
    let edited = trained.differences(filed, 0);
    let said = wanted.differences(filed, 0);
    let unsaid = edited.iter().filter(|change| {
        let key = &change.key;
        said.iter().any(|other| other.key == *key)
    });
    let changes: Vec<String> = unsaid.map(ToString::to_string).collect();
    if changes.is_empty() {
        return Ok(());
    }
    trained.check_changes(filed)?;
    Err(Error::Edited {
        path: path.to_owned(),
        changes,
    })
}

/// Whether the configuration's file is to be written anew. One in somebody's own words, with
/// comments say, stays as it is if it says the same, and is refused if it does not.
fn check_words(
    folder: &OutputFolder,
    bytes: &[u8],
    filed: &Configuration,
    wanted: &Configuration,
) -> Result<bool> {
    let ours = bytes == filed.to_toml().as_bytes() || folder.is_ours(CONFIGURATION)?;
    match filed.differences(wanted, 0).is_empty() {
        _ if ours => Ok(bytes != wanted.to_toml().as_bytes()),
        true => Ok(false),
        false => Err(Error::Configuration {
            problem: format!(
                "{} is in words of your own, which would be lost; write the new values there, too",
                folder.path().join(CONFIGURATION).display()
            ),
        }),
    }
}

/// Refuses fewer epochs than are done.
fn check_epochs(trained: &Configuration, wanted: &Configuration, done: usize) -> Result<()> {
    if wanted.training.epochs >= done || wanted.training.epochs == trained.training.epochs {
        return Ok(());
    }
    Err(Error::Configuration {
        problem: format!(
            "epochs is {} but {done} epochs are done; give more",
            wanted.training.epochs
        ),
    })
}

/// Reads a checkpoint, if there is one.
fn stored(folder: &OutputFolder, name: &str) -> Result<Option<Stored>> {
    if folder.read(name)?.is_none() {
        return Ok(None);
    }
    let metadata = Checkpoint::<f64>::load(folder.path().join(name))?.metadata;
    Ok(Some(Stored {
        state: State::of(&metadata)?,
        text: metadata.get(CONFIGURATION_KEY).cloned(),
    }))
}

/// Takes the files of a folder without manifest, as earlier versions wrote them, for those of a
/// training: checkpoints, which have checksums, the configuration that they hold, and the logs that
/// begin as ours do.
pub(super) fn adopt(folder: &mut OutputFolder) -> Result<()> {
    let (last, best) = (stored(folder, LAST), stored(folder, BEST));
    let Some(bytes) = folder.read(CONFIGURATION)? else {
        return Ok(());
    };
    let Ok(filed) = Configuration::from_bytes(Path::new(CONFIGURATION), &bytes) else {
        return Ok(());
    };
    let of_this = |stored: &Result<Option<Stored>>| match stored {
        Ok(Some(stored)) => stored.text.as_deref() == Some(&*filed.to_toml()),
        _ => false,
    };
    let (last, best) = (of_this(&last), of_this(&best));
    // Earlier versions had classes only.
    let heading = log::table(&filed, &[], TargetKind::Classes);
    let logs = folder.read(log::TABLE)?;
    let logs = logs.is_some_and(|table| table.starts_with(heading.as_bytes()));
    let lines = folder.read(log::LINES)?;
    let lines = lines.is_some_and(|lines| log::is_ours(&lines));
    let configuration = bytes == filed.to_toml().as_bytes() && (last || logs);
    for (name, ours) in [
        (LAST, last),
        (BEST, best),
        (CONFIGURATION, configuration),
        (log::TABLE, logs),
        (log::LINES, lines),
    ] {
        if ours {
            folder.adopt(name)?;
        }
    }
    Ok(())
}
