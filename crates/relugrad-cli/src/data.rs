//! The options that say where samples come from.

use std::path::Path;

use anyhow::anyhow;
use clap::Args;
use relugrad_train::data::{Dataset, Source, Split};
use toml::{Table, Value};

use crate::failure::Failure;
use crate::flags::{self, Flags};

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
}

impl TestData {
    /// The test samples.
    pub(crate) fn load(&self) -> Result<Dataset, Failure> {
        Ok(self.options.source(&self.from)?.load()?.test)
    }

    /// The files that are read.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        self.options.files().chain([Path::new(&self.from)])
    }

    /// All samples, those for testing first.
    pub(crate) fn load_all(&self) -> Result<Dataset, Failure> {
        Ok(self.options.source(&self.from)?.load_all()?)
    }
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
