//! What the penalties of the Gram matrix see of a sample, and where they put their derivatives.

use std::cell::OnceCell;

use ndarray::{Array1, Array2, ArrayView1, ArrayView2};

use crate::eigen::{Eigen, symmetric_eigen};
use crate::error::Result;
use crate::loss::LossFunction;

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
        let mut out = Array1::zeros(v.len());
        let v = v.as_slice().expect("vectors here are contiguous");
        let to = out.as_slice_mut().expect("it is new");
        self.loss.hessian_times(self.state, v, to);
        out
    }

    /// `M S`, whose rows are `S` times the rows of `M`.
    pub(crate) fn times_s(&self, m: ArrayView2<f64>) -> Array2<f64> {
        let mut out = Array2::zeros(m.dim());
        let mut v = vec![0.0; m.ncols()];
        for (row, mut out) in m.rows().into_iter().zip(out.rows_mut()) {
            v.iter_mut().zip(row).for_each(|(v, &entry)| *v = entry);
            let to = out.as_slice_mut().expect("it is new");
            self.loss.hessian_times(self.state, &v, to);
        }
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
            let entries: Vec<f64> = self.g.iter().copied().collect();
            let solved = symmetric_eigen(&entries, self.outputs())?;
            self.shared.eigen.get_or_init(|| solved);
        }
        Ok(self.shared.eigen.get().expect("it was just filled"))
    }

    /// The factor `L` with `S = L Lᵀ`.
    pub(crate) fn factor(&self) -> Array2<f64> {
        let k = self.outputs();
        let mut factor = vec![0.0; k * k];
        self.loss.hessian_factor(self.state, &mut factor);
        Array2::from_shape_vec((k, k), factor).expect("K rows of K")
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
pub(crate) fn add_outer(m: &mut Array2<f64>, scale: f64, a: &Array1<f64>, b: &Array1<f64>) {
    for (mut row, &a) in m.rows_mut().into_iter().zip(a) {
        row.scaled_add(scale * a, b);
    }
}

/// `M += scale · (a bᵀ + b aᵀ)`.
pub(crate) fn add_symmetric(m: &mut Array2<f64>, scale: f64, a: &Array1<f64>, b: &Array1<f64>) {
    add_outer(m, scale, a, b);
    add_outer(m, scale, b, a);
}

/// `⟨A, B⟩ = tr(Aᵀ B)`.
pub(crate) fn inner(a: ArrayView2<f64>, b: ArrayView2<f64>) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
