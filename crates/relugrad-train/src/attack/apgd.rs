//! Auto-PGD (Croce & Hein 2020, *Reliable evaluation of adversarial robustness with an ensemble of diverse
//! parameter-free attacks*, algorithm 1).

use ndarray::Array2;
use relugrad::Scalar;

use super::ascent::{Ascent, Look};

/// Weight of the new step beside the momentum.
const STEP: f64 = 0.75;

/// Share of steps since the last look that must have raised the objective.
const SUCCESS: f64 = 0.75;

/// The state of one sample.
struct Search<T> {
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

impl<T: Scalar> Ascent<'_, T> {
    /// All steps of a restart.
    pub(super) fn apgd(&mut self, start: Array2<T>) -> relugrad::Result<()> {
        let looks = looks(self.attack.steps);
        let Look {
            mut values,
            mut gradients,
        } = self.look(&start)?;
        let mut searches: Vec<Search<T>> = (0..values.len())
            .map(|i| Search {
                step_size: self.attack.step_size,
                best: values[i],
                best_image: start.row(i).to_vec(),
                best_gradient: gradients.row(i).to_vec(),
                raised: 0,
                last_look: (self.attack.step_size, values[i]),
            })
            .collect();
        let (mut before, mut here) = (start.clone(), start);
        let mut last = 0;
        for k in 0..self.attack.steps {
            // The first step has no momentum.
            let keep = if k == 0 { 1.0 } else { STEP };
            let next = self.step(&before, &here, &gradients, &searches, keep);
            before = std::mem::replace(&mut here, next);
            let look = self.look(&here)?;
            for (i, search) in searches.iter_mut().enumerate() {
                search.raised += usize::from(look.values[i] > values[i]);
                if look.values[i] > search.best {
                    search.best = look.values[i];
                    search.best_image = here.row(i).to_vec();
                    search.best_gradient = look.gradients.row(i).to_vec();
                }
            }
            (values, gradients) = (look.values, look.gradients);
            if looks.contains(&(k + 1)) {
                for (i, search) in searches.iter_mut().enumerate() {
                    if search.halve(k + 1 - last) {
                        assign(&mut here, i, &search.best_image);
                        assign(&mut gradients, i, &search.best_gradient);
                        values[i] = search.best;
                    }
                }
                last = k + 1;
            }
        }
        Ok(())
    }

    /// `P(x + a (P(x + η s) − x) + (1 − a)(x − x_before))` for every sample.
    fn step(
        &self,
        before: &Array2<T>,
        here: &Array2<T>,
        gradients: &Array2<T>,
        searches: &[Search<T>],
        keep: f64,
    ) -> Array2<T> {
        let (new, old) = (T::from_f64(keep), T::from_f64(1.0 - keep));
        let mut next = gradients.clone();
        for (i, mut row) in next.rows_mut().into_iter().enumerate() {
            let row = row.as_slice_mut().expect("rows are contiguous");
            let norm = self.attack.norm;
            norm.steepest(row, searches[i].step_size);
            let places = here.row(i);
            row.iter_mut().zip(places).for_each(|(s, &x)| *s += x);
            self.project(i, row);
            for ((z, &x), &b) in row.iter_mut().zip(places).zip(before.row(i)) {
                *z = x + new * (*z - x) + old * (x - b);
            }
            self.project(i, row);
        }
        next
    }
}

impl<T> Search<T> {
    /// At a look after so many steps, whether the step was halved; the search then goes on from its best iterate.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_looks_are_the_published_ones() {
        // p = 0, 0.22, 0.41, 0.57, 0.70, 0.80, 0.87, 0.93, 0.99 (section 4.1 of the paper).
        assert_eq!(looks(100), [22, 41, 57, 70, 80, 87, 93, 99]);
    }

    #[test]
    fn a_step_is_halved_when_few_steps_raise_or_nothing_changes() {
        let search = |raised, best, last_best| Search::<f64> {
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
        // The size has changed since the last look, so the same best value alone does not halve it again.
        twice.raised = 10;
        assert!(!twice.halve(10));
    }
}
