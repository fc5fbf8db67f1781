#![doc = include_str!("../README.md")]
// A new variant does not compile until every match has said what it means there.
#![warn(clippy::wildcard_enum_match_arm)]
// Whoever calls decides what is shown, and where.
#![cfg_attr(not(test), deny(clippy::print_stderr, clippy::print_stdout))]

mod error;
mod file;
mod folder;
mod format;
mod formula;
mod limits;
mod model;
mod native;
mod nnet;
mod numpy;
#[cfg(feature = "onnx")]
mod onnx;
mod selection;
mod state;
mod text;
mod whole_file;

pub use error::{Error, Result};
pub use file::{open_file, read_text};
pub use folder::{Earlier, GrowingFile, OutputFolder, read_result};
pub use format::{Format, load_model, load_model_with};
pub use limits::{Budget, Limits};
pub use model::{LeftOut, Metadata, Model};
pub use native::{Checkpoint, FORMAT, MAX_WIDTH, from_bytes, load, save, save_over, to_bytes};
pub use nnet::{load_nnet, nnet_from_str};
pub use numpy::{NpzArchive, NumpyArray, load_npy, npy_from_bytes};
#[cfg(feature = "onnx")]
pub use onnx::{load_onnx, load_onnx_with, onnx_from_bytes, onnx_runs_in_double, onnx_to_bytes};
pub use selection::Selection;
pub use state::StateDict;
pub use text::printable;
pub use whole_file::{check_output, write_whole};
