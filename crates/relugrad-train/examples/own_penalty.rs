//! `log Σ_k exp(f_k − f_y + ε ‖J_k − J_y‖₁) − ℓ`: with weight 1 the worst loss of the linearised
//! network in an ℓ∞ ball of radius `ε` takes the place of the loss (the built-in `worst-case` is
//! the same). It is checked by differences, trained, and compared with the norm of the Jacobian.
use relugrad::{Penalty, Result, penalty::*};
use relugrad_train::{compare::*, data, evaluate::Samples, verify::verify_penalty};
#[derive(Debug)]
struct WorstCase(f64);
impl Described for WorstCase {
    fn name(&self) -> &str {
        "own-worst-case"
    }
}
impl JacobianPenalty for WorstCase {
    fn evaluate(&self, at: &JacobianPoint, adjoint: Option<&mut JacobianAdjoint>) -> Result<f64> {
        let (f, j, y) = (at.logits(), at.jacobian(), at.label());
        let apart = |k: usize| &j.row(k) - &j.row(y);
        let worst = |k: usize| (f[k] - f[y] + self.0 * apart(k).mapv(f64::abs).sum()).exp();
        let sum: f64 = (0..f.len()).map(worst).sum();
        if let Some(adjoint) = adjoint {
            adjoint.add_logits(-1.0, at.residual());
            for (k, row, sign) in (0..f.len()).flat_map(|k| [(k, k, 1.0), (k, y, -1.0)]) {
                let q = sign * worst(k) / sum;
                adjoint.add_logit(q, row);
                adjoint.add_row(self.0 * q, row, &apart(k).mapv(f64::signum).to_vec());
            }
        }
        Ok(sum.ln() - at.loss())
    }
}
fn main() -> relugrad_train::Result<()> {
    let data = data::stratified_split(&data::digits(), 0.2, 0)?;
    let worst = Penalty::rows(WorstCase(0.1));
    let plan = Plan::new(data, [(worst.clone(), 1.0), (Penalty::Jacobian, 0.01)]);
    let x = Samples::new(&plan.data.test).first(20);
    let start = plan.model.build(&[64], 10, 0)?;
    assert!(verify_penalty(&start, &worst, plan.loss(), &x, 0)?.holds());
    for run in compare(&plan, None, &mut (), &|| true)?.runs {
        println!("{:<14} {:?}", run.regularizer, run.evaluation.quality);
    }
    Ok(())
}
