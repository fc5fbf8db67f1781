//! Which map of a file's graph is read.

use ndarray::ArrayD;

/// Which map of an ONNX graph the network is: where a graph has several inputs or outputs, or
/// leaves lengths of its input open.
///
/// The default takes the only input that the only output depends on, in the shape that the file
/// gives it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selection {
    /// The input that the network is a function of.
    pub input: Option<String>,
    /// The logits: an output of the graph, or the value of one of its nodes.
    pub output: Option<String>,
    /// The shape of one sample, if not the file's. With as many axes as the input of the file it
    /// is all of it, so that axis 0 is not taken for a batch.
    pub input_shape: Option<Vec<usize>>,
    /// Constants for other inputs, by name: an array, or one without axes for every entry.
    pub constants: Vec<(String, ArrayD<f64>)>,
}
