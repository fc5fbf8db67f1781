//! The options of `relugrad train`.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::{Args, value_parser};
use relugrad_train::{Configuration, set_key};
use toml::{Table, Value};

use crate::failure::Failure;
use crate::print;
use crate::values::{Weighted, count, positive};

/// Train a network with penalties, adversarial examples, schedules; every run can be stopped and resumed
///
/// A run has a folder with its configuration, checkpoints and logs. Ctrl-C saves a checkpoint and stops; a run that was
/// stopped or killed at any moment is resumed to the same bytes by --resume. A TOML file holds all options; options given
/// here override it, and the whole configuration is written to the folder.
#[derive(Debug, Args)]
#[command(
    allow_negative_numbers = true,
    after_long_help = "Examples:
  relugrad train --out run
  relugrad train --out run --penalties jacobian=0.01 --schedule cosine --patience 5
  relugrad train --out run --data mnist/ --model lenet --epochs 3 --adversarial pgd --tensorboard
  relugrad train --out run --config paper.toml --seed 1 --set adversarial.share=0.5
  relugrad train --resume run
  relugrad train --resume run --epochs 60 --set learning-rate=1e-4

A file for --config, with some of its keys:
  model = \"mlp:128,128\"        # or lenet, resnet:16,32, a .toml file of layers
  epochs = 30
  validation-fraction = 0.1
  [optimizer]
  name = \"sgd\"                 # momentum, nesterov, weight-decay; adam, adamw: beta1, beta2, epsilon
  [schedule]
  name = \"one-cycle\"           # constant, step (every, factor), cosine (last), one-cycle (rise, last)
  warmup = 1.0
  [ramp]
  name = \"cosine\"              # of the penalties' weights; constant, linear
  epochs = 3.0
  [[penalties]]
  name = \"cure\"
  lambda = 0.3
  step = 1.5
The folder's config.toml lists all keys with their values."
)]
pub(crate) struct Arguments {
    /// Folder of the run, made if need be
    #[arg(long, value_name = "DIR", required_unless_present = "resume")]
    pub(super) out: Option<PathBuf>,

    /// Remove an earlier run in the folder of --out: the files that it has made, unless somebody has changed them
    #[arg(long, requires = "out")]
    pub(super) overwrite: bool,

    /// Go on with the run in this folder, as it was configured but for options that are given here: --epochs makes a
    /// finished run longer, with its schedule stretched to the new end, and --set changes what can change on the way
    #[arg(long, value_name = "DIR", conflicts_with_all = ["out", "config"])]
    pub(super) resume: Option<PathBuf>,

    /// A TOML file with options
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,

    /// Any key of the configuration, such as optimizer.beta1=0.8
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,

    /// Threads; 0 uses all processors. The results do not depend on it
    #[arg(long, value_name = "N", default_value = "0", value_parser = value_parser!(u16).range(0..=1024))]
    pub(super) threads: u16,

    /// Print the outcome as one line of JSON
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    options: Options,
}

/// Options that are keys of the configuration; none has a default here.
#[derive(Debug, Args)]
#[group(id = "options", multiple = true)]
struct Options {
    /// `digits`, a directory with IDX files or CIFAR batches, or a file .npz, .npy (with --labels) or .csv
    #[arg(long, value_name = "PATH", help_heading = "Data")]
    data: Option<String>,

    /// File of the labels of an .npy file of samples
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    labels: Option<String>,

    /// Column of a .csv file that has the labels: a name, or a number from 0
    #[arg(long, value_name = "COLUMN", help_heading = "Data")]
    label_column: Option<String>,

    /// How numbers of .npz, .npy and .csv become features in [0, 1]: auto (bytes by 255), range, or MIN,MAX
    #[arg(
        long,
        value_name = "SCALE",
        allow_hyphen_values = true,
        help_heading = "Data"
    )]
    scale: Option<String>,

    /// Shape of a sample of such a file, such as 1,28,28
    #[arg(long, value_name = "SHAPE", value_delimiter = ',', value_parser = count, help_heading = "Data")]
    shape: Option<Vec<usize>>,

    /// Share of test samples where the data do not tell them
    #[arg(long, value_name = "SHARE", value_parser = positive, help_heading = "Data")]
    test_fraction: Option<f64>,

    /// Share of the training samples for validation
    #[arg(long, value_name = "SHARE", help_heading = "Data")]
    validation_fraction: Option<f64>,

    /// Seed of the splits
    #[arg(long, value_name = "SEED", help_heading = "Data")]
    split_seed: Option<u32>,

    /// Begin with a layer that standardises every channel
    #[arg(long, help_heading = "Data")]
    standardise: bool,

    /// Shift training images by up to so many pixels
    #[arg(long, value_name = "PIXELS", help_heading = "Data")]
    shift: Option<u32>,

    /// Crop training images from their mirrored extension by so many pixels
    #[arg(long, value_name = "PIXELS", help_heading = "Data")]
    crop: Option<u32>,

    /// Mirror training images left to right with probability 1/2
    #[arg(long, help_heading = "Data")]
    flip: bool,

    /// The network: mlp:WIDTHS, lenet, resnet:WIDTHS, or a .toml file that lists layers
    #[arg(long, value_name = "MODEL", help_heading = "Model")]
    model: Option<String>,

    /// Start from the weights of this model file
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "model",
        help_heading = "Model"
    )]
    start: Option<String>,

    /// f32 or f64
    #[arg(long, value_name = "PRECISION", help_heading = "Model")]
    precision: Option<String>,

    /// Seed of the weights, the order of the samples and all else
    #[arg(long, value_name = "SEED", help_heading = "Model")]
    seed: Option<u32>,

    /// Passes over the training samples
    #[arg(long, value_name = "N", value_parser = count, help_heading = "Optimization")]
    epochs: Option<usize>,

    /// Samples in a step
    #[arg(long, value_name = "N", value_parser = count, help_heading = "Optimization")]
    batch_size: Option<usize>,

    /// Learning rate
    #[arg(long, value_name = "RATE", value_parser = positive, help_heading = "Optimization")]
    lr: Option<f64>,

    /// sgd, adam or adamw
    #[arg(long, value_name = "NAME", help_heading = "Optimization")]
    optimizer: Option<String>,

    /// Momentum of sgd
    #[arg(long, value_name = "MU", help_heading = "Optimization")]
    momentum: Option<f64>,

    /// Nesterov's momentum for sgd
    #[arg(long, help_heading = "Optimization")]
    nesterov: bool,

    /// Weight decay
    #[arg(long, value_name = "OMEGA", help_heading = "Optimization")]
    weight_decay: Option<f64>,

    /// The largest norm of a gradient
    #[arg(long, value_name = "NORM", value_parser = positive, help_heading = "Optimization")]
    clip: Option<f64>,

    /// Schedule of the learning rate: constant, step, cosine or one-cycle
    #[arg(long, value_name = "NAME", help_heading = "Optimization")]
    schedule: Option<String>,

    /// Epochs over which the learning rate grows from 0
    #[arg(long, value_name = "EPOCHS", help_heading = "Optimization")]
    warmup: Option<f64>,

    /// Stop after so many epochs without a better one
    #[arg(long, value_name = "EPOCHS", value_parser = count, help_heading = "Optimization")]
    patience: Option<usize>,

    /// What tells the best epoch on the validation samples: accuracy or loss
    #[arg(long, value_name = "METRIC", help_heading = "Optimization")]
    metric: Option<String>,

    /// Penalties, each with its weight lambda (the names are those of `relugrad compare`)
    #[arg(
        long,
        value_name = "NAME[=WEIGHT],...",
        value_delimiter = ',',
        help_heading = "Robustness"
    )]
    penalties: Option<Vec<Weighted>>,

    /// Epochs over which the weights of penalties grow from 0, in a straight line unless --set ramp.name=cosine
    #[arg(long, value_name = "EPOCHS", help_heading = "Robustness")]
    ramp: Option<f64>,

    /// Take penalties in every N-th step only, with N times their weight
    #[arg(long, value_name = "N", value_parser = count, help_heading = "Robustness")]
    lazy: Option<usize>,

    /// Train on adversarial examples: fgsm or pgd (share, steps: --set adversarial.share=0.5)
    #[arg(long, value_name = "METHOD", help_heading = "Robustness")]
    adversarial: Option<String>,

    /// Their size, in units of the data
    #[arg(long, value_name = "EPSILON", help_heading = "Robustness")]
    adversarial_epsilon: Option<f64>,

    /// Their norm: linf or l2
    #[arg(long, value_name = "NORM", help_heading = "Robustness")]
    adversarial_norm: Option<String>,

    /// Save a checkpoint every N steps, besides those after every epoch
    #[arg(long, value_name = "N", value_parser = count, help_heading = "Logs")]
    checkpoint_steps: Option<usize>,

    /// Log every step, besides every epoch
    #[arg(long, help_heading = "Logs")]
    log_steps: bool,

    /// Write TensorBoard's event files
    #[arg(long, help_heading = "Logs")]
    tensorboard: bool,
}

impl Arguments {
    /// The file's configuration with these options over it.
    pub(super) fn configuration(&self) -> Result<Configuration, Failure> {
        let mut table = match &self.config {
            Some(path) => {
                let text = relugrad_io::read_text(path).map_err(anyhow::Error::from)?;
                let table: Result<Table, toml::de::Error> = text.parse();
                table.map_err(|e| Failure::Usage(anyhow!("{}: {e}", path.display())))?
            }
            None => Table::new(),
        };
        // A record of another run's changes is none of this one's.
        if table.remove("changes").is_some() {
            print::note(
                "note: the file is of a run that was changed on its way; this one has its last values from the start",
            );
        }
        let usage = |error: relugrad_train::Error| Failure::Usage(error.into());
        for (key, value) in self.values()? {
            set_key(&mut table, &key, value).map_err(usage)?;
        }
        let configuration = Configuration::from_table(table).map_err(usage)?;
        configuration.check().map_err(usage)?;
        Ok(configuration)
    }

    /// The keys that are given here, with their values.
    pub(super) fn values(&self) -> Result<Vec<(String, Value)>, Failure> {
        let options = self.options.values().into_iter();
        let mut values: Vec<(String, Value)> = options.map(|(k, v)| (k.to_owned(), v)).collect();
        for text in &self.set {
            let Some((key, value)) = text.split_once('=') else {
                return Err(Failure::Usage(anyhow!("--set {text}: give KEY=VALUE")));
            };
            values.push((key.trim().to_owned(), parsed(value.trim())));
        }
        Ok(values)
    }
}

/// A value in TOML, or a bare text.
fn parsed(text: &str) -> Value {
    let line: Result<Table, toml::de::Error> = format!("value = {text}").parse();
    line.ok()
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(text.into()))
}

impl Options {
    /// The keys that are given, with their values; an optimizer's name before its options.
    fn values(&self) -> Vec<(&'static str, Value)> {
        let text = |v: &Option<String>| v.clone().map(Value::String);
        let real = |v: Option<f64>| v.map(Value::Float);
        let whole = |v: Option<usize>| v.map(|v| Value::Integer(v as i64));
        let seed = |v: Option<u32>| v.map(|v| Value::Integer(v.into()));
        let flag = |v: bool| v.then_some(Value::Boolean(true));
        let shape = self.shape.as_ref().map(|shape| {
            let sizes = shape.iter().map(|&n| Value::Integer(n as i64));
            Value::Array(sizes.collect())
        });
        let penalties = self.penalties.as_ref().map(|all| {
            let penalties = all.iter().map(|one| {
                let lambda = one.lambda.unwrap_or(one.entry.weight);
                let name = Value::String(one.entry.name.into());
                let entries = [("name", name), ("lambda", Value::Float(lambda))];
                Value::Table(
                    entries
                        .map(|(k, v)| (k.to_owned(), v))
                        .into_iter()
                        .collect(),
                )
            });
            Value::Array(penalties.collect())
        });
        let values = [
            ("data.path", text(&self.data)),
            ("data.labels", text(&self.labels)),
            ("data.label-column", text(&self.label_column)),
            ("data.scale", text(&self.scale)),
            ("data.shape", shape),
            ("data.test-fraction", real(self.test_fraction)),
            ("data.split-seed", seed(self.split_seed)),
            ("validation-fraction", real(self.validation_fraction)),
            ("standardise", flag(self.standardise)),
            ("augment.shift", seed(self.shift)),
            ("augment.crop", seed(self.crop)),
            ("augment.flip", flag(self.flip)),
            ("model", text(&self.model)),
            ("start", text(&self.start)),
            ("precision", text(&self.precision)),
            ("seed", seed(self.seed)),
            ("epochs", whole(self.epochs)),
            ("batch-size", whole(self.batch_size)),
            ("learning-rate", real(self.lr)),
            ("optimizer.name", text(&self.optimizer)),
            ("optimizer.momentum", real(self.momentum)),
            ("optimizer.nesterov", flag(self.nesterov)),
            ("optimizer.weight-decay", real(self.weight_decay)),
            ("clip", real(self.clip)),
            ("schedule.name", text(&self.schedule)),
            ("schedule.warmup", real(self.warmup)),
            ("early-stopping.patience", whole(self.patience)),
            ("early-stopping.metric", text(&self.metric)),
            ("penalties", penalties),
            ("ramp.epochs", real(self.ramp)),
            ("lazy", whole(self.lazy)),
            ("adversarial.method", text(&self.adversarial)),
            ("adversarial.epsilon", real(self.adversarial_epsilon)),
            ("adversarial.norm", text(&self.adversarial_norm)),
            ("checkpoint-steps", whole(self.checkpoint_steps)),
            ("log-steps", flag(self.log_steps)),
            ("tensorboard", flag(self.tensorboard)),
        ];
        let given = values.into_iter();
        given
            .filter_map(|(key, value)| Some((key, value?)))
            .collect()
    }
}
