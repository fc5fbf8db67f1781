//! What can be wrong with data, a file or an option.

use std::io;
use std::path::PathBuf;

use relugrad_io::printable;

use crate::report::Divergence;

/// A result whose error is the crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// The reason why the trainer refuses a request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of CIFAR-10 that is damaged.
    #[error("{}: {problem}", .path.display())]
    Cifar {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },

    /// A file of samples that is damaged or does not say what is needed.
    #[error("{}: {}", printable(&.path.to_string_lossy()), printable(problem))]
    DataFile {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it, and what would be right.
        problem: String,
    },

    /// A path with nothing there.
    #[error(
        "there is no `{}`; give digits, a directory with IDX files or CIFAR batches, or a file that ends in .npz, .npy, .csv or .csv.gz",
        printable(&.path.to_string_lossy())
    )]
    NoData {
        /// Which path.
        path: PathBuf,
    },

    /// A file that is there and has samples in no known form.
    #[error(
        "{} is no file of samples by its name; samples are read from files that end in .npz, .npy, .csv or .csv.gz, from directories with IDX files or CIFAR batches, and from the built-in digits",
        printable(&.path.to_string_lossy())
    )]
    DataFormat {
        /// Which file.
        path: PathBuf,
    },

    /// An option of the data that does not fit them.
    #[error("the data: {problem}")]
    Data {
        /// What is wrong, and what would be right.
        problem: String,
    },

    /// A model, checkpoint or array that cannot be read or written.
    #[error(transparent)]
    Io(#[from] relugrad_io::Error),

    /// A checkpoint that does not belong to the training that is to be resumed.
    #[error("the checkpoint cannot be resumed: {problem}")]
    Checkpoint {
        /// What is wrong.
        problem: String,
    },

    /// A configuration with a key or value that cannot be understood.
    #[error("the configuration: {problem}")]
    Configuration {
        /// What is wrong, and what would be right.
        problem: String,
    },

    /// A log or folder of a training that cannot be written.
    #[error("cannot write {}", .path.display())]
    Write {
        /// Which file or folder.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },

    /// A folder that holds the results of a training already.
    #[error("{} already holds a training ({found}); go on with it by --resume, replace it by --overwrite, or give another folder", .path.display())]
    RunExists {
        /// Which folder.
        path: PathBuf,
        /// A file by which it is recognised.
        found: String,
    },

    /// Values that were given for keys of a configuration, and that are wrong.
    #[error(transparent)]
    Given(Box<Error>),

    /// What was to be gone on with and is no training.
    #[error("{} {found}, so it holds no run of `relugrad train`; begin one by --out", .path.display())]
    NoRun {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        found: &'static str,
    },

    /// A configuration that somebody has edited, so that it is not the one of the checkpoint.
    #[error("{} was edited: {}; put that back, or say so with --set KEY=VALUE", .path.display(), .changes.join(", "))]
    Edited {
        /// The configuration's file.
        path: PathBuf,
        /// What differs from the checkpoint's configuration.
        changes: Vec<String>,
    },

    /// A value that a training cannot change on its way.
    #[error(
        "{change}, which cannot change when a training is resumed: {reason}; begin another one"
    )]
    FixedKey {
        /// The key, with its values.
        change: String,
        /// Why.
        reason: &'static str,
    },

    /// A checkpoint of the best epoch that does not belong to the latest checkpoint.
    #[error("{}: {problem}; put the run's own file back", .path.display())]
    Best {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },

    /// A description of a network that cannot be understood.
    #[error("the model: {problem}")]
    Architecture {
        /// What is wrong, and what would be right.
        problem: String,
    },

    /// A number outside the range of an option.
    #[error("{option} is {value} but must be {expected}")]
    OutOfRange {
        /// Name of the option.
        option: &'static str,
        /// Its value.
        value: f64,
        /// The range in words.
        expected: &'static str,
    },

    /// A shard that there is not.
    #[error("{problem}")]
    Shard {
        /// What is wrong, and what would be right.
        problem: String,
    },

    /// A penalty that does not fit its place.
    #[error("the penalty {penalty} {problem}")]
    Penalty {
        /// Its name and options.
        penalty: String,
        /// What is wrong, and what would be right.
        problem: String,
    },

    /// An attack that does not fit the samples.
    #[error("{problem}")]
    Attack {
        /// Which attack, what is wrong, and what would be right.
        problem: String,
    },

    /// The name of an optimizer, attack or loss that does not exist.
    #[error("no {what} is called `{name}`; {hint}")]
    UnknownName {
        /// `optimizer`, `attack` or `loss`.
        what: &'static str,
        /// The name that was given.
        name: String,
        /// The nearest name, or all of them.
        hint: String,
    },

    /// A training whose numbers are no longer finite.
    #[error(
        "training {at}; try a smaller learning rate (--lr), clipped gradients (--clip) or smaller weights of the penalties"
    )]
    Diverged {
        /// Where, and which number.
        at: Divergence,
    },

    /// A training step that failed for another reason.
    #[error("training failed in step {step} (epoch {epoch})")]
    Step {
        /// The epoch, from 1.
        epoch: usize,
        /// The step in all epochs, from 1.
        step: u64,
        /// What the engine says.
        source: relugrad::Error,
    },

    /// A sample that the engine refuses.
    #[error("sample {sample}: {source}")]
    Sample {
        /// Which one, from 0.
        sample: usize,
        /// What the engine says.
        source: relugrad::Error,
    },

    /// Something that the engine refuses.
    #[error(transparent)]
    Engine(#[from] relugrad::Error),

    /// A training of a network that has nothing to learn.
    #[error(
        "the network has no parameters, so there is nothing to train; give it a layer with weights"
    )]
    NothingToTrain,

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

    /// A feature outside the box.
    #[error(
        "feature {feature} of sample {sample} of data set {name} is {found}, outside the box [{}, {}], and the numbers go from {} to {}; choose the box by --box LO,HI, --box data or --box none, or map the numbers into it by --scale range or --scale LO,HI",
        .ends[0], .ends[1], .range[0], .range[1]
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
        /// The least and the greatest value that it may have.
        ends: [f32; 2],
        /// The least and the greatest of all features.
        range: [f32; 2],
    },

    /// A text that says no box.
    #[error("`{found}` is no box; give two growing numbers such as -1,1, data or none")]
    BoxText {
        /// The text.
        found: String,
    },

    /// Means or deviations for another number of channels.
    #[error(
        "there are {found} numbers in {option} for inputs of shape {shape:?}; give {}",
        counts(.allowed)
    )]
    Channels {
        /// `mean` or `std`.
        option: &'static str,
        /// How many there are.
        found: usize,
        /// The shape of an input.
        shape: Vec<usize>,
        /// How many there may be.
        allowed: Vec<usize>,
    },

    /// Means without deviations, or the other way round.
    #[error("{given} is given without {missing}; give both")]
    OneOfTwo {
        /// Which is given.
        given: &'static str,
        /// Which is not.
        missing: &'static str,
    },

    /// A mean or deviation that nothing can be standardised by.
    #[error("{option} of channel {channel} is {found}; it must be {expected}")]
    Statistic {
        /// `mean` or `std`.
        option: &'static str,
        /// Which channel.
        channel: usize,
        /// Its value.
        found: f64,
        /// What it must be.
        expected: &'static str,
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

    /// Training and test samples of which different things are to be said.
    #[error("the training samples have {train} but the test samples {test}")]
    SplitTruth {
        /// Such as `3 classes`.
        train: String,
        /// Such as `2 values`.
        test: String,
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

    /// A file that is under none of its usual names.
    #[error("{} has none of the files {}", .directory.display(), .expected.join(", "))]
    MissingFile {
        /// Where it was looked for.
        directory: PathBuf,
        /// The names that were looked for, the usual one first.
        expected: Vec<String>,
    },

    /// A file or directory that the operating system does not let us read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// Which file or directory.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },

    /// A file whose name ends in `.gz` but whose bytes are not a complete gzip stream.
    #[error("{} is not a complete gzip file; download it again, or drop .gz from its name if it is not compressed", .path.display())]
    Gzip {
        /// Which file.
        path: PathBuf,
        /// What the decompressor says.
        source: io::Error,
    },

    /// A file that does not begin like an IDX file of its kind.
    #[error(
        "{} must be an IDX file of {what} and begin with {expected:#010x}, not {found:#010x}; {}",
        .path.display(), magic_hint(*.found)
    )]
    IdxMagic {
        /// Which file.
        path: PathBuf,
        /// `images` or `labels`.
        what: &'static str,
        /// The first four bytes of such a file, big-endian.
        expected: u32,
        /// The first four bytes of this file, big-endian.
        found: u32,
    },

    /// An IDX file whose header says that there is nothing in it.
    #[error("the header of {} declares 0 {what}; at least 1 is needed", .path.display())]
    IdxZero {
        /// Which file.
        path: PathBuf,
        /// `images`, `labels`, `rows` or `columns`.
        what: &'static str,
    },

    /// An IDX file that ends too early.
    #[error(
        "{} holds {found} bytes of {what} but needs {expected}, header included; download it again",
        .path.display()
    )]
    IdxTruncated {
        /// Which file.
        path: PathBuf,
        /// `images` or `labels`.
        what: &'static str,
        /// Number of (decompressed) bytes needed.
        expected: u64,
        /// Number of (decompressed) bytes there.
        found: u64,
    },

    /// An IDX file that goes on after its end. How far is not known: reading stops there.
    #[error(
        "{} holds more bytes of {what} than the {expected} that its header declares; download it again",
        .path.display()
    )]
    IdxTrailing {
        /// Which file.
        path: PathBuf,
        /// `images` or `labels`.
        what: &'static str,
        /// Number of (decompressed) bytes declared, header included.
        expected: u64,
    },

    /// An IDX file of labels that does not belong to the images.
    #[error(
        "{} has {found} labels but {} has {expected} images; take both from the same data set",
        .path.display(), .images.display()
    )]
    IdxCounts {
        /// The file of labels.
        path: PathBuf,
        /// The file of images.
        images: PathBuf,
        /// Number of images.
        expected: usize,
        /// Number of labels.
        found: usize,
    },

    /// An IDX file of test images that does not belong to the training images.
    #[error(
        "{} has images of {found:?} rows and columns but {} of {expected:?}; take both from the same data set",
        .path.display(), .train.display()
    )]
    IdxShapes {
        /// The file of test images.
        path: PathBuf,
        /// The file of training images.
        train: PathBuf,
        /// Rows and columns of a training image.
        expected: [usize; 2],
        /// Rows and columns of a test image.
        found: [usize; 2],
    },
}

/// Refuses a number that is not `valid`.
pub(crate) fn check_range(
    option: &'static str,
    value: f64,
    valid: bool,
    expected: &'static str,
) -> Result<()> {
    if valid {
        return Ok(());
    }
    Err(Error::OutOfRange {
        option,
        value,
        expected,
    })
}

/// What a file with these first four bytes probably is, and what to do.
fn magic_hint(found: u32) -> &'static str {
    match (found, found.to_be_bytes()) {
        (0x0803, _) => "it is a file of images, so see whether two files are exchanged",
        (0x0801, _) => "it is a file of labels, so see whether two files are exchanged",
        (_, [0x1f, 0x8b, _, _]) => "it is compressed, so let its name end in .gz",
        (_, [0, 0, 0x08, _]) => "it is an IDX file of another number of dimensions",
        (_, [0, 0, 0x09 | 0x0b..=0x0e, _]) => {
            "it is an IDX file of numbers other than unsigned bytes, so convert it to these"
        }
        _ => "it is no IDX file, so download it again",
    }
}

/// How many there may be, in words.
fn counts(allowed: &[usize]) -> String {
    let words = allowed.iter().enumerate().map(|(i, count)| match i {
        0 => format!("{count} for all"),
        _ if i + 1 == allowed.len() && allowed.len() > 2 => format!("{count}, one for each value"),
        _ => format!("{count}, one for each channel"),
    });
    words.collect::<Vec<_>>().join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error as _;

    fn magic(what: &'static str, expected: u32, found: u32) -> String {
        let path = PathBuf::from("mnist/some-file");
        Error::IdxMagic {
            path,
            what,
            expected,
            found,
        }
        .to_string()
    }

    #[test]
    fn magic_message_says_what_the_file_is() {
        assert_eq!(
            magic("labels", 0x801, 0x803),
            "mnist/some-file must be an IDX file of labels and begin with 0x00000801, \
             not 0x00000803; it is a file of images, so see whether two files are exchanged"
        );
        assert!(magic("images", 0x803, 0x801).contains("a file of labels"));
        assert!(magic("images", 0x803, 0x1f8b_0808).contains(".gz"));
        assert!(magic("images", 0x803, 0x804).contains("dimensions"));
        assert!(magic("images", 0x803, 0xd03).contains("unsigned bytes"));
        assert!(magic("images", 0x803, 0x3c21_444f).contains("no IDX file"));
    }

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

    #[test]
    fn io_errors_are_the_source() {
        let source = || io::Error::from(io::ErrorKind::PermissionDenied);
        let path = PathBuf::from("f");
        assert!(
            Error::Read {
                path: path.clone(),
                source: source()
            }
            .source()
            .is_some()
        );
        assert!(
            Error::Gzip {
                path,
                source: source()
            }
            .source()
            .is_some()
        );
    }
}
