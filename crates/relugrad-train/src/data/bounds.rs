//! The box that holds the inputs, which attacks do not leave.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use relugrad::Scalar;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::number::parse_numbers;

/// The least and the greatest value of each feature: all samples lie between them, and attacks do
/// not leave them. The default is `[0, 1]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Bounds {
    /// One pair for all features, or one for each; none without bounds.
    ends: Arc<[[f32; 2]]>,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds::all([0.0, 1.0])
    }
}

impl Bounds {
    /// The same bounds for all features.
    pub fn all(ends: [f32; 2]) -> Bounds {
        Bounds {
            ends: [ends].into(),
        }
    }

    /// Bounds for each feature; none at all for an empty list.
    pub fn each(ends: Vec<[f32; 2]>) -> Bounds {
        Bounds { ends: ends.into() }
    }

    /// All numbers.
    pub fn none() -> Bounds {
        Bounds::each(Vec::new())
    }

    /// The least and the greatest value of a feature.
    pub fn of(&self, feature: usize) -> [f32; 2] {
        match &*self.ends {
            [] => [f32::NEG_INFINITY, f32::INFINITY],
            [both] => *both,
            each => each[feature],
        }
    }

    /// Whether a feature may have this value.
    pub fn contains<T: Scalar>(&self, feature: usize, value: T) -> bool {
        let [low, high] = self.of(feature).map(f64::from);
        (low..=high).contains(&value.into_f64())
    }

    /// Moves every feature to the nearest value that it may have.
    pub fn clamp<T: Scalar>(&self, x: &mut [T]) {
        if self.ends.is_empty() {
            return;
        }
        for (feature, x) in x.iter_mut().enumerate() {
            let [low, high] = self.of(feature).map(|end| T::from_f64(f64::from(end)));
            *x = x.max(low).min(high);
        }
    }
}

/// Such as `[0, 1]`.
impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.ends {
            [] => f.write_str("no bounds"),
            [[low, high]] => write!(f, "[{low}, {high}]"),
            _ => f.write_str("the range of the data"),
        }
    }
}

/// How the bounds of samples are chosen. Its text is `LO,HI`, `data` or `none`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum BoxChoice {
    /// `[0, 1]`.
    #[default]
    Unit,
    /// These two numbers, for all features.
    Between([f64; 2]),
    /// The least and the greatest number among the samples, of each channel of images and of each
    /// feature of samples of one axis.
    Data,
    /// No bounds.
    None,
}

impl FromStr for BoxChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<BoxChoice> {
        let ends = || match parse_numbers(text)?[..] {
            [low, high] if low < high => Some([low, high]),
            _ => None,
        };
        match text.trim() {
            "data" => Ok(BoxChoice::Data),
            "none" => Ok(BoxChoice::None),
            _ => match ends() {
                Some([0.0, 1.0]) => Ok(BoxChoice::Unit),
                Some(ends) => Ok(BoxChoice::Between(ends)),
                None => Err(Error::BoxText {
                    found: text.to_owned(),
                }),
            },
        }
    }
}

impl TryFrom<String> for BoxChoice {
    type Error = Error;

    fn try_from(text: String) -> Result<BoxChoice> {
        text.parse()
    }
}

impl fmt::Display for BoxChoice {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            BoxChoice::Unit => f.write_str("0,1"),
            BoxChoice::Between([low, high]) => write!(f, "{low},{high}"),
            BoxChoice::Data => f.write_str("data"),
            BoxChoice::None => f.write_str("none"),
        }
    }
}

impl From<BoxChoice> for String {
    fn from(choice: BoxChoice) -> String {
        choice.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_and_written() {
        for text in ["0,1", "-1,7", "data", "none", "0,0.5"] {
            assert_eq!(text.parse::<BoxChoice>().unwrap().to_string(), text);
        }
        let fraction = BoxChoice::Between([-0.5, 8.0 / 255.0]);
        assert_eq!("-1/2, 8/255".parse::<BoxChoice>().unwrap(), fraction);
        for wrong in ["", "1", "2,1", "1,1", "0,nan", "0,1,2", "dta", "-inf,inf"] {
            assert!(wrong.parse::<BoxChoice>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn clamping_keeps_every_feature_in_its_own_bounds() {
        let mut x = [-3.0, 0.25, 9.0];
        Bounds::each(vec![[-1.0, 0.0], [0.0, 1.0], [2.0, 3.0]]).clamp(&mut x);
        assert_eq!(x, [-1.0, 0.25, 3.0]);
        let mut free = [-3.0f32, 7.0];
        Bounds::none().clamp(&mut free);
        assert_eq!(free, [-3.0, 7.0]);
        assert!(Bounds::none().contains(1, 1e30) && !Bounds::default().contains(0, 1.5));
    }
}
