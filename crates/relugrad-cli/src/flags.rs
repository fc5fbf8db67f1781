//! Flags that set keys of a configuration, each described once.

use std::marker::PhantomData;
use std::path::Path;

use anyhow::anyhow;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use relugrad_train::attack::ATTACKS;
use relugrad_train::data::Source;
use relugrad_train::{Configuration, LossSettings, OPTIMIZERS, set_key};
use toml::{Table, Value};

use crate::failure::Failure;
use crate::loss::{self, LOSS};
use crate::values::{Adversaries, count, non_negative, number, positive, share, whole};

/// The keys of a file for --config, none without one.
pub(crate) fn file(path: Option<&Path>) -> Result<Table, Failure> {
    let Some(path) = path else {
        return Ok(Table::new());
    };
    let text = relugrad_io::read_text(path).map_err(anyhow::Error::from)?;
    let table: Result<Table, toml::de::Error> = text.parse();
    table.map_err(|error| Failure::Usage(anyhow!("{}: {error}", path.display())))
}

/// What a flag's text is to be.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Real,
    Positive,
    Whole,
    Count,
    Share,
    Shape,
    Numbers,
    Names,
    Loss,
    /// Adversarial training: a method and perhaps its size.
    Attack,
    /// The size of its examples in a norm.
    Ball(&'static str),
    Switch,
}

/// A flag and the key that it sets.
pub(crate) struct Flag {
    long: &'static str,
    pub(crate) key: &'static str,
    kind: Kind,
    value: &'static str,
    heading: &'static str,
    help: &'static str,
}

/// Which of the flags a command has.
pub(crate) trait Choice {
    /// Whether it has this one.
    fn has(flag: &Flag) -> bool;
    /// The values of keys that are not given, to be shown in the help.
    fn defaults() -> Table {
        Table::new()
    }
}

/// All of them.
#[derive(Debug)]
pub(crate) struct All;

impl Choice for All {
    fn has(_: &Flag) -> bool {
        true
    }

    fn defaults() -> Table {
        defaults()
    }
}

/// A configuration to which nothing is said.
fn defaults() -> Table {
    Table::try_from(Configuration::default()).expect("all of it can be written")
}

/// How samples are read from a path.
#[derive(Clone, Debug)]
pub(crate) struct Data;

impl Choice for Data {
    fn has(flag: &Flag) -> bool {
        flag.key.starts_with("data.") && flag.key != "data.path"
    }

    fn defaults() -> Table {
        let source = Table::try_from(Source::default()).expect("all of it can be written");
        Table::from_iter([("data".to_owned(), Value::Table(source))])
    }
}

/// With which loss and how long a comparison trains.
#[derive(Debug)]
pub(crate) struct Length;

impl Choice for Length {
    fn has(flag: &Flag) -> bool {
        let keys = [
            "loss",
            "epochs",
            "batch-size",
            "learning-rate",
            "optimizer.name",
            "standardise",
            "mean",
            "std",
        ];
        keys.contains(&flag.key)
    }

    fn defaults() -> Table {
        defaults()
    }
}

/// The flags of a choice that were given: keys with their values, an optimizer's name before its
/// options.
#[derive(Clone, Debug)]
pub(crate) struct Flags<C> {
    given: Vec<(String, Value)>,
    choice: PhantomData<C>,
}

impl<C> Flags<C> {
    /// The keys that are given, with their values.
    pub(crate) fn values(&self) -> &[(String, Value)] {
        &self.given
    }

    /// A table with these keys, over those of `table`.
    pub(crate) fn over(&self, mut table: Table) -> relugrad_train::Result<Table> {
        for (key, value) in &self.given {
            set_key(&mut table, key, value.clone())?;
        }
        Ok(table)
    }
}

impl Kind {
    fn read(self, text: &str) -> Result<Value, String> {
        let integer = |n: usize| Value::Integer(n as i64);
        match self {
            Kind::Text => Ok(Value::String(text.into())),
            Kind::Real => number(text).map(Value::Float),
            Kind::Numbers => {
                let numbers: Result<Vec<f64>, String> = text.split(',').map(number).collect();
                Ok(Value::from(numbers?))
            }
            Kind::Positive => positive(text).map(Value::Float),
            Kind::Whole => whole::<u64>(text)?
                .try_into()
                .map(Value::Integer)
                .map_err(|_| "it is out of range: it must be below 2^63".into()),
            Kind::Share => share(text).map(Value::Float),
            Kind::Count => count(text).map(integer),
            Kind::Shape => {
                let sizes: Result<Vec<usize>, String> = text.split(',').map(count).collect();
                Ok(Value::Array(sizes?.into_iter().map(integer).collect()))
            }
            Kind::Names => {
                let names = text
                    .split(',')
                    .map(|name| Value::String(name.trim().into()));
                Ok(Value::Array(names.collect()))
            }
            Kind::Loss => {
                let settings = text.parse::<LossSettings>();
                let settings = settings.map_err(|error| error.to_string())?;
                Value::try_from(settings).map_err(|error| error.to_string())
            }
            Kind::Attack => match text.parse::<Adversaries>()? {
                Adversaries { bare: true, .. } => {
                    Err("give a method, such as pgd or pgd=0.1".into())
                }
                Adversaries { sizes, .. } if sizes.len() > 1 => Err("give it one size".into()),
                Adversaries { method, sizes, .. } => {
                    let method = Value::from(method.name());
                    let size = sizes.first().map(|&size| Value::Float(size));
                    Ok(Value::Array([method].into_iter().chain(size).collect()))
                }
            },
            Kind::Ball(_) => non_negative(text).map(Value::Float),
            Kind::Switch => Ok(Value::Boolean(true)),
        }
    }

    /// The keys that a value sets, that of the flag first.
    fn keys(self, key: &str, value: Value) -> Vec<(String, Value)> {
        let epsilon = |value| ("adversarial.epsilon".to_owned(), value);
        match (self, value) {
            (Kind::Attack, Value::Array(values)) => {
                let mut values = values.into_iter();
                let method = values.next().map(|method| (key.to_owned(), method));
                method
                    .into_iter()
                    .chain(values.next().map(epsilon))
                    .collect()
            }
            (Kind::Ball(norm), value) => vec![(key.to_owned(), norm.into()), epsilon(value)],
            (_, value) => vec![(key.to_owned(), value)],
        }
    }
}

impl Flag {
    fn arg(&self, defaults: &Table) -> Arg {
        let kind = self.kind;
        let mut arg = Arg::new(self.long)
            .long(self.long)
            .help(self.words(defaults))
            .help_heading(self.heading);
        if let Kind::Loss = kind {
            arg = arg.long_help(loss::help());
        }
        if let Kind::Switch = kind {
            return arg.action(ArgAction::SetTrue);
        }
        let arg = match self.key {
            "start" => arg.conflicts_with("model"),
            "adversarial.norm" => arg.conflicts_with_all(BALLS.iter().filter(|b| **b != self.long)),
            _ => arg,
        };
        arg.value_name(self.value)
            .value_parser(move |text: &str| kind.read(text))
    }

    /// The help, with the names of a catalogue if the key is one of its, and the default if it is
    /// to be shown.
    fn words(&self, defaults: &Table) -> String {
        let names: Vec<&str> = match self.key {
            "optimizer.name" => OPTIMIZERS.map(|entry| entry.name).to_vec(),
            "adversarial.method" => ATTACKS.map(|entry| entry.name).to_vec(),
            _ => Vec::new(),
        };
        let mut words = self.help.to_owned();
        if !names.is_empty() {
            words += &format!(": {}", names.join(", "));
        }
        let mut keys = self.key.split('.');
        let first = keys.next().and_then(|key| defaults.get(key));
        let default = keys.fold(first, |value, key| value?.get(key));
        // An empty list stands for what the file says, and a switch is off.
        let default = default.filter(|value| !value.is_array() && !value.is_bool());
        if let Some(default) = default {
            let text = default.as_str().map_or(default.to_string(), str::to_owned);
            words += &format!(" [default: {text}]");
        }
        words
    }

    fn given(&self, matches: &ArgMatches) -> Option<Value> {
        match self.kind {
            Kind::Switch => matches.get_flag(self.long).then_some(Value::Boolean(true)),
            Kind::Text
            | Kind::Real
            | Kind::Positive
            | Kind::Whole
            | Kind::Count
            | Kind::Share
            | Kind::Shape
            | Kind::Numbers
            | Kind::Names
            | Kind::Attack
            | Kind::Ball(_)
            | Kind::Loss => matches.get_one::<Value>(self.long).cloned(),
        }
    }
}

impl<C: Choice> Args for Flags<C> {
    fn augment_args(command: Command) -> Command {
        let defaults = C::defaults();
        let chosen = FLAGS.iter().filter(|flag| C::has(flag));
        command.args(chosen.map(|flag| flag.arg(&defaults)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<C: Choice> FromArgMatches for Flags<C> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Flags<C>, clap::Error> {
        let chosen = FLAGS.iter().filter(|flag| C::has(flag));
        let given = chosen.filter_map(|flag| Some(flag.kind.keys(flag.key, flag.given(matches)?)));
        let given = given.flatten();
        Ok(Flags {
            given: given.collect(),
            choice: PhantomData,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Flags::from_arg_matches(matches)?;
        Ok(())
    }
}

const fn flag(
    long: &'static str,
    key: &'static str,
    (kind, value): (Kind, &'static str),
    heading: &'static str,
    help: &'static str,
) -> Flag {
    Flag {
        long,
        key,
        kind,
        value,
        heading,
        help,
    }
}

const SWITCH: (Kind, &str) = (Kind::Switch, "");
const DATA: &str = "Data";
const MODEL: &str = "Model";
const OPTIMIZATION: &str = "Optimization";
const ROBUSTNESS: &str = "Robustness";
const LOGS: &str = "Logs";

/// Sizes of adversarial examples, of which one is given.
const BALLS: [&str; 3] = ["linf", "l2", "l1"];

/// All flags, by heading.
#[rustfmt::skip]
const FLAGS: [Flag; 45] = [
    flag("data", "data.path", (Kind::Text, "PATH"), DATA, "`digits`, a directory with IDX files or CIFAR batches, or a file .npz, .npy (with --labels or --targets) or .csv"),
    flag("labels", "data.labels", (Kind::Text, "FILE"), DATA, "File of the class indices of an .npy file of samples"),
    flag("label-column", "data.label-column", (Kind::Text, "COLUMN"), DATA, "Column of a .csv file that has the labels: a name, or a number from 0 (default: the last)"),
    flag("targets", "data.targets", (Kind::Text, "FILE"), DATA, "File of the values to regress to, [n] or [n, K], of an .npy file of samples; of an .npz file they are the array `targets`, or numbers `y` that are not all whole"),
    flag("target-columns", "data.target-columns", (Kind::Names, "COLUMNS"), DATA, "Columns of a .csv file that have the values to regress to: names, or numbers from 0, with commas between (default: the last, if its numbers are not all whole)"),
    flag("weights", "data.weights", (Kind::Text, "FILE"), DATA, "File of the samples' weights, [n], of an .npy file of samples; of an .npz file they are the array `weights`"),
    flag("weight-column", "data.weight-column", (Kind::Text, "COLUMN"), DATA, "Column of a .csv file that has the samples' weights: means over samples are Σ w φ / Σ w"),
    flag("scale", "data.scale", (Kind::Text, "SCALE"), DATA, "How numbers of .npz, .npy and .csv become features: auto (bytes are divided by 255, others taken as they are), none, range (the least and greatest training number become 0 and 1), or LO,HI (these do)"),
    flag("box", "data.box", (Kind::Text, "BOX"), DATA, "The box that holds the features, which attacks do not leave: LO,HI, data (the range of the samples, of each channel of images and else of each feature) or none"),
    flag("shape", "data.shape", (Kind::Shape, "SHAPE"), DATA, "Shape of a sample of such a file, such as 1,28,28"),
    flag("test-fraction", "data.test-fraction", (Kind::Share, "SHARE"), DATA, "Share that is kept for testing, of every class alike, where the data do not tell the test samples"),
    flag("split-seed", "data.split-seed", (Kind::Whole, "SEED"), DATA, "Seed of the splits"),
    flag("validation-fraction", "validation-fraction", (Kind::Real, "SHARE"), DATA, "Share of the training samples for validation"),
    flag("standardise", "standardise", SWITCH, DATA, "Begin with a layer that standardises every channel by the training samples: it is part of the saved model, and sizes and the box stay in units of the data"),
    flag("mean", "mean", (Kind::Numbers, "MEANS"), DATA, "With --std: begin with such a layer with these means, one for each channel or one for all"),
    flag("std", "std", (Kind::Numbers, "DEVIATIONS"), DATA, "Standard deviations of that layer"),
    flag("shift", "augment.shift", (Kind::Whole, "PIXELS"), DATA, "Shift training images by up to so many pixels"),
    flag("crop", "augment.crop", (Kind::Whole, "PIXELS"), DATA, "Crop training images from their mirrored extension by so many pixels"),
    flag("flip", "augment.flip", SWITCH, DATA, "Mirror training images left to right with probability 1/2"),
    flag("model", "model", (Kind::Text, "MODEL"), MODEL, "The network: mlp:WIDTHS, lenet, resnet:WIDTHS, or a .toml file that lists layers"),
    flag("start", "start", (Kind::Text, "FILE"), MODEL, "Start from the weights of this model file"),
    flag("dtype", "precision", (Kind::Text, "NAME"), MODEL, "Precision of all numbers: f32 or f64"),
    flag("seed", "seed", (Kind::Whole, "SEED"), MODEL, "Seed of the weights, the order of the samples and all else"),
    flag("loss", "loss", (Kind::Loss, "LOSS"), OPTIMIZATION, LOSS),
    flag("epochs", "epochs", (Kind::Count, "N"), OPTIMIZATION, "Passes over the training samples"),
    flag("batch-size", "batch-size", (Kind::Count, "N"), OPTIMIZATION, "Samples in a step"),
    flag("lr", "learning-rate", (Kind::Positive, "RATE"), OPTIMIZATION, "Learning rate; by default the optimizer's own"),
    flag("optimizer", "optimizer.name", (Kind::Text, "NAME"), OPTIMIZATION, "Optimizer"),
    flag("momentum", "optimizer.momentum", (Kind::Real, "MU"), OPTIMIZATION, "Momentum of sgd"),
    flag("nesterov", "optimizer.nesterov", SWITCH, OPTIMIZATION, "Nesterov's momentum for sgd"),
    flag("weight-decay", "optimizer.weight-decay", (Kind::Real, "OMEGA"), OPTIMIZATION, "Weight decay"),
    flag("clip", "clip", (Kind::Positive, "NORM"), OPTIMIZATION, "The largest norm of a gradient"),
    flag("schedule", "schedule.name", (Kind::Text, "NAME"), OPTIMIZATION, "Schedule of the learning rate: constant, step, cosine or one-cycle"),
    flag("warmup", "schedule.warmup", (Kind::Real, "EPOCHS"), OPTIMIZATION, "Epochs over which the learning rate grows from 0"),
    flag("patience", "early-stopping.patience", (Kind::Count, "EPOCHS"), OPTIMIZATION, "Stop after so many epochs without a better one"),
    flag("metric", "early-stopping.metric", (Kind::Text, "METRIC"), OPTIMIZATION, "What tells the best epoch on the validation samples: accuracy or loss [default: accuracy of classes, loss of values]"),
    flag("ramp", "ramp.epochs", (Kind::Real, "EPOCHS"), ROBUSTNESS, "Epochs over which the weights of penalties grow from 0, in a straight line unless --set ramp.name=cosine"),
    flag("lazy", "lazy", (Kind::Count, "N"), ROBUSTNESS, "Take penalties in every N-th step only, with N times their weight"),
    flag("adversarial", "adversarial.method", (Kind::Attack, "METHOD[=SIZE]"), ROBUSTNESS, "Train on adversarial examples, of size 0.1 in linf unless said otherwise (share, steps: --set adversarial.share=0.5); the methods are"),
    flag("linf", "adversarial.norm", (Kind::Ball("linf"), "SIZE"), ROBUSTNESS, "Size of the adversarial examples in linf, in units of the data, such as 8/255; their method is pgd unless --adversarial says it"),
    flag("l2", "adversarial.norm", (Kind::Ball("l2"), "SIZE"), ROBUSTNESS, "The same in l2"),
    flag("l1", "adversarial.norm", (Kind::Ball("l1"), "SIZE"), ROBUSTNESS, "The same in l1"),
    flag("checkpoint-steps", "checkpoint-steps", (Kind::Count, "N"), LOGS, "Save a checkpoint every N steps, besides those after every epoch"),
    flag("log-steps", "log-steps", SWITCH, LOGS, "Log every step, besides every epoch"),
    flag("tensorboard", "tensorboard", SWITCH, LOGS, "Write TensorBoard's event files"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Command;

    #[test]
    fn every_flag_sets_a_key_that_there_is() {
        for flag in &FLAGS {
            let text = match flag.kind {
                Kind::Shape | Kind::Numbers => "1,2",
                Kind::Share => "0.5",
                Kind::Loss => "squared-error",
                Kind::Attack => "pgd=0.1",
                Kind::Text
                | Kind::Names
                | Kind::Real
                | Kind::Positive
                | Kind::Whole
                | Kind::Ball(_)
                | Kind::Count => "3",
                Kind::Switch => "",
            };
            let mut table = Table::new();
            for (key, value) in flag.kind.keys(flag.key, flag.kind.read(text).unwrap()) {
                set_key(&mut table, &key, value).unwrap();
            }
            if let Err(error) = Configuration::from_table(table) {
                let error = error.to_string();
                assert!(!error.contains("there is no key"), "{error}");
                assert!(matches!(flag.kind, Kind::Text) || flag.key.starts_with("optimizer"));
            }
        }
    }

    #[test]
    fn what_is_given_is_told_and_nothing_else() {
        let command = || Flags::<All>::augment_args(Command::new("relugrad"));
        let parsed = |line: &str| {
            let matches = command().try_get_matches_from(line.split(' '));
            Flags::<All>::from_arg_matches(&matches?)
        };
        let flags = parsed("relugrad --momentum 0.5 --optimizer sgd --flip --shape 1,8,8");
        let table = flags.unwrap().over(Table::new()).unwrap();
        let text = "data.shape = [1, 8, 8]\naugment.flip = true\noptimizer = { name = \"sgd\", momentum = 0.5 }";
        assert_eq!(table, text.parse().unwrap());
        assert!(parsed("relugrad").unwrap().values().is_empty());
        for wrong in ["--epochs 0", "--lr -1", "--test-fraction 1", "--shape 1,0"] {
            assert!(parsed(&format!("relugrad {wrong}")).is_err(), "{wrong}");
        }
        assert!(parsed("relugrad --start a.onnx --model lenet").is_err());
    }
}
