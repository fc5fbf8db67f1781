//! The options that say where samples come from, and what is told of them.

use std::path::Path;

use anyhow::anyhow;
use clap::Args;
use relugrad::Network;
use relugrad_io::Model;
use relugrad_train::data::{Dataset, Source, Split};
use relugrad_train::{ChannelStatistics, Guess, guess_statistics, standardised};
use toml::{Table, Value};

use crate::failure::Failure;
use crate::flags::{self, Flags};
use crate::model::ModelFile;
use crate::values::number;
use crate::waiting::Waiting;
use crate::{interrupt, print};

/// How samples are read from the path of `--data`.
pub(crate) type DataOptions = Flags<flags::Data>;

/// A path and how its samples are read, for commands that evaluate a model on the test samples.
#[derive(Clone, Debug, Args)]
pub(crate) struct TestData {
    /// `digits` (1797 images of 8x8 pixels, built in); a directory with the four IDX files of MNIST
    /// or Fashion-MNIST, or the binary batches of CIFAR-10 or CIFAR-100, plain or .gz; or a file:
    /// .npz (x_train, y_train, x_test, y_test, or x and y), .npy (with --labels or --targets),
    /// .csv; the test samples are taken
    #[arg(
        long = "data",
        value_name = "PATH",
        default_value = "digits",
        help_heading = "Data"
    )]
    from: String,

    #[command(flatten)]
    options: DataOptions,

    #[command(flatten)]
    standardisation: Standardisation,
}

/// A first layer that standardises what a model is given.
#[derive(Clone, Debug, Args)]
pub(crate) struct Standardisation {
    /// Mean of each channel of the inputs that the model was trained with, such as 0.1307, or one
    /// for all: with --std a first layer (x - mean) / std before the model, so that sizes of
    /// perturbations and the box stay in units of the data
    #[arg(long, value_name = "MEANS", value_delimiter = ',', value_parser = number, requires = "std", help_heading = "Data")]
    mean: Vec<f64>,

    /// Standard deviation of each channel, or one for all, such as 0.3081
    #[arg(long, value_name = "DEVIATIONS", value_delimiter = ',', value_parser = number, requires = "mean", help_heading = "Data")]
    std: Vec<f64>,
}

impl Standardisation {
    /// Refuses numbers that nothing can be standardised by, before anything is read.
    fn given(&self) -> Result<Option<ChannelStatistics>, Failure> {
        let given = ChannelStatistics::given(&self.mean, &self.std);
        given.map_err(|error| Failure::Usage(error.into()))
    }

    /// The network behind that layer, if it is given, for samples of a shape.
    fn before(
        &self,
        network: &Network<f64>,
        shape: &[usize],
    ) -> Result<Option<Network<f64>>, Failure> {
        let Some(given) = self.given()? else {
            return Ok(None);
        };
        let found = standardised(network, &given, shape);
        found
            .map(Some)
            .map_err(|error| Failure::Usage(error.into()))
    }

    /// The model behind that layer, if it is given.
    pub(crate) fn apply(&self, model: Model) -> Result<Model, Failure> {
        let shape = model.network().input_shape().to_vec();
        Ok(match self.before(model.network(), &shape)? {
            Some(network) => model.with_network(network),
            None => model,
        })
    }
}

impl TestData {
    /// A model and the test samples, or all with those for testing first, as the model takes them.
    pub(crate) fn load(
        &self,
        model: &ModelFile,
        all: bool,
    ) -> Result<(Network<f64>, Dataset), Failure> {
        self.standardisation.given()?;
        let source = self.options.source(&self.from)?;
        let waiting = Waiting::new(format!("reading {}", self.from));
        let data = match all {
            true => source.load_all()?,
            false => source.load_test()?,
        };
        waiting.set(format!("reading {}", model.path().display()));
        let network = model.load()?.into_network();
        drop(waiting);
        let data = data.for_outputs(network.outputs());
        tell_reading(&data);
        if let Some(scaling) = data.reading().scaling() {
            print::note(format_args!("note: {}: {scaling}", data.name()));
        }
        let before = self.standardisation.before(&network, data.shape())?;
        Ok((before.unwrap_or(network), data))
    }

    /// Says on the standard error if the model looks as if it wanted standardised inputs.
    pub(crate) fn hint(&self, network: &Network<f64>, data: &Dataset) -> Result<(), Failure> {
        if !self.standardisation.mean.is_empty() || network.inputs() != data.features() {
            return Ok(());
        }
        if let Some(guess) = guess_statistics(network, data, &interrupt::go_on)? {
            print::note(hint(&guess));
        }
        Ok(())
    }

    /// The files that are read.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        self.options.files().chain([Path::new(&self.from)])
    }
}

/// What may be wrong with the inputs of a model.
fn hint(guess: &Guess) -> String {
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let chance = match guess.chance {
        true => ", that of guessing",
        false => "",
    };
    let begin = format!(
        "note: the model has an accuracy of {} on these samples{chance}",
        percent(guess.accuracy)
    );
    let list = |values: &[f64]| {
        let texts = values.iter().map(|value| match *value == 1.0 / 255.0 {
            true => "1/255".to_owned(),
            false => value.to_string(),
        });
        texts.collect::<Vec<String>>().join(",")
    };
    match &guess.better {
        Some((found, accuracy)) => format!(
            "{begin}, and of {} on standardised ones; if it was trained with such, give --mean {} --std {} (or the numbers of \
             its training)",
            percent(*accuracy),
            list(&found.means),
            list(&found.deviations)
        ),
        None => format!(
            "{begin}; if it was trained with standardised inputs, give their numbers for each channel by --mean and --std"
        ),
    }
}

/// Says on the standard error what reading has made of labels, and what was missing.
pub(crate) fn tell_reading(data: &Dataset) {
    let (name, reading) = (data.name(), data.reading());
    if let Some(classes) = reading.classes() {
        print::note(format_args!("note: {name}: {classes}"));
    }
    if !reading.missing.is_empty() {
        print::note(format_args!(
            "note: {name}: without {}, which is not there",
            reading.missing.join(", ")
        ));
    }
}

/// What the samples of a training are, in a line.
pub(crate) fn describe(data: &Split) -> String {
    let (train, test) = (&data.train, &data.test);
    format!(
        "{}: {} training and {} test samples of {}",
        train.name(),
        train.samples(),
        test.samples(),
        train.kind_in_words()
    )
}

impl DataOptions {
    /// Training and test samples of a path, `digits`, a directory or a file.
    pub(crate) fn load(&self, path: &str) -> Result<Split, Failure> {
        Ok(self.source(path)?.load()?)
    }

    /// The files that these options name.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        let keys = ["data.labels", "data.targets", "data.weights"];
        let files = self.values().iter();
        let files = files.filter(move |(key, _)| keys.contains(&key.as_str()));
        files.filter_map(|(_, value)| value.as_str().map(Path::new))
    }

    /// What is to be read.
    fn source(&self, path: &str) -> Result<Source, Failure> {
        let table = self.over(Table::new())?.remove("data");
        let read = table.map_or_else(|| Ok(Source::default()), Value::try_into);
        let source: Source =
            read.map_err(|error| Failure::Usage(anyhow!("{}", error.message())))?;
        let path = path.to_owned();
        Ok(Source { path, ..source })
    }
}
