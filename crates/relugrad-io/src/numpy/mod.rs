//! NumPy's arrays: .npy files of any type of numbers, and .npz archives of them.

mod entries;
mod header;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use ndarray::{ArrayD, IxDyn, ShapeBuilder};
use zip::ZipArchive;

use self::entries::Kind;
use self::header::Header;
use crate::error::{Error, Result};
use crate::file::open_file;
use crate::limits::{Budget, Limits};

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
/// [`Error::Read`], [`Error::NotReadable`]; within [`Error::InFile`], [`Error::Numpy`] for a
/// damaged file or another type of entries, [`Error::NumpyNotFinite`], and [`Error::Memory`].
pub fn load_npy(path: impl AsRef<Path>) -> Result<NumpyArray> {
    let path = path.as_ref();
    let (file, length) = open_file(path)?;
    let budget = Limits::of_process().budget(length);
    array(file, length, &budget).map_err(|problem| problem.in_file(path))
}

/// Reads an .npy file from its bytes.
///
/// # Errors
/// [`Error::Numpy`], [`Error::NumpyNotFinite`], [`Error::Memory`].
pub fn npy_from_bytes(bytes: &[u8]) -> Result<NumpyArray> {
    let length = bytes.len() as u64;
    array(bytes, length, &Limits::of_process().budget(length))
}

/// An .npz archive of arrays, compressed or not.
pub struct NpzArchive {
    path: PathBuf,
    archive: ZipArchive<File>,
    budget: Budget,
}

impl NpzArchive {
    /// Opens an archive.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::NotReadable`], and [`Error::Numpy`] within [`Error::InFile`].
    pub fn open(path: impl AsRef<Path>) -> Result<NpzArchive> {
        let path = path.as_ref();
        let (file, length) = open_file(path)?;
        let archive = ZipArchive::new(file).map_err(|e| damaged(e).in_file(path))?;
        Ok(NpzArchive {
            path: path.to_owned(),
            archive,
            budget: Limits::of_process().budget(length),
        })
    }

    /// Reads the array that has the first of these names that occurs.
    ///
    /// # Errors
    /// Within [`Error::InFile`], [`Error::NumpyMissing`] if none of them occurs, and as for
    /// [`load_npy`]; the arrays of an archive share what it may take.
    pub fn read(&mut self, names: &[&str]) -> Result<NumpyArray> {
        self.find(names)
            .map_err(|problem| problem.in_file(&self.path))
    }

    fn find(&mut self, names: &[&str]) -> Result<NumpyArray> {
        let member = |name: &&str| {
            let plain = self.archive.index_for_name(name);
            plain.or_else(|| self.archive.index_for_name(&format!("{name}.npy")))
        };
        let Some(index) = names.iter().find_map(member) else {
            let short = |name: &str| name.strip_suffix(".npy").unwrap_or(name).to_owned();
            return Err(Error::NumpyMissing {
                wanted: names.iter().map(|name| (*name).to_owned()).collect(),
                found: self.archive.file_names().take(100).map(short).collect(),
            });
        };
        let member = self.archive.by_index(index).map_err(damaged)?;
        let length = member.size();
        array(member, length, &self.budget)
    }
}

/// The array of an .npy file of `length` bytes, which are compared with its shape before anything
/// is allocated.
fn array(mut reader: impl Read, length: u64, budget: &Budget) -> Result<NumpyArray> {
    let header = Header::read(&mut reader, length, budget)?;
    let kind = Kind::of(&header.kind)?;
    let shape = &header.shape;
    // An array in Fortran's order is laid out anew.
    let copies = if header.fortran { 2 } else { 1 };
    let what = || format!("an array of shape {shape:?}");
    let bytes = shape
        .iter()
        .try_fold(kind.size as u64, |p, &n| p.checked_mul(n as u64));
    let expected = bytes.and_then(|bytes| bytes.checked_add(header.length));
    if expected != Some(length) {
        return Err(Error::Numpy {
            problem: format!(
                "it has {length} bytes, but {} asks for {}; it is damaged or was not written to its end, so copy or \
                 save it again",
                what(),
                expected.map_or_else(|| "more than any file has".into(), |n| n.to_string())
            ),
        });
    }
    let count = budget.array(shape, copies * size_of::<f64>(), what)?;
    let values = kind.read(reader, count)?;
    let values = ArrayD::from_shape_vec(IxDyn(shape).set_f(header.fortran), values);
    let values = values.map_err(damaged)?;
    finite(NumpyArray {
        values: match header.fortran {
            true => values.as_standard_layout().into_owned(),
            false => values,
        },
        bytes: kind.bytes,
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
        problem: format!("it cannot be read as an array of NumPy: {error}; copy or save it again"),
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
        let little = npy_from_bytes(&file('<', [0x00, 0x3e, 0x00, 0xc0])).unwrap();
        let big = npy_from_bytes(&file('>', [0x3e, 0x00, 0xc0, 0x00])).unwrap();
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
        let mut archive = NpzArchive::open(&path).unwrap();
        let x = archive.read(&["x", "x_train"]).unwrap();
        assert!(x.bytes && x.values == pixels.mapv(f64::from).into_dyn());
        let y = archive.read(&["y"]).unwrap();
        assert!(!y.bytes && y.values == ndarray::array![3.0, 4.0].into_dyn());
        let error = archive.read(&["z"]).unwrap_err();
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

    #[test]
    fn fortran_order_and_empty_arrays_are_read() {
        let npy = |text: &str, data: &[u8]| {
            let length = (text.len() as u32).to_le_bytes();
            npy_from_bytes(&[&b"\x93NUMPY\x03\x00"[..], &length, text.as_bytes(), data].concat())
        };
        let fortran = "{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3)}";
        let array = npy(fortran, &[1, 4, 2, 5, 3, 6]).unwrap();
        assert_eq!(array.values.as_slice().unwrap(), [1., 2., 3., 4., 5., 6.]);
        let empty = "{'descr': '<f8', 'fortran_order': False, 'shape': (0, 3)}";
        assert_eq!(npy(empty, &[]).unwrap().values.shape(), [0, 3]);
        for shape in [
            "(0, 4611686018427387904)",
            "(4294967296, 4294967296, 0)",
            "(1000000000000,)",
        ] {
            let huge = empty.replace("(0, 3)", shape);
            assert!(npy(&huge, &[]).is_err(), "{shape}");
        }
    }

    #[test]
    fn an_archive_that_unfolds_without_end_is_refused_before_it_does() {
        use std::io::Write;
        use zip::write::SimpleFileOptions;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bomb.npz");
        let mut archive = zip::ZipWriter::new(File::create(&path).unwrap());
        let options =
            SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
        let text = "{'descr': '|u1', 'fortran_order': False, 'shape': (20000000,)}";
        for (name, header) in [("x.npy", text), ("y.npy", &text.replace("20000000", "3"))] {
            archive.start_file(name, options).unwrap();
            archive.write_all(b"\x93NUMPY\x01\x00").unwrap();
            archive
                .write_all(&(header.len() as u16).to_le_bytes())
                .unwrap();
            archive.write_all(header.as_bytes()).unwrap();
            for _ in 0..20 {
                archive.write_all(&vec![0; 1_000_000]).unwrap();
            }
        }
        archive.finish().unwrap();
        let mut archive = NpzArchive::open(&path).unwrap();
        let error = archive.read(&["x"]).unwrap_err();
        assert!(matches!(
            error.problem(),
            Error::Memory {
                needed: 160_000_000,
                ..
            }
        ));
        let error = archive.read(&["y"]).unwrap_err();
        assert!(matches!(error.problem(), Error::Numpy { .. }));
    }
}
