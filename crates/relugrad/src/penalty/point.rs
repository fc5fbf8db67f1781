//! What every penalty sees of a sample at its logits, and where it puts its derivatives there.

use crate::buffer::Buffer;
use crate::linalg::{add, add_outer};
use crate::loss::{LossBatch, LossFunction};

/// A sample at its logits: `f`, the target, and the loss with its derivatives `r = ∂ℓ/∂f` and
/// `S = ∂²ℓ/∂f²`.
#[derive(Clone, Copy, Debug)]
pub struct LogitPoint<'a> {
    pub(crate) logits: &'a [f64],
    pub(crate) target: &'a [f64],
    pub(crate) value: f64,
    pub(crate) residual: &'a [f64],
    pub(crate) loss: &'a dyn LossFunction,
    pub(crate) state: &'a [f64],
    /// Number of inputs `D`.
    pub(crate) inputs: usize,
}

impl<'a> LogitPoint<'a> {
    /// A sample of a batch that has gone through a loss; `targets: [B, K]`.
    pub(crate) fn of(
        loss: &'a dyn LossFunction,
        batch: &'a LossBatch,
        targets: &'a [f64],
        sample: usize,
        inputs: usize,
    ) -> LogitPoint<'a> {
        let k = batch.outputs;
        LogitPoint {
            logits: batch.logits(sample),
            target: &targets[sample * k..(sample + 1) * k],
            value: batch.values[sample],
            residual: batch.residual(sample),
            loss,
            state: batch.state(sample),
            inputs,
        }
    }

    /// Number of logits `K`.
    pub fn outputs(&self) -> usize {
        self.logits.len()
    }

    /// Number of inputs `D` of the network.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// The logits `f`; `[K]`.
    pub fn logits(&self) -> &'a [f64] {
        self.logits
    }

    /// The target `y`: probabilities of the classes, the unit vector of a label, or the values to
    /// regress to; `[K]`.
    pub fn target(&self) -> &'a [f64] {
        self.target
    }

    /// The class of the target: its first largest entry. Of a single logit's target, 0 or 1 by what
    /// is nearer.
    pub fn label(&self) -> usize {
        if let [target] = self.target {
            return usize::from(*target > 0.5);
        }
        let better = |best: usize, k: usize| {
            if self.target[k] > self.target[best] {
                k
            } else {
                best
            }
        };
        (1..self.target.len()).fold(0, better)
    }

    /// The loss `ℓ(f, y)`.
    pub fn loss(&self) -> f64 {
        self.value
    }

    /// The residual `r = ∂ℓ/∂f`; `[K]`.
    pub fn residual(&self) -> &'a [f64] {
        self.residual
    }

    /// `M S`, whose rows are `S` times the rows of `M`; `S v` for a single row.
    pub fn hessian_times(&self, m: &[f64]) -> Buffer<f64> {
        let mut out = Buffer::zeros(m.len());
        self.loss.hessian_times(self.state, m, &mut out);
        out
    }

    /// `L u`, with `S = L Lᵀ`.
    pub fn hessian_factor_times(&self, u: &[f64]) -> Buffer<f64> {
        let mut out = Buffer::zeros(u.len());
        self.loss.factor_times(self.state, u, &mut out);
        out
    }
}

/// The sum of derivatives at the logits of a sample, each with its penalty's weight.
#[derive(Clone, Debug)]
pub(crate) struct LogitSums {
    /// `∂/∂f` with everything else constant.
    f: Vec<f64>,
    /// `∂/∂r` with `S` constant.
    pub(crate) r: Vec<f64>,
    /// `∂/∂S` with `r` constant, symmetric; empty if there is none, for it would be the largest of
    /// all.
    s: Vec<f64>,
    /// Whether there are any.
    touched: bool,
    /// What a penalty did wrong.
    pub(crate) fault: Option<String>,
}

impl LogitSums {
    pub(crate) fn zeros(outputs: usize) -> LogitSums {
        LogitSums {
            f: vec![0.0; outputs],
            r: vec![0.0; outputs],
            s: Vec::new(),
            touched: false,
            fault: None,
        }
    }

    pub(crate) fn reset(&mut self) {
        if self.touched {
            self.f.fill(0.0);
            self.r.fill(0.0);
            self.s.fill(0.0);
        }
        (self.touched, self.fault) = (false, None);
    }

    pub(crate) fn outputs(&self) -> usize {
        self.r.len()
    }

    fn s_mut(&mut self) -> &mut [f64] {
        let k = self.outputs();
        self.s.resize(k * k, 0.0);
        &mut self.s
    }

    /// Adds the derivative with respect to the logits, `f̄ + S r̄ + ∂⟨S̄, S⟩/∂f`.
    pub(crate) fn add_to(&self, loss: &dyn LossFunction, state: &[f64], logit_adjoint: &mut [f64]) {
        if !self.touched {
            return;
        }
        let mut product = Buffer::zeros(self.outputs());
        if !self.s.is_empty() {
            loss.hessian_pullback(state, &self.s, &mut product);
            add(logit_adjoint, 1.0, &product);
        }
        loss.hessian_times(state, &self.r, &mut product);
        add(logit_adjoint, 1.0, &product);
        add(logit_adjoint, 1.0, &self.f);
    }
}

/// Where a penalty puts its derivatives at the logits. Each is multiplied by the penalty's weight
/// here, not by its author.
#[derive(Debug)]
pub struct LogitAdjoint<'a> {
    pub(crate) weight: f64,
    pub(crate) sums: &'a mut LogitSums,
}

impl LogitAdjoint<'_> {
    /// Adds `scale · v` to `∂φ/∂f`, for what does not come through `r`, `S` or the Jacobian;
    /// `v: [K]`.
    pub fn add_logits(&mut self, scale: f64, v: &[f64]) {
        if self.fits("the derivative with respect to the logits", v, 1) {
            add(&mut self.sums.f, self.weight * scale, v);
        }
    }

    /// Adds `scale` to one entry of `∂φ/∂f`, that of the logit `k`.
    pub fn add_logit(&mut self, scale: f64, k: usize) {
        let outputs = self.sums.outputs();
        match self.sums.f.get_mut(k) {
            Some(entry) => {
                *entry += self.weight * scale;
                self.sums.touched = true;
            }
            None => self.blame(format!("has a derivative in logit {k} of {outputs}")),
        }
    }

    /// Adds `scale · v` to `∂φ/∂r`; `v: [K]`.
    pub fn add_residual(&mut self, scale: f64, v: &[f64]) {
        if self.fits("the derivative with respect to the residual", v, 1) {
            add(&mut self.sums.r, self.weight * scale, v);
        }
    }

    /// Adds `scale · M` to `∂φ/∂S`; `M: [K, K]`, row-major. Of a matrix that is not symmetric give
    /// half and its transpose half.
    pub fn add_hessian(&mut self, scale: f64, m: &[f64]) {
        let k = self.sums.outputs();
        if self.fits("the derivative with respect to S", m, k) {
            add(self.sums.s_mut(), self.weight * scale, m);
        }
    }

    /// Adds `scale · (a bᵀ + b aᵀ)` to `∂φ/∂S`; `a, b: [K]`.
    pub fn add_hessian_outer(&mut self, scale: f64, a: &[f64], b: &[f64]) {
        let what = "the derivative with respect to S";
        if self.fits(what, a, 1) && self.fits(what, b, 1) {
            let (weight, s) = (self.weight * scale, self.sums.s_mut());
            add_outer(s, weight, a, b);
            add_outer(s, weight, b, a);
        }
    }

    /// Whether there are `rows · K` entries; otherwise the penalty is at fault.
    pub(crate) fn fits(&mut self, what: &str, entries: &[f64], rows: usize) -> bool {
        let needed = rows * self.sums.outputs();
        if entries.len() != needed {
            self.blame(format!(
                "gives {what} {} entries, not {needed}",
                entries.len()
            ));
        }
        self.sums.touched = true;
        entries.len() == needed
    }

    /// Keeps the first thing that was wrong.
    pub(crate) fn blame(&mut self, problem: String) {
        self.sums.fault.get_or_insert(problem);
    }
}
