//! The numbers that are verified.

use ndarray::{Array1, Array2, ArrayView1, Axis};
use relugrad::{Loss, Margins, Network, Objective, Penalty, Piece, Result, Scalar, Targets};

/// Whatever claims to know the derivatives of a network at one sample.
///
/// [`Network`] is the engine's claim. Another implementation lets the statements judge other
/// numbers, such as those of another program, or numbers made wrong on purpose to see that the
/// statements notice.
pub trait Derivatives<T: Scalar>: Sync {
    /// `J`; `[K, D]`.
    fn jacobian(&self, x: ArrayView1<T>) -> Result<Array2<T>>;

    /// `J v`; `v: [D]`.
    fn jvp(&self, x: ArrayView1<T>, v: ArrayView1<T>) -> Result<Array1<T>>;

    /// `Jᵀ u`; `u: [K]`.
    fn vjp(&self, x: ArrayView1<T>, u: ArrayView1<T>) -> Result<Array1<T>>;

    /// `g = ∇ₓℓ` for a sample's class or values.
    fn input_gradient(
        &self,
        x: ArrayView1<T>,
        loss: &Loss,
        targets: &Targets<T>,
    ) -> Result<Array1<T>>;

    /// `H v`; `v: [D]`.
    fn hessian_times(&self, x: ArrayView1<T>, loss: &Loss, v: ArrayView1<T>) -> Result<Array1<T>>;

    /// The `min(K, D)` largest eigenvalues of `H`, largest first.
    fn hessian_eigenvalues(&self, x: ArrayView1<T>, loss: &Loss) -> Result<Array1<f64>>;

    /// The value of a penalty.
    fn penalty(
        &self,
        x: ArrayView1<T>,
        loss: &Loss,
        targets: &Targets<T>,
        penalty: &Penalty,
    ) -> Result<f64>;

    /// The derivative in the parameters, in the order of the network's, of a penalty that depends
    /// on `J` alone.
    fn parameter_gradient(&self, x: ArrayView1<T>, penalty: &Penalty) -> Result<Vec<T>>;

    /// The pieces of `x + t z` for `t` from 0 to `length`.
    fn pieces(&self, x: ArrayView1<T>, z: ArrayView1<T>, length: f64) -> Result<Vec<Piece<T>>>;

    /// The margins of all gates.
    fn margins(&self, x: ArrayView1<T>) -> Result<Margins<T>>;
}

/// The only row of a batch of one.
fn only<T: Scalar>(rows: Array2<T>) -> Array1<T> {
    rows.index_axis_move(Axis(0), 0)
}

fn with(loss: &Loss, penalty: &Penalty) -> Result<Objective> {
    Objective::new(*loss).with(penalty.clone(), 1.0)
}

impl<T: Scalar> Derivatives<T> for Network<T> {
    fn jacobian(&self, x: ArrayView1<T>) -> Result<Array2<T>> {
        let jacobian = self.trace(x.insert_axis(Axis(0)))?.jacobian()?;
        Ok(jacobian.index_axis_move(Axis(0), 0))
    }

    fn jvp(&self, x: ArrayView1<T>, v: ArrayView1<T>) -> Result<Array1<T>> {
        let trace = self.trace(x.insert_axis(Axis(0)))?;
        Ok(only(trace.jvp(v.insert_axis(Axis(0)))?))
    }

    fn vjp(&self, x: ArrayView1<T>, u: ArrayView1<T>) -> Result<Array1<T>> {
        let trace = self.trace(x.insert_axis(Axis(0)))?;
        Ok(only(trace.vjp(u.insert_axis(Axis(0)))?))
    }

    fn input_gradient(
        &self,
        x: ArrayView1<T>,
        loss: &Loss,
        targets: &Targets<T>,
    ) -> Result<Array1<T>> {
        let trace = self.trace(x.insert_axis(Axis(0)))?;
        Ok(only(trace.input_gradient(loss, targets)?))
    }

    fn hessian_times(&self, x: ArrayView1<T>, loss: &Loss, v: ArrayView1<T>) -> Result<Array1<T>> {
        let trace = self.trace(x.insert_axis(Axis(0)))?;
        Ok(only(trace.curvature(loss)?.apply(v.insert_axis(Axis(0)))?))
    }

    fn hessian_eigenvalues(&self, x: ArrayView1<T>, loss: &Loss) -> Result<Array1<f64>> {
        let trace = self.trace(x.insert_axis(Axis(0)))?;
        let pairs = trace.curvature(loss)?.eigenpairs()?;
        Ok(pairs.values.index_axis_move(Axis(0), 0))
    }

    fn penalty(
        &self,
        x: ArrayView1<T>,
        loss: &Loss,
        targets: &Targets<T>,
        penalty: &Penalty,
    ) -> Result<f64> {
        let x = x.insert_axis(Axis(0));
        let evaluation = with(loss, penalty)?.value(self, x, targets)?;
        Ok(evaluation.sample_penalties[(0, 0)])
    }

    fn parameter_gradient(&self, x: ArrayView1<T>, penalty: &Penalty) -> Result<Vec<T>> {
        let x = x.insert_axis(Axis(0));
        let logits = self.forward(x)?;
        let targets = Targets::Values(logits.view());
        let alone = with(&Loss::SquaredError, penalty)?.penalties_only();
        let (_, gradient) = alone.gradient(self, x, &targets)?;
        Ok(gradient.values().to_vec())
    }

    fn pieces(&self, x: ArrayView1<T>, z: ArrayView1<T>, length: f64) -> Result<Vec<Piece<T>>> {
        self.pieces(x, z, length)
    }

    fn margins(&self, x: ArrayView1<T>) -> Result<Margins<T>> {
        self.margins(x)
    }
}
