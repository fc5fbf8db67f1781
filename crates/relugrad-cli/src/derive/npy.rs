//! Inputs and labels in .npy files.

use std::path::Path;

use anyhow::{Context, Result, bail};
use ndarray::ArrayD;
use relugrad_io::load_npy;

/// The numbers of a file, which must be finite.
pub(super) fn read(path: &Path) -> Result<ArrayD<f64>> {
    Ok(load_npy(path)?.values)
}

/// The class indices of a file.
pub(super) fn read_labels(path: &Path) -> Result<Vec<usize>> {
    let array = read(path)?;
    if array.ndim() > 1 && array.len() != array.shape()[0] {
        bail!(
            "{} has shape {:?}; one label for each input is needed",
            path.display(),
            array.shape()
        );
    }
    let whole = |v: f64| (v >= 0.0 && v.fract() == 0.0 && v < 9e15).then_some(v as usize);
    let labels: Option<Vec<usize>> = array.iter().map(|&v| whole(v)).collect();
    labels.with_context(|| format!("{} must hold whole numbers of at least 0", path.display()))
}
