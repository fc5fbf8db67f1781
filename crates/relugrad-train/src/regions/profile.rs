//! The loss along a segment, with its exact derivative and the jumps of the derivative.

use ndarray::ArrayView1;
use relugrad::loss::TargetKind;
use relugrad::{GoOn, Kink, Loss, Network, Targets};
use serde::Serialize;

use crate::error::Result;
use crate::prediction::prediction;

/// A loss along `x + t z` for `t` from 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Profile {
    /// The stretches between crossings, in order.
    pub stretches: Vec<Stretch>,
    /// The crossings between them; one fewer.
    pub jumps: Vec<Jump>,
    /// Whether they reach to the end; false after an interrupt.
    pub complete: bool,
}

impl Profile {
    /// Up to which `t` they reach.
    pub fn end(&self) -> f64 {
        let last = self.stretches.last();
        let last = last.and_then(|stretch| stretch.points.last());
        last.map_or(0.0, |point| point[0])
    }
}

/// A part of the segment inside one region.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stretch {
    /// Points `[t, loss, d loss/d t]`, at least where it begins and where it ends.
    pub points: Vec<[f64; 3]>,
    /// The predicted class at each of them; none where the loss is of values.
    pub classes: Vec<usize>,
}

/// A gate that switches, and what it does to the derivative of the loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Jump {
    /// Where.
    pub at: f64,
    /// Layer of gates.
    pub layer: usize,
    /// Unit of the layer.
    pub unit: usize,
    /// What is added to `d loss/d t`.
    pub jump: f64,
}

/// Follows the loss of a class or of values, such as `Targets::Classes(&[3])`, along `x + t z` for
/// `t` from 0 to 1, with at least `points` points over the whole, or as far as it is when `go_on`
/// says no.
///
/// # Errors
/// Those of [`Network::walk`] and of [`Loss::evaluate`].
pub fn profile(
    network: &Network<f64>,
    x: ArrayView1<f64>,
    z: ArrayView1<f64>,
    loss: &Loss,
    targets: &Targets<f64>,
    points: usize,
    go_on: GoOn,
) -> Result<Profile> {
    let mut walk = network.walk(x, z, 1.0)?;
    let (mut stretches, mut jumps) = (Vec::new(), Vec::new());
    let mut before: Option<(f64, Kink)> = None;
    loop {
        let (start, end) = (walk.start(), walk.end());
        let steps = 1 + ((end - start) * points as f64).ceil() as usize;
        let rates = walk.logit_rates().to_owned();
        let (mut line, mut classes) = (Vec::new(), Vec::new());
        for i in 0..=steps {
            let t = start + (end - start) * i as f64 / steps as f64;
            let logits = walk.logits(t)?;
            let (value, residual) = loss.evaluate(&logits.to_vec(), targets)?;
            line.push([t, value, ArrayView1::from(&residual).dot(&rates)]);
            if targets.kind() != TargetKind::Values {
                classes.push(prediction(logits.view()));
            }
        }
        if let Some((slope, kink)) = before {
            jumps.push(Jump {
                at: start,
                layer: kink.layer,
                unit: kink.unit,
                jump: line[0][2] - slope,
            });
        }
        let slope = line[line.len() - 1][2];
        stretches.push(Stretch {
            points: line,
            classes,
        });
        let crossing = walk.cross()?;
        if crossing.is_none() || !go_on() {
            return Ok(Profile {
                stretches,
                jumps,
                complete: crossing.is_none(),
            });
        }
        before = crossing.map(|crossing| (slope, crossing.kink));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_abs_diff_eq;
    use ndarray::{Array1, Axis};
    use relugrad::Mlp;

    #[test]
    fn points_and_jumps_are_those_of_fresh_traces() {
        let network = Mlp::new(&[5, 16, 16, 3]).build::<f64>(3).unwrap();
        let x = Array1::from_shape_fn(5, |i| (i as f64).sin());
        let z = Array1::from_shape_fn(5, |i| 3.0 * (i as f64).cos());
        let along = |targets: Targets<f64>, go_on: GoOn| {
            let loss = Loss::softmax_cross_entropy();
            super::profile(&network, x.view(), z.view(), &loss, &targets, 40, go_on)
        };
        let profile = along(Targets::Classes(&[1]), &|| true).unwrap();
        assert!(profile.complete && profile.end() == 1.0);
        assert_eq!(profile.jumps.len() + 1, profile.stretches.len());
        assert!(profile.jumps.len() > 5);
        for stretch in &profile.stretches {
            for (i, &[t, loss, slope]) in stretch.points.iter().enumerate() {
                let at = (&x + &(t * &z)).insert_axis(Axis(0));
                let trace = network.trace(at.view()).unwrap();
                let (kind, targets) = (Loss::softmax_cross_entropy(), Targets::Classes(&[1]));
                assert_abs_diff_eq!(
                    trace.losses(&kind, &targets).unwrap()[0],
                    loss,
                    epsilon = 1e-12
                );
                let inside = i > 0 && i + 1 < stretch.points.len();
                let gradient = trace.input_gradient(&kind, &targets).unwrap();
                assert!(!inside || (gradient.row(0).dot(&z) - slope).abs() < 1e-10);
            }
        }
        let part = along(Targets::Classes(&[1]), &|| false).unwrap();
        assert!(!part.complete && part.jumps.is_empty());
        assert_eq!(part.stretches, profile.stretches[..1]);
        assert!(along(Targets::Classes(&[3]), &|| true).is_err());
    }
}
