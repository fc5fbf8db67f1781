//! The entries of an array, of any type of numbers, as `f64`.

use std::io::{ErrorKind, Read};

use half::f16;

use super::damaged;
use crate::error::{Error, Result};

/// Bytes that are read at a time, a multiple of all sizes of entries.
const CHUNK: usize = 1 << 16;

/// The number in the first of eight little-endian bytes, unless they are none.
type Number = fn([u8; 8]) -> Option<f64>;

/// How the bytes of an entry are a number.
pub(super) struct Kind {
    /// Bytes of an entry.
    pub(super) size: usize,
    /// Whether the entries are unsigned bytes.
    pub(super) bytes: bool,
    number: Number,
    big_endian: bool,
}

impl Kind {
    /// The type of a name such as `<f8`.
    pub(super) fn of(name: &str) -> Result<Kind> {
        let order = name.chars().next().filter(|c| "<>|=".contains(*c));
        let short = order.map_or(name, |order| &name[order.len_utf8()..]);
        /// The number in the first bytes.
        macro_rules! first {
            ($type:ty, $wide:expr) => {
                |bytes| {
                    let entry = bytes.first_chunk().copied()?;
                    Some($wide(<$type>::from_le_bytes(entry)))
                }
            };
        }
        let (size, number): (usize, Number) = match short {
            "f8" => (8, first!(f64, |v| v)),
            "f4" => (4, first!(f32, f64::from)),
            "f2" => (2, first!(f16, f16::to_f64)),
            "i8" => (8, first!(i64, |v| v as f64)),
            "i4" => (4, first!(i32, f64::from)),
            "i2" => (2, first!(i16, f64::from)),
            "i1" => (1, first!(i8, f64::from)),
            "u8" => (8, first!(u64, |v| v as f64)),
            "u4" => (4, first!(u32, f64::from)),
            "u2" => (2, first!(u16, f64::from)),
            "u1" => (1, first!(u8, f64::from)),
            "b1" => (1, |bytes| (bytes[0] <= 1).then_some(f64::from(bytes[0]))),
            _ => {
                return Err(Error::Numpy {
                    problem: format!(
                        "its entries are of type `{name}`, which is not read; save them as float64 or float32, labels \
                         as int64"
                    ),
                });
            }
        };
        Ok(Kind {
            size,
            bytes: short == "u1",
            number,
            big_endian: order == Some('>'),
        })
    }

    /// Reads `count` entries, after which the file must end.
    pub(super) fn read(&self, mut reader: impl Read, count: usize) -> Result<Vec<f64>> {
        let mut values = Vec::with_capacity(count);
        let mut chunk = vec![0; CHUNK];
        while values.len() < count {
            let length = (count - values.len()).min(CHUNK / self.size) * self.size;
            let part = &mut chunk[..length];
            reader.read_exact(part).map_err(|error| {
                match error.kind() == ErrorKind::UnexpectedEof {
                    true => damaged("it ends before its entries do"),
                    false => damaged(error),
                }
            })?;
            for entry in part.chunks_exact_mut(self.size) {
                values.push(self.number(entry)?);
            }
        }
        match reader.read(&mut chunk[..1]) {
            Ok(0) => Ok(values),
            Ok(_) => Err(damaged("more bytes follow after its entries")),
            Err(error) => Err(damaged(error)),
        }
    }

    fn number(&self, entry: &mut [u8]) -> Result<f64> {
        if self.big_endian {
            entry.reverse();
        }
        let mut bytes = [0; 8];
        bytes[..self.size].copy_from_slice(entry);
        (self.number)(bytes).ok_or_else(|| damaged("a truth value is neither 0 nor 1"))
    }
}
