//! Running an [`Attack`] on a batch.

use ndarray::{Array2, ArrayView2};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use relugrad::{Loss, Network, Scalar, Targets};

use super::Attack;
use crate::evaluate::correct;

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

impl Attack {
    /// Attacks a batch; `images: [B, D]` in `[0, 1]`, `labels: [B]`.
    ///
    /// `first` is the index of the first sample in its data set. The random starts of a sample depend on it and the
    /// seed, not on the batch.
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
        let mut outcome = Outcome {
            adversarial: images.to_owned(),
            fooled: vec![false; labels.len()],
            losses: vec![f64::NEG_INFINITY; labels.len()],
        };
        let clean = images.to_owned();
        outcome.look(network, loss, &clean, labels)?;
        for restart in 0..self.restarts {
            let mut moved = clean.clone();
            if self.random_start {
                self.start(&clean, first, restart, &mut moved);
            }
            for _ in 0..self.steps {
                let mut step = outcome.look(network, loss, &moved, labels)?;
                for (i, mut row) in moved.rows_mut().into_iter().enumerate() {
                    let step = step.row_mut(i).into_slice().expect("rows are contiguous");
                    self.norm.steepest(step, self.step_size);
                    let row = row.as_slice_mut().expect("rows are contiguous");
                    row.iter_mut().zip(&*step).for_each(|(x, &s)| *x += s);
                    self.project(&clean, i, row);
                }
            }
            outcome.look(network, loss, &moved, labels)?;
        }
        Ok(outcome)
    }

    fn start<T: Scalar>(
        &self,
        clean: &Array2<T>,
        first: usize,
        restart: usize,
        moved: &mut Array2<T>,
    ) {
        for (i, mut row) in moved.rows_mut().into_iter().enumerate() {
            let mut random = ChaCha8Rng::seed_from_u64(self.seed);
            random.set_stream(((first + i) * self.restarts + restart) as u64);
            let row = row.as_slice_mut().expect("rows are contiguous");
            self.norm.perturb(self.epsilon, &mut random, row);
            self.project(clean, i, row);
        }
    }

    fn project<T: Scalar>(&self, clean: &Array2<T>, sample: usize, moved: &mut [T]) {
        let centre = clean.row(sample);
        let centre = centre.as_slice().expect("rows are contiguous");
        self.norm.project(centre, self.epsilon, moved);
    }
}

impl<T: Scalar> Outcome<T> {
    /// Evaluates the loss at `images`, keeps what is worse than before, and returns the gradients.
    fn look(
        &mut self,
        network: &Network<T>,
        loss: &Loss,
        images: &Array2<T>,
        labels: &[usize],
    ) -> relugrad::Result<Array2<T>> {
        let trace = network.trace(images.view())?;
        let targets = Targets::Classes(labels);
        let losses = trace.losses(loss, &targets)?;
        let logits: Vec<T> = trace.logits().iter().copied().collect();
        for (i, right) in correct(&logits, labels).enumerate() {
            let worse = (!right, losses[i]) > (self.fooled[i], self.losses[i]);
            if worse {
                self.fooled[i] = !right;
                self.losses[i] = losses[i];
                self.adversarial.row_mut(i).assign(&images.row(i));
            }
        }
        trace.input_gradient(loss, &targets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::Norm;
    use ndarray::array;
    use relugrad::Builder;

    /// Logits `(w·x, 0)`, so class 0 is left where `w·x < 0`.
    fn linear(w: [f64; 2], b: f64) -> Network<f64> {
        let mut builder = Builder::new();
        let x = builder.input(2).unwrap();
        let weight = array![[w[0], w[1]], [0.0, 0.0]];
        let f = builder.dense(x, weight, Some(array![b, 0.0])).unwrap();
        builder.build(f).unwrap()
    }

    fn fooled(attack: &Attack, network: &Network<f64>) -> bool {
        let loss = Loss::softmax_cross_entropy();
        let x = array![[0.5, 0.5]];
        attack
            .run(network, &loss, x.view(), &[0], 0)
            .unwrap()
            .fooled[0]
    }

    #[test]
    fn a_linear_network_is_fooled_beyond_its_margin_and_not_before() {
        // w·x + b = 0.3 at the centre; the margin is 0.3/‖w‖₁ in ℓ∞ and 0.3/‖w‖₂ in ℓ2.
        let network = linear([3.0, -4.0], 0.8);
        for (norm, margin) in [(Norm::Linf, 0.3 / 7.0), (Norm::L2, 0.3 / 5.0)] {
            for attack in [Attack::fgsm, |n, e| Attack::pgd(n, e, 20, 2)] {
                assert!(fooled(&attack(norm, 1.1 * margin), &network));
                assert!(!fooled(&attack(norm, 0.99 * margin), &network));
            }
        }
    }

    #[test]
    fn iterates_stay_in_the_ball_and_the_box() {
        let network = linear([-1.0, 2.0], 0.3);
        let loss = Loss::softmax_cross_entropy();
        let x = array![[0.05, 0.95], [0.5, 0.2]];
        for norm in [Norm::Linf, Norm::L2] {
            let attack = Attack::pgd(norm, 0.25, 7, 3);
            let outcome = attack.run(&network, &loss, x.view(), &[0, 1], 0).unwrap();
            for (a, c) in outcome.adversarial.rows().into_iter().zip(x.rows()) {
                assert!(norm.of(a.iter().zip(c).map(|(a, c)| a - c)) <= 0.25 + 1e-12);
                assert!(a.iter().all(|a| (0.0..=1.0).contains(a)));
            }
        }
    }

    #[test]
    fn the_starts_of_a_sample_do_not_depend_on_its_batch() {
        let network = linear([-1.0, 2.0], 0.3);
        let loss = Loss::softmax_cross_entropy();
        let x = array![[0.1, 0.9], [0.5, 0.2]];
        let attack = Attack::pgd(Norm::L2, 0.1, 1, 1);
        let both = attack.run(&network, &loss, x.view(), &[0, 1], 0).unwrap();
        let second = x.slice(ndarray::s![1.., ..]);
        let alone = attack.run(&network, &loss, second, &[1], 1).unwrap();
        assert_eq!(both.adversarial.row(1), alone.adversarial.row(0));
    }
}
