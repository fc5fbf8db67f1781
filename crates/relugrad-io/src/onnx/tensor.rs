//! Constant tensors: their numbers, and the formula by which they come from the arrays of the file.

use std::sync::Arc;

use half::{bf16, f16};

use super::element::{Element, type_name};
use super::proto::TensorProto;
use crate::error::{Error, Result};
use crate::formula::Formula;
use crate::limits::Budget;

/// A constant of the graph. A copy shares its numbers.
#[derive(Clone, Debug)]
pub(super) struct Tensor {
    pub(super) dims: Vec<usize>,
    pub(super) element: Element,
    pub(super) numbers: Numbers,
    /// Where floating numbers come from, if they change with arrays of the file.
    pub(super) formula: Option<Formula>,
}

/// Numbers, row-major.
#[derive(Clone, Debug)]
pub(super) enum Numbers {
    /// Of a floating type, in which each is exact.
    Real(Arc<[f64]>),
    /// Of a whole type; a `uint64` by its bits.
    Whole(Arc<[i64]>),
}

impl Tensor {
    /// Floating numbers, rounded to their type.
    pub(super) fn real(
        element: Element,
        dims: Vec<usize>,
        values: impl IntoIterator<Item = f64>,
    ) -> Tensor {
        let values = values.into_iter().map(|v| element.round(v));
        Tensor::new(dims, element, Numbers::Real(values.collect()))
    }

    /// Whole numbers, wrapped to their type.
    pub(super) fn whole(
        element: Element,
        dims: Vec<usize>,
        values: impl IntoIterator<Item = i128>,
    ) -> Tensor {
        let values = values.into_iter().map(|v| element.wrap(v));
        Tensor::new(dims, element, Numbers::Whole(values.collect()))
    }

    pub(super) fn new(dims: Vec<usize>, element: Element, numbers: Numbers) -> Tensor {
        debug_assert_eq!(dims.iter().product::<usize>(), numbers.len());
        Tensor {
            dims,
            element,
            numbers,
            formula: None,
        }
    }

    /// Lengths and the like along one axis.
    pub(super) fn lengths(values: &[usize]) -> Tensor {
        let values = values.iter().map(|&n| n as i128);
        Tensor::whole(Element::Int64, vec![values.len()], values)
    }

    /// A floating number without a type to be rounded to.
    pub(super) fn number(value: f64) -> Tensor {
        Tensor::real(Element::Double, Vec::new(), [value])
    }

    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// The same numbers under other dimensions.
    pub(super) fn reshaped(&self, dims: Vec<usize>) -> Tensor {
        debug_assert_eq!(dims.iter().product::<usize>(), self.len());
        Tensor {
            dims,
            ..self.clone()
        }
    }

    /// The same numbers, so that nothing computed from them is rounded to their type.
    pub(super) fn exact(&self) -> Tensor {
        Tensor {
            element: Element::Double,
            ..self.clone()
        }
    }

    /// The numbers of a floating type.
    pub(super) fn reals(&self) -> Option<&[f64]> {
        match &self.numbers {
            Numbers::Real(values) => Some(values),
            Numbers::Whole(_) => None,
        }
    }

    /// The numbers of a whole type as indices; those beyond the range of `i64` are its end.
    pub(super) fn indices(&self) -> Option<Vec<i64>> {
        let Numbers::Whole(values) = &self.numbers else {
            return None;
        };
        let index = |&v: &i64| self.element.whole(v).min(i64::MAX.into()) as i64;
        Some(values.iter().map(index).collect())
    }

    /// The only entry, if its type is floating.
    pub(super) fn scalar(&self) -> Option<f64> {
        self.reals().filter(|v| v.len() == 1).map(|v| v[0])
    }
}

impl Numbers {
    pub(super) fn len(&self) -> usize {
        match self {
            Numbers::Real(values) => values.len(),
            Numbers::Whole(values) => values.len(),
        }
    }

    /// Entry `i` is entry `places[i]`.
    pub(super) fn picked(&self, places: &[u32]) -> Numbers {
        let places = places.iter().map(|&i| i as usize);
        match self {
            Numbers::Real(values) => Numbers::Real(places.map(|i| values[i]).collect()),
            Numbers::Whole(values) => Numbers::Whole(places.map(|i| values[i]).collect()),
        }
    }
}

/// The dimensions of a tensor.
pub(super) fn dims_of(proto: &TensorProto) -> Result<Vec<usize>> {
    dims(&proto.dims).ok_or_else(|| Error::OnnxTensor {
        tensor: proto.name.clone(),
        problem: format!(
            "its dimensions {:?} are negative, too large or too many",
            proto.dims
        ),
    })
}

/// Reads a tensor; `external` finds bytes that are in another file.
pub(super) fn decode(
    proto: &TensorProto,
    budget: &Budget,
    external: &dyn Fn(&TensorProto, u64) -> Result<Vec<u8>>,
) -> Result<Tensor> {
    let problem = |problem: String| Error::OnnxTensor {
        tensor: proto.name.clone(),
        problem,
    };
    let dims = dims_of(proto)?;
    let Some(element) = Element::of(proto.data_type.into()) else {
        return Err(problem(format!(
            "its numbers are {}; floating numbers of 16 to 64 bits, whole numbers of 8 to 64 bits and bool are read, so \
             export it in one of them",
            type_name(proto.data_type)
        )));
    };
    let expected = budget.array(&dims, size_of::<f64>(), || {
        format!("tensor `{}` of dimensions {dims:?}", proto.name)
    })?;
    let external = (proto.data_location == 1)
        .then(|| external(proto, (expected * element.size()) as u64))
        .transpose()?;
    let raw = external.as_deref().unwrap_or(&proto.raw_data);
    let numbers = numbers(proto, element, raw).map_err(problem)?;
    if numbers.len() != expected {
        let found = numbers.len();
        return Err(problem(format!(
            "its dimensions {dims:?} ask for {expected} numbers but it has {found}; the file is damaged"
        )));
    }
    Ok(Tensor::new(dims, element, numbers))
}

/// The most axes of a value.
pub(super) const MOST_AXES: usize = 64;

fn dims(dims: &[i64]) -> Option<Vec<usize>> {
    if dims.len() > MOST_AXES {
        return None;
    }
    let dims: Option<Vec<usize>> = dims.iter().map(|&n| usize::try_from(n).ok()).collect();
    let product = |dims: &Vec<usize>| {
        dims.iter()
            .try_fold(1usize, |p, &n| p.checked_mul(n.max(1)))
    };
    dims.filter(|dims| product(dims).is_some_and(|p| p <= isize::MAX as usize))
}

type Decoded = std::result::Result<Numbers, String>;

fn numbers(proto: &TensorProto, element: Element, raw: &[u8]) -> Decoded {
    let lists = [
        proto.float_data.len(),
        proto.double_data.len(),
        proto.int32_data.len(),
        proto.int64_data.len(),
        proto.uint64_data.len(),
    ];
    if lists.iter().all(|&len| len == 0) {
        return untyped(element, raw);
    }
    if !raw.is_empty() {
        return Err("it has its numbers twice, raw and typed".into());
    }
    Ok(typed(proto, element))
}

/// The numbers in the list that belongs to their type.
fn typed(proto: &TensorProto, element: Element) -> Numbers {
    let bits = |number: fn(u16) -> f64| {
        let half = proto.int32_data.iter().map(|&v| number(v as u16));
        Numbers::Real(half.collect())
    };
    let whole = |values: &mut dyn Iterator<Item = i128>| {
        Numbers::Whole(values.map(|v| element.wrap(v)).collect())
    };
    match element {
        Element::Float => Numbers::Real(proto.float_data.iter().map(|&v| v.into()).collect()),
        Element::Double => Numbers::Real(proto.double_data.iter().copied().collect()),
        Element::Float16 => bits(|v| f16::from_bits(v).to_f64()),
        Element::Bfloat16 => bits(|v| bf16::from_bits(v).to_f64()),
        Element::Int64 => Numbers::Whole(proto.int64_data.iter().copied().collect()),
        Element::Uint32 | Element::Uint64 => {
            whole(&mut proto.uint64_data.iter().map(|&v| v.into()))
        }
        Element::Bool
        | Element::Uint8
        | Element::Int8
        | Element::Uint16
        | Element::Int16
        | Element::Int32 => whole(&mut proto.int32_data.iter().map(|&v| v.into())),
    }
}

/// The numbers in raw little-endian bytes.
fn untyped(element: Element, raw: &[u8]) -> Decoded {
    let real = |values: Arc<[f64]>| Numbers::Real(values);
    let whole = |values: Arc<[i64]>| Numbers::Whole(values);
    Ok(match element {
        Element::Float => real(words(raw, |b| f32::from_le_bytes(b).into())?),
        Element::Double => real(words(raw, f64::from_le_bytes)?),
        Element::Float16 => real(words(raw, |b| f16::from_le_bytes(b).to_f64())?),
        Element::Bfloat16 => real(words(raw, |b| bf16::from_le_bytes(b).to_f64())?),
        Element::Int64 | Element::Uint64 => whole(words(raw, i64::from_le_bytes)?),
        Element::Int32 => whole(words(raw, |b| i32::from_le_bytes(b).into())?),
        Element::Uint32 => whole(words(raw, |b| u32::from_le_bytes(b).into())?),
        Element::Int16 => whole(words(raw, |b| i16::from_le_bytes(b).into())?),
        Element::Uint16 => whole(words(raw, |b| u16::from_le_bytes(b).into())?),
        Element::Int8 => whole(words(raw, |b| i8::from_le_bytes(b).into())?),
        Element::Uint8 => whole(words(raw, |[b]| b.into())?),
        Element::Bool => whole(words(raw, |[b]| (b != 0).into())?),
    })
}

fn words<const N: usize, V>(
    raw: &[u8],
    number: impl Fn([u8; N]) -> V,
) -> std::result::Result<Arc<[V]>, String> {
    let (words, rest) = raw.as_chunks::<N>();
    if !rest.is_empty() {
        return Err(format!(
            "its {} raw bytes are no whole number of entries",
            raw.len()
        ));
    }
    Ok(words.iter().map(|&word| number(word)).collect())
}
