//! The buffers of an evaluation, reused from step to step.

use ndarray::{Array2, ArrayView2, ArrayView3};

use super::Objective;
use super::forward::{Adjoint, Forward};
use super::geometric::GeometricStage;
use super::gram::GramStage;
use super::input_gradient::InputGradientStage;
use super::rows::RowsStage;
use crate::buffer::Buffer;
use crate::error::{Error, Result, check_shape};
use crate::loss::Targets;
use crate::network::Network;
use crate::network::map::Accumulate;
use crate::parameters::Parameters;
use crate::scalar::Scalar;
use crate::sweep::{LinearizedBatch, RowBatch, Seeds};

/// The value of an objective on a batch, term by term.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evaluation {
    /// `loss + Σ λ_i penalties_i`, without the loss for [`Objective::penalties_only`].
    pub value: f64,
    /// Mean of the loss over the batch.
    pub loss: f64,
    /// Mean of each penalty over the batch, before `λ`, in the order of [`Objective::terms`].
    pub penalties: Vec<f64>,
    /// The loss of each sample; `[B]`.
    pub sample_losses: Vec<f64>,
    /// Each penalty at each sample; `[terms, B]`.
    pub sample_penalties: Array2<f64>,
    /// Samples with a pre-activation that is exactly zero, where derivatives follow the convention.
    pub samples_on_kink: usize,
}

/// Buffers for [`Objective::value_into`] and [`Objective::gradient_into`], and their results.
///
/// They grow to what the largest evaluation so far needed and are reused. In units of `B·W`
/// entries, `W` being the sum of the layers' widths, a gradient takes 2 (trace and cotangents of
/// the loss), 2 more for penalties of the input gradient, `2R` more for Gram penalties swept with
/// `R` rows, and 4 more for CURE.
#[derive(Clone, Debug, Default)]
pub struct Workspace<T> {
    pub(super) forward: Forward<T>,
    pub(super) evaluation: Evaluation,
    pub(super) adjoint: Option<Adjoint<T>>,
    /// Whether all entries of the gradient are.
    pub(super) is_finite: bool,
    pub(super) stages: Stages<T>,
    /// Rows of the loss's backward pass.
    loss_rows: RowBatch<T>,
    /// The logits of the last evaluation.
    logits: Vec<T>,
    outputs: usize,
    /// What of the last evaluation may be read.
    done: Done,
    /// Where evaluations in `f32` are carried out whose numbers leave its range.
    pub(super) wide: Option<Box<Workspace<f64>>>,
}

/// What an evaluation has left in a workspace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Done {
    /// Nothing: there was none, or it failed.
    #[default]
    Nothing,
    Value,
    Gradient,
}

/// The stages of an evaluation, each with its own buffers.
#[derive(Clone, Debug, Default)]
pub(super) struct Stages<T> {
    pub(super) input_gradient: InputGradientStage<T>,
    pub(super) gram: GramStage<T>,
    pub(super) rows: RowsStage<T>,
    pub(super) geometric: GeometricStage<T>,
}

/// Cotangents and tangents of one stage.
#[derive(Clone, Debug, Default)]
pub(super) struct SweepPair<T> {
    pub(super) cotangents: RowBatch<T>,
    pub(super) tangents: RowBatch<T>,
}

impl Evaluation {
    /// The values of a term at each sample.
    pub(super) fn term_mut(&mut self, term: usize) -> &mut [f64] {
        let samples = self.sample_penalties.ncols();
        let values = self.sample_penalties.as_slice_mut().expect("row-major");
        &mut values[term * samples..(term + 1) * samples]
    }
}

impl<T: Scalar> Workspace<T> {
    /// Empty buffers, for any network and batch.
    pub fn new() -> Workspace<T> {
        Workspace::default()
    }

    /// The terms of the last evaluation; `None` before one, or if it failed.
    pub fn evaluation(&self) -> Option<&Evaluation> {
        (self.done != Done::Nothing).then_some(&self.evaluation)
    }

    /// The parameter gradient of the last evaluation; `None` unless that was a
    /// [`Objective::gradient_into`] that succeeded.
    pub fn gradient(&self) -> Option<&Parameters<T>> {
        let adjoint = self.adjoint.as_ref();
        let adjoint = adjoint.filter(|_| self.done == Done::Gradient);
        adjoint.map(|adjoint| &adjoint.parameters)
    }

    /// The logits of the last evaluation's batch, `[B, K]`; `None` before one, or if it failed.
    pub fn logits(&self) -> Option<ArrayView2<'_, T>> {
        let samples = self.logits.len() / self.outputs.max(1);
        let logits = ArrayView2::from_shape((samples, self.outputs), &self.logits).ok();
        logits.filter(|_| self.done != Done::Nothing)
    }

    pub(super) fn into_parts(self) -> (Evaluation, Option<Parameters<T>>) {
        let gradient = self.adjoint.map(|adjoint| adjoint.parameters);
        (self.evaluation, gradient)
    }

    /// Begins an evaluation: the results of the last one are no longer those of this workspace.
    pub(super) fn forget(&mut self) {
        self.done = Done::Nothing;
    }

    /// Ends an evaluation in the network's type.
    pub(super) fn finish(&mut self, network: &Network<T>, derivatives: bool) {
        self.outputs = network.outputs();
        self.logits.clear();
        self.logits
            .extend_from_slice(self.forward.state.logits(network));
        self.end(derivatives);
    }

    fn end(&mut self, derivatives: bool) {
        self.done = if derivatives {
            Done::Gradient
        } else {
            Done::Value
        };
    }

    /// Takes the results of an evaluation of the same network in `f64`, rounded; what must be
    /// finite was checked.
    ///
    /// # Errors
    /// [`Error::NotFinite`] for logits that `T` cannot hold.
    pub(super) fn round(&mut self, network: &Network<T>, wide: &Workspace<f64>) -> Result<()> {
        self.outputs = wide.outputs;
        self.logits.clear();
        self.logits
            .extend(wide.logits.iter().map(|&f| T::from_f64(f)));
        crate::error::check_finite("the logits", self.outputs, &self.logits)?;
        self.evaluation.clone_from(&wide.evaluation);
        if let Some(from) = wide.gradient() {
            let adjoint = Adjoint::start(&mut self.adjoint, network);
            let pairs = adjoint.parameters.values_mut().iter_mut();
            pairs
                .zip(from.values())
                .for_each(|(to, &g)| *to = T::from_f64(g));
        }
        self.end(wide.gradient().is_some());
        Ok(())
    }

    /// Forward pass, loss, and a gradient of zero, though without terms the places of dense weights
    /// keep what they hold.
    pub(super) fn start(
        &mut self,
        objective: &Objective,
        network: &Network<T>,
        inputs: ArrayView2<T>,
        targets: &Targets<T>,
        derivatives: bool,
    ) -> Result<()> {
        let (k, forward) = (network.outputs(), &mut self.forward);
        forward.state.fill(network, inputs)?;
        let samples = forward.samples();
        targets.resolve(&objective.loss, samples, k, &mut forward.targets)?;
        let logits = forward.state.logits(network);
        let function = &*objective.function;
        forward.loss.fill(function, logits, &forward.targets, k);
        forward.weigh(&objective.sample_weights)?;
        let shape = (objective.terms.len(), samples);
        if self.evaluation.sample_penalties.dim() != shape {
            self.evaluation.sample_penalties = Array2::zeros(shape);
        }
        if derivatives {
            let adjoint = Adjoint::start(&mut self.adjoint, network);
            let weight = objective.loss_weight();
            self.forward.write_residuals(weight, &mut adjoint.logits);
            if objective.terms.is_empty() {
                clear_for_replacement(network, &mut adjoint.parameters);
            } else {
                adjoint.parameters.fill_zero();
            }
        }
        Ok(())
    }

    /// Sends the derivative with respect to the logits back through the network; if it `is_all`, it
    /// replaces dense weights' parts of the gradient.
    pub(super) fn finish_gradient(&mut self, network: &Network<T>, is_all: bool) {
        let Some(adjoint) = &mut self.adjoint else {
            return;
        };
        let state = &self.forward.state;
        let linearized = LinearizedBatch::all(network, state);
        let seeds = to_scalar::<T>(&adjoint.logits);
        let seeds = per_sample(&seeds, 1, network.outputs());
        self.loss_rows.backward(
            &linearized,
            Seeds::PerSample(seeds),
            linearized.behind_input(),
        );
        let accumulate = Accumulate {
            overwrite: is_all,
            ..Accumulate::affine()
        };
        let gradient = &mut adjoint.parameters;
        linearized.weight_gradient(&self.loss_rows, &state.buffers, accumulate, gradient);
        self.is_finite = gradient.is_finite();
    }

    /// Means and total.
    pub(super) fn finish_value(&mut self, objective: &Objective) -> Result<()> {
        let (evaluation, forward) = (&mut self.evaluation, &self.forward);
        evaluation.sample_losses.clone_from(&forward.loss.values);
        evaluation.loss = forward.mean(forward.loss.values.iter());
        evaluation.penalties.clear();
        for row in evaluation.sample_penalties.rows() {
            evaluation.penalties.push(forward.mean(row.iter()));
        }
        let on_kink = forward.state.kinks.iter().filter(|&&n| n > 0);
        evaluation.samples_on_kink = on_kink.count();
        evaluation.value = objective.loss_weight() * evaluation.loss;
        let rows = evaluation.sample_penalties.rows().into_iter();
        for ((term, mean), row) in objective.terms.iter().zip(&evaluation.penalties).zip(rows) {
            evaluation.value += term.lambda * mean;
            check_finite(term.penalty.name(), *mean, row.iter())?;
        }
        check_finite("the loss", evaluation.loss, forward.loss.values.iter())?;
        check_finite("the objective", evaluation.value, [].iter())
    }
}

impl<T: Scalar> Forward<T> {
    /// Takes the weights of the samples.
    fn weigh(&mut self, weights: &[f64]) -> Result<()> {
        self.weights.clear();
        self.total = self.samples() as f64;
        if weights.is_empty() {
            return Ok(());
        }
        check_shape(
            "weights of the samples",
            &[self.samples()],
            &[weights.len()],
        )?;
        self.weights.extend_from_slice(weights);
        self.total = weights.iter().sum();
        Ok(())
    }

    /// Writes the derivative of the mean loss, times a weight, with respect to the logits.
    fn write_residuals(&self, weight: f64, to: &mut Vec<f64>) {
        to.clear();
        let samples = self.loss.residuals.chunks_exact(self.loss.outputs);
        for (sample, residual) in samples.enumerate() {
            let share = self.share(weight, sample);
            to.extend(residual.iter().map(|r| share * r));
        }
    }
}

impl<T: Scalar> Adjoint<T> {
    /// One that fits the network; the gradient may hold anything.
    fn start<'a>(kept: &'a mut Option<Adjoint<T>>, network: &Network<T>) -> &'a mut Adjoint<T> {
        let parameters = network.parameters();
        let fits = |kept: &Adjoint<T>| kept.parameters.same_layout(parameters);
        if !kept.as_ref().is_some_and(fits) {
            *kept = None;
        }
        kept.get_or_insert_with(|| Adjoint {
            logits: Vec::new(),
            parameters: parameters.zeros_like(),
        })
    }
}

/// Sets all to 0 but the places of dense weights.
fn clear_for_replacement<T: Scalar>(network: &Network<T>, gradient: &mut Parameters<T>) {
    let is_weight = |start: usize| {
        let mut dense = network.nodes.iter().filter_map(|node| node.map.dense());
        dense.any(|dense| dense.weight == start)
    };
    for array in network.parameters().layout() {
        if !is_weight(array.range().start) {
            gradient.values_mut()[array.range()].fill(T::ZERO);
        }
    }
}

/// Refuses a mean that is not finite; the error names the first sample that is not.
fn check_finite<'v>(
    what: &str,
    mean: f64,
    mut values: impl Iterator<Item = &'v f64>,
) -> Result<()> {
    if mean.is_finite() {
        return Ok(());
    }
    Err(Error::NotFinite {
        what: what.to_owned(),
        index: values
            .position(|value| !value.is_finite())
            .into_iter()
            .collect(),
    })
}

/// The same numbers in the network's precision.
pub(super) fn to_scalar<T: Scalar>(values: &[f64]) -> Buffer<T> {
    Buffer::of(values.iter().map(|&value| T::from_f64(value)))
}

/// A flat slice as `[B, rows, width]`.
pub(super) fn per_sample<T>(values: &[T], rows: usize, width: usize) -> ArrayView3<'_, T> {
    let samples = values.len() / (rows * width);
    ArrayView3::from_shape((samples, rows, width), values).expect("whole samples")
}
