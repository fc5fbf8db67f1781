//! From a network to bytes.

use relugrad::{Network, ParameterInfo, Scalar};
use safetensors::Dtype;

use super::container::{NewTensor, pack};
use super::graph::json_of;
use super::{CHECKSUM_KEY, GRAPH_KEY, Metadata};
use crate::error::{Error, Result};

/// The bytes of a model file. Equal networks and strings give equal bytes.
///
/// # Errors
/// [`Error::ReservedKey`], [`Error::NotFinite`] for a NaN or infinite weight,
/// [`Error::WidthRange`], and [`Error::HeaderTooLarge`] for too much metadata.
pub fn to_bytes<T: Scalar>(network: &Network<T>, metadata: &Metadata) -> Result<Vec<u8>> {
    pack(&described(network, metadata)?, &tensors(network)?)
}

/// The strings of a file with the graph of its network among them.
pub(super) fn described<T: Scalar>(network: &Network<T>, metadata: &Metadata) -> Result<Metadata> {
    let mut reserved = [GRAPH_KEY, CHECKSUM_KEY].into_iter();
    if let Some(key) = reserved.find(|key| metadata.contains_key(*key)) {
        return Err(Error::ReservedKey { key: key.into() });
    }
    let mut metadata = metadata.clone();
    metadata.insert(GRAPH_KEY.into(), json_of(network)?);
    Ok(metadata)
}

/// The learned and the constant arrays of a network.
pub(super) fn tensors<T: Scalar>(network: &Network<T>) -> Result<Vec<NewTensor>> {
    let parameters = network.parameters();
    let tensor = |info: &ParameterInfo| tensor(info, &parameters.values()[info.range()]);
    let tensors = parameters.layout().iter().map(tensor);
    let mut tensors = tensors.collect::<Result<Vec<_>>>()?;
    for node in network.nodes() {
        for constant in node.constants() {
            let (dtype, bytes) = encode(constant.values());
            tensors.push(NewTensor {
                name: format!("{}.{}", node.name(), constant.name()),
                dtype,
                shape: constant.shape().to_vec(),
                bytes,
            });
        }
    }
    Ok(tensors)
}

fn tensor<T: Scalar>(info: &ParameterInfo, values: &[T]) -> Result<NewTensor> {
    if let Some(entry) = values.iter().position(|value| !value.is_finite()) {
        return Err(Error::NotFinite {
            tensor: info.name().to_owned(),
            index: super::index(info.shape(), entry),
            value: values[entry].into_f64(),
        });
    }
    let (dtype, bytes) = encode(values);
    Ok(NewTensor {
        name: info.name().to_owned(),
        dtype,
        shape: info.shape().to_vec(),
        bytes,
    })
}

/// Little-endian bytes in the precision `T`.
pub(super) fn encode<T: Scalar>(values: &[T]) -> (Dtype, Vec<u8>) {
    let doubles = values.iter().map(|value| value.into_f64());
    if T::NAME == f32::NAME {
        // The numbers came from `f32`, so nothing is rounded.
        let bytes = doubles.flat_map(|value| f32::from_f64(value).to_le_bytes());
        (Dtype::F32, bytes.collect())
    } else {
        (Dtype::F64, doubles.flat_map(f64::to_le_bytes).collect())
    }
}
