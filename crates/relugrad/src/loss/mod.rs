//! Losses on the logits: value, residual `r = ∂ℓ/∂f`, Hessian `S = ∂²ℓ/∂f²`, and what the chain rule needs.
//!
//! All of it is computed per sample in `f64`, whatever the precision of the network.

mod logistic;
mod magnified;
mod softmax_cross_entropy;
mod squared_error;
mod targets;

use crate::buffer::Buffer;
use crate::error::{Error, Result};
use crate::jacobian::{symmetrise, transpose};
use crate::scalar::Scalar;

pub(crate) use magnified::Magnified;
pub use targets::Targets;

/// A loss `ℓ(f, y)` on the logits `f` of a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Loss {
    /// `ℓ = log Σ_k exp f_k − Σ_k t_k f_k` with target probabilities `t`; `r = p − t`, `S = diag(p) − p pᵀ` with
    /// `p = softmax(f)`.
    ///
    /// A label `y` stands for `t = (1 − s) e_y + s/K`.
    SoftmaxCrossEntropy {
        /// The share `s` of label smoothing, in `[0, 1]`; targets given as probabilities are not smoothed.
        label_smoothing: f64,
    },
    /// `ℓ = log(1 + exp f) − t f` for one logit and a target probability `t` of class 1; `r = σ(f) − t`,
    /// `S = σ(f)(1 − σ(f))`.
    Logistic,
    /// `ℓ = ½ ‖f − y‖²`; `r = f − y`, `S = I`. A label stands for its unit vector.
    SquaredError,
}

impl Loss {
    /// Softmax cross-entropy without label smoothing.
    pub fn softmax_cross_entropy() -> Loss {
        Loss::SoftmaxCrossEntropy {
            label_smoothing: 0.0,
        }
    }

    /// Its name in options and files.
    pub fn name(&self) -> &'static str {
        match self {
            Loss::SoftmaxCrossEntropy { .. } => "softmax-cross-entropy",
            Loss::Logistic => "logistic",
            Loss::SquaredError => "squared-error",
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        match *self {
            Loss::SoftmaxCrossEntropy { label_smoothing }
                if !(0.0..=1.0).contains(&label_smoothing) =>
            {
                Err(Error::OutOfRange {
                    option: "label_smoothing".into(),
                    value: label_smoothing,
                    expected: "in [0, 1]",
                })
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn function(&self) -> &'static dyn LossFunction {
        match self {
            Loss::SoftmaxCrossEntropy { .. } => &softmax_cross_entropy::SoftmaxCrossEntropy,
            Loss::Logistic => &logistic::Logistic,
            Loss::SquaredError => &squared_error::SquaredError,
        }
    }
}

/// What the engine asks of a loss, for one sample with `K` logits. `K×K` matrices are row-major.
///
/// A loss keeps what its Hessian needs in a *state* of `2K` numbers, filled by [`evaluate`](Self::evaluate).
pub(crate) trait LossFunction: Sync {
    /// `ℓ(f, t)`; writes the residual and the state.
    fn evaluate(
        &self,
        logits: &[f64],
        target: &[f64],
        residual: &mut [f64],
        state: &mut [f64],
    ) -> f64;

    /// `S v` for every row `v` of a matrix with `K` columns.
    fn hessian_times(&self, state: &[f64], rows: &[f64], out: &mut [f64]);

    /// `out = L u` with a `K×K` factor `S = L Lᵀ`.
    fn factor_times(&self, state: &[f64], u: &[f64], out: &mut [f64]);

    /// `Lᵀ v` for every row `v` of a matrix with `K` columns.
    fn factor_transposed_times(&self, state: &[f64], rows: &[f64], out: &mut [f64]);

    /// `out_i = ∂⟨S̄, S(f)⟩/∂f_i` for a constant symmetric `S̄`.
    fn hessian_pullback(&self, state: &[f64], s_bar: &[f64], out: &mut [f64]);

    /// Whether `1ᵀ r = 0` and `S 1 = 0`, so that the loss sees only differences of logits.
    fn sees_only_differences(&self) -> bool;
}

/// Writes `Lᵀ G L`, exactly symmetric, of a symmetric `K×K` matrix `G`; row-major.
pub(crate) fn reduced_gram(
    function: &dyn LossFunction,
    state: &[f64],
    gram: &[f64],
    reduced: &mut [f64],
) {
    let k = state.len() / 2;
    let mut product = Buffer::uncleared(k * k);
    function.factor_transposed_times(state, gram, &mut product);
    transpose(&mut product, k);
    function.factor_transposed_times(state, &product, reduced);
    symmetrise(reduced, k);
}

/// `Σ_i f(a_i, b_i)`, in eight sums that do not wait for each other.
#[inline(always)]
pub(crate) fn sum_of_pairs(a: &[f64], b: &[f64], f: impl Fn(f64, f64) -> f64) -> f64 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        for i in 0..8 {
            sums[i] += f(a[i], b[i]);
        }
    }
    for (sum, (&a, &b)) in sums.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *sum += f(a, b);
    }
    sums.iter().sum()
}

/// A loss evaluated on a batch, in `f64`. Buffers are reused.
#[derive(Clone, Debug, Default)]
pub(crate) struct LossBatch {
    /// Number of logits `K`.
    pub(crate) outputs: usize,
    /// `[B]`.
    pub(crate) values: Vec<f64>,
    /// `r`; `[B, K]`.
    pub(crate) residuals: Vec<f64>,
    /// `[B, 2K]`.
    pub(crate) states: Vec<f64>,
}

impl LossBatch {
    /// Evaluates the loss on logits `[B, K]` and resolved targets `[B, K]`.
    pub(crate) fn fill<T: Scalar>(
        &mut self,
        loss: &Loss,
        logits: &[T],
        targets: &[f64],
        outputs: usize,
    ) {
        let (samples, function) = (logits.len() / outputs, loss.function());
        self.outputs = outputs;
        self.values.resize(samples, 0.0);
        self.residuals.resize(samples * outputs, 0.0);
        self.states.resize(samples * outputs * 2, 0.0);
        let mut f = Buffer::zeros(outputs);
        for i in 0..samples {
            let row = i * outputs..(i + 1) * outputs;
            for (to, from) in f.iter_mut().zip(&logits[row.clone()]) {
                *to = from.into_f64();
            }
            let state = &mut self.states[2 * row.start..2 * row.end];
            let residual = &mut self.residuals[row.clone()];
            self.values[i] = function.evaluate(&f, &targets[row], residual, state);
        }
    }

    pub(crate) fn residual(&self, sample: usize) -> &[f64] {
        &self.residuals[sample * self.outputs..(sample + 1) * self.outputs]
    }

    pub(crate) fn state(&self, sample: usize) -> &[f64] {
        &self.states[2 * sample * self.outputs..2 * (sample + 1) * self.outputs]
    }
}

#[cfg(test)]
pub(crate) mod checks {
    //! What must hold for every loss, by central differences in the logits.

    use super::LossFunction;

    fn residual(loss: &dyn LossFunction, f: &[f64], t: &[f64]) -> Vec<f64> {
        let mut r = vec![0.0; f.len()];
        loss.evaluate(f, t, &mut r, &mut vec![0.0; 2 * f.len()]);
        r
    }

    fn state(loss: &dyn LossFunction, f: &[f64], t: &[f64]) -> Vec<f64> {
        let mut state = vec![0.0; 2 * f.len()];
        loss.evaluate(f, t, &mut vec![0.0; f.len()], &mut state);
        state
    }

    fn value(loss: &dyn LossFunction, f: &[f64], t: &[f64]) -> f64 {
        loss.evaluate(f, t, &mut vec![0.0; f.len()], &mut vec![0.0; 2 * f.len()])
    }

    fn weighted_hessian(loss: &dyn LossFunction, f: &[f64], t: &[f64], s_bar: &[f64]) -> f64 {
        let (k, state) = (f.len(), state(loss, f, t));
        let mut column = vec![0.0; k];
        let mut sum = 0.0;
        for j in 0..k {
            let unit: Vec<f64> = (0..k).map(|i| f64::from(i == j)).collect();
            loss.hessian_times(&state, &unit, &mut column);
            sum += (0..k).map(|i| s_bar[i * k + j] * column[i]).sum::<f64>();
        }
        sum
    }

    fn close(found: f64, expected: f64) {
        assert!(
            (found - expected).abs() < 1e-8 * (1.0 + expected.abs()),
            "{found} is not {expected}"
        );
    }

    /// Checks residual, Hessian, factor and pullback at one point.
    pub(crate) fn derivatives(loss: &dyn LossFunction, f: &[f64], t: &[f64]) {
        let (k, h) = (f.len(), 1e-5);
        let shifted = |i: usize, h: f64| {
            let mut f = f.to_vec();
            f[i] += h;
            f
        };
        let state = state(loss, f, t);
        let r = residual(loss, f, t);
        let s_bar: Vec<f64> = (0..k * k)
            .map(|x| ((x / k) * (x % k)) as f64 + ((x / k) + (x % k)) as f64 * 0.5 - 1.0)
            .collect();
        let (mut s, mut pullback) = (vec![0.0; k], vec![0.0; k]);
        let (mut reduced, mut product) = (vec![0.0; k], vec![0.0; k]);
        loss.hessian_pullback(&state, &s_bar, &mut pullback);
        for j in 0..k {
            let (up, down) = (shifted(j, h), shifted(j, -h));
            close(
                r[j],
                (value(loss, &up, t) - value(loss, &down, t)) / (2.0 * h),
            );
            let weighted = |f: &[f64]| weighted_hessian(loss, f, t, &s_bar);
            close(pullback[j], (weighted(&up) - weighted(&down)) / (2.0 * h));
            let unit: Vec<f64> = (0..k).map(|i| f64::from(i == j)).collect();
            loss.hessian_times(&state, &unit, &mut s);
            loss.factor_transposed_times(&state, &unit, &mut reduced);
            loss.factor_times(&state, &reduced, &mut product);
            let (r_up, r_down) = (residual(loss, &up, t), residual(loss, &down, t));
            for i in 0..k {
                close(s[i], (r_up[i] - r_down[i]) / (2.0 * h));
                close(product[i], s[i]);
            }
        }
    }
}
