//! The options of `relugrad train`.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use relugrad::penalty::OptionValue;
use relugrad_train::{Configuration, set_key};
use toml::{Table, Value};

use crate::failure::Failure;
use crate::flags::{self, All, Flags};
use crate::formula::Formulas;
use crate::print;
use crate::threads::ThreadOption;
use crate::values::{List, Weighted, all};

/// Train a network with penalties, adversarial examples, schedules; every run can be stopped and
/// resumed
///
/// A run has a folder with its configuration, checkpoints and logs. Ctrl-C saves a checkpoint and
/// stops; a run that was stopped or killed at any moment is resumed to the same bytes by --resume.
/// A TOML file holds all options; options given here override it, and the whole configuration is
/// written to the folder.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  relugrad train --out run
  relugrad train --out run --penalties jacobian=0.01 --schedule cosine --patience 5
  relugrad train --out run --formula 'flat: norm2(g) + b*tr(S*G) @ 0.1, b=0.5'
  relugrad train --out run --data mnist/ --model lenet --epochs 3 --adversarial pgd=8/255 --tensorboard
  relugrad train --out run --config paper.toml --seed 1 --set adversarial.share=0.5
  relugrad train --out run --data prices.csv --target-columns price --scale range --penalties jacobian=0.01
  relugrad train --out run --data x.npy --labels y.npy --loss logistic        # two classes, one logit
  relugrad train --resume run
  relugrad train --resume run --epochs 60 --set learning-rate=1e-4

A file for --config, with some of its keys:
  model = \"mlp:128,128\"        # or lenet, resnet:16,32, a .toml file of layers
  loss = \"squared-error\"        # by itself chosen by the data; [loss] with name and label-smoothing
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
  [[penalties]]                # or a formula; its language: --help at --formula
  name = \"flat\"
  formula = \"norm2(g) + b*tr(S*G)\"
  weight = 0.1
  constants = { b = 0.5 }
The folder's config.toml lists all keys with their values.")]
pub(crate) struct Arguments {
    /// Folder of the run, made if need be
    #[arg(long, value_name = "DIR", required_unless_present = "resume")]
    pub(super) out: Option<PathBuf>,

    /// Remove an earlier run in the folder of --out: the files that it has made, unless somebody
    /// has changed them
    #[arg(long, requires = "out")]
    pub(super) overwrite: bool,

    /// Go on with the run in this folder, as it was configured but for options that are given here:
    /// --epochs makes a finished run longer, with its schedule stretched to the new end, and --set
    /// changes what can change on the way
    #[arg(long, value_name = "DIR", conflicts_with_all = ["out", "config"])]
    pub(super) resume: Option<PathBuf>,

    /// A TOML file with options
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,

    /// Any key of the configuration, such as optimizer.beta1=0.8
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,

    #[command(flatten)]
    pub(super) threads: ThreadOption,

    /// Print the outcome as one line of JSON
    #[arg(long)]
    pub(super) json: bool,

    /// Penalties, each with its weight lambda (the names are those of `relugrad compare`), or none
    #[arg(
        long,
        value_name = "NAME[(OPTION=VALUE,...)][=WEIGHT],...",
        help_heading = "Robustness"
    )]
    penalties: Option<Vec<List<Weighted>>>,

    #[command(flatten)]
    formulas: Formulas,

    #[command(flatten)]
    flags: Flags<All>,
}

impl Arguments {
    /// The file's configuration with these options over it.
    pub(super) fn configuration(&self) -> Result<Configuration, Failure> {
        let mut table = flags::file(self.config.as_deref())?;
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
        let mut values = self.flags.values().to_vec();
        if self.penalties.is_some() || !self.formulas.is_empty() {
            let mut penalties = self
                .penalties
                .as_deref()
                .map_or(Vec::new(), |lists| settings(&all(lists)));
            penalties.extend(self.formulas.settings()?);
            values.push(("penalties".to_owned(), Value::Array(penalties)));
        }
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

/// Penalties as a configuration has them.
fn settings(penalties: &[Weighted]) -> Vec<Value> {
    let tables = penalties.iter().map(|one| {
        let lambda = one.lambda.unwrap_or(one.entry.weight);
        let options = one.options.iter().map(|(name, value)| {
            let value = match value {
                OptionValue::Number(value) => (*value).into(),
                OptionValue::Count(value) => i64::try_from(*value).unwrap_or(i64::MAX).into(),
                OptionValue::Flag(value) => (*value).into(),
                OptionValue::Word(value) => Value::String(value.to_string()),
            };
            ((*name).to_owned(), value)
        });
        let own = [
            ("name".to_owned(), one.entry.name.into()),
            ("lambda".to_owned(), lambda.into()),
        ];
        Value::Table(own.into_iter().chain(options).collect())
    });
    tables.collect()
}
