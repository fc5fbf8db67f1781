//! Constant tensors: their numbers, and which numbers of an initialiser they are.

use std::sync::Arc;

use super::proto::TensorProto;
use crate::error::{Error, Result};
use crate::limits::Budget;

/// A constant of the graph.
#[derive(Clone, Debug)]
pub(super) struct Tensor {
    pub(super) dims: Vec<usize>,
    /// Row-major. Whole numbers stand here too: beyond 2^53 they only ever mean "to the end".
    pub(super) values: Arc<[f64]>,
    /// Whether the numbers are whole by their type.
    pub(super) integer: bool,
    pub(super) source: Option<Source>,
}

/// Where the entries of a constant come from.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Source {
    /// Name of the initialiser.
    pub(super) initializer: String,
    /// The entry of the initialiser that each entry is; the same if `None`.
    pub(super) places: Option<Arc<[u32]>>,
}

impl Source {
    /// The entry of the initialiser that entry `i` is.
    pub(super) fn place(&self, i: usize) -> usize {
        self.places.as_ref().map_or(i, |places| places[i] as usize)
    }
}

impl Tensor {
    pub(super) fn new(dims: Vec<usize>, values: Vec<f64>, integer: bool) -> Tensor {
        debug_assert_eq!(dims.iter().product::<usize>(), values.len());
        Tensor {
            dims,
            values: values.into(),
            integer,
            source: None,
        }
    }

    /// Whole numbers along one axis.
    pub(super) fn integers(values: Vec<f64>) -> Tensor {
        Tensor::new(vec![values.len()], values, true)
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// The same numbers under other dimensions.
    pub(super) fn reshaped(&self, dims: Vec<usize>) -> Tensor {
        debug_assert_eq!(dims.iter().product::<usize>(), self.len());
        Tensor {
            dims,
            ..self.clone()
        }
    }

    /// Entry `i` is entry `places[i]` of this constant.
    pub(super) fn picked(&self, dims: Vec<usize>, places: &[usize]) -> Tensor {
        let source = self.source.as_ref().map(|source| Source {
            initializer: source.initializer.clone(),
            places: Some(places.iter().map(|&i| source.place(i) as u32).collect()),
        });
        Tensor {
            dims,
            values: places.iter().map(|&i| self.values[i]).collect(),
            integer: self.integer,
            source,
        }
    }

    /// The numbers as indices; those beyond the range of `i64` are its ends.
    pub(super) fn to_integers(&self) -> Vec<i64> {
        self.values.iter().map(|&v| v as i64).collect()
    }

    /// The only entry.
    pub(super) fn scalar(&self) -> Option<f64> {
        (self.len() == 1).then(|| self.values[0])
    }
}

/// Reads a tensor; `external` finds bytes that are in another file.
pub(super) fn decode(
    proto: &TensorProto,
    budget: &Budget,
    external: &dyn Fn(&TensorProto) -> Result<Vec<u8>>,
) -> Result<Tensor> {
    let problem = |problem: String| Error::OnnxTensor {
        tensor: proto.name.clone(),
        problem,
    };
    let dims = dims(&proto.dims).ok_or_else(|| {
        problem(format!(
            "its dimensions {:?} are negative or too large",
            proto.dims
        ))
    })?;
    let expected = budget.array(&dims, size_of::<f64>(), || {
        format!("tensor `{}` of dimensions {dims:?}", proto.name)
    })?;
    let external = (proto.data_location == 1)
        .then(|| external(proto))
        .transpose()?;
    let raw = external.as_deref().unwrap_or(&proto.raw_data);
    let (values, integer) = numbers(proto, raw).map_err(problem)?;
    if values.len() != expected {
        let found = values.len();
        return Err(problem(format!(
            "its dimensions {dims:?} ask for {expected} numbers but it has {found}; the file is damaged"
        )));
    }
    Ok(Tensor::new(dims, values, integer))
}

fn dims(dims: &[i64]) -> Option<Vec<usize>> {
    let dims: Option<Vec<usize>> = dims.iter().map(|&n| usize::try_from(n).ok()).collect();
    let product = |dims: &Vec<usize>| dims.iter().try_fold(1usize, |p, &n| p.checked_mul(n));
    dims.filter(|dims| product(dims).is_some_and(|p| p <= isize::MAX as usize))
}

/// All numbers, and whether their type is whole.
fn numbers(proto: &TensorProto, raw: &[u8]) -> std::result::Result<(Vec<f64>, bool), String> {
    let typed = !proto.float_data.is_empty()
        || !proto.double_data.is_empty()
        || !proto.int32_data.is_empty()
        || !proto.int64_data.is_empty();
    if typed && !raw.is_empty() {
        return Err("it has its numbers twice, raw and typed".into());
    }
    let wide = |values: &[i32]| values.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
    Ok(match (proto.data_type, typed) {
        (1, true) => (
            proto.float_data.iter().map(|&v| f64::from(v)).collect(),
            false,
        ),
        (1, false) => (words(raw, |b| f64::from(f32::from_le_bytes(b)))?, false),
        (11, true) => (proto.double_data.clone(), false),
        (11, false) => (words(raw, f64::from_le_bytes)?, false),
        (7, true) => (proto.int64_data.iter().map(|&v| v as f64).collect(), true),
        (7, false) => (words(raw, |b| i64::from_le_bytes(b) as f64)?, true),
        (6 | 9 | 2 | 3, true) => (wide(&proto.int32_data), true),
        (6, false) => (words(raw, |b| f64::from(i32::from_le_bytes(b)))?, true),
        (9 | 2, false) => (raw.iter().map(|&b| f64::from(b)).collect(), true),
        (kind, _) => {
            return Err(format!(
                "its numbers are {}; float, double, int32, int64 and bool are read, so export it in one of them",
                type_name(kind)
            ));
        }
    })
}

/// The numbers in raw little-endian bytes.
fn words<const N: usize>(
    raw: &[u8],
    number: impl Fn([u8; N]) -> f64,
) -> std::result::Result<Vec<f64>, String> {
    let (words, rest) = raw.as_chunks::<N>();
    if !rest.is_empty() {
        return Err(format!(
            "its {} raw bytes are no whole number of entries",
            raw.len()
        ));
    }
    Ok(words.iter().map(|&word| number(word)).collect())
}

/// What ONNX calls a type of numbers.
pub(super) fn type_name(kind: i32) -> String {
    let names = [
        "undefined",
        "float",
        "uint8",
        "int8",
        "uint16",
        "int16",
        "int32",
        "int64",
        "string",
        "bool",
        "float16",
        "double",
        "uint32",
        "uint64",
        "complex64",
        "complex128",
        "bfloat16",
    ];
    let name = usize::try_from(kind).ok().and_then(|kind| names.get(kind));
    name.map_or_else(|| format!("of type {kind}"), |name| (*name).to_owned())
}
