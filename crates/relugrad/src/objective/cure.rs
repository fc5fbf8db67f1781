//! CURE's penalty `‖g' − g‖²` of the input gradients at `x` and at `x' = x + h z`.
//!
//! With `A' = ∂φ/∂g' = 2(g' − g)`, the second point has a gradient stage of its own, and `∂φ/∂x'` is what its backward
//! pass leaves at the input. `∂φ/∂g = −A'`, and the exact derivative of `z = g/‖g‖` adds its part.
//!
//! If nothing else is added, the tangents at the two points, of `A'` and of `−A'`, are opposite up to the first gates.
//! So the layer with weight `W` that all paths from the input pass multiplies `A'` once, and its part of the gradient is
//! one product, `Σ (c' − c) A'ᵀ` with the cotangents `c'` and `c` that arrive at it from the two points.

use ndarray::ArrayView2;

use super::Objective;
use super::first_layer::first_affine;
use super::gradient::{add_hessian_times, residual_row};
use super::plan::{Plan, Route};
use super::workspace::{Pair, Workspace, per_sample, to_scalar};
use crate::buffer::Buffer;
use crate::error::{Result, check_finite};
use crate::loss::{LossBatch, LossFunction, Magnified};
use crate::network::Network;
use crate::network::map::{Given, Share};
use crate::parallel::for_each_chunk;
use crate::parameters::Parameters;
use crate::penalty::input_gradient::Norm;
use crate::penalty::{Direction, Form};
use crate::scalar::Scalar;
use crate::sweep::{Gated, Rows, Seeds, weight_gradient};
use crate::trace::Record;

/// Entries that a thread works on at a time.
const PIECE: usize = 1 << 12;

/// Writes `f` of each pair of entries.
fn write_each<T: Scalar>(to: &mut [T], (a, b): (&[T], &[T]), f: impl Fn(T, T) -> T + Sync) {
    let operations = to.len();
    for_each_chunk(to, PIECE, operations, |i, to| {
        let piece = i * PIECE..i * PIECE + to.len();
        let pairs = a[piece.clone()].iter().zip(&b[piece]);
        to.iter_mut()
            .zip(pairs)
            .for_each(|(to, (&a, &b))| *to = f(a, b));
    });
}

/// Calls `f` with `2^−n`, the place and each entry of the rows of the samples whose residuals are magnified by `2^n`.
fn for_each_magnified<T: Scalar>(
    magnified: &Magnified,
    to: &mut [T],
    f: impl Fn(T, usize, &mut T),
) {
    let width = to.len() / magnified.powers.len();
    let samples = to.chunks_exact_mut(width).zip(&magnified.powers);
    for (sample, (to, &power)) in samples.enumerate() {
        if power != 1.0 {
            let power = T::from_f64(power);
            let entries = to.iter_mut().enumerate();
            entries.for_each(|(i, to)| f(power, sample * width + i, to));
        }
    }
}

/// Buffers for the second point `x + h z`.
#[derive(Clone, Debug, Default)]
pub(super) struct FiniteStep<T> {
    z: Vec<T>,
    record: Record<T>,
    loss: LossBatch,
    row: Pair<T>,
    loss_rows: Rows<T>,
    /// `A'`; `[B, D]`.
    a: Vec<T>,
    /// The tangents of `A'` at the shared first layer, before its gates.
    first: Vec<T>,
}

impl Objective {
    /// The first layer, where the gradient stage's derivative in `g` is that of one CURE term whose direction is constant.
    pub(super) fn shared_first<T: Scalar>(
        &self,
        plan: &Plan,
        network: &Network<T>,
    ) -> Option<usize> {
        let &[term] = &plan.gradient[..] else {
            return None;
        };
        let Form::FiniteStep(_, direction) = self.terms[term].penalty.form() else {
            return None;
        };
        let shared = direction.is_constant() && self.route != Route::AllRows;
        first_affine(network).filter(|_| shared)
    }

    /// The values of a CURE term; with `a`, also its part of the parameter gradient at the second point and, added to `a`,
    /// its derivative in `g`. If that alone is `a`, a `shared` first layer leaves it out. What is given as `g` is magnified.
    pub(super) fn cure<T: Scalar>(
        &self,
        term: usize,
        (step, direction): (f64, Direction),
        network: &Network<T>,
        workspace: &mut Workspace<T>,
        (g, shared): (&[T], Option<usize>),
        a: Option<&mut [T]>,
    ) -> Result<()> {
        let d = network.inputs();
        let weight = self.sample_weight(term, workspace);
        let mut second = std::mem::take(&mut workspace.step);
        second.walk(network, &workspace.record.slots[0], g, (step, direction))?;
        let logits = second.record.logits(network);
        let (targets, outputs) = (&workspace.targets, network.outputs());
        second.loss.fill(&self.loss, logits, targets, outputs);
        let (record, residuals) = (&second.record, &second.loss.residuals);
        residual_row(network, record, residuals, &mut second.row.cotangents);
        second.subtract(g, &workspace.magnified);
        check_finite("the input gradient at the step of CURE", d, &second.a)?;
        let values = workspace.evaluation.term_mut(term);
        for_each_chunk(values, 1, g.len(), |sample, value| {
            value[0] = Norm::Squared.value(&second.a[sample * d..(sample + 1) * d]);
        });
        if let Some(a) = a {
            second.scale(T::from_f64(2.0 * weight));
            let gradient = workspace.gradient.as_mut().expect("it was started");
            let exact = !direction.is_constant();
            second.pull_back(network, self.loss.function(), (shared, exact), gradient);
            if shared.is_none() {
                second.add_derivative((step, direction), g, &workspace.magnified, a);
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
        for_each_chunk(&mut self.z, d, g.len(), |sample, z| {
            direction.write(&g[sample * d..(sample + 1) * d], z);
        });
        let h = T::from_f64(step);
        let mut moved = Buffer::uncleared(x.len());
        write_each(&mut moved, (x, &self.z), |x, z| x + h * z);
        let inputs = ArrayView2::from_shape((x.len() / d, d), &moved).expect("whole samples");
        self.record.fill(network, inputs)
    }

    /// Leaves `g' − g` in `a`.
    fn subtract(&mut self, g: &[T], magnified: &Magnified) {
        let second = self.row.cotangents.at_input();
        self.a.resize(g.len(), T::ZERO);
        write_each(&mut self.a, (second, g), |second, g| second - g);
        for_each_magnified(magnified, &mut self.a, |power, entry, a| {
            *a = second[entry] - power * g[entry];
        });
    }

    fn scale(&mut self, factor: T) {
        let operations = self.a.len();
        for_each_chunk(&mut self.a, PIECE, operations, |_, a| {
            a.iter_mut().for_each(|a| *a *= factor);
        });
    }

    /// Adds the parameter gradient at this point to `gradient`; if `exact`, leaves the derivative in the point itself at the
    /// input of `loss_rows`. The part of a `shared` first layer in the derivative of `g'` is left out.
    fn pull_back(
        &mut self,
        network: &Network<T>,
        function: &dyn LossFunction,
        (shared, exact): (Option<usize>, bool),
        gradient: &mut Parameters<T>,
    ) {
        let gated = Gated::all(network, &self.record);
        let Pair {
            cotangents,
            tangents,
            ..
        } = &mut self.row;
        match shared.map(|first| (first, &network.nodes[first])) {
            Some((first, node)) => {
                let given = Given::new(network.parameters().values(), 1);
                let map = node.map.affine().expect("it has a weight");
                self.first.resize(self.record.samples * node.width, T::ZERO);
                map.apply(given, &[&self.a], false, &mut self.first);
                let copy = |t: &mut [T]| t.copy_from_slice(&self.first);
                tangents.forward_behind(&gated, first..gated.nodes().end, 1, copy);
            }
            None => tangents.forward(&gated, 1, &self.a),
        }
        let t = &tangents.slots;
        let (linear, nodes) = (Share::linear(T::ONE), gated.nodes());
        let behind = shared.map_or(0, |first| first + 1)..nodes.end;
        weight_gradient(&gated, cotangents, t, linear, behind, gradient);
        let mut f_bar = Buffer::zeros(self.loss.residuals.len());
        let u = tangents.at_output(network);
        add_hessian_times(function, &self.loss, None, u, &mut f_bar);
        let seeds = to_scalar::<T>(&f_bar);
        let seeds = Seeds::PerSample(per_sample(&seeds, 1, network.outputs()));
        let start = usize::from(!exact);
        self.loss_rows.backward(&gated, seeds, start..nodes.end);
        let (c, values) = (&self.loss_rows, &self.record.slots);
        weight_gradient(&gated, c, values, Share::affine(), nodes, gradient);
    }

    /// Adds the derivative in `g` to `a`: of a magnified sample `2^−n` of it, which is `−2^−n A'` and, as `z` is that of `2^n g`,
    /// its derivative in `2^n g`.
    fn add_derivative(
        &self,
        (step, direction): (f64, Direction),
        g: &[T],
        magnified: &Magnified,
        a: &mut [T],
    ) {
        let d = g.len() / self.record.samples;
        let samples = a.chunks_exact_mut(d).zip(self.a.chunks_exact(d));
        for ((a, second), &power) in samples.zip(&magnified.powers) {
            let power = T::from_f64(power);
            let pairs = a.iter_mut().zip(second);
            pairs.for_each(|(a, &second)| *a -= power * second);
        }
        if direction.is_constant() {
            return;
        }
        let h = T::from_f64(step);
        for_each_chunk(a, d, g.len(), |sample, a| {
            let sample = sample * d..(sample + 1) * d;
            let x_bar = &self.loss_rows.at_input()[sample.clone()];
            let z_bar = Buffer::of(x_bar.iter().map(|&x| h * x));
            direction.pull_back(&g[sample.clone()], &self.z[sample], &z_bar, a);
        });
    }

    /// Writes the tangents of `−A'` at the shared first layer, of `−2^−n A'` where `g` is magnified.
    pub(super) fn opposite_tangents(&self, magnified: &Magnified, tangents: &mut [T]) {
        write_each(tangents, (&self.first, &self.first), |first, _| -first);
        for_each_magnified(magnified, tangents, |power, _, t| *t *= power);
    }

    /// Adds the shared first layer's part of the derivatives in `g'` and `g`, where `cotangents` are those of `g`, magnified.
    pub(super) fn first_gradient(
        &self,
        network: &Network<T>,
        first: usize,
        (cotangents, magnified): (&Rows<T>, &Magnified),
        gradient: &mut Parameters<T>,
    ) {
        let node = &network.nodes[first];
        let second = &self.row.cotangents.slots[node.slot];
        let mut difference = Buffer::uncleared(second.len());
        let pair = (&second[..], &cotangents.slots[node.slot][..]);
        write_each(&mut difference, pair, |second, first| second - first);
        for_each_magnified(magnified, &mut difference, |power, entry, c| {
            *c = second[entry] - power * pair.1[entry];
        });
        let map = node.map.affine().expect("it has a weight");
        let given = Given::new(network.parameters().values(), 1);
        map.gradient(
            given,
            &difference,
            &self.a,
            Share::linear(T::ONE),
            gradient.values_mut(),
        );
    }
}
