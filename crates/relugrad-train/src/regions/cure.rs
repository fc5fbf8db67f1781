//! CURE's finite difference at samples, split into its smooth part and its kinks.

use ndarray::{ArrayView1, Axis};
use relugrad::{Loss, Network, Targets, gradient_change};
use serde::{Deserialize, Serialize};

use crate::statistics::Quantiles;

/// CURE's difference of input gradients `Δ`, along `z = sign(g)/‖sign(g)‖`, in its two parts (T54
/// of [theory](https://docs.rs/relugrad/latest/relugrad/theory/)).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CureParts {
    /// The step `h`, in input units.
    pub step: f64,
    /// Gates that switch on the step.
    pub crossings: Quantiles,
    /// Mean of `‖Δ‖²`.
    pub total: f64,
    /// Mean of the squared norm of the smooth part.
    pub smooth: f64,
    /// Mean of the squared norm of the kinks' part.
    pub kinks: f64,
    /// `Σ ⟨kinks, Δ⟩ / Σ ‖Δ‖²`: the share of the kinks, negative if they oppose the rest; 0 if
    /// there is no change.
    pub share: f64,
    /// The sum of the norms of the jumps per unit of length ([`Network::kink_curvature`]).
    pub kink_curvature: Quantiles,
}

/// CURE's step at one sample.
#[derive(Clone, Copy, Debug)]
pub(super) struct CureStep {
    crossings: f64,
    total: f64,
    smooth: f64,
    kinks: f64,
    /// `⟨kinks, Δ⟩`.
    along: f64,
    kink_curvature: f64,
}

/// Splits the step at a sample.
pub(super) fn cure_step(
    network: &Network<f64>,
    loss: &Loss,
    x: ArrayView1<f64>,
    targets: &Targets<f64>,
    step: f64,
) -> relugrad::Result<CureStep> {
    let trace = network.trace(x.insert_axis(Axis(0)))?;
    let gradient = trace
        .input_gradient(loss, targets)?
        .index_axis_move(Axis(0), 0);
    let sign = gradient.mapv(|g| if g == 0.0 { 0.0 } else { g.signum() });
    let z = &sign / sign.dot(&sign).sqrt().max(1.0);
    let pieces = network.pieces(x, z.view(), step)?;
    let change = gradient_change(&pieces, loss, targets)?;
    let total = &change.smooth + &change.kinks;
    Ok(CureStep {
        crossings: (pieces.len() - 1) as f64,
        total: total.dot(&total),
        smooth: change.smooth.dot(&change.smooth),
        kinks: change.kinks.dot(&change.kinks),
        along: change.kinks.dot(&total),
        kink_curvature: network.kink_curvature(x, z.view(), step, loss, targets)?,
    })
}

/// The parts over all samples; `None` without any.
pub(super) fn cure_parts(steps: &[CureStep], step: f64) -> Option<CureParts> {
    let sum = |of: fn(&CureStep) -> f64| steps.iter().map(of).sum::<f64>();
    let (n, total) = (steps.len() as f64, sum(|s| s.total));
    Some(CureParts {
        step,
        crossings: Quantiles::of(steps.iter().map(|s| s.crossings).collect())?,
        total: total / n,
        smooth: sum(|s| s.smooth) / n,
        kinks: sum(|s| s.kinks) / n,
        share: if total > 0.0 {
            sum(|s| s.along) / total
        } else {
            0.0
        },
        kink_curvature: Quantiles::of(steps.iter().map(|s| s.kink_curvature).collect())?,
    })
}
