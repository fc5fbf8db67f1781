//! What holds for every perturbation, and what was found for one: bounds on the smallest change of
//! class from both sides.

use ndarray::{Array1, Array2, ArrayView1, Axis};
use relugrad::{Network, Norm, Region};
use serde::{Deserialize, Serialize};

use crate::attack::Ball;
use crate::prediction::{difference, prediction};

/// Radii around a sample in one norm, without regard to the box of the data; T61 and T62 of
/// [theory](https://docs.rs/relugrad/latest/relugrad/theory/).
///
/// The smallest perturbation that changes the predicted class is not smaller than `lower` and not
/// larger than `upper`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Radii {
    /// Distance to the nearest kink: the network is affine within.
    pub kink: f64,
    /// Distance to the nearest decision boundary of the region's affine map,
    /// `min_k (f_y − f_k)/‖J_y − J_k‖_*` for the predicted class `y`. It is that of the network
    /// where it is less than `kink`, and else says nothing about it.
    pub boundary: f64,
    /// The smaller of both, less what rounding explains: no perturbation below it changes the
    /// class.
    pub lower: f64,
    /// The size of the smallest perturbation that was found to change the class, by a forward pass
    /// in `f64`.
    pub upper: Option<f64>,
    /// Whether no smaller perturbation than `upper` exists, but for rounding: the nearest boundary
    /// is nearer than any kink, and the class changes there.
    pub proven: bool,
}

/// How far beyond a boundary the class is looked at, relative to its distance; the first at which
/// it differs counts.
const BEYOND: [f64; 4] = [1e-12, 1e-9, 1e-6, 1e-3];

/// How much more than `lower` an `upper` may be that is proven to be the smallest.
const TIGHT: f64 = 1e-5;

/// How much further than a perturbation found in `f32` the class is looked at in `f64`.
const FURTHER: [f64; 4] = [0.0, 1e-6, 1e-5, 1e-4];

/// Halvings of the way from a sample to a perturbed one.
const HALVINGS: usize = 20;

/// The norms of certificates.
const NORMS: [Norm; 2] = [Norm::Linf, Norm::L2];

/// A sample in `f64` with what is known of its class.
pub(super) struct Certificate<'n> {
    network: &'n Network<f64>,
    x: Array1<f64>,
    y: usize,
}

impl<'n> Certificate<'n> {
    pub(super) fn new(
        network: &'n Network<f64>,
        x: Array1<f64>,
    ) -> relugrad::Result<Certificate<'n>> {
        let f = network.forward(x.view().insert_axis(Axis(0)))?;
        let y = prediction(f.row(0));
        Ok(Certificate { network, x, y })
    }

    /// The radii in ℓ∞ and in ℓ2, with the upper bounds that the region's boundaries give.
    pub(super) fn radii(&self) -> relugrad::Result<[Radii; 2]> {
        let region = self.network.region(self.x.view())?;
        let [linf, l2] = NORMS.map(|norm| self.in_norm(&region, norm));
        Ok([linf?, l2?])
    }

    fn in_norm(&self, region: &Region<f64>, norm: Norm) -> relugrad::Result<Radii> {
        let rivals = region.rivals(self.y, norm)?;
        let boundary = rivals.first().map_or(f64::INFINITY, |rival| rival.distance);
        let rounding = self.network.rounding();
        let (jacobian, logits) = (region.affine_map()?.0, region.logits());
        let largest = logits.iter().fold(0.0, |a: f64, f| a.max(f.abs()));
        let mut certain = region.certain_kink_distances().get(norm);
        let (mut upper, mut proven) = (None::<f64>, None);
        for rival in &rivals {
            let mut step = difference(jacobian.view(), rival.class, self.y);
            let size = norm.dual_length(step.iter().copied());
            let noise = rounding * largest / size;
            if size > 0.0 {
                certain = certain.min((rival.distance - noise).max(0.0) / (1.0 + rounding));
            }
            if !rival.distance.is_finite() {
                continue;
            }
            norm.steepest(&mut step, 1.0);
            let found = self.first_beyond(norm, &step, rival.distance)?;
            // The first rival is the nearest; others may be found nearer outside of the region.
            proven.get_or_insert(found);
            upper = smaller(upper, found);
        }
        let kink = region.kink_distances().get(norm);
        let (lower, proven) = (certain.min(kink).min(boundary), proven.flatten());
        Ok(Radii {
            kink,
            boundary,
            lower,
            upper,
            proven: boundary <= kink && proven.is_some_and(|upper| upper <= lower * (1.0 + TIGHT)),
        })
    }

    /// The size of the shortest step of a direction, at a distance or a little more, that changes
    /// the class.
    fn first_beyond(
        &self,
        norm: Norm,
        direction: &[f64],
        distance: f64,
    ) -> relugrad::Result<Option<f64>> {
        let direction = ArrayView1::from(direction);
        let points = BEYOND.map(|more| &self.x + &(&direction * (distance * (1.0 + more))));
        for point in &points {
            if let Some([size]) = self.changes(point.view(), [norm])? {
                return Ok(Some(size));
            }
        }
        Ok(None)
    }

    /// The size of the perturbation to a point at which the class is another one.
    fn changes<const N: usize>(
        &self,
        point: ArrayView1<f64>,
        norms: [Norm; N],
    ) -> relugrad::Result<Option<[f64; N]>> {
        let f = self.network.forward(point.insert_axis(Axis(0)))?;
        if prediction(f.row(0)) == self.y {
            return Ok(None);
        }
        let delta = || point.iter().zip(&self.x).map(|(a, b)| a - b);
        // Upward, so that rounding in the size itself is on the safe side.
        let up = 1.0 + (self.x.len() + 2) as f64 * f64::EPSILON;
        Ok(Some(norms.map(|norm| up * norm.length(delta()))))
    }

    /// Improves the upper bounds by a perturbed sample, if its class is another one, and by what
    /// halving the way to it finds.
    pub(super) fn improve(
        &self,
        radii: &mut [Radii; 2],
        perturbed: ArrayView1<f64>,
    ) -> relugrad::Result<()> {
        let whole = &perturbed - &self.x;
        let mut found = None;
        for more in FURTHER {
            let delta = &whole * (1.0 + more);
            if let Some(sizes) = self.changes((&self.x + &delta).view(), NORMS)? {
                found = Some((sizes, delta));
                break;
            }
        }
        let Some((sizes, delta)) = found else {
            return Ok(());
        };
        let better = |radii: &[Radii; 2], sizes: [f64; 2]| {
            (0..2).any(|i| radii[i].upper.is_none_or(|upper| sizes[i] < upper))
        };
        let take = |radii: &mut [Radii; 2], sizes: [f64; 2]| {
            for (radii, size) in radii.iter_mut().zip(sizes) {
                radii.upper = smaller(radii.upper, Some(size));
            }
        };
        take(radii, sizes);
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..HALVINGS {
            // What is left to be found on the way is no smaller than the part that keeps the class.
            if !better(radii, sizes.map(|size| low * size)) {
                break;
            }
            let middle = 0.5 * (low + high);
            let point = &self.x + &(middle * &delta);
            match self.changes(point.view(), NORMS)? {
                Some(sizes) => {
                    take(radii, sizes);
                    high = middle;
                }
                None => low = middle,
            }
        }
        Ok(())
    }
}

fn smaller(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// A perturbed sample in `f64`.
pub(super) fn wide<T: relugrad::Scalar>(rows: &Array2<T>, row: usize) -> Array1<f64> {
    rows.row(row).mapv(|x| x.into_f64())
}
