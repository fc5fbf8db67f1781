//! What the bytes of an ONNX file take once they are decoded, told before they are.
//!
//! Two bytes can stand for an empty node, whose decoded form has hundreds.

use super::proto::*;

/// A kind of message.
struct Kind {
    /// Bytes of its decoded form without what it points to.
    size: usize,
    /// Its fields that are messages.
    messages: &'static [(u64, &'static Kind)],
    /// Its fields of whole numbers, which may be a byte each.
    packed: &'static [u64],
}

macro_rules! kind {
    ($name:ident, $type:ty, $messages:expr, $packed:expr) => {
        static $name: Kind = Kind {
            size: size_of::<$type>(),
            messages: &$messages,
            packed: &$packed,
        };
    };
}

kind!(
    MODEL,
    ModelProto,
    [(7, &GRAPH), (8, &OPSET), (25, &FUNCTION)],
    []
);
kind!(OPSET, OperatorSetIdProto, [], []);
kind!(FUNCTION, FunctionProto, [], []);
kind!(
    GRAPH,
    GraphProto,
    [
        (1, &NODE),
        (5, &TENSOR),
        (11, &VALUE),
        (12, &VALUE),
        (15, &SPARSE)
    ],
    []
);
kind!(SPARSE, SparseTensorProto, [(1, &TENSOR)], []);
kind!(NODE, NodeProto, [(5, &ATTRIBUTE)], []);
kind!(ATTRIBUTE, AttributeProto, [(5, &TENSOR)], [8]);
kind!(TENSOR, TensorProto, [(13, &ENTRY)], [1, 5, 7, 11]);
kind!(ENTRY, StringStringEntryProto, [], []);
kind!(VALUE, ValueInfoProto, [(2, &TYPE)], []);
kind!(TYPE, TypeProto, [(1, &TENSOR_TYPE)], []);
kind!(TENSOR_TYPE, type_proto::Tensor, [(2, &SHAPE)], []);
kind!(SHAPE, TensorShapeProto, [(1, &DIMENSION)], []);
kind!(DIMENSION, tensor_shape_proto::Dimension, [], []);

/// Lists double their memory as they grow.
const GROWTH: u64 = 2;

/// An upper bound of the memory that a model takes once it is decoded. Of damaged bytes, those
/// before the damage count.
pub(super) fn decoded_size(model: &[u8]) -> u64 {
    message(&MODEL, model).saturating_mul(GROWTH)
}

/// Whether a file can be a model, judging by its first bytes.
pub(super) fn begins_like_a_model(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    matches!(number(&mut rest), Some(key) if key >> 3 > 0 && matches!(key & 7, 0 | 1 | 2 | 5))
}

fn message(kind: &Kind, mut rest: &[u8]) -> u64 {
    let mut size = kind.size as u64;
    while let Some(key) = number(&mut rest) {
        let taken = match key & 7 {
            0 => number(&mut rest).map(|_| 8),
            1 => skip(&mut rest, 8).map(|_| 8),
            5 => skip(&mut rest, 4).map(|_| 4),
            2 => {
                let length = number(&mut rest).and_then(|length| usize::try_from(length).ok());
                let part = length.and_then(|length| skip(&mut rest, length));
                part.map(|part| part_size(kind, key >> 3, part))
            }
            // Groups, which no field is: they are skipped when decoding.
            _ => None,
        };
        match taken {
            Some(taken) => size = size.saturating_add(taken),
            None => break,
        }
    }
    size
}

/// The decoded size of a field with a length.
fn part_size(kind: &Kind, field: u64, part: &[u8]) -> u64 {
    let length = part.len() as u64;
    if let Some((_, kind)) = kind.messages.iter().find(|(number, _)| *number == field) {
        return message(kind, part);
    }
    match kind.packed.contains(&field) {
        true => 8 * length,
        false => size_of::<String>() as u64 + length,
    }
}

fn skip<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (part, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(part)
}

/// A number of seven bits a byte, the lowest first.
fn number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    #[test]
    fn the_bound_covers_what_is_decoded() {
        let node = NodeProto {
            input: vec!["x".into(); 3],
            attribute: vec![AttributeProto::default(); 5],
            ..NodeProto::default()
        };
        let graph = GraphProto {
            node: vec![node; 1000],
            initializer: vec![TensorProto {
                int64_data: vec![1; 1000],
                ..TensorProto::default()
            }],
            ..GraphProto::default()
        };
        let bytes = ModelProto {
            graph: Some(graph),
            ..ModelProto::default()
        }
        .encode_to_vec();
        let nodes = 1000 * (size_of::<NodeProto>() + 5 * size_of::<AttributeProto>() + 72);
        let least = (nodes + 8000) as u64;
        let size = decoded_size(&bytes);
        assert!((least..4 * least).contains(&size), "{size} for {least}");
        assert!(size > 20 * bytes.len() as u64);
        for cut in 0..200 {
            assert!(decoded_size(&bytes[..cut]) <= size);
        }
    }

    #[test]
    fn other_files_do_not_begin_like_a_model() {
        assert!(begins_like_a_model(&[0x08, 0x07]));
        assert!(!begins_like_a_model(&[0; 8]) && !begins_like_a_model(b""));
        assert!(!begins_like_a_model(&[0xff; 20]));
    }
}
