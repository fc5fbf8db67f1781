//! How the numbers of a file become features.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::number::parse_numbers;

/// How the numbers of arrays or a table become features.
///
/// Its text is `auto`, `range`, `none`, or two numbers such as `-1,7`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Scale {
    /// Unsigned bytes are divided by 255; other numbers are taken as they are.
    #[default]
    Auto,
    /// The least and the greatest of all training numbers become 0 and 1; test numbers beyond them
    /// are clipped.
    Range,
    /// All numbers are taken as they are, bytes too.
    None,
    /// These two numbers become 0 and 1; numbers beyond them are refused.
    Between([f64; 2]),
}

/// `x ↦ (x − low)/(high − low)`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Map {
    low: f64,
    high: f64,
    clip: bool,
}

impl Map {
    /// The numbers that become 0 and 1, if they are others.
    pub(super) fn ends(&self) -> Option<[f64; 2]> {
        Some([self.low, self.high]).filter(|ends| *ends != [0.0, 1.0])
    }

    pub(super) fn apply(&self, value: f64) -> f32 {
        let scaled = (value - self.low) / (self.high - self.low);
        if self.clip {
            scaled.clamp(0.0, 1.0) as f32
        } else {
            scaled as f32
        }
    }
}

impl Scale {
    /// The map for training numbers like these; `bytes` tells that they are unsigned bytes.
    pub(super) fn map(
        self,
        path: &Path,
        bytes: bool,
        values: impl Iterator<Item = f64>,
    ) -> Result<Map> {
        let clip = self == Scale::Range;
        let (low, high) = match self {
            Scale::Auto if bytes => (0.0, 255.0),
            Scale::Auto | Scale::None => (0.0, 1.0),
            Scale::Between([low, high]) => (low, high),
            Scale::Range => values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| {
                (low.min(v), high.max(v))
            }),
        };
        if low >= high {
            return Err(Error::DataFile {
                path: path.to_owned(),
                problem: format!(
                    "all its numbers are {low}, so they have no range to be scaled by"
                ),
            });
        }
        Ok(Map { low, high, clip })
    }
}

impl FromStr for Scale {
    type Err = Error;

    fn from_str(text: &str) -> Result<Scale> {
        let ends = || match parse_numbers(text)?[..] {
            [low, high] if low < high => Some([low, high]),
            _ => None,
        };
        match text {
            "auto" => Ok(Scale::Auto),
            "range" => Ok(Scale::Range),
            "none" => Ok(Scale::None),
            _ => ends().map(Scale::Between).ok_or_else(|| Error::Data {
                problem: format!(
                    "`{text}` is no scale; give auto, range, none, or two growing numbers such as -1,1"
                ),
            }),
        }
    }
}

impl TryFrom<String> for Scale {
    type Error = Error;

    fn try_from(text: String) -> Result<Scale> {
        text.parse()
    }
}

impl fmt::Display for Scale {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Scale::Auto => f.write_str("auto"),
            Scale::Range => f.write_str("range"),
            Scale::None => f.write_str("none"),
            Scale::Between([low, high]) => write!(f, "{low},{high}"),
        }
    }
}

impl From<Scale> for String {
    fn from(scale: Scale) -> String {
        scale.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_and_written() {
        let fraction = Scale::Between([-0.5, 8.0 / 255.0]);
        assert_eq!("-1/2,8/255".parse::<Scale>().unwrap(), fraction);
        for text in ["auto", "range", "none", "-1,7", "0,0.5"] {
            assert_eq!(text.parse::<Scale>().unwrap().to_string(), text);
        }
        for wrong in ["", "1", "2,1", "0,nan", "0,1,2", "rnage"] {
            assert!(wrong.parse::<Scale>().is_err(), "{wrong}");
        }
    }
}
