//! CIFAR-10 and CIFAR-100 in their binary form (Krizhevsky 2009): records of label bytes and 3 × 32
//! × 32 pixel bytes.

use std::io::Read;
use std::path::{Path, PathBuf};

use ndarray::Array2;

use super::file::{DataFile, read_error};
use super::{Dataset, Reading, Split};
use crate::error::{Error, Result};

/// Bytes of the pixels of one image.
const PIXELS: usize = 3 * 32 * 32;

/// A data set: its name, the number of label bytes of a record, and which of them counts, with its
/// number of classes.
struct Kind {
    name: &'static str,
    label_bytes: usize,
    label: usize,
    classes: usize,
}

const CIFAR_10: Kind = Kind {
    name: "cifar-10",
    label_bytes: 1,
    label: 0,
    classes: 10,
};

/// The first label byte of a record is one of 20 superclasses.
const CIFAR_100: Kind = Kind {
    name: "cifar-100",
    label_bytes: 2,
    label: 1,
    classes: 100,
};

/// What a byte takes: itself and its `f32`.
const PRICE: u64 = 1 + size_of::<f32>() as u64;

/// Whether a directory looks like CIFAR-10's: there is a test batch.
pub fn is_cifar10(dir: &Path) -> bool {
    path_of(dir, "test_batch").is_some()
}

/// Reads CIFAR-10 from a directory with `data_batch_1.bin` to `data_batch_5.bin`, of which some may
/// be missing, which [`Reading::missing`] tells, and `test_batch.bin`, each as it is or compressed with gzip (`.bin.gz`).
///
/// A byte `p` becomes the feature `p / 255`, and samples have the shape `[3, 32, 32]`: red, green
/// and blue planes.
///
/// # Errors
/// [`Error::MissingFile`] without a training or test batch, [`Error::Read`], and [`Error::Cifar`]
/// for a file of another length or with a label that is not below 10.
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
    let reading = Reading {
        missing: missing_batches(dir),
        ..Reading::default()
    };
    let read =
        |paths: &[PathBuf]| Ok::<_, Error>(dataset(&CIFAR_10, paths)?.read_as(reading.clone()));
    Split::new(read(&paths)?, read(&[test])?)
}

/// The test samples of [`load_cifar10`] alone.
pub(super) fn load_cifar10_test(dir: &Path) -> Result<Dataset> {
    let path = path_of(dir, "test_batch").expect("it tells the directory from others");
    dataset(&CIFAR_10, &[path])
}

/// The training batches that are not there.
fn missing_batches(dir: &Path) -> Vec<String> {
    let names = (1..=5).map(|i| format!("data_batch_{i}"));
    let missing = names.filter(|name| path_of(dir, name).is_none());
    missing.map(|name| format!("{name}.bin")).collect()
}

/// Whether a directory looks like CIFAR-100's: there are the files of both parts.
pub fn is_cifar100(dir: &Path) -> bool {
    ["train", "test"]
        .iter()
        .all(|name| path_of(dir, name).is_some())
}

/// Reads CIFAR-100 from a directory with `train.bin` and `test.bin`, each as it is or compressed
/// with gzip, with its 100 fine labels.
///
/// # Errors
/// As for [`load_cifar10`].
pub fn load_cifar100(dir: &Path) -> Result<Split> {
    let part = |name: &str| {
        let path = path_of(dir, name).ok_or_else(|| Error::MissingFile {
            directory: dir.to_owned(),
            expected: vec![format!("{name}.bin"), format!("{name}.bin.gz")],
        })?;
        dataset(&CIFAR_100, &[path])
    };
    Split::new(part("train")?, part("test")?)
}

/// The file of a batch, plain or compressed.
fn path_of(dir: &Path, name: &str) -> Option<PathBuf> {
    let paths = [".bin", ".bin.gz"].map(|ending| dir.join(format!("{name}{ending}")));
    paths.into_iter().find(|path| path.exists())
}

fn dataset(kind: &Kind, paths: &[PathBuf]) -> Result<Dataset> {
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    let size = kind.label_bytes + PIXELS;
    for path in paths {
        let problem = |problem: String| Error::Cifar {
            path: path.clone(),
            problem,
        };
        let mut bytes = Vec::new();
        let (mut reader, _) = DataFile::open(path)?.stream(PRICE);
        reader
            .read_to_end(&mut bytes)
            .map_err(|error| read_error(path, error))?;
        if bytes.is_empty() || !bytes.len().is_multiple_of(size) {
            return Err(problem(format!(
                "it has {} bytes, which is no number of records of {size} bytes",
                bytes.len(),
            )));
        }
        for (i, record) in bytes.chunks_exact(size).enumerate() {
            let label = usize::from(record[kind.label]);
            if label >= kind.classes {
                let last = kind.classes - 1;
                return Err(problem(format!(
                    "image {i} has the label {label}, but labels are 0 to {last}"
                )));
            }
            labels.push(label);
            let image = &record[kind.label_bytes..];
            pixels.extend(image.iter().map(|&p| f32::from(p) / 255.0));
        }
    }
    let images = Array2::from_shape_vec((labels.len(), PIXELS), pixels).expect("whole records");
    Dataset::new(kind.name, images, labels, kind.classes, vec![3, 32, 32])
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
        assert_eq!(
            load_cifar10_test(dir.path()).unwrap().images(),
            split.test.images()
        );
        assert_eq!(split.train.labels(), [3, 9]);
        let missing = &split.train.reading().missing;
        assert_eq!((missing.len(), &*missing[0]), (4, "data_batch_1.bin"));
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
    fn the_hundred_classes_have_two_label_bytes() {
        let record = |fine: u8, pixel: u8| [vec![7, fine], vec![pixel; PIXELS]].concat();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join("train.bin"),
            [record(99, 0), record(4, 51)].concat(),
        )
        .unwrap();
        std::fs::write(dir.path().join("test.bin"), record(0, 255)).unwrap();
        assert!(is_cifar100(dir.path()) && !is_cifar10(dir.path()));
        let split = load_cifar100(dir.path()).unwrap();
        assert_eq!(
            (split.train.labels(), split.train.classes()),
            (&[99, 4][..], 100)
        );
        assert_eq!(split.train.images()[(1, 0)], 0.2);
        std::fs::write(dir.path().join("test.bin"), record(100, 255)).unwrap();
        assert!(matches!(
            load_cifar100(dir.path()),
            Err(Error::Cifar { .. })
        ));
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
