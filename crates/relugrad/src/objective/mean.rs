//! The mean of a penalty along a segment.

use ndarray::{ArrayView1, Axis};

use super::Objective;
use crate::error::{Result, check_number};
use crate::loss::{Loss, Targets};
use crate::network::Network;
use crate::penalty::Penalty;
use crate::scalar::Scalar;

/// The relative accuracy to which a smooth penalty is integrated on each piece.
const ACCURACY: f64 = 1e-12;

/// How often a piece is halved at most.
const HALVINGS: usize = 24;

impl<T: Scalar> Network<T> {
    /// The mean of a penalty over `x + t z` for `t` from 0 to `length`, piece by piece.
    ///
    /// Penalties of the Jacobian alone are constant on each piece, so their mean is exact. The
    /// others are smooth there and are integrated by Gauss's rule, halving a piece until the two
    /// halves agree with the whole to 1e-12 of the sum. Cost: that of a [`walk`](Self::walk), and
    /// of the penalty at one or more points of each piece.
    ///
    /// # Errors
    /// Those of [`walk`](Self::walk), [`Walk::cross`](crate::Walk::cross) and [`Objective::value`];
    /// [`Error::NotFinite`](crate::Error::NotFinite) if the mean overflows.
    pub fn mean_penalty(
        &self,
        x: ArrayView1<T>,
        z: ArrayView1<T>,
        length: f64,
        penalty: &Penalty,
        loss: &Loss,
        targets: &Targets<T>,
    ) -> Result<f64> {
        let constant = penalty.is_function_of_jacobian();
        let objective = Objective::new(*loss).with(penalty.clone(), 1.0)?;
        let value = |t: f64| -> Result<f64> {
            let point = &x + &z.mapv(|z| T::from_f64(t) * z);
            let evaluation = objective.value(self, point.insert_axis(Axis(0)).view(), targets)?;
            Ok(evaluation.penalties[0])
        };
        let (mut walk, mut sum) = (self.walk(x, z, length)?, 0.0);
        if length == 0.0 {
            return value(0.0);
        }
        loop {
            let (start, end) = (walk.start(), walk.end());
            if constant && end > start {
                sum += (end - start) * value(0.5 * (start + end))?;
            } else if end > start {
                let whole = gauss(&value, start, end)?;
                sum += halved(&value, (start, end), whole, sum, HALVINGS)?;
            }
            if walk.cross()?.is_none() {
                return check_number("the mean of a penalty", &[], sum / length);
            }
        }
    }
}

/// Nodes on [−1, 1] and weights of Gauss's rule with six points (Abramowitz & Stegun 1964, table
/// 25.4).
const GAUSS: [(f64, f64); 3] = [
    (0.238_619_186_083_196_9, 0.467_913_934_572_691_05),
    (0.661_209_386_466_264_5, 0.360_761_573_048_138_6),
    (0.932_469_514_203_152, 0.171_324_492_379_170_34),
];

/// Gauss's rule on an interval.
fn gauss(f: &impl Fn(f64) -> Result<f64>, start: f64, end: f64) -> Result<f64> {
    let (middle, half) = (0.5 * (start + end), 0.5 * (end - start));
    let mut sum = 0.0;
    for (node, weight) in GAUSS {
        sum += weight * (f(middle - half * node)? + f(middle + half * node)?);
    }
    Ok(half * sum)
}

/// The integral by halves until they agree with the whole, to the accuracy of a sum that is
/// `before` so far.
fn halved(
    f: &impl Fn(f64) -> Result<f64>,
    (start, end): (f64, f64),
    whole: f64,
    before: f64,
    left: usize,
) -> Result<f64> {
    let middle = 0.5 * (start + end);
    let halves = (gauss(f, start, middle)?, gauss(f, middle, end)?);
    let sum = halves.0 + halves.1;
    if left == 0 || (sum - whole).abs() <= ACCURACY * (before + sum.abs()) {
        return Ok(sum);
    }
    let first = halved(f, (start, middle), halves.0, before, left - 1)?;
    Ok(first + halved(f, (middle, end), halves.1, before + first, left - 1)?)
}
