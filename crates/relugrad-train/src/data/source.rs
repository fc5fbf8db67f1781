//! Where samples come from: a description that fits an option or a file, and reading what it says.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::arrays::{Beside, Samples};
use super::cifar::load_cifar10_test;
use super::idx::load_idx_test;
use super::table::Columns;
use super::{
    BoxChoice, Dataset, Scale, Split, arrays, digits, is_cifar10, is_cifar100, load_cifar10,
    load_cifar100, load_idx, stratified_split, table,
};
use crate::error::{Error, Result};

/// Where samples come from, and which of them are for testing.
///
/// | `path` | what is read |
/// | --- | --- |
/// | `digits` | 1797 images of 8×8 pixels, built in |
/// | a directory | the four IDX files of MNIST or Fashion-MNIST, or the binary batches of CIFAR-10 or CIFAR-100; plain or `.gz` |
/// | `FILE.npz` | arrays `x_train`, `y_train`, `x_test`, `y_test`, or `x` and `y`; perhaps `weights_train`, `weights_test`, or `weights` |
/// | `FILE.npy` | samples, with their class indices in the file `labels`, or their values in `targets` |
/// | `FILE.csv` | a line for each sample, plain or `.gz`; `label_column` is a name or a number from 0 (default: the last) |
///
/// Samples have classes, or values to regress to: what `targets` and `target_columns` name, the
/// array `targets` of an archive, and where nothing is said, numbers of which not all are whole.
///
/// Where a source does not tell the test samples, a stratified share of `test_fraction` is split
/// off by `split_seed`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Source {
    /// `digits`, a directory or a file.
    pub path: String,
    /// The labels of an `.npy` file of samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<PathBuf>,
    /// The column of a table that has the labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_column: Option<String>,
    /// The values of an `.npy` file of samples, `[n]` or `[n, K]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub targets: Option<PathBuf>,
    /// The columns of a table that have the values to regress to, by names or numbers from 0.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub target_columns: Vec<String>,
    /// The weights of an `.npy` file of samples, `[n]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,
    /// The column of a table that has the samples' weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_column: Option<String>,
    /// How numbers of arrays and tables become features.
    pub scale: Scale,
    /// The box that holds the features, which attacks do not leave; `box` in files.
    #[serde(rename = "box")]
    pub bounds: BoxChoice,
    /// Shape of a sample of arrays and tables, such as `[1, 28, 28]`; empty for the file's own.
    pub shape: Vec<usize>,
    /// Share of test samples, of every class alike.
    pub test_fraction: f64,
    /// Seed of the split.
    pub split_seed: u64,
}

impl Default for Source {
    /// The digits, with every fifth for testing.
    fn default() -> Source {
        Source {
            path: "digits".into(),
            labels: None,
            label_column: None,
            targets: None,
            target_columns: Vec::new(),
            weights: None,
            weight_column: None,
            scale: Scale::Auto,
            bounds: BoxChoice::Unit,
            shape: Vec::new(),
            test_fraction: 0.2,
            split_seed: 0,
        }
    }
}

impl Source {
    /// The files that are named besides `path`.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let named = [&self.labels, &self.targets, &self.weights];
        named.into_iter().filter_map(|path| path.as_deref())
    }

    /// The default options for another path.
    pub fn new(path: impl Into<String>) -> Source {
        Source {
            path: path.into(),
            ..Source::default()
        }
    }

    /// Reads training and test samples.
    ///
    /// # Errors
    /// [`Error::Data`] for a path that is none of the above or an option that does not belong to
    /// it, the errors of the formats, and those of [`stratified_split`].
    pub fn load(&self) -> Result<Split> {
        let split = |data: &_| stratified_split(data, self.test_fraction, self.split_seed);
        self.read()?.into_split(split)
    }

    /// Reads the test samples alone, in less time and memory where the source has files of their own
    /// for them.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn load_test(&self) -> Result<Dataset> {
        let path = Path::new(&self.path);
        // The box of the data is that of all samples.
        let apart = self.kind() == Kind::Directory && self.bounds != BoxChoice::Data;
        let read: Option<fn(&Path) -> Result<Dataset>> = match apart {
            false => None,
            true if is_cifar10(path) => Some(load_cifar10_test),
            true if is_cifar100(path) => None,
            true => Some(load_idx_test),
        };
        let Some(read) = read else {
            return Ok(self.load()?.test);
        };
        self.check_options()?;
        let test = read(path)?;
        let bounds = test.bounds_by(self.bounds, None);
        test.within(bounds)
    }

    /// Reads all samples; where the source tells them apart, those for testing come first.
    ///
    /// # Errors
    /// As for [`load`](Self::load), but for those of the split.
    pub fn load_all(&self) -> Result<Dataset> {
        let Samples { train, test } = self.read()?;
        match test {
            Some(test) => test.followed_by(&train),
            None => Ok(train),
        }
    }

    /// All samples, in their box.
    fn read(&self) -> Result<Samples> {
        let Samples { train, test } = self.read_freely()?;
        let bounds = train.bounds_by(self.bounds, test.as_ref());
        let within = |data: Dataset| data.within(bounds.clone());
        Ok(Samples {
            test: test.map(within).transpose()?,
            train: within(train)?,
        })
    }

    /// All samples, those of arrays and tables in no box yet.
    fn read_freely(&self) -> Result<Samples> {
        let path = Path::new(&self.path);
        self.check_options()?;
        let known = |split: Split| Samples {
            train: split.train,
            test: Some(split.test),
        };
        let whole = |train: Dataset| Samples { train, test: None };
        Ok(match self.kind() {
            Kind::Digits => whole(digits()),
            Kind::Directory if is_cifar10(path) => known(load_cifar10(path)?),
            Kind::Directory if is_cifar100(path) => known(load_cifar100(path)?),
            Kind::Directory => known(load_idx(path)?),
            Kind::Archive => arrays::load_archive(path, self.scale, &self.shape)?,
            Kind::Array => {
                let beside = Beside {
                    labels: self.labels.as_deref(),
                    targets: self.targets.as_deref(),
                    weights: self.weights.as_deref(),
                };
                arrays::load_beside(path, beside, self.scale, &self.shape)?
            }
            Kind::Table => {
                let columns = Columns {
                    label: self.label_column.as_deref(),
                    targets: &self.target_columns,
                    weight: self.weight_column.as_deref(),
                };
                whole(table::load_table(path, columns, self.scale, &self.shape)?)
            }
            Kind::Unknown if path.exists() => {
                return Err(Error::DataFormat {
                    path: path.to_owned(),
                });
            }
            Kind::Unknown => {
                return Err(Error::NoData {
                    path: path.to_owned(),
                });
            }
        })
    }

    fn kind(&self) -> Kind {
        let name = self.path.strip_suffix(".gz").unwrap_or(&self.path);
        let ending = Path::new(name).extension().and_then(|e| e.to_str());
        match ending {
            _ if self.path == "digits" => Kind::Digits,
            _ if Path::new(&self.path).is_dir() => Kind::Directory,
            Some("npz") => Kind::Archive,
            Some("npy") => Kind::Array,
            Some("csv") => Kind::Table,
            _ => Kind::Unknown,
        }
    }

    /// Refuses options that would be without effect.
    fn check_options(&self) -> Result<()> {
        let kind = self.kind();
        let arrays = matches!(kind, Kind::Archive | Kind::Array | Kind::Table);
        let (array, table) = (kind != Kind::Array, kind != Kind::Table);
        let idle = [
            ("labels", self.labels.is_some() && array),
            ("targets", self.targets.is_some() && array),
            ("weights", self.weights.is_some() && array),
            ("label-column", self.label_column.is_some() && table),
            ("target-columns", !self.target_columns.is_empty() && table),
            ("weight-column", self.weight_column.is_some() && table),
            ("scale", self.scale != Scale::Auto && !arrays),
            ("shape", !self.shape.is_empty() && !arrays),
        ];
        let both = [
            (
                "labels",
                self.labels.is_some(),
                "targets",
                self.targets.is_some(),
            ),
            (
                "label-column",
                self.label_column.is_some(),
                "target-columns",
                !self.target_columns.is_empty(),
            ),
        ];
        if let Some((labels, _, targets, _)) = both.iter().find(|(_, a, _, b)| *a && *b) {
            return Err(data(format!(
                "{labels} and {targets} are both given, but samples have either classes or values; leave one of them out"
            )));
        }
        match idle.iter().find(|(_, idle)| *idle && kind != Kind::Unknown) {
            None => Ok(()),
            Some((option, _)) => Err(data(format!(
                "the option {option} does not apply to `{}`; leave it out",
                self.path
            ))),
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Digits,
    Directory,
    Archive,
    Array,
    Table,
    Unknown,
}

fn data(problem: String) -> Error {
    Error::Data { problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_the_digits() {
        let split = Source::default().load().unwrap();
        assert_eq!((split.train.samples(), split.test.samples()), (1438, 359));
    }

    #[test]
    fn a_table_is_split() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("two.csv");
        let lines: Vec<String> = (0..20).map(|i| format!("0.{i:02},{}", i % 2)).collect();
        std::fs::write(&path, lines.join("\n")).unwrap();
        let source = Source::new(path.to_string_lossy());
        let split = source.load().unwrap();
        assert_eq!((split.train.samples(), split.test.samples()), (16, 4));
        assert_eq!(source.load_all().unwrap().samples(), 20);
    }

    #[test]
    fn options_without_effect_and_missing_files_are_refused() {
        let labels = Source {
            labels: Some("y.npy".into()),
            ..Source::default()
        };
        let column = Source {
            label_column: Some("class".into()),
            ..Source::new("x.npz")
        };
        for source in [labels, column, Source::new("nowhere"), Source::new("x.npy")] {
            assert!(
                matches!(
                    source.load(),
                    Err(Error::Data { .. } | Error::DataFile { .. } | Error::NoData { .. })
                ),
                "{source:?}"
            );
        }
        let dir = tempfile::tempdir().unwrap();
        let present = dir.path().join("model.onnx");
        std::fs::write(&present, "").unwrap();
        let refused = Source::new(present.to_string_lossy()).load();
        assert!(matches!(refused, Err(Error::DataFormat { .. })));
        assert!(matches!(
            Source::new("none.csv").load(),
            Err(Error::Read { .. })
        ));
    }
}
