//! A penalty of one's own: the worst loss of the linearised network in an ℓ∞ ball of radius `ε`.
//!
//! `log Σ_k exp(f_k − f_y + ε ‖J_k − J_y‖₁) − ℓ`, so that with weight 1 it takes the place of the loss. Its gradient is checked, and it
//! is compared with the norm of the Jacobian: `cargo run --release -p relugrad-train --example own_penalty`.

use relugrad::Penalty;
use relugrad::penalty::{Described, JacobianAdjoint, JacobianPenalty, JacobianPoint};
use relugrad_train::Result;
use relugrad_train::compare::{Plan, Variant, compare};
use relugrad_train::data::{digits, stratified_split};
use relugrad_train::evaluate::Samples;
use relugrad_train::verify::verify_penalty;

#[derive(Debug)]
struct WorstCase(f64);

impl Described for WorstCase {
    fn name(&self) -> &str {
        "worst-case"
    }
}

impl JacobianPenalty for WorstCase {
    fn evaluate(
        &self,
        at: &JacobianPoint,
        adjoint: Option<&mut JacobianAdjoint>,
    ) -> relugrad::Result<f64> {
        let (f, j, y) = (at.logits(), at.jacobian(), at.label());
        let apart = |k: usize| &j.row(k) - &j.row(y);
        let worst = |k| f[k] - f[y] + self.0 * apart(k).mapv(f64::abs).sum();
        let worst: Vec<f64> = (0..f.len()).map(worst).collect();
        let top = worst.iter().fold(0.0, |top: f64, x| top.max(*x));
        let sum: f64 = worst.iter().map(|x| (x - top).exp()).sum();
        if let Some(adjoint) = adjoint {
            adjoint.add_logits(-1.0, at.residual());
            for k in (0..f.len()).filter(|&k| k != y) {
                let (q, signs) = ((worst[k] - top).exp() / sum, apart(k).mapv(f64::signum));
                adjoint.add_logit(q, k);
                adjoint.add_logit(-q, y);
                adjoint.add_row(self.0 * q, k, &signs.to_vec());
                adjoint.add_row(-self.0 * q, y, &signs.to_vec());
            }
        }
        Ok(top + sum.ln() - at.loss())
    }
}

fn main() -> Result<()> {
    let data = stratified_split(&digits(), 0.2, 0)?;
    let worst = Penalty::rows(WorstCase(0.1));
    let plan = Plan::new(
        data,
        vec![
            Variant::Penalty(worst.clone(), 1.0),
            Variant::Penalty(Penalty::Jacobian, 0.01),
        ],
    );
    let network = plan.model.build(plan.data.test.shape(), 10, 0)?;
    let samples = Samples::new(&plan.data.test).first(20);
    let loss = relugrad::Loss::softmax_cross_entropy();
    println!("{}", verify_penalty(&network, &worst, &loss, &samples, 0)?);
    for run in compare(&plan, None, &mut (), &|| true)?.runs {
        let (clean, robust) = (
            run.evaluation.clean_accuracy,
            &run.evaluation.robust_accuracy,
        );
        println!(
            "{:<12} clean {clean:.3}, under PGD {robust:.3?}",
            run.regularizer
        );
    }
    Ok(())
}
