//! `ℓ = log(1 + exp f) − t f` for one logit.

use super::{Loss, LossEntry, LossFunction, TargetKind};

pub(super) const ENTRY: LossEntry = LossEntry {
    name: "logistic",
    formula: "log(1 + exp f) − y f",
    meaning: "two classes, with one logit",
    options: &[],
    make: |_| Loss::Logistic,
};

/// The state is `σ(f)` and `σ(−f)`.
#[derive(Debug)]
pub(crate) struct Logistic;

impl LossFunction for Logistic {
    fn name(&self) -> &str {
        ENTRY.name
    }

    fn check(&self, targets: TargetKind, outputs: usize) -> Result<(), String> {
        if outputs != 1 {
            return Err(format!(
                "needs a network with one logit, not {outputs}; use softmax cross-entropy"
            ));
        }
        targets.are_classes()
    }

    fn classes(&self, _: usize) -> usize {
        2
    }

    fn outputs(&self, _: usize) -> usize {
        1
    }

    fn class_target(&self, label: usize, target: &mut [f64]) {
        target[0] = label as f64;
    }

    fn evaluate(
        &self,
        logits: &[f64],
        target: &[f64],
        residual: &mut [f64],
        state: &mut [f64],
    ) -> f64 {
        let (f, t) = (logits[0], target[0]);
        let small = (-f.abs()).exp();
        let (large, little) = (1.0 / (1.0 + small), small / (1.0 + small));
        let (p, rest) = if f > 0.0 {
            (large, little)
        } else {
            (little, large)
        };
        (state[0], state[1]) = (p, rest);
        residual[0] = if t == 1.0 { -rest } else { p - t };
        let softplus = small.ln_1p();
        if f > 0.0 {
            softplus + (1.0 - t) * f
        } else {
            softplus - t * f
        }
    }

    fn hessian_times(&self, state: &[f64], rows: &[f64], out: &mut [f64]) {
        let s = state[0] * state[1];
        out.iter_mut().zip(rows).for_each(|(out, v)| *out = s * v);
    }

    fn factor_times(&self, state: &[f64], u: &[f64], out: &mut [f64]) {
        let root = (state[0] * state[1]).sqrt();
        out.iter_mut().zip(u).for_each(|(out, u)| *out = root * u);
    }

    fn factor_transposed_times(&self, state: &[f64], rows: &[f64], out: &mut [f64]) {
        self.factor_times(state, rows, out);
    }

    /// `S̄ σ (1 − σ)(1 − 2σ)`.
    fn hessian_pullback(&self, state: &[f64], s_bar: &[f64], out: &mut [f64]) {
        out[0] = s_bar[0] * state[0] * state[1] * (state[1] - state[0]);
    }

    fn hessian_depends_on_target(&self) -> bool {
        false
    }

    fn limit(&self, logits: &[f64], target: &[f64], residual: &mut [f64]) -> Option<f64> {
        let f = logits[0];
        let (likeliest, sign) = if f > 0.0 { (1.0, -1.0) } else { (0.0, 1.0) };
        (target[0] == likeliest).then(|| {
            residual[0] = sign;
            (-f.abs()).exp()
        })
    }

    fn limit_hessian_times(&self, residual: &[f64], u: &[f64], product: &mut [f64]) {
        product[0] = residual[0].abs() * u[0];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::checks;

    #[test]
    fn derivatives_agree_with_differences() {
        for (f, t) in [(0.7, 1.0), (-2.0, 1.0), (0.0, 0.0), (3.0, 0.25)] {
            checks::derivatives(&Logistic, &[f], &[t]);
        }
    }

    #[test]
    fn a_saturated_sample_keeps_its_digits() {
        let (mut r, mut state) = ([0.0], [0.0; 2]);
        let value = Logistic.evaluate(&[60.0], &[1.0], &mut r, &mut state);
        let tail = (-60f64).exp();
        assert!((value / tail - 1.0).abs() < 1e-15 && (r[0] / -tail - 1.0).abs() < 1e-15);
    }
}
