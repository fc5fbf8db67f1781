//! Masked gradients: samples at which attacks by gradients see nothing, and why.

use ndarray::ArrayView2;
use relugrad::Scalar;
use serde::{Deserialize, Serialize};

/// An input gradient shorter than this, in units of the loss per unit of the data, counts as
/// vanishing.
pub const VANISHING: f64 = 1e-6;

/// A residual shorter than this counts as that of a saturated softmax: the label's probability is
/// above 0.9993.
const SATURATED: f64 = 1e-3;

/// Why an input gradient `g = Jᵀ r` is 0 or vanishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Reason {
    /// It does not.
    None,
    /// `J = 0`: no path from the input to a logit is active.
    Dead,
    /// `‖r‖` is 0 or below 10⁻³: the softmax is saturated.
    Saturated,
    /// Neither: all logits move together, or the differences that count cancel.
    Flat,
}

/// How many samples have no gradient to follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// Samples looked at.
    pub samples: usize,
    /// Their input gradient is exactly 0.
    pub zero: usize,
    /// It is not 0 but shorter than [`VANISHING`].
    pub vanishing: usize,
    /// Of both, those with `J = 0`: no path from the input to a logit is active.
    pub dead: usize,
    /// Of both, those of the others with a saturated softmax, `‖r‖₂ < 10⁻³`.
    pub saturated: usize,
    /// Of both, the rest: all logits move together, or the differences that count cancel.
    pub flat: usize,
}

impl Diagnosis {
    /// Adds a sample with its Jacobian `[K, D]`, residual and input gradient.
    pub(super) fn add<T: Scalar>(
        &mut self,
        j: ArrayView2<T>,
        residual: &[f64],
        gradient: f64,
    ) -> Reason {
        self.samples += 1;
        if gradient >= VANISHING {
            return Reason::None;
        }
        match gradient == 0.0 {
            true => self.zero += 1,
            false => self.vanishing += 1,
        }
        let size = residual.iter().map(|r| r * r).sum::<f64>().sqrt();
        let (reason, count) = if j.iter().all(|&j| j == T::ZERO) {
            (Reason::Dead, &mut self.dead)
        } else if size < SATURATED {
            (Reason::Saturated, &mut self.saturated)
        } else {
            (Reason::Flat, &mut self.flat)
        };
        *count += 1;
        reason
    }

    /// The share of samples whose gradient is 0 or vanishes.
    pub fn masked(&self) -> f64 {
        (self.zero + self.vanishing) as f64 / self.samples.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn every_reason_is_told() {
        let mut all = Diagnosis::default();
        let j = array![[1.0, 2.0], [1.0, 2.0]];
        let r = [-0.5, 0.5];
        assert_eq!(all.add(j.view(), &r, 1.0), Reason::None);
        assert_eq!(all.add(j.view(), &r, 0.0), Reason::Flat);
        assert_eq!(all.add((&j * 0.0).view(), &r, 0.0), Reason::Dead);
        assert_eq!(all.add(j.view(), &[-1e-9, 1e-9], 1e-9), Reason::Saturated);
        assert_eq!((all.samples, all.zero, all.vanishing), (4, 2, 1));
        assert_eq!((all.dead, all.saturated, all.flat), (1, 1, 1));
        assert_eq!(all.masked(), 0.75);
    }
}
