//! Rows of the Jacobian at a second point `x' = x + δ`, where `δ` counts as a constant.

use super::forward::{Adjoint, Context};
use super::input_gradient::residual_row;
use super::pair::{First, displace};
use super::rows::{RowsAdjoint, Site, Sweeps};
use super::workspace::{Evaluation, per_sample, to_scalar};
use crate::buffer::Buffer;
use crate::error::Result;
use crate::linalg::add;
use crate::loss::{LossBatch, Magnified};
use crate::network::map::Accumulate;
use crate::penalty::JacobianPenalty;
use crate::penalty::numbers::{Numbers, Raw};
use crate::scalar::Scalar;
use crate::sweep::{LinearizedBatch, RowBatch, Seeds};
use crate::trace::ForwardState;

/// Buffers of a term whose rows are taken at a second point.
#[derive(Clone, Debug, Default)]
pub(super) struct Moved<T> {
    magnified: Magnified,
    /// The row that arrives at the input as `g`.
    row: RowBatch<T>,
    /// `δ`; `[B, D]`.
    displacement: Vec<T>,
    state: ForwardState<T>,
    loss: LossBatch,
    /// The derivative with respect to the second logits; `[B, K]`.
    logits: Vec<f64>,
    loss_rows: RowBatch<T>,
}

impl<T: Scalar> Moved<T> {
    /// Values of a term and, with an adjoint, its derivatives.
    pub(super) fn run(
        &mut self,
        at: &Context<T>,
        term: (usize, &dyn JacobianPenalty),
        sweeps: &mut Sweeps<T>,
        evaluation: &mut Evaluation,
        adjoint: Option<&mut Adjoint<T>>,
    ) -> Result<()> {
        self.step(at, term.1)?;
        let site = Site {
            state: &self.state,
            loss: &self.loss,
            is_moved: true,
        };
        let Some(adjoint) = adjoint else {
            return sweeps.run(at, &site, &[term], evaluation, None);
        };
        self.logits.clear();
        self.logits.resize(adjoint.logits.len(), 0.0);
        let mut origin = Buffer::zeros(adjoint.logits.len());
        let sums = RowsAdjoint {
            logits: &mut self.logits,
            origin: &mut origin,
            parameters: &mut adjoint.parameters,
        };
        sweeps.run(at, &site, &[term], evaluation, Some(sums))?;
        add(&mut adjoint.logits, 1.0, &origin);
        let (network, state) = (at.network, &self.state);
        let linearized = LinearizedBatch::all(network, state);
        let seeds = to_scalar::<T>(&self.logits);
        let seeds = Seeds::PerSample(per_sample(&seeds, 1, network.outputs()));
        self.loss_rows
            .backward(&linearized, seeds, linearized.behind_input());
        let (affine, gradient) = (Accumulate::affine(), &mut adjoint.parameters);
        linearized.weight_gradient(&self.loss_rows, &state.buffers, affine, gradient);
        Ok(())
    }

    /// Traces `x + δ`.
    fn step(&mut self, at: &Context<T>, penalty: &dyn JacobianPenalty) -> Result<()> {
        let (function, forward, d) = (&*at.objective.function, at.forward, at.network.inputs());
        self.magnified
            .fill(function, &forward.loss, &forward.targets);
        let residuals = &self.magnified.residuals;
        residual_row(at.network, &forward.state, residuals, &mut self.row);
        let first = First {
            g: self.row.at_input(),
            magnified: &self.magnified,
            shared: None,
        };
        let x = &forward.state.buffers[0];
        let write = |sample: usize, displacement: &mut [f64]| {
            let x = Numbers::new(Raw::of(&x[sample * d..(sample + 1) * d]));
            penalty.displace(x.get(), &first.point(at, sample), displacement);
        };
        displace(at, write, &mut self.displacement, &mut self.state)?;
        let logits = self.state.logits(at.network);
        let (targets, k) = (&forward.targets, at.network.outputs());
        self.loss.fill(function, logits, targets, k);
        Ok(())
    }
}
