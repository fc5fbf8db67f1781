//! Penalties on the distances to the hyperplanes of a sample's region: the maximum margin
//! regularizer.
//!
//! A distance is `d = m/‖v‖` with a margin `m` and its gradient `v`, both functions of the
//! parameters; `m` is a value in the network (or a difference of two) and `v` its cotangent at the
//! input. So `∂d/∂m = 1/‖v‖` goes back through the network as any derivative with respect to a
//! value does, and `∂d/∂v = −(m/‖v‖²) ∂‖v‖/∂v` is the tangent that goes with the cotangents `v`
//! into the weight gradient, as for the Jacobian.

use ndarray::{ArrayView1, ArrayView2};

use super::GeometricStage;
use crate::error::{Error, Result, check_finite};
use crate::network::map::Accumulate;
use crate::norm::Norm;
use crate::norm::sign;
use crate::objective::forward::{Adjoint, Context};
use crate::penalty::Hinge;
use crate::region::{Distances, Face, Rival, rivals};
use crate::scalar::Scalar;
use crate::sweep::{LinearizedBatch, Seeds, Source};

/// A hyperplane within the radius, at a sample.
struct Close {
    sample: usize,
    face: Face,
    /// Derivative of the objective in the distance.
    weight: f64,
    margin: f64,
    /// The dual norm of the margin's gradient.
    size: f64,
}

impl<T: Scalar> GeometricStage<T> {
    /// `region-boundary`: adds the values and, with an adjoint, its derivatives.
    pub(super) fn region(
        &mut self,
        at: &Context<T>,
        (lambda, hinge): (f64, &Hinge),
        values: &mut [f64],
        adjoint: Option<&mut Adjoint<T>>,
    ) -> Result<()> {
        let (network, state) = (at.network, &at.forward.state);
        let inputs = ArrayView2::from_shape((values.len(), network.inputs()), &state.buffers[0]);
        let inputs = inputs.expect("slot 0 holds the inputs");
        let all = Distances::of(network, inputs, &state.pattern)?;
        let mut close = Vec::new();
        for (sample, (distances, value)) in all.iter().zip(values).enumerate() {
            let weight = at.forward.share(lambda, sample);
            let nearest = distances.smallest(hinge.nearest, hinge.norm);
            let count = nearest.len().max(1) as f64;
            let hinges = nearest.iter().map(|&(_, distance)| hinge.value(distance));
            *value += hinges.sum::<f64>() / count;
            let within = nearest
                .iter()
                .filter(|(_, distance)| *distance < hinge.radius);
            close.extend(within.map(|&(number, _)| Close {
                sample,
                face: network.face(&state.pattern, sample, distances.place(number)),
                weight: -weight / (hinge.radius * count),
                margin: distances.margins[number],
                size: distances.size(number, hinge.norm),
            }));
        }
        if let Some(adjoint) = adjoint
            && !close.is_empty()
        {
            self.pull_region_back(at, &close, hinge, adjoint);
        }
        Ok(())
    }

    fn pull_region_back(
        &mut self,
        at: &Context<T>,
        close: &[Close],
        hinge: &Hinge,
        adjoint: &mut Adjoint<T>,
    ) {
        let (network, state, d) = (at.network, &at.forward.state, at.network.inputs());
        let samples = state.samples;
        let per_sample = |sample| close.iter().filter(|c| c.sample == sample).count();
        let count = (0..samples).map(per_sample).max().unwrap_or(0);
        let (mut normals, mut margins) = (Vec::new(), Vec::new());
        let (mut places, mut used) = (Vec::new(), vec![0; samples]);
        for c in close {
            let row = c.sample * count + used[c.sample];
            used[c.sample] += 1;
            places.push(row);
            let width = network.nodes[c.face.arrives].width;
            normals.push(c.face.seeds(row, width, 1.0));
            margins.push(c.face.seeds(c.sample, width, c.weight / c.size));
        }
        let linearized = LinearizedBatch::all(network, state);
        let (normals, margins) = (Source::together(normals), Source::together(margins));
        let (pair, gradient) = (&mut self.pair, &mut adjoint.parameters);
        pair.cotangents
            .backward_from(&linearized, count, &normals, true);
        let mut a = vec![T::ZERO; samples * count * d];
        for (c, row) in close.iter().zip(places) {
            let row = row * d..(row + 1) * d;
            let normal = &pair.cotangents.at_input()[row.clone()];
            // Not divided by ‖v‖², which overflows and underflows before the quotient does.
            let scale = -c.weight * (c.margin / c.size) / c.size;
            add_dual_derivative(hinge.norm, normal, c.size, scale, &mut a[row]);
        }
        pair.tangents.forward(&linearized, count, &a);
        let (c, t) = (&pair.cotangents, &pair.tangents.buffers);
        linearized.weight_gradient(c, t, Accumulate::linear(T::ONE), gradient);
        pair.cotangents
            .backward_from(&linearized, 1, &margins, false);
        let (c, values) = (&pair.cotangents, &state.buffers);
        linearized.weight_gradient(c, values, Accumulate::affine(), gradient);
    }

    /// `decision-boundary`: adds the values and, with an adjoint, its derivatives.
    pub(super) fn decision(
        &mut self,
        at: &Context<T>,
        (lambda, hinge): (f64, &Hinge),
        values: &mut [f64],
        mut adjoint: Option<&mut Adjoint<T>>,
    ) -> Result<()> {
        let (network, forward) = (at.network, at.forward);
        let (k, d) = (network.outputs(), network.inputs());
        if k < 2 {
            return Err(Error::Loss {
                loss: at.objective.loss.name().to_owned(),
                problem: "has one logit here; a decision boundary is between two".into(),
            });
        }
        let linearized = LinearizedBatch::all(network, &forward.state);
        let cotangents = &mut self.pair.cotangents;
        cotangents.backward(&linearized, Seeds::identity(k), linearized.nodes());
        check_finite("the Jacobian", k * d, cotangents.at_input())?;
        let length = if adjoint.is_some() {
            values.len() * k * d
        } else {
            0
        };
        let mut a = vec![T::ZERO; length];
        let logits = forward.state.logits(network).chunks_exact(k);
        for (sample, (logits, value)) in logits.zip(values).enumerate() {
            let class = at.point(sample).label();
            let jacobian = &cotangents.at_input()[sample * k * d..(sample + 1) * k * d];
            let view = ArrayView2::from_shape((k, d), jacobian).expect("K rows of D");
            let rivals = rivals(ArrayView1::from(logits), view, class, hinge.norm)
                .map_err(|error| at_sample(error, sample))?;
            let nearest = &rivals[..hinge.nearest.min(rivals.len())];
            let hinges = nearest.iter().map(|rival| hinge.value(rival.distance));
            let count = nearest.len() as f64;
            *value += hinges.sum::<f64>() / count;
            let Some(adjoint) = adjoint.as_deref_mut() else {
                continue;
            };
            let slope = -forward.share(lambda, sample) / (hinge.radius * count);
            for rival in nearest.iter().filter(|rival| rival.distance < hinge.radius) {
                let logit_adjoint = &mut adjoint.logits[sample * k..(sample + 1) * k];
                let a = &mut a[sample * k * d..(sample + 1) * k * d];
                pull_rival_back(
                    hinge.norm,
                    (class, rival),
                    slope,
                    jacobian,
                    logit_adjoint,
                    a,
                );
            }
        }
        if let Some(adjoint) = adjoint {
            let pair = &mut self.pair;
            pair.tangents.forward(&linearized, k, &a);
            let (c, t) = (&pair.cotangents, &pair.tangents.buffers);
            let (accumulate, gradient) = (Accumulate::linear(T::ONE), &mut adjoint.parameters);
            linearized.weight_gradient(c, t, accumulate, gradient);
        }
        Ok(())
    }
}

/// Adds `slope` times the derivative of the distance to a rival of `class`, in the logits and in
/// the Jacobian `[K, D]`.
fn pull_rival_back<T: Scalar>(
    norm: Norm,
    (class, rival): (usize, &Rival),
    slope: f64,
    jacobian: &[T],
    logit_adjoint: &mut [f64],
    a: &mut [T],
) {
    let d = jacobian.len() / logit_adjoint.len();
    let row = |c: usize| c * d..(c + 1) * d;
    let pairs = jacobian[row(class)].iter().zip(&jacobian[row(rival.class)]);
    let normal: Vec<T> = pairs.map(|(&own, &other)| own - other).collect();
    let size = norm.dual_norm(normal.iter().map(|n| n.into_f64()));
    logit_adjoint[class] += slope / size;
    logit_adjoint[rival.class] -= slope / size;
    let mut bar = vec![T::ZERO; d];
    let scale = -slope * rival.distance / size;
    add_dual_derivative(norm, &normal, size, scale, &mut bar);
    let add = |a: &mut [T], sign: T| {
        let pairs = a.iter_mut().zip(&bar);
        pairs.for_each(|(a, &bar)| *a += sign * bar);
    };
    add(&mut a[row(class)], T::ONE);
    add(&mut a[row(rival.class)], -T::ONE);
}

/// Adds `scale` times the derivative of the dual norm at `v`, which is `size` there. Where it is
/// not differentiable, the first largest entry counts, and zero entries have none.
fn add_dual_derivative<T: Scalar>(norm: Norm, v: &[T], size: f64, scale: f64, bar: &mut [T]) {
    let factor = T::from_f64(scale);
    match norm {
        Norm::L1 => {
            let larger = |best: usize, i: usize| if v[i].abs() > v[best].abs() { i } else { best };
            let first = (0..v.len()).fold(0, larger);
            bar[first] += factor * sign(v[first]);
        }
        Norm::L2 => {
            // A unit vector first: `scale / size` can overflow where the product does not.
            let unit = |v: T| v.into_f64() / size;
            bar.iter_mut()
                .zip(v)
                .for_each(|(bar, &v)| *bar += T::from_f64(scale * unit(v)));
        }
        Norm::Linf => bar
            .iter_mut()
            .zip(v)
            .for_each(|(bar, &v)| *bar += factor * sign(v)),
    }
}

/// The error of one sample, which does not know its number.
fn at_sample(mut error: Error, sample: usize) -> Error {
    if let Error::NotFinite { index, .. } = &mut error {
        index.insert(0, sample);
    }
    error
}
