//! The types of numbers in ONNX files.

use half::{bf16, f16};

/// A type of numbers that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    Float,
    Uint8,
    Int8,
    Uint16,
    Int16,
    Int32,
    Int64,
    Bool,
    Float16,
    Double,
    Uint32,
    Uint64,
    Bfloat16,
}

use Element::*;

/// What ONNX calls its types, by their numbers.
const NAMES: [&str; 25] = [
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
    "float8e4m3fn",
    "float8e4m3fnuz",
    "float8e5m2",
    "float8e5m2fnuz",
    "uint4",
    "int4",
    "float4e2m1",
    "float8e8m0",
];

/// What ONNX calls the type of a number.
pub(super) fn type_name(code: i32) -> String {
    let name = usize::try_from(code).ok().and_then(|code| NAMES.get(code));
    name.map_or_else(|| format!("of type {code}"), |name| (*name).to_owned())
}

impl Element {
    /// The bytes of a number in the file.
    pub(super) fn size(self) -> usize {
        match self {
            Uint8 | Int8 | Bool => 1,
            Uint16 | Int16 | Float16 | Bfloat16 => 2,
            Float | Int32 | Uint32 => 4,
            Int64 | Double | Uint64 => 8,
        }
    }

    /// The type of a number in the file.
    pub(super) fn of(code: i64) -> Option<Element> {
        let element = match code {
            1 => Float,
            2 => Uint8,
            3 => Int8,
            4 => Uint16,
            5 => Int16,
            6 => Int32,
            7 => Int64,
            9 => Bool,
            10 => Float16,
            11 => Double,
            12 => Uint32,
            13 => Uint64,
            16 => Bfloat16,
            _ => return None,
        };
        Some(element)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Float => "float",
            Uint8 => "uint8",
            Int8 => "int8",
            Uint16 => "uint16",
            Int16 => "int16",
            Int32 => "int32",
            Int64 => "int64",
            Bool => "bool",
            Float16 => "float16",
            Double => "double",
            Uint32 => "uint32",
            Uint64 => "uint64",
            Bfloat16 => "bfloat16",
        }
    }

    /// Whether its numbers are floating.
    pub(super) fn is_real(self) -> bool {
        matches!(self, Float | Double | Float16 | Bfloat16)
    }

    /// Whether its numbers are whole and may be negative.
    pub(super) fn is_signed(self) -> bool {
        matches!(self, Int8 | Int16 | Int32 | Int64)
    }

    /// The nearest number of this floating type.
    pub(super) fn round(self, value: f64) -> f64 {
        match self {
            Float => f64::from(value as f32),
            Float16 => f16::from_f64(value).to_f64(),
            Bfloat16 => bf16::from_f64(value).to_f64(),
            Double | Bool | Uint8 | Int8 | Uint16 | Int16 | Uint32 | Int32 | Uint64 | Int64 => {
                value
            }
        }
    }

    /// The number of this whole type that is the same modulo its range; of a `uint64` its bits.
    pub(super) fn wrap(self, value: i128) -> i64 {
        match self {
            Uint8 => i64::from(value as u8),
            Int8 => i64::from(value as i8),
            Uint16 => i64::from(value as u16),
            Int16 => i64::from(value as i16),
            Int32 => i64::from(value as i32),
            Uint32 => i64::from(value as u32),
            Bool => i64::from(value != 0),
            Int64 | Uint64 | Float | Double | Float16 | Bfloat16 => value as i64,
        }
    }

    /// The number that is stored as `stored`.
    pub(super) fn whole(self, stored: i64) -> i128 {
        if self == Uint64 {
            i128::from(stored as u64)
        } else {
            i128::from(stored)
        }
    }

    /// The least and the largest number of a whole type.
    pub(super) fn range(self) -> (i128, i128) {
        match self {
            Uint8 => (0, u8::MAX.into()),
            Int8 => (i8::MIN.into(), i8::MAX.into()),
            Uint16 => (0, u16::MAX.into()),
            Int16 => (i16::MIN.into(), i16::MAX.into()),
            Int32 => (i32::MIN.into(), i32::MAX.into()),
            Uint32 => (0, u32::MAX.into()),
            Uint64 => (0, u64::MAX.into()),
            Bool => (0, 1),
            Int64 | Float | Double | Float16 | Bfloat16 => (i64::MIN.into(), i64::MAX.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_and_wrapped_to_their_type() {
        assert_eq!(Float.round(0.1), f64::from(0.1f32));
        assert_eq!(Float16.round(2049.0), 2048.0);
        assert_eq!(Float16.round(1e6), f64::INFINITY);
        assert_eq!(Bfloat16.round(257.0), 256.0);
        assert_eq!(Double.round(0.1), 0.1);
        assert_eq!(Int8.wrap(200), -56);
        assert_eq!(Uint8.wrap(-1), 255);
        assert_eq!(Int32.wrap(1 << 31), i64::from(i32::MIN));
        assert_eq!(Uint64.whole(Uint64.wrap(-1)), u64::MAX.into());
        assert_eq!(Bool.wrap(7), 1);
    }

    #[test]
    fn types_have_the_numbers_of_the_standard() {
        for code in 0..30 {
            if let Some(element) = Element::of(code) {
                assert_eq!(type_name(code as i32), element.name());
            }
        }
        assert_eq!(type_name(18), "float8e4m3fnuz");
        assert_eq!(type_name(99), "of type 99");
    }
}
