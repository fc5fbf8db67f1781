//! `ℓ = log Σ_k exp f_k − Σ_k t_k f_k`.

use pulp::{Arch, Simd, WithSimd};

use super::{Loss, LossEntry, LossFunction, TargetKind};
use crate::buffer::Buffer;
use crate::error::Error;
use crate::linalg::sum_of_pairs;

pub(super) const ENTRY: LossEntry = LossEntry {
    name: "softmax-cross-entropy",
    formula: "log Σ exp f_k − f_y",
    meaning: "classes, with a logit for each",
    options: &[("label-smoothing", 0.0)],
    make: |options| Loss::SoftmaxCrossEntropy {
        label_smoothing: options[0],
    },
};

/// The state is `p` followed by `1 − p`, the latter summed from the other classes where `p` is the
/// largest, so that it keeps its relative accuracy when one class is almost certain.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SoftmaxCrossEntropy {
    /// The share of a label's probability that all classes have in equal parts.
    pub(super) label_smoothing: f64,
}

impl LossFunction for SoftmaxCrossEntropy {
    fn name(&self) -> &str {
        ENTRY.name
    }

    fn options(&self) -> Vec<(&'static str, f64)> {
        vec![(ENTRY.options[0].0, self.label_smoothing)]
    }

    fn check(&self, targets: TargetKind, _: usize) -> Result<(), String> {
        targets.are_classes()
    }

    fn check_options(&self) -> crate::Result<()> {
        if (0.0..=1.0).contains(&self.label_smoothing) {
            return Ok(());
        }
        Err(Error::OutOfRange {
            option: "label-smoothing".into(),
            value: self.label_smoothing,
            expected: "in [0, 1]",
        })
    }

    fn class_target(&self, label: usize, target: &mut [f64]) {
        target.fill(self.label_smoothing / target.len() as f64);
        target[label] += 1.0 - self.label_smoothing;
    }

    fn evaluate(
        &self,
        logits: &[f64],
        target: &[f64],
        residual: &mut [f64],
        state: &mut [f64],
    ) -> f64 {
        let (p, rest) = state.split_at_mut(logits.len());
        let top = argmax(logits);
        let mut others = 0.0;
        for (k, p) in p.iter_mut().enumerate() {
            *p = (logits[k] - logits[top]).exp();
            if k != top {
                others += *p;
            }
        }
        let sum = 1.0 + others;
        for (k, p) in p.iter_mut().enumerate() {
            *p /= sum;
            rest[k] = if k == top { others / sum } else { 1.0 - *p };
        }
        for k in 0..logits.len() {
            residual[k] = if target[k] == 1.0 {
                -rest[k]
            } else {
                p[k] - target[k]
            };
        }
        let differences = logits
            .iter()
            .zip(target)
            .map(|(f, t)| t * (logits[top] - f));
        others.ln_1p() + differences.sum::<f64>()
    }

    /// `p_k (v_k − pᵀ v)`.
    fn hessian_times(&self, state: &[f64], rows: &[f64], out: &mut [f64]) {
        let p = &state[..state.len() / 2];
        scaled_from_mean(p, p, rows, out);
    }

    /// `L = diag(√p) − p √pᵀ`: `L u` has the entries `√p_k u_k − p_k Σ_j √p_j u_j`, where the terms
    /// of `u_k` are one, `√p_k (1 − p_k) u_k`.
    fn factor_times(&self, state: &[f64], u: &[f64], out: &mut [f64]) {
        let (p, rest) = state.split_at(u.len());
        let top = argmax(p);
        let (mut sum, mut others) = (0.0, 0.0);
        for (k, (p, u)) in p.iter().zip(u).enumerate() {
            out[k] = p.sqrt() * u;
            sum += out[k];
            others += if k == top { 0.0 } else { out[k] };
        }
        for (k, out) in out.iter_mut().enumerate() {
            *out = if k == top {
                *out * rest[k] - p[k] * others
            } else {
                *out - p[k] * sum
            };
        }
    }

    /// `√p_k (v_k − pᵀ v)`.
    fn factor_transposed_times(&self, state: &[f64], rows: &[f64], out: &mut [f64]) {
        let p = &state[..state.len() / 2];
        let roots = Buffer::of(p.iter().map(|p| p.sqrt()));
        scaled_from_mean(p, &roots, rows, out);
    }

    /// `S p̄` with `p̄ = diag(S̄) − 2 S̄ p`.
    fn hessian_pullback(&self, state: &[f64], s_bar: &[f64], out: &mut [f64]) {
        let k = out.len();
        let p = &state[..k];
        let p_bar = Buffer::of((0..k).map(|i| {
            let row = &s_bar[i * k..(i + 1) * k];
            row[i] - 2.0 * row.iter().zip(p).map(|(s, p)| s * p).sum::<f64>()
        }));
        self.hessian_times(state, &p_bar, out);
    }

    fn sees_only_differences(&self) -> bool {
        true
    }

    fn hessian_depends_on_target(&self) -> bool {
        false
    }

    /// `r` divided by the probability of the likeliest wrong class, as the label's probability goes
    /// to 1.
    fn limit(&self, logits: &[f64], target: &[f64], residual: &mut [f64]) -> Option<f64> {
        let label = target.iter().position(|&t| t == 1.0)?;
        let others = || (0..logits.len()).filter(|&k| k != label);
        let second = others()
            .map(|k| logits[k])
            .fold(f64::NEG_INFINITY, f64::max);
        if logits.len() < 2 || second >= logits[label] {
            return None;
        }
        others().for_each(|k| residual[k] = (logits[k] - second).exp());
        residual[label] = -others().map(|k| residual[k]).sum::<f64>();
        Some((second - logits[label]).exp())
    }

    /// `S = diag(p) − p pᵀ` to first order in the probabilities of the wrong classes, which are the
    /// positive entries of `r`.
    fn limit_hessian_times(&self, residual: &[f64], u: &[f64], product: &mut [f64]) {
        let smaller = |best: usize, k: usize| {
            if residual[k] < residual[best] {
                k
            } else {
                best
            }
        };
        let label = (0..residual.len()).fold(0, smaller);
        product[label] = 0.0;
        for k in (0..residual.len()).filter(|&k| k != label) {
            product[k] = residual[k] * (u[k] - u[label]);
            product[label] -= product[k];
        }
    }
}

/// `out_k = a_k (v_k − pᵀ v)` for every row `v`, counted from its entry for the most likely class:
/// if that class is almost certain then the difference would otherwise lose all digits.
fn scaled_from_mean(p: &[f64], a: &[f64], rows: &[f64], out: &mut [f64]) {
    Arch::new().dispatch(ScaledFromMean { p, a, rows, out });
}

struct ScaledFromMean<'a> {
    p: &'a [f64],
    a: &'a [f64],
    rows: &'a [f64],
    out: &'a mut [f64],
}

impl WithSimd for ScaledFromMean<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let (k, top) = (self.p.len(), argmax(self.p));
        let rows = self.rows.chunks_exact(k);
        for (v, out) in rows.zip(self.out.chunks_exact_mut(k)) {
            let origin = v[top];
            let mean = sum_of_pairs(self.p, v, |p, v| p * (v - origin));
            for (out, (a, v)) in out.iter_mut().zip(self.a.iter().zip(v)) {
                *out = a * ((v - origin) - mean);
            }
        }
    }
}

fn argmax(values: &[f64]) -> usize {
    (1..values.len()).fold(0, |best, k| if values[k] > values[best] { k } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::checks;
    use approx::assert_abs_diff_eq;

    #[test]
    fn derivatives_agree_with_differences() {
        checks::derivatives(
            &SoftmaxCrossEntropy::default(),
            &[0.3, -1.2, 2.0],
            &[0.0, 1.0, 0.0],
        );
        checks::derivatives(&SoftmaxCrossEntropy::default(), &[0.3, 0.3], &[0.25, 0.75]);
    }

    #[test]
    fn a_saturated_sample_keeps_its_digits() {
        let (mut r, mut state) = ([0.0; 2], [0.0; 4]);
        let value =
            SoftmaxCrossEntropy::default().evaluate(&[50.0, 0.0], &[1.0, 0.0], &mut r, &mut state);
        let tail = (-50f64).exp();
        assert_abs_diff_eq!(value / tail, 1.0, epsilon = 1e-15);
        assert!((r[0] / -tail - 1.0).abs() < 1e-15 && r[0] == -r[1]);
    }

    #[test]
    fn the_hessian_of_a_saturated_sample_keeps_its_digits() {
        let (mut state, mut out) = ([0.0; 4], [0.0; 2]);
        SoftmaxCrossEntropy::default().evaluate(
            &[50.0, 0.0],
            &[1.0, 0.0],
            &mut [0.0; 2],
            &mut state,
        );
        SoftmaxCrossEntropy::default().hessian_times(&state, &[0.3, -0.4], &mut out);
        let expected = 0.7 * (-50f64).exp();
        assert_abs_diff_eq!(out[0] / expected, 1.0, epsilon = 1e-15);
        assert_abs_diff_eq!(out[1] / -expected, 1.0, epsilon = 1e-15);
    }

    #[test]
    fn huge_logits_do_not_overflow() {
        let (mut r, mut state) = ([0.0; 2], [0.0; 4]);
        let value =
            SoftmaxCrossEntropy::default().evaluate(&[1e300, 0.0], &[0.0, 1.0], &mut r, &mut state);
        assert_eq!((value, r), (1e300, [1.0, -1.0]));
    }
}
