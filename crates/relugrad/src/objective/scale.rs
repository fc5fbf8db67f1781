//! Evaluations whose numbers would leave the range of `f32` are carried out in `f64`.
//!
//! Sweeps multiply layers. With weights of `2^−100` and `2^100` in turn every result may be of
//! ordinary size while what is carried is not: activations that underflow close gates, a Gram
//! matrix that underflows has no eigenvectors. The root mean square of a layer's weights, times the
//! root of the number of terms, tells how much it enlarges what it carries; products over layers in
//! a row tell what a sweep meets.

use ndarray::ArrayView2;

use super::Objective;
use super::workspace::Workspace;
use crate::buffer::Buffer;
use crate::error::{Error, Result};
use crate::loss::Targets;
use crate::network::map::Map;
use crate::network::{Network, Node};
use crate::scalar::Scalar;
use crate::squares::Squares;

/// Entries of an array that are looked at, in blocks of neighbours.
const LOOKED_AT: usize = 512;
const BLOCK: usize = 16;

/// How many powers of two a layer may add without being extreme.
const PER_LAYER: f64 = 2.0;

/// Logarithms to base 2 of the smallest and the largest product of layers in a row, the first being
/// the input.
pub(super) struct Scale {
    low: f64,
    /// The node where the smallest product ends.
    lowest: usize,
    high: f64,
    layers: usize,
}

impl Scale {
    pub(super) fn of<T: Scalar>(network: &Network<T>, inputs: &ArrayView2<T>) -> Scale {
        let nodes = &network.nodes;
        let (mut lows, mut highs) = (
            Buffer::<f64>::zeros(nodes.len()),
            Buffer::zeros(nodes.len()),
        );
        let mut scale = Scale {
            low: 0.0,
            lowest: 0,
            high: 0.0,
            layers: 0,
        };
        for (i, node) in nodes.iter().enumerate() {
            let gain = if let Map::Input = node.map {
                gain_of_inputs(inputs)
            } else {
                gain(node, network.parameters().values())
            };
            scale.layers += usize::from(gain != 0.0);
            let before = |bounds: &Buffer<f64>, fold: fn(f64, f64) -> f64| {
                node.inputs
                    .iter()
                    .map(|&input| bounds[input])
                    .fold(0.0, fold)
            };
            lows[i] = before(&lows, f64::min) + gain;
            highs[i] = before(&highs, f64::max) + gain;
            if lows[i] < scale.low {
                (scale.low, scale.lowest) = (lows[i], i);
            }
            scale.high = scale.high.max(highs[i]);
        }
        scale
    }

    /// What layers may add without being extreme, in powers of two.
    fn slack(&self) -> f64 {
        PER_LAYER * self.layers as f64
    }

    /// Whether no product of layers leaves the range of `T`, nor, with penalties, its fourth power,
    /// of which the derivatives of `‖H‖_F²` are. Upward there is slack, because what overflows is
    /// noticed; what underflows is not.
    pub(super) fn fits<T: Scalar>(&self, penalties: bool) -> bool {
        let limit = limit::<T>(if penalties { 4.0 } else { 1.0 });
        -self.low <= limit && self.high <= limit + self.slack()
    }

    /// Refuses products whose squares underflow in the widest type; where only the products
    /// themselves count, those that do.
    pub(super) fn check<T: Scalar>(&self, network: &Network<T>, squares: bool) -> Result<()> {
        let limit = limit::<T>(if squares { 2.0 } else { 1.0 }) + self.slack();
        if -self.low <= limit {
            return Ok(());
        }
        Err(Error::Underflow {
            node: network.nodes[self.lowest].name.clone(),
            exponent: self.low as i32,
            precision: T::NAME,
        })
    }
}

/// How far products may go from 1, in powers of two, for their powers up to this one to be numbers
/// of full accuracy.
fn limit<T: Scalar>(power: f64) -> f64 {
    let digits = -T::EPSILON.into_f64().log2();
    (T::EXPONENTS - digits) / power
}

/// How much larger, as a logarithm to base 2, a node's values are than what it reads; 0 if it only
/// moves, adds or selects.
fn gain<T: Scalar>(node: &Node, parameters: &[T]) -> f64 {
    let affine = node.map.affine::<T>();
    let factors = affine.map_or_else(Default::default, |map| map.factors(parameters));
    if factors.is_empty() {
        return 0.0;
    }
    let terms = node.terms().max(1) as f64;
    size(factors.len(), |i| factors[i].into_f64()) + 0.5 * terms.log2()
}

fn gain_of_inputs<T: Scalar>(inputs: &ArrayView2<T>) -> f64 {
    let d = inputs.ncols();
    size(inputs.len(), |i| inputs[(i / d, i % d)].into_f64())
}

/// The logarithm of the root mean square of some of `count` numbers; 0 if those are all 0 or one is
/// not finite.
fn size(count: usize, at: impl Fn(usize) -> f64) -> f64 {
    let stride = (count * BLOCK).div_ceil(LOOKED_AT).max(BLOCK);
    let (mut squares, mut looked_at) = (Squares::default(), 0);
    for start in (0..count).step_by(stride) {
        let block = start..count.min(start + BLOCK);
        looked_at += block.len();
        block.for_each(|i| squares.add(at(i)));
    }
    let root = squares.root();
    if root > 0.0 && root.is_finite() {
        root.log2() - 0.5 * (looked_at as f64).log2()
    } else {
        0.0
    }
}

impl Objective {
    /// The evaluation of a network in `f32` carried out in `f64` and rounded.
    pub(super) fn evaluate_wide<T: Scalar>(
        &self,
        network: &Network<T>,
        inputs: ArrayView2<T>,
        targets: &Targets<T>,
        workspace: &mut Workspace<T>,
        derivatives: bool,
    ) -> Result<()> {
        let wide = network.widened();
        let inputs = inputs.mapv(Scalar::into_f64);
        let values;
        let targets = match targets {
            Targets::Classes(labels) => Targets::Classes(labels),
            Targets::Probabilities(rows) => {
                values = rows.mapv(Scalar::into_f64);
                Targets::Probabilities(values.view())
            }
            Targets::Values(rows) => {
                values = rows.mapv(Scalar::into_f64);
                Targets::Values(values.view())
            }
        };
        let mut inner = workspace.wide.take().unwrap_or_default();
        let found = self.evaluate(&wide, inputs.view(), &targets, &mut inner, derivatives);
        let found = found.and_then(|()| match inner.gradient() {
            Some(gradient) => {
                let fits = |g: f64| T::from_f64(g).is_finite();
                self.check_gradient((&wide, inputs.view(), &targets), gradient, &fits)
            }
            None => Ok(()),
        });
        let found = found.and_then(|()| workspace.round(network, &inner));
        workspace.wide = Some(inner);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mlp;
    use approx::assert_abs_diff_eq;
    use ndarray::Array2;

    /// A network with weights of layer `l` multiplied by `2^powers[l]`.
    fn scaled(powers: [i32; 3]) -> Network<f32> {
        let mut network = Mlp::new(&[20, 30, 40, 5]).build::<f32>(0).unwrap();
        let weights = network.parameters().layout().to_vec();
        let weights = weights.iter().filter(|info| info.shape().len() == 2);
        for (info, power) in weights.zip(powers) {
            let values = &mut network.parameters_mut().values_mut()[info.range()];
            values.iter_mut().for_each(|v| *v *= (power as f32).exp2());
        }
        network
    }

    #[test]
    fn layers_that_undo_each_other_are_extreme_all_the_same() {
        let inputs = Array2::from_elem((3, 20), 0.5f32);
        let of = |powers| Scale::of(&scaled(powers), &inputs.view());
        assert!(of([0, 0, 0]).fits::<f32>(true));
        assert!(of([10, 10, -20]).fits::<f32>(true));
        assert!(!of([0, -33, 0]).fits::<f32>(true) && of([0, -33, 0]).fits::<f32>(false));
        assert!(of([0, 30, 0]).fits::<f32>(true));
        for powers in [[100, 0, -100], [-100, 100, 0], [0, -60, 0], [-30, -30, -30]] {
            let scale = of(powers);
            assert!(
                !scale.fits::<f32>(true) && scale.fits::<f64>(true),
                "{powers:?}"
            );
        }
        assert_abs_diff_eq!(of([0, -60, 0]).low, -60.0, epsilon = 3.0);
    }
}
