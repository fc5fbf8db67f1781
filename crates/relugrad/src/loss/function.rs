//! What the engine asks of a loss: the way to add one's own.

use std::fmt;

use super::TargetKind;
use crate::eigen::EigenSolver;
use crate::linalg::add;

/// A loss `ℓ(f, t)` of a sample with `K` logits `f` and the target vector `t`, with its
/// derivatives.
///
/// Implement it for a type of one's own, which [`Loss::own`](super::Loss::own) makes a loss of an
/// [`Objective`](crate::Objective): values, exact gradients of every penalty, training,
/// verification. Numbers are `f64` whatever the network's type; `K×K` matrices are row-major
/// slices.
///
/// [`evaluate`](Self::evaluate) leaves what the Hessian needs in a *state* of `2K` numbers, which
/// the other functions are given. All of them are called from several threads.
///
/// ```
/// use relugrad::loss::{LossFunction, TargetKind};
/// use relugrad::{FiniteDifference, Loss, Mlp, Objective, Penalty, Targets};
/// use ndarray::array;
///
/// /// `Σ_k log cosh(f_k − y_k)`, which grows linearly for outliers.
/// #[derive(Debug)]
/// struct LogCosh;
///
/// impl LossFunction for LogCosh {
///     fn name(&self) -> &str {
///         "log-cosh"
///     }
///     fn check(&self, targets: TargetKind, _: usize) -> Result<(), String> {
///         match targets {
///             TargetKind::Values => Ok(()),
///             _ => Err("needs values as targets".to_owned()),
///         }
///     }
///     fn evaluate(&self, f: &[f64], y: &[f64], r: &mut [f64], state: &mut [f64]) -> f64 {
///         let mut sum = 0.0;
///         for k in 0..f.len() {
///             let e = f[k] - y[k];
///             r[k] = e.tanh();
///             state[k] = r[k];
///             sum += e.abs() + (-2.0 * e.abs()).exp().ln_1p() - 2f64.ln();
///         }
///         sum
///     }
///     /// `S = diag(1 − tanh²)`.
///     fn hessian_times(&self, state: &[f64], rows: &[f64], out: &mut [f64]) {
///         let k = state.len() / 2;
///         for (i, (out, v)) in out.iter_mut().zip(rows).enumerate() {
///             *out = (1.0 - state[i % k].powi(2)) * v;
///         }
///     }
///     /// `∂S_kk/∂f_k = −2 tanh (1 − tanh²)`.
///     fn hessian_pullback(&self, state: &[f64], s_bar: &[f64], out: &mut [f64]) {
///         let k = out.len();
///         for (i, out) in out.iter_mut().enumerate() {
///             *out = s_bar[i * k + i] * -2.0 * state[i] * (1.0 - state[i].powi(2));
///         }
///     }
/// }
///
/// let network = Mlp::new(&[2, 8, 2]).build::<f64>(1)?;
/// let objective = Objective::new(Loss::own(&LogCosh)).with(Penalty::CurvatureFrobenius, 0.1)?;
/// let (x, y) = (array![[0.5, -1.0]], array![[0.3, 2.0]]);
/// let targets = Targets::Values(y.view());
/// let (_, gradient) = objective.gradient(&network, x.view(), &targets)?;
/// let check = FiniteDifference::central(1e-5)?;
/// let estimate = check.parameter_gradient(&objective, &network, x.view(), &targets)?;
/// for (exact, estimate) in gradient.values().iter().zip(estimate.values()) {
///     assert!((exact - estimate).abs() < 1e-8);
/// }
/// # Ok::<(), relugrad::Error>(())
/// ```
pub trait LossFunction: fmt::Debug + Send + Sync {
    /// Its name in messages, tables and files, in small letters with hyphens.
    fn name(&self) -> &str;

    /// Whether it is defined for such targets and so many logits, and if not, what is wrong and
    /// what to take instead: the rest of a sentence that begins with the loss's name.
    fn check(&self, targets: TargetKind, outputs: usize) -> Result<(), String>;

    /// Its options with their values: with the name they are its identity, by which a training is
    /// resumed.
    fn options(&self) -> Vec<(&'static str, f64)> {
        Vec::new()
    }

    /// Whether its options are in range.
    ///
    /// # Errors
    /// [`Error::OutOfRange`](crate::Error::OutOfRange), naming the option.
    fn check_options(&self) -> crate::Result<()> {
        Ok(())
    }

    /// Number of classes that labels may be of, where [`check`](Self::check) allows labels. As many
    /// as logits by default.
    fn classes(&self, outputs: usize) -> usize {
        outputs
    }

    /// Number of logits that tell so many classes apart. As many by default.
    fn outputs(&self, classes: usize) -> usize {
        classes
    }

    /// Writes the target vector of a label into zeros. Its unit vector by default.
    fn class_target(&self, label: usize, target: &mut [f64]) {
        target[label] = 1.0;
    }

    /// `ℓ(f, t)`; writes the residual `r = ∂ℓ/∂f` and the state, `2K` numbers.
    fn evaluate(
        &self,
        logits: &[f64],
        target: &[f64],
        residual: &mut [f64],
        state: &mut [f64],
    ) -> f64;

    /// `S v` with `S = ∂²ℓ/∂f²` for every row `v` of a matrix with `K` columns.
    fn hessian_times(&self, state: &[f64], rows: &[f64], out: &mut [f64]);

    /// `out_i = ∂⟨S̄, S(f)⟩/∂f_i` for a constant symmetric `S̄`.
    fn hessian_pullback(&self, state: &[f64], s_bar: &[f64], out: &mut [f64]);

    /// `out = L u` with a `K×K` factor `S = L Lᵀ`. By default the symmetric root of `S`, for
    /// `O(K³)`; of a Hessian that is not positive semidefinite it is NaN, which is then an error.
    fn factor_times(&self, state: &[f64], u: &[f64], out: &mut [f64]) {
        root_times(self.dense_hessian(state), u, out);
    }

    /// `Lᵀ v` for every row `v` of a matrix with `K` columns.
    fn factor_transposed_times(&self, state: &[f64], rows: &[f64], out: &mut [f64]) {
        root_times(self.dense_hessian(state), rows, out);
    }

    /// `S` as a matrix.
    fn dense_hessian(&self, state: &[f64]) -> Vec<f64> {
        let k = state.len() / 2;
        let (mut identity, mut hessian) = (vec![0.0; k * k], vec![0.0; k * k]);
        identity.iter_mut().step_by(k + 1).for_each(|d| *d = 1.0);
        self.hessian_times(state, &identity, &mut hessian);
        hessian
    }

    /// Whether `1ᵀ r = 0` and `S 1 = 0`, so that the loss sees only differences of logits and
    /// `K − 1` rows are enough for penalties that do so too. It is a promise; the default makes
    /// none.
    fn sees_only_differences(&self) -> bool {
        false
    }

    /// Whether `S` depends on the target and not only on the logits. The default says that it does.
    fn hessian_depends_on_target(&self) -> bool {
        true
    }

    /// The direction of a residual that is too small to be a number: where the loss of a sample is
    /// nearly certain, replaces `r` by `r / 2^n` in the limit and returns the factor `2^n` as far
    /// as it is a number. Nothing if there is no such limit.
    fn limit(&self, logits: &[f64], target: &[f64], residual: &mut [f64]) -> Option<f64> {
        let _ = (logits, target, residual);
        None
    }

    /// `S u / 2^n` in the limit of [`limit`](Self::limit), which left `residual`.
    fn limit_hessian_times(&self, residual: &[f64], u: &[f64], product: &mut [f64]) {
        let _ = (residual, u);
        product.fill(f64::NAN);
    }
}

/// `√S v` for every row `v`.
fn root_times(hessian: Vec<f64>, rows: &[f64], out: &mut [f64]) {
    let k = hessian.len().isqrt();
    let Ok(eigen) = EigenSolver::new(k).solve(&hessian) else {
        return out.fill(f64::NAN);
    };
    let noise = 1e-12 * eigen.values[0].abs().max(eigen.values[k - 1].abs());
    if eigen.values[k - 1] < -noise {
        return out.fill(f64::NAN);
    }
    out.fill(0.0);
    for (v, out) in rows.chunks_exact(k).zip(out.chunks_exact_mut(k)) {
        for i in 0..k {
            let u = eigen.vector(i);
            let along: f64 = u.iter().zip(v).map(|(u, v)| u * v).sum();
            add(out, along * eigen.values[i].max(0.0).sqrt(), u);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::checks;

    /// `ℓ = ½ (f − t)ᵀ M (f − t)`.
    #[derive(Debug)]
    struct Quadratic(Vec<f64>);

    impl LossFunction for Quadratic {
        fn name(&self) -> &str {
            "quadratic"
        }

        fn check(&self, _: TargetKind, _: usize) -> Result<(), String> {
            Ok(())
        }

        fn evaluate(&self, f: &[f64], t: &[f64], r: &mut [f64], _: &mut [f64]) -> f64 {
            let e: Vec<f64> = f.iter().zip(t).map(|(f, t)| f - t).collect();
            self.hessian_times(&vec![0.0; 2 * e.len()], &e, r);
            0.5 * e.iter().zip(&*r).map(|(e, r)| e * r).sum::<f64>()
        }

        fn hessian_times(&self, state: &[f64], rows: &[f64], out: &mut [f64]) {
            let k = state.len() / 2;
            for (v, out) in rows.chunks_exact(k).zip(out.chunks_exact_mut(k)) {
                for (row, out) in self.0.chunks_exact(k).zip(out) {
                    *out = row.iter().zip(v).map(|(m, v)| m * v).sum();
                }
            }
        }

        fn hessian_pullback(&self, _: &[f64], _: &[f64], out: &mut [f64]) {
            out.fill(0.0);
        }
    }

    #[test]
    fn a_loss_without_a_factor_has_the_root_of_its_hessian() {
        let quadratic = Quadratic(vec![2.0, 1.0, 0.0, 1.0, 3.0, 0.5, 0.0, 0.5, 1.0]);
        checks::derivatives(&quadratic, &[0.3, -1.0, 2.0], &[0.0, 1.0, 0.5]);
    }

    #[test]
    fn an_indefinite_hessian_has_no_root() {
        let mut out = [0.0; 2];
        Quadratic(vec![1.0, 0.0, 0.0, -1.0]).factor_times(&[0.0; 4], &[1.0, 1.0], &mut out);
        assert!(out.iter().all(|entry| entry.is_nan()));
    }
}
