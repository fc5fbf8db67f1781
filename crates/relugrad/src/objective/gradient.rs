//! The stage of penalties that are functions of the input gradient `g`, and of CURE's difference of two.
//!
//! With `A = ∂φ/∂g`, one forward sweep of `A` gives tangents `t` and `u = J A` at the logits. The part of the
//! parameter gradient is `Σ δ_l t_{l−1}ᵀ` with the cotangents `δ` of `r`, and `∂φ/∂r = u` adds `S u` to the
//! derivative in the logits.

use ndarray::ArrayView2;

use super::Objective;
use super::plan::Plan;
use super::workspace::{Pair, Workspace, per_sample, to_scalar};
use crate::buffer::Buffer;
use crate::error::Result;
use crate::loss::{LossBatch, LossFunction};
use crate::network::Network;
use crate::parameters::Parameters;
use crate::penalty::input_gradient::Norm;
use crate::penalty::{Direction, Form};
use crate::scalar::Scalar;
use crate::sweep::{Gated, Rows, Seeds, weight_gradient};
use crate::trace::Record;

/// Buffers for the second point `x + h z` of CURE.
#[derive(Clone, Debug, Default)]
pub(super) struct FiniteStep<T> {
    z: Vec<T>,
    record: Record<T>,
    loss: LossBatch,
    row: Pair<T>,
    loss_rows: Rows<T>,
}

impl Objective {
    /// Values of the plan's gradient terms and, with `derivatives`, their parts of `f̄` and of the gradient.
    pub(super) fn gradient_stage<T: Scalar>(
        &self,
        plan: &Plan,
        network: &Network<T>,
        workspace: &mut Workspace<T>,
        derivatives: bool,
    ) -> Result<()> {
        if plan.gradient.is_empty() {
            return Ok(());
        }
        let mut row = std::mem::take(&mut workspace.row);
        residual_row(
            network,
            &workspace.record,
            &workspace.loss,
            &mut row.cotangents,
        );
        let g = row.cotangents.at_input();
        let derivatives = derivatives && plan.gradient.iter().any(|&i| self.terms[i].lambda > 0.0);
        let mut a = Buffer::zeros(if derivatives { g.len() } else { 0 });
        for &term in &plan.gradient {
            let a = derivatives.then_some(&mut a[..]);
            match self.terms[term].penalty.form() {
                Form::FiniteStep(step, direction) => {
                    self.cure(term, (step, direction), network, workspace, g, a)?;
                }
                Form::Gradient(norm) => self.norm_term(term, norm, workspace, g, a),
                Form::Gram => self.norm_term(term, Norm::Squared, workspace, g, a),
                Form::Geometry => unreachable!("it has a stage of its own"),
            }
        }
        if derivatives {
            let gated = Gated::all(network, &workspace.record);
            row.tangents.forward(&gated, 1, a.iter());
            let u = row.tangents.at_output(network);
            add_hessian_times(
                self.loss.function(),
                &workspace.loss,
                u,
                &mut workspace.f_bar,
            );
            let gradient = workspace.gradient.as_mut().expect("it was started");
            let (c, t) = (&row.cotangents, &row.tangents.slots);
            weight_gradient(&gated, c, t, T::ONE, false, None, gradient);
        }
        workspace.row = row;
        Ok(())
    }

    /// The weight of a term at each sample, `λ/B`.
    pub(super) fn sample_weight<T: Scalar>(&self, term: usize, workspace: &Workspace<T>) -> f64 {
        self.terms[term].lambda / workspace.samples() as f64
    }

    fn norm_term<T: Scalar>(
        &self,
        term: usize,
        norm: Norm,
        workspace: &mut Workspace<T>,
        g: &[T],
        mut a: Option<&mut [T]>,
    ) {
        let (weight, d) = (
            self.sample_weight(term, workspace),
            g.len() / workspace.samples(),
        );
        let mut values = workspace.evaluation.sample_penalties.row_mut(term);
        for (sample, g) in g.chunks_exact(d).enumerate() {
            let value = norm.value(g);
            values[sample] = value;
            if let Some(a) = a.as_deref_mut() {
                norm.add_derivative(g, value, weight, &mut a[sample * d..(sample + 1) * d]);
            }
        }
    }

    /// `‖g' − g‖²` with `g'` the input gradient at `x' = x + h z`.
    ///
    /// With `A' = ∂φ/∂g' = 2(g' − g)`, the second point has a gradient stage of its own, and `∂φ/∂x'` is what its
    /// backward pass leaves at the input. `∂φ/∂g = −A'`, and the exact derivative of `z = g/‖g‖` adds its part.
    fn cure<T: Scalar>(
        &self,
        term: usize,
        (step, direction): (f64, Direction),
        network: &Network<T>,
        workspace: &mut Workspace<T>,
        g: &[T],
        a: Option<&mut [T]>,
    ) -> Result<()> {
        let d = network.inputs();
        let mut second = std::mem::take(&mut workspace.step);
        second.walk(network, &workspace.record.slots[0], g, (step, direction))?;
        let logits = second.record.logits(network);
        second
            .loss
            .fill(&self.loss, logits, &workspace.targets, network.outputs());
        residual_row(
            network,
            &second.record,
            &second.loss,
            &mut second.row.cotangents,
        );
        let mut difference = Buffer::of(second.row.cotangents.at_input().iter().copied());
        difference.iter_mut().zip(g).for_each(|(d, &g)| *d -= g);
        for (sample, difference) in difference.chunks_exact(d).enumerate() {
            let value = Norm::Squared.value(difference);
            workspace.evaluation.sample_penalties[(term, sample)] = value;
        }
        if let Some(a) = a {
            let scale = T::from_f64(2.0 * self.sample_weight(term, workspace));
            difference.iter_mut().for_each(|d| *d *= scale);
            a.iter_mut().zip(&*difference).for_each(|(a, &d)| *a -= d);
            let gradient = workspace.gradient.as_mut().expect("it was started");
            second.pull_back(network, self.loss.function(), &difference, gradient);
            let h = T::from_f64(step);
            for (i, a) in a.chunks_exact_mut(d).enumerate() {
                let sample = i * d..(i + 1) * d;
                let x_bar = &second.loss_rows.at_input()[sample.clone()];
                let z_bar = Buffer::of(x_bar.iter().map(|&x| h * x));
                direction.pull_back(&g[sample.clone()], &second.z[sample], &z_bar, a);
            }
        }
        workspace.step = second;
        Ok(())
    }
}

impl<T: Scalar> FiniteStep<T> {
    /// Traces `x + h z`.
    fn walk(
        &mut self,
        network: &Network<T>,
        x: &[T],
        g: &[T],
        (step, direction): (f64, Direction),
    ) -> Result<()> {
        let d = network.inputs();
        self.z.resize(g.len(), T::ZERO);
        for (g, z) in g.chunks_exact(d).zip(self.z.chunks_exact_mut(d)) {
            direction.write(g, z);
        }
        let h = T::from_f64(step);
        let moved = Buffer::of(x.iter().zip(&self.z).map(|(&x, &z)| x + h * z));
        let inputs = ArrayView2::from_shape((x.len() / d, d), &moved).expect("whole samples");
        self.record.fill(network, inputs)
    }

    /// Adds the parameter gradient at this point to `gradient`, for `A' = a`, and leaves the derivative in the point
    /// itself at the input of `loss_rows`.
    fn pull_back(
        &mut self,
        network: &Network<T>,
        function: &dyn LossFunction,
        a: &[T],
        gradient: &mut Parameters<T>,
    ) {
        let gated = Gated::all(network, &self.record);
        let Pair {
            cotangents,
            tangents,
            ..
        } = &mut self.row;
        tangents.forward(&gated, 1, a.iter());
        weight_gradient(
            &gated,
            cotangents,
            &tangents.slots,
            T::ONE,
            false,
            None,
            gradient,
        );
        let mut f_bar = Buffer::zeros(self.loss.residuals.len());
        add_hessian_times(
            function,
            &self.loss,
            tangents.at_output(network),
            &mut f_bar,
        );
        let seeds = to_scalar::<T>(&f_bar);
        let seeds = Seeds::PerSample(per_sample(&seeds, 1, network.outputs()));
        self.loss_rows.backward(&gated, seeds, true);
        weight_gradient(
            &gated,
            &self.loss_rows,
            &self.record.slots,
            T::ONE,
            true,
            None,
            gradient,
        );
    }
}

/// Carries the residuals back to the input: one row per sample, which arrives as `g`.
pub(super) fn residual_row<T: Scalar>(
    network: &Network<T>,
    record: &Record<T>,
    loss: &LossBatch,
    rows: &mut Rows<T>,
) {
    let seeds = to_scalar::<T>(&loss.residuals);
    let seeds = Seeds::PerSample(per_sample(&seeds, 1, network.outputs()));
    rows.backward(&Gated::all(network, record), seeds, true);
}

/// `f̄ += S u` at every sample.
pub(super) fn add_hessian_times<T: Scalar>(
    function: &dyn LossFunction,
    loss: &LossBatch,
    u: &[T],
    f_bar: &mut [f64],
) {
    let k = loss.outputs;
    let mut product = Buffer::zeros(k);
    for (sample, (u, f_bar)) in u.chunks_exact(k).zip(f_bar.chunks_exact_mut(k)).enumerate() {
        let u = Buffer::of(u.iter().map(|u| u.into_f64()));
        function.hessian_times(loss.state(sample), &u, &mut product);
        f_bar.iter_mut().zip(&*product).for_each(|(f, s)| *f += s);
    }
}
