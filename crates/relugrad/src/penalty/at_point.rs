//! Penalties at points that no network has made, by which promises can be refuted.

use std::cell::RefCell;

use ndarray::{Array1, ArrayView2};

use super::gram::random_rows;
use super::numbers::{Numbers, Raw};
use super::{Door, GradientPoint, GramPoint, JacobianPoint, LogitPoint, Penalty, Shared};
use crate::eigen::EigenSolver;
use crate::error::{Result, check_shape};
use crate::loss::{Loss, LossBatch, Targets};

impl Penalty {
    /// The value at a sample with given logits, `[K]`, and a given Jacobian, `[K, D]`; `targets` of
    /// one sample. Nothing for a penalty that sees more than these: a second point, or hyperplanes.
    ///
    /// # Errors
    /// Those of the targets, of the shapes, and of the penalty.
    pub fn value_at(
        &self,
        loss: &Loss,
        targets: &Targets<f64>,
        logits: &[f64],
        jacobian: ArrayView2<f64>,
    ) -> Result<Option<f64>> {
        let (k, d) = jacobian.dim();
        check_shape("logits", &[k], &[logits.len()])?;
        let (mut batch, mut target) = (LossBatch::default(), Vec::new());
        let function = loss.function();
        targets.resolve(loss, 1, k, &mut target)?;
        batch.fill(&*function, logits, &target, k);
        let logit = LogitPoint::of(&*function, &batch, &target, 0);
        match self.door() {
            Door::Gram(penalty) => {
                let g = jacobian.dot(&jacobian.t());
                let needs = penalty.needs();
                let rows = random_rows(needs, 0, 1, k);
                let point = GramPoint {
                    logit,
                    g: g.as_slice().expect("a product is row-major"),
                    random_rows: &rows,
                    rank: k.min(d),
                    epsilon: f64::EPSILON,
                    solver: &RefCell::new(EigenSolver::new(k)),
                    all_pairs: needs.all_eigenpairs,
                    shared: Shared::default(),
                };
                penalty.evaluate(&point, None).map(Some)
            }
            Door::InputGradient(penalty) => {
                let g: Array1<f64> = jacobian.t().dot(&ndarray::aview1(logit.residual));
                let g = g.to_vec();
                let numbers = || Numbers::new(Raw::Double(&g));
                let point = GradientPoint {
                    logit,
                    gradient: numbers(),
                    magnified: numbers(),
                    power: 1.0,
                };
                penalty.evaluate(&point, None).map(Some)
            }
            Door::Rows(penalty) => {
                let point = JacobianPoint { logit, jacobian };
                penalty.evaluate(&point, None).map(Some)
            }
            Door::Pair(_) | Door::Geometric(_) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, ArrayView1};

    use super::*;
    use crate::penalty::Invariance;

    /// Values at a point with logits and Jacobian of some `K` and `D`.
    fn value(penalty: &Penalty, f: &[f64], j: &Array2<f64>) -> Option<f64> {
        let (loss, targets) = (Loss::softmax_cross_entropy(), Targets::Classes(&[1]));
        penalty.value_at(&loss, &targets, f, j.view()).unwrap()
    }

    #[test]
    fn built_in_penalties_keep_their_promises() {
        let f = [0.3, -0.4, 1.1, 0.2];
        let j = Array2::from_shape_fn((4, 6), |(k, d)| ((5 * k + 3 * d * d) as f64).sin());
        let v = [0.5, -2.0, 0.1, 1.5, 0.0, -0.3];
        let moved = &j + &ArrayView1::from(&v);
        let shifted = f.map(|f| f + 0.75);
        for penalty in Penalty::all() {
            let promises = penalty.promises();
            let Some(at) = value(&penalty, &f, &j) else {
                continue;
            };
            let close = |found: f64, expected: f64| {
                assert!((found - expected).abs() < 1e-11 * expected, "{penalty}");
            };
            if promises.invariance == Invariance::LogitDifferences {
                close(value(&penalty, &shifted, &moved).unwrap(), at);
            }
            let degree = promises.degree.expect("all of these have one");
            close(
                value(&penalty, &f, &(3.0 * &j)).unwrap(),
                at * 3f64.powi(degree),
            );
            if promises.function_of_jacobian {
                close(value(&penalty, &[2.0, 0.0, -1.0, 0.5], &j).unwrap(), at);
            }
        }
    }
}
