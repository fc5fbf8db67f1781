//! Samples in NumPy's arrays.

use std::path::Path;

use ndarray::{Array2, ArrayD};
use relugrad_io::{NpzArchive, NumpyArray, load_npy};

use super::reading::{compact, label_texts};
use super::{Bounds, Dataset, Reading, Scale, Split, Truth};
use crate::error::{Error, Result};

/// Names of the arrays of some samples in an .npz archive.
struct Names {
    images: &'static [&'static str],
    /// Class indices, or values.
    answers: &'static [&'static str],
    /// Values, whatever they look like.
    values: &'static [&'static str],
    weights: &'static [&'static str],
}

const TRAIN: Names = Names {
    images: &["x_train", "train_images"],
    answers: &["y_train", "train_labels"],
    values: &["targets_train", "train_targets"],
    weights: &["weights_train", "train_weights", "weights"],
};
const TEST: Names = Names {
    images: &["x_test", "test_images"],
    answers: &["y_test", "test_labels"],
    values: &["targets_test", "test_targets"],
    weights: &["weights_test", "test_weights"],
};
const WHOLE: Names = Names {
    images: &["x", "images", "data", "adversarial"],
    answers: &["y", "labels", "target"],
    values: &["targets"],
    weights: &["weights"],
};

/// The arrays of some samples, as they are read.
struct Arrays {
    images: NumpyArray,
    answers: Answers,
    weights: Option<NumpyArray>,
}

/// What may be classes or values.
enum Answers {
    Labels(ArrayD<f64>),
    Values(ArrayD<f64>),
    /// Classes if all are class indices.
    Either(ArrayD<f64>),
}

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

/// An array that there may be.
fn optional(read: relugrad_io::Result<NumpyArray>) -> Result<Option<NumpyArray>> {
    match read {
        Ok(array) => Ok(Some(array)),
        Err(error) if matches!(error.problem(), relugrad_io::Error::NumpyMissing { .. }) => {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Some samples of an archive.
fn of_archive(archive: &mut NpzArchive, names: &Names, images: NumpyArray) -> Result<Arrays> {
    let answers = match optional(archive.read(names.values))? {
        Some(values) => Answers::Values(values.values),
        None => Answers::Either(archive.read(names.answers)?.values),
    };
    Ok(Arrays {
        images,
        answers,
        weights: optional(archive.read(names.weights))?,
    })
}

/// Reads an .npz archive with `x_train`, `y_train`, `x_test` and `y_test`, or with `x` and `y`
/// alone.
///
/// `x` is `[n, …]`, whose other axes are the shape of a sample; `y` has `n` class indices, or
/// values, `[n]` or `[n, K]`, and is called `targets` if they might be taken for class indices.
/// `weights`, too, begins with `n`.
pub(super) fn load_archive(path: &Path, scale: Scale, shape: &[usize]) -> Result<Samples> {
    let mut archive = NpzArchive::open(path)?;
    let (train, test) = match optional(archive.read(TRAIN.images))? {
        Some(images) => {
            let train = of_archive(&mut archive, &TRAIN, images)?;
            let images = archive.read(TEST.images)?;
            (train, Some(of_archive(&mut archive, &TEST, images)?))
        }
        None => {
            let images = archive.read(WHOLE.images)?;
            (of_archive(&mut archive, &WHOLE, images)?, None)
        }
    };
    samples(path, train, test, scale, shape)
}

/// The .npy files that belong to one of samples.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beside<'a> {
    pub(super) labels: Option<&'a Path>,
    pub(super) targets: Option<&'a Path>,
    pub(super) weights: Option<&'a Path>,
}

/// Reads an .npy file of samples, `[n, …]`, and one of their class indices or values.
pub(super) fn load_beside(
    path: &Path,
    beside: Beside,
    scale: Scale,
    shape: &[usize],
) -> Result<Samples> {
    let read = |path: &Path| -> Result<ArrayD<f64>> { Ok(load_npy(path)?.values) };
    let answers = match (beside.labels, beside.targets) {
        (Some(labels), _) => Answers::Labels(read(labels)?),
        (None, Some(targets)) => Answers::Values(read(targets)?),
        (None, None) => {
            return Err(Error::DataFile {
                path: path.to_owned(),
                problem: "it has samples alone; give the .npy file of their class indices as `labels`, or of values to regress \
                          to as `targets`"
                    .into(),
            });
        }
    };
    let arrays = Arrays {
        images: load_npy(path)?,
        answers,
        weights: beside.weights.map(load_npy).transpose()?,
    };
    samples(path, arrays, None, scale, shape)
}

fn samples(
    path: &Path,
    train: Arrays,
    test: Option<Arrays>,
    scale: Scale,
    shape: &[usize],
) -> Result<Samples> {
    let truth = train.answers.read(path)?;
    let test_truth = test
        .as_ref()
        .map(|test| test.answers.read(path))
        .transpose()?;
    // Test samples of whole numbers may be values as those for training are.
    let (truth, test_truth) = match (truth, test_truth) {
        (Truth::Classes(_), Some(Truth::Values(v))) => {
            (train.answers.values(path)?, Some(Truth::Values(v)))
        }
        (Truth::Values(v), Some(Truth::Classes(_))) => {
            let test = test.as_ref().map(|test| test.answers.values(path));
            (Truth::Values(v), test.transpose()?)
        }
        alike => alike,
    };
    let tests = test_truth.iter().flat_map(Truth::labels);
    let all: Vec<usize> = truth.labels().iter().chain(tests).copied().collect();
    let (_, known) = compact(&all);
    let map = scale.map(
        path,
        train.images.bytes,
        train.images.values.iter().copied(),
    )?;
    let name = path
        .file_stem()
        .map_or("arrays".into(), |name| name.to_string_lossy().into_owned());
    let reading = Reading {
        scale: map.ends(),
        labels: label_texts(&known),
        missing: Vec::new(),
    };
    let place = |label: &usize| known.binary_search(label).expect("all are known");
    let make = |arrays: &Arrays, truth: Truth<f64>| {
        let (images, own) = rows(path, &arrays.images.values, |value| map.apply(value))?;
        let shape = if shape.is_empty() {
            own
        } else {
            shape.to_vec()
        };
        let truth = match truth {
            Truth::Classes(labels) => {
                let labels = labels.iter().map(place).collect();
                (Truth::Classes(labels), known.len())
            }
            values @ Truth::Values(_) => (values, 0),
        };
        let data = Dataset::bounded(name.clone(), images, truth, shape, Bounds::none())?;
        let weights = arrays.weights.iter().flat_map(|weights| &weights.values);
        let data = data.with_weights(weights.copied().collect())?;
        Ok::<_, Error>(data.read_as(reading.clone()))
    };
    Ok(Samples {
        test: match (&test, test_truth) {
            (Some(arrays), Some(truth)) => Some(make(arrays, truth)?),
            _ => None,
        },
        train: make(&train, truth)?,
    })
}

impl Answers {
    fn read(&self, path: &Path) -> Result<Truth<f64>> {
        match self {
            Answers::Labels(y) => class_indices(path, y).map(Truth::Classes),
            Answers::Values(_) => self.values(path),
            Answers::Either(y) if y.ndim() > 1 && y.shape()[1..].iter().product::<usize>() > 1 => {
                self.values(path)
            }
            Answers::Either(y) => match class_indices(path, y) {
                Ok(labels) => Ok(Truth::Classes(labels)),
                Err(_) => self.values(path),
            },
        }
    }

    /// As values, whatever they look like; `[n]` or `[n, K]`.
    fn values(&self, path: &Path) -> Result<Truth<f64>> {
        let (Answers::Labels(y) | Answers::Values(y) | Answers::Either(y)) = self;
        let (samples, width) = match *y.shape() {
            [samples] => (samples, 1),
            [samples, width] => (samples, width),
            ref shape => {
                return Err(Error::DataFile {
                    path: path.to_owned(),
                    problem: format!(
                        "its values to regress to have the shape {shape:?}; save them as [n] or [n, K]"
                    ),
                });
            }
        };
        let values = Array2::from_shape_vec((samples, width), y.iter().copied().collect());
        Ok(Truth::Values(values.expect("whole rows")))
    }
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
            problem: format!(
                "a label is {value}; labels must be class indices from 0, and values to regress to are given as `targets`"
            ),
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
    fn floats_outside_the_box_need_a_scale_or_another_box() {
        let dir = tempfile::tempdir().unwrap();
        let (x, y) = (dir.path().join("x.npy"), dir.path().join("y.npy"));
        write_npy(&x, &array![[-1.0f32, 3.0], [1.0, 0.0]]).unwrap();
        write_npy(&y, &array![0u8, 1]).unwrap();
        let beside = Beside {
            labels: Some(&y),
            targets: None,
            weights: None,
        };
        let load = |scale| load_beside(&x, beside, scale, &[]);
        let plain = load(Scale::Auto).unwrap().train;
        assert_eq!(plain.images(), array![[-1.0, 3.0], [1.0, 0.0]]);
        assert!(matches!(
            plain.within(Bounds::default()),
            Err(Error::FeatureOutsideBox { .. })
        ));
        let scaled = load(Scale::Range).unwrap().train;
        assert_eq!(scaled.images(), array![[0.0, 1.0], [0.5, 0.25]]);
        let fixed = load(Scale::Between([-1.0, 7.0])).unwrap().train;
        assert_eq!(fixed.images(), array![[0.0, 0.5], [0.25, 0.125]]);
        write_npy(&y, &array![0.5, 1.0]).unwrap();
        assert!(matches!(load(Scale::Range), Err(Error::DataFile { .. })));
    }

    #[test]
    fn real_answers_are_values_and_whole_ones_classes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("small.npz");
        let load = |name: &str, y: ArrayD<f64>, weights: Option<[f64; 3]>| {
            let mut archive = NpzWriter::new(std::fs::File::create(&path).unwrap());
            archive
                .add_array("x", &array![[0.0], [1.0], [0.5]])
                .unwrap();
            archive.add_array(name, &y).unwrap();
            if let Some(weights) = weights {
                archive
                    .add_array("weights", &ndarray::aview1(&weights))
                    .unwrap();
            }
            archive.finish().unwrap();
            load_archive(&path, Scale::Auto, &[])
        };
        let real = load(
            "y",
            array![0.5, -1.0, 2.0].into_dyn(),
            Some([1.0, 0.0, 2.0]),
        );
        let real = real.unwrap().train;
        assert_eq!(real.values().unwrap(), array![[0.5], [-1.0], [2.0]]);
        assert_eq!(real.weights(), [1.0, 0.0, 2.0]);
        let wide = array![[0.0, 1.0], [1.0, 2.0], [2.0, 0.0]].into_dyn();
        let found = load("y", wide.clone(), None).unwrap().train;
        assert_eq!(found.values().unwrap().view().into_dyn(), wide);
        let whole = array![0.0, 1.0, 1.0].into_dyn();
        assert_eq!(
            load("y", whole.clone(), None).unwrap().train.labels(),
            [0, 1, 1]
        );
        assert!(
            load("targets", whole.clone(), None)
                .unwrap()
                .train
                .values()
                .is_some()
        );
        for weights in [[1.0, -1.0, 1.0], [0.0; 3]] {
            assert!(matches!(
                load("y", whole.clone(), Some(weights)),
                Err(Error::Data { .. })
            ));
        }
    }

    /// Labels with gaps are as many classes as there are labels, unless a network has more.
    #[test]
    fn labels_with_gaps_are_classes_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let (x, y) = (dir.path().join("x.npy"), dir.path().join("y.npy"));
        write_npy(&x, &array![[0.5], [0.25], [1.0]]).unwrap();
        write_npy(&y, &array![7u8, 1, 2]).unwrap();
        let beside = Beside {
            labels: Some(&y),
            targets: None,
            weights: None,
        };
        let data = load_beside(&x, beside, Scale::Auto, &[]).unwrap().train;
        assert_eq!((data.labels(), data.classes()), (&[2, 0, 1][..], 3));
        assert_eq!(data.reading().labels, ["1", "2", "7"]);
        assert_eq!(data.clone().for_outputs(3), data);
        let wide = data.clone().for_outputs(10);
        assert_eq!((wide.labels(), wide.classes()), (&[7, 1, 2][..], 10));
        assert_eq!(data.clone().for_outputs(5), data);
    }
}
