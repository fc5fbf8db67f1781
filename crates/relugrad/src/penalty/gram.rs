//! What the penalties of the Gram matrix see of a sample, and where they put their derivatives.
//!
//! All `K×K` matrices are row-major slices.

use std::cell::{OnceCell, RefCell};

use crate::buffer::Buffer;
use crate::eigen::{Eigen, EigenSolver};
use crate::error::Result;
use crate::jacobian::transpose;
use crate::loss::{LossFunction, reduced_gram, sum_of_pairs};

/// One sample as all of its Gram penalties see it; what several of them need is computed once.
pub(crate) struct GramPoint<'a> {
    /// `G = J Jᵀ`, or `C G C` where only differences of logits matter.
    pub(crate) g: &'a [f64],
    /// The residual `r`.
    pub(crate) r: &'a [f64],
    /// The loss and its state, which know `S`.
    pub(crate) loss: &'a dyn LossFunction,
    pub(crate) state: &'a [f64],
    /// Upper bound on the rank of `G`, and the relative accuracy of its entries.
    pub(crate) rank: usize,
    pub(crate) epsilon: f64,
    pub(crate) solver: &'a RefCell<EigenSolver>,
    /// Whether a penalty needs all eigenpairs of `G`.
    pub(crate) all_pairs: bool,
    pub(crate) shared: Shared,
}

/// What is computed when a penalty first asks for it.
#[derive(Default)]
pub(crate) struct Shared {
    eigen: OnceCell<Eigen>,
    s: OnceCell<Buffer<f64>>,
    gs: OnceCell<Buffer<f64>>,
    sgs: OnceCell<Buffer<f64>>,
}

impl GramPoint<'_> {
    /// Number of logits `K`.
    pub(crate) fn outputs(&self) -> usize {
        self.r.len()
    }

    /// `tr G`.
    pub(crate) fn trace(&self) -> f64 {
        trace(self.g, self.outputs())
    }

    /// `G v`.
    pub(crate) fn g_times(&self, v: &[f64]) -> Buffer<f64> {
        Buffer::of(self.g.chunks_exact(v.len()).map(|row| dot(row, v)))
    }

    /// `M S`, whose rows are `S` times the rows of `M`; `S v` for a single row.
    pub(crate) fn times_s(&self, m: &[f64]) -> Buffer<f64> {
        let mut out = Buffer::zeros(m.len());
        self.loss.hessian_times(self.state, m, &mut out);
        out
    }

    /// `S`.
    pub(crate) fn s(&self) -> &[f64] {
        self.shared.s.get_or_init(|| {
            let mut identity = Buffer::zeros(self.g.len());
            let diagonal = identity.iter_mut().step_by(self.outputs() + 1);
            diagonal.for_each(|entry| *entry = 1.0);
            self.times_s(&identity)
        })
    }

    /// `G S`.
    pub(crate) fn gs(&self) -> &[f64] {
        self.shared.gs.get_or_init(|| self.times_s(self.g))
    }

    /// `S G S`.
    pub(crate) fn sgs(&self) -> &[f64] {
        let sgs = || self.times_s(&transposed(self.gs(), self.outputs()));
        self.shared.sgs.get_or_init(sgs)
    }

    /// All eigenpairs of `G`.
    pub(crate) fn eigen(&self) -> Result<&Eigen> {
        if self.shared.eigen.get().is_none() {
            let solved = self.solver.borrow_mut().solve(self.g)?;
            self.shared.eigen.get_or_init(|| solved);
        }
        Ok(self.shared.eigen.get().expect("it was just filled"))
    }

    /// Calls `f` with the largest eigenvalue of `G` and its unit eigenvector.
    pub(crate) fn with_largest<R>(&self, f: impl FnOnce(f64, &[f64]) -> R) -> Result<R> {
        if self.all_pairs {
            let eigen = self.eigen()?;
            return Ok(f(eigen.values[0], eigen.vector(0)));
        }
        let mut solver = self.solver.borrow_mut();
        let (value, vector) = solver.largest(self.g)?;
        Ok(f(value, vector))
    }

    /// Calls `f` with the largest eigenvalue of `Lᵀ G L`, `S = L Lᵀ`, and its unit eigenvector.
    pub(crate) fn with_largest_reduced<R>(&self, f: impl FnOnce(f64, &[f64]) -> R) -> Result<R> {
        let mut reduced = Buffer::zeros(self.g.len());
        reduced_gram(self.loss, self.state, self.g, &mut reduced);
        let mut solver = self.solver.borrow_mut();
        let (value, vector) = solver.largest(&reduced)?;
        Ok(f(value, vector))
    }

    /// `L u`, with `S = L Lᵀ`.
    pub(crate) fn factor_times(&self, u: &[f64]) -> Buffer<f64> {
        let mut out = Buffer::zeros(u.len());
        self.loss.factor_times(self.state, u, &mut out);
        out
    }
}

/// The sum of the derivatives of a sample's Gram penalties, each with its weight.
#[derive(Clone, Debug)]
pub(crate) struct GramDerivative {
    /// The weight of the penalty that adds to it next.
    pub(crate) weight: f64,
    /// `∂/∂G`, symmetric.
    pub(crate) g: Vec<f64>,
    /// `∂/∂r` with `G` and `S` constant.
    pub(crate) r: Vec<f64>,
    /// `∂/∂S` with `G` and `r` constant, symmetric.
    pub(crate) s: Vec<f64>,
}

impl GramDerivative {
    /// Zero for `K` logits.
    pub(crate) fn zeros(outputs: usize) -> GramDerivative {
        GramDerivative {
            weight: 0.0,
            g: vec![0.0; outputs * outputs],
            r: vec![0.0; outputs],
            s: vec![0.0; outputs * outputs],
        }
    }

    pub(crate) fn reset(&mut self) {
        self.g.fill(0.0);
        self.r.fill(0.0);
        self.s.fill(0.0);
    }
}

/// `aᵀ b`, or `tr(Aᵀ B)`.
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    sum_of_pairs(a, b, |a, b| a * b)
}

/// `tr M`.
pub(crate) fn trace(m: &[f64], size: usize) -> f64 {
    m.iter().step_by(size + 1).sum()
}

/// `Mᵀ`.
pub(crate) fn transposed(m: &[f64], size: usize) -> Buffer<f64> {
    let mut transposed = Buffer::of(m.iter().copied());
    transpose(&mut transposed, size);
    transposed
}

/// `to += scale · from`.
pub(crate) fn add(to: &mut [f64], scale: f64, from: &[f64]) {
    let pairs = to.iter_mut().zip(from);
    pairs.for_each(|(to, from)| *to += scale * from);
}

/// `M += scale · a bᵀ`.
pub(crate) fn add_outer(m: &mut [f64], scale: f64, a: &[f64], b: &[f64]) {
    for (row, a) in m.chunks_exact_mut(b.len()).zip(a) {
        add(row, scale * a, b);
    }
}

/// `M += scale · (a bᵀ + b aᵀ)`.
pub(crate) fn add_symmetric(m: &mut [f64], scale: f64, a: &[f64], b: &[f64]) {
    add_outer(m, scale, a, b);
    add_outer(m, scale, b, a);
}
