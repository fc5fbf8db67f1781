//! Saving a training and going on from there, to the same bits.

use relugrad::Scalar;
use relugrad_io::{Checkpoint, Metadata};
use serde::{Deserialize, Serialize};

use super::trainer::{Progress, Trainer};
use crate::configuration::LossSettings;
use crate::error::{Error, Result};
use crate::report::EpochReport;

/// The metadata key under which the state of a training is.
const STATE_KEY: &str = "training";

/// What a checkpoint holds besides arrays.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    /// `f32` or `f64`.
    precision: String,
    /// Fingerprint of the samples.
    samples: String,
    /// Fingerprint of the validation samples; earlier versions did not take it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    validation: Option<String>,
    /// The loss; earlier versions did not tell it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    loss: Option<LossSettings>,
    progress: Progress,
}

impl State {
    /// The state in a checkpoint's metadata.
    pub(crate) fn of(metadata: &Metadata) -> Result<State> {
        let problem = |problem: String| Error::Checkpoint { problem };
        let state = metadata
            .get(STATE_KEY)
            .ok_or_else(|| problem("it is a model without the state of a training".into()))?;
        serde_json::from_str(state)
            .map_err(|error| problem(format!("its state cannot be read: {error}")))
    }

    /// Steps taken.
    pub(crate) fn step(&self) -> u64 {
        self.progress.step
    }

    /// Reports of the finished epochs.
    pub(crate) fn epochs(&self) -> &[EpochReport] {
        &self.progress.epochs
    }

    /// Says why the checkpoint after the best epoch does not belong to this one, the latest.
    pub(crate) fn check_best(&self, best: Option<&State>) -> std::result::Result<(), String> {
        let epochs = self.epochs();
        let expected = epochs.iter().rposition(|epoch| epoch.best).map(|i| i + 1);
        let best = match (best, expected) {
            (None, None) => return Ok(()),
            (None, Some(epoch)) => {
                return Err(format!("the checkpoint after epoch {epoch} is missing"));
            }
            (Some(best), _) => best,
        };
        let own = best.epochs();
        let common = own.len().min(epochs.len());
        let same = (&best.precision, &best.samples) == (&self.precision, &self.samples)
            && own[..common] == epochs[..common];
        if !same || own.is_empty() {
            return Err("it is of another training".into());
        }
        // A process may have died between writing the best and the latest checkpoint.
        match expected == Some(own.len()) || own.len() == epochs.len() + 1 {
            true => Ok(()),
            false => Err(format!(
                "it is the checkpoint after epoch {}, not after the best one, {}",
                own.len(),
                expected.map_or("none".into(), |epoch| epoch.to_string())
            )),
        }
    }
}

impl<T: Scalar> Trainer<T> {
    /// All that is needed to go on: the network, the optimizer's buffers, the step, and the reports
    /// so far; `metadata` is kept with it, such as the configuration.
    ///
    /// Equal trainings give equal bytes, whatever interrupted them; times are not in it.
    pub fn to_checkpoint(&self, mut metadata: Metadata) -> Checkpoint<T> {
        let state = State {
            precision: T::NAME.into(),
            samples: self.samples.clone(),
            validation: self.validation_samples.clone(),
            loss: Some(LossSettings::new(self.training.objective.loss())),
            progress: self.progress.clone(),
        };
        let state = serde_json::to_string(&state).expect("finite numbers and strings are JSON");
        metadata.insert(STATE_KEY.into(), state);
        Checkpoint {
            network: self.network.clone(),
            metadata,
            arrays: self
                .optimizer
                .buffers()
                .map(|(name, values)| (name.to_owned(), values.to_vec()))
                .collect(),
        }
    }

    /// Goes on from a checkpoint of the same training.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if it belongs to another one; the trainer is then as before.
    pub fn resume(&mut self, checkpoint: Checkpoint<T>) -> Result<()> {
        let problem = |problem: String| Err(Error::Checkpoint { problem });
        let state = State::of(&checkpoint.metadata)?;
        if state.precision != T::NAME {
            let (found, ours) = (state.precision, T::NAME);
            return problem(format!("it is of {found} but the training of {ours}"));
        }
        if state.samples != self.samples {
            let (found, ours) = (state.samples, &self.samples);
            return problem(format!(
                "it was trained on other samples ({found}, not {ours})"
            ));
        }
        if state.validation.is_some() && state.validation != self.validation_samples {
            return problem("its best epoch was chosen on other validation samples".into());
        }
        let loss = LossSettings::new(self.training.objective.loss());
        if let Some(found) = state.loss.filter(|found| *found != loss) {
            return problem(format!("it was trained with the loss {found}, not {loss}"));
        }
        let layout = |network: &relugrad::Network<T>| network.parameters().layout().to_vec();
        if layout(&checkpoint.network) != layout(&self.network) {
            return problem("it holds a network of other layers".into());
        }
        let per_epoch = self.steps_per_epoch();
        let (step, epochs) = (state.progress.step, state.progress.epochs.len());
        if step / per_epoch != epochs as u64 || epochs > self.training.epochs {
            return problem(format!("step {step} is not in epoch {}", epochs + 1));
        }
        let restored = self.optimizer.restore(step, checkpoint.arrays);
        restored.map_err(|problem| Error::Checkpoint { problem })?;
        self.network = checkpoint.network;
        self.progress = state.progress;
        self.forget_order();
        Ok(())
    }
}
