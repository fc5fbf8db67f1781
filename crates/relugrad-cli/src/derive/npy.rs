//! Reading .npy files of any type of numbers.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use anyhow::{Context, Result, bail};
use half::f16;
use ndarray::ArrayD;
use ndarray_npy::{ReadDataError, ReadNpyError, ReadNpyExt, ReadableElement};
use py_literal::Value;

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
    let readers: [Reader; 12] = [
        |b| typed::<f64>(b, |v| v),
        |b| typed::<f32>(b, f64::from),
        |b| typed::<Half>(b, |v| v.0.to_f64()),
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

/// A number of half precision, `float16` of NumPy.
#[derive(Clone, Copy)]
struct Half(f16);

impl ReadableElement for Half {
    fn read_to_end_exact_vec<R: Read>(
        reader: R,
        descriptor: &Value,
        length: usize,
    ) -> Result<Vec<Self>, ReadDataError> {
        let bits = match descriptor {
            Value::String(name) if name == "<f2" => "<u2",
            Value::String(name) if name == ">f2" => ">u2",
            _ => return Err(ReadDataError::WrongDescriptor(descriptor.clone())),
        };
        let bits = Value::String(bits.to_owned());
        let bits = u16::read_to_end_exact_vec(reader, &bits, length)?;
        let half = |&bits: &u16| Half(f16::from_bits(bits));
        Ok(bits.iter().map(half).collect())
    }
}

/// Whether something is at a path already.
pub(super) fn exists(path: &Path) -> bool {
    File::open(path).is_ok() || path.exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_is_read_in_both_byte_orders() {
        let file = |order: char, data: [u8; 4]| {
            let dictionary =
                format!("{{'descr': '{order}f2', 'fortran_order': False, 'shape': (2,), }}");
            let header = format!("{dictionary:<117}\n");
            let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
            bytes.extend((header.len() as u16).to_le_bytes());
            bytes.extend(header.as_bytes());
            bytes.extend(data);
            bytes
        };
        // 1.5 is 3e00, −2 is c000.
        let little = any(&file('<', [0x00, 0x3e, 0x00, 0xc0])).unwrap();
        let big = any(&file('>', [0x3e, 0x00, 0xc0, 0x00])).unwrap();
        assert_eq!(little.into_raw_vec_and_offset().0, [1.5, -2.0]);
        assert_eq!(big.into_raw_vec_and_offset().0, [1.5, -2.0]);
    }
}
