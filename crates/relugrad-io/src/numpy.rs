//! NumPy's arrays: .npy files of any type of numbers, and .npz archives of them.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use half::f16;
use ndarray::{ArrayD, IxDyn, OwnedRepr};
use ndarray_npy::{
    NpzReader, ReadDataError, ReadNpyError, ReadNpyExt, ReadNpzError, ReadableElement,
};
use py_literal::Value;

use crate::error::{Error, Result};

/// An array of a NumPy file.
#[derive(Clone, Debug, PartialEq)]
pub struct NumpyArray {
    /// Its numbers, which are finite.
    pub values: ArrayD<f64>,
    /// Whether they are unsigned bytes in the file, as pixels often are.
    pub bytes: bool,
}

/// Reads an .npy file of any integers, floating-point numbers or truth values.
///
/// # Errors
/// [`Error::Read`]; within [`Error::InFile`], [`Error::Numpy`] for a damaged file or another type of entries, and
/// [`Error::NumpyNotFinite`].
pub fn load_npy(path: impl AsRef<Path>) -> Result<NumpyArray> {
    let path = path.as_ref();
    let bytes = std::fs::read(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    any(&mut Source::Bytes(&bytes)).map_err(|problem| problem.in_file(path))
}

/// Reads from an .npz archive the array that has the first of these names that occurs.
///
/// # Errors
/// As for [`load_npy`]; [`Error::NumpyMissing`] if none of them occurs.
pub fn load_npz(path: impl AsRef<Path>, names: &[&str]) -> Result<NumpyArray> {
    let path = path.as_ref();
    let file = File::open(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    from_archive(file, names).map_err(|problem| problem.in_file(path))
}

fn from_archive(file: File, names: &[&str]) -> Result<NumpyArray> {
    let mut archive = NpzReader::new(file).map_err(damaged)?;
    let found = archive.names().map_err(damaged)?;
    let short = |name: &String| name.strip_suffix(".npy").unwrap_or(name).to_owned();
    let place = |wanted: &&str| found.iter().position(|name| short(name) == **wanted);
    match names.iter().find_map(place) {
        Some(index) => any(&mut Source::Archive(archive, index)),
        None => Err(Error::NumpyMissing {
            wanted: names.iter().map(|name| (*name).to_owned()).collect(),
            found: found.iter().map(short).collect(),
        }),
    }
}

/// Where an array is. The type of its entries comes before them, so a wrong guess costs little.
enum Source<'a> {
    Bytes(&'a [u8]),
    Archive(NpzReader<File>, usize),
}

impl Source<'_> {
    fn read<T: ReadableElement>(&mut self) -> std::result::Result<ArrayD<T>, ReadNpzError> {
        match self {
            Source::Bytes(bytes) => Ok(ArrayD::read_npy(Cursor::new(*bytes))?),
            Source::Archive(archive, index) => archive.by_index::<OwnedRepr<T>, IxDyn>(*index),
        }
    }

    /// The array if its entries are of this type.
    fn typed<T: ReadableElement + Copy>(
        &mut self,
        wide: fn(T) -> f64,
    ) -> Result<Option<ArrayD<f64>>> {
        match self.read::<T>() {
            Ok(array) => {
                // In logical order, whatever the order in the file.
                let values = array.iter().map(|&entry| wide(entry)).collect();
                let values = ArrayD::from_shape_vec(array.raw_dim(), values);
                Ok(Some(values.expect("the same number of entries")))
            }
            Err(ReadNpzError::Npy(ReadNpyError::WrongDescriptor(_))) => Ok(None),
            Err(error) => Err(damaged(error)),
        }
    }
}

fn any(source: &mut Source) -> Result<NumpyArray> {
    type Reader = fn(&mut Source) -> Result<Option<ArrayD<f64>>>;
    let readers: [Reader; 12] = [
        |s| s.typed::<u8>(f64::from),
        |s| s.typed::<f64>(|v| v),
        |s| s.typed::<f32>(f64::from),
        |s| s.typed::<Half>(|v| v.0.to_f64()),
        |s| s.typed::<i64>(|v| v as f64),
        |s| s.typed::<i32>(f64::from),
        |s| s.typed::<i16>(f64::from),
        |s| s.typed::<i8>(f64::from),
        |s| s.typed::<u64>(|v| v as f64),
        |s| s.typed::<u32>(f64::from),
        |s| s.typed::<u16>(f64::from),
        |s| s.typed::<bool>(f64::from),
    ];
    for (i, reader) in readers.iter().enumerate() {
        if let Some(values) = reader(source)? {
            return finite(NumpyArray {
                values,
                bytes: i == 0,
            });
        }
    }
    Err(Error::Numpy {
        problem: "its entries are of a type that is not read; save them as float64 or float32, labels as int64"
            .into(),
    })
}

fn finite(array: NumpyArray) -> Result<NumpyArray> {
    let shape = array.values.shape();
    match array.values.iter().position(|value| !value.is_finite()) {
        None => Ok(array),
        Some(entry) => Err(Error::NumpyNotFinite {
            index: crate::native::index(shape, entry),
            value: *array.values.iter().nth(entry).expect("it was found there"),
        }),
    }
}

fn damaged(error: impl std::fmt::Display) -> Error {
    Error::Numpy {
        problem: format!("it cannot be read as an array of NumPy: {error}"),
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
    ) -> std::result::Result<Vec<Self>, ReadDataError> {
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
        let little = any(&mut Source::Bytes(&file('<', [0x00, 0x3e, 0x00, 0xc0]))).unwrap();
        let big = any(&mut Source::Bytes(&file('>', [0x3e, 0x00, 0xc0, 0x00]))).unwrap();
        assert_eq!(little.values.into_raw_vec_and_offset().0, [1.5, -2.0]);
        assert_eq!(big.values.into_raw_vec_and_offset().0, [1.5, -2.0]);
    }

    #[test]
    fn archives_are_searched_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("two.npz");
        let mut writer = ndarray_npy::NpzWriter::new(File::create(&path).unwrap());
        let pixels = ndarray::array![[0u8, 255], [7, 1]];
        writer.add_array("x_train", &pixels).unwrap();
        writer.add_array("y", &ndarray::array![3i32, 4]).unwrap();
        writer.finish().unwrap();
        let x = load_npz(&path, &["x", "x_train"]).unwrap();
        assert!(x.bytes && x.values == pixels.mapv(f64::from).into_dyn());
        let y = load_npz(&path, &["y"]).unwrap();
        assert!(!y.bytes && y.values == ndarray::array![3.0, 4.0].into_dyn());
        let error = load_npz(&path, &["z"]).unwrap_err();
        assert!(
            matches!(error.problem(), Error::NumpyMissing { found, .. } if *found == ["x_train", "y"])
        );
    }

    #[test]
    fn what_is_not_finite_or_damaged_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        ndarray_npy::write_npy(&path, &ndarray::array![[1.0, 2.0], [3.0, f64::NAN]]).unwrap();
        let error = load_npy(&path).unwrap_err();
        assert!(matches!(error.problem(), Error::NumpyNotFinite { index, .. } if *index == [1, 1]));
        let whole = std::fs::read(&path).unwrap();
        for length in [0, 5, 60, whole.len() - 1] {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(matches!(
                load_npy(&path).unwrap_err().problem(),
                Error::Numpy { .. }
            ));
        }
    }
}
