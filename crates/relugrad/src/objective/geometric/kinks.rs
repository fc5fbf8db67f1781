//! The kink part of CURE, `φ = ‖k‖²` with `k = Σ_i (J_{i+1} − J_i)ᵀ r_i` over the crossings `t_i`
//! between `x` and `x + h z`.
//!
//! With `A = ∂φ/∂k = 2k` the derivative of `⟨A, k⟩` has three parts ([theory](crate::theory), T67).
//! The Jacobians: the `i`-th piece has the seed `r_{i−1} − r_i` and the tangent `A`. The residuals:
//! `∂/∂r_i` is `(J_{i+1} − J_i) A`, so the logits at the crossing have the derivative
//! `w_i = S_i (J_{i+1} − J_i) A`. And the crossing moves: where the margin `m` falls through 0 at
//! the rate `ṁ = ⟨∇m, z⟩`, `∂t/∂m = −1/ṁ`, so the margin has the derivative `−⟨w_i, J_i z⟩/ṁ`. Both
//! go back through the network of the piece before the crossing, with the values at the crossing.

use ndarray::{Array1, ArrayView1, ArrayView3};
use rayon::prelude::*;

use super::GeometricStage;
use crate::error::{Result, check_finite};
use crate::loss::{LossBatch, LossFunction};
use crate::network::Network;
use crate::network::map::Accumulate;
use crate::norm::squared_length;
use crate::objective::forward::{Adjoint, Context};
use crate::objective::input_gradient::{add_hessian_times, residual_row};
use crate::objective::workspace::{SweepPair, per_sample};
use crate::parameters::Parameters;
use crate::pattern::ActivationPattern;
use crate::penalty::Direction;
use crate::region::{Face, Pass};
use crate::scalar::Scalar;
use crate::sweep::{LinearizedBatch, RowBatch, Seeds, Source};

/// Pieces that are swept together.
const BLOCK: usize = 256;

/// The walk of one sample from `x` to `x + h z`.
struct SegmentPath<T> {
    steps: Vec<Step<T>>,
    /// `k`; `[D]`.
    kinks: Array1<T>,
    /// The pattern behind the last crossing.
    last: ActivationPattern,
}

/// A crossing, seen from the piece before it.
struct Step<T> {
    at: f64,
    pattern: ActivationPattern,
    face: Face,
    /// `J_{i+1} − J_i = output ⊗ normal`.
    output: Array1<T>,
    normal: Array1<T>,
    /// `J_i z` and `⟨∇m, z⟩`.
    rates: Array1<T>,
    fall: f64,
    residual: Vec<f64>,
    /// What the loss's Hessian there needs.
    state: Vec<f64>,
}

/// A row of the backward passes: a piece, or a crossing seen from the piece before it.
struct Row<T> {
    pattern: ActivationPattern,
    /// The seed at the logits; `[K]`.
    seed: Vec<T>,
    /// The seed at a margin.
    margin: Option<(Face, f64)>,
    /// `A` of a piece, `[D]`, or the values of all nodes at a crossing.
    values: Vec<Vec<T>>,
}

/// The rows of one sample's path.
struct PathAdjoint<T> {
    pieces: Vec<Row<T>>,
    crossings: Vec<Row<T>>,
}

impl<T: Scalar> GeometricStage<T> {
    /// `cure-kinks`: values and, with an adjoint, its derivatives.
    pub(super) fn kinks(
        &mut self,
        at: &Context<T>,
        (lambda, step, direction): (f64, f64, Direction),
        values: &mut [f64],
        adjoint: Option<&mut Adjoint<T>>,
    ) -> Result<()> {
        let (network, forward) = (at.network, at.forward);
        let (k, d) = (network.outputs(), network.inputs());
        let function = &*at.objective.function;
        self.magnified
            .fill(function, &forward.loss, &forward.targets);
        let (residuals, cotangents) = (&self.magnified.residuals, &mut self.pair.cotangents);
        residual_row(network, &forward.state, residuals, cotangents);
        let g = cotangents.at_input();
        check_finite("the input gradient", d, g)?;
        let x = &forward.state.buffers[0];
        let mut z = vec![T::ZERO; g.len()];
        for (g, z) in g.chunks_exact(d).zip(z.chunks_exact_mut(d)) {
            direction.write(g, z);
        }
        let paths = x
            .par_chunks(d)
            .zip(z.par_chunks(d))
            .zip(forward.targets.par_chunks(k));
        let paths: Vec<SegmentPath<T>> = paths
            .map(|((x, z), target)| SegmentPath::walk(network, (x, z), step, (function, target)))
            .collect::<Result<_>>()?;
        for (value, path) in values.iter_mut().zip(&paths) {
            *value = squared_length(path.kinks.as_slice().expect("one row"));
        }
        if let Some(adjoint) = adjoint {
            let ends = x.par_chunks(d).zip(z.par_chunks(d)).zip(&paths);
            let rows: Vec<PathAdjoint<T>> = ends
                .enumerate()
                .map(|(sample, ((x, z), path))| {
                    let weight = forward.share(lambda, sample);
                    path.pull_back(network, function, (x, z), 2.0 * weight)
                })
                .collect();
            let z_bar = sweep_all(network, &paths, &rows, &mut adjoint.parameters);
            if !direction.is_constant() {
                self.turn(at, direction, (&z, &z_bar), adjoint);
            }
        }
        Ok(())
    }

    /// Adds what a derivative with respect to the directions means for the parameters; the stage
    /// has the cotangents of `g`, which are magnified.
    fn turn(
        &mut self,
        at: &Context<T>,
        direction: Direction,
        (z, z_bar): (&[T], &[T]),
        adjoint: &mut Adjoint<T>,
    ) {
        let (network, forward, d) = (at.network, at.forward, at.network.inputs());
        let SweepPair {
            cotangents,
            tangents,
        } = &mut self.pair;
        let g = cotangents.at_input();
        let mut a = vec![T::ZERO; g.len()];
        for (i, a) in a.chunks_exact_mut(d).enumerate() {
            let sample = i * d..(i + 1) * d;
            let (z, z_bar) = (&z[sample.clone()], &z_bar[sample.clone()]);
            direction.pull_back(&g[sample], z, z_bar, a);
        }
        let linearized = LinearizedBatch::all(network, &forward.state);
        tangents.forward(&linearized, 1, &a);
        let (u, function) = (tangents.at_output(network), &*at.objective.function);
        let magnified = Some(&self.magnified);
        add_hessian_times(function, &forward.loss, magnified, u, &mut adjoint.logits);
        let (accumulate, gradient) = (Accumulate::linear(T::ONE), &mut adjoint.parameters);
        linearized.weight_gradient(cotangents, &tangents.buffers, accumulate, gradient);
    }
}

impl<T: Scalar> SegmentPath<T> {
    fn walk(
        network: &Network<T>,
        (x, z): (&[T], &[T]),
        length: f64,
        (loss, target): (&dyn LossFunction, &[f64]),
    ) -> Result<SegmentPath<T>> {
        let mut walk = network.walk(ArrayView1::from(x), ArrayView1::from(z), length)?;
        let (mut batch, mut steps) = (LossBatch::default(), Vec::new());
        let mut kinks = Array1::zeros(x.len());
        loop {
            let (pattern, rates) = (walk.pattern().clone(), walk.logit_rates().to_owned());
            let logits = walk.logits(walk.end())?;
            let Some(crossing) = walk.cross()? else {
                return Ok(SegmentPath {
                    steps,
                    kinks,
                    last: pattern,
                });
            };
            let jump = walk.jump()?.expect("a crossing was just made");
            batch.fill(loss, &logits.to_vec(), target, logits.len());
            let pairs = batch.residual(0).iter().zip(&jump.output);
            let along: f64 = pairs.map(|(r, u)| r * u.into_f64()).sum();
            kinks.scaled_add(T::from_f64(along), &jump.normal);
            steps.push(Step {
                at: crossing.at,
                pattern,
                face: *walk.last_face().expect("a crossing was just made"),
                fall: jump.normal.dot(&ArrayView1::from(z)).into_f64(),
                output: jump.output,
                normal: jump.normal,
                rates,
                residual: batch.residual(0).to_vec(),
                state: batch.state(0).to_vec(),
            });
        }
    }

    /// The rows of all pieces and of all crossings, for `A = scale · k`.
    fn pull_back(
        &self,
        network: &Network<T>,
        loss: &dyn LossFunction,
        (x, z): (&[T], &[T]),
        scale: f64,
    ) -> PathAdjoint<T> {
        if self.steps.is_empty() {
            return PathAdjoint {
                pieces: Vec::new(),
                crossings: Vec::new(),
            };
        }
        let a = self.kinks.mapv(|k| T::from_f64(scale) * k);
        let none = vec![0.0; network.outputs()];
        let patterns = self
            .steps
            .iter()
            .map(|step| &step.pattern)
            .chain([&self.last]);
        let pieces = patterns.enumerate().map(|(i, pattern)| {
            let before = i.checked_sub(1).map_or(&none, |i| &self.steps[i].residual);
            let after = self.steps.get(i).map_or(&none, |step| &step.residual);
            let seed = before.iter().zip(after).map(|(b, a)| T::from_f64(b - a));
            Row {
                pattern: pattern.clone(),
                seed: seed.collect(),
                margin: None,
                values: vec![a.to_vec()],
            }
        });
        let crossings = self
            .steps
            .iter()
            .map(|step| step.row(network, loss, (x, z), &a));
        PathAdjoint {
            pieces: pieces.collect(),
            crossings: crossings.collect(),
        }
    }
}

impl<T: Scalar> Step<T> {
    /// The derivative with respect to the margin, `−rate/ṁ`. A crossing that rounding alone makes
    /// of a margin that does not fall stays where it is.
    fn pace(&self, rate: f64) -> f64 {
        if self.fall == 0.0 {
            return 0.0;
        }
        -rate / self.fall
    }

    fn row(
        &self,
        network: &Network<T>,
        loss: &dyn LossFunction,
        (x, z): (&[T], &[T]),
        a: &Array1<T>,
    ) -> Row<T> {
        let along = self.normal.dot(a).into_f64();
        let change: Vec<f64> = self.output.iter().map(|u| along * u.into_f64()).collect();
        let mut w = vec![0.0; change.len()];
        loss.hessian_times(&self.state, &change, &mut w);
        let rate: f64 = w
            .iter()
            .zip(&self.rates)
            .map(|(w, f)| w * f.into_f64())
            .sum();
        let at = T::from_f64(self.at);
        let point: Array1<T> = x.iter().zip(z).map(|(&x, &z)| x + at * z).collect();
        let mut pass = Pass::default();
        pass.run(network, &self.pattern, point.view(), true);
        Row {
            pattern: self.pattern.clone(),
            seed: w.iter().map(|&w| T::from_f64(w)).collect(),
            margin: Some((self.face, self.pace(rate))),
            values: pass.into_values(),
        }
    }
}

/// Adds the parameter gradient of all rows, in blocks; the result is the derivative with respect to
/// the directions, `[B, D]`.
fn sweep_all<T: Scalar>(
    network: &Network<T>,
    paths: &[SegmentPath<T>],
    rows: &[PathAdjoint<T>],
    gradient: &mut Parameters<T>,
) -> Vec<T> {
    let mut pair = SweepPair::default();
    let pieces: Vec<&Row<T>> = rows.iter().flat_map(|rows| &rows.pieces).collect();
    for block in pieces.chunks(BLOCK) {
        sweep_pieces(network, block, &mut pair, gradient);
    }
    let crossings: Vec<(usize, f64, &Row<T>)> = paths
        .iter()
        .zip(rows)
        .enumerate()
        .flat_map(|(sample, (path, rows))| {
            let steps = path.steps.iter().zip(&rows.crossings);
            steps.map(move |(step, row)| (sample, step.at, row))
        })
        .collect();
    let d = network.inputs();
    let mut z_bar = vec![T::ZERO; paths.len() * d];
    for block in crossings.chunks(BLOCK) {
        sweep_crossings(network, block, &mut pair.cotangents, gradient);
        let at_input = pair.cotangents.at_input().chunks_exact(d);
        for ((sample, at, _), x_bar) in block.iter().zip(at_input) {
            let (to, at) = (&mut z_bar[sample * d..(sample + 1) * d], T::from_f64(*at));
            to.iter_mut().zip(x_bar).for_each(|(to, &x)| *to += at * x);
        }
    }
    z_bar
}

/// All patterns of some rows as those of one batch.
fn patterns<'r, T: Scalar>(rows: impl Iterator<Item = &'r Row<T>>) -> ActivationPattern {
    ActivationPattern::of_samples(rows.map(|row| &row.pattern))
}

/// The parts of the Jacobians: pairs of cotangents of the seeds and tangents of `A`.
fn sweep_pieces<T: Scalar>(
    network: &Network<T>,
    rows: &[&Row<T>],
    pair: &mut SweepPair<T>,
    gradient: &mut Parameters<T>,
) {
    let pattern = patterns(rows.iter().copied());
    let linearized = LinearizedBatch::new(network, &pattern, 0..rows.len());
    let seeds: Vec<T> = rows.iter().flat_map(|row| &row.seed).copied().collect();
    let seeds: ArrayView3<T> = per_sample(&seeds, 1, network.outputs());
    pair.cotangents.backward(
        &linearized,
        Seeds::PerSample(seeds),
        linearized.behind_input(),
    );
    let inputs: Vec<T> = rows
        .iter()
        .flat_map(|row| &row.values[0])
        .copied()
        .collect();
    pair.tangents.forward(&linearized, 1, &inputs);
    let (c, t) = (&pair.cotangents, &pair.tangents.buffers);
    linearized.weight_gradient(c, t, Accumulate::linear(T::ONE), gradient);
}

/// The parts of the logits and margins at the crossings, with the cotangents at the input.
fn sweep_crossings<T: Scalar>(
    network: &Network<T>,
    rows: &[(usize, f64, &Row<T>)],
    cotangents: &mut RowBatch<T>,
    gradient: &mut Parameters<T>,
) {
    let rows: Vec<&Row<T>> = rows.iter().map(|(_, _, row)| *row).collect();
    let pattern = patterns(rows.iter().copied());
    let linearized = LinearizedBatch::new(network, &pattern, 0..rows.len());
    let (k, output) = (network.outputs(), network.nodes.len() - 1);
    let mut sources = Vec::new();
    for (i, row) in rows.iter().enumerate() {
        let entries = row.seed.iter().enumerate().map(|(j, &w)| (i * k + j, w));
        sources.push(Source {
            node: output,
            entries: entries.collect(),
        });
        if let Some((face, weight)) = row.margin {
            sources.push(face.seeds(i, network.nodes[face.arrives].width, weight));
        }
    }
    cotangents.backward_from(&linearized, 1, &Source::together(sources), true);
    let by_slot = (0..network.slot_widths.len()).map(|slot| {
        let values = rows.iter().flat_map(|row| &row.values[slot]);
        values.copied().collect()
    });
    let values: Vec<Vec<T>> = by_slot.collect();
    linearized.weight_gradient(cotangents, &values, Accumulate::affine(), gradient);
}
