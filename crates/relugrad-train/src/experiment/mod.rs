//! A training in a folder: its configuration, checkpoints and logs.

mod lines;
mod log;
mod resume;
mod tensorboard;
mod warnings;

use std::path::{Path, PathBuf};

use relugrad::{GoOn, Network, Scalar};
use relugrad_io::{Checkpoint, Earlier, Metadata, OutputFolder};

use crate::configuration::{Configuration, Parts, Precision};
use crate::error::{Error, Result};
use crate::evaluate::score;
use crate::fit::loss_for;
use crate::observer::{Event, Observer, tell};
use crate::report::EpochReport;
use crate::samples::Samples;
use crate::score::Score;
use crate::stop::unless_stopped;
use crate::training::Trainer;
use log::Log;
pub use warnings::Warning;

/// The command whose files these are.
const COMMAND: &str = "train";

/// The resolved configuration.
const CONFIGURATION: &str = "config.toml";

/// The latest checkpoint, from which a training is resumed.
const LAST: &str = "last.safetensors";

/// The checkpoint after the best epoch.
const BEST: &str = "best.safetensors";

/// The metadata key under which a checkpoint has its configuration.
const CONFIGURATION_KEY: &str = "configuration";

/// The metadata key under which a checkpoint has the fingerprint of the test samples.
const TEST_KEY: &str = "test-samples";

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
/// | `relugrad-manifest.json` | which of the folder's files are of the training, see [`OutputFolder`] |
///
/// Checkpoints are written whole or not at all, after every epoch, every `checkpoint-steps` steps,
/// and when the training is stopped. Killed at any moment and resumed, a training ends with the
/// same bytes in all files but TensorBoard's, which hold times, and the manifest, which has their
/// checksums.
///
/// The folder is locked for as long as the experiment lives.
#[derive(Debug)]
pub struct Experiment {
    folder: OutputFolder,
    mode: Mode,
    configuration: Configuration,
    /// Fingerprint of the test samples, once they are read.
    test_samples: Option<String>,
    /// Whether files have been written.
    begun: bool,
}

/// How a training begins.
#[derive(Clone, Copy, Debug)]
enum Mode {
    /// Anew, in place of an earlier one if that was allowed.
    Anew,
    /// As it was left.
    Resume {
        /// Whether there is a checkpoint.
        checkpoint: bool,
        /// Whether it gets another configuration.
        changed: bool,
        /// Whether the configuration's file does.
        rewritten: bool,
    },
}

/// How a training in a folder ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Whether it came to its end; false if the observer stopped it.
    pub complete: bool,
    /// Steps taken, those before it was resumed included.
    pub steps: u64,
    /// Reports of all epochs.
    pub epochs: Vec<EpochReport>,
    /// How good the last network is on the test samples, if it is complete and nobody stopped this
    /// as well.
    pub last_test: Option<Score>,
    /// How good the best network is.
    pub best_test: Option<Score>,
    /// What to warn of after a training that is complete.
    pub warnings: Vec<Warning>,
}

impl Experiment {
    /// Prepares a training in a folder, which is made if need be. Nothing is written there, and of
    /// an earlier training nothing removed, before samples and model are read in
    /// [`run`](Self::run).
    ///
    /// # Errors
    /// Those of [`Configuration::check`]; [`Error::RunExists`] if the folder holds a training and
    /// `overwrite` does not allow to remove it; those of [`OutputFolder::open`] and
    /// [`OutputFolder::begin`] for files that are not the training's.
    pub fn create(
        folder: impl Into<PathBuf>,
        configuration: Configuration,
        overwrite: bool,
    ) -> Result<Experiment> {
        configuration.check()?;
        let earlier = match overwrite {
            true => Earlier::Replace,
            false => Earlier::Keep,
        };
        let mut folder = OutputFolder::open(folder, COMMAND, earlier)?;
        if !folder.is_listed() {
            resume::adopt(&mut folder)?;
        }
        if let (Some(found), false) = (folder.earlier_file(), overwrite) {
            return Err(Error::RunExists {
                found,
                path: folder.path().to_owned(),
            });
        }
        // A log is known by its beginning, which may be nothing.
        if folder.is_ours(log::LINES)? {
            log::check_lines(&folder)?;
        }
        let names = files(&[CONFIGURATION, LAST, BEST, log::LINES, log::TABLE]);
        folder.begin(&names, &configuration.inputs())?;
        Ok(Experiment {
            folder,
            mode: Mode::Anew,
            configuration,
            test_samples: None,
            begun: false,
        })
    }

    /// The configuration.
    pub fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// The latest checkpoint that this training has, once it has begun to write, as long as nobody
    /// has changed or moved it.
    pub fn kept(&self) -> Option<PathBuf> {
        let kept = self.begun && self.folder.is_ours(LAST).unwrap_or(false);
        kept.then(|| self.last())
    }

    /// The path of the latest checkpoint.
    pub fn last(&self) -> PathBuf {
        self.folder.path().join(LAST)
    }

    /// The path of the checkpoint after the best epoch.
    pub fn best(&self) -> PathBuf {
        self.folder.path().join(BEST)
    }

    /// Trains, from the latest checkpoint if there is one, until the end or until the observer or
    /// `go_on` stops it.
    ///
    /// # Errors
    /// Those of the samples, the model, the checkpoint and the training. The latest checkpoint that
    /// was written stays whole in any case.
    pub fn run(&mut self, observer: &mut dyn Observer, go_on: GoOn) -> Result<Outcome> {
        match self.configuration.precision {
            Precision::F32 => self.run_in::<f32>(observer, go_on),
            Precision::F64 => self.run_in::<f64>(observer, go_on),
        }
    }

    fn run_in<T: Scalar>(&mut self, observer: &mut dyn Observer, go_on: GoOn) -> Result<Outcome> {
        let parts = self.configuration.samples()?;
        let (network, checkpoint) = self.network::<T>(&parts)?;
        let parts = match self.configuration.start {
            Some(_) => parts.for_outputs(network.outputs()),
            None => parts,
        };
        self.test_samples = Some(parts.test.fingerprint());
        tell(observer, Event::Samples(&parts))?;
        let mut trainer = self.trainer(network, checkpoint, &parts)?;
        // From here on a stop keeps what there is: an earlier training may be removed.
        tell(observer, Event::Ready)?;
        self.begun = true;
        self.prepare(&trainer)?;
        let mut log = Log::open(&mut self.folder, &self.configuration, &trainer)?;
        let trained = self.train(&mut trainer, &mut log, observer, go_on);
        let finished = log.finish(&mut self.folder);
        trained.and(finished)?;
        let complete = trainer.is_finished();
        let tested = |network: &Network<T>| {
            let samples = Samples::new(&parts.test);
            unless_stopped(score(network, trainer.loss(), &samples, go_on))
        };
        let last_test = match complete {
            true => tested(trainer.network())?,
            false => None,
        };
        Ok(Outcome {
            complete,
            steps: trainer.steps_done(),
            epochs: trainer.epochs().to_vec(),
            warnings: last_test.map_or_else(Vec::new, |test| {
                warnings::warnings(trainer.epochs(), test.quality, &parts.test)
            }),
            last_test,
            best_test: match complete {
                true => tested(&Checkpoint::load(self.best())?.network)?,
                false => None,
            },
        })
    }

    fn train<T: Scalar>(
        &mut self,
        trainer: &mut Trainer<T>,
        log: &mut Log,
        observer: &mut dyn Observer,
        go_on: GoOn,
    ) -> Result<()> {
        let mut going = true;
        while going && !trainer.is_finished() {
            let Some(advance) = trainer.advance_while(go_on)? else {
                return self.save(trainer, log, false, false);
            };
            log.step(&advance.step)?;
            going = observer.on(Event::Step(&advance.step)).is_continue();
            let every = self.configuration.checkpoint_steps;
            let due = every.is_some_and(|every| trainer.steps_done().is_multiple_of(every));
            if let Some(report) = &advance.epoch {
                log.epoch(report)?;
                going &= observer.on(Event::Epoch(report)).is_continue();
            }
            going |= trainer.is_finished();
            if advance.epoch.is_some() || due || !going {
                let best = advance.epoch.as_ref().is_some_and(|report| report.best);
                self.save(trainer, log, best, advance.epoch.is_some())?;
            }
        }
        Ok(())
    }

    /// The network to begin with, and the latest checkpoint if there is one.
    fn network<T: Scalar>(&self, parts: &Parts) -> Result<(Network<T>, Option<Checkpoint<T>>)> {
        let checkpoint = match self.mode {
            Mode::Resume {
                checkpoint: true, ..
            } => Some(Checkpoint::load(self.last())?),
            Mode::Resume {
                checkpoint: false, ..
            }
            | Mode::Anew => None,
        };
        let network = match (&checkpoint, &self.configuration.start) {
            // The model that was started from is no longer needed.
            (Some(checkpoint), Some(_)) => checkpoint.network.clone(),
            _ => self.configuration.network(&parts.train)?,
        };
        Ok((network, checkpoint))
    }

    /// The training as the latest checkpoint left it.
    fn trainer<T: Scalar>(
        &self,
        network: Network<T>,
        checkpoint: Option<Checkpoint<T>>,
        parts: &Parts,
    ) -> Result<Trainer<T>> {
        let loss = loss_for(&network, &parts.train, self.configuration.given_loss()?)?;
        let training = self.configuration.training(loss)?;
        let mut trainer = Trainer::new(network, training, &parts.train, parts.validation.as_ref())?;
        if let Some(checkpoint) = checkpoint {
            let metadata = checkpoint.metadata.clone();
            trainer.resume(checkpoint)?;
            self.check_test(&metadata)?;
        }
        Ok(trainer)
    }

    /// Refuses to go on with other test samples; checkpoints of earlier versions do not tell.
    fn check_test(&self, metadata: &Metadata) -> Result<()> {
        let (found, ours) = (metadata.get(TEST_KEY), &self.test_samples);
        match (found, ours) {
            (Some(found), Some(ours)) if found != ours => Err(Error::Checkpoint {
                problem: format!(
                    "it is of a training with other test samples ({found}, not {ours})"
                ),
            }),
            _ => Ok(()),
        }
    }

    /// Removes an earlier training, and writes the configuration where it is new.
    fn prepare<T: Scalar>(&mut self, trainer: &Trainer<T>) -> Result<()> {
        let text = self.configuration.to_toml();
        let filed = self.folder.read(CONFIGURATION)?;
        let present = filed.as_deref() == Some(text.as_bytes());
        let mut new = Vec::new();
        match self.mode {
            Mode::Anew if present => self.folder.clear(&[CONFIGURATION])?,
            Mode::Anew => {
                self.folder.clear(&[])?;
                new.push((CONFIGURATION, text.into_bytes()));
            }
            Mode::Resume {
                changed, rewritten, ..
            } => {
                // The checkpoint first: what it says is true.
                if changed {
                    new.push((LAST, self.checkpoint(trainer)?));
                }
                if rewritten {
                    new.push((CONFIGURATION, text.into_bytes()));
                }
            }
        }
        let new: Vec<(&str, &[u8])> = new.iter().map(|(name, text)| (*name, &**text)).collect();
        Ok(self.folder.write(&new, &mut [])?)
    }

    fn checkpoint<T: Scalar>(&self, trainer: &Trainer<T>) -> Result<Vec<u8>> {
        let text = self.configuration.to_toml();
        let mut metadata = Metadata::from([(CONFIGURATION_KEY.to_owned(), text)]);
        let test = self.test_samples.iter();
        metadata.extend(test.map(|test| (TEST_KEY.to_owned(), test.clone())));
        Ok(trainer.to_checkpoint(metadata).to_bytes()?)
    }

    fn save<T: Scalar>(
        &mut self,
        trainer: &Trainer<T>,
        log: &mut Log,
        best: bool,
        epoch: bool,
    ) -> Result<()> {
        let bytes = self.checkpoint(trainer)?;
        let table = log::table(&self.configuration, trainer.epochs(), trainer.kind());
        let mut files: Vec<(&str, &[u8])> = Vec::new();
        if best {
            files.push((BEST, &bytes));
        }
        files.push((LAST, &bytes));
        if epoch {
            files.push((log::TABLE, table.as_bytes()));
        }
        Ok(self.folder.write(&files, &mut log.growing())?)
    }
}

impl Configuration {
    /// The files that a training reads.
    fn inputs(&self) -> Vec<&Path> {
        let named = [&self.model, &self.data.path].map(Path::new);
        let start = self.start.iter().map(PathBuf::as_path);
        named
            .into_iter()
            .chain(start)
            .chain(self.data.files())
            .collect()
    }
}

fn files(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}
