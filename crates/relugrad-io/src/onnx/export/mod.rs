//! From a network to an ONNX file.

mod gates;
mod operations;
mod writer;

use prost::Message;
use relugrad::{Network, Operation, Scalar};

use super::proto::{ModelProto, OperatorSetIdProto};
use crate::error::{Error, Result};
use writer::Writer;

/// The longest file that programs with protobuf read.
const LONGEST: usize = i32::MAX as usize;

/// The bytes of an ONNX file that computes the logits of `network` from `input: [N, …]`, for every
/// `N`.
///
/// Numbers are of the network's precision, and whatever cannot be written so that it computes the
/// same is refused. A leaky slope that `f32` does not hold is written as a PRelu, whose slope has
/// the network's precision; learned gates, batch normalisation and pooling are the operators of
/// these names, a gather is Flatten, Pad, Gather and Reshape. The operators are of version 17, or
/// 19 if an average is taken over a dilated window, which older versions do not have.
///
/// # Errors
/// [`Error::NotFinite`] for a NaN or infinite weight, [`Error::Unwritable`] for a number of a node
/// that the network's precision does not hold, [`Error::TooLong`] for a file of more than 2 GiB.
pub fn onnx_to_bytes<T: Scalar>(network: &Network<T>) -> Result<Vec<u8>> {
    check_finite(network)?;
    let (opset, ir_version) = versions(network);
    let model = ModelProto {
        ir_version,
        producer_name: "relugrad".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(Writer::new(network, opset).graph()?),
        opset_import: vec![OperatorSetIdProto {
            domain: String::new(),
            version: opset,
        }],
        functions: Vec::new(),
    };
    check_length(model.encoded_len())?;
    Ok(model.encode_to_vec())
}

/// Whether common runtimes compute a network as well in double as in single precision;
/// onnxruntime has no convolution and no averages over windows of doubles.
pub fn onnx_runs_in_double<T: Scalar>(network: &Network<T>) -> bool {
    let missing = |operation: &Operation| {
        matches!(
            operation,
            Operation::Conv2d { .. } | Operation::AveragePool { .. }
        )
    };
    !network.nodes().iter().any(|node| missing(node.operation()))
}

/// The oldest version of the operators that has what a network needs, and the version of the file
/// format that belongs to it; operators of later versions are read by the same programs.
fn versions<T: Scalar>(network: &Network<T>) -> (i64, i64) {
    let dilated = |operation: &Operation| matches!(operation, Operation::AveragePool { window, .. } if window.dilation != [1, 1]);
    if network.nodes().iter().any(|node| dilated(node.operation())) {
        (19, 9)
    } else {
        (17, 8)
    }
}

fn check_finite<T: Scalar>(network: &Network<T>) -> Result<()> {
    for (name, array) in network.parameters().iter() {
        if let Some(entry) = array.iter().position(|v| !v.is_finite()) {
            return Err(Error::NotFinite {
                tensor: name.to_owned(),
                index: crate::native::index(array.shape(), entry),
                value: array.iter().nth(entry).map_or(0.0, |v| v.into_f64()),
            });
        }
    }
    Ok(())
}

fn check_length(bytes: usize) -> Result<()> {
    if bytes <= LONGEST {
        return Ok(());
    }
    Err(Error::TooLong {
        bytes: bytes as u64,
        limit: LONGEST as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_no_program_reads_is_not_written() {
        assert!(check_length(LONGEST).is_ok());
        let error = check_length(LONGEST + 1).unwrap_err();
        assert!(error.to_string().contains("2147483648 bytes"), "{error}");
    }
}
