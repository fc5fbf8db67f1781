//! `ℓ = ½ ‖f − y‖²`.

use super::{Loss, LossEntry, LossFunction, TargetKind};

pub(super) const ENTRY: LossEntry = LossEntry {
    name: "squared-error",
    formula: "½ ‖f − y‖²",
    meaning: "values; of classes their unit vectors",
    options: &[],
    make: |_| Loss::SquaredError,
};

/// It needs no state: its Hessian is the identity.
#[derive(Debug)]
pub(crate) struct SquaredError;

impl LossFunction for SquaredError {
    fn name(&self) -> &str {
        ENTRY.name
    }

    fn check(&self, _: TargetKind, _: usize) -> Result<(), String> {
        Ok(())
    }

    fn evaluate(&self, logits: &[f64], target: &[f64], residual: &mut [f64], _: &mut [f64]) -> f64 {
        for (r, (f, y)) in residual.iter_mut().zip(logits.iter().zip(target)) {
            *r = f - y;
        }
        residual.iter().map(|r| 0.5 * r * r).sum()
    }

    fn hessian_times(&self, _: &[f64], rows: &[f64], out: &mut [f64]) {
        out.copy_from_slice(rows);
    }

    fn factor_times(&self, _: &[f64], u: &[f64], out: &mut [f64]) {
        out.copy_from_slice(u);
    }

    fn factor_transposed_times(&self, _: &[f64], rows: &[f64], out: &mut [f64]) {
        out.copy_from_slice(rows);
    }

    fn hessian_pullback(&self, _: &[f64], _: &[f64], out: &mut [f64]) {
        out.fill(0.0);
    }

    fn hessian_depends_on_target(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::checks;

    #[test]
    fn derivatives_agree_with_differences() {
        checks::derivatives(&SquaredError, &[0.3, -1.2, 2.0], &[0.5, 1.0, -1.0]);
    }
}
