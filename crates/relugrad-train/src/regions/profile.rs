//! The loss along a segment, with its exact derivative and the jumps of the derivative.

use ndarray::{Array1, ArrayView1};
use relugrad::{GoOn, Kink, Network};
use serde::Serialize;

use crate::error::{Error, Result};

/// The softmax cross-entropy of a label along `x + t z` for `t` from 0 to 1.
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
    /// The predicted class at each of them.
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

/// Follows the loss of `label` along `x + t z` for `t` from 0 to 1, with at least `points` points over the whole, or as far
/// as it is when `go_on` says no.
///
/// # Errors
/// Those of [`Network::walk`]; [`Error::Engine`] if there is no such class.
pub fn profile(
    network: &Network<f64>,
    x: ArrayView1<f64>,
    z: ArrayView1<f64>,
    label: usize,
    points: usize,
    go_on: GoOn,
) -> Result<Profile> {
    if label >= network.outputs() {
        return Err(Error::Engine(relugrad::Error::Label {
            sample: 0,
            label,
            classes: network.outputs(),
        }));
    }
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
            let (loss, residual) = cross_entropy(&logits, label);
            line.push([t, loss, residual.dot(&rates)]);
            classes.push(crate::prediction::prediction(&logits.to_vec()));
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

/// The loss of a label and its derivative in the logits.
fn cross_entropy(logits: &Array1<f64>, label: usize) -> (f64, Array1<f64>) {
    let largest = logits.iter().fold(f64::NEG_INFINITY, |a, &f| a.max(f));
    let powers = logits.mapv(|f| (f - largest).exp());
    let sum = powers.sum();
    let mut residual = powers / sum;
    residual[label] -= 1.0;
    (sum.ln() + largest - logits[label], residual)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Axis;
    use relugrad::{Loss, Mlp, Targets};

    #[test]
    fn points_and_jumps_are_those_of_fresh_traces() {
        let network = Mlp::new(&[5, 16, 16, 3]).build::<f64>(3).unwrap();
        let x = Array1::from_shape_fn(5, |i| (i as f64).sin());
        let z = Array1::from_shape_fn(5, |i| 3.0 * (i as f64).cos());
        let profile = profile(&network, x.view(), z.view(), 1, 40, &|| true).unwrap();
        assert!(profile.complete && profile.end() == 1.0);
        assert_eq!(profile.jumps.len() + 1, profile.stretches.len());
        assert!(profile.jumps.len() > 5);
        for stretch in &profile.stretches {
            for (i, &[t, loss, slope]) in stretch.points.iter().enumerate() {
                let at = (&x + &(t * &z)).insert_axis(Axis(0));
                let trace = network.trace(at.view()).unwrap();
                let (kind, targets) = (Loss::softmax_cross_entropy(), Targets::Classes(&[1]));
                assert!((trace.losses(&kind, &targets).unwrap()[0] - loss).abs() < 1e-12);
                let inside = i > 0 && i + 1 < stretch.points.len();
                let gradient = trace.input_gradient(&kind, &targets).unwrap();
                assert!(!inside || (gradient.row(0).dot(&z) - slope).abs() < 1e-10);
            }
        }
        let part = super::profile(&network, x.view(), z.view(), 1, 40, &|| false).unwrap();
        assert!(!part.complete && part.jumps.is_empty());
        assert_eq!(part.stretches, profile.stretches[..1]);
        assert!(super::profile(&network, x.view(), z.view(), 3, 40, &|| true).is_err());
    }
}
