//! The door of penalties that are functions of the Gram matrix `G = J Jᵀ`. All `K×K` matrices are
//! row-major slices.

use std::cell::{OnceCell, RefCell};
use std::ops::{Deref, DerefMut};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

use super::{Described, InputGradientPenalty, LogitAdjoint, LogitPoint};
use crate::buffer::Buffer;
use crate::eigen::{Eigen, EigenSolver};
use crate::error::Result;
use crate::linalg::{add, add_outer, dot, trace, transposed};
use crate::loss::reduced_gram;
use crate::norm::Norm;
use crate::penalty::point::LogitSums;
use crate::product::at_b_serial;

/// How far entries of a derivative that should be symmetric may differ, relative to the largest.
const SYMMETRY: f64 = 1e-8;

/// A penalty `φ(f, y, G)` that sees a sample's Jacobian only through its Gram matrix.
///
/// All of them in an objective share one pair of sweeps with `K` rows a sample (or fewer, by
/// [promise](Described::promises)), whose exact parameter gradient is `∂φ/∂G` made into one
/// ([theory](crate::theory), section 3). Cost per sample: what `evaluate` does.
///
/// ```
/// use ndarray::array;
/// use relugrad::penalty::{Described, GramAdjoint, GramPenalty, GramPoint};
/// use relugrad::{FiniteDifference, Loss, Mlp, Objective, Penalty, Result, Targets};
///
/// /// `tr(G)²`, the fourth power of `‖J‖_F`.
/// #[derive(Debug)]
/// struct FourthPower;
///
/// impl Described for FourthPower {
///     fn name(&self) -> &str {
///         "jacobian-fourth-power"
///     }
/// }
///
/// impl GramPenalty for FourthPower {
///     fn evaluate(&self, at: &GramPoint, adjoint: Option<&mut GramAdjoint>) -> Result<f64> {
///         let trace = at.trace();
///         if let Some(adjoint) = adjoint {
///             adjoint.add_gram_identity(2.0 * trace);
///         }
///         Ok(trace * trace)
///     }
/// }
///
/// let network = Mlp::new(&[2, 8, 3]).build::<f64>(1)?;
/// let objective =
///     Objective::new(Loss::softmax_cross_entropy()).with(Penalty::gram(FourthPower), 0.1)?;
/// let (x, targets) = (array![[0.5, -1.0]], Targets::Classes(&[2]));
/// let (_, gradient) = objective.gradient(&network, x.view(), &targets)?;
/// let check = FiniteDifference::central(1e-5)?;
/// let estimate = check.parameter_gradient(&objective, &network, x.view(), &targets)?;
/// for (exact, estimate) in gradient.values().iter().zip(estimate.values()) {
///     assert!((exact - estimate).abs() < 1e-7);
/// }
/// # Ok::<(), relugrad::Error>(())
/// ```
pub trait GramPenalty: Described {
    /// Its value at a sample. With an adjoint it also adds its derivatives with respect to `G`,
    /// `r`, `S` and `f` there.
    ///
    /// # Errors
    /// Whatever the author sees; a value that is not finite need not be reported.
    fn evaluate(&self, at: &GramPoint, adjoint: Option<&mut GramAdjoint>) -> Result<f64>;

    /// What has to be prepared for it.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// How it is computed with less work where it is the only penalty of the Gram matrix in an
    /// objective.
    fn alone(&self) -> Alone<'_> {
        Alone::Gram
    }
}

/// What a penalty of the Gram matrix needs to be prepared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// All eigenpairs of `G`, which are then shared with penalties that need only the largest.
    pub all_eigenpairs: bool,
    /// `m` random unit vectors in the space of the logits for each sample.
    pub random_rows: usize,
    /// The seed of these; [`Objective::set_draw`](crate::Objective::set_draw) chooses among its
    /// draws.
    pub seed: u64,
}

/// The random unit rows that a penalty needs, `[B, m, K]`.
pub(crate) fn random_rows(needs: Needs, draw: u64, samples: usize, outputs: usize) -> Buffer<f64> {
    if needs.random_rows == 0 {
        return Buffer::with_room(0);
    }
    let mut random = ChaCha8Rng::seed_from_u64(needs.seed);
    random.set_stream(draw);
    let entries = 0..samples * needs.random_rows * outputs;
    let mut vectors = Buffer::of(entries.map(|_| random.sample(StandardNormal)));
    for vector in vectors.chunks_exact_mut(outputs) {
        let norm = Norm::L2.of(vector);
        vector.iter_mut().for_each(|v| *v /= norm);
    }
    vectors
}

/// Another way to compute a penalty of the Gram matrix, taken where no other one is wanted.
#[derive(Clone, Copy, Debug)]
pub enum Alone<'a> {
    /// There is none.
    Gram,
    /// It is a function of the input gradient `g = Jᵀ r` too: one row a sample.
    InputGradient(&'a dyn InputGradientPenalty),
    /// It is `(K/m) Σ_i ‖Jᵀ v_i‖²` with its random rows `v_i`: `m` rows a sample, if these are
    /// fewer than `K`.
    RandomRows,
}

/// One sample as all of its Gram penalties see it; what several of them need is computed once.
///
/// It is a [`LogitPoint`] too.
#[derive(Debug)]
pub struct GramPoint<'a> {
    pub(crate) logit: LogitPoint<'a>,
    pub(crate) g: &'a [f64],
    pub(crate) random_rows: &'a [f64],
    /// Upper bound on the rank of `G`, and the relative accuracy of its entries.
    pub(crate) rank: usize,
    pub(crate) epsilon: f64,
    pub(crate) solver: &'a RefCell<EigenSolver>,
    /// Whether a penalty needs all eigenpairs of `G`.
    pub(crate) all_pairs: bool,
    pub(crate) shared: Shared,
}

/// What is computed when a penalty first asks for it.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    eigen: OnceCell<Eigen>,
    s: OnceCell<Buffer<f64>>,
    gs: OnceCell<Buffer<f64>>,
    sgs: OnceCell<Buffer<f64>>,
}

impl<'a> Deref for GramPoint<'a> {
    type Target = LogitPoint<'a>;

    fn deref(&self) -> &LogitPoint<'a> {
        &self.logit
    }
}

impl GramPoint<'_> {
    /// `G = J Jᵀ`, or `C G C` with `C = I − 11ᵀ/K` where all penalties promise to see only
    /// differences of logits; `[K, K]`.
    pub fn gram(&self) -> &[f64] {
        self.g
    }

    /// `tr G`.
    pub fn trace(&self) -> f64 {
        trace(self.g, self.outputs())
    }

    /// `G v`.
    pub fn gram_times(&self, v: &[f64]) -> Buffer<f64> {
        Buffer::of(self.g.chunks_exact(v.len()).map(|row| dot(row, v)))
    }

    /// `S`; `[K, K]`.
    pub fn hessian(&self) -> &[f64] {
        self.shared.s.get_or_init(|| {
            let mut identity = Buffer::zeros(self.g.len());
            let diagonal = identity.iter_mut().step_by(self.outputs() + 1);
            diagonal.for_each(|entry| *entry = 1.0);
            self.hessian_times(&identity)
        })
    }

    /// `G S`; `[K, K]`.
    pub fn gram_hessian(&self) -> &[f64] {
        self.shared.gs.get_or_init(|| self.hessian_times(self.g))
    }

    /// `S G S`; `[K, K]`.
    pub fn hessian_gram_hessian(&self) -> &[f64] {
        let sgs = || self.hessian_times(&transposed(self.gram_hessian(), self.outputs()));
        self.shared.sgs.get_or_init(sgs)
    }

    /// The random unit rows that the penalty [needs](GramPenalty::needs); `[m, K]`.
    pub fn random_rows(&self) -> &[f64] {
        self.random_rows
    }

    /// The eigenvalues of `G` that differ from 0 by more than rounding, largest first, and their
    /// unit eigenvectors, one after another.
    ///
    /// # Errors
    /// [`Error::Eigenvalues`](crate::Error::Eigenvalues), and
    /// [`Error::NotFinite`](crate::Error::NotFinite) for a matrix that is not.
    pub fn eigenpairs(&self) -> Result<(&[f64], &[f64])> {
        let eigen = self.eigen()?;
        let count = eigen.nonzero(self.rank, self.epsilon);
        Ok((&eigen.values[..count], eigen.vectors(count)))
    }

    fn eigen(&self) -> Result<&Eigen> {
        if self.shared.eigen.get().is_none() {
            let solved = self.solver.borrow_mut().solve(self.g)?;
            self.shared.eigen.get_or_init(|| solved);
        }
        Ok(self.shared.eigen.get().expect("it was just filled"))
    }

    /// Calls `f` with the largest eigenvalue of `G` and its unit eigenvector.
    ///
    /// # Errors
    /// As for [`eigenpairs`](Self::eigenpairs).
    pub fn with_largest<R>(&self, f: impl FnOnce(f64, &[f64]) -> R) -> Result<R> {
        if self.all_pairs {
            let eigen = self.eigen()?;
            return Ok(f(eigen.values[0], eigen.vector(0)));
        }
        let mut solver = self.solver.borrow_mut();
        let (value, vector) = solver.largest(self.g)?;
        Ok(f(value, vector))
    }

    /// Calls `f` with the largest eigenvalue of `Lᵀ G L`, `S = L Lᵀ`, which is that of
    /// `H = Jᵀ S J`, and its unit eigenvector.
    ///
    /// # Errors
    /// As for [`eigenpairs`](Self::eigenpairs).
    pub fn with_largest_curvature<R>(&self, f: impl FnOnce(f64, &[f64]) -> R) -> Result<R> {
        let mut reduced = Buffer::zeros(self.g.len());
        reduced_gram(self.loss, self.state, self.g, &mut reduced);
        let mut solver = self.solver.borrow_mut();
        let (value, vector) = solver.largest(&reduced)?;
        Ok(f(value, vector))
    }
}

/// The sum of the derivatives of a sample's Gram penalties, each with its weight.
#[derive(Clone, Debug)]
pub(crate) struct GramSums {
    /// `∂/∂G`, symmetric.
    pub(crate) g: Vec<f64>,
    pub(crate) logit: LogitSums,
}

impl GramSums {
    /// Zero for `K` logits.
    pub(crate) fn zeros(outputs: usize) -> GramSums {
        GramSums {
            g: vec![0.0; outputs * outputs],
            logit: LogitSums::zeros(outputs),
        }
    }

    pub(crate) fn reset(&mut self) {
        self.g.fill(0.0);
        self.logit.reset();
    }
}

/// Where a penalty of the Gram matrix puts its derivatives, each multiplied by its weight here.
///
/// It is a [`LogitAdjoint`] too.
#[derive(Debug)]
pub struct GramAdjoint<'a> {
    g: &'a mut [f64],
    logit: LogitAdjoint<'a>,
}

impl<'a> Deref for GramAdjoint<'a> {
    type Target = LogitAdjoint<'a>;

    fn deref(&self) -> &LogitAdjoint<'a> {
        &self.logit
    }
}

impl DerefMut for GramAdjoint<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.logit
    }
}

impl GramAdjoint<'_> {
    pub(crate) fn new(weight: f64, sums: &mut GramSums) -> GramAdjoint<'_> {
        let sums_of_logits = &mut sums.logit;
        GramAdjoint {
            g: &mut sums.g,
            logit: LogitAdjoint {
                weight,
                sums: sums_of_logits,
            },
        }
    }

    /// Adds `scale · M` to `∂φ/∂G`; `M: [K, K]`, symmetric, row-major.
    pub fn add_gram(&mut self, scale: f64, m: &[f64]) {
        let k = self.sums.outputs();
        if !self.fits("the derivative with respect to G", m, k) {
            return;
        }
        if !is_symmetric(m, k) {
            self.blame("gives a derivative with respect to G that is not symmetric".to_owned());
        }
        add(self.g, self.logit.weight * scale, m);
    }

    /// Adds `scale · I` to `∂φ/∂G`.
    pub fn add_gram_identity(&mut self, scale: f64) {
        let (k, weight) = (self.sums.outputs(), self.weight * scale);
        let diagonal = self.g.iter_mut().step_by(k + 1);
        diagonal.for_each(|entry| *entry += weight);
    }

    /// Adds `scale · 11ᵀ` to `∂φ/∂G`.
    pub fn add_gram_ones(&mut self, scale: f64) {
        let weight = self.weight * scale;
        self.g.iter_mut().for_each(|entry| *entry += weight);
    }

    /// Adds `scale · a aᵀ` to `∂φ/∂G`; `a: [K]`.
    pub fn add_gram_square(&mut self, scale: f64, a: &[f64]) {
        if self.fits("the derivative with respect to G", a, 1) {
            add_outer(self.g, self.logit.weight * scale, a, a);
        }
    }

    /// Adds `scale · (a bᵀ + b aᵀ)` to `∂φ/∂G`; `a, b: [K]`.
    pub fn add_gram_outer(&mut self, scale: f64, a: &[f64], b: &[f64]) {
        let what = "the derivative with respect to G";
        if self.fits(what, a, 1) && self.fits(what, b, 1) {
            add_outer(self.g, self.logit.weight * scale, a, b);
            add_outer(self.g, self.logit.weight * scale, b, a);
        }
    }

    /// Adds `Σ_i scales_i · u_i u_iᵀ` to `∂φ/∂G`, with one row `u_i` after another; `rows: [n, K]`.
    pub fn add_gram_squares(&mut self, scales: impl ExactSizeIterator<Item = f64>, rows: &[f64]) {
        let (k, count) = (self.sums.outputs(), scales.len());
        if !self.fits("the derivative with respect to G", rows, count) {
            return;
        }
        let mut scaled = Buffer::with_room(rows.len());
        for (row, scale) in rows.chunks_exact(k).zip(scales) {
            let factor = scale * self.weight;
            scaled.extend(row.iter().map(|entry| factor * entry));
        }
        at_b_serial((count, k, k), &scaled, rows, true, self.g);
    }
}

/// Whether entries and their mirror images agree up to rounding. Numbers that are not finite are
/// found elsewhere.
fn is_symmetric(m: &[f64], size: usize) -> bool {
    let largest = m.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
    let differ = |i: usize, j: usize| (m[i * size + j] - m[j * size + i]).abs();
    let far = |i: usize| (0..i).any(|j| differ(i, j) > SYMMETRY * largest);
    !(0..size).any(far)
}
