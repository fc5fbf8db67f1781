#![doc = include_str!("../README.md")]

mod error;
mod native;
mod onnx;
mod whole_file;

pub use error::{Error, Result};
pub use native::{FORMAT, MAX_WIDTH, Metadata, from_bytes, load, save, save_over, to_bytes};
pub use onnx::{OnnxModel, load_onnx, onnx_from_bytes};
pub use whole_file::write_whole;
