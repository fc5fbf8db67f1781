//! MNIST and its successors: four IDX files in a directory.

mod file;

use std::fs;
use std::path::{Path, PathBuf};

use ndarray::Array2;

use self::file::{Images, open, read_images, read_labels};
use super::file::read_error;
use super::{Dataset, Split};
use crate::error::{Error, Result};

/// Reads a data set from a directory with four IDX files, each as it is or compressed with gzip:
///
/// - `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`: the training part,
/// - `t10k-images-idx3-ubyte`, `t10k-labels-idx1-ubyte`: the test part.
///
/// The name of a compressed file ends in `.gz`, and `train-images.idx3-ubyte` with a dot will do as
/// well. If there are several of one file, the first of these is read: dash, dash and `.gz`, dot,
/// dot and `.gz`. The data set gets the name of the directory, a byte `p` becomes the feature
/// `p / 255`, the samples have the shape `[1, rows, columns]`, and the number of classes is 1 plus
/// the largest label of both parts.
///
/// Reading takes up to 6 bytes of memory for each byte of pixels, which are paid from what the file
/// may take ([`Limits`](relugrad_io::Limits)) before they are read.
///
/// # Errors
///
/// - [`Error::MissingFile`] if there is no such file, [`Error::Read`] if it or the directory cannot
///   be read, [`Error::Gzip`] if it cannot be decompressed;
/// - [`Error::IdxMagic`] if it is no IDX file of its kind, [`Error::IdxZero`] if it is empty,
///   [`Error::Io`] if it asks for too much, [`Error::IdxTruncated`], [`Error::IdxTrailing`] if its
///   length is wrong;
/// - [`Error::IdxCounts`], [`Error::IdxShapes`] if the files do not belong together.
pub fn load_idx(dir: &Path) -> Result<Split> {
    let name = directory_name(dir)?;
    let train = Part::load(dir, "train")?;
    let test = Part::load(dir, "t10k")?;
    test.check_shape(&train)?;
    let largest = train.labels.iter().chain(&test.labels).max();
    let classes = 1 + usize::from(largest.copied().unwrap_or(0));
    Split::new(
        train.into_dataset(&name, classes)?,
        test.into_dataset(&name, classes)?,
    )
}

/// The test samples of [`load_idx`] alone; of the training part the labels are read, for the number of
/// classes.
pub(super) fn load_idx_test(dir: &Path) -> Result<Dataset> {
    let name = directory_name(dir)?;
    let (path, file) = open(dir, "train-labels", "idx1-ubyte")?;
    let (reader, budget) = file.whole();
    let labels = read_labels(&path, reader, &budget)?;
    let test = Part::load(dir, "t10k")?;
    let largest = labels.iter().chain(&test.labels).max();
    let classes = 1 + usize::from(largest.copied().unwrap_or(0));
    test.into_dataset(&name, classes)
}

/// The last component of the path, also of `.` and the like.
fn directory_name(dir: &Path) -> Result<String> {
    let whole = fs::canonicalize(dir).map_err(|e| read_error(dir, e))?;
    let name = dir.file_name().or(whole.file_name());
    Ok(name.map_or("idx".into(), |name| name.to_string_lossy().into_owned()))
}

/// Images and labels of the training or of the test part.
struct Part {
    path: PathBuf,
    images: Images,
    labels: Vec<u8>,
}

impl Part {
    fn load(dir: &Path, prefix: &str) -> Result<Self> {
        let (path, file) = open(dir, &format!("{prefix}-images"), "idx3-ubyte")?;
        let (reader, budget) = file.whole();
        let images = read_images(&path, reader, &budget)?;
        let (labels_path, file) = open(dir, &format!("{prefix}-labels"), "idx1-ubyte")?;
        let (reader, budget) = file.whole();
        let labels = read_labels(&labels_path, reader, &budget)?;
        let (expected, found) = (images.count, labels.len());
        if expected != found {
            return Err(Error::IdxCounts {
                path: labels_path,
                images: path,
                expected,
                found,
            });
        }
        Ok(Self {
            path,
            images,
            labels,
        })
    }

    fn check_shape(&self, train: &Self) -> Result<()> {
        let (expected, found) = (train.images.size, self.images.size);
        if expected == found {
            return Ok(());
        }
        let (path, train) = (self.path.clone(), train.path.clone());
        Err(Error::IdxShapes {
            path,
            train,
            expected,
            found,
        })
    }

    fn into_dataset(self, name: &str, classes: usize) -> Result<Dataset> {
        let Images {
            count,
            size: [rows, columns],
            pixels,
        } = self.images;
        let pixels = pixels.iter().map(|&p| f32::from(p) / 255.0).collect();
        let images = Array2::from_shape_vec((count, rows * columns), pixels)
            .expect("the number of pixels was compared with the header");
        let labels = self.labels.iter().map(|&label| label.into()).collect();
        Dataset::new(name, images, labels, classes, vec![1, rows, columns])
    }
}
