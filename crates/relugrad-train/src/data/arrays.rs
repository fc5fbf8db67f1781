//! Samples in NumPy's arrays.

use std::path::Path;

use ndarray::{Array2, ArrayD};
use relugrad_io::{NpzArchive, NumpyArray, load_npy};

use super::{Dataset, Scale, Split};
use crate::error::{Error, Result};

/// Names of arrays in an .npz archive.
const TRAIN: [&[&str]; 2] = [&["x_train", "train_images"], &["y_train", "train_labels"]];
const TEST: [&[&str]; 2] = [&["x_test", "test_images"], &["y_test", "test_labels"]];
const WHOLE: [&[&str]; 2] = [
    &["x", "images", "data", "adversarial"],
    &["y", "labels", "target"],
];

/// Training samples, and test samples if the file tells them apart.
pub(super) struct Samples {
    pub(super) train: Dataset,
    pub(super) test: Option<Dataset>,
}

impl Samples {
    /// A split, made by `split` unless the file tells the test samples.
    pub(super) fn into_split(self, split: impl Fn(&Dataset) -> Result<Split>) -> Result<Split> {
        match self.test {
            Some(test) => Split::new(self.train, test),
            None => split(&self.train),
        }
    }
}

/// Reads an .npz archive with `x_train`, `y_train`, `x_test` and `y_test`, or with `x` and `y` alone.
///
/// `x` is `[n, …]`, whose other axes are the shape of a sample; `y` has `n` class indices.
pub(super) fn load_archive(path: &Path, scale: Scale, shape: &[usize]) -> Result<Samples> {
    let mut archive = NpzArchive::open(path)?;
    let mut pair = |names: [&[&str]; 2]| -> Result<(NumpyArray, NumpyArray)> {
        Ok((archive.read(names[0])?, archive.read(names[1])?))
    };
    let (train, test) = match pair(TRAIN) {
        Ok(train) => (train, Some(pair(TEST)?)),
        Err(Error::Io(error))
            if matches!(error.problem(), relugrad_io::Error::NumpyMissing { .. }) =>
        {
            (pair(WHOLE)?, None)
        }
        Err(error) => return Err(error),
    };
    samples(path, train, test, scale, shape)
}

/// Reads an .npy file of samples, `[n, …]`, and one of their class indices.
pub(super) fn load_pair(
    path: &Path,
    labels: &Path,
    scale: Scale,
    shape: &[usize],
) -> Result<Samples> {
    samples(
        path,
        (load_npy(path)?, load_npy(labels)?),
        None,
        scale,
        shape,
    )
}

fn samples(
    path: &Path,
    train: (NumpyArray, NumpyArray),
    test: Option<(NumpyArray, NumpyArray)>,
    scale: Scale,
    shape: &[usize],
) -> Result<Samples> {
    let labels = class_indices(path, &train.1.values)?;
    let test_labels = test
        .as_ref()
        .map(|(_, y)| class_indices(path, &y.values))
        .transpose()?;
    let all = labels.iter().chain(test_labels.iter().flatten());
    let classes = 1 + all.max().copied().unwrap_or(0);
    let map = scale.map(path, train.0.bytes, train.0.values.iter().copied())?;
    let name = path
        .file_stem()
        .map_or("arrays".into(), |name| name.to_string_lossy().into_owned());
    let make = |x: &ArrayD<f64>, labels: Vec<usize>| {
        let (images, own) = rows(path, x, |value| map.apply(value))?;
        let shape = if shape.is_empty() {
            own
        } else {
            shape.to_vec()
        };
        Dataset::new(name.clone(), images, labels, classes, shape)
    };
    Ok(Samples {
        test: match (test, test_labels) {
            (Some((x, _)), Some(labels)) => Some(make(&x.values, labels)?),
            _ => None,
        },
        train: make(&train.0.values, labels)?,
    })
}

/// One row for each sample, and the shape of a sample.
fn rows(
    path: &Path,
    x: &ArrayD<f64>,
    scaled: impl Fn(f64) -> f32,
) -> Result<(Array2<f32>, Vec<usize>)> {
    let Some((&samples, shape)) = x.shape().split_first() else {
        return Err(Error::DataFile {
            path: path.to_owned(),
            problem: "its samples are a single number; save them as [n, …]".into(),
        });
    };
    let shape = if shape.is_empty() { &[1] } else { shape };
    let features = shape.iter().product();
    let values = x.iter().map(|&value| scaled(value)).collect();
    let images = Array2::from_shape_vec((samples, features), values).expect("whole rows");
    Ok((images, shape.to_vec()))
}

/// More classes than this are a mistake, such as a regression's targets.
const MAX_CLASSES: f64 = 1e6;

fn class_indices(path: &Path, y: &ArrayD<f64>) -> Result<Vec<usize>> {
    let index = |&value: &f64| {
        let valid = value >= 0.0 && value.fract() == 0.0 && value < MAX_CLASSES;
        valid.then_some(value as usize).ok_or(Error::DataFile {
            path: path.to_owned(),
            problem: format!("a label is {value}; labels must be class indices from 0"),
        })
    };
    y.iter().map(index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array3, array};
    use ndarray_npy::{NpzWriter, write_npy};

    #[test]
    fn bytes_become_pixels_and_axes_a_shape() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("small.npz");
        let mut archive = NpzWriter::new(std::fs::File::create(&path).unwrap());
        archive
            .add_array("x_train", &Array3::<u8>::from_elem((3, 2, 4), 51))
            .unwrap();
        archive.add_array("y_train", &array![0i64, 2, 1]).unwrap();
        archive
            .add_array("x_test", &Array3::<u8>::from_elem((1, 2, 4), 255))
            .unwrap();
        archive.add_array("y_test", &array![3i64]).unwrap();
        archive.finish().unwrap();
        let samples = load_archive(&path, Scale::Auto, &[]).unwrap();
        assert_eq!(samples.train.shape(), [2, 4]);
        assert_eq!(
            (samples.train.classes(), samples.train.name()),
            (4, "small")
        );
        assert!(samples.train.images().iter().all(|&x| x == 0.2));
        let test = samples.test.unwrap();
        assert_eq!((test.labels(), test.images()[(0, 7)]), (&[3][..], 1.0));
        let shaped = load_archive(&path, Scale::Auto, &[1, 2, 4]).unwrap();
        assert_eq!(shaped.train.shape(), [1, 2, 4]);
        assert!(load_archive(&path, Scale::Auto, &[9]).is_err());
    }

    #[test]
    fn floats_outside_the_box_need_a_scale() {
        let dir = tempfile::tempdir().unwrap();
        let (x, y) = (dir.path().join("x.npy"), dir.path().join("y.npy"));
        write_npy(&x, &array![[-1.0f32, 3.0], [1.0, 0.0]]).unwrap();
        write_npy(&y, &array![0u8, 1]).unwrap();
        let load = |scale| load_pair(&x, &y, scale, &[]);
        assert!(matches!(
            load(Scale::Auto),
            Err(Error::FeatureOutsideBox { .. })
        ));
        let scaled = load(Scale::Range).unwrap().train;
        assert_eq!(scaled.images(), array![[0.0, 1.0], [0.5, 0.25]]);
        let fixed = load(Scale::Between([-1.0, 7.0])).unwrap().train;
        assert_eq!(fixed.images(), array![[0.0, 0.5], [0.25, 0.125]]);
        write_npy(&y, &array![0.5, 1.0]).unwrap();
        assert!(matches!(load(Scale::Range), Err(Error::DataFile { .. })));
    }
}
