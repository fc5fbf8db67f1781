//! Projected gradient ascent with equal steps.

use ndarray::Array2;
use relugrad::Scalar;

use super::ascent::Ascent;

impl<T: Scalar> Ascent<'_, T> {
    /// All steps of a restart.
    pub(super) fn pgd(&mut self, start: Array2<T>) -> relugrad::Result<()> {
        let mut moved = start;
        for _ in 0..self.attack.steps {
            let mut step = self.look(&moved)?.gradients;
            for (i, mut row) in moved.rows_mut().into_iter().enumerate() {
                let mut step = step.row_mut(i);
                let step = step.as_slice_mut().expect("rows are contiguous");
                let norm = self.attack.norm;
                norm.steepest(step, self.attack.step_size);
                let row = row.as_slice_mut().expect("rows are contiguous");
                row.iter_mut().zip(&*step).for_each(|(x, &s)| *x += s);
                self.project(i, row);
            }
        }
        self.look_last(&moved)
    }
}

#[cfg(test)]
mod tests {
    use crate::attack::{Attack, Norm};
    use ndarray::array;
    use relugrad::{Builder, Loss, Network};

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
            for attack in [
                Attack::fgsm,
                |n, e| Attack::pgd(n, e, 20, 2),
                |n, e| Attack::apgd_ce(n, e, 20, 1),
            ] {
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
            for attack in [
                Attack::pgd(norm, 0.25, 7, 3),
                Attack::apgd_ce(norm, 0.25, 12, 2),
            ] {
                let outcome = attack.run(&network, &loss, x.view(), &[0, 1], 0).unwrap();
                for (a, c) in outcome.adversarial.rows().into_iter().zip(x.rows()) {
                    assert!(norm.of(a.iter().zip(c).map(|(a, c)| a - c)) <= 0.25 + 1e-12);
                    assert!(a.iter().all(|a| (0.0..=1.0).contains(a)));
                }
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
