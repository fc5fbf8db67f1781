//! The stage of penalties that are functions of the input gradient `g`, and of CURE's difference of two.
//!
//! With `A = ∂φ/∂g`, one forward sweep of `A` gives tangents `t` and `u = J A` at the logits. The part of the
//! parameter gradient is `Σ δ_l t_{l−1}ᵀ` with the cotangents `δ` of `r`, and `∂φ/∂r = u` adds `S u` to the
//! derivative in the logits.

use super::Objective;
use super::plan::Plan;
use super::workspace::{Workspace, per_sample, to_scalar};
use crate::buffer::Buffer;
use crate::error::{Result, check_finite};
use crate::loss::{LossBatch, LossFunction, Magnified};
use crate::network::Network;
use crate::network::map::Share;
use crate::parallel::for_each_chunk;
use crate::penalty::Form;
use crate::penalty::input_gradient::Norm;
use crate::scalar::Scalar;
use crate::sweep::{Gated, Rows, Seeds, weight_gradient};
use crate::trace::Record;

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
        workspace.magnify(self, network);
        let (record, residuals) = (&workspace.record, &workspace.magnified.residuals);
        residual_row(network, record, residuals, &mut row.cotangents);
        let g = row.cotangents.at_input();
        check_finite("the input gradient", network.inputs(), g)?;
        let weighted = |&&i: &&usize| self.terms[i].lambda > 0.0;
        let derivatives = derivatives && plan.gradient.iter().any(|i| weighted(&i));
        let shared = self.shared_first(plan, network).filter(|_| derivatives);
        let mut a = Buffer::zeros(if derivatives { g.len() } else { 0 });
        for &term in &plan.gradient {
            let a = derivatives.then_some(&mut a[..]);
            match self.terms[term].penalty.form() {
                Form::FiniteStep(step, direction) => {
                    self.cure(term, (step, direction), network, workspace, (g, shared), a)?;
                }
                Form::Gradient(norm) => self.norm_term(term, norm, workspace, g, a),
                Form::Gram => self.norm_term(term, Norm::Squared, workspace, g, a),
                Form::Geometry => unreachable!("it has a stage of its own"),
            }
        }
        if derivatives {
            let gated = Gated::all(network, &workspace.record);
            let gradient = workspace.gradient.as_mut().expect("it was started");
            match shared {
                None => row.tangents.forward(&gated, 1, &a),
                Some(first) => {
                    let (step, magnified) = (&workspace.step, &workspace.magnified);
                    let tangents = |t: &mut [T]| step.opposite_tangents(magnified, t);
                    let nodes = first..gated.nodes().end;
                    row.tangents.forward_behind(&gated, nodes, 1, tangents);
                    let cotangents = (&row.cotangents, magnified);
                    step.first_gradient(network, first, cotangents, gradient);
                }
            }
            let (c, t) = (&row.cotangents, &row.tangents.slots);
            let nodes = shared.map_or(0, |first| first + 1)..gated.nodes().end;
            weight_gradient(&gated, c, t, Share::linear(T::ONE), nodes, gradient);
            let u = row.tangents.at_output(network);
            let (function, magnified) = (self.loss.function(), &workspace.magnified);
            let (loss, f_bar) = (&workspace.loss, &mut workspace.f_bar);
            add_hessian_times(function, loss, Some(magnified), u, f_bar);
        }
        workspace.row = row;
        Ok(())
    }

    /// The weight of a term at each sample, `λ/B`.
    pub(super) fn sample_weight<T: Scalar>(&self, term: usize, workspace: &Workspace<T>) -> f64 {
        self.terms[term].lambda / workspace.samples() as f64
    }

    /// With the magnified gradient `ĝ = 2^n g` a norm of degree `p` has the value `2^−pn ‖ĝ‖^p`, and `2^−n ∂/∂g` is
    /// `2^−pn ∂/∂ĝ`.
    fn norm_term<T: Scalar>(
        &self,
        term: usize,
        norm: Norm,
        workspace: &mut Workspace<T>,
        g: &[T],
        a: Option<&mut [T]>,
    ) {
        let (weight, d) = (
            self.sample_weight(term, workspace),
            g.len() / workspace.samples(),
        );
        let of = |sample: usize| &g[sample * d..(sample + 1) * d];
        let powers = &workspace.magnified.powers;
        let factor = |sample: usize| powers[sample].powi(norm.degree());
        let values = workspace.evaluation.term_mut(term);
        for_each_chunk(values, 1, g.len(), |sample, value| {
            value[0] = factor(sample) * norm.value(of(sample));
        });
        if let Some(a) = a {
            for_each_chunk(a, d, g.len(), |sample, a| {
                let factor = factor(sample);
                let value = match factor == 1.0 {
                    true => values[sample],
                    false => norm.value(of(sample)),
                };
                norm.add_derivative(of(sample), value, weight * factor, a);
            });
        }
    }
}

/// Carries residuals `[B, K]` back to the input: one row per sample, which arrives as `g`.
pub(super) fn residual_row<T: Scalar>(
    network: &Network<T>,
    record: &Record<T>,
    residuals: &[f64],
    rows: &mut Rows<T>,
) {
    let seeds = to_scalar::<T>(residuals);
    let seeds = Seeds::PerSample(per_sample(&seeds, 1, network.outputs()));
    let gated = Gated::all(network, record);
    rows.backward(&gated, seeds, gated.nodes());
}

/// `f̄ += S u` at every sample, or `2^n S u` with what is magnified.
pub(super) fn add_hessian_times<T: Scalar>(
    function: &dyn LossFunction,
    loss: &LossBatch,
    magnified: Option<&Magnified>,
    u: &[T],
    f_bar: &mut [f64],
) {
    let magnified = magnified.filter(|magnified| !magnified.is_plain());
    let k = loss.outputs;
    let mut product = Buffer::zeros(k);
    for (sample, (u, f_bar)) in u.chunks_exact(k).zip(f_bar.chunks_exact_mut(k)).enumerate() {
        let u = Buffer::of(u.iter().map(|u| u.into_f64()));
        function.hessian_times(loss.state(sample), &u, &mut product);
        if let Some(magnified) = magnified {
            magnified.hessian_times(sample, &u, &mut product);
        }
        f_bar.iter_mut().zip(&*product).for_each(|(f, s)| *f += s);
    }
}
