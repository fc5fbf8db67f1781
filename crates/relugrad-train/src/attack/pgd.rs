//! Projected gradient ascent with equal steps.

use ndarray::Array2;
use relugrad::Scalar;
use serde::{Deserialize, Serialize};

use super::{Attack, Effort, Search};

/// Projected gradient ascent of equal steps on the loss (Madry et al. 2018): from `x` to
/// `x + α sign(∇ℓ)` in ℓ∞ and `x + α ∇ℓ/‖∇ℓ‖₂` in ℓ2, then back into the ball and the box.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pgd {}

impl Attack for Pgd {
    const NAME: &'static str = "pgd";
    const TITLE: &'static str = "PGD";
    const MEANING: &'static str = "equal gradient steps";

    fn efforts(&self, plain: Effort, _: Effort) -> Vec<Effort> {
        let once = Effort {
            restarts: 1,
            ..plain
        };
        vec![once, plain]
    }

    fn search<T: Scalar>(
        &self,
        search: &mut Search<'_, T>,
        start: Array2<T>,
    ) -> relugrad::Result<()> {
        let (mut moved, step_size) = (start, search.options().step_size);
        for _ in 0..search.options().steps {
            let gradients = search.look(&moved)?.gradients;
            search.climb(&mut moved, gradients, |_| step_size);
        }
        search.keep(&moved)
    }
}

#[cfg(test)]
mod tests {
    use super::Pgd;
    use crate::attack::{AnyAttack, ApgdCe, Attacker, Ball, Fgsm, Norm};
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

    fn fooled(attack: &Attacker, network: &Network<f64>) -> bool {
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
            let attacks: [AnyAttack; 3] = [Fgsm {}.into(), Pgd {}.into(), ApgdCe {}.into()];
            for attack in attacks {
                let at = |share: f64| Attacker::new(attack.clone(), norm, share * margin, 20, 2);
                assert!(fooled(&at(1.1), &network));
                assert!(!fooled(&at(0.99), &network));
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
                Attacker::new(Pgd {}, norm, 0.25, 7, 3),
                Attacker::new(ApgdCe {}, norm, 0.25, 12, 2),
            ] {
                let outcome = attack.run(&network, &loss, x.view(), &[0, 1], 0).unwrap();
                for (a, c) in outcome.adversarial.rows().into_iter().zip(x.rows()) {
                    assert!(norm.length(a.iter().zip(c).map(|(a, c)| a - c)) <= 0.25 + 1e-12);
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
        let attack = Attacker::new(Pgd {}, Norm::L2, 0.1, 1, 1);
        let both = attack.run(&network, &loss, x.view(), &[0, 1], 0).unwrap();
        let second = x.slice(ndarray::s![1.., ..]);
        let alone = attack.run(&network, &loss, second, &[1], 1).unwrap();
        assert_eq!(both.adversarial.row(1), alone.adversarial.row(0));
    }
}
