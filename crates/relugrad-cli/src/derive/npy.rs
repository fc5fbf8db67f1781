//! Reading .npy files of any type of numbers.

use std::fs::File;
use std::io::Cursor;
use std::path::Path;

use anyhow::{Context, Result, bail};
use ndarray::ArrayD;
use ndarray_npy::{ReadNpyError, ReadNpyExt, ReadableElement};

/// The numbers of a file, which must be finite.
pub(super) fn read(path: &Path) -> Result<ArrayD<f64>> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let array = any(&bytes).with_context(|| format!("{} cannot be read", path.display()))?;
    if let Some((index, value)) = array.indexed_iter().find(|(_, v)| !v.is_finite()) {
        let index: Vec<usize> = (0..array.ndim()).map(|axis| index[axis]).collect();
        bail!(
            "{}: the entry at {index:?} is {value}; all must be finite",
            path.display()
        );
    }
    Ok(array)
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

fn any(bytes: &[u8]) -> Result<ArrayD<f64>> {
    type Reader = fn(&[u8]) -> Result<Option<ArrayD<f64>>>;
    let readers: [Reader; 11] = [
        |b| typed::<f64>(b, |v| v),
        |b| typed::<f32>(b, f64::from),
        |b| typed::<i64>(b, |v| v as f64),
        |b| typed::<i32>(b, f64::from),
        |b| typed::<i16>(b, f64::from),
        |b| typed::<i8>(b, f64::from),
        |b| typed::<u64>(b, |v| v as f64),
        |b| typed::<u32>(b, f64::from),
        |b| typed::<u16>(b, f64::from),
        |b| typed::<u8>(b, f64::from),
        |b| typed::<bool>(b, f64::from),
    ];
    for reader in readers {
        if let Some(array) = reader(bytes)? {
            return Ok(array);
        }
    }
    bail!(
        "its numbers are of a type that is not read; save them as float64 or float32, labels as int64"
    )
}

/// The array if its numbers are of this type.
fn typed<T: ReadableElement + Copy>(
    bytes: &[u8],
    wide: fn(T) -> f64,
) -> Result<Option<ArrayD<f64>>> {
    match ArrayD::<T>::read_npy(Cursor::new(bytes)) {
        Ok(array) => Ok(Some(array.mapv(wide))),
        Err(ReadNpyError::WrongDescriptor(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether something is at a path already.
pub(super) fn exists(path: &Path) -> bool {
    File::open(path).is_ok() || path.exists()
}
