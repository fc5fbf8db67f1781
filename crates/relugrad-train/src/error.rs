//! What can be wrong with data or an option.

/// A result whose error is the crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// The reason why the trainer refuses a request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A data set without samples, or whose samples have no features.
    #[error("data set {name} has no {what}; it needs at least one")]
    EmptyDataset {
        /// Name of the data set.
        name: String,
        /// `samples` or `features`.
        what: &'static str,
    },

    /// Images and labels that do not pair up.
    #[error("data set {name} has {images} images but {labels} labels")]
    LabelCount {
        /// Name of the data set.
        name: String,
        /// Number of images.
        images: usize,
        /// Number of labels.
        labels: usize,
    },

    /// A sample shape whose product is not the number of features.
    #[error("data set {name} has {found} features in a sample but the shape {shape:?} needs {}",
        .expected.map_or("too many to count".to_string(), |n| n.to_string()))]
    SampleShape {
        /// Name of the data set.
        name: String,
        /// The shape that was given.
        shape: Vec<usize>,
        /// Its product; `None` when that overflows.
        expected: Option<usize>,
        /// Number of columns of the images.
        found: usize,
    },

    /// A label that is not a class.
    #[error(
        "sample {sample} of data set {name} has label {label}; labels must be below the number of classes, {classes}"
    )]
    Label {
        /// Name of the data set.
        name: String,
        /// Which sample.
        sample: usize,
        /// Its label.
        label: usize,
        /// Number of classes.
        classes: usize,
    },

    /// A feature that is NaN or infinite.
    #[error("feature {feature} of sample {sample} of data set {name} is not finite")]
    FeatureNotFinite {
        /// Name of the data set.
        name: String,
        /// Which sample.
        sample: usize,
        /// Which feature of it.
        feature: usize,
    },

    /// A feature below 0 or above 1.
    #[error(
        "feature {feature} of sample {sample} of data set {name} is {found}; scale all features to [0, 1]"
    )]
    FeatureOutsideBox {
        /// Name of the data set.
        name: String,
        /// Which sample.
        sample: usize,
        /// Which feature of it.
        feature: usize,
        /// Its value.
        found: f32,
    },

    /// The number of a sample that does not exist.
    #[error("data set {name} has no sample {index}; it has {samples}, counted from 0")]
    SampleIndex {
        /// Name of the data set.
        name: String,
        /// The number that was given.
        index: usize,
        /// Number of samples.
        samples: usize,
    },

    /// More samples asked for than there are.
    #[error("data set {name} has {found} samples but {expected} are asked for; ask for fewer")]
    TooFewSamples {
        /// Name of the data set.
        name: String,
        /// How many were asked for.
        expected: usize,
        /// How many there are.
        found: usize,
    },

    /// Training and test samples of different shapes.
    #[error("training samples have shape {train:?} but test samples {test:?}")]
    SplitShapes {
        /// Shape of a training sample.
        train: Vec<usize>,
        /// Shape of a test sample.
        test: Vec<usize>,
    },

    /// Training and test samples of different numbers of classes.
    #[error("the training samples have {train} classes but the test samples {test}")]
    SplitClasses {
        /// Number of classes of the training samples.
        train: usize,
        /// Number of classes of the test samples.
        test: usize,
    },

    /// A share of test samples that leaves a part empty, or is no number.
    #[error("the test fraction is {found}; it must lie strictly between 0 and 1")]
    TestFraction {
        /// The fraction that was given.
        found: f64,
    },

    /// A class with a single sample, which cannot be in both parts of a stratified split.
    #[error(
        "class {class} of data set {name} has a single sample; a stratified split needs two of each class, so remove it or add another"
    )]
    SingletonClass {
        /// Name of the data set.
        name: String,
        /// Which class.
        class: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overflowing_shape_has_a_message() {
        let shape = vec![usize::MAX, 2];
        let error = Error::SampleShape {
            name: "d".into(),
            shape,
            expected: None,
            found: 4,
        };
        assert!(error.to_string().ends_with("needs too many to count"));
    }
}
