//! Losses on the logits: value, residual `r = ∂ℓ/∂f`, Hessian `S = ∂²ℓ/∂f²`, and what the chain
//! rule needs.
//!
//! All of it is computed per sample in `f64`, whatever the precision of the network.

mod function;
mod logistic;
mod magnified;
mod softmax_cross_entropy;
mod squared_error;
mod targets;

use std::ops::Deref;

use crate::buffer::Buffer;
use crate::error::{Error, Result};
use crate::linalg::{symmetrise, transpose};
use crate::scalar::Scalar;
use logistic::Logistic;
use softmax_cross_entropy::SoftmaxCrossEntropy;
use squared_error::SquaredError;

pub use function::LossFunction;
pub(crate) use magnified::Magnified;
pub use targets::{TargetKind, Targets};

/// A loss `ℓ(f, y)` on the logits `f` of a sample: one of those that are built in, or one's own
/// ([`Loss::own`]).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loss {
    /// `ℓ = log Σ_k exp f_k − Σ_k t_k f_k` with target probabilities `t`; `r = p − t`,
    /// `S = diag(p) − p pᵀ` with `p = softmax(f)`.
    ///
    /// A label `y` stands for `t = (1 − s) e_y + s/K`.
    SoftmaxCrossEntropy {
        /// The share `s` of label smoothing, in `[0, 1]`; targets given as probabilities are not
        /// smoothed.
        label_smoothing: f64,
    },
    /// `ℓ = log(1 + exp f) − t f` for one logit and a target probability `t` of class 1;
    /// `r = σ(f) − t`, `S = σ(f)(1 − σ(f))`.
    Logistic,
    /// `ℓ = ½ ‖f − y‖²`; `r = f − y`, `S = I`. A label stands for its unit vector.
    SquaredError,
    /// A loss from outside this crate.
    Own(OwnLoss),
}

/// What is known about a built-in loss.
#[derive(Debug)]
pub struct LossEntry {
    /// Its name in options and files.
    pub name: &'static str,
    /// Its definition at a sample.
    pub formula: &'static str,
    /// What it is for.
    pub meaning: &'static str,
    /// Its options with their defaults.
    pub options: &'static [(&'static str, f64)],
    /// Makes it with a value for each option.
    pub make: fn(&[f64]) -> Loss,
}

/// A [`LossFunction`] from outside this crate.
#[derive(Clone, Copy, Debug)]
pub struct OwnLoss(&'static dyn LossFunction);

impl PartialEq for OwnLoss {
    fn eq(&self, other: &OwnLoss) -> bool {
        std::ptr::addr_eq(self.0, other.0) && self.0.name() == other.0.name()
    }
}

/// What the engine works with: a loss function, wherever it is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Function {
    SoftmaxCrossEntropy(SoftmaxCrossEntropy),
    Logistic,
    SquaredError,
    Own(&'static dyn LossFunction),
}

impl Deref for Function {
    type Target = dyn LossFunction;

    fn deref(&self) -> &(dyn LossFunction + 'static) {
        match self {
            Function::SoftmaxCrossEntropy(loss) => loss,
            Function::Logistic => &Logistic,
            Function::SquaredError => &SquaredError,
            Function::Own(loss) => *loss,
        }
    }
}

impl Loss {
    /// Softmax cross-entropy without label smoothing.
    pub fn softmax_cross_entropy() -> Loss {
        Loss::SoftmaxCrossEntropy {
            label_smoothing: 0.0,
        }
    }

    /// A loss of one's own, which can then do whatever the built-in ones can:
    /// `Loss::own(&LogCosh)`, or a `static`. One that is made at run time has to be
    /// [leaked](Box::leak), once.
    pub fn own(function: &'static dyn LossFunction) -> Loss {
        Loss::Own(OwnLoss(function))
    }

    /// The usual loss: squared error for values; for classes, logistic for one logit and softmax
    /// cross-entropy for more.
    pub fn for_targets(targets: TargetKind, outputs: usize) -> Loss {
        match (targets, outputs) {
            (TargetKind::Values, _) => Loss::SquaredError,
            (TargetKind::Classes | TargetKind::Probabilities, 1) => Loss::Logistic,
            (TargetKind::Classes | TargetKind::Probabilities, _) => Loss::softmax_cross_entropy(),
        }
    }

    /// All built-in losses.
    pub fn catalogue() -> &'static [LossEntry] {
        &[
            softmax_cross_entropy::ENTRY,
            logistic::ENTRY,
            squared_error::ENTRY,
        ]
    }

    /// Its name in options and files.
    pub fn name(&self) -> &str {
        match self {
            Loss::SoftmaxCrossEntropy { .. } => softmax_cross_entropy::ENTRY.name,
            Loss::Logistic => logistic::ENTRY.name,
            Loss::SquaredError => squared_error::ENTRY.name,
            Loss::Own(own) => own.0.name(),
        }
    }

    /// Its options with their values, which with its name are its identity in files.
    pub fn options(&self) -> Vec<(&'static str, f64)> {
        self.function().options()
    }

    /// The number of classes that so many logits tell apart.
    pub fn classes(&self, outputs: usize) -> usize {
        self.function().classes(outputs)
    }

    /// The number of logits that tell so many classes apart.
    pub fn outputs(&self, classes: usize) -> usize {
        self.function().outputs(classes)
    }

    /// Whether it promises to see only differences of logits, which
    /// [`Invariance::LogitDifferences`] of a penalty is about.
    ///
    /// [`Invariance::LogitDifferences`]: crate::penalty::Invariance::LogitDifferences
    pub fn sees_only_differences(&self) -> bool {
        self.function().sees_only_differences()
    }

    /// Refuses options that are out of range, targets that it is not defined for, and a number of
    /// logits.
    ///
    /// # Errors
    /// [`Error::Loss`] with what to take instead, and [`Error::OutOfRange`].
    pub fn check(&self, targets: TargetKind, outputs: usize) -> Result<()> {
        let function = self.function();
        function.check_options()?;
        let unfit = |problem| Error::Loss {
            loss: self.name().to_owned(),
            problem,
        };
        function.check(targets, outputs).map_err(unfit)
    }

    /// The loss of a sample with logits `[K]` and its residual `r = ∂ℓ/∂f`, `[K]`.
    ///
    /// # Errors
    /// Those of [`check`](Self::check) and of the targets.
    pub fn evaluate(&self, logits: &[f64], targets: &Targets<f64>) -> Result<(f64, Vec<f64>)> {
        let (k, mut target) = (logits.len(), Vec::new());
        targets.resolve(self, 1, k, &mut target)?;
        let (mut residual, mut state) = (vec![0.0; k], vec![0.0; 2 * k]);
        let function = self.function();
        let value = function.evaluate(logits, &target, &mut residual, &mut state);
        Ok((value, residual))
    }

    pub(crate) fn function(&self) -> Function {
        match *self {
            Loss::SoftmaxCrossEntropy { label_smoothing } => {
                Function::SoftmaxCrossEntropy(SoftmaxCrossEntropy { label_smoothing })
            }
            Loss::Logistic => Function::Logistic,
            Loss::SquaredError => Function::SquaredError,
            Loss::Own(own) => Function::Own(own.0),
        }
    }
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
    /// The logits; `[B, K]`.
    pub(crate) logits: Vec<f64>,
}

impl LossBatch {
    /// Evaluates the loss on logits `[B, K]` and resolved targets `[B, K]`.
    pub(crate) fn fill<T: Scalar>(
        &mut self,
        function: &dyn LossFunction,
        logits: &[T],
        targets: &[f64],
        outputs: usize,
    ) {
        let samples = logits.len() / outputs;
        self.outputs = outputs;
        self.values.resize(samples, 0.0);
        self.residuals.resize(samples * outputs, 0.0);
        self.states.resize(samples * outputs * 2, 0.0);
        self.logits.clear();
        self.logits.extend(logits.iter().map(|f| f.into_f64()));
        for i in 0..samples {
            let row = i * outputs..(i + 1) * outputs;
            let state = &mut self.states[2 * row.start..2 * row.end];
            let residual = &mut self.residuals[row.clone()];
            let f = &self.logits[row.clone()];
            self.values[i] = function.evaluate(f, &targets[row], residual, state);
        }
    }

    pub(crate) fn logits(&self, sample: usize) -> &[f64] {
        &self.logits[sample * self.outputs..(sample + 1) * self.outputs]
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
