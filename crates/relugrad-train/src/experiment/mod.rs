//! A training in a folder: its configuration, checkpoints and logs.

mod log;
mod tensorboard;

use std::fs;
use std::path::{Path, PathBuf};

use relugrad::{GoOn, Loss, Network, Scalar};
use relugrad_io::{Checkpoint, Metadata, write_whole};

use crate::configuration::{Configuration, Parts, Precision};
use crate::error::{Error, Result};
use crate::evaluate::{Samples, accuracy_and_loss};
use crate::stop::unless_stopped;
use crate::training::{EpochReport, Trainer, Watch};
use log::Log;

/// The resolved configuration.
const CONFIGURATION: &str = "config.toml";

/// The latest checkpoint, from which a training is resumed.
const LAST: &str = "last.safetensors";

/// The checkpoint after the best epoch.
const BEST: &str = "best.safetensors";

/// How temporary files begin, which a killed process leaves behind.
const TEMPORARY: &str = ".relugrad-";

/// The metadata key under which a checkpoint has its configuration.
const CONFIGURATION_KEY: &str = "configuration";

/// A training in a folder.
///
/// | file | what it is |
/// | --- | --- |
/// | `config.toml` | the whole configuration |
/// | `last.safetensors` | the latest checkpoint: a model file with all that is needed to go on |
/// | `best.safetensors` | the checkpoint after the best epoch |
/// | `metrics.jsonl` | a line for each epoch and, if asked for, each step |
/// | `metrics.csv` | a line for each epoch |
/// | `events.out.tfevents.…` | TensorBoard's, if asked for |
///
/// Checkpoints are written whole or not at all, after every epoch, every `checkpoint-steps` steps, and when the training
/// is stopped. Killed at any moment and resumed, a training ends with the same bytes in all files but TensorBoard's, which
/// hold times.
#[derive(Clone, Debug)]
pub struct Experiment {
    folder: PathBuf,
    configuration: Configuration,
}

/// How a training in a folder ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Whether it came to its end; false if the watcher stopped it.
    pub complete: bool,
    /// Steps taken, those before it was resumed included.
    pub steps: u64,
    /// Reports of all epochs.
    pub epochs: Vec<EpochReport>,
    /// Accuracy and mean loss of the last network on the test samples, if it is complete and nobody stopped this as well.
    pub last_test: Option<(f64, f64)>,
    /// The same of the best network.
    pub best_test: Option<(f64, f64)>,
}

impl Experiment {
    /// Begins a training in a folder, which is made if need be, and writes the configuration there.
    ///
    /// # Errors
    /// Those of [`Configuration::check`]; [`Error::RunExists`] if the folder holds a checkpoint and `overwrite` does not allow
    /// to remove it; [`Error::Write`] if nothing can be written there.
    pub fn create(
        folder: impl Into<PathBuf>,
        configuration: Configuration,
        overwrite: bool,
    ) -> Result<Experiment> {
        configuration.check()?;
        let folder = folder.into();
        fs::create_dir_all(&folder).map_err(|source| failed(&folder, source))?;
        let ours = our_files(&folder)?;
        // A folder whose training failed before its first checkpoint has nothing to lose.
        let checkpoint = |path: &&PathBuf| [LAST, BEST].contains(&name(path).as_str());
        if let (Some(found), false) = (ours.iter().find(checkpoint), overwrite) {
            return Err(Error::RunExists {
                found: name(found),
                path: folder,
            });
        }
        for path in ours {
            fs::remove_file(&path).map_err(|source| failed(&path, source))?;
        }
        let text = configuration.to_toml();
        write_whole(&folder.join(CONFIGURATION), text.as_bytes(), true)?;
        Ok(Experiment {
            folder,
            configuration,
        })
    }

    /// Opens the folder of a training that was begun there.
    ///
    /// # Errors
    /// Those of [`Configuration::load`] and [`Configuration::check`].
    pub fn open(folder: impl Into<PathBuf>) -> Result<Experiment> {
        let folder = folder.into();
        let configuration = Configuration::load(&folder.join(CONFIGURATION))?;
        configuration.check()?;
        for path in our_files(&folder)? {
            if name(&path).starts_with(TEMPORARY) {
                fs::remove_file(&path).map_err(|source| failed(&path, source))?;
            }
        }
        Ok(Experiment {
            folder,
            configuration,
        })
    }

    /// The configuration.
    pub fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// The latest checkpoint.
    pub fn last(&self) -> PathBuf {
        self.folder.join(LAST)
    }

    /// The checkpoint after the best epoch.
    pub fn best(&self) -> PathBuf {
        self.folder.join(BEST)
    }

    /// Trains, from the latest checkpoint if there is one, until the end or until the watcher or `go_on` stops it.
    ///
    /// # Errors
    /// Those of the samples, the model, the checkpoint and the training. The latest checkpoint that was written stays whole
    /// in any case.
    pub fn run(&self, watch: &mut dyn Watch, go_on: GoOn) -> Result<Outcome> {
        match self.configuration.precision {
            Precision::F32 => self.run_in::<f32>(watch, go_on),
            Precision::F64 => self.run_in::<f64>(watch, go_on),
        }
    }

    fn run_in<T: Scalar>(&self, watch: &mut dyn Watch, go_on: GoOn) -> Result<Outcome> {
        let parts = self.configuration.samples()?;
        let mut trainer = self.trainer::<T>(&parts)?;
        let mut log = Log::open(&self.folder, &self.configuration, &trainer)?;
        let mut complete = true;
        while complete && !trainer.is_finished() {
            let Some(advance) = trainer.advance_while(go_on)? else {
                log.flush()?;
                self.save(&trainer, &self.last())?;
                break;
            };
            log.step(&advance.step)?;
            complete = watch.step(&advance.step).is_continue() || trainer.is_finished();
            let every = self.configuration.checkpoint_steps;
            let due = every.is_some_and(|every| trainer.steps_done().is_multiple_of(every));
            if let Some(report) = &advance.epoch {
                log.epoch(report, trainer.epochs())?;
                if report.best {
                    self.save(&trainer, &self.best())?;
                }
                watch.epoch(report);
            }
            if advance.epoch.is_some() || due || !complete {
                log.flush()?;
                self.save(&trainer, &self.last())?;
            }
        }
        let complete = trainer.is_finished();
        let tested = |network: &Network<T>| {
            let (loss, samples) = (Loss::softmax_cross_entropy(), Samples::new(&parts.test));
            unless_stopped(accuracy_and_loss(network, &loss, &samples, go_on))
        };
        Ok(Outcome {
            complete,
            steps: trainer.steps_done(),
            epochs: trainer.epochs().to_vec(),
            last_test: match complete {
                true => tested(trainer.network())?,
                false => None,
            },
            best_test: match complete {
                true => tested(&Checkpoint::load(self.best())?.network)?,
                false => None,
            },
        })
    }

    fn trainer<T: Scalar>(&self, parts: &Parts) -> Result<Trainer<T>> {
        let network = self.configuration.network(&parts.train)?;
        let training = self.configuration.training()?;
        let mut trainer = Trainer::new(network, training, &parts.train, parts.validation.as_ref())?;
        if self.last().exists() {
            trainer.resume(Checkpoint::load(self.last())?)?;
        }
        Ok(trainer)
    }

    fn save<T: Scalar>(&self, trainer: &Trainer<T>, path: &Path) -> Result<()> {
        let text = self.configuration.to_toml();
        let metadata = Metadata::from([(CONFIGURATION_KEY.to_owned(), text)]);
        let bytes = trainer.to_checkpoint(metadata).to_bytes()?;
        Ok(write_whole(path, &bytes, true)?)
    }
}

/// The files of a training in a folder, and temporary ones that it has left.
fn our_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(|source| Error::Read {
        path: folder.to_owned(),
        source,
    })?;
    let ours = |path: &PathBuf| {
        let name = name(path);
        [CONFIGURATION, LAST, BEST, log::LINES, log::TABLE].contains(&name.as_str())
            || name.starts_with(TEMPORARY)
            || name.starts_with(tensorboard::PREFIX)
    };
    let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let mut paths: Vec<PathBuf> = paths.filter(ours).collect();
    paths.sort();
    Ok(paths)
}

fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn failed(path: &Path, source: std::io::Error) -> Error {
    Error::Write {
        path: path.to_owned(),
        source,
    }
}
