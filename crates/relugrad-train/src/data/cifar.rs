//! CIFAR-10 in its binary form (Krizhevsky 2009): batches of records of one label byte and 3 × 32 × 32 pixel bytes.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use ndarray::Array2;

use super::{Dataset, Split};
use crate::error::{Error, Result};

/// Bytes of the pixels of one image.
const PIXELS: usize = 3 * 32 * 32;

/// Number of classes.
const CLASSES: usize = 10;

/// The most images that one file may hold; those of the data set have 10 000.
const MAX_IMAGES: usize = 100_000;

/// Whether a directory looks like CIFAR-10's: there is a test batch.
pub fn is_cifar10(dir: &Path) -> bool {
    path_of(dir, "test_batch").is_some()
}

/// Reads CIFAR-10 from a directory with `data_batch_1.bin` to `data_batch_5.bin`, of which some may be missing, and
/// `test_batch.bin`, each as it is or compressed with gzip (`.bin.gz`).
///
/// A byte `p` becomes the feature `p / 255`, and samples have the shape `[3, 32, 32]`: red, green and blue planes.
///
/// # Errors
/// [`Error::MissingFile`] without a training or test batch, [`Error::Read`], and [`Error::Cifar`] for a file of another
/// length or with a label that is not below 10.
pub fn load_cifar10(dir: &Path) -> Result<Split> {
    let names = (1..=5).map(|i| format!("data_batch_{i}"));
    let paths: Vec<PathBuf> = names.filter_map(|name| path_of(dir, &name)).collect();
    let missing = |name: &str| Error::MissingFile {
        directory: dir.to_owned(),
        expected: vec![format!("{name}.bin"), format!("{name}.bin.gz")],
    };
    if paths.is_empty() {
        return Err(missing("data_batch_1"));
    }
    let test = path_of(dir, "test_batch").ok_or_else(|| missing("test_batch"))?;
    Split::new(dataset(&paths)?, dataset(&[test])?)
}

/// The file of a batch, plain or compressed.
fn path_of(dir: &Path, name: &str) -> Option<PathBuf> {
    let paths = [".bin", ".bin.gz"].map(|ending| dir.join(format!("{name}{ending}")));
    paths.into_iter().find(|path| path.is_file())
}

fn dataset(paths: &[PathBuf]) -> Result<Dataset> {
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for path in paths {
        let bytes = read(path)?;
        let problem = |problem: String| Error::Cifar {
            path: path.clone(),
            problem,
        };
        let (records, rest) = bytes.as_chunks::<{ 1 + PIXELS }>();
        if records.is_empty() || !rest.is_empty() || records.len() > MAX_IMAGES {
            return Err(problem(format!(
                "it has {} bytes, which is no number of records of {} bytes from 1 to {MAX_IMAGES}",
                bytes.len(),
                1 + PIXELS
            )));
        }
        for (i, record) in records.iter().enumerate() {
            if usize::from(record[0]) >= CLASSES {
                return Err(problem(format!(
                    "image {i} has the label {}, but labels are 0 to 9",
                    record[0]
                )));
            }
            labels.push(record[0].into());
            pixels.extend(record[1..].iter().map(|&p| f32::from(p) / 255.0));
        }
    }
    let images = Array2::from_shape_vec((labels.len(), PIXELS), pixels).expect("whole records");
    Dataset::new("cifar-10", images, labels, CLASSES, vec![3, 32, 32])
}

/// The (decompressed) bytes, one more than allowed at most.
fn read(path: &Path) -> Result<Vec<u8>> {
    let failed = |source: io::Error| Error::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let compressed = path.extension().is_some_and(|extension| extension == "gz");
    let reader: Box<dyn Read> = if compressed {
        Box::new(MultiGzDecoder::new(file))
    } else {
        Box::new(file)
    };
    let mut bytes = Vec::new();
    let limit = (MAX_IMAGES * (1 + PIXELS) + 1) as u64;
    reader.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record of one label and equal pixels.
    fn record(label: u8, pixel: u8) -> Vec<u8> {
        [vec![label], vec![pixel; PIXELS]].concat()
    }

    fn directory(train: &[u8], test: &[u8]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("data_batch_2.bin"), train).unwrap();
        std::fs::write(dir.path().join("test_batch.bin"), test).unwrap();
        dir
    }

    #[test]
    fn records_become_images() {
        let dir = directory(&[record(3, 255), record(9, 51)].concat(), &record(0, 0));
        assert!(is_cifar10(dir.path()));
        let split = load_cifar10(dir.path()).unwrap();
        assert_eq!(split.train.labels(), [3, 9]);
        assert_eq!(split.train.shape(), [3, 32, 32]);
        assert_eq!(
            (
                split.train.images()[(0, 7)],
                split.train.images()[(1, 3071)]
            ),
            (1.0, 0.2)
        );
    }

    #[test]
    fn damage_is_named() {
        let good = record(1, 1);
        for bad in [&good[1..], &[], &record(10, 0)] {
            let dir = directory(bad, &good);
            assert!(matches!(load_cifar10(dir.path()), Err(Error::Cifar { .. })));
        }
        let empty = tempfile::tempdir().unwrap();
        assert!(matches!(
            load_cifar10(empty.path()),
            Err(Error::MissingFile { .. })
        ));
    }
}
