//! DeepFool (Moosavi-Dezfooli, Fawzi & Frossard 2016): small perturbations that cross the decision
//! boundary.

use ndarray::{Array2, ArrayView1, ArrayView2, Axis};
use rayon::prelude::*;
use relugrad::{GoOn, Network, Scalar};

use super::{Ball, Norm};
use crate::error::{Result, check_range};
use crate::prediction::{classes, difference, logit, prediction};
use crate::stop::ask;

/// A search for the smallest perturbation that changes the class (algorithm 2 of the paper).
///
/// In each step the network is replaced by its affine map in the present region, and the input
/// moved to the nearest of its decision boundaries: with `w_k = J_k − J_y` and `d_k = f_k − f_y` by
/// `|d_k|/‖w_k‖_* ` in the direction that is steepest in the norm, for the `k` for which that is
/// least. All steps together, times `1 + overshoot`, are the perturbation. It is not kept in the
/// box of the data, as published.
///
/// | option | default | purpose | range |
/// | --- | --- | --- | --- |
/// | `norm` | ℓ2 | in which the perturbation is small | |
/// | `steps` | 50 | the most steps | at least 1 |
/// | `overshoot` | 0.02 | how far beyond the boundary | at least 0 |
/// | `exact` | yes | whether the end is moved back to where the class changes on the way there: the first of 64 stretches at whose end it has changed is walked region by region, and the crossing is exact | |
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeepFool {
    /// The norm in which the perturbation is small.
    pub norm: Norm,
    /// The most steps.
    pub steps: usize,
    /// How far beyond the boundary, relative to the perturbation.
    pub overshoot: f64,
    /// Whether the end is moved back to the boundary.
    pub exact: bool,
}

/// A perturbation that changes the class.
#[derive(Clone, Debug, PartialEq)]
pub struct Minimal<T> {
    /// The perturbation; `[D]`.
    pub delta: Vec<T>,
    /// Its norm.
    pub norm: f64,
    /// Steps that it took.
    pub steps: usize,
}

impl DeepFool {
    /// The defaults of the table above.
    pub fn new(norm: Norm) -> DeepFool {
        DeepFool {
            norm,
            steps: 50,
            overshoot: 0.02,
            exact: true,
        }
    }

    /// Refuses options that are out of range.
    ///
    /// # Errors
    /// [`Error::OutOfRange`](crate::Error::OutOfRange).
    pub fn check(&self) -> Result<()> {
        let (steps, overshoot) = (self.steps, self.overshoot);
        check_range("steps of DeepFool", steps as f64, steps > 0, "at least 1")?;
        let valid = overshoot >= 0.0 && overshoot.is_finite();
        check_range("overshoot of DeepFool", overshoot, valid, "at least 0")
    }

    /// For each sample a perturbation that changes the predicted class, if one was found;
    /// `images: [B, D]`.
    ///
    /// Cost: a Jacobian of every sample that is left for each step; with `exact`, the regions on
    /// the way.
    ///
    /// # Errors
    /// Those of [`Network::trace`] and [`Network::pieces`].
    pub fn run<T: Scalar>(
        &self,
        network: &Network<T>,
        images: ArrayView2<T>,
    ) -> relugrad::Result<Vec<Option<Minimal<T>>>> {
        self.run_while(network, images, &|| true)
    }

    /// [`run`](Self::run), which asks at every step and crossing whether to go on.
    ///
    /// # Errors
    /// As for [`run`](Self::run), and [`relugrad::Error::Stopped`].
    pub fn run_while<T: Scalar>(
        &self,
        network: &Network<T>,
        images: ArrayView2<T>,
        go_on: GoOn,
    ) -> relugrad::Result<Vec<Option<Minimal<T>>>> {
        let logits = network.forward(images)?;
        let predicted = logits.rows().into_iter();
        let predicted: Vec<usize> = predicted.map(|f| prediction(f)).collect();
        let mut found: Vec<Option<Minimal<T>>> = vec![None; predicted.len()];
        let mut left: Vec<usize> = (0..predicted.len()).collect();
        let mut moves: Array2<T> = Array2::zeros(images.dim());
        for step in 1..=self.steps {
            ask(go_on)?;
            let here =
                &images.select(Axis(0), &left) + &self.overshot(&moves.select(Axis(0), &left));
            let trace = network.trace(here.view())?;
            let jacobian = trace.jacobian()?;
            for (row, &i) in left.iter().enumerate() {
                let (f, j) = (
                    trace.logits().row(row).to_owned(),
                    jacobian.index_axis(Axis(0), row),
                );
                if let Some(r) = self.step(f.view(), j, predicted[i]) {
                    let mut total = moves.row_mut(i);
                    total
                        .iter_mut()
                        .zip(&r)
                        .for_each(|(m, &r)| *m += T::from_f64(r));
                }
            }
            drop(trace);
            let ends =
                &images.select(Axis(0), &left) + &self.overshot(&moves.select(Axis(0), &left));
            let logits = network.forward(ends.view())?;
            for (row, &i) in left.iter().enumerate() {
                if prediction(logits.row(row)) != predicted[i] {
                    let delta = (&ends.row(row) - &images.row(i)).to_vec();
                    found[i] = Some(self.minimal(delta, step));
                }
            }
            left.retain(|&i| found[i].is_none());
            if left.is_empty() {
                break;
            }
        }
        if !self.exact {
            return Ok(found);
        }
        let shorter = found.par_iter().enumerate().map(|(i, found)| {
            let shorten = |m| self.shortened(network, images.row(i), predicted[i], m, go_on);
            found.as_ref().map(shorten).transpose()
        });
        shorter.collect()
    }

    fn minimal<T: Scalar>(&self, delta: Vec<T>, steps: usize) -> Minimal<T> {
        Minimal {
            norm: self.norm.length(delta.iter().copied()),
            delta,
            steps,
        }
    }

    fn overshot<T: Scalar>(&self, moves: &Array2<T>) -> Array2<T> {
        let factor = T::from_f64(1.0 + self.overshoot);
        moves.mapv(|m| factor * m)
    }

    /// The move to the nearest boundary of the affine map `f + J r`; nothing if no boundary is in
    /// sight.
    fn step<T: Scalar>(&self, f: ArrayView1<T>, j: ArrayView2<T>, y: usize) -> Option<Vec<f64>> {
        let rivals = (0..classes(f.len())).filter(|&k| k != y).filter_map(|k| {
            let w = difference(j, k, y);
            let size = self.norm.dual_length(w.iter().copied());
            let gap = (logit(f, k) - logit(f, y)).abs();
            (size > 0.0).then(|| (gap / size, w))
        });
        let (distance, mut w) = rivals.min_by(|a, b| a.0.total_cmp(&b.0))?;
        // A little more than the distance, so that a step from the boundary itself leaves it.
        self.norm
            .steepest(&mut w, distance + LEAST * (1.0 + distance));
        Some(w)
    }

    /// The part of a perturbation up to the first point at which the class changes, or a little
    /// beyond it.
    fn shortened<T: Scalar>(
        &self,
        network: &Network<T>,
        x: ArrayView1<T>,
        y: usize,
        minimal: &Minimal<T>,
        go_on: GoOn,
    ) -> relugrad::Result<Minimal<T>> {
        let delta = ArrayView1::from(&minimal.delta);
        let Some(t) = first_change(network, x, delta, y, go_on)? else {
            return Ok(minimal.clone());
        };
        // Rounding may leave the point itself on the near side, so ever more is added until the
        // class differs.
        let mut beyond = T::EPSILON.into_f64();
        while beyond < 1e-3 {
            let factor = T::from_f64(t * (1.0 + beyond));
            let shorter = delta.mapv(|d| factor * d);
            let f = network.forward((&x + &shorter).insert_axis(Axis(0)).view())?;
            if factor < T::ONE && prediction(f.row(0)) != y {
                return Ok(self.minimal(shorter.to_vec(), minimal.steps));
            }
            beyond *= 4.0;
        }
        Ok(minimal.clone())
    }
}

/// The least share of a step that is added to it, in units of the data.
const LEAST: f64 = 1e-6;

/// Stretches of the way from a sample to the end of its perturbation.
const STRETCHES: usize = 64;

/// The least `t` at which another logit reaches that of `y`, in the first stretch of the way from
/// `x` to `x + δ` at whose end it has.
fn first_change<T: Scalar>(
    network: &Network<T>,
    x: ArrayView1<T>,
    delta: ArrayView1<T>,
    y: usize,
    go_on: GoOn,
) -> relugrad::Result<Option<f64>> {
    ask(go_on)?;
    let share = |stretch: usize| stretch as f64 / STRETCHES as f64;
    let ends = Array2::from_shape_fn((STRETCHES, x.len()), |(i, j)| {
        x[j] + T::from_f64(share(i + 1)) * delta[j]
    });
    let logits = network.forward(ends.view())?;
    let mut rows = logits.rows().into_iter();
    let Some(stretch) = rows.position(|f| prediction(f) != y) else {
        return Ok(None);
    };
    let start = share(stretch);
    let from = &x + &delta.mapv(|d| T::from_f64(start) * d);
    let mut walk = network.walk(from.view(), delta, share(1))?;
    loop {
        ask(go_on)?;
        let (begins, ends) = (walk.start(), walk.end());
        let (first, last) = (walk.logits(begins)?, walk.logits(ends)?);
        let crossing = |k: usize| {
            let gap = |f: &ndarray::Array1<T>| logit(f.view(), y) - logit(f.view(), k);
            let (start, end) = (gap(&first), gap(&last));
            let share = if start <= 0.0 {
                0.0
            } else {
                start / (start - end)
            };
            let t = begins + share * (ends - begins);
            (end <= 0.0 || start <= 0.0).then_some(t)
        };
        let rivals = (0..classes(first.len())).filter(|&k| k != y);
        if let Some(t) = rivals.filter_map(crossing).min_by(f64::total_cmp) {
            return Ok(Some(start + t));
        }
        if walk.cross()?.is_none() {
            return Ok(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array1, array};
    use relugrad::{Builder, Mlp};

    #[test]
    fn of_an_affine_network_the_distance_to_the_nearest_boundary_is_found() {
        let mut builder = Builder::new();
        let x = builder.input(2).unwrap();
        let weight = array![[0.0, 0.0], [3.0, 4.0], [-1.0, 0.0]];
        let f = builder
            .dense(x, weight, Some(array![0.0, -1.0, -0.5]))
            .unwrap();
        let network = builder.build(f).unwrap();
        let x = array![[0.0, 0.0]];
        for (norm, distance) in [(Norm::L2, 0.2), (Norm::Linf, 1.0 / 7.0)] {
            let found = DeepFool::new(norm).run(&network, x.view()).unwrap();
            let found = found[0].as_ref().unwrap();
            assert!((found.norm - distance).abs() < 1e-9, "{found:?}");
            let plain = DeepFool {
                exact: false,
                ..DeepFool::new(norm)
            };
            let found = plain.run(&network, x.view()).unwrap();
            let found = found[0].as_ref().unwrap();
            assert!((found.norm - 1.02 * distance).abs() < 1e-5, "{found:?}");
        }
    }

    #[test]
    fn the_class_changes_and_not_before_on_the_way() {
        let network = Mlp::new(&[6, 20, 20, 4]).build::<f64>(3).unwrap();
        let x = Array2::from_shape_fn((30, 6), |(i, j)| ((7 * i + 3 * j) % 11) as f64 / 11.0);
        let class = |x: Array1<f64>| {
            let f = network.forward(x.insert_axis(Axis(0)).view()).unwrap();
            prediction(f.row(0))
        };
        let found = DeepFool::new(Norm::L2).run(&network, x.view()).unwrap();
        assert!(found.iter().filter(|found| found.is_some()).count() > 20);
        for (i, found) in found.iter().enumerate() {
            let Some(found) = found else { continue };
            let (x, delta) = (x.row(i).to_owned(), Array1::from(found.delta.clone()));
            assert_ne!(class(&x + &delta), class(x.clone()));
            for share in [0.25, 0.5, 0.75, 0.999] {
                assert_eq!(class(&x + share * &delta), class(x.clone()));
            }
        }
    }

    #[test]
    fn a_constant_network_has_no_boundary() {
        let mut builder = Builder::new();
        let x = builder.input(2).unwrap();
        let f = builder
            .dense(x, Array2::zeros((2, 2)), Some(array![0.0, -1.0]))
            .unwrap();
        let network = builder.build(f).unwrap();
        let found = DeepFool::new(Norm::L2)
            .run(&network, array![[0.5, 0.5]].view())
            .unwrap();
        assert_eq!(found, [None]);
    }
}
