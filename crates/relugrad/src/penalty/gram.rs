//! What the penalties of the Gram matrix see of a sample, and where they put their derivatives.

use std::cell::{OnceCell, RefCell};

use ndarray::{Array1, Array2, ArrayView1, ArrayView2};

use crate::buffer::Buffer;
use crate::eigen::{Eigen, EigenSolver};
use crate::error::Result;
use crate::loss::{LossFunction, reduced_gram};

/// One sample as all of its Gram penalties see it; what several of them need is computed once. `K×K` matrices.
pub(crate) struct GramPoint<'a> {
    /// `G = J Jᵀ`, or `C G C` where only differences of logits matter.
    pub(crate) g: ArrayView2<'a, f64>,
    /// The residual `r`.
    pub(crate) r: ArrayView1<'a, f64>,
    /// The loss and its state, which know `S`.
    pub(crate) loss: &'a dyn LossFunction,
    pub(crate) state: &'a [f64],
    /// Upper bound on the rank of `G`, and the relative accuracy of its entries.
    pub(crate) rank: usize,
    pub(crate) epsilon: f64,
    pub(crate) solver: &'a RefCell<EigenSolver>,
    pub(crate) shared: Shared,
}

/// What is computed when a penalty first asks for it.
#[derive(Default)]
pub(crate) struct Shared {
    eigen: OnceCell<Eigen>,
    s: OnceCell<Array2<f64>>,
    gs: OnceCell<Array2<f64>>,
    sgs: OnceCell<Array2<f64>>,
}

impl GramPoint<'_> {
    /// Number of logits `K`.
    pub(crate) fn outputs(&self) -> usize {
        self.r.len()
    }

    /// `S v`.
    pub(crate) fn s_times(&self, v: &Array1<f64>) -> Array1<f64> {
        let mut out = vec![0.0; v.len()];
        let v = v.as_slice().expect("vectors here are contiguous");
        self.loss.hessian_times(self.state, v, &mut out);
        out.into()
    }

    /// `M S`, whose rows are `S` times the rows of `M`.
    pub(crate) fn times_s(&self, m: ArrayView2<f64>) -> Array2<f64> {
        let (m, mut out) = (m.as_standard_layout(), Array2::zeros(m.dim()));
        let rows = m.as_slice().expect("it was just laid out");
        let to = out.as_slice_mut().expect("it is new");
        self.loss.hessian_times(self.state, rows, to);
        out
    }

    /// `S`.
    pub(crate) fn s(&self) -> &Array2<f64> {
        let s = || self.times_s(Array2::eye(self.outputs()).view());
        self.shared.s.get_or_init(s)
    }

    /// `G S`.
    pub(crate) fn gs(&self) -> &Array2<f64> {
        self.shared.gs.get_or_init(|| self.times_s(self.g))
    }

    /// `S G S`.
    pub(crate) fn sgs(&self) -> &Array2<f64> {
        self.shared.sgs.get_or_init(|| self.times_s(self.gs().t()))
    }

    /// The eigenvalues of `G`.
    pub(crate) fn eigen(&self) -> Result<&Eigen> {
        if self.shared.eigen.get().is_none() {
            let solved = self.solver.borrow_mut().solve(self.entries())?;
            self.shared.eigen.get_or_init(|| solved);
        }
        Ok(self.shared.eigen.get().expect("it was just filled"))
    }

    /// The eigenvalues of `Lᵀ G L`, with `S = L Lᵀ`.
    pub(crate) fn reduced_eigen(&self) -> Result<Eigen> {
        let mut reduced = Buffer::zeros(self.entries().len());
        reduced_gram(self.loss, self.state, self.entries(), &mut reduced);
        self.solver.borrow_mut().solve(&reduced)
    }

    fn entries(&self) -> &[f64] {
        self.g.to_slice().expect("Gram matrices are contiguous")
    }

    /// `L u`, with `S = L Lᵀ`.
    pub(crate) fn factor_times(&self, u: &[f64]) -> Array1<f64> {
        let mut out = vec![0.0; u.len()];
        self.loss.factor_times(self.state, u, &mut out);
        out.into()
    }
}

/// The sum of the derivatives of a sample's Gram penalties, each with its weight.
#[derive(Clone, Debug)]
pub(crate) struct GramDerivative {
    /// The weight of the penalty that adds to it next.
    pub(crate) weight: f64,
    /// `∂/∂G`, symmetric.
    pub(crate) g: Array2<f64>,
    /// `∂/∂r` with `G` and `S` constant.
    pub(crate) r: Array1<f64>,
    /// `∂/∂S` with `G` and `r` constant, symmetric.
    pub(crate) s: Array2<f64>,
}

impl GramDerivative {
    /// Zero for `K` logits.
    pub(crate) fn zeros(outputs: usize) -> GramDerivative {
        GramDerivative {
            weight: 0.0,
            g: Array2::zeros((outputs, outputs)),
            r: Array1::zeros(outputs),
            s: Array2::zeros((outputs, outputs)),
        }
    }

    pub(crate) fn reset(&mut self) {
        self.g.fill(0.0);
        self.r.fill(0.0);
        self.s.fill(0.0);
    }
}

/// `M += scale · a bᵀ`.
pub(crate) fn add_outer(m: &mut Array2<f64>, scale: f64, a: ArrayView1<f64>, b: ArrayView1<f64>) {
    let b = b.to_slice().expect("vectors here are contiguous");
    let rows = m.as_slice_mut().expect("derivatives are contiguous");
    for (row, a) in rows.chunks_exact_mut(b.len()).zip(a) {
        let a = scale * a;
        row.iter_mut().zip(b).for_each(|(m, b)| *m += a * b);
    }
}

/// `M += scale · (a bᵀ + b aᵀ)`.
pub(crate) fn add_symmetric(
    m: &mut Array2<f64>,
    scale: f64,
    a: ArrayView1<f64>,
    b: ArrayView1<f64>,
) {
    add_outer(m, scale, a, b);
    add_outer(m, scale, b, a);
}

/// `⟨A, B⟩ = tr(Aᵀ B)`.
pub(crate) fn inner(a: ArrayView2<f64>, b: ArrayView2<f64>) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
