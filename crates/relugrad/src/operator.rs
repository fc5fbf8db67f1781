//! Linear maps of samples, for iterative solvers.

use ndarray::{Array2, Array3, ArrayView2, ArrayView3, Axis};

use crate::error::Result;
use crate::scalar::Scalar;

/// A matrix `A` of each sample of a batch, of which products are known but not the entries.
///
/// It is what an iterative solver asks for: Lanczos, conjugate gradients, randomised range finders.
/// [`Trace::jacobian_operator`](crate::Trace::jacobian_operator) is the Jacobian `J: [K, D]`, and
/// [`Curvature`](crate::Curvature) the Hessian `H = Jᵀ S J: [D, D]` of a loss. All samples are
/// multiplied at a time, each by its own matrix: to a solver that knows of no samples they are one
/// block-diagonal matrix.
///
/// ```
/// use ndarray::{Array2, Axis, array};
/// use relugrad::{LinearOperator, Loss, Mlp, Result, Targets};
///
/// /// The products `aᵀ b` of the samples' rows; `[B, 1]`.
/// fn dot(a: &Array2<f64>, b: &Array2<f64>) -> Array2<f64> {
///     (a * b).sum_axis(Axis(1)).insert_axis(Axis(1))
/// }
///
/// /// `‖A‖₂` of each sample, by power iteration with `Aᵀ A`.
/// fn norms(a: &impl LinearOperator<f64>) -> Result<Array2<f64>> {
///     let mut v = Array2::from_shape_fn((a.samples(), a.shape().1), |(_, i)| 1.0 + i as f64);
///     for _ in 0..100 {
///         v = &v / &dot(&v, &v).sqrt();
///         v = a.apply_transpose(a.apply(v.view())?.view())?;
///     }
///     Ok(dot(&v, &v).sqrt().sqrt())
/// }
///
/// /// `(A + μ I)⁻¹ b` by conjugate gradients.
/// fn solve(a: &impl LinearOperator<f64>, mu: f64, b: &Array2<f64>) -> Result<Array2<f64>> {
///     let (mut x, mut r, mut p) = (Array2::zeros(b.dim()), b.clone(), b.clone());
///     for _ in 0..b.ncols() {
///         let ap = a.apply(p.view())? + mu * &p;
///         let before = dot(&r, &r);
///         let length = &before / &dot(&p, &ap).mapv(|d| d.max(f64::MIN_POSITIVE));
///         x += &(&length * &p);
///         r -= &(&length * &ap);
///         p = &r + &(&dot(&r, &r) / &before.mapv(|d| d.max(f64::MIN_POSITIVE)) * &p);
///     }
///     Ok(x)
/// }
///
/// let network = Mlp::new(&[3, 16, 4]).build::<f64>(0)?;
/// let inputs = array![[0.5, -1.0, 0.2], [1.5, 0.3, -0.7]];
/// let (loss, targets) = (Loss::softmax_cross_entropy(), Targets::Classes(&[0, 3]));
/// let trace = network.trace(inputs.view())?;
///
/// let found = norms(&trace.curvature(&loss)?)?;
/// let exact = trace.curvature(&loss)?.spectral_norm()?;
/// assert!((found[(0, 0)] - exact[0]).abs() < 1e-6 && (found[(1, 0)] - exact[1]).abs() < 1e-6);
/// assert!(norms(&trace.jacobian_operator())?.iter().all(|norm| *norm > 0.0));
///
/// // A damped Newton step of the loss in the input.
/// let gradient = trace.input_gradient(&loss, &targets)?;
/// let step = solve(&trace.curvature(&loss)?, 0.1, &-&gradient)?;
/// let residual = trace.curvature(&loss)?.apply(step.view())? + 0.1 * &step + &gradient;
/// assert!(residual.iter().all(|r| r.abs() < 1e-9));
/// # Ok::<(), relugrad::Error>(())
/// ```
pub trait LinearOperator<T: Scalar> {
    /// Number of samples `B`.
    fn samples(&self) -> usize;

    /// Rows and columns of each sample's matrix, `(m, n)`.
    fn shape(&self) -> (usize, usize);

    /// `A v` for `R` vectors `v` of each sample; `v: [B, R, n]`, result `[B, R, m]`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape), and [`Error::NotFinite`](crate::Error::NotFinite) if
    /// it overflows.
    fn apply_block(&self, v: ArrayView3<T>) -> Result<Array3<T>>;

    /// `Aᵀ u` for `R` vectors `u` of each sample; `u: [B, R, m]`, result `[B, R, n]`.
    ///
    /// # Errors
    /// As for [`apply_block`](Self::apply_block).
    fn apply_transpose_block(&self, u: ArrayView3<T>) -> Result<Array3<T>>;

    /// `A v` for each sample; `v: [B, n]`, result `[B, m]`.
    ///
    /// # Errors
    /// As for [`apply_block`](Self::apply_block).
    fn apply(&self, v: ArrayView2<T>) -> Result<Array2<T>> {
        let products = self.apply_block(v.insert_axis(Axis(1)))?;
        Ok(products.index_axis_move(Axis(1), 0))
    }

    /// `Aᵀ u` for each sample; `u: [B, m]`, result `[B, n]`.
    ///
    /// # Errors
    /// As for [`apply_block`](Self::apply_block).
    fn apply_transpose(&self, u: ArrayView2<T>) -> Result<Array2<T>> {
        let products = self.apply_transpose_block(u.insert_axis(Axis(1)))?;
        Ok(products.index_axis_move(Axis(1), 0))
    }
}
