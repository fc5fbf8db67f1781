//! Several searches for one example, as a comparison should be judged by.

use ndarray::{Array2, ArrayView2};
use relugrad::Scalar;
use serde::{Deserialize, Serialize};

use super::apgd::{apgd, difference_of_logits_ratio, targeted_ratio};
use super::{ApgdCe, Attack, AttackOptions, Effort, Norm, Pgd, Search};
use crate::error::Result;

/// The union of [`Pgd`], [`ApgdCe`](super::ApgdCe) and Auto-PGD on the difference of logits, one
/// after the other on the samples that the ones before have not fooled.
///
/// The difference is the targeted one of Croce & Hein 2020 (equation 8), towards the two likeliest
/// other classes in turn; of three classes that of [`ApgdDlr`](super::ApgdDlr). Of two classes the
/// loss is a function of the difference, and of samples with values there is none, so these take
/// the first two alone. The restarts go through the searches in turn, so that [`PARTS`] of them are
/// one start of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Union {}

/// How many searches the union has.
pub const PARTS: usize = 4;

impl Attack for Union {
    const NAME: &'static str = "union";
    const TITLE: &'static str = "PGD+APGD";
    const MEANING: &'static str =
        "pgd, apgd-ce and targeted apgd-dlr in turn, on what still stands";

    fn options(&self, norm: Norm, epsilon: f64, steps: usize, restarts: usize) -> AttackOptions {
        let restarts = PARTS * restarts;
        AttackOptions::plain(norm, epsilon, steps, restarts)
    }

    /// An evaluation runs its parts, and takes the worst of them.
    fn efforts(&self, _: Effort, _: Effort) -> Vec<Effort> {
        Vec::new()
    }

    fn check(&self, options: &AttackOptions) -> Result<()> {
        ApgdCe {}.check(options)
    }

    fn search<T: Scalar>(
        &self,
        search: &mut Search<'_, T>,
        start: Array2<T>,
    ) -> relugrad::Result<()> {
        let first = 2.0 * search.options().epsilon;
        match (search.restart() % PARTS, search.classes()) {
            (0, _) => Pgd {}.search(search, start),
            (1, _) => apgd(search, start, first, Search::look),
            (2, 3) => apgd(search, start, first, |search, images| {
                search.look_by(images, difference_of_logits_ratio)
            }),
            (part, 4..) => {
                let clean = search.clean_logits()?;
                let targets = rivals(clean.view(), search.labels(), part - 2);
                let towards = |logits: ArrayView2<T>, labels: &[usize]| {
                    targeted_ratio(logits, labels, &targets)
                };
                apgd(search, start, first, |search, images| {
                    search.look_by(images, towards)
                })
            }
            _ => Ok(()),
        }
    }
}

/// The class of each sample that is the likeliest but for its own and so many others.
fn rivals<T: Scalar>(logits: ArrayView2<T>, labels: &[usize], others: usize) -> Vec<usize> {
    let rows = logits.rows().into_iter().zip(labels);
    let of = |(row, &y): (ndarray::ArrayView1<T>, &usize)| {
        let mut order: Vec<usize> = (0..row.len()).filter(|&k| k != y).collect();
        order.sort_by(|&a, &b| row[b].into_f64().total_cmp(&row[a].into_f64()));
        order[others]
    };
    rows.map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::{ApgdDlr, Attacker};
    use ndarray::array;
    use relugrad::{Builder, Loss, Mlp, Network};

    fn images(samples: usize, inputs: usize) -> Array2<f64> {
        Array2::from_shape_fn((samples, inputs), |(i, j)| {
            0.5 + 0.5 * ((3 * i + 7 * j * j) as f64).sin()
        })
    }

    fn standing(attack: &Attacker, network: &Network<f64>, x: &Array2<f64>) -> Vec<bool> {
        let labels: Vec<usize> = (0..x.nrows()).map(|i| i % network.outputs()).collect();
        let loss = Loss::softmax_cross_entropy();
        let found = attack.stand(network, &loss, x.view(), &labels[..], 0);
        found.unwrap().iter().map(Option::is_none).collect()
    }

    #[test]
    fn what_a_part_fools_does_not_stand() {
        for outputs in 2..=6 {
            let network = Mlp::new(&[5, 16, 16, outputs]).build::<f64>(3).unwrap();
            let x = images(60, 5);
            for (norm, epsilon) in [(Norm::Linf, 0.05), (Norm::L2, 0.1)] {
                let all = standing(&Attacker::new(Union {}, norm, epsilon, 10, 1), &network, &x);
                let pgd = standing(&Attacker::new(Pgd {}, norm, epsilon, 10, 1), &network, &x);
                assert!(all.iter().zip(&pgd).all(|(all, pgd)| !all || *pgd));
                assert!(all.contains(&true), "{outputs} {norm}");
            }
        }
    }

    #[test]
    fn a_sample_whose_loss_is_flat_falls_to_the_difference_of_logits() {
        // The loss of a logit of −1e4 and the three others' is 0 with all its slopes, and PGD and
        // Auto-PGD on it stay where they are.
        let mut builder = Builder::new();
        let x = builder.input(1).unwrap();
        let weight = array![[1e4], [0.0], [-1e4], [-2e4]];
        let bias = array![0.0, 2e3, 0.0, 0.0];
        let f = builder.dense(x, weight, Some(bias)).unwrap();
        let network: Network<f64> = builder.build(f).unwrap();
        let (x, loss) = (array![[0.6]], Loss::softmax_cross_entropy());
        let fooled = |attacker: Attacker| {
            let found = attacker.run(&network, &loss, x.view(), &[0], 0).unwrap();
            found.fooled[0]
        };
        let at = |attack: super::super::AnyAttack| Attacker::new(attack, Norm::Linf, 0.45, 20, 1);
        let mut plain = at(Pgd {}.into());
        plain.options.random_start = false;
        let mut union = at(Union {}.into());
        union.options.random_start = false;
        let mut ratio = at(ApgdDlr {}.into());
        ratio.options.random_start = false;
        assert!(!fooled(plain) && fooled(ratio) && fooled(union));
    }

    #[test]
    fn rivals_are_in_the_order_of_their_logits() {
        let logits = array![[0.5, 3.0, 1.0, 2.0], [4.0, 4.0, -1.0, 0.0]];
        assert_eq!(rivals(logits.view(), &[1, 2], 0), [3, 0]);
        assert_eq!(rivals(logits.view(), &[1, 2], 1), [2, 1]);
    }
}
