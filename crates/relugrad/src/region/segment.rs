//! The exact pieces of a network along a segment of inputs, and a finite difference of input
//! gradients split by them (T54 of [theory](crate::theory)).

use ndarray::{Array1, Array2, ArrayView1};

use crate::error::{Error, Result, check_array};
use crate::loss::{Loss, LossBatch, Targets};
use crate::network::Network;
use crate::scalar::Scalar;

/// A stretch of a segment on which no gate switches, and the network is affine.
#[derive(Clone, Debug)]
pub struct Piece<T> {
    /// Where it begins; `t` of `x + t z`.
    pub start: f64,
    /// Where it ends. A piece of length 0 stands between gates that switch at the same point.
    pub end: f64,
    /// The Jacobian on it; `[K, D]`.
    pub jacobian: Array2<T>,
    /// The logits where it begins; `[K]`.
    pub logits_start: Array1<T>,
    /// The logits where it ends; `[K]`.
    pub logits_end: Array1<T>,
}

/// The change of the input gradient over a segment, split exactly:
/// `∇ℓ(x + h z) − ∇ℓ(x) = smooth + kinks`.
#[derive(Clone, Debug)]
pub struct GradientChange<T> {
    /// `Σ_i J_iᵀ (r(t_{i+1}) − r(t_i))`: what the curvature of the loss inside the pieces adds up
    /// to; `[D]`.
    pub smooth: Array1<T>,
    /// `Σ_i (J_{i+1} − J_i)ᵀ r(t_{i+1})`: the jumps at the crossings; `[D]`.
    pub kinks: Array1<T>,
}

impl<T: Scalar> Network<T> {
    /// All pieces of the network along `x + t z` for `t` from 0 to `length`, in order; `x: [D]`,
    /// `z: [D]`.
    ///
    /// Cost: that of a [`walk`](Self::walk) with its Jacobian, and memory for `K·D` numbers a
    /// piece.
    ///
    /// # Errors
    /// Those of [`walk`](Self::walk) and [`Walk::cross`](crate::Walk::cross).
    pub fn pieces(&self, x: ArrayView1<T>, z: ArrayView1<T>, length: f64) -> Result<Vec<Piece<T>>> {
        let mut walk = self.walk(x, z, length)?;
        let mut pieces = Vec::new();
        loop {
            let (start, end) = (walk.start(), walk.end());
            pieces.push(Piece {
                start,
                end,
                jacobian: walk.jacobian()?.clone(),
                logits_start: walk.logits(start)?,
                logits_end: walk.logits(end)?,
            });
            if walk.cross()?.is_none() {
                return Ok(pieces);
            }
        }
    }
}

/// The change of the input gradient over `pieces`, which must not be empty; `targets` of one
/// sample.
///
/// # Errors
/// Those of the targets; [`Error::EmptyBatch`] without pieces; [`Error::NotFinite`] if it
/// overflows.
pub fn gradient_change<T: Scalar>(
    pieces: &[Piece<T>],
    loss: &Loss,
    targets: &Targets<T>,
) -> Result<GradientChange<T>> {
    let Some(first) = pieces.first() else {
        return Err(Error::EmptyBatch {
            what: "pieces".into(),
        });
    };
    let (k, d) = first.jacobian.dim();
    let mut target = Vec::new();
    targets.resolve(loss, 1, k, &mut target)?;
    let (mut batch, function) = (LossBatch::default(), loss.function());
    let mut residual = |logits: &Array1<T>| -> Array1<T> {
        let logits: Vec<T> = logits.to_vec();
        batch.fill(&*function, &logits, &target, k);
        batch.residual(0).iter().map(|&r| T::from_f64(r)).collect()
    };
    let mut change = GradientChange {
        smooth: Array1::zeros(d),
        kinks: Array1::zeros(d),
    };
    for (i, piece) in pieces.iter().enumerate() {
        let end = residual(&piece.logits_end);
        let difference = &end - &residual(&piece.logits_start);
        change.smooth += &piece.jacobian.t().dot(&difference);
        if let Some(next) = pieces.get(i + 1) {
            change.kinks += &(&next.jacobian - &piece.jacobian).t().dot(&end);
        }
    }
    for part in [&change.smooth, &change.kinks] {
        let entries = part.as_slice().expect("one row");
        check_array("a change of the input gradient", part.shape(), entries)?;
    }
    Ok(change)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Builder, Gate, Mlp};
    use approx::assert_abs_diff_eq;
    use ndarray::{Axis, array};

    #[test]
    fn crossings_by_hand() {
        // f = |x − 1| + 2 max(x − 3, 0) along x = 4 t: kinks at t = 1/4 and 3/4.
        let mut builder = Builder::<f64>::new();
        let x = builder.input(1).unwrap();
        let left = builder.dense(x, array![[1.0]], Some(array![-1.0])).unwrap();
        let left = builder.gate(left, Gate::Abs).unwrap();
        let right = builder.dense(x, array![[2.0]], Some(array![-6.0])).unwrap();
        let right = builder.relu(right).unwrap();
        let f = builder.sum(&[left, right]).unwrap();
        let network = builder.build(f).unwrap();
        let pieces = network
            .pieces(array![0.0].view(), array![4.0].view(), 1.0)
            .unwrap();
        let found: Vec<_> = pieces
            .iter()
            .map(|p| (p.start, p.end, p.jacobian[(0, 0)]))
            .collect();
        assert_eq!(
            found,
            [(0.0, 0.25, -1.0), (0.25, 0.75, 1.0), (0.75, 1.0, 3.0)]
        );
        assert_eq!(pieces[2].logits_end, array![5.0]);
    }

    #[test]
    fn duplicate_units_switch_one_by_one_and_a_start_on_a_kink_has_an_answer() {
        let mut builder = Builder::<f64>::new();
        let x = builder.input(1).unwrap();
        let z = builder.dense(x, array![[1.0], [1.0]], None).unwrap();
        let a = builder.relu(z).unwrap();
        let f = builder.dense(a, array![[1.0, 2.0]], None).unwrap();
        let network = builder.build(f).unwrap();
        let pieces = network
            .pieces(array![0.0].view(), array![1.0].view(), 1.0)
            .unwrap();
        let found: Vec<_> = pieces
            .iter()
            .map(|p| (p.start, p.end, p.jacobian[(0, 0)]))
            .collect();
        assert_eq!(found, [(0.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, 1.0, 3.0)]);
        let back = network
            .pieces(array![0.0].view(), array![-1.0].view(), 1.0)
            .unwrap();
        assert_eq!(back.len(), 1);
    }

    #[test]
    fn the_walk_ends_where_a_fresh_trace_does_and_explains_the_gradient() {
        let mlp = Mlp::new(&[3, 20, 20, 4]).gate(Gate::LeakyRelu { slope: -0.3 });
        let network = mlp.build::<f64>(5).unwrap();
        let (x, z) = (array![0.3, -1.0, 0.7], array![1.0, 0.5, -2.0]);
        let pieces = network.pieces(x.view(), z.view(), 3.0).unwrap();
        assert!(pieces.len() > 10 && pieces.windows(2).all(|p| p[0].end == p[1].start));
        for piece in pieces.iter().filter(|piece| piece.end - piece.start > 1e-9) {
            let middle = &x + &(0.5 * (piece.start + piece.end) * &z);
            let trace = network.trace(middle.view().insert_axis(Axis(0))).unwrap();
            let fresh = trace.jacobian().unwrap().index_axis_move(Axis(0), 0);
            assert_abs_diff_eq!(piece.jacobian, fresh, epsilon = 1e-12);
        }
        let (loss, targets) = (Loss::softmax_cross_entropy(), Targets::Classes(&[2]));
        let change = gradient_change(&pieces, &loss, &targets).unwrap();
        let gradient = |t: f64| {
            let point = (&x + &(t * &z)).insert_axis(Axis(0));
            let trace = network.trace(point.view()).unwrap();
            trace
                .input_gradient(&loss, &targets)
                .unwrap()
                .index_axis_move(Axis(0), 0)
        };
        let expected = gradient(3.0) - gradient(0.0);
        assert_abs_diff_eq!(change.smooth + change.kinks, expected, epsilon = 1e-11);
    }

    #[test]
    fn maxima_pass_from_winner_to_winner() {
        // max(−t, 0, t − 1, 2 t − 4, t − 1) along t from −1: kinks at 0, 1 and 3, the second of
        // which two entries share.
        let mut builder = Builder::<f64>::new();
        let x = builder.input(1).unwrap();
        let weight = array![[-1.0], [0.0], [1.0], [2.0], [1.0]];
        let bias = array![0.0, 0.0, -1.0, -4.0, -1.0];
        let z = builder.dense(x, weight, Some(bias)).unwrap();
        let f = builder.max(z, 0).unwrap();
        let f = builder.reshape(f, &[1]).unwrap();
        let network = builder.build(f).unwrap();
        let pieces = network.pieces(array![-1.0].view(), array![1.0].view(), 6.0);
        let long = pieces
            .unwrap()
            .into_iter()
            .filter(|piece| piece.end > piece.start);
        let found: Vec<_> = long.map(|p| (p.start, p.end, p.jacobian[(0, 0)])).collect();
        let expected = [
            (0.0, 1.0, -1.0),
            (1.0, 2.0, 0.0),
            (2.0, 4.0, 1.0),
            (4.0, 6.0, 2.0),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn bad_segments_are_refused() {
        let network = Mlp::new(&[2, 3, 1]).build::<f64>(0).unwrap();
        let x = array![0.0, 1.0];
        let shape = network.pieces(x.view(), array![1.0].view(), 1.0);
        assert!(matches!(shape, Err(Error::Shape { .. })));
        let nan = network.pieces(x.view(), array![1.0, f64::NAN].view(), 1.0);
        assert!(matches!(nan, Err(Error::NotFinite { .. })));
        let negative = network.pieces(x.view(), x.view(), -1.0);
        assert!(matches!(negative, Err(Error::OutOfRange { .. })));
        let none = gradient_change::<f64>(&[], &Loss::SquaredError, &Targets::Classes(&[0]));
        assert!(matches!(none, Err(Error::EmptyBatch { .. })));
    }
}
