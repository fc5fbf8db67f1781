//! Which gates there are: ReLU, leaky ReLU, PReLU, the absolute value, and the two-sided clip.
//!
//! The first four are `z` where `z > 0` (the unit is *active*) and `α z` elsewhere, so their
//! pattern is one bit per unit. At an exact zero the unit is inactive and its derivative is `α`;
//! for ReLU this is the convention ReLU'(0) = 0. A clip is active strictly between its bounds. Its
//! pattern is two bits per unit, `z > min` and `z ≥ max`.

use crate::error::{Error, Result};
use crate::network::operation::names;
use crate::scalar::Scalar;

/// Which gate a unit applies to its pre-activation `z`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(tag = "gate", rename_all = "kebab-case", deny_unknown_fields)
)]
pub enum Gate {
    /// `max(z, 0)`.
    Relu,
    /// `z` for `z > 0`, otherwise `slope · z` with a fixed slope.
    LeakyRelu {
        /// Slope of the inactive side; any finite number.
        slope: f64,
    },
    /// Like leaky ReLU with learned slopes, one per unit or shared along axes.
    #[cfg_attr(feature = "serde", serde(rename = "prelu"))]
    PRelu {
        /// Slope of every unit before training; 0.25 (He et al. 2015) where a description does not
        /// tell.
        #[cfg_attr(feature = "serde", serde(default = "quarter"))]
        initial: f64,
    },
    /// `|z|`.
    Abs,
    /// `min(max(z, min), max)`: hard tanh with −1 and 1, ReLU6 with 0 and 6.
    Clip {
        /// The lower bound.
        min: f64,
        /// The upper bound, which is greater.
        max: f64,
    },
}

#[cfg(feature = "serde")]
fn quarter() -> f64 {
    0.25
}

names!(Gate {
    Gate::Relu => "relu",
    Gate::LeakyRelu { .. } => "leaky-relu",
    Gate::PRelu { .. } => "prelu",
    Gate::Abs => "abs",
    Gate::Clip { .. } => "clip",
});

impl Gate {
    /// Slope of the inactive side (before training, for PReLU).
    pub fn inactive_slope(self) -> f64 {
        match self {
            Gate::Relu | Gate::Clip { .. } => 0.0,
            Gate::LeakyRelu { slope } => slope,
            Gate::PRelu { initial } => initial,
            Gate::Abs => -1.0,
        }
    }

    /// The numbers that it computes with and that are not trained.
    pub fn numbers(self) -> Vec<f64> {
        match self {
            Gate::Relu | Gate::PRelu { .. } | Gate::Abs => Vec::new(),
            Gate::LeakyRelu { slope } => vec![slope],
            Gate::Clip { min, max } => vec![min, max],
        }
    }

    /// The bounds between which it is active, if it has two.
    pub(crate) fn bounds(self) -> Option<(f64, f64)> {
        match self {
            Gate::Clip { min, max } => Some((min, max)),
            Gate::Relu | Gate::LeakyRelu { .. } | Gate::PRelu { .. } | Gate::Abs => None,
        }
    }

    /// Whether inactive units are constant.
    pub(crate) fn inactive_is_constant(self) -> bool {
        match self {
            Gate::Relu | Gate::Clip { .. } => true,
            Gate::LeakyRelu { .. } | Gate::PRelu { .. } | Gate::Abs => false,
        }
    }

    /// Whether `φ(t z) = t φ(z)` for all `t > 0`.
    pub(crate) fn is_homogeneous(self) -> bool {
        match self {
            Gate::Relu | Gate::LeakyRelu { .. } | Gate::PRelu { .. } | Gate::Abs => true,
            Gate::Clip { .. } => false,
        }
    }

    /// Whether a node of this name can have it.
    pub(crate) fn check<T: Scalar>(self, node: &str) -> Result<()> {
        let refused = |option: &str, value, expected| {
            Err(Error::OutOfRange {
                option: format!("{option} of {node}"),
                value,
                expected,
            })
        };
        let finite = |option, value: f64| match value.is_finite() {
            true => Ok(()),
            false => refused(option, value, "a finite number"),
        };
        match self {
            Gate::Relu | Gate::Abs => Ok(()),
            Gate::LeakyRelu { slope } | Gate::PRelu { initial: slope } => finite("slope", slope),
            Gate::Clip { min, max } => {
                finite("lower bound", min)?;
                let (low, high) = (T::from_f64(min), T::from_f64(max));
                if !high.is_finite() || low >= high {
                    let expected = "finite and above the lower bound";
                    return refused("upper bound", max, expected);
                }
                Ok(())
            }
        }
    }
}
