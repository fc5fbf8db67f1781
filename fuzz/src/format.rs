//! The formats, and how a file of each is read.

use std::path::Path;

use clap::ValueEnum;

/// A format of files that relugrad reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Format {
    /// Networks of other programs.
    Onnx,
    /// Arrays of NumPy.
    Npy,
    /// Archives of them.
    Npz,
    /// relugrad's own models.
    Safetensors,
    /// Interrupted trainings.
    Checkpoint,
    /// Weights alone, as PyTorch saves them.
    State,
    /// Dense networks in text.
    Nnet,
    /// Images and labels of MNIST, also compressed.
    Idx,
    /// Records of CIFAR-10.
    Cifar,
    /// Tables, also compressed.
    Csv,
    /// Descriptions of networks.
    Architecture,
    /// Settings of a training.
    Configuration,
    /// What a comparison has measured.
    Results,
}

impl Format {
    /// All of them.
    pub fn all() -> &'static [Format] {
        Format::value_variants()
    }

    /// The name of its folder in the corpus.
    pub fn name(self) -> String {
        let value = self.to_possible_value().expect("no format is hidden");
        value.get_name().to_owned()
    }

    /// Whether its files are texts.
    pub(crate) fn is_text(self) -> bool {
        use Format::*;
        matches!(self, Nnet | Csv | Architecture | Configuration | Results)
    }

    /// Whether its files begin with the length of their header.
    pub(crate) fn begins_with_length(self) -> bool {
        matches!(
            self,
            Format::Safetensors | Format::Checkpoint | Format::State
        )
    }

    /// Reads a file and uses what is read; whether it was accepted. `folder` is for formats that
    /// are read from files.
    ///
    /// # Panics
    /// If what was accepted does not hold what it should.
    pub fn read(self, name: &str, bytes: &[u8], folder: &Path) -> bool {
        use crate::reading::*;
        match self {
            Format::Onnx => onnx(bytes),
            Format::Npy => npy(bytes),
            Format::Npz => npz(bytes, folder),
            Format::Safetensors => safetensors(bytes),
            Format::Checkpoint => checkpoint(bytes),
            Format::State => state(bytes),
            Format::Nnet => nnet(bytes),
            Format::Idx => idx(name, bytes, folder),
            Format::Cifar => cifar(bytes, folder),
            Format::Csv => csv(name, bytes, folder),
            Format::Architecture => architecture(bytes),
            Format::Configuration => configuration(bytes),
            Format::Results => results(bytes),
        }
    }
}
