//! The options of `relugrad regions`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum, value_parser};

use crate::data::TestData;
use crate::loss::LossOption;
use crate::model::ModelFile;
use crate::threads::ThreadOption;
use crate::values::{count, non_negative, positive, whole};

/// Show the activation regions of a model: how many, how far their walls are, and pictures
///
/// A ReLU network is affine in each activation region. Without --slice or --segment this counts the
/// regions that the test samples lie in, measures the exact distances to the nearest kink and to
/// the decision boundary, and counts the kinks between pairs of samples. With --slice it finds
/// every region in a plane through the input space as a polygon, by cutting and not by sampling;
/// with --segment it follows the loss from one input to another, with its exact derivative and all
/// its jumps. Everything is computed in f64.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  relugrad regions model.safetensors
  relugrad regions model.safetensors --slice 0,1,2 --svg slice.svg
  relugrad regions model.onnx --data mnist/ --slice 3,17,42 --colour jacobian --svg slice.svg --polygons slice.json
  relugrad regions model.safetensors --slice-file plane.npy --extent 0.5 --svg around.svg
  relugrad regions model.safetensors --segment 0,5 --svg segment.svg

plane.npy holds three rows: a point and two directions with --extent, otherwise three points.")]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(super) model: ModelFile,

    #[command(flatten)]
    pub(super) data: TestData,

    #[command(flatten)]
    pub(super) loss: LossOption,

    /// Tell at most this many samples into regions, from the first on
    #[arg(long, value_name = "N", default_value = "1000", value_parser = count)]
    pub(super) samples: usize,

    /// Measure distances for at most this many of them; each costs up to a backward row for every
    /// gate
    #[arg(long, value_name = "N", default_value = "100", value_parser = whole::<usize>)]
    pub(super) measure: usize,

    /// Pairs of samples of one class, and as many of different classes, between which kinks are
    /// counted
    #[arg(long, value_name = "N", default_value = "100", value_parser = value_parser!(u32).range(0..=100_000))]
    pub(super) pairs: u32,

    /// Step h of CURE, whose change of the input gradient is split into its smooth part and its
    /// kinks
    #[arg(long, value_name = "H", default_value = "1.5", value_parser = non_negative)]
    pub(super) cure_step: f64,

    /// Seed of the choice of pairs
    #[arg(long, value_name = "SEED", default_value = "0", value_parser = whole::<u64>)]
    pub(super) seed: u64,

    /// Find all regions in the plane through three samples, by their numbers from 0
    #[arg(
        long,
        value_name = "A,B,C",
        value_delimiter = ',',
        num_args = 1,
        group = "picture",
        help_heading = "Pictures"
    )]
    pub(super) slice: Vec<usize>,

    /// The same through the three rows of an .npy file
    #[arg(
        long,
        value_name = "FILE",
        group = "picture",
        help_heading = "Pictures"
    )]
    pub(super) slice_file: Option<PathBuf>,

    /// The second and third row of that file are directions, and the window reaches so far along
    /// each to both sides
    #[arg(long, value_name = "LENGTH", requires = "slice_file", value_parser = positive, help_heading = "Pictures")]
    pub(super) extent: Option<f64>,

    /// How far the window reaches beyond the three points, as a share of its sides
    #[arg(long, value_name = "SHARE", default_value = "0.25", value_parser = non_negative, help_heading = "Pictures")]
    pub(super) margin: f64,

    /// What the colours of a slice tell [default: class; of samples with values jacobian]
    #[arg(long, value_name = "WHAT", help_heading = "Pictures")]
    pub(super) colour: Option<Colour>,

    /// The most regions of a slice; if there are more, these are shown, and the exit code is 1
    #[arg(long, value_name = "N", default_value = "200000", value_parser = count, help_heading = "Pictures")]
    pub(super) limit: usize,

    /// Follow the loss of the first sample's label or values from one sample to another, by their
    /// numbers from 0
    #[arg(
        long,
        value_name = "A,B",
        value_delimiter = ',',
        num_args = 1,
        group = "picture",
        help_heading = "Pictures"
    )]
    pub(super) segment: Vec<usize>,

    /// Write the picture to this file
    #[arg(
        long,
        value_name = "FILE",
        requires = "picture",
        help_heading = "Pictures"
    )]
    pub(super) svg: Option<PathBuf>,

    /// Write all polygons, or all points of the segment, to this file as JSON
    #[arg(
        long,
        value_name = "FILE",
        requires = "picture",
        help_heading = "Pictures"
    )]
    pub(super) polygons: Option<PathBuf>,

    /// Replace files that exist
    #[arg(long)]
    pub(super) overwrite: bool,

    /// Print the result as one line of JSON instead of text
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    pub(super) threads: ThreadOption,
}

/// What the colours of a slice tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Colour {
    /// The predicted class
    Class,
    /// `‖J‖_F`, constant in each region
    Jacobian,
    /// `‖∇ₓℓ‖₂` in the middle of each region, for the label of the first sample
    InputGradient,
    /// `‖H‖_F` of the loss in the middle of each region
    Curvature,
}

impl Colour {
    /// What it is called in a picture.
    pub(super) fn title(self) -> &'static str {
        match self {
            Colour::Class => "predicted class",
            Colour::Jacobian => "‖J‖_F",
            Colour::InputGradient => "‖∇ₓℓ‖₂",
            Colour::Curvature => "‖H‖_F",
        }
    }
}

impl Arguments {
    /// The files that are read.
    pub(super) fn inputs(&self) -> Vec<&Path> {
        let files = self.model.files().chain(self.data.files());
        files.chain(self.slice_file.as_deref()).collect()
    }
}
