//! How far every gate is from its kink, in the affine map of a sample's region.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

use super::frozen::Pass;
use crate::error::{Result, check_array, check_finite};
use crate::network::Network;
use crate::scalar::Scalar;

/// The margins of all gates at a sample, in the order of layers and units.
///
/// A margin is `|z|` for the pre-activation `z` of a unit, continued affinely: it is positive in
/// the region, 0 at the unit's kink and negative beyond (section 1.1 of [theory](crate::theory)). A
/// clip has one for each of its bounds, the lower bounds of a layer first; a maximum one for each
/// entry of its window that has not won, the distance to the winner. A margin whose gradient is 0
/// is nowhere crossed.
#[derive(Clone, Debug)]
pub struct Margins<T> {
    /// `|z_j|` at the sample, or the other distances; `[N]`.
    pub values: Array1<T>,
    /// Their gradients with respect to the input; `[N, D]`.
    pub gradients: Array2<T>,
}

impl<T: Scalar> Network<T> {
    /// What rounding explains of a difference between values of the network, relative to their
    /// size: `8 √n ε` with the number `n` of terms that the values on the way are sums of.
    pub fn rounding(&self) -> f64 {
        let terms: usize = self.nodes().iter().map(|node| node.terms()).sum();
        8.0 * (terms as f64).sqrt() * T::EPSILON.into_f64()
    }

    /// How many gates of each sample are within rounding of a kink; `inputs: [B, D]`.
    ///
    /// A margin `m` counts if it changes with the input at all and `|m| ≤ 8 √n ε max |m'|`, the
    /// maximum over the gate's layer and `n` the number of terms that the values on the way are
    /// sums of. Whether it changes is told by its derivative in a random direction. Cost: two
    /// forward rows besides the trace.
    ///
    /// # Errors
    /// Those of [`trace`](Self::trace), and [`Error::NotFinite`](crate::Error::NotFinite) for a
    /// margin that overflows.
    pub fn near_kinks(&self, inputs: ArrayView2<T>) -> Result<Vec<usize>> {
        let mut random = ChaCha8Rng::seed_from_u64(0);
        let mut direction = || T::from_f64(random.sample(StandardNormal));
        let direction = Array1::from_shape_simple_fn(self.inputs(), &mut direction);
        let rounding = T::from_f64(self.rounding());
        let (mut here, mut along) = (Pass::default(), Pass::default());
        let count = |x: ArrayView1<T>| {
            let trace = self.trace(x.insert_axis(Axis(0)))?;
            here.run(self, trace.pattern(), x, true);
            along.run(self, trace.pattern(), direction.view(), false);
            let margins = here.margins(self, trace.pattern(), true);
            let rates = along.margins(self, trace.pattern(), false);
            for layer in margins.iter().chain(&rates) {
                check_array("a margin", &[layer.len()], layer)?;
            }
            let layers = margins.iter().zip(&rates);
            let near = layers.map(|(margins, rates)| {
                let largest = margins.iter().fold(T::ZERO, |a, m| a.max(m.abs()));
                let pairs = margins.iter().zip(rates);
                pairs
                    .filter(|(m, rate)| m.abs() <= rounding * largest && **rate != T::ZERO)
                    .count()
            });
            Ok(near.sum())
        };
        inputs.rows().into_iter().map(count).collect()
    }

    /// All `N` margins at one sample; `x: [D]`.
    ///
    /// `min_j values_j / ‖gradients_j‖` in the dual norm is the distance to the nearest kink (T61),
    /// and `values_j / −⟨gradients_j, v⟩` the step along `v` to that of unit `j` (T2).
    ///
    /// Cost: `D` forward rows, and memory for `N·D` numbers.
    ///
    /// # Errors
    /// Those of [`trace`](Self::trace), and [`Error::NotFinite`](crate::Error::NotFinite) for a
    /// margin or a gradient that overflows.
    pub fn margins(&self, x: ArrayView1<T>) -> Result<Margins<T>> {
        let trace = self.trace(x.insert_axis(Axis(0)))?;
        let pattern = trace.pattern();
        let mut pass = Pass::default();
        pass.run(self, pattern, x, true);
        let mut values = Array1::from_vec(pass.margins(self, pattern, true).concat());
        let mut gradients = Array2::zeros((values.len(), self.inputs()));
        let mut unit = Array1::zeros(self.inputs());
        for (i, mut column) in gradients.columns_mut().into_iter().enumerate() {
            unit[i] = T::ONE;
            pass.run(self, pattern, unit.view(), false);
            let rates = pass.margins(self, pattern, false).concat();
            column
                .iter_mut()
                .zip(rates)
                .for_each(|(to, rate)| *to = rate);
            unit[i] = T::ZERO;
        }
        values.mapv_inplace(T::abs);
        check_array(
            "a margin",
            values.shape(),
            values.as_slice().expect("one row"),
        )?;
        let entries = gradients.as_slice().expect("standard layout");
        check_finite("the gradient of a margin", self.inputs(), entries)?;
        Ok(Margins { values, gradients })
    }
}

#[cfg(test)]
mod tests {
    use crate::{Builder, Error};
    use ndarray::array;

    #[test]
    fn margins_by_hand() {
        // z = (x1 − 1, 2 x1 + x2) at (3, −8): the first is active, the second is not; then z = 5 ·
        // 2 − 1.
        let mut builder = Builder::<f64>::new();
        let x = builder.input(2).unwrap();
        let weight = array![[1.0, 0.0], [2.0, 1.0]];
        let z = builder.dense(x, weight, Some(array![-1.0, 0.0])).unwrap();
        let a = builder.relu(z).unwrap();
        let weight = array![[5.0, 7.0]];
        let z = builder.dense(a, weight, Some(array![-1.0])).unwrap();
        let f = builder.relu(z).unwrap();
        let network = builder.build(f).unwrap();
        let margins = network.margins(array![3.0, -8.0].view()).unwrap();
        assert_eq!(margins.values, array![2.0, 2.0, 9.0]);
        assert_eq!(
            margins.gradients,
            array![[1.0, 0.0], [-2.0, -1.0], [5.0, 0.0]]
        );
        let shape = network.margins(array![1.0].view());
        assert!(matches!(shape, Err(Error::Shape { .. })));
    }
}
