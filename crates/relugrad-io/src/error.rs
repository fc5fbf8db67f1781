//! What can be wrong with a model file.

use std::io;
use std::path::{Path, PathBuf};

use crate::text::{Printable, Size};

/// The reason why a model cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refuses to read a file.
    #[error("cannot read {}", Printable(.path.display()))]
    Read {
        /// Which file.
        path: PathBuf,
        /// Its reason.
        source: io::Error,
    },

    /// What is no regular file.
    #[error("{} is a {kind}, and only regular files are read; save what it gives to a file", Printable(.path.display()))]
    NotReadable {
        /// Its path.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },

    /// The operating system refuses to write a file. What was at the path before is still there.
    #[error("cannot write {}", Printable(.path.display()))]
    Write {
        /// Which file.
        path: PathBuf,
        /// Its reason.
        source: io::Error,
    },

    /// There is a file already where a new one should be written.
    #[error("{} exists already; choose another name, or ask for it to be replaced", .path.display())]
    Exists {
        /// Which file.
        path: PathBuf,
    },

    /// Something that is no ordinary file is at a path where a file should be written.
    #[error("{} is {found}, which is never replaced; choose another name", .path.display())]
    NotAFile {
        /// Which path.
        path: PathBuf,
        /// What is there.
        found: &'static str,
    },

    /// A file that may be replaced, but that its owner has made read-only.
    #[error("{} is read-only; make it writable, or choose another name", .path.display())]
    ReadOnly {
        /// Which file.
        path: PathBuf,
    },

    /// A file that is read by the command that would replace it.
    #[error("{} is read by this command, which would also replace it; copy it, or choose another name for what is written", .path.display())]
    OutputIsInput {
        /// Which file.
        path: PathBuf,
    },

    /// A folder of results that cannot be made.
    #[error("cannot make the folder {}; give another one to --out", .path.display())]
    MakeFolder {
        /// Which folder.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },

    /// Something in a folder of results that the command has not made and would replace.
    #[error("{} is {found} that `relugrad {command}` has not made here, and it would be replaced; move it away, or give another folder", .path.display())]
    Foreign {
        /// Which path.
        path: PathBuf,
        /// What is there.
        found: &'static str,
        /// The command that would replace it.
        command: &'static str,
    },

    /// A file of results that somebody has changed.
    #[error("{} was changed since `relugrad {command}` wrote it, and it would be replaced; move it away, or give another folder", .path.display())]
    Changed {
        /// Which file.
        path: PathBuf,
        /// The command that would replace it.
        command: &'static str,
    },

    /// A file of results that is not as the command has written it.
    #[error("{} {found}; bring the whole folder again, or make it again by `relugrad {command}`", .path.display())]
    NotAsWritten {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        found: &'static str,
        /// The command that has made it.
        command: &'static str,
    },

    /// A list of the files in a folder that cannot be understood.
    #[error("{}, which lists the files that relugrad has made in its folder, cannot be understood: {reason}; move it away", .path.display())]
    Manifest {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// A folder that another process is writing to.
    #[error("{} is in use by {holder}; wait until it has ended, stop it, or give another folder (its lock is {})", .folder.display(), .lock.display())]
    Locked {
        /// Which folder.
        folder: PathBuf,
        /// The file that says so.
        lock: PathBuf,
        /// Who writes there, and since when.
        holder: String,
    },

    /// A folder that was deleted, moved or given to another process while it was written to.
    #[error("{} was deleted or moved, or its lock was, while this command was writing there", .folder.display())]
    FolderLost {
        /// Which folder.
        folder: PathBuf,
    },

    /// Something is wrong with what a file holds, or with what should be written to it.
    #[error("{}: {}", Printable(.path.display()), Printable(problem))]
    InFile {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        problem: Box<Error>,
    },

    /// A file that asks for more memory than one file may take.
    #[error(
        "{what} needs {} of memory, but only {} are left of the {} that this file may take; --file-memory SIZE allows \
         more", Size(*.needed), Size(*.left), Size(*.limit)
    )]
    Memory {
        /// What it is needed for.
        what: String,
        /// How many bytes.
        needed: u64,
        /// How many bytes are left.
        left: u64,
        /// How many bytes all that is made from the file may take.
        limit: u64,
    },

    /// A file, or a part of it, that is longer than those that are read.
    #[error(
        "{what} has {} bytes, and at most {} are read; --file-memory SIZE allows more",
        .bytes, .limit
    )]
    TooLongToRead {
        /// What is so long.
        what: &'static str,
        /// How many bytes it has.
        bytes: u64,
        /// How many are read.
        limit: u64,
    },

    /// An array without entries whose other axes are longer than the file may ask for.
    #[error(
        "{what} has no entries: one of its axes has length 0, and the others are too long for any array; write the file \
         again"
    )]
    EmptyShape {
        /// What has this shape.
        what: String,
    },

    /// The file is shorter or longer than its header says.
    #[error(
        "the file has {found} bytes but its header asks for {expected}; it is damaged or was not written \
         to its end, so copy or export it again"
    )]
    Length {
        /// Length according to the header.
        expected: u64,
        /// Length of the file.
        found: u64,
    },

    /// A header that would be longer than those that programs read.
    #[error(
        "the header of the safetensors file would have {bytes} bytes, and other programs read at most {limit}; use \
         shorter names or less metadata"
    )]
    HeaderTooLarge {
        /// Length of the header.
        bytes: u64,
        /// The longest header.
        limit: u64,
    },

    /// The header does not follow the safetensors format.
    #[error(
        "this is no safetensors file, or its header is damaged ({reason}); copy or export it again"
    )]
    NotSafetensors {
        /// What the parser says.
        reason: String,
    },

    /// A sound safetensors file that another program has written.
    #[error(
        "this is a safetensors file without relugrad's graph (key `relugrad` in its metadata), so its tensors \
         alone do not say what they compute; for the weights of a PyTorch sequence describe the network with \
         --model, or save the model with relugrad"
    )]
    MissingGraph,

    /// The graph is not JSON of the expected form.
    #[error("the graph (key `relugrad` in the metadata) cannot be understood: {reason}")]
    MalformedGraph {
        /// What the parser says, with the column in the JSON text.
        reason: String,
    },

    /// A file of a later format.
    #[error(
        "the graph has format {found} but this program reads formats 1 to {supported}; use a newer relugrad"
    )]
    FormatVersion {
        /// Format of the file.
        found: u64,
        /// The latest format that can be read.
        supported: u64,
    },

    /// An operation that this version of the format does not have.
    #[error(
        "node `{node}` has the operation `{operation}`, which model files of this version do not have; they \
         have {}", .known.join(", ")
    )]
    UnknownOperation {
        /// Which node.
        node: String,
        /// Its operation.
        operation: String,
        /// The operations of this version.
        known: Vec<&'static str>,
    },

    /// A node without an attribute that its operation needs, or with one that it does not have.
    #[error("node `{node}` of operation `{operation}`: {problem}")]
    Attribute {
        /// Which node.
        node: String,
        /// Its operation.
        operation: String,
        /// What it lacks, or what it should not have.
        problem: String,
    },

    /// Two nodes of one name.
    #[error("two nodes are called `{node}`; every node needs a name of its own")]
    DuplicateName {
        /// The name.
        node: String,
    },

    /// A node reads a node that does not exist.
    #[error("node `{node}` takes the value of `{input}`, but no node is called so")]
    UnknownInput {
        /// The reading node.
        node: String,
        /// The name that it gives.
        input: String,
    },

    /// A node reads itself or a node after it, as in every cycle.
    #[error(
        "node `{node}` takes the value of `{input}`, which is not listed before it; list nodes in the order \
         of evaluation (a graph with a cycle has none)"
    )]
    ForwardReference {
        /// The reading node.
        node: String,
        /// The node that it reads.
        input: String,
    },

    /// A shape whose product is not the width.
    #[error("node `{node}` has shape {shape:?}, whose product is not its width {width}")]
    ShapeWidth {
        /// Which node.
        node: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Its width.
        width: usize,
    },

    /// A width of zero or one that no network has.
    #[error("node `{node}` has width {width}, but widths are from 1 to {limit}")]
    WidthRange {
        /// Which node.
        node: String,
        /// Its width.
        width: usize,
        /// The largest width.
        limit: usize,
    },

    /// A tensor whose shape does not fit the graph.
    #[error("tensor `{tensor}` has shape {found:?} but the graph asks for {expected:?}")]
    Shape {
        /// Which tensor.
        tensor: String,
        /// The shape that fits.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },

    /// A tensor of numbers that relugrad does not compute with.
    #[error(
        "tensor `{tensor}` has dtype {found}, but F16, BF16, F32 or F64 is needed; convert it and save again"
    )]
    Dtype {
        /// Which tensor.
        tensor: String,
        /// Its dtype.
        found: String,
    },

    /// A tensor that the graph needs is not in the file.
    #[error("there is no tensor `{tensor}`, which node `{node}` needs; export the model again")]
    MissingTensor {
        /// Which tensor.
        tensor: String,
        /// The node that needs it.
        node: String,
    },

    /// A tensor that no node uses.
    #[error("no node uses the tensor `{tensor}`; remove it, or the graph lacks a node")]
    ExtraTensor {
        /// Which tensor.
        tensor: String,
    },

    /// A weight that is NaN or infinite.
    #[error("entry {index:?} of tensor `{tensor}` is {value}; weights must be finite")]
    NotFinite {
        /// Which tensor.
        tensor: String,
        /// Where in it.
        index: Vec<usize>,
        /// What stands there.
        value: f64,
    },

    /// A finite `f64` weight that is infinite once rounded to `f32`.
    #[error(
        "entry {index:?} of tensor `{tensor}` is {value}, too large for f32; load the model as f64"
    )]
    TooLarge {
        /// Which tensor.
        tensor: String,
        /// Where in it.
        index: Vec<usize>,
        /// What stands there.
        value: f64,
    },

    /// A node that a format cannot express exactly.
    #[error("node `{node}` ({operation}) cannot be written: {problem}")]
    Unwritable {
        /// Which node.
        node: String,
        /// Its operation.
        operation: &'static str,
        /// What cannot be written, and what can.
        problem: String,
    },

    /// A file longer than its readers read.
    #[error(
        "the file would have {bytes} bytes, but ONNX files have at most {limit}; write a .safetensors file"
    )]
    TooLong {
        /// How long it would be.
        bytes: u64,
        /// The longest.
        limit: u64,
    },

    /// A name that does not tell the format.
    #[error(
        "{}: the ending does not tell the format; models are read from .safetensors, .onnx and .nnet, and written to \
         the first two", .path.display()
    )]
    Ending {
        /// Which file.
        path: PathBuf,
    },

    /// An ONNX file where the crate was built without its feature `onnx`.
    #[error(
        "ONNX files are read by the feature `onnx` of relugrad-io, which this program was built without"
    )]
    WithoutOnnx,

    /// Inputs, outputs or constants are chosen of a file that is no ONNX file.
    #[error(
        "its model has one input and one output; --input-name, --output, --constant and, without --model, \
         --input-shape are for .onnx files"
    )]
    OneMap,

    /// An NNet file that is damaged.
    #[error("line {line} of the NNet file: {problem}")]
    NNet {
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },

    /// A file that Python has pickled: reading it may run code that is in it.
    #[error(
        "{}: files of torch.save are not read, since reading one can run code that is in it; write its tensors to a \
         safetensors file in Python: import torch, safetensors.torch as s; \
         s.save_file(torch.load(\"{name}\", weights_only=True), \"{stem}.safetensors\")",
        path.display(),
        name = path.file_name().unwrap_or_default().display(),
        stem = path.file_stem().unwrap_or_default().display()
    )]
    Pickled {
        /// Which file.
        path: PathBuf,
    },

    /// A folder in which there is no model, or more than one.
    #[error(
        "{} is a folder without a best.safetensors, {}",
        path.display(),
        match &found[..] {
            [] => "nor is there any other model in it; name the model's file".to_owned(),
            found => format!("and with the models {}; name one of them", found.join(", ")),
        }
    )]
    NoModel {
        /// Which folder.
        path: PathBuf,
        /// The models in it, by their paths.
        found: Vec<String>,
    },

    /// Weights of a sequence that do not fit the network that was given for them.
    #[error("the weights do not fit the model: {problem}")]
    State {
        /// What does not fit.
        problem: String,
    },

    /// The bytes are no ONNX model.
    #[error("this is no ONNX file, or it is damaged: {reason}; copy or export it again")]
    NotOnnx {
        /// What the parser says.
        reason: String,
    },

    /// An ONNX graph that is not a network of ours.
    #[error("the ONNX graph cannot be read: {problem}")]
    OnnxGraph {
        /// What does not fit, and what would.
        problem: String,
    },

    /// A node of an ONNX graph that is damaged, not piecewise linear, or not supported.
    #[error("node `{node}` ({operator}): {problem}")]
    OnnxNode {
        /// Its name, or that of its first output.
        node: String,
        /// Its operator.
        operator: String,
        /// What does not fit, and what would.
        problem: String,
    },

    /// A tensor of an ONNX file that is damaged or of a kind that is not read.
    #[error("tensor `{tensor}`: {problem}")]
    OnnxTensor {
        /// Which tensor.
        tensor: String,
        /// What is wrong.
        problem: String,
    },

    /// A file of NumPy that is damaged or holds something else.
    #[error("{problem}")]
    Numpy {
        /// What is wrong.
        problem: String,
    },

    /// An entry of an array that is NaN or infinite.
    #[error("the entry at {index:?} is {value}; all must be finite")]
    NumpyNotFinite {
        /// Where it stands.
        index: Vec<usize>,
        /// What stands there.
        value: f64,
    },

    /// An .npz archive without the array that is looked for.
    #[error("it has no array called {}; its arrays are {}", .wanted.join(" or "), .found.join(", "))]
    NumpyMissing {
        /// The names that were looked for.
        wanted: Vec<String>,
        /// The names of its arrays.
        found: Vec<String>,
    },

    /// A file whose bytes are not those that were written.
    #[error(
        "its checksum is {found:08x} but its bytes give {expected:08x}: it is damaged; use an earlier copy"
    )]
    Checksum {
        /// The checksum of the bytes.
        expected: u32,
        /// The one that the file states.
        found: u32,
    },

    /// A checkpoint without checksum.
    #[error("it has no checksum, which checkpoints have: it is damaged, or no checkpoint")]
    NoChecksum,

    /// A key of the user's metadata that the format uses itself.
    #[error("the metadata key `{key}` is the format's own; use another")]
    ReservedKey {
        /// Which key.
        key: String,
    },

    /// The engine refuses the network.
    #[error(transparent)]
    Network(#[from] relugrad::Error),
}

/// A result of reading or writing a model.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The error without the name of the file in which it was found.
    pub fn problem(&self) -> &Error {
        if let Error::InFile { problem, .. } = self {
            problem.problem()
        } else {
            self
        }
    }

    /// The error with the name of the file in which it was found.
    pub fn in_file(self, path: &Path) -> Error {
        Error::InFile {
            path: path.to_owned(),
            problem: Box::new(self),
        }
    }
}
