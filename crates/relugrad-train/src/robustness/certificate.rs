//! What holds for every perturbation: distances to the nearest kink and to the decision boundary of the region.

use ndarray::{ArrayView1, ArrayView2, Axis};
use relugrad::{Network, Scalar};
use serde::{Deserialize, Serialize};

use crate::attack::Norm;

/// Radii around a sample in one norm, without regard to the box of the data; T61 and T62 of `docs/theory.md`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Radii {
    /// Distance to the nearest kink: the network is affine within.
    pub kink: f64,
    /// Distance to the nearest decision boundary of the region's affine map, `min_k (f_y − f_k)/‖J_y − J_k‖_*` for the
    /// predicted class `y`.
    pub boundary: f64,
    /// The smaller of both: no perturbation below it changes the class.
    pub certified: f64,
    /// The exact size of the smallest perturbation inside the region that reaches the decision boundary at the nearest
    /// point of the affine map, if that point is in the region. If it is also nearer than the nearest kink, no smaller one
    /// exists anywhere.
    pub minimal: Option<f64>,
}

/// The radii of one sample in a norm.
pub(super) fn radii<T: Scalar>(
    network: &Network<T>,
    norm: Norm,
    kink: f64,
    x: ArrayView1<T>,
    f: ArrayView1<T>,
    j: ArrayView2<T>,
    y: usize,
) -> relugrad::Result<Radii> {
    let rivals = (0..f.len()).filter(|&k| k != y).filter_map(|k| {
        let rows = j.row(k).into_iter().zip(j.row(y));
        let w: Vec<f64> = rows.map(|(a, b)| a.into_f64() - b.into_f64()).collect();
        let size = norm.dual_of(w.iter().copied());
        let gap = f[y].into_f64() - f[k].into_f64();
        (size > 0.0).then(|| (gap / size, w))
    });
    let nearest = rivals.min_by(|a, b| a.0.total_cmp(&b.0));
    let (boundary, minimal) = match nearest {
        None => (f64::INFINITY, None),
        Some((distance, mut step)) => {
            norm.steepest(&mut step, distance);
            let there = x.iter().zip(&step).map(|(&x, &s)| x + T::from_f64(s));
            let there = ndarray::Array1::from_iter(there).insert_axis(Axis(0));
            let here = network.trace(x.insert_axis(Axis(0)))?;
            let inside = distance <= kink
                || here
                    .pattern()
                    .same_region(0, network.trace(there.view())?.pattern(), 0);
            (distance, inside.then_some(distance))
        }
    };
    Ok(Radii {
        kink,
        boundary,
        certified: kink.min(boundary),
        minimal,
    })
}
