//! A data set held in memory.

use ndarray::{Array2, Axis, s};
use relugrad::Targets;
use relugrad::loss::TargetKind;
use relugrad_io::printable;

use super::{Bounds, BoxChoice, Reading, Truth};
use crate::channels::{ChannelStatistics, channels};
use crate::error::{Error, Result};
use crate::prediction;

/// Samples, each in a box, by default `[0, 1]ᴰ`, with their classes or with values to regress to, and perhaps
/// with weights.
///
/// Images are `[samples, D]`, one row-major row for each sample. A sample's own shape, such as
/// `[1, 28, 28]` (channels, rows, columns), has the product `D`.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    name: String,
    images: Array2<f32>,
    truth: Truth<f64>,
    /// None if all samples count alike.
    weights: Vec<f64>,
    /// Number of classes; 0 with values.
    classes: usize,
    shape: Vec<usize>,
    bounds: Bounds,
    reading: Reading,
}

impl Dataset {
    /// A fingerprint of images, classes or values, and weights, to notice that other ones are
    /// given.
    pub(crate) fn fingerprint(&self) -> String {
        let pixels = self.images().iter().flat_map(|x| x.to_le_bytes());
        let labels = self.labels().iter().flat_map(|&y| (y as u64).to_le_bytes());
        let values = self.values().into_iter().flatten();
        let reals = values.chain(&self.weights).flat_map(|y| y.to_le_bytes());
        let mut checksum = 0;
        let mut block = Vec::with_capacity(1 << 16);
        for byte in pixels.chain(labels).chain(reals) {
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
    /// - [`Error::FeatureNotFinite`], [`Error::FeatureOutsideBox`] unless every feature is in
    ///   `[0, 1]`.
    pub fn new(
        name: impl Into<String>,
        images: Array2<f32>,
        labels: Vec<usize>,
        classes: usize,
        shape: Vec<usize>,
    ) -> Result<Self> {
        let truth = Truth::Classes(labels);
        Self::bounded(name, images, (truth, classes), shape, Bounds::default())
    }

    /// A data set of `images: [n, D]` with real `values: [n, K]` to regress to.
    ///
    /// # Errors
    /// Those of [`new`](Self::new), and [`Error::Data`] for values that are not finite or of which
    /// a sample has none.
    pub fn with_values(
        name: impl Into<String>,
        images: Array2<f32>,
        values: Array2<f64>,
        shape: Vec<usize>,
    ) -> Result<Self> {
        let truth = Truth::Values(values);
        Self::bounded(name, images, (truth, 0), shape, Bounds::default())
    }

    /// A data set of `images: [n, D]` in other bounds, with classes and their number, or with
    /// values and 0.
    ///
    /// # Errors
    /// Those of [`new`](Self::new) and [`with_values`](Self::with_values).
    pub fn bounded(
        name: impl Into<String>,
        images: Array2<f32>,
        (truth, classes): (Truth<f64>, usize),
        shape: Vec<usize>,
        bounds: Bounds,
    ) -> Result<Self> {
        let dataset = Self {
            name: printable(&name.into()).into_owned(),
            images: row_major(images),
            truth,
            weights: Vec::new(),
            classes,
            shape,
            bounds,
            reading: Reading::default(),
        };
        dataset.checked()
    }

    /// The same samples in other bounds.
    ///
    /// # Errors
    /// [`Error::FeatureOutsideBox`] unless they hold all features.
    pub fn within(self, bounds: Bounds) -> Result<Self> {
        let dataset = Self { bounds, ..self };
        dataset.check_features()?;
        Ok(dataset)
    }

    /// The bounds that a choice means for these samples and perhaps further ones of their shape.
    pub(super) fn bounds_by(&self, choice: BoxChoice, others: Option<&Dataset>) -> Bounds {
        match choice {
            BoxChoice::Unit => Bounds::default(),
            BoxChoice::Between(ends) => Bounds::all(ends.map(|end| end as f32)),
            BoxChoice::None => Bounds::none(),
            BoxChoice::Data => {
                let mut ends = vec![[f32::INFINITY, f32::NEG_INFINITY]; channels(&self.shape)];
                let size = self.features() / ends.len();
                for images in [Some(self), others].into_iter().flatten() {
                    for ((_, feature), &x) in images.images.indexed_iter() {
                        let [low, high] = &mut ends[feature / size];
                        (*low, *high) = (low.min(x), high.max(x));
                    }
                }
                let each = ends
                    .iter()
                    .flat_map(|ends| std::iter::repeat_n(*ends, size));
                Bounds::each(each.collect())
            }
        }
    }

    /// The same samples with what reading has made of the file.
    pub(super) fn read_as(self, reading: Reading) -> Self {
        Self { reading, ..self }
    }

    /// The same samples for a network that was made elsewhere, with so many logits. Where whole
    /// numbers that leave some out are labels, as in 1, 2, 7, they are the classes of a network
    /// with as many classes as there are labels in their order; of one with more they are its
    /// classes of these numbers.
    pub fn for_outputs(self, outputs: usize) -> Self {
        let (found, classes) = (self.reading.labels.len(), prediction::classes(outputs));
        let numbers = self.reading.label_numbers().filter(|n| !n.is_empty());
        let fits = |numbers: &Vec<usize>| numbers.iter().all(|&label| label < classes);
        let Some(numbers) = numbers.filter(|numbers| found < classes && fits(numbers)) else {
            return self;
        };
        let labels = self.labels().iter().map(|&class| numbers[class]).collect();
        Self {
            truth: Truth::Classes(labels),
            classes,
            reading: Reading {
                labels: Vec::new(),
                ..self.reading
            },
            ..self
        }
    }

    /// The same samples with weights: means over samples, in training and in metrics, become
    /// `Σ w φ / Σ w`. Empty for equal ones.
    ///
    /// # Errors
    /// [`Error::Data`] unless there is one for each sample, all are finite and at least 0, and
    /// their sum is positive and finite.
    pub fn with_weights(self, weights: Vec<f64>) -> Result<Self> {
        let problem = |problem: String| {
            let name = &self.name;
            let problem = format!("the weights of {name}: {problem}");
            Err(Error::Data { problem })
        };
        if !weights.is_empty() && weights.len() != self.samples() {
            let (found, samples) = (weights.len(), self.samples());
            return problem(format!(
                "there are {found} for {samples} samples; give one for each"
            ));
        }
        if let Some(i) = weights.iter().position(|w| !(w.is_finite() && *w >= 0.0)) {
            return problem(format!(
                "that of sample {i} is {}; it must be finite and at least 0",
                weights[i]
            ));
        }
        let sum: f64 = weights.iter().sum();
        let has_mean = weights.is_empty() || (sum > 0.0 && sum.is_finite());
        if !has_mean {
            return problem(format!(
                "their sum is {sum}; it must be positive and finite"
            ));
        }
        Ok(Self { weights, ..self })
    }

    /// The samples with the given numbers, in the given order; a number may occur more than once.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyDataset`] without any number, [`Error::SampleIndex`] for one that does not
    /// exist.
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
        let weights = indices.iter().filter_map(|&i| self.weights.get(i).copied());
        Ok(Self {
            name: self.name.clone(),
            images: row_major(self.images.select(Axis(0), indices)),
            truth: self.truth.select(indices),
            weights: weights.collect(),
            classes: self.classes,
            shape: self.shape.clone(),
            bounds: self.bounds.clone(),
            reading: self.reading.clone(),
        })
    }

    /// The samples whose weight is not 0.
    pub(crate) fn weighted(&self) -> Result<Self> {
        match self.weights.contains(&0.0) {
            false => Ok(self.clone()),
            true => {
                let all = 0..self.samples();
                self.subset(&all.filter(|&i| self.weights[i] > 0.0).collect::<Vec<_>>())
            }
        }
    }

    /// These samples and then those of another data set of the same kind.
    ///
    /// # Errors
    ///
    /// Those of [`Split::new`](super::Split::new).
    pub fn followed_by(&self, other: &Dataset) -> Result<Self> {
        self.check_alike(other)?;
        let images = ndarray::concatenate![Axis(0), self.images, other.images];
        let all = |one: &Dataset| match one.weights.is_empty() {
            true => vec![1.0; one.samples()],
            false => one.weights.clone(),
        };
        let weights = match self.weights.is_empty() && other.weights.is_empty() {
            true => Vec::new(),
            false => [all(self), all(other)].concat(),
        };
        Ok(Self {
            images,
            truth: self
                .truth
                .followed_by(&other.truth)
                .expect("they are alike"),
            weights,
            ..self.clone()
        })
    }

    /// Refuses other samples that do not fit the same network.
    pub(crate) fn check_alike(&self, test: &Dataset) -> Result<()> {
        if self.shape() != test.shape() {
            return Err(Error::SplitShapes {
                train: self.shape().to_vec(),
                test: test.shape().to_vec(),
            });
        }
        let (train, test) = (self.answers(), test.answers());
        match train == test {
            true => Ok(()),
            false => Err(Error::SplitTruth { train, test }),
        }
    }

    /// What is to be said of a sample, such as `10 classes` or `2 values`.
    pub(crate) fn answers(&self) -> String {
        let plural = |n: usize| if n == 1 { "" } else { "s" };
        match &self.truth {
            Truth::Classes(_) => format!("{} classes", self.classes),
            Truth::Values(values) => format!("{} value{}", values.ncols(), plural(values.ncols())),
        }
    }

    /// The features of a sample and what is said of it, such as `64 features (1x8x8), 10 classes`.
    pub fn kind_in_words(&self) -> String {
        let shape = match &self.shape[..] {
            [_] => String::new(),
            axes => {
                let axes: Vec<String> = axes.iter().map(usize::to_string).collect();
                format!(" ({})", axes.join("x"))
            }
        };
        let features = match self.features() {
            1 => "1 feature".to_owned(),
            n => format!("{n} features"),
        };
        format!("{features}{shape}, {}", self.answers())
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
        self.subset(&(0..n).collect::<Vec<_>>())
    }

    /// The name, such as `digits` or `mnist`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The images: `[samples, features]`, row-major, in the [bounds](Self::bounds).
    pub fn images(&self) -> &Array2<f32> {
        &self.images
    }

    /// The box that holds them.
    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// What reading has made of the file.
    pub fn reading(&self) -> &Reading {
        &self.reading
    }

    /// Classes or values.
    pub fn truth(&self) -> &Truth<f64> {
        &self.truth
    }

    /// The labels: `[samples]`, each below [`classes`](Self::classes); empty with values.
    pub fn labels(&self) -> &[usize] {
        self.truth.labels()
    }

    /// The values: `[samples, K]`, if there are any.
    pub fn values(&self) -> Option<&Array2<f64>> {
        match &self.truth {
            Truth::Classes(_) => None,
            Truth::Values(values) => Some(values),
        }
    }

    /// The weights: `[samples]`, or none if all samples count alike.
    pub fn weights(&self) -> &[f64] {
        &self.weights
    }

    /// The number of classes, 0 with values. Not every class need have a sample.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Whether there are classes or values.
    pub fn kind(&self) -> TargetKind {
        self.truth.kind()
    }

    /// What is to be said of a sample, for the engine.
    pub fn target(&self, sample: usize) -> Targets<'_, f64> {
        self.truth.part(sample..sample + 1)
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

    /// Mean and standard deviation (`n`) of every channel over all samples and places; of samples
    /// that are no images `[C, H, W]`, of all features together.
    ///
    /// # Errors
    ///
    /// [`Error::Data`] for a channel that is constant.
    pub fn channel_statistics(&self) -> Result<ChannelStatistics> {
        let channels = match self.shape[..] {
            [_] => 1,
            _ => channels(&self.shape),
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

    fn checked(self) -> Result<Self> {
        self.check_sizes()?;
        self.check_truth()?;
        self.check_features()?;
        Ok(self)
    }

    fn check_sizes(&self) -> Result<()> {
        let ([images, found], labels) = ([self.samples(), self.features()], self.truth.len());
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

    fn check_truth(&self) -> Result<()> {
        let (name, classes) = (self.name.clone(), self.classes);
        match &self.truth {
            Truth::Classes(labels) => {
                let outside = labels.iter().position(|&label| label >= classes);
                outside.map_or(Ok(()), |sample| {
                    Err(Error::Label {
                        name,
                        sample,
                        label: labels[sample],
                        classes,
                    })
                })
            }
            Truth::Values(values) if values.ncols() == 0 => Err(self.empty("values to regress to")),
            Truth::Values(values) => {
                let mut entries = values.indexed_iter();
                let bad = entries.find(|(_, value)| !value.is_finite());
                bad.map_or(Ok(()), |((sample, k), value)| {
                    Err(Error::Data {
                        problem: format!(
                            "value {k} of sample {sample} of data set {name} is {value}; all must be finite"
                        ),
                    })
                })
            }
        }
    }

    fn check_features(&self) -> Result<()> {
        let outside = |feature: usize, x: f32| !x.is_finite() || !self.bounds.contains(feature, x);
        let mut entries = self.images.indexed_iter();
        let outside = entries.find(|((_, feature), x)| outside(*feature, **x));
        let Some(((sample, feature), &found)) = outside else {
            return Ok(());
        };
        let name = self.name.clone();
        Err(if found.is_finite() {
            let finite = self.images.iter().filter(|x| x.is_finite());
            let range = finite.fold([found; 2], |[low, high], &x| [low.min(x), high.max(x)]);
            Error::FeatureOutsideBox {
                name,
                sample,
                feature,
                found,
                ends: self.bounds.of(feature),
                range,
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
                    "feature 1 of sample 1 of data set tiny is {bad}, outside the box [0, 1], and the numbers go from {} to {}; choose the box by --box LO,HI, --box data or --box none, or map the numbers into it by --scale range or --scale LO,HI",
                    bad.min(0.0),
                    bad.max(1.0)
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
