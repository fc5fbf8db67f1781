//! Forward and central differences of everything that the engine computes exactly: an independent
//! check, and what one would otherwise use.
//!
//! A difference quotient of step `h` carries an error of order `h` (forward) or `h²` (central) plus
//! rounding of order `ε/h`, and is wrong altogether where the step crosses a kink. Costs are given
//! in forward passes.

use ndarray::{Array1, Array2, Array3, ArrayView2, Axis};

use crate::error::{Error, Result, check_finite, check_shape};
use crate::loss::{Loss, Targets};
use crate::network::Network;
use crate::objective::Objective;
use crate::parameters::Parameters;
use crate::scalar::Scalar;

/// Which difference quotient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `(φ(x + h) − φ(x)) / h`.
    Forward,
    /// `(φ(x + h) − φ(x − h)) / 2h`.
    Central,
}

/// Difference quotients with one step for every coordinate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FiniteDifference {
    scheme: Scheme,
    step: f64,
}

impl FiniteDifference {
    /// Forward differences. In `f64` a step around `1e-8` balances truncation and rounding.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for a step that is not finite and positive.
    pub fn forward(step: f64) -> Result<FiniteDifference> {
        FiniteDifference::new(Scheme::Forward, step)
    }

    /// Central differences. In `f64` a step around `1e-5` balances truncation and rounding.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for a step that is not finite and positive.
    pub fn central(step: f64) -> Result<FiniteDifference> {
        FiniteDifference::new(Scheme::Central, step)
    }

    /// Which quotient it is.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Its step.
    pub fn step(&self) -> f64 {
        self.step
    }

    fn new(scheme: Scheme, step: f64) -> Result<FiniteDifference> {
        if step.is_finite() && step > 0.0 {
            return Ok(FiniteDifference { scheme, step });
        }
        Err(Error::OutOfRange {
            option: "step of finite differences".into(),
            value: step,
            expected: "finite and positive",
        })
    }

    /// The difference quotient of `φ` at 0, where `φ(t)` is an array.
    fn quotient<T: Scalar>(
        &self,
        mut phi: impl FnMut(T) -> Result<Array2<T>>,
    ) -> Result<Array2<T>> {
        let h = T::from_f64(self.step);
        let (below, width) = match self.scheme {
            Scheme::Forward => (T::ZERO, h),
            Scheme::Central => (-h, h + h),
        };
        let above = phi(h)?;
        let quotient = (above - phi(below)?) / width;
        let values = quotient.as_standard_layout();
        check_finite(
            "a difference quotient",
            quotient.ncols(),
            values.as_slice().expect("standard layout"),
        )?;
        Ok(quotient)
    }

    /// The Jacobian of every sample, column by column; `[B, K, D]`.
    ///
    /// Cost: `2D` forward passes.
    ///
    /// # Errors
    /// Those of [`Network::trace`], and [`Error::NotFinite`] for a quotient that overflows.
    pub fn jacobian<T: Scalar>(
        &self,
        network: &Network<T>,
        inputs: ArrayView2<T>,
    ) -> Result<Array3<T>> {
        let mut jacobian = Array3::zeros((inputs.nrows(), network.outputs(), network.inputs()));
        self.columns(inputs, |feature, moved| {
            let column = self.quotient(|t| network.forward(moved(t).view()))?;
            jacobian.index_axis_mut(Axis(2), feature).assign(&column);
            Ok(())
        })?;
        Ok(jacobian)
    }

    /// The gradient of the loss with respect to the input of every sample; `[B, D]`.
    ///
    /// Cost: `2D` forward passes.
    ///
    /// # Errors
    /// Those of [`Network::trace`] and of the targets, and [`Error::NotFinite`] for a quotient that
    /// overflows.
    pub fn input_gradient<T: Scalar>(
        &self,
        network: &Network<T>,
        loss: &Loss,
        inputs: ArrayView2<T>,
        targets: &Targets<T>,
    ) -> Result<Array2<T>> {
        let mut gradient = Array2::zeros(inputs.dim());
        self.columns(inputs, |feature, moved| {
            let column = self.quotient(|t| {
                let losses = network.trace(moved(t).view())?.losses(loss, targets)?;
                Ok(losses.mapv(T::from_f64).insert_axis(Axis(1)))
            })?;
            gradient.column_mut(feature).assign(&column.column(0));
            Ok(())
        })?;
        Ok(gradient)
    }

    /// `H v` of every sample as a difference of exact input gradients; `v: [B, D]`, result
    /// `[B, D]`.
    ///
    /// Cost: 2 forward and 2 backward passes.
    ///
    /// # Errors
    /// Those of [`Network::trace`] and of the targets, [`Error::NotFinite`] for a quotient that
    /// overflows; [`Error::Shape`] for `v`.
    pub fn hvp<T: Scalar>(
        &self,
        network: &Network<T>,
        loss: &Loss,
        inputs: ArrayView2<T>,
        targets: &Targets<T>,
        v: ArrayView2<T>,
    ) -> Result<Array2<T>> {
        check_shape("v", inputs.shape(), v.shape())?;
        self.quotient(|t| {
            let moved = &inputs + &v.mapv(|v| t * v);
            network.trace(moved.view())?.input_gradient(loss, targets)
        })
    }

    /// The input Hessian of every sample as differences of exact input gradients; `[B, D, D]`.
    ///
    /// Cost: `2D` forward and `2D` backward passes.
    ///
    /// # Errors
    /// Those of [`Network::trace`] and of the targets, and [`Error::NotFinite`] for a quotient that
    /// overflows.
    pub fn hessian<T: Scalar>(
        &self,
        network: &Network<T>,
        loss: &Loss,
        inputs: ArrayView2<T>,
        targets: &Targets<T>,
    ) -> Result<Array3<T>> {
        let d = network.inputs();
        let mut hessian = Array3::zeros((inputs.nrows(), d, d));
        self.columns(inputs, |feature, moved| {
            let column = self.quotient(|t| {
                network
                    .trace(moved(t).view())?
                    .input_gradient(loss, targets)
            })?;
            hessian.index_axis_mut(Axis(2), feature).assign(&column);
            Ok(())
        })?;
        Ok(hessian)
    }

    /// The parameter gradient of an objective, one parameter at a time.
    ///
    /// Cost: `2P` evaluations of the objective for `P` parameters.
    ///
    /// # Errors
    /// Those of [`Objective::value`], and [`Error::NotFinite`] for a quotient that overflows.
    pub fn parameter_gradient<T: Scalar>(
        &self,
        objective: &Objective,
        network: &Network<T>,
        inputs: ArrayView2<T>,
        targets: &Targets<T>,
    ) -> Result<Parameters<T>> {
        let mut gradient = network.parameters().zeros_like();
        let mut direction = Array1::zeros(gradient.len());
        for i in 0..gradient.len() {
            direction[i] = T::ONE;
            let slope = self.along(objective, network, inputs, targets, &direction)?;
            gradient.values_mut()[i] = slope;
            direction[i] = T::ZERO;
        }
        Ok(gradient)
    }

    /// The derivative of an objective along a direction in parameter space, `[P]`.
    ///
    /// Cost: 2 evaluations of the objective.
    ///
    /// # Errors
    /// Those of [`Objective::value`], [`Error::NotFinite`] for a quotient that overflows;
    /// [`Error::Shape`] for the direction.
    pub fn along<T: Scalar>(
        &self,
        objective: &Objective,
        network: &Network<T>,
        inputs: ArrayView2<T>,
        targets: &Targets<T>,
        direction: &Array1<T>,
    ) -> Result<T> {
        let mut moved = network.clone();
        check_shape(
            "direction",
            &[network.parameters().len()],
            direction.shape(),
        )?;
        let slope = self.quotient(|t| {
            let pairs = network.parameters().values().iter().zip(direction);
            let to = moved.parameters_mut().values_mut();
            to.iter_mut()
                .zip(pairs)
                .for_each(|(to, (&p, &d))| *to = p + t * d);
            let value = objective.value(&moved, inputs, targets)?.value;
            Ok(Array2::from_elem((1, 1), T::from_f64(value)))
        })?;
        Ok(slope[(0, 0)])
    }

    /// Calls `f(j, moved)` for every feature `j`, `moved(t)` being the inputs with `t` added to
    /// that feature.
    fn columns<T: Scalar>(
        &self,
        inputs: ArrayView2<T>,
        mut f: impl FnMut(usize, &dyn Fn(T) -> Array2<T>) -> Result<()>,
    ) -> Result<()> {
        for feature in 0..inputs.ncols() {
            f(feature, &|t| {
                let mut moved = inputs.to_owned();
                moved.column_mut(feature).mapv_inplace(|x| x + t);
                moved
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Builder, Penalty};
    use ndarray::array;

    #[test]
    fn a_step_must_be_positive() {
        for step in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(FiniteDifference::central(step).is_err());
        }
    }

    #[test]
    fn affine_networks_have_exact_differences() {
        let mut builder = Builder::<f64>::new();
        let x = builder.input(2).unwrap();
        let f = builder
            .dense(x, array![[1.0, 2.0], [0.0, -3.0]], None)
            .unwrap();
        let network = builder.build(f).unwrap();
        let x = array![[2.0, -1.0]];
        let difference = FiniteDifference::forward(0.5).unwrap();
        let jacobian = difference.jacobian(&network, x.view()).unwrap();
        assert_eq!(jacobian, array![[[1.0, 2.0], [0.0, -3.0]]]);
        // tr J Jᵀ is the sum of squares of the weight, so its central difference is exact too.
        let objective = Objective::new(Loss::SquaredError)
            .with(Penalty::Jacobian, 1.0)
            .unwrap();
        let central = FiniteDifference::central(0.5).unwrap();
        let targets = array![[0.0, 3.0]];
        let targets = Targets::Values(targets.view());
        let found = central.parameter_gradient(&objective, &network, x.view(), &targets);
        assert_eq!(found.unwrap().values(), [2.0, 4.0, 0.0, -6.0]);
    }
}
