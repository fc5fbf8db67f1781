//! Penalties at points that no network has made, by which promises can be refuted.

use std::cell::RefCell;

use ndarray::{Array1, Array2, ArrayView2, aview1};

use super::gram::random_rows;
use super::numbers::{Numbers, Raw, RawMut};
use super::{
    Door, GradientAdjoint, GradientPoint, GramAdjoint, GramPoint, GramSums, JacobianAdjoint,
    JacobianPoint, LogitAdjoint, LogitPoint, LogitSums, Penalty, Shared,
};
use crate::eigen::EigenSolver;
use crate::error::{Error, Result, check_shape};
use crate::loss::{Loss, LossBatch, LossFunction, Targets};

/// A penalty at given logits and a given Jacobian, with its derivatives in both.
#[derive(Clone, Debug, PartialEq)]
pub struct PointDerivatives {
    /// The value.
    pub value: f64,
    /// The derivative with respect to the logits, also through `p`, `r` and `S`; `[K]`.
    pub logits: Array1<f64>,
    /// The derivative with respect to the Jacobian; `[K, D]`.
    pub jacobian: Array2<f64>,
}

/// A sample that no network has made.
struct Sample<'a> {
    function: &'a dyn LossFunction,
    batch: LossBatch,
    target: Vec<f64>,
    jacobian: ArrayView2<'a, f64>,
}

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
        let function = loss.function();
        let sample = Sample::new(loss, &*function, targets, logits, jacobian)?;
        sample.evaluate(&self.door(), None)
    }

    /// The same with the derivatives with respect to logits and Jacobian, which are what becomes
    /// the parameter gradient.
    ///
    /// # Errors
    /// As for [`value_at`](Self::value_at).
    pub fn derivatives_at(
        &self,
        loss: &Loss,
        targets: &Targets<f64>,
        logits: &[f64],
        jacobian: ArrayView2<f64>,
    ) -> Result<Option<PointDerivatives>> {
        let function = loss.function();
        let sample = Sample::new(loss, &*function, targets, logits, jacobian)?;
        let (mut f_bar, mut j_bar) = (vec![0.0; logits.len()], Array2::zeros(jacobian.dim()));
        let bars = Some((&mut f_bar[..], &mut j_bar));
        let value = sample.evaluate(&self.door(), bars)?;
        Ok(value.map(|value| PointDerivatives {
            value,
            logits: f_bar.into(),
            jacobian: j_bar,
        }))
    }
}

impl<'a> Sample<'a> {
    fn new(
        loss: &Loss,
        function: &'a dyn LossFunction,
        targets: &Targets<f64>,
        logits: &[f64],
        jacobian: ArrayView2<'a, f64>,
    ) -> Result<Sample<'a>> {
        let k = jacobian.nrows();
        check_shape("logits", &[k], &[logits.len()])?;
        let (mut batch, mut target) = (LossBatch::default(), Vec::new());
        targets.resolve(loss, 1, k, &mut target)?;
        batch.fill(function, logits, &target, k);
        Ok(Sample {
            function,
            batch,
            target,
            jacobian,
        })
    }

    /// The value; with sums, derivatives with respect to logits and Jacobian are added to these.
    fn evaluate(
        &self,
        door: &Door,
        bars: Option<(&mut [f64], &mut Array2<f64>)>,
    ) -> Result<Option<f64>> {
        let (k, d) = self.jacobian.dim();
        let logit = LogitPoint::of(self.function, &self.batch, &self.target, 0, d);
        let mut sums = GramSums::zeros(k);
        let wanted = bars.is_some();
        let (value, j_bar) = match door {
            Door::Gram(penalty) => {
                // The product of a single column may come as column-major.
                let g = self.jacobian.dot(&self.jacobian.t());
                let g = g.as_standard_layout();
                let needs = penalty.needs();
                let rows = random_rows(needs, 0, 1, k);
                let point = GramPoint {
                    logit,
                    g: g.as_slice().expect("it is row-major"),
                    random_rows: &rows,
                    rank: k.min(d),
                    epsilon: f64::EPSILON,
                    solver: &RefCell::new(EigenSolver::new(k)),
                    all_pairs: needs.all_eigenpairs,
                    shared: Shared::default(),
                };
                let mut adjoint = GramAdjoint::new(1.0, &mut sums);
                let value = penalty.evaluate(&point, wanted.then_some(&mut adjoint))?;
                // `∂/∂J = 2 Ḡ J`.
                let bar = ArrayView2::from_shape((k, k), &sums.g).expect("K rows of K");
                (value, 2.0 * bar.dot(&self.jacobian))
            }
            Door::Logits(penalty) => {
                let mut adjoint = at_logits(&mut sums.logit);
                let value = penalty.evaluate(&logit, wanted.then_some(&mut adjoint))?;
                (value, Array2::zeros((k, d)))
            }
            Door::InputGradient(penalty) => {
                let g = self.jacobian.t().dot(&aview1(logit.residual)).to_vec();
                let numbers = || Numbers::new(Raw::Double(&g));
                let point = GradientPoint {
                    logit,
                    gradient: numbers(),
                    magnified: numbers(),
                    power: 1.0,
                };
                let mut bar = vec![0.0; d];
                let mut adjoint = GradientAdjoint {
                    logit: at_logits(&mut sums.logit),
                    a: RawMut::Double(&mut bar),
                    power: 1.0,
                };
                let value = penalty.evaluate(&point, wanted.then_some(&mut adjoint))?;
                // `g = Jᵀ r`: `∂/∂J = r ḡᵀ` and `∂/∂r = J ḡ`.
                let of_residual = self.jacobian.dot(&aview1(&bar)).to_vec();
                at_logits(&mut sums.logit).add_residual(1.0, &of_residual);
                let r = logit.residual;
                (value, Array2::from_shape_fn((k, d), |(i, j)| r[i] * bar[j]))
            }
            Door::Rows(penalty) => {
                if penalty.moves() {
                    return Ok(None);
                }
                let combined = penalty.combines(k).map(|rows| {
                    let mut v = Array2::zeros((rows, k));
                    let entries = v.as_slice_mut().expect("standard layout");
                    penalty.combine(&logit, entries);
                    let jacobian = v.dot(&self.jacobian);
                    (v, jacobian)
                });
                let rows = combined.as_ref().map_or(k, |(v, _)| v.nrows());
                let point = JacobianPoint {
                    logit,
                    origin: logit,
                    jacobian: match &combined {
                        Some((_, jacobian)) => jacobian.view(),
                        None => self.jacobian,
                    },
                };
                let mut bar = vec![0.0; rows * d];
                let mut adjoint = JacobianAdjoint {
                    logit: at_logits(&mut sums.logit),
                    origin: None,
                    rows,
                    a: RawMut::Double(&mut bar),
                };
                let value = penalty.evaluate(&point, wanted.then_some(&mut adjoint))?;
                let bar = Array2::from_shape_vec((rows, d), bar).expect("R rows of D");
                // `∂/∂J = Vᵀ ∂/∂(V J)`, with `V` constant.
                (
                    value,
                    combined.map_or(bar.clone(), |(v, _)| v.t().dot(&bar)),
                )
            }
            Door::Pair(_) | Door::Geometric(_) => return Ok(None),
        };
        if let Some((f_bar, to)) = bars {
            check_fault(door, &sums.logit)?;
            sums.logit.add_to(logit.loss, logit.state, f_bar);
            *to += &j_bar;
        }
        Ok(Some(value))
    }
}

fn at_logits(sums: &mut LogitSums) -> LogitAdjoint<'_> {
    LogitAdjoint { weight: 1.0, sums }
}

fn check_fault(door: &Door, sums: &LogitSums) -> Result<()> {
    match &sums.fault {
        None => Ok(()),
        Some(problem) => Err(Error::Penalty {
            penalty: door.described().name().to_owned(),
            sample: None,
            problem: problem.clone(),
        }),
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
            let Some(degree) = promises.degree else {
                continue;
            };
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
