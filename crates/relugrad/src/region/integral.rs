//! Exact integrals along a segment: attributions, and what the kinks contribute.

use ndarray::{Array1, Array2, ArrayView1, Axis};

use crate::error::{Error, Result, check_array, check_number, check_shape};
use crate::loss::{Loss, LossBatch, Targets};
use crate::network::Network;
use crate::norm::Norm;
use crate::scalar::Scalar;

impl<T: Scalar> Network<T> {
    /// Integrated gradients of a logit, `(x − x') ⊙ ∫₀¹ ∇f_c(x' + t (x − x')) dt`, without
    /// sampling; `x, baseline: [D]`, result `[D]`. Its entries sum to `f_c(x) − f_c(x')`.
    ///
    /// Sundararajan, Taly & Yan 2017, *Axiomatic attribution for deep networks*, equation 1. The
    /// gradient is constant between crossings, so the integral is a sum. Cost: that of a
    /// [`walk`](Self::walk) with one backward row a crossing.
    ///
    /// # Errors
    /// Those of [`walk`](Self::walk) and [`Walk::cross`](crate::Walk::cross); [`Error::Label`] if
    /// there is no such class; [`Error::Shape`]; [`Error::NotFinite`] if the integral overflows.
    pub fn integrated_gradients(
        &self,
        x: ArrayView1<T>,
        baseline: ArrayView1<T>,
        class: usize,
    ) -> Result<Array1<T>> {
        check_shape("baseline", &[self.inputs()], baseline.shape())?;
        check_shape("x", &[self.inputs()], x.shape())?;
        if class >= self.outputs() {
            return Err(Error::Label {
                sample: 0,
                label: class,
                classes: self.outputs(),
            });
        }
        let difference = &x - &baseline;
        let mut walk = self.walk(baseline, difference.view(), 1.0)?;
        let mut seed = Array2::zeros((1, self.outputs()));
        seed[(0, class)] = T::ONE;
        let start = self
            .trace(baseline.insert_axis(Axis(0)))?
            .vjp(seed.view())?;
        let mut gradient = start.index_axis_move(Axis(0), 0);
        let mut integral = Array1::zeros(self.inputs());
        loop {
            let length = T::from_f64(walk.end() - walk.start());
            integral.scaled_add(length, &gradient);
            if walk.cross()?.is_none() {
                let attributions: Array1<T> = integral * difference;
                let entries = attributions.as_slice().expect("one row");
                check_array("an integrated gradient", attributions.shape(), entries)?;
                return Ok(attributions);
            }
            let jump = walk.jump()?.expect("a crossing was just made");
            gradient.scaled_add(jump.output[class], &jump.normal);
        }
    }

    /// The kink curvature along `x + t z` for `t` from 0 to `length`:
    /// `Σ_i ‖(J_{i+1} − J_i)ᵀ r(t_i)‖₂ / length` over all crossings, with the residual `r = ∂ℓ/∂f`.
    /// It is what the jumps of the input gradient amount to per unit of `t`, beside `‖H z‖` for its
    /// smooth change. 0 for a length of 0.
    ///
    /// # Errors
    /// Those of [`walk`](Self::walk), [`Walk::cross`](crate::Walk::cross) and of the targets, which
    /// are those of one sample; [`Error::NotFinite`] if it overflows.
    pub fn kink_curvature(
        &self,
        x: ArrayView1<T>,
        z: ArrayView1<T>,
        length: f64,
        loss: &Loss,
        targets: &Targets<T>,
    ) -> Result<f64> {
        let mut residual = residuals(loss, targets, self.outputs())?;
        let (mut walk, mut sum) = (self.walk(x, z, length)?, 0.0);
        while let Some(crossing) = walk.cross()? {
            let jump = walk.jump()?.expect("a crossing was just made");
            let r = residual(&walk.logits(crossing.at)?);
            let along: f64 = r
                .iter()
                .zip(&jump.output)
                .map(|(r, u)| r * u.into_f64())
                .sum();
            sum += along.abs() * Norm::L2.of(jump.normal.as_slice().expect("one row"));
        }
        let mean = if length > 0.0 { sum / length } else { 0.0 };
        check_number("the kink curvature", &[], mean)
    }
}

/// The residual as a function of one sample's logits.
pub(super) fn residuals<'a, T: Scalar>(
    loss: &'a Loss,
    targets: &Targets<T>,
    outputs: usize,
) -> Result<impl FnMut(&Array1<T>) -> Vec<f64> + 'a> {
    let (mut target, mut batch) = (Vec::new(), LossBatch::default());
    targets.resolve(loss, 1, outputs, &mut target)?;
    let function = loss.function();
    Ok(move |logits: &Array1<T>| {
        batch.fill(&*function, &logits.to_vec(), &target, outputs);
        batch.residual(0).to_vec()
    })
}
