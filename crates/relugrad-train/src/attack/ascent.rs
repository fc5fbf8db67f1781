//! What all attacks by gradient ascent have in common: starts, looks at iterates, and what is kept of them.

use ndarray::{Array2, ArrayView2, Axis};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use relugrad::{GoOn, Loss, Network, Scalar, Targets, Trace};

use super::{Attack, Method};
use crate::evaluate::{Samples, correct};
use crate::stop::ask;

/// What an attack found for each sample of a batch.
#[derive(Clone, Debug)]
pub struct Outcome<T> {
    /// The misclassified iterate if there is one, otherwise the one of the highest loss; `[B, D]`.
    pub adversarial: Array2<T>,
    /// Whether the sample is misclassified, without or under the attack.
    pub fooled: Vec<bool>,
    /// The loss at the adversarial example.
    pub losses: Vec<f64>,
}

/// What is attacked, and how.
#[derive(Clone, Copy)]
struct Target<'a, T> {
    attack: &'a Attack,
    network: &'a Network<T>,
    loss: &'a Loss,
    go_on: GoOn<'a>,
}

/// Samples under attack, with what has been found of them.
pub(super) struct Ascent<'a, T> {
    pub(super) attack: &'a Attack,
    on: Target<'a, T>,
    pub(super) clean: Array2<T>,
    labels: Vec<usize>,
    /// The number of each sample in its data set.
    numbers: Vec<usize>,
    outcome: Outcome<T>,
}

/// The objective of the ascent at some iterates, and its gradients.
pub(super) struct Look<T> {
    pub(super) values: Vec<f64>,
    pub(super) gradients: Array2<T>,
}

impl Attack {
    /// Attacks a batch; `images: [B, D]` in `[0, 1]`, `labels: [B]`.
    ///
    /// `first` is the index of the first sample in its data set. The random starts of a sample depend on it, the seed and
    /// the number of the restart, not on the batch. All restarts are run for all samples, so that the losses are the
    /// highest that were seen; [`stand`](Self::stand) is quicker if only the misclassification counts.
    ///
    /// # Errors
    /// Those of [`Network::trace`] and of the labels.
    pub fn run<T: Scalar>(
        &self,
        network: &Network<T>,
        loss: &Loss,
        images: ArrayView2<T>,
        labels: &[usize],
        first: usize,
    ) -> relugrad::Result<Outcome<T>> {
        let numbers = (first..first + labels.len()).collect();
        let on = Target {
            attack: self,
            network,
            loss,
            go_on: &|| true,
        };
        let mut ascent = Ascent::new(on, images.to_owned(), labels, numbers)?;
        for restart in 0..self.restarts {
            ascent.restart(restart)?;
        }
        Ok(ascent.outcome)
    }

    /// For each sample the adversarial example that misleads the network, and nothing if it withstands all restarts.
    ///
    /// Samples that are misclassified as they are count as misled by themselves and are not attacked, and no sample is
    /// attacked again once it has been misled. `first` as for [`run`](Self::run).
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub fn stand<T: Scalar>(
        &self,
        network: &Network<T>,
        loss: &Loss,
        images: ArrayView2<T>,
        labels: &[usize],
        first: usize,
    ) -> relugrad::Result<Vec<Option<Vec<T>>>> {
        self.stand_while(network, loss, images, labels, first, &|| true)
    }

    /// [`stand`](Self::stand), which asks at every iterate whether to go on.
    ///
    /// # Errors
    /// As for [`run`](Self::run), and [`relugrad::Error::Stopped`].
    pub fn stand_while<T: Scalar>(
        &self,
        network: &Network<T>,
        loss: &Loss,
        images: ArrayView2<T>,
        labels: &[usize],
        first: usize,
        go_on: GoOn,
    ) -> relugrad::Result<Vec<Option<Vec<T>>>> {
        let on = Target {
            attack: self,
            network,
            loss,
            go_on,
        };
        let mut misled: Vec<Option<Vec<T>>> = vec![None; labels.len()];
        let logits: Vec<T> = network.forward(images)?.into_iter().collect();
        for (i, right) in correct(&logits, labels).enumerate() {
            misled[i] = (!right).then(|| images.row(i).to_vec());
        }
        for restart in 0..self.restarts {
            let left: Vec<usize> = (0..labels.len()).filter(|&i| misled[i].is_none()).collect();
            if left.is_empty() {
                break;
            }
            let samples = Samples {
                images: images.select(Axis(0), &left),
                labels: left.iter().map(|&i| labels[i]).collect(),
            };
            let numbers = left.iter().map(|&i| first + i).collect();
            let mut ascent = Ascent::new(on, samples.images, &samples.labels, numbers)?;
            ascent.restart(restart)?;
            let Outcome {
                adversarial,
                fooled,
                ..
            } = ascent.outcome;
            for (row, &i) in left.iter().enumerate() {
                misled[i] = fooled[row].then(|| adversarial.row(row).to_vec());
            }
        }
        Ok(misled)
    }
}

impl<'a, T: Scalar> Ascent<'a, T> {
    fn new(
        on: Target<'a, T>,
        clean: Array2<T>,
        labels: &[usize],
        numbers: Vec<usize>,
    ) -> relugrad::Result<Ascent<'a, T>> {
        let mut ascent = Ascent {
            attack: on.attack,
            on,
            labels: labels.to_vec(),
            numbers,
            outcome: Outcome {
                adversarial: clean.clone(),
                fooled: vec![false; labels.len()],
                losses: vec![f64::NEG_INFINITY; labels.len()],
            },
            clean,
        };
        let trace = on.network.trace(ascent.clean.view())?;
        ascent.keep(&trace)?;
        drop(trace);
        Ok(ascent)
    }

    fn restart(&mut self, restart: usize) -> relugrad::Result<()> {
        let mut start = self.clean.clone();
        if self.attack.random_start {
            self.perturb(restart, &mut start);
        }
        match self.attack.method {
            Method::Noise => self.look_last(&start),
            Method::Fgsm | Method::Pgd => self.pgd(start),
            Method::ApgdCe | Method::ApgdDlr => self.apgd(start),
        }
    }

    fn perturb(&self, restart: usize, start: &mut Array2<T>) {
        for (i, mut row) in start.rows_mut().into_iter().enumerate() {
            let mut random = ChaCha8Rng::seed_from_u64(self.attack.seed);
            random.set_stream(((self.numbers[i] as u64) << 16) | restart as u64);
            let row = row.as_slice_mut().expect("rows are contiguous");
            let norm = self.attack.norm;
            norm.perturb(self.attack.epsilon, &mut random, row);
            self.project(i, row);
        }
    }

    /// Back into the ball around a sample, and the box.
    pub(super) fn project(&self, sample: usize, moved: &mut [T]) {
        let centre = self.clean.row(sample);
        let centre = centre.as_slice().expect("rows are contiguous");
        let norm = self.attack.norm;
        norm.project(centre, self.attack.epsilon, moved);
    }

    /// Looks at iterates, keeps what is worse than before, and tells where to go.
    pub(super) fn look(&mut self, images: &Array2<T>) -> relugrad::Result<Look<T>> {
        let trace = self.trace(images)?;
        let losses = self.keep(&trace)?;
        if self.attack.method == Method::ApgdDlr {
            let (values, slopes) = difference_of_logits_ratio(trace.logits(), &self.labels);
            let gradients = trace.vjp(slopes.view())?;
            return Ok(Look { values, gradients });
        }
        let targets = Targets::Classes(&self.labels);
        Ok(Look {
            values: losses,
            gradients: trace.input_gradient(self.on.loss, &targets)?,
        })
    }

    /// Looks at iterates and keeps what is worse than before.
    pub(super) fn look_last(&mut self, images: &Array2<T>) -> relugrad::Result<()> {
        let trace = self.trace(images)?;
        self.keep(&trace).map(drop)
    }

    fn trace(&self, images: &Array2<T>) -> relugrad::Result<Trace<'a, T>> {
        ask(self.on.go_on)?;
        self.on.network.trace(images.view())
    }

    /// Keeps the iterates of a trace that are worse than before; returns their losses.
    fn keep(&mut self, trace: &Trace<T>) -> relugrad::Result<Vec<f64>> {
        let targets = Targets::Classes(&self.labels);
        let losses = trace.losses(self.on.loss, &targets)?.to_vec();
        let logits: Vec<T> = trace.logits().iter().copied().collect();
        let images = trace.inputs();
        let outcome = &mut self.outcome;
        for (i, right) in correct(&logits, &self.labels).enumerate() {
            let worse = (!right, losses[i]) > (outcome.fooled[i], outcome.losses[i]);
            if worse {
                outcome.fooled[i] = !right;
                outcome.losses[i] = losses[i];
                outcome.adversarial.row_mut(i).assign(&images.row(i));
            }
        }
        Ok(losses)
    }
}

/// `−(f_y − max_{k≠y} f_k)/(f_{π1} − f_{π3})` of each row of logits, where `π` sorts them in descending order, and its
/// derivatives in the logits.
///
/// Where the first and the third logit are equal, it is taken as 0 without slope.
fn difference_of_logits_ratio<T: Scalar>(
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

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

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
}
