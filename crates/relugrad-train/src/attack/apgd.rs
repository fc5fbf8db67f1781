//! Auto-PGD (Croce & Hein 2020, *Reliable evaluation of adversarial robustness with an ensemble of
//! diverse parameter-free attacks*, algorithm 1).
//!
//! It begins with `α = 2ε`, adds a momentum of ¼, and halves `α` of a sample, going back to its
//! best iterate, when fewer than ¾ of the steps since the last look raised the objective, or when
//! neither `α` nor the best value changed. The looks are at 22 % of the steps and at intervals that
//! shrink to 6 %.

use ndarray::{Array2, ArrayView2};
use relugrad::Scalar;
use serde::{Deserialize, Serialize};

use super::{Attack, AttackOptions, Ball, Effort, Look, Norm, Search};
use crate::error::{Error, Result};
use crate::spec::Range;

/// Auto-PGD on the loss: momentum, and steps that are halved when they no longer help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApgdCe {}

impl Attack for ApgdCe {
    const NAME: &'static str = "apgd-ce";
    const TITLE: &'static str = "APGD-CE";
    const MEANING: &'static str = "Auto-PGD on the loss";

    fn options(&self, norm: Norm, epsilon: f64, steps: usize, restarts: usize) -> AttackOptions {
        options(norm, epsilon, steps, restarts)
    }

    fn check(&self, options: &AttackOptions) -> Result<()> {
        check(Self::NAME, options)
    }

    fn efforts(&self, _: Effort, auto: Effort) -> Vec<Effort> {
        vec![auto]
    }

    fn search<T: Scalar>(
        &self,
        search: &mut Search<'_, T>,
        start: Array2<T>,
    ) -> relugrad::Result<()> {
        let step_size = search.options().step_size;
        apgd(search, start, step_size, Search::look)
    }
}

/// Auto-PGD on the difference of logits ratio, which does not change when all logits are scaled
/// (equation 7 of the paper). It needs three classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApgdDlr {}

impl Attack for ApgdDlr {
    const NAME: &'static str = "apgd-dlr";
    const TITLE: &'static str = "APGD-DLR";
    const MEANING: &'static str = "Auto-PGD on the difference of logits ratio";

    fn options(&self, norm: Norm, epsilon: f64, steps: usize, restarts: usize) -> AttackOptions {
        options(norm, epsilon, steps, restarts)
    }

    fn check(&self, options: &AttackOptions) -> Result<()> {
        check(Self::NAME, options)
    }

    fn classes(&self) -> usize {
        3
    }

    fn efforts(&self, _: Effort, auto: Effort) -> Vec<Effort> {
        vec![auto]
    }

    fn search<T: Scalar>(
        &self,
        search: &mut Search<'_, T>,
        start: Array2<T>,
    ) -> relugrad::Result<()> {
        let step_size = search.options().step_size;
        apgd(search, start, step_size, |search, images| {
            search.look_by(images, difference_of_logits_ratio)
        })
    }
}

/// Random starts, and first steps of `2 ε`.
fn options(norm: Norm, epsilon: f64, steps: usize, restarts: usize) -> AttackOptions {
    AttackOptions {
        step_size: 2.0 * epsilon,
        ..AttackOptions::plain(norm, epsilon, steps, restarts)
    }
}

/// Refuses ℓ1, for which the steps of the paper are none: its own needs sparse ones (Croce & Hein
/// 2021, *Mind the box*).
fn check(name: &str, options: &AttackOptions) -> Result<()> {
    if options.norm == Norm::L1 {
        return Err(Error::Configuration {
            problem: format!("the attack {name} has no steps in l1; take norm l2 or linf, or pgd"),
        });
    }
    Range::AT_LEAST_ONE.check("steps of the attack", options.steps as f64)
}

/// Weight of the new step beside the momentum.
const STEP: f64 = 0.75;

/// Share of steps since the last look that must have raised the objective.
const SUCCESS: f64 = 0.75;

/// The state of one sample.
struct Sample<T> {
    step_size: f64,
    best: f64,
    best_image: Vec<T>,
    /// The gradient at the best iterate.
    best_gradient: Vec<T>,
    /// Steps since the last look that raised the objective.
    raised: usize,
    /// Step size and best value at the last look.
    last_look: (f64, f64),
}

/// All steps of a restart, by the objective that `look` looks at; the first is of `step_size`.
pub(super) fn apgd<'a, T: Scalar>(
    search: &mut Search<'a, T>,
    start: Array2<T>,
    step_size: f64,
    look: impl Fn(&mut Search<'a, T>, &Array2<T>) -> relugrad::Result<Look<T>>,
) -> relugrad::Result<()> {
    let steps = search.options().steps;
    let looks = looks(steps);
    let Look {
        mut values,
        mut gradients,
    } = look(search, &start)?;
    let mut samples: Vec<Sample<T>> = (0..values.len())
        .map(|i| Sample {
            step_size,
            best: values[i],
            best_image: start.row(i).to_vec(),
            best_gradient: gradients.row(i).to_vec(),
            raised: 0,
            last_look: (step_size, values[i]),
        })
        .collect();
    let (mut before, mut here) = (start.clone(), start);
    let mut last = 0;
    for k in 0..steps {
        // The first step has no momentum.
        let keep = if k == 0 { 1.0 } else { STEP };
        let next = step(search, &before, &here, &gradients, &samples, keep);
        before = std::mem::replace(&mut here, next);
        let found = look(search, &here)?;
        for (i, sample) in samples.iter_mut().enumerate() {
            sample.raised += usize::from(found.values[i] > values[i]);
            if found.values[i] > sample.best {
                sample.best = found.values[i];
                sample.best_image = here.row(i).to_vec();
                sample.best_gradient = found.gradients.row(i).to_vec();
            }
        }
        (values, gradients) = (found.values, found.gradients);
        if looks.contains(&(k + 1)) {
            for (i, sample) in samples.iter_mut().enumerate() {
                if sample.halve(k + 1 - last) {
                    assign(&mut here, i, &sample.best_image);
                    assign(&mut gradients, i, &sample.best_gradient);
                    values[i] = sample.best;
                }
            }
            last = k + 1;
        }
    }
    Ok(())
}

/// `P(x + a (P(x + η s) − x) + (1 − a)(x − x_before))` for every sample.
fn step<T: Scalar>(
    search: &Search<'_, T>,
    before: &Array2<T>,
    here: &Array2<T>,
    gradients: &Array2<T>,
    samples: &[Sample<T>],
    keep: f64,
) -> Array2<T> {
    let (new, old) = (T::from_f64(keep), T::from_f64(1.0 - keep));
    let mut next = gradients.clone();
    for (i, mut row) in next.rows_mut().into_iter().enumerate() {
        let row = row.as_slice_mut().expect("rows are contiguous");
        let norm = search.options().norm;
        norm.steepest(row, samples[i].step_size);
        let places = here.row(i);
        row.iter_mut().zip(places).for_each(|(s, &x)| *s += x);
        search.project(i, row);
        for ((z, &x), &b) in row.iter_mut().zip(places).zip(before.row(i)) {
            *z = x + new * (*z - x) + old * (x - b);
        }
        search.project(i, row);
    }
    next
}

impl<T> Sample<T> {
    /// At a look after so many steps, whether the step was halved; the search then goes on from its
    /// best iterate.
    fn halve(&mut self, steps: usize) -> bool {
        let few = (self.raised as f64) < SUCCESS * steps as f64;
        let stuck = self.last_look == (self.step_size, self.best);
        // The comparison is with the state before this look's halving, as published.
        self.last_look = (self.step_size, self.best);
        self.raised = 0;
        if few || stuck {
            self.step_size /= 2.0;
        }
        few || stuck
    }
}

fn assign<T: Scalar>(rows: &mut Array2<T>, i: usize, values: &[T]) {
    let mut row = rows.row_mut(i);
    row.iter_mut().zip(values).for_each(|(to, &v)| *to = v);
}

/// After how many steps the step sizes are looked at: `⌈p_j N⌉` with `p_1 = 0.22` and
/// `p_{j+1} = p_j + max(p_j − p_{j−1} − 0.03, 0.06)`.
fn looks(steps: usize) -> Vec<usize> {
    // In hundredths, which are exact.
    let (mut before, mut here) = (0usize, 22usize);
    let mut looks = Vec::new();
    while here <= 100 {
        looks.push((here * steps).div_ceil(100));
        (before, here) = (here, here + (here - before).saturating_sub(3).max(6));
    }
    looks.dedup();
    looks
}

/// `−(f_y − max_{k≠y} f_k)/(f_{π1} − f_{π3})` of each row of logits, where `π` sorts them in
/// descending order, and its derivatives in the logits.
///
/// Where the first and the third logit are equal, it is taken as 0 without slope.
pub(super) fn difference_of_logits_ratio<T: Scalar>(
    logits: ArrayView2<T>,
    labels: &[usize],
) -> (Vec<f64>, Array2<T>) {
    let mut slopes = Array2::zeros(logits.dim());
    let rows = logits.rows().into_iter().zip(labels).enumerate();
    let values = rows.map(|(i, (row, &y))| {
        let f: Vec<f64> = row.iter().map(|f| f.into_f64()).collect();
        let mut order: Vec<usize> = (0..f.len()).collect();
        order.sort_by(|&a, &b| f[b].total_cmp(&f[a]));
        let rival = if order[0] == y { order[1] } else { order[0] };
        let (first, third) = (order[0], order[2]);
        let (top, span) = (f[rival] - f[y], f[first] - f[third]);
        if span <= 0.0 {
            return 0.0;
        }
        let ratio = top / span;
        let mut add = |k: usize, slope: f64| slopes[(i, k)] += T::from_f64(slope / span);
        add(rival, 1.0);
        add(y, -1.0);
        add(first, -ratio);
        add(third, ratio);
        ratio
    });
    (values.collect(), slopes)
}

/// `−(f_y − f_t)/(f_{π1} − ½(f_{π3} + f_{π4}))` of each row of at least four logits, with a target
/// class `t` for each (equation 8 of the paper), and its derivatives in the logits.
///
/// Where the span is 0, it is taken as 0 without slope.
pub(super) fn targeted_ratio<T: Scalar>(
    logits: ArrayView2<T>,
    labels: &[usize],
    targets: &[usize],
) -> (Vec<f64>, Array2<T>) {
    let mut slopes = Array2::zeros(logits.dim());
    let rows = logits.rows().into_iter().zip(labels.iter().zip(targets));
    let values = rows.enumerate().map(|(i, (row, (&y, &target)))| {
        let f: Vec<f64> = row.iter().map(|f| f.into_f64()).collect();
        let mut order: Vec<usize> = (0..f.len()).collect();
        order.sort_by(|&a, &b| f[b].total_cmp(&f[a]));
        let (first, third, fourth) = (order[0], order[2], order[3]);
        let span = f[first] - 0.5 * (f[third] + f[fourth]);
        if span <= 0.0 {
            return 0.0;
        }
        let ratio = (f[target] - f[y]) / span;
        let mut add = |k: usize, slope: f64| slopes[(i, k)] += T::from_f64(slope / span);
        add(target, 1.0);
        add(y, -1.0);
        add(first, -ratio);
        add(third, 0.5 * ratio);
        add(fourth, 0.5 * ratio);
        ratio
    });
    (values.collect(), slopes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn the_looks_are_the_published_ones() {
        // p = 0, 0.22, 0.41, 0.57, 0.70, 0.80, 0.87, 0.93, 0.99 (section 4.1 of the paper).
        assert_eq!(looks(100), [22, 41, 57, 70, 80, 87, 93, 99]);
    }

    #[test]
    fn a_step_is_halved_when_few_steps_raise_or_nothing_changes() {
        let search = |raised, best, last_best| Sample::<f64> {
            step_size: 0.5,
            best,
            best_image: vec![],
            best_gradient: vec![],
            raised,
            last_look: (0.5, last_best),
        };
        assert!(search(7, 2.0, 1.0).halve(10));
        assert!(!search(8, 2.0, 1.0).halve(10));
        assert!(search(8, 1.0, 1.0).halve(10));
        let mut twice = search(0, 1.0, 1.0);
        twice.halve(10);
        // The size has changed since the last look, so the same best value alone does not halve it
        // again.
        twice.raised = 10;
        assert!(!twice.halve(10));
    }

    #[test]
    fn the_ratio_by_hand_and_its_slopes_by_differences() {
        let f = array![[3.0, 1.0, 2.0, -1.0], [0.5, 4.0, 1.0, 2.0]];
        let (values, slopes) = difference_of_logits_ratio(f.view(), &[0, 3]);
        // (2 − 3)/(3 − 1), and (4 − 2)/(4 − 1).
        assert_eq!(values, [-0.5, 2.0 / 3.0]);
        for i in 0..2 {
            for k in 0..4 {
                let mut moved = f.clone();
                moved[(i, k)] += 1e-6;
                let (there, _) = difference_of_logits_ratio(moved.view(), &[0, 3]);
                let found = (there[i] - values[i]) / 1e-6;
                assert!((found - slopes[(i, k)]).abs() < 1e-5, "{i} {k}");
            }
        }
        let scaled = difference_of_logits_ratio((&f * 100.0).view(), &[0, 3]).0;
        assert_eq!(scaled, values);
        let equal = difference_of_logits_ratio(array![[1.0, 1.0, 1.0]].view(), &[0]);
        assert_eq!(equal.0, [0.0]);
    }

    #[test]
    fn the_targeted_ratio_by_hand_and_its_slopes_by_differences() {
        let f = array![[3.0, 1.0, 2.0, -1.0, -2.0], [0.5, 4.0, 1.0, 2.0, 0.0]];
        let of = |f: &Array2<f64>| targeted_ratio(f.view(), &[0, 3], &[2, 0]);
        let (values, slopes) = of(&f);
        // (2 − 3)/(3 − ½(1 − 1)), and (0.5 − 2)/(4 − ½(1 + 0.5)).
        assert_eq!(values, [-1.0 / 3.0, -1.5 / 3.25]);
        for (i, k) in (0..2).flat_map(|i| (0..5).map(move |k| (i, k))) {
            let mut moved = f.clone();
            moved[(i, k)] += 1e-6;
            let found = (of(&moved).0[i] - values[i]) / 1e-6;
            assert!((found - slopes[(i, k)]).abs() < 1e-5, "{i} {k}");
        }
        assert_eq!(of(&(&f * 100.0)).0, values);
    }

    #[test]
    fn the_sum_norm_is_refused_with_what_to_take() {
        let check = |norm| crate::attack::Attacker::new(ApgdCe {}, norm, 0.1, 5, 1).check();
        let message = check(Norm::L1).unwrap_err().to_string();
        assert!(message.contains("apgd-ce has no steps in l1"), "{message}");
        assert!(check(Norm::L2).is_ok() && check(Norm::Linf).is_ok());
    }
}
