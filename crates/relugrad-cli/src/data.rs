//! The option `--data`.

use std::convert::Infallible;
use std::path::PathBuf;

use anyhow::anyhow;
use relugrad_train::data::{Split, digits, is_cifar10, load_cifar10, load_idx, stratified_split};

use crate::failure::Failure;

/// Where samples come from.
#[derive(Clone, Debug)]
pub(crate) enum Data {
    Digits,
    Directory(PathBuf),
}

impl Data {
    /// Reads the option.
    pub(crate) fn parse(text: &str) -> Result<Data, Infallible> {
        Ok(match text {
            "digits" => Data::Digits,
            directory => Data::Directory(directory.into()),
        })
    }

    /// Training and test samples; `test_fraction` and `seed` split the digits.
    pub(crate) fn load(&self, test_fraction: f64, seed: u64) -> Result<Split, Failure> {
        match self {
            Data::Digits => Ok(stratified_split(&digits(), test_fraction, seed)?),
            Data::Directory(directory) if is_cifar10(directory) => Ok(load_cifar10(directory)?),
            Data::Directory(directory) if directory.is_dir() => Ok(load_idx(directory)?),
            Data::Directory(directory) => Err(Failure::Failed(anyhow!(
                "there is no data directory {}; give `digits` or a directory with IDX files or CIFAR-10 batches",
                directory.display()
            ))),
        }
    }
}
