//! The header of an .npy file: a Python dictionary of three entries.

use std::io::Read;

use super::damaged;
use crate::error::{Error, Result};
use crate::limits::{Budget, Limits};

const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// The longest header unless more is allowed; that of an array of numbers has less than 200 bytes,
/// and NumPy itself refuses more than 10 000.
const LONGEST: u64 = 1 << 16;

/// What a byte of the header takes once it is parsed.
const PRICE: u64 = 8;

/// The most axes that NumPy's arrays have.
const AXES: usize = 64;

/// What a file holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Header {
    /// Bytes before the entries.
    pub(super) length: u64,
    /// The type of the entries, such as `<f8`.
    pub(super) kind: String,
    /// Whether the first index runs fastest.
    pub(super) fortran: bool,
    pub(super) shape: Vec<usize>,
}

impl Header {
    /// Reads the header of a file of so many bytes.
    pub(super) fn read(mut reader: impl Read, file: u64, budget: &Budget) -> Result<Header> {
        let mut start = [0; 8];
        fill(&mut reader, &mut start)?;
        if !start.starts_with(MAGIC) {
            return Err(damaged("it does not begin as an .npy file does"));
        }
        let (before, length) = match start[6] {
            1 => {
                let mut length = [0; 2];
                fill(&mut reader, &mut length)?;
                (10, u64::from(u16::from_le_bytes(length)))
            }
            2 | 3 => {
                let mut length = [0; 4];
                fill(&mut reader, &mut length)?;
                (12, u64::from(u32::from_le_bytes(length)))
            }
            version => {
                return Err(damaged(format!(
                    "its format has the version {version}, and 1 to 3 are read"
                )));
            }
        };
        if before + length > file {
            return Err(damaged(format!(
                "its header should have {length} bytes, but the whole file has {file}"
            )));
        }
        Limits::of_process().check_length("the header", length, LONGEST)?;
        budget.take(PRICE * length, || "the header".into())?;
        let mut text = vec![0; length as usize];
        fill(&mut reader, &mut text)?;
        let (kind, fortran, shape) = Dictionary { rest: &text }.entries()?;
        if shape.len() > AXES {
            return Err(damaged(format!(
                "it has {} axes, and NumPy's arrays have at most {AXES}",
                shape.len()
            )));
        }
        Ok(Header {
            length: before + length,
            kind,
            fortran,
            shape,
        })
    }
}

fn fill(reader: &mut impl Read, bytes: &mut [u8]) -> Result<()> {
    reader
        .read_exact(bytes)
        .map_err(|error| damaged(format!("it ends within its header ({error})")))
}

/// What is left of the dictionary's text.
struct Dictionary<'a> {
    rest: &'a [u8],
}

impl Dictionary<'_> {
    /// `{'descr': '<f8', 'fortran_order': False, 'shape': (3, 4), }`, its entries in any order.
    fn entries(mut self) -> Result<(String, bool, Vec<usize>)> {
        let (mut kind, mut fortran, mut shape) = (None, None, None);
        self.expect(b'{')?;
        while !self.take(b'}') {
            let key = self.string()?;
            self.expect(b':')?;
            let new = match key.as_str() {
                "descr" => kind.replace(self.kind()?).is_none(),
                "fortran_order" => fortran.replace(self.truth()?).is_none(),
                "shape" => shape.replace(self.shape()?).is_none(),
                _ => false,
            };
            if !new {
                return Err(damaged(format!(
                    "its header has the entry `{key}` too many"
                )));
            }
            if !self.take(b',') {
                self.expect(b'}')?;
                break;
            }
        }
        self.space();
        match (kind, fortran, shape, self.rest) {
            (Some(kind), Some(fortran), Some(shape), []) => Ok((kind, fortran, shape)),
            (_, _, _, []) => Err(damaged(
                "its header lacks one of `descr`, `fortran_order` and `shape`",
            )),
            _ => Err(self.unexpected("the end")),
        }
    }

    fn kind(&mut self) -> Result<String> {
        self.space();
        match self.rest.first() {
            Some(b'[') => Err(Error::Numpy {
                problem: "its entries are records of several fields; save each field as an array of numbers".into(),
            }),
            _ => self.string(),
        }
    }

    fn truth(&mut self) -> Result<bool> {
        self.space();
        for (word, value) in [(&b"True"[..], true), (b"False", false)] {
            if let Some(rest) = self.rest.strip_prefix(word) {
                self.rest = rest;
                return Ok(value);
            }
        }
        Err(self.unexpected("True or False"))
    }

    /// `()`, `(3,)`, `(3, 4)`.
    fn shape(&mut self) -> Result<Vec<usize>> {
        let mut shape = Vec::new();
        self.expect(b'(')?;
        while !self.take(b')') {
            shape.push(self.number()?);
            if !self.take(b',') {
                self.expect(b')')?;
                break;
            }
        }
        Ok(shape)
    }

    fn number(&mut self) -> Result<usize> {
        self.space();
        let end = self
            .rest
            .iter()
            .position(|byte| !byte.is_ascii_digit())
            .unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        let number = std::str::from_utf8(digits)
            .ok()
            .and_then(|digits| digits.parse().ok());
        let number = number.ok_or_else(|| self.unexpected("the length of an axis"))?;
        // Python 2 wrote long integers as 3L.
        self.rest = rest.strip_prefix(b"L").unwrap_or(rest);
        Ok(number)
    }

    /// A string without escapes.
    fn string(&mut self) -> Result<String> {
        self.space();
        let Some((quote @ (b'\'' | b'"'), rest)) = self.rest.split_first() else {
            return Err(self.unexpected("a string"));
        };
        let end = rest.iter().position(|byte| byte == quote);
        let end = end.ok_or_else(|| self.unexpected("a whole string"))?;
        let text = String::from_utf8_lossy(&rest[..end]).into_owned();
        self.rest = &rest[end + 1..];
        Ok(text)
    }

    fn expect(&mut self, byte: u8) -> Result<()> {
        match self.take(byte) {
            true => Ok(()),
            false => Err(self.unexpected(&format!("`{}`", char::from(byte)))),
        }
    }

    /// Takes the byte if it is the next one.
    fn take(&mut self, byte: u8) -> bool {
        self.space();
        let rest = self.rest.strip_prefix(&[byte]);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn space(&mut self) {
        self.rest = self.rest.trim_ascii_start();
    }

    fn unexpected(&self, expected: &str) -> Error {
        let start = &self.rest[..self.rest.len().min(20)];
        damaged(format!(
            "its header has `{}` where {expected} should be",
            String::from_utf8_lossy(start)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(reader: impl Read, file: u64) -> Result<Header> {
        Header::read(reader, file, &Limits::default().budget(file))
    }

    fn header(text: &str) -> Result<Header> {
        let length = (text.len() as u16).to_le_bytes();
        let bytes = [&MAGIC[..], b"\x01\x00", &length, text.as_bytes()].concat();
        read(&bytes[..], bytes.len() as u64)
    }

    #[test]
    fn entries_come_in_any_order_and_with_any_space() {
        let expected = Header {
            length: 0,
            kind: "<f8".into(),
            fortran: true,
            shape: vec![3, 4],
        };
        for text in [
            "{'descr': '<f8', 'fortran_order': True, 'shape': (3, 4), }      \n",
            "{\"shape\":(3L,4,),\"fortran_order\":True,\"descr\":\"<f8\"}",
        ] {
            let length = text.len() as u64 + 10;
            let expected = Header {
                length,
                ..expected.clone()
            };
            assert_eq!(header(text).unwrap(), expected);
        }
        let scalar = header("{'descr': '|u1', 'fortran_order': False, 'shape': (), }").unwrap();
        assert!(scalar.shape.is_empty());
    }

    #[test]
    fn other_headers_are_refused_at_once() {
        let nested = format!("{{'descr': {}", "{".repeat(60_000));
        let twice = "{'descr': '<f8', 'descr': '<f8', 'fortran_order': True, 'shape': ()}";
        let axes =
            "{'descr': '<f8', 'fortran_order': True, 'shape': (99999999999999999999999999,)}";
        for text in [
            "",
            "{",
            "{}",
            "{'descr': '<f8",
            &nested,
            twice,
            axes,
            "{'shape': (-1,)}",
            "{'a': 1}",
        ] {
            assert!(
                matches!(header(text), Err(Error::Numpy { .. })),
                "{text:.60}"
            );
        }
        let records =
            header("{'descr': [('x', '<f8')], 'fortran_order': False, 'shape': (1,)}").unwrap_err();
        assert!(records.to_string().contains("records"));
        let axes = |count| {
            let shape = "1, ".repeat(count);
            header(&format!(
                "{{'descr': '<f8', 'fortran_order': True, 'shape': ({shape})}}"
            ))
        };
        assert_eq!(axes(64).unwrap().shape.len(), 64);
        assert!(axes(65).unwrap_err().to_string().contains("65 axes"));
    }

    #[test]
    fn a_long_header_names_the_option_only_if_it_can_stand_there() {
        let bytes = [&MAGIC[..], b"\x02\x00", &u32::MAX.to_le_bytes()].concat();
        let long = |file| read(bytes.chain(std::io::repeat(b' ')), file).unwrap_err();
        let error = long(1 << 33);
        assert!(error.to_string().contains("4294967295 bytes"), "{error}");
        assert!(matches!(error, Error::TooLongToRead { .. }));
        let error = long(u32::MAX.into());
        assert!(matches!(error, Error::Numpy { .. }), "{error}");
    }
}
