//! How the numbers of a file become features in `[0, 1]`.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How the numbers of arrays or a table become features in `[0, 1]`, where attacks keep them.
///
/// Its text is `auto`, `range`, or two numbers such as `-1,7`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Scale {
    /// Unsigned bytes are divided by 255; other numbers must lie in `[0, 1]` already.
    #[default]
    Auto,
    /// The least and the greatest of all training numbers become 0 and 1; test numbers beyond them
    /// are clipped.
    Range,
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
            Scale::Auto => (0.0, 1.0),
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
        let ends = || {
            let (low, high) = text.split_once(',')?;
            let (low, high): (f64, f64) = (low.trim().parse().ok()?, high.trim().parse().ok()?);
            (low.is_finite() && high.is_finite() && low < high).then_some([low, high])
        };
        match text {
            "auto" => Ok(Scale::Auto),
            "range" => Ok(Scale::Range),
            _ => ends().map(Scale::Between).ok_or_else(|| Error::Data {
                problem: format!(
                    "`{text}` is no scale; give auto, range, or two growing numbers such as -1,1"
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
        for text in ["auto", "range", "-1,7", "0,0.5"] {
            assert_eq!(text.parse::<Scale>().unwrap().to_string(), text);
        }
        for wrong in ["", "1", "2,1", "0,nan", "0,1,2", "rnage"] {
            assert!(wrong.parse::<Scale>().is_err(), "{wrong}");
        }
    }
}
