//! The options that say where samples come from.

use std::path::{Path, PathBuf};

use clap::Args;
use relugrad_train::data::{Dataset, Scale, Source, Split};

use crate::failure::Failure;
use crate::values::{count, share};

/// How samples are read from the path of `--data`.
#[derive(Clone, Debug, Args)]
pub(crate) struct DataOptions {
    /// File of the class indices of an .npy file of samples
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    labels: Option<PathBuf>,

    /// Column of a .csv file that has the labels: a name, or a number from 0 (default: the last)
    #[arg(long, value_name = "COLUMN", help_heading = "Data")]
    label_column: Option<String>,

    /// How numbers of .npz, .npy and .csv become features in [0, 1]: auto (bytes by 255), range, or MIN,MAX
    #[arg(
        long,
        value_name = "SCALE",
        default_value = "auto",
        allow_hyphen_values = true,
        help_heading = "Data"
    )]
    scale: Scale,

    /// Shape of a sample of such a file, such as 1,28,28
    #[arg(long, value_name = "SHAPE", value_delimiter = ',', value_parser = count, help_heading = "Data")]
    shape: Vec<usize>,

    /// Share that is kept for testing, of every class alike, where the data do not tell the test samples
    #[arg(long, value_name = "SHARE", default_value = "0.2", allow_negative_numbers = true, value_parser = share, help_heading = "Data")]
    test_fraction: f64,

    /// Seed of that split
    #[arg(long, value_name = "SEED", default_value = "0", help_heading = "Data")]
    split_seed: u64,
}

/// A path and how its samples are read, for commands that evaluate a model on the test samples.
#[derive(Clone, Debug, Args)]
pub(crate) struct TestData {
    /// `digits` (1797 images of 8x8 pixels, built in); a directory with the four IDX files of MNIST or Fashion-MNIST, or
    /// the binary batches of CIFAR-10 or CIFAR-100, plain or .gz; or a file: .npz (x_train, y_train, x_test, y_test, or x
    /// and y), .npy (with --labels), .csv; the test samples are taken
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
        Ok(self.options.source(&self.from).load()?.test)
    }

    /// The files that are read.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        self.options.files().chain([Path::new(&self.from)])
    }

    /// All samples, those for testing first.
    pub(crate) fn load_all(&self) -> Result<Dataset, Failure> {
        Ok(self.options.source(&self.from).load_all()?)
    }
}

impl DataOptions {
    /// Training and test samples of a path, `digits`, a directory or a file.
    pub(crate) fn load(&self, path: &str) -> Result<Split, Failure> {
        Ok(self.source(path).load()?)
    }

    /// The files that these options name.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        self.labels.as_deref().into_iter()
    }

    /// What is to be read.
    fn source(&self, path: &str) -> Source {
        Source {
            path: path.to_owned(),
            labels: self.labels.clone(),
            label_column: self.label_column.clone(),
            scale: self.scale,
            shape: self.shape.clone(),
            test_fraction: self.test_fraction,
            split_seed: self.split_seed,
        }
    }
}
