//! A data set held in memory.

use ndarray::{Array2, Axis, s};
use relugrad_io::printable;

use crate::error::{Error, Result};

/// Labelled samples, each in the box `[0, 1]ᴰ`.
///
/// Images are `[samples, D]`, one row-major row for each sample. A sample's own shape, such as
/// `[1, 28, 28]` (channels, rows, columns), has the product `D`.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    name: String,
    images: Array2<f32>,
    labels: Vec<usize>,
    classes: usize,
    shape: Vec<usize>,
}

impl Dataset {
    /// A fingerprint of images and labels, to notice that other ones are given.
    pub(crate) fn fingerprint(&self) -> String {
        let pixels = self.images().iter().flat_map(|x| x.to_le_bytes());
        let labels = self.labels().iter().flat_map(|&y| (y as u64).to_le_bytes());
        let mut checksum = 0;
        let mut block = Vec::with_capacity(1 << 16);
        for byte in pixels.chain(labels) {
            block.push(byte);
            if block.len() == block.capacity() {
                checksum = crc32c::crc32c_append(checksum, &block);
                block.clear();
            }
        }
        checksum = crc32c::crc32c_append(checksum, &block);
        format!("{checksum:08x} of {} samples", self.samples())
    }

    /// A data set of `images: [n, D]` and `labels: [n]`, whose samples have the shape `shape`.
    ///
    /// # Errors
    ///
    /// - [`Error::EmptyDataset`] if `n` or `D` is 0;
    /// - [`Error::LabelCount`] unless there is one label for each image;
    /// - [`Error::SampleShape`] unless the product of `shape` is `D`;
    /// - [`Error::Label`] unless every label is below `classes`;
    /// - [`Error::FeatureNotFinite`], [`Error::FeatureOutsideBox`] unless every feature is in `[0, 1]`.
    pub fn new(
        name: impl Into<String>,
        images: Array2<f32>,
        labels: Vec<usize>,
        classes: usize,
        shape: Vec<usize>,
    ) -> Result<Self> {
        let images = row_major(images);
        let dataset = Self {
            name: printable(&name.into()).into_owned(),
            images,
            labels,
            classes,
            shape,
        };
        dataset.check_sizes()?;
        dataset.check_labels()?;
        dataset.check_features()?;
        Ok(dataset)
    }

    /// The samples with the given numbers, in the given order; a number may occur more than once.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyDataset`] without any number, [`Error::SampleIndex`] for one that does not exist.
    pub fn subset(&self, indices: &[usize]) -> Result<Self> {
        let samples = self.samples();
        if indices.is_empty() {
            return Err(self.empty("samples"));
        }
        if let Some(&index) = indices.iter().find(|&&i| i >= samples) {
            return Err(Error::SampleIndex {
                name: self.name.clone(),
                index,
                samples,
            });
        }
        let images = self.images.select(Axis(0), indices);
        Ok(self.with_samples(images, indices.iter().map(|&i| self.labels[i]).collect()))
    }

    /// These samples and then those of another data set of the same kind.
    ///
    /// # Errors
    ///
    /// [`Error::SplitShapes`] or [`Error::SplitClasses`] if shapes or numbers of classes differ.
    pub fn followed_by(&self, other: &Dataset) -> Result<Self> {
        super::Split::new(self.clone(), other.clone())?;
        let images = ndarray::concatenate![Axis(0), self.images, other.images];
        Ok(self.with_samples(images, [&self.labels[..], &other.labels].concat()))
    }

    /// The first `n` samples.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyDataset`] if `n` is 0, [`Error::TooFewSamples`] if there are fewer than `n`.
    pub fn first(&self, n: usize) -> Result<Self> {
        let found = self.samples();
        if n == 0 {
            return Err(self.empty("samples"));
        }
        if n > found {
            return Err(Error::TooFewSamples {
                name: self.name.clone(),
                expected: n,
                found,
            });
        }
        let images = self.images.slice(s![..n, ..]).to_owned();
        Ok(self.with_samples(images, self.labels[..n].to_vec()))
    }

    /// The name, such as `digits` or `mnist`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The images: `[samples, features]`, row-major, in `[0, 1]`.
    pub fn images(&self) -> &Array2<f32> {
        &self.images
    }

    /// The labels: `[samples]`, each below [`classes`](Self::classes).
    pub fn labels(&self) -> &[usize] {
        &self.labels
    }

    /// The number of classes. Not every class need have a sample.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The shape of one sample, such as `[1, 28, 28]`: channels, rows, columns.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of samples; at least 1.
    pub fn samples(&self) -> usize {
        self.images.nrows()
    }

    /// The number `D` of features of a sample: the product of [`shape`](Self::shape); at least 1.
    pub fn features(&self) -> usize {
        self.images.ncols()
    }

    /// Mean and standard deviation (`n`) of every channel over all samples and places; of samples that are no images
    /// `[C, H, W]`, of all features together.
    ///
    /// # Errors
    ///
    /// [`Error::Data`] for a channel that is constant.
    pub fn channel_statistics(&self) -> Result<ChannelStatistics> {
        let channels = match self.shape[..] {
            [channels, _, _] => channels,
            _ => 1,
        };
        let size = self.features() / channels;
        let (mut means, mut deviations) = (Vec::new(), Vec::new());
        for channel in 0..channels {
            let values = self
                .images
                .slice(s![.., channel * size..(channel + 1) * size]);
            let count = values.len() as f64;
            let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
            let squares = values.iter().map(|&x| (f64::from(x) - mean).powi(2));
            let deviation = (squares.sum::<f64>() / count).sqrt();
            if deviation == 0.0 {
                return Err(Error::Data {
                    problem: format!(
                        "channel {channel} of {} is constant, so it cannot be standardised",
                        self.name
                    ),
                });
            }
            means.push(mean);
            deviations.push(deviation);
        }
        Ok(ChannelStatistics { means, deviations })
    }

    /// Other samples of the same kind, known to be valid.
    fn with_samples(&self, images: Array2<f32>, labels: Vec<usize>) -> Self {
        let (name, shape) = (self.name.clone(), self.shape.clone());
        Self {
            name,
            images: row_major(images),
            labels,
            classes: self.classes,
            shape,
        }
    }

    fn check_sizes(&self) -> Result<()> {
        let ([images, found], labels) = ([self.samples(), self.features()], self.labels.len());
        if images != labels {
            return Err(Error::LabelCount {
                name: self.name.clone(),
                images,
                labels,
            });
        }
        if images == 0 {
            return Err(self.empty("samples"));
        }
        if found == 0 {
            return Err(self.empty("features"));
        }
        let expected = self
            .shape
            .iter()
            .try_fold(1, |product: usize, &n| product.checked_mul(n));
        if expected != Some(found) {
            let (name, shape) = (self.name.clone(), self.shape.clone());
            return Err(Error::SampleShape {
                name,
                shape,
                expected,
                found,
            });
        }
        Ok(())
    }

    fn check_labels(&self) -> Result<()> {
        let classes = self.classes;
        let Some(sample) = self.labels.iter().position(|&label| label >= classes) else {
            return Ok(());
        };
        let (name, label) = (self.name.clone(), self.labels[sample]);
        Err(Error::Label {
            name,
            sample,
            label,
            classes,
        })
    }

    fn check_features(&self) -> Result<()> {
        let outside = |x: &f32| !(0.0..=1.0).contains(x);
        let Some(position) = self.images.iter().position(outside) else {
            return Ok(());
        };
        let (sample, feature) = (position / self.features(), position % self.features());
        let (name, found) = (self.name.clone(), self.images[[sample, feature]]);
        Err(if found.is_finite() {
            Error::FeatureOutsideBox {
                name,
                sample,
                feature,
                found,
            }
        } else {
            Error::FeatureNotFinite {
                name,
                sample,
                feature,
            }
        })
    }

    fn empty(&self, what: &'static str) -> Error {
        Error::EmptyDataset {
            name: self.name.clone(),
            what,
        }
    }
}

/// Mean and standard deviation of every channel of some samples.
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelStatistics {
    /// One mean for each channel.
    pub means: Vec<f64>,
    /// One positive standard deviation for each.
    pub deviations: Vec<f64>,
}

/// The same array in row-major order, copied only if it has another.
fn row_major(images: Array2<f32>) -> Array2<f32> {
    if images.is_standard_layout() {
        images
    } else {
        images.as_standard_layout().into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    fn dataset(images: Array2<f32>, labels: &[usize], shape: &[usize]) -> Result<Dataset> {
        Dataset::new("tiny", images, labels.to_vec(), 3, shape.to_vec())
    }

    fn tiny() -> Dataset {
        dataset(
            array![[0.0, 0.25], [0.5, 0.75], [1.0, 0.125]],
            &[2, 0, 1],
            &[1, 2],
        )
        .unwrap()
    }

    /// The message of the error. It names the variant and shows every field.
    fn refusal(result: Result<Dataset>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn accessors_give_back_what_was_put_in() {
        let data = tiny();
        assert_eq!((data.name(), data.classes()), ("tiny", 3));
        assert_eq!((data.samples(), data.features()), (3, 2));
        assert_eq!(data.shape(), [1, 2]);
        assert_eq!(data.labels(), [2, 0, 1]);
        assert_eq!(data.images().row(1).to_vec(), [0.5, 0.75]);
    }

    #[test]
    fn column_major_images_become_row_major() {
        let transposed = array![[0.0, 0.5, 1.0], [0.25, 0.75, 0.125]].reversed_axes();
        let data = dataset(transposed, &[2, 0, 1], &[1, 2]).unwrap();
        assert!(data.images().is_standard_layout());
        assert_eq!(data, tiny());
    }

    #[test]
    fn sizes_must_agree() {
        let two = || array![[0.0, 1.0], [1.0, 0.0]];
        assert_eq!(
            refusal(dataset(two(), &[0], &[2])),
            "data set tiny has 2 images but 1 labels"
        );
        assert_eq!(
            refusal(dataset(two(), &[0, 1], &[3, 1])),
            "data set tiny has 2 features in a sample but the shape [3, 1] needs 3"
        );
        let e = dataset(two(), &[0, 1], &[usize::MAX, 2]).unwrap_err();
        assert!(matches!(e, Error::SampleShape { expected: None, .. }));
    }

    #[test]
    fn there_must_be_something() {
        assert_eq!(
            refusal(dataset(Array2::zeros((0, 2)), &[], &[2])),
            "data set tiny has no samples; it needs at least one"
        );
        assert_eq!(
            refusal(dataset(Array2::zeros((2, 0)), &[0, 1], &[0])),
            "data set tiny has no features; it needs at least one"
        );
    }

    #[test]
    fn labels_must_be_classes() {
        assert_eq!(
            refusal(dataset(array![[0.0], [0.0]], &[2, 3], &[1])),
            "sample 1 of data set tiny has label 3; \
             labels must be below the number of classes, 3"
        );
        let e = Dataset::new("none", array![[0.0]], vec![0], 0, vec![1]).unwrap_err();
        assert!(matches!(e, Error::Label { classes: 0, .. }));
    }

    #[test]
    fn features_must_be_in_the_box() {
        for bad in [-1e-7, 1.0 + f32::EPSILON, 255.0] {
            assert_eq!(
                refusal(dataset(array![[0.0, 1.0], [0.0, bad]], &[0, 0], &[2])),
                format!(
                    "feature 1 of sample 1 of data set tiny is {bad}; scale all features to [0, 1], for a file with `scale`: range, or its least and greatest number"
                )
            );
        }
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(
                refusal(dataset(array![[0.0, 1.0], [bad, 1.0]], &[0, 0], &[2])),
                "feature 0 of sample 1 of data set tiny is not finite"
            );
        }
    }

    #[test]
    fn subset_keeps_order_and_repeats() {
        let part = tiny().subset(&[2, 0, 2]).unwrap();
        let rows = array![[1.0, 0.125], [0.0, 0.25], [1.0, 0.125]];
        assert_eq!(part, dataset(rows, &[1, 2, 1], &[1, 2]).unwrap());
        assert!(part.images().is_standard_layout());
    }

    #[test]
    fn subset_refuses_what_does_not_exist() {
        assert_eq!(
            refusal(tiny().subset(&[0, 3])),
            "data set tiny has no sample 3; it has 3, counted from 0"
        );
        let e = tiny().subset(&[]).unwrap_err();
        assert!(matches!(
            e,
            Error::EmptyDataset {
                what: "samples",
                ..
            }
        ));
    }

    #[test]
    fn first_is_the_leading_subset() {
        assert_eq!(tiny().first(2).unwrap(), tiny().subset(&[0, 1]).unwrap());
        assert_eq!(tiny().first(3).unwrap(), tiny());
        assert_eq!(
            refusal(tiny().first(4)),
            "data set tiny has 3 samples but 4 are asked for; ask for fewer"
        );
        let e = tiny().first(0).unwrap_err();
        assert!(matches!(
            e,
            Error::EmptyDataset {
                what: "samples",
                ..
            }
        ));
    }
}
