//! The exact pieces of a network along a segment of inputs.
//!
//! Along `x + t z` every pre-activation is affine in `t` until some gate switches, so the next crossing is the root
//! of an affine function. Walking from crossing to crossing gives every piece with its Jacobian, and splits a finite
//! difference of input gradients into the part that the pieces' curvature explains and the part that jumps at the
//! kinks (T54 of `docs/theory.md`).

use ndarray::{Array1, Array2, ArrayView1, Axis};

use crate::error::{Error, Result, check_non_negative, check_shape};
use crate::frozen::Pass;
use crate::loss::{Loss, LossBatch, Targets};
use crate::network::Network;
use crate::pattern::ActivationPattern;
use crate::scalar::Scalar;
use crate::sweep::{Gated, Rows, Seeds};

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

/// The change of the input gradient over a segment, split exactly: `∇ℓ(x + h z) − ∇ℓ(x) = smooth + kinks`.
#[derive(Clone, Debug)]
pub struct GradientChange<T> {
    /// `Σ_i J_iᵀ (r(t_{i+1}) − r(t_i))`: what the curvature of the loss inside the pieces adds up to; `[D]`.
    pub smooth: Array1<T>,
    /// `Σ_i (J_{i+1} − J_i)ᵀ r(t_{i+1})`: the jumps at the crossings; `[D]`.
    pub kinks: Array1<T>,
}

impl<T: Scalar> Network<T> {
    /// All pieces of the network along `x + t z` for `t` from 0 to `length`, in order; `x: [D]`, `z: [D]`.
    ///
    /// A gate that is exactly at its kink switches there if it moves to its active side. Cost: for each piece two forward
    /// rows and `K` backward rows.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::NotFinite`], and [`Error::OutOfRange`] for a `length` that is negative or not finite.
    pub fn pieces(&self, x: ArrayView1<T>, z: ArrayView1<T>, length: f64) -> Result<Vec<Piece<T>>> {
        check_non_negative("length of the segment", length)?;
        check_shape("direction", &[self.inputs()], z.shape())?;
        if let Some(index) = z.iter().position(|z| !z.is_finite()) {
            return Err(Error::NotFinite {
                what: "direction".into(),
                index: vec![index],
            });
        }
        let trace = self.trace(x.insert_axis(Axis(0)))?;
        let mut walk = Walk {
            network: self,
            pattern: trace.pattern().clone(),
            origin: Pass::default(),
            slope: Pass::default(),
        };
        Ok(walk.run(x, z, length))
    }
}

/// The change of the input gradient over `pieces`, which must not be empty; `targets` of one sample.
///
/// # Errors
/// Those of the targets; [`Error::EmptyBatch`] without pieces.
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
    let mut batch = LossBatch::default();
    let mut residual = |logits: &Array1<T>| -> Array1<T> {
        let logits: Vec<T> = logits.to_vec();
        batch.fill(loss, &logits, &target, k);
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
    Ok(change)
}

/// A walk along a segment: the pattern of the present piece, and all margins as affine functions of `t`.
struct Walk<'n, T> {
    network: &'n Network<T>,
    pattern: ActivationPattern,
    /// Values at `t = 0` of the piece's affine map, continued there if the piece does not reach it.
    origin: Pass<T>,
    /// Their derivatives in `t`.
    slope: Pass<T>,
}

/// A layer of gates and one of its faces, by their numbers.
type Place = (usize, usize);

impl<T: Scalar> Walk<'_, T> {
    fn run(&mut self, x: ArrayView1<T>, z: ArrayView1<T>, length: f64) -> Vec<Piece<T>> {
        let (mut pieces, mut t) = (Vec::new(), 0.0);
        loop {
            self.origin.run(self.network, &self.pattern, x, true);
            self.slope.run(self.network, &self.pattern, z, false);
            let (end, switching) = self.next_crossing(t, length);
            pieces.push(self.piece(t, end));
            if switching.is_empty() {
                return pieces;
            }
            let gates: Vec<_> = self.network.gate_layers().collect();
            let crossings = switching.iter().map(|&(layer, face)| (gates[layer], face));
            self.pattern.cross(&crossings.collect::<Vec<_>>());
            t = end;
        }
    }

    /// Where the first gates switch at or after `t`, and which; `length` and none if that is beyond it.
    fn next_crossing(&self, t: f64, length: f64) -> (f64, Vec<Place>) {
        let (mut first, mut switching) = (length, Vec::new());
        for (layer, (origin, slope)) in self.origin.faces.iter().zip(&self.slope.faces).enumerate()
        {
            for (face, (&m0, &m1)) in origin.iter().zip(slope).enumerate() {
                let (m0, m1) = (m0.into_f64(), m1.into_f64());
                let root = (-m0 / m1).max(t);
                if m1 >= 0.0 || root >= length || root > first {
                    continue;
                }
                if root < first {
                    switching.clear();
                }
                first = root;
                switching.push((layer, face));
            }
        }
        (first, switching)
    }

    fn piece(&self, start: f64, end: f64) -> Piece<T> {
        let logits = |t: f64| -> Array1<T> {
            let pairs = self.origin.logits.iter().zip(&self.slope.logits);
            pairs
                .map(|(&f, &slope)| f + T::from_f64(t) * slope)
                .collect()
        };
        Piece {
            start,
            end,
            jacobian: self.jacobian(),
            logits_start: logits(start),
            logits_end: logits(end),
        }
    }

    fn jacobian(&self) -> Array2<T> {
        let (k, d) = (self.network.outputs(), self.network.inputs());
        let gated = Gated {
            network: self.network,
            pattern: &self.pattern,
            samples: 0..1,
        };
        let mut rows = Rows::default();
        rows.backward(&gated, Seeds::Shared(Array2::eye(k).view()), true);
        Array2::from_shape_vec((k, d), rows.at_input().to_vec()).expect("K rows of D")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Builder, Gate, Mlp};
    use ndarray::array;

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
    fn duplicate_units_switch_together_and_a_start_on_a_kink_has_an_answer() {
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
        assert_eq!(found, [(0.0, 0.0, 0.0), (0.0, 1.0, 3.0)]);
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
            let fresh = trace.jacobian().index_axis_move(Axis(0), 0);
            assert!(piece.jacobian.abs_diff_eq(&fresh, 1e-12));
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
        assert!((change.smooth + change.kinks).abs_diff_eq(&expected, 1e-11));
    }

    #[test]
    fn maxima_pass_from_winner_to_winner() {
        // max(−t, 0, t − 1, 2 t − 4, t − 1) along t from −1: kinks at 0, 1 and 3, the second of which two entries share.
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
