//! The native format: safetensors with the graph in the header's metadata.

mod checkpoint;
mod container;
mod graph;
mod read;
mod write;

use std::collections::HashSet;
use std::path::Path;

use relugrad::{Network, Scalar};

use crate::error::{Error, Result};
use crate::file::read_file;
use crate::model::{Metadata, Model};
use crate::whole_file;

pub use checkpoint::Checkpoint;
pub(crate) use container::looks_right;
pub use graph::{FORMAT, MAX_WIDTH};
pub use read::from_bytes;
pub(crate) use read::{is_single, tensors};
pub use write::to_bytes;

/// The metadata key under which the graph is.
const GRAPH_KEY: &str = "relugrad";

/// The metadata key under which a checkpoint's checksum is.
const CHECKSUM_KEY: &str = "checksum";

/// How the names of a checkpoint's arrays beside the model begin.
const BESIDE: &str = "training/";

/// Writes a network to a new file, whole or not at all.
///
/// The bytes go to a temporary file in the same folder, which is synced and then renamed.
///
/// # Errors
/// [`Error::Exists`](crate::Error::Exists) if there is something at `path` already,
/// [`Error::Write`](crate::Error::Write), and the errors of [`to_bytes`] within
/// [`Error::InFile`](crate::Error::InFile). After an error `path` is as before.
pub fn save<T: Scalar>(
    path: impl AsRef<Path>,
    network: &Network<T>,
    metadata: &Metadata,
) -> Result<()> {
    write(path.as_ref(), network, metadata, false)
}

/// [`save`], but a file that exists at `path` is replaced.
///
/// # Errors
/// [`Error::Write`](crate::Error::Write), and the errors of [`to_bytes`] within
/// [`Error::InFile`](crate::Error::InFile). After an error `path` is as before.
pub fn save_over<T: Scalar>(
    path: impl AsRef<Path>,
    network: &Network<T>,
    metadata: &Metadata,
) -> Result<()> {
    write(path.as_ref(), network, metadata, true)
}

fn write<T: Scalar>(
    path: &Path,
    network: &Network<T>,
    metadata: &Metadata,
    replace: bool,
) -> Result<()> {
    let bytes = to_bytes(network, metadata).map_err(|problem| problem.in_file(path))?;
    whole_file::write_whole(path, &bytes, replace)
}

/// Reads a network and the strings saved with it.
///
/// `T` need not be the precision of the file: `f32` weights are exact in `f64`, and `f64` weights
/// are rounded to the nearest `f32`.
///
/// # Errors
/// [`Error::Read`](crate::Error::Read), [`Error::NotReadable`](crate::Error::NotReadable), and the
/// errors of [`from_bytes`] within [`Error::InFile`](crate::Error::InFile).
pub fn load<T: Scalar>(path: impl AsRef<Path>) -> Result<(Network<T>, Metadata)> {
    let path = path.as_ref();
    let (bytes, budget) = read_file(path, container::looks_right)?;
    read::read(&bytes, &budget).map_err(|problem| problem.in_file(path))
}

/// Reads a network as a model, which knows the precision of its file.
pub(crate) fn load_model(path: &Path) -> Result<Model> {
    let (bytes, budget) = read_file(path, container::looks_right)?;
    let read = || {
        let (network, metadata) = read::read::<f64>(&bytes, &budget)?;
        let layout = network.parameters().layout().iter();
        let names: HashSet<&str> = layout.map(|info| info.name()).collect();
        // Numbers that are not learned stay in double precision.
        let single = is_single(&bytes, &budget, |name| names.contains(name))?;
        Ok(Model::own(network, metadata, Vec::new()).of_precision(single))
    };
    read().map_err(|problem: Error| problem.in_file(path))
}

/// Where the `entry`-th number of a row-major array is.
pub(crate) fn index(shape: &[usize], entry: usize) -> Vec<usize> {
    let mut rest = entry;
    let mut index: Vec<usize> = shape
        .iter()
        .rev()
        .map(|&n| {
            let i = rest % n.max(1);
            rest /= n.max(1);
            i
        })
        .collect();
    index.reverse();
    index
}
