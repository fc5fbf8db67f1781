//! Residuals of samples of which the loss is nearly certain, as numbers that sweeps can carry.
//!
//! Directions such as `z = g/‖g‖` do not change when `r` is multiplied by a factor, and are as
//! large for a residual of 1e-40 as for any other. So a sample with a small residual is swept with
//! `2^n r`, its derivatives in the input with `2^−n` of theirs, and the bits of their products are
//! those of `r` unless it would have been lost.

use super::{LossBatch, LossFunction};
use crate::eigen::power_of_two;

/// Residuals below this are multiplied.
const SMALL: f64 = 1e-12;

/// Residuals below this have lost digits in `f64`.
const LOST: f64 = 1e-290;

/// The residuals of a batch, those of nearly certain samples multiplied by powers of two. Buffers
/// are reused.
#[derive(Clone, Debug, Default)]
pub(crate) struct Magnified {
    /// `2^n r`; `[B, K]`.
    pub(crate) residuals: Vec<f64>,
    /// `2^−n`, 1 for most samples; 0 where `r` itself is below all numbers, and only its direction
    /// is known.
    pub(crate) powers: Vec<f64>,
    /// Whether residual and Hessian are those of the limit `p_y → 1`.
    limits: Vec<bool>,
}

impl Magnified {
    /// Magnifies the residuals of an evaluated batch with targets `[B, K]`.
    pub(crate) fn fill(&mut self, loss: &dyn LossFunction, batch: &LossBatch, targets: &[f64]) {
        let k = batch.outputs;
        self.residuals.clone_from(&batch.residuals);
        self.powers.clear();
        self.limits.clear();
        let samples = self.residuals.chunks_exact_mut(k).enumerate();
        for (sample, residual) in samples {
            let target = &targets[sample * k..(sample + 1) * k];
            let largest = residual.iter().fold(0.0, |a: f64, r| a.max(r.abs()));
            let limit = match largest < LOST {
                true => loss.limit(batch.logits(sample), target, residual),
                false => None,
            };
            self.limits.push(limit.is_some());
            self.powers.push(match limit {
                Some(power) => power,
                None if largest >= SMALL => 1.0,
                None => {
                    let power = power_of_two(largest);
                    residual.iter_mut().for_each(|r| *r /= power);
                    power
                }
            });
        }
    }

    /// Whether no residual is multiplied.
    pub(crate) fn is_plain(&self) -> bool {
        self.powers.iter().all(|&power| power == 1.0)
    }

    /// `Ŝ u` with `Ŝ = 2^n S`; `product` is `S u`.
    pub(crate) fn hessian_times(
        &self,
        loss: &dyn LossFunction,
        sample: usize,
        u: &[f64],
        product: &mut [f64],
    ) {
        let (power, k) = (self.powers[sample], u.len());
        if self.limits[sample] {
            let residual = &self.residuals[sample * k..(sample + 1) * k];
            return loss.limit_hessian_times(residual, u, product);
        }
        product.iter_mut().for_each(|s| *s /= power);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::Loss;
    use approx::assert_abs_diff_eq;

    fn magnified(loss: &Loss, logits: &[f64], target: &[f64]) -> (LossBatch, Magnified) {
        let (mut batch, mut magnified) = (LossBatch::default(), Magnified::default());
        let function = loss.function();
        batch.fill(&*function, logits, target, logits.len());
        magnified.fill(&*function, &batch, target);
        (batch, magnified)
    }

    #[test]
    fn residuals_far_below_all_numbers_have_the_direction_of_those_above() {
        let softmax = Loss::softmax_cross_entropy();
        let target = [0.0, 1.0, 0.0];
        let (near, found) = magnified(&softmax, &[1.0, 100.0, 0.5], &target);
        assert!(found.powers[0] > 0.0 && found.powers[0] < 1e-40);
        for (found, r) in found.residuals.iter().zip(&near.residuals) {
            // A power of two, exactly, and the largest is around 1.
            assert_eq!((found / r).log2().fract(), 0.0);
            assert!(found.abs() < 4.0);
        }
        let (far, limit) = magnified(&softmax, &[1.0, 1e10, 0.5], &target);
        assert!(far.residuals.iter().all(|&r| r == 0.0));
        assert_eq!(limit.powers, [0.0]);
        let ratio = |r: &[f64]| [r[1] / r[0], r[2] / r[0]];
        let (a, b) = (ratio(&near.residuals), ratio(&limit.residuals));
        assert!((a[0] - b[0]).abs() < 1e-14 && (a[1] - b[1]).abs() < 1e-14);
    }

    #[test]
    fn hessians_are_magnified_with_them() {
        let softmax = Loss::softmax_cross_entropy();
        let (target, u) = ([0.0, 1.0, 0.0], [0.3, -0.7, 2.0]);
        let times = |logits: &[f64]| {
            let (batch, magnified) = magnified(&softmax, logits, &target);
            let mut product = vec![0.0; 3];
            let function = softmax.function();
            function.hessian_times(batch.state(0), &u, &mut product);
            magnified.hessian_times(&*function, 0, &u, &mut product);
            let scale = magnified.residuals[0];
            product.iter().map(|s| s / scale).collect::<Vec<f64>>()
        };
        let pairs = (times(&[1.0, 90.0, 0.5]), times(&[1.0, 1e4, 0.5]));
        for (near, far) in pairs.0.iter().zip(&pairs.1) {
            assert_abs_diff_eq!(near, far, epsilon = 1e-14 * near.abs());
        }
    }

    #[test]
    fn others_stay_as_they_are() {
        let (batch, found) = magnified(&Loss::SquaredError, &[1.0, 2.0], &[1.0, 2.0]);
        assert_eq!(found.residuals, batch.residuals);
        let (batch, found) = magnified(&Loss::softmax_cross_entropy(), &[1.0, 2.0], &[1.0, 0.0]);
        assert!(found.is_plain() && found.residuals == batch.residuals);
        let (_, found) = magnified(&Loss::Logistic, &[-2000.0], &[0.0]);
        assert_eq!(
            (&found.residuals[..], &found.powers[..]),
            (&[1.0][..], &[0.0][..])
        );
    }
}
