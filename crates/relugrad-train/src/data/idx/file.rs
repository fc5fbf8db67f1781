//! One IDX file of unsigned bytes, the format that came with the MNIST database (Y. LeCun, C.
//! Cortes, C. J. C. Burges).
//!
//! Integers are big-endian `u32`. Images: magic `0x00000803`, count, rows, columns, then a byte for
//! each pixel, row-major. Labels: magic `0x00000801`, count, then a byte for each label.
//!
//! A header may lie. Memory grows with the bytes that are really there, never with what the header
//! declares; and no more is read than the header declares and one byte to notice that there is
//! more.

use std::cmp::Ordering;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use relugrad_io::Budget;

use crate::data::file::{DataFile, read_error};
use crate::error::{Error, Result};

/// What a byte takes: itself and its `f32`.
const PRICE: usize = 1 + size_of::<f32>();

/// The first of the usual names under which there is a file.
pub(super) fn open(dir: &Path, stem: &str, kind: &str) -> Result<(PathBuf, DataFile)> {
    let names = ["-", "."].map(|dot| ["", ".gz"].map(|end| format!("{stem}{dot}{kind}{end}")));
    for name in names.as_flattened() {
        let path = dir.join(name);
        match DataFile::open(&path) {
            Ok(file) => return Ok((path, file)),
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Error::MissingFile {
        directory: dir.into(),
        expected: names.concat(),
    })
}

fn is_missing(error: &Error) -> bool {
    matches!(error, Error::Read { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

/// Images of one size, a byte for each pixel.
pub(super) struct Images {
    /// Number of images.
    pub(super) count: usize,
    /// Rows and columns.
    pub(super) size: [usize; 2],
    /// `count × rows × columns` bytes.
    pub(super) pixels: Vec<u8>,
}

/// A whole file of images.
pub(super) fn read_images(path: &Path, reader: impl Read, budget: &Budget) -> Result<Images> {
    let mut file = IdxReader {
        path,
        budget,
        what: "images",
        reader,
        done: 0,
    };
    let [count, rows, columns] = file.header(["images", "rows", "columns"])?;
    let pixels = file.body(&[count, rows, columns])?;
    // The product has passed the limit, so each of them fits.
    Ok(Images {
        count: count as usize,
        size: [rows as usize, columns as usize],
        pixels,
    })
}

/// A whole file of labels.
pub(super) fn read_labels(path: &Path, reader: impl Read, budget: &Budget) -> Result<Vec<u8>> {
    let mut file = IdxReader {
        path,
        budget,
        what: "labels",
        reader,
        done: 0,
    };
    let count: [u32; 1] = file.header(["labels"])?;
    file.body(&count)
}

/// An IDX file of unsigned bytes, read from start to end.
struct IdxReader<'a, R> {
    path: &'a Path,
    budget: &'a Budget,
    what: &'static str,
    reader: R,
    /// Number of bytes read so far.
    done: u64,
}

impl<R: Read> IdxReader<'_, R> {
    /// The `N` dimensions, whose names are given, after the magic number that goes with them.
    fn header<const N: usize>(&mut self, names: [&'static str; N]) -> Result<[u32; N]> {
        let length = 4 * (N as u64 + 1);
        let (expected, found) = (0x0800 + N as u32, self.u32(length)?);
        if expected != found {
            let (path, what) = (self.path.into(), self.what);
            return Err(Error::IdxMagic {
                path,
                what,
                expected,
                found,
            });
        }
        let mut dimensions = [0; N];
        for (dimension, what) in dimensions.iter_mut().zip(names) {
            *dimension = self.u32(length)?;
            if *dimension == 0 {
                return Err(Error::IdxZero {
                    path: self.path.into(),
                    what,
                });
            }
        }
        Ok(dimensions)
    }

    /// The elements of an array with these dimensions, after which the file must end.
    fn body(&mut self, dimensions: &[u32]) -> Result<Vec<u8>> {
        let (path, what) = (self.path.to_path_buf(), self.what);
        let shape: Vec<usize> = dimensions.iter().map(|&n| n as usize).collect();
        let needed = || format!("an array of {what} of shape {dimensions:?}");
        let length = self.budget.array(&shape, PRICE, needed);
        let length = length.map_err(|error| error.in_file(&path))? as u64;
        let expected = self.done + length;
        let bytes = self.up_to(length + 1)?;
        match self.done.cmp(&expected) {
            Ordering::Less => Err(self.truncated(expected)),
            Ordering::Equal => Ok(bytes),
            Ordering::Greater => Err(Error::IdxTrailing {
                path,
                what,
                expected,
            }),
        }
    }

    /// The next big-endian number of a header of `length` bytes.
    fn u32(&mut self, length: u64) -> Result<u32> {
        let bytes = self.up_to(4)?;
        match bytes.try_into() {
            Ok(bytes) => Ok(u32::from_be_bytes(bytes)),
            Err(_) => Err(self.truncated(length)),
        }
    }

    /// The next `limit` bytes, or fewer if the file ends before.
    fn up_to(&mut self, limit: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = self.reader.by_ref().take(limit).read_to_end(&mut bytes);
        self.done += read.map_err(|e| read_error(self.path, e))? as u64;
        Ok(bytes)
    }

    fn truncated(&self, expected: u64) -> Error {
        let (path, what, found) = (self.path.into(), self.what, self.done);
        Error::IdxTruncated {
            path,
            what,
            expected,
            found,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::read::MultiGzDecoder;
    use flate2::write::GzEncoder;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use std::io::Write;

    /// The bytes of a file with this magic number, these dimensions and these elements.
    fn idx(magic: u32, dimensions: &[u32], elements: &[u8]) -> Vec<u8> {
        let header = [&[magic], dimensions].concat();
        let mut bytes: Vec<u8> = header.iter().flat_map(|n| n.to_be_bytes()).collect();
        bytes.extend(elements);
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn images(bytes: &[u8]) -> Result<Images> {
        read_images(Path::new("images"), bytes, &budget(bytes))
    }

    fn budget(bytes: &[u8]) -> Budget {
        relugrad_io::Limits::default().budget(bytes.len() as u64)
    }

    fn labels(bytes: &[u8]) -> Result<Vec<u8>> {
        read_labels(Path::new("labels"), bytes, &budget(bytes))
    }

    #[test]
    fn images_and_labels_are_read() {
        let file = images(&idx(0x803, &[2, 1, 3], &[1, 2, 3, 4, 5, 255])).unwrap();
        assert_eq!((file.count, file.size), (2, [1, 3]));
        assert_eq!(file.pixels, [1, 2, 3, 4, 5, 255]);
        assert_eq!(
            labels(&idx(0x801, &[3], &[7, 0, 255])).unwrap(),
            [7, 0, 255]
        );
    }

    #[test]
    fn other_files_are_told_by_their_magic() {
        let e = labels(&idx(0x803, &[1, 1, 1], &[0])).unwrap_err();
        assert!(matches!(
            e,
            Error::IdxMagic {
                what: "labels",
                expected: 0x801,
                found: 0x803,
                ..
            }
        ));
        let e = images(b"<!DOCTYPE html>").err().unwrap();
        assert!(matches!(
            e,
            Error::IdxMagic {
                what: "images",
                expected: 0x803,
                found: 0x3c21_444f,
                ..
            }
        ));
    }

    #[test]
    fn each_zero_dimension_is_named() {
        for (dimensions, name) in [
            ([0, 1, 1], "images"),
            ([1, 0, 1], "rows"),
            ([1, 1, 0], "columns"),
        ] {
            let e = images(&idx(0x803, &dimensions, &[])).err().unwrap();
            assert!(matches!(e, Error::IdxZero { what, .. } if what == name));
        }
        let e = labels(&idx(0x801, &[0], &[])).unwrap_err();
        assert!(matches!(e, Error::IdxZero { what: "labels", .. }));
    }

    #[test]
    fn every_shorter_file_is_truncated() {
        let bytes = idx(0x803, &[2, 1, 3], &[1, 2, 3, 4, 5, 6]);
        for length in 0..bytes.len() {
            let needed = if length < 16 { 16 } else { 22 };
            let e = images(&bytes[..length]).err().unwrap();
            let Error::IdxTruncated {
                what: "images",
                expected,
                found,
                ..
            } = e
            else {
                panic!("{e}")
            };
            assert_eq!((expected, found), (needed, length as u64));
        }
    }

    #[test]
    fn reading_stops_one_byte_after_the_end() {
        let endless = |bytes: Vec<u8>| io::Cursor::new(bytes).chain(io::repeat(0));
        let some = budget(b"");
        let bytes = endless(idx(0x803, &[2, 1, 3], &[]));
        let e = read_images(Path::new("bomb"), bytes, &some).err().unwrap();
        assert!(matches!(
            e,
            Error::IdxTrailing {
                what: "images",
                expected: 22,
                ..
            }
        ));
        let bytes = endless(idx(0x801, &[5], &[]));
        let e = read_labels(Path::new("bomb"), bytes, &some).unwrap_err();
        assert!(matches!(
            e,
            Error::IdxTrailing {
                what: "labels",
                expected: 13,
                ..
            }
        ));
    }

    #[test]
    fn declared_sizes_are_not_believed() {
        let e = images(&idx(0x803, &[u32::MAX; 3], &[])).err().unwrap();
        assert!(e.to_string().contains("more than 16 EiB"), "{e}");
        let e = labels(&idx(0x801, &[1 << 30], &[]))
            .unwrap_err()
            .to_string();
        assert!(e.contains("needs 5 GiB of memory"), "{e}");
        assert!(e.contains("--file-memory SIZE"), "{e}");
        let e = labels(&idx(0x801, &[1 << 20], &[1])).unwrap_err();
        assert!(matches!(e, Error::IdxTruncated { found: 9, .. }));
    }

    /// Changes, removes or adds some bytes.
    fn mutated(bytes: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..rng.random_range(1..4) {
            let position = rng.random_range(0..=bytes.len());
            match rng.random_range(0..4) {
                0 => bytes.truncate(position),
                1 => bytes.insert(position, rng.random()),
                _ if position < bytes.len() => bytes[position] ^= 1 << rng.random_range(0..8),
                _ => {}
            }
        }
        bytes
    }

    #[test]
    fn a_mutated_file_is_refused_or_consistent() {
        let bytes = idx(0x803, &[2, 1, 3], &[1, 2, 3, 4, 5, 6]);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for _ in 0..20_000 {
            let bytes = mutated(&bytes, &mut rng);
            if let Ok(file) = images(&bytes) {
                assert_eq!(file.count * file.size[0] * file.size[1], file.pixels.len());
                assert_eq!(file.pixels, bytes[16..]);
            }
        }
    }

    /// The checksum of gzip sees to it.
    #[test]
    fn a_mutated_gzip_file_is_refused_or_means_the_same() {
        let whole = gzip(&idx(0x801, &[6], &[1, 2, 3, 4, 5, 6]));
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        for _ in 0..20_000 {
            let bytes = mutated(&whole, &mut rng);
            let some = budget(&bytes);
            match read_labels(Path::new("labels.gz"), MultiGzDecoder::new(&*bytes), &some) {
                Ok(labels) => assert_eq!(labels, [1, 2, 3, 4, 5, 6]),
                Err(e) => assert!(!matches!(e, Error::Read { .. }), "{e}"),
            }
        }
    }
}
