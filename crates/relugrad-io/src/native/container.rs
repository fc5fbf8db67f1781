//! The outer shape of a safetensors file: the header's length, the header in JSON, the tensors'
//! bytes.
//!
//! The library parses and validates the header. Lengths are compared here, because its own
//! comparison overflows on hostile offsets; and headers are written here, because it orders
//! metadata by the hasher's random seed.

use std::collections::BTreeMap;

use safetensors::Dtype;
use safetensors::tensor::{Metadata as Header, TensorInfo};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::limits::{Budget, Limits};
use crate::model::Metadata;

/// Bytes of the number at the start of a file, the header's length.
const PREFIX: usize = size_of::<u64>();

/// The longest header that safetensors readers accept, and we, unless more is allowed.
const MAX_HEADER: u64 = 100_000_000;

/// What a byte of the header takes once it is parsed.
const HEADER: u64 = 8;

/// A file whose header is sound and fits its length.
pub(super) struct Container<'a> {
    header: Header,
    data: &'a [u8],
}

/// One tensor of a file.
pub(super) struct Tensor<'a> {
    pub(super) dtype: Dtype,
    pub(super) shape: &'a [usize],
    pub(super) bytes: &'a [u8],
}

impl<'a> Container<'a> {
    pub(super) fn parse(bytes: &'a [u8], budget: &Budget) -> Result<Container<'a>> {
        let (header, data) = split(bytes)?;
        // The parsed header: names, shapes and offsets, and what is kept of them on the way.
        budget.take(HEADER * header.len() as u64, || "the header".into())?;
        let before = (PREFIX + header.len()) as u64;
        let not_safetensors = |error: serde_json::Error| Error::NotSafetensors {
            reason: error.to_string(),
        };
        let header: Header = serde_json::from_slice(header).map_err(not_safetensors)?;
        if header.data_len() != data.len() {
            return Err(Error::Length {
                expected: before.saturating_add(header.data_len() as u64),
                found: bytes.len() as u64,
            });
        }
        Ok(Container { header, data })
    }

    /// The strings in the header; empty if there are none.
    pub(super) fn metadata(&self) -> Metadata {
        let pairs = self.header.metadata().iter().flatten();
        pairs.map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    pub(super) fn tensor(&self, name: &str) -> Option<Tensor<'_>> {
        let info = self.header.info(name)?;
        let (start, end) = info.data_offsets;
        Some(Tensor {
            dtype: info.dtype,
            shape: &info.shape,
            bytes: &self.data[start..end],
        })
    }

    /// The names of all tensors, in the order of their data.
    pub(super) fn names(&self) -> Vec<String> {
        self.header.offset_keys()
    }
}

/// Whether a file of `length` bytes can be one of safetensors, judging by the first ones.
pub(crate) fn looks_right(bytes: &[u8], length: u64) -> Result<()> {
    match bytes.split_first_chunk::<PREFIX>() {
        Some((_, [first, ..])) if *first != b'{' => Err(Error::NotSafetensors {
            reason: "its header does not begin with `{`".into(),
        }),
        Some((prefix, _)) => check_header(u64::from_le_bytes(*prefix), length),
        None => Ok(()),
    }
}

/// Sees that a file of `length` bytes can have a header of `header` bytes.
fn check_header(header: u64, length: u64) -> Result<()> {
    let expected = header.saturating_add(PREFIX as u64);
    if expected > length {
        return Err(Error::Length {
            expected,
            found: length,
        });
    }
    Limits::of_process().check_length("the header", header, MAX_HEADER)
}

/// The header and the tensors' bytes.
fn split(bytes: &[u8]) -> Result<(&[u8], &[u8])> {
    let found = bytes.len() as u64;
    let (prefix, rest) = bytes.split_first_chunk::<PREFIX>().ok_or(Error::Length {
        expected: PREFIX as u64,
        found,
    })?;
    let header = u64::from_le_bytes(*prefix);
    check_header(header, found)?;
    Ok(rest.split_at(header as usize))
}

/// A tensor to be written.
pub(super) struct NewTensor {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    /// Little-endian entries, row-major.
    pub(super) bytes: Vec<u8>,
}

/// One entry of the header.
#[derive(Serialize)]
#[serde(untagged)]
enum Entry<'a> {
    Metadata(&'a Metadata),
    Tensor(TensorInfo),
}

/// A whole file. Equal arguments give equal bytes.
pub(super) fn pack(metadata: &Metadata, tensors: &[NewTensor]) -> Result<Vec<u8>> {
    let mut entries = BTreeMap::from([("__metadata__", Entry::Metadata(metadata))]);
    let mut end = 0;
    for tensor in tensors {
        let start = end;
        end += tensor.bytes.len();
        let info = TensorInfo {
            dtype: tensor.dtype,
            shape: tensor.shape.clone(),
            data_offsets: (start, end),
        };
        entries.insert(&tensor.name, Entry::Tensor(info));
    }
    let mut header = serde_json::to_vec(&entries).expect("strings and numbers are JSON");
    // Spaces keep the data aligned for readers that map the file into memory.
    header.resize(header.len().next_multiple_of(PREFIX), b' ');
    if header.len() as u64 > MAX_HEADER {
        return Err(Error::HeaderTooLarge {
            bytes: header.len() as u64,
            limit: MAX_HEADER,
        });
    }
    let mut file = Vec::with_capacity(PREFIX + header.len() + end);
    file.extend((header.len() as u64).to_le_bytes());
    file.extend(header);
    tensors.iter().for_each(|tensor| file.extend(&tensor.bytes));
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;

    fn parse(file: &[u8]) -> Result<Container<'_>> {
        Container::parse(file, &Limits::default().budget(file.len() as u64))
    }

    fn framed(header: &str, data: &[u8]) -> Vec<u8> {
        let length = (header.len() as u64).to_le_bytes();
        [&length, header.as_bytes(), data].concat()
    }

    #[test]
    fn the_library_reads_what_is_packed() {
        let tensor = |name: &str, bytes: [u8; 4]| NewTensor {
            name: name.into(),
            dtype: Dtype::F32,
            shape: vec![1],
            bytes: bytes.to_vec(),
        };
        let metadata = Metadata::from([("key".into(), "\"quoted\" ü".into())]);
        let tensors = [tensor("b", [1, 2, 3, 4]), tensor("A", [5, 6, 7, 8])];
        let file = pack(&metadata, &tensors).unwrap();
        let read = safetensors::SafeTensors::deserialize(&file).unwrap();
        assert_eq!(read.tensor("b").unwrap().data(), [1, 2, 3, 4]);
        assert_eq!(read.tensor("A").unwrap().data(), [5, 6, 7, 8]);
        let container = parse(&file).unwrap();
        assert_eq!(container.metadata(), metadata);
        assert_eq!(container.names(), ["b", "A"]);
    }

    #[test]
    fn offsets_near_the_largest_number_do_not_overflow() {
        let size = (1u64 << 61) - 1;
        let tensor = |i: u64| {
            let (start, end) = (i * size, (i + 1) * size);
            format!(r#""t{i}":{{"dtype":"U8","shape":[{size}],"data_offsets":[{start},{end}]}}"#)
        };
        let tensors: Vec<String> = (0..8).map(tensor).collect();
        let file = framed(&format!("{{{}}}", tensors.join(",")), &[0; 8]);
        let expected = u64::MAX;
        assert!(matches!(
            parse(&file),
            Err(Error::Length { expected: e, .. }) if e == expected
        ));
    }

    #[test]
    fn a_header_that_is_too_long_names_the_option_only_if_it_stands_there() {
        let beginning = |header: u64| [&header.to_le_bytes()[..], b"{"].concat();
        let header = MAX_HEADER + 1;
        let error = looks_right(&beginning(header), 1 << 40).unwrap_err();
        assert!(matches!(error, Error::TooLongToRead { bytes, .. } if bytes == header));
        for (header, length) in [(header, header), (u64::MAX, 1 << 40), (1, 8)] {
            let error = looks_right(&beginning(header), length).unwrap_err();
            assert!(matches!(error, Error::Length { .. }), "{error}");
        }
    }

    #[test]
    fn a_header_beyond_the_limit_is_not_written() {
        let text = "x".repeat(MAX_HEADER as usize);
        let metadata = Metadata::from([("key".into(), text)]);
        assert!(matches!(
            pack(&metadata, &[]),
            Err(Error::HeaderTooLarge { .. })
        ));
    }
}
