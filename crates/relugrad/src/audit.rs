//! What a finite difference reports, what is exact, and what lies between.

use ndarray::{Array1, ArrayView1, Axis};

use crate::error::{Result, check_array, check_number, check_shape};
use crate::finite_difference::{FiniteDifference, Scheme};
use crate::loss::{Loss, Targets};
use crate::network::Network;
use crate::region::{GradientChange, gradient_change};
use crate::scalar::Scalar;

/// A finite difference of the loss and of its input gradient along a direction, beside the exact
/// derivatives.
#[derive(Clone, Debug)]
pub struct Audit<T> {
    /// The difference quotient of the loss.
    pub reported_slope: f64,
    /// `⟨g, z⟩`.
    pub exact_slope: f64,
    /// The difference quotient of the input gradient; `[D]`.
    pub reported_hvp: Array1<T>,
    /// `H z`; `[D]`.
    pub exact_hvp: Array1<T>,
    /// How many gates switch between the points of the difference.
    pub kinks: usize,
    /// The part of `reported_hvp` that the loss's curvature inside the regions explains, and the
    /// part of the kinks; `[D]` each. They sum to it.
    pub parts: GradientChange<T>,
    /// The largest step of this scheme that stays in the sample's region; infinite if any does.
    pub largest_step: f64,
}

impl FiniteDifference {
    /// Audits differences along `z` at one sample; `x, z: [D]`, `targets` of one sample.
    ///
    /// Cost: a [`walk`](Network::walk) between the points with its Jacobian, and a few passes.
    ///
    /// # Errors
    /// Those of [`Network::walk`] and of the targets, and
    /// [`Error::NotFinite`](crate::Error::NotFinite) for a quotient or a derivative that overflows.
    pub fn audit<T: Scalar>(
        &self,
        network: &Network<T>,
        loss: &Loss,
        x: ArrayView1<T>,
        targets: &Targets<T>,
        z: ArrayView1<T>,
    ) -> Result<Audit<T>> {
        check_shape("z", &[network.inputs()], z.shape())?;
        check_shape("x", &[network.inputs()], x.shape())?;
        let (before, width) = match self.scheme() {
            Scheme::Forward => (0.0, self.step()),
            Scheme::Central => (-self.step(), 2.0 * self.step()),
        };
        let point = |t: f64| (&x + &z.mapv(|z| T::from_f64(t) * z)).insert_axis(Axis(0));
        let at = |t: f64| -> Result<(f64, Array1<T>)> {
            let trace = network.trace(point(t).view())?;
            let loss_here = trace.losses(loss, targets)?[0];
            let gradient = trace.input_gradient(loss, targets)?;
            Ok((loss_here, gradient.index_axis_move(Axis(0), 0)))
        };
        let ((low, gradient_low), (high, gradient_high)) = (at(before)?, at(before + width)?);
        let per_width = T::from_f64(1.0 / width);
        let pieces = network.pieces(point(before).row(0), z, width)?;
        let change = gradient_change(&pieces, loss, targets)?;
        let trace = network.trace(x.insert_axis(Axis(0)))?;
        let curvature = trace.curvature(loss)?;
        let gradient = trace.input_gradient(loss, targets)?;
        let audit = Audit {
            reported_slope: (high - low) / width,
            exact_slope: gradient.row(0).dot(&z).into_f64(),
            reported_hvp: (gradient_high - gradient_low) * per_width,
            exact_hvp: curvature
                .apply(z.insert_axis(Axis(0)))?
                .index_axis_move(Axis(0), 0),
            kinks: pieces.len() - 1,
            parts: GradientChange {
                smooth: change.smooth * per_width,
                kinks: change.kinks * per_width,
            },
            largest_step: self.largest_step(network, x, z)?,
        };
        check_number(
            "a difference quotient of the loss",
            &[],
            audit.reported_slope,
        )?;
        check_number("⟨g, z⟩", &[], audit.exact_slope)?;
        let quotient = &audit.reported_hvp;
        for part in [quotient, &audit.parts.smooth, &audit.parts.kinks] {
            let entries = part.as_slice().expect("one row");
            check_array(
                "a difference quotient of the gradient",
                part.shape(),
                entries,
            )?;
        }
        Ok(audit)
    }

    /// The largest step of this scheme along `z` whose points lie in the region of `x`; infinite if
    /// all do. `x, z: [D]`.
    ///
    /// # Errors
    /// Those of [`Network::walk`].
    pub fn largest_step<T: Scalar>(
        &self,
        network: &Network<T>,
        x: ArrayView1<T>,
        z: ArrayView1<T>,
    ) -> Result<f64> {
        let reach = |z: ArrayView1<T>| -> Result<f64> {
            let ahead = network.walk(x, z, f64::MAX)?.ahead();
            Ok(ahead.map_or(f64::INFINITY, |crossing| crossing.at))
        };
        let forward = reach(z)?;
        match self.scheme() {
            Scheme::Forward => Ok(forward),
            Scheme::Central => Ok(forward.min(reach(z.mapv(|z| -z).view())?)),
        }
    }
}
