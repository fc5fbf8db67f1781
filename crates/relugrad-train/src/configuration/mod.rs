//! Everything that a training can be told, in a form that a TOML file holds.

mod changes;
mod keys;
mod loss;
mod penalty;

use std::path::{Path, PathBuf};

use relugrad::{Loss, Network, Objective, Scalar};
use serde::{Deserialize, Serialize};

use crate::architecture::Architecture;
use crate::channels::ChannelStatistics;
use crate::data::{Dataset, Source, Split, stratified_split};
use crate::error::{Error, Result, check_range};
use crate::fit::outputs_for;
use crate::optimizer::{Adam, OPTIMIZERS, Optimizer};
use crate::options::Training;
use crate::standardisation::standardised;
pub use changes::{Change, set_key};
pub use loss::LossSettings;
pub use penalty::{OptionSetting, PenaltySettings};
pub(crate) use penalty::{distinct_name, penalty_names};

/// Everything that a training can be told. A TOML file has the same keys, with hyphens; what it
/// leaves out is as in [`Configuration::default`].
///
/// ```
/// use relugrad_train::Configuration;
///
/// let configuration = Configuration::from_toml(r#"
///     model = "mlp:64,64"
///     epochs = 3
///     [optimizer]
///     name = "adamw"
///     [schedule]
///     name = "cosine"
///     warmup = 0.5
///     [[penalties]]
///     name = "jacobian"
///     lambda = 0.01
/// "#)?;
/// assert_eq!(configuration.penalties[0].lambda, 0.01);
/// # Ok::<(), relugrad_train::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Configuration {
    /// The network, see [`Architecture`].
    pub model: String,
    /// A model file whose weights to start from, instead of `model` and random ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<PathBuf>,
    /// Precision of all numbers.
    pub precision: Precision,
    /// Where samples come from.
    pub data: Source,
    /// The loss, such as `"squared-error"` or
    /// `{ name = "softmax-cross-entropy", label-smoothing = 0.1 }`; if left out, squared error for
    /// values, and for classes the logistic loss of one logit or softmax cross-entropy of more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<LossSettings>,
    /// How to train; its objective is that of `penalties` in [`training`](Self::training) only. Its
    /// keys stand among the others.
    #[serde(flatten)]
    pub training: Training,
    /// Share of the training samples that is kept for validation, of every class alike; 0 for none.
    pub validation_fraction: f64,
    /// Whether the network begins by taking off the mean of every channel of the training samples
    /// and dividing by their standard deviation. The box of the attacks and all penalties remain
    /// those of the features.
    pub standardise: bool,
    /// The mean of every channel that such a layer takes off, instead of that of the training samples:
    /// one for all or one for each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mean: Vec<f64>,
    /// The deviation that it divides by, in the same way.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub std: Vec<f64>,
    /// Steps from one checkpoint to the next, besides those after every epoch; none if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint_steps: Option<u64>,
    /// Whether the log has a line for every step, besides those for every epoch.
    pub log_steps: bool,
    /// Whether to write TensorBoard's event files.
    pub tensorboard: bool,
    /// Penalties with their weights.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub penalties: Vec<PenaltySettings>,
    /// Values that were changed when the training was resumed, in their order: a record, which
    /// changes nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
}

/// The precision of a training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Single.
    #[default]
    F32,
    /// Double.
    F64,
}

impl Default for Configuration {
    /// The digits, `mlp:128,128`, Adam, 30 epochs of batches of 64, a tenth of the training samples
    /// for validation, no penalty.
    fn default() -> Configuration {
        Configuration {
            model: "mlp:128,128".into(),
            start: None,
            precision: Precision::F32,
            data: Source::default(),
            loss: None,
            training: Training::default(),
            validation_fraction: 0.1,
            standardise: false,
            mean: Vec::new(),
            std: Vec::new(),
            checkpoint_steps: None,
            log_steps: false,
            tensorboard: false,
            penalties: Vec::new(),
            changes: Vec::new(),
        }
    }
}

/// The samples of a training.
#[derive(Clone, Debug)]
pub struct Parts {
    /// To train on.
    pub train: Dataset,
    /// To tell the best epoch.
    pub validation: Option<Dataset>,
    /// To evaluate the trained network on; training does not look at them.
    pub test: Dataset,
}

impl Parts {
    /// The same samples for a network that was made elsewhere; see [`Dataset::for_outputs`].
    pub(crate) fn for_outputs(self, outputs: usize) -> Parts {
        let fit = |data: Dataset| data.for_outputs(outputs);
        Parts {
            train: fit(self.train),
            validation: self.validation.map(fit),
            test: fit(self.test),
        }
    }
}

impl Configuration {
    /// Reads a configuration.
    ///
    /// # Errors
    /// [`Error::Configuration`] for what is no TOML, an unknown key (with the nearest known one),
    /// or a value of another kind; ranges are looked at by [`check`](Self::check).
    pub fn from_toml(text: &str) -> Result<Configuration> {
        let table: toml::Table = text
            .parse()
            .map_err(|error: toml::de::Error| problem(error))?;
        Configuration::from_table(table)
    }

    /// Reads the configuration of a file.
    ///
    /// # Errors
    /// [`Error::Read`], and those of [`from_toml`](Self::from_toml).
    pub fn load(path: &Path) -> Result<Configuration> {
        let text = relugrad_io::read_text(path)?;
        Configuration::from_bytes(path, text.as_bytes())
    }

    /// Reads the configuration that a file holds.
    pub(crate) fn from_bytes(path: &Path, bytes: &[u8]) -> Result<Configuration> {
        let read = std::str::from_utf8(bytes).map_err(problem);
        read.and_then(Configuration::from_toml)
            .map_err(|mut error| {
                if let Error::Configuration { problem } = &mut error {
                    *problem = format!("{}: {problem}", path.display());
                }
                error
            })
    }

    /// Reads a configuration from a table, which options of a command may have changed.
    ///
    /// # Errors
    /// As for [`from_toml`](Self::from_toml).
    pub fn from_table(mut table: toml::Table) -> Result<Configuration> {
        keys::check(&table)?;
        keys::read_fractions(&mut table);
        if let Some(toml::Value::Table(optimizer)) = table.get_mut("optimizer") {
            let name = optimizer.entry("name");
            let name = name.or_insert_with(|| Adam::NAME.into()).as_str();
            let entry = OPTIMIZERS.iter().find(|entry| Some(entry.name) == name);
            if let Some(rate) = entry.map(|entry| entry.learning_rate) {
                table.entry("learning-rate").or_insert(rate.into());
            }
        }
        // By itself a training's error names its key.
        let read = keys::of_training(&table).try_into::<Training>().map(drop);
        read.and_then(|()| table.try_into()).map_err(problem)
    }

    /// The whole configuration as the text of a TOML file.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("all of it can be written")
    }

    /// Refuses values that are out of range, before any data is read.
    ///
    /// # Errors
    /// [`Error::OutOfRange`], [`Error::Configuration`], and the engine's errors for penalties.
    pub fn check(&self) -> Result<()> {
        let share = self.validation_fraction;
        let fits = (0.0..1.0).contains(&share);
        check_range("validation-fraction", share, fits, "in [0, 1)")?;
        let every = self.checkpoint_steps;
        check_range(
            "checkpoint-steps",
            0.0,
            every != Some(0),
            "at least 1, or left out",
        )?;
        if self.validation_fraction == 0.0 && self.training.stopping.patience.is_some() {
            return Err(Error::Configuration {
                problem:
                    "early-stopping.patience needs validation samples; set validation-fraction"
                        .into(),
            });
        }
        let given = ChannelStatistics::given(&self.mean, &self.std)?;
        if given.is_some() && self.standardise {
            return Err(Error::Configuration {
                problem: "standardise takes the mean and std of the training samples, and others are given; leave either out"
                    .into(),
            });
        }
        if self.start.is_some() && self.standardise {
            return Err(Error::Configuration {
                problem: "standardise does not apply to a model that is started from; give the mean and std that it was made for, or leave it out".into(),
            });
        }
        let loss = self.given_loss()?;
        self.training(loss.unwrap_or(Loss::softmax_cross_entropy()))?
            .check()
    }

    /// The loss, if one is given.
    ///
    /// # Errors
    /// Those of [`LossSettings::loss`].
    pub fn given_loss(&self) -> Result<Option<Loss>> {
        self.loss.as_ref().map(LossSettings::loss).transpose()
    }

    /// How to train with a loss, such as what [`loss_for`](crate::loss_for) makes of
    /// [`given_loss`](Self::given_loss).
    ///
    /// # Errors
    /// The engine's errors for penalties; [`Error::Configuration`] for an option of another
    /// penalty.
    pub fn training(&self, loss: Loss) -> Result<Training> {
        let mut objective = Objective::new(loss);
        for settings in &self.penalties {
            objective = objective.with(settings.penalty()?, settings.lambda)?;
        }
        Ok(Training {
            objective,
            ..self.training.clone()
        })
    }

    /// The samples.
    ///
    /// # Errors
    /// Those of [`Source::load`] and [`stratified_split`].
    pub fn samples(&self) -> Result<Parts> {
        let Split { train, test } = self.data.load()?;
        if self.validation_fraction == 0.0 {
            return Ok(Parts {
                train,
                validation: None,
                test,
            });
        }
        let seed = self.data.split_seed.wrapping_add(1);
        let parts = stratified_split(&train, self.validation_fraction, seed)?;
        Ok(Parts {
            train: parts.train,
            validation: Some(parts.test),
            test,
        })
    }

    /// The network before training.
    ///
    /// # Errors
    /// Those of the model file or description, and of the loss; [`Error::Data`] for samples that
    /// cannot be standardised.
    pub fn network<T: Scalar>(&self, train: &Dataset) -> Result<Network<T>> {
        if let Some(path) = &self.start {
            let network = relugrad_io::load_model(path)?.into_network();
            let network = match self.statistics(train)? {
                Some(statistics) => standardised(&network, &statistics, train.shape())?,
                None => network,
            };
            return Ok(network.cast()?);
        }
        let architecture = Architecture::parse(&self.model)?;
        let (shape, outputs) = (train.shape(), outputs_for(train, self.given_loss()?));
        match self.statistics(train)? {
            Some(statistics) => {
                architecture.build_standardised(shape, outputs, self.training.seed, &statistics)
            }
            None => architecture.build(shape, outputs, self.training.seed),
        }
    }

    /// What the network's first layer standardises by, if it has one.
    ///
    /// # Errors
    /// Those of [`ChannelStatistics::given`] and [`Dataset::channel_statistics`].
    pub fn statistics(&self, train: &Dataset) -> Result<Option<ChannelStatistics>> {
        match self.standardise {
            true => train.channel_statistics().map(Some),
            false => ChannelStatistics::given(&self.mean, &self.std),
        }
    }
}

fn problem(error: impl std::fmt::Display) -> Error {
    let text = error.to_string().trim_end().replace("\nin `", ", in `");
    Error::Configuration { problem: text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        Configuration::from_toml(text).unwrap_err().to_string()
    }

    #[test]
    fn what_is_written_is_read() {
        let mut configuration = keys::complete();
        assert_eq!(
            Configuration::from_toml(&configuration.to_toml()).unwrap(),
            configuration
        );
        configuration = Configuration::default();
        assert_eq!(
            Configuration::from_toml(&configuration.to_toml()).unwrap(),
            configuration
        );
        assert_eq!(Configuration::from_toml("").unwrap(), configuration);
        configuration.check().unwrap();
    }

    #[test]
    fn unknown_keys_are_named_with_the_nearest() {
        assert!(
            message("lerning-rate = 1").contains("`lerning-rate`; did you mean `learning-rate`")
        );
        assert!(
            message("[optimizer]\nname = \"sgd\"\nmomentun = 0.5")
                .contains("did you mean `optimizer.momentum`")
        );
        assert!(
            message("[data]\npth = \"digits\"").contains("`data.pth`; did you mean `data.path`")
        );
        assert!(
            message("[[penalties]]\nname = \"jacobian\"\nlamda = 1").contains("`penalties.lambda`")
        );
        assert!(message("zzzzzzz = 1").contains("no key `zzzzzzz`"));
    }

    #[test]
    fn values_of_another_kind_are_named() {
        assert!(message("epochs = \"many\"").contains("epochs"));
        assert!(message("[optimizer]\nname = \"adma\"").contains("adma"));
        assert!(message("[optimizer]\nname = \"adam\"\nmomentum = 0.5").contains("momentum"));
        assert!(message("epochs = ").contains("TOML"));
        assert!(message("[data]\nscale = \"rnage\"").contains("rnage"));
    }

    #[test]
    fn a_penalty_is_known_by_its_options_too() {
        let text = "[[penalties]]\nname = \"cure\"\nlambda = 1.0\n[[penalties]]\nname = \"cure\"\nlambda = 1.0\nstep = 0.5";
        let configuration = Configuration::from_toml(text).unwrap();
        configuration.check().unwrap();
        let names = penalty_names(&configuration.penalties);
        assert_eq!(names, ["cure(step=1.5)", "cure(step=0.5)"]);
    }

    #[test]
    fn impossible_values_are_refused() {
        for bad in [
            "epochs = 0",
            "learning-rate = -1.0",
            "validation-fraction = 1.0",
            "checkpoint-steps = 0",
            "lazy = 0",
            "clip = 0.0",
            "validation-fraction = 0.0\n[early-stopping]\npatience = 3",
            "standardise = true\nstart = \"a.onnx\"",
            "[adversarial]\nshare = 2.0",
            "[[penalties]]\nname = \"jacobian\"\nlambda = -1.0",
            "[[penalties]]\nname = \"jacobain\"\nlambda = 1.0",
            "[[penalties]]\nname = \"jacobian\"\nlambda = 1.0\nstep = 1.0",
            "[[penalties]]\nname = \"cure\"\nlambda = 1.0\nradius = 1.0",
            "[[penalties]]\nname = \"region-boundary-l2\"\nlambda = 1.0\nradius = 0.0",
            "[[penalties]]\nname = \"region-boundary-l2\"\nlambda = 1.0\nnearest = 0",
            "[[penalties]]\nname = \"cure\"\nlambda = 1.0\n[[penalties]]\nname = \"cure\"\nlambda = 2.0",
            "loss = \"squared-eror\"",
            "[loss]\nname = \"softmax-cross-entropy\"\nlabel-smoothing = 1.5",
            "[loss]\nname = \"logistic\"\nlabel-smoothing = 0.5",
        ] {
            assert!(
                Configuration::from_toml(bad).unwrap().check().is_err(),
                "{bad}"
            );
        }
    }
}
