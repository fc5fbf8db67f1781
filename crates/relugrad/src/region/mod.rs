//! The geometry of activation regions: their affine maps, hyperplanes and distances, and what lies
//! along a segment or in a plane (section 1 of [theory](crate::theory)).

mod cutter;
mod distance;
mod face;
mod frozen;
mod integral;
mod margins;
mod path_sums;
mod polygon;
mod segment;
mod slice;
#[cfg(test)]
mod tests;
mod walk;

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, concatenate};

use crate::error::{Error, Result, check_finite};
use crate::network::Network;
use crate::norm::Norm;
use crate::pattern::ActivationPattern;
use crate::scalar::Scalar;
use crate::sweep::{LinearizedBatch, RowBatch, Source};
use crate::trace::Trace;

pub(crate) use distance::Distances;
pub use distance::KinkDistances;
pub(crate) use face::Face;
pub use face::Kink;
pub(crate) use frozen::Pass;
pub use margins::Margins;
pub use path_sums::PathSums;
pub use polygon::{Edge, Polygon};
pub use segment::{GradientChange, Piece, gradient_change};
pub use slice::{Cell, Plane, Slice};
pub use walk::{Crossing, Jump, Walk};

/// The activation region of one sample: a convex polyhedron on which the network is one affine map.
///
/// ```
/// use ndarray::array;
/// use relugrad::{Mlp, Norm};
///
/// let network = Mlp::new(&[2, 16, 3]).build::<f64>(0)?;
/// let region = network.region(array![0.5, -1.0].view())?;
/// let nearest = region.nearest(3, Norm::Linf);
/// assert!(nearest[0].distance <= nearest[1].distance);
/// // Moved by the distance along −sign of its normal, the sample lies on the hyperplane.
/// # Ok::<(), relugrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Region<'n, T> {
    trace: Trace<'n, T>,
    distances: Distances,
}

/// A hyperplane that bounds the region, or would if others did not come first.
#[derive(Clone, Debug, PartialEq)]
pub struct Hyperplane<T> {
    /// The gate that switches there.
    pub kink: Kink,
    /// The margin `m` of the sample: how far its gate is from switching, in units of what arrives
    /// there; not negative.
    pub margin: T,
    /// `∇m`, whose hyperplane is `m + ⟨∇m, δ⟩ = 0` for the step `δ` from the sample; `[D]`.
    pub normal: Array1<T>,
}

/// A kink and how far it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NearKink {
    /// The gate that switches there.
    pub kink: Kink,
    /// The distance of its hyperplane in the chosen norm, in input units.
    pub distance: f64,
    /// Its number in the order of [`Region::for_each_hyperplane`].
    pub number: usize,
}

/// Where the affine map of a region decides for another class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rival {
    /// The other class.
    pub class: usize,
    /// `(f_c − f_class)/‖J_c − J_class‖` in the dual norm: the signed distance to the hyperplane
    /// between the two, negative if the other class is ahead; infinite if the two never meet.
    pub distance: f64,
}

impl<T: Scalar> Network<T> {
    /// The activation region of a sample; `x: [D]`.
    ///
    /// Cost: the distances to all hyperplanes, by one backward row for each gate or `D` forward
    /// rows, whichever is less.
    ///
    /// # Errors
    /// Those of [`trace`](Self::trace), and [`Error::NotFinite`] for a distance whose numbers
    /// overflow.
    pub fn region(&self, x: ArrayView1<T>) -> Result<Region<'_, T>> {
        let trace = self.trace(x.insert_axis(Axis(0)))?;
        let distances = Distances::of(self, x.insert_axis(Axis(0)), trace.pattern())?.remove(0);
        Ok(Region { trace, distances })
    }

    /// How far one sample is from its nearest kink (T61); `x: [D]`. Cost and errors are those of
    /// [`region`](Self::region).
    ///
    /// # Errors
    /// Those of [`region`](Self::region).
    pub fn kink_distances(&self, x: ArrayView1<T>) -> Result<KinkDistances> {
        Ok(self.region(x)?.kink_distances())
    }
}

impl<T: Scalar> Region<'_, T> {
    /// What every gate selects in the region.
    pub fn pattern(&self) -> &ActivationPattern {
        self.trace.pattern()
    }

    /// The sample; `[D]`.
    pub fn point(&self) -> ArrayView1<'_, T> {
        self.trace.inputs().index_axis_move(Axis(0), 0)
    }

    /// The logits of the sample; `[K]`.
    pub fn logits(&self) -> ArrayView1<'_, T> {
        self.trace.logits().index_axis_move(Axis(0), 0)
    }

    /// The affine map `f(x') = J x' + c` of the region: the Jacobian `[K, D]` and the offset `[K]`.
    ///
    /// # Errors
    /// [`Error::NotFinite`] if it overflows.
    pub fn affine_map(&self) -> Result<(Array2<T>, Array1<T>)> {
        let jacobian = self.trace.jacobian()?.index_axis_move(Axis(0), 0);
        let offset = &self.logits() - &jacobian.dot(&self.point());
        let entries = offset.as_slice().expect("one row");
        check_finite("the offset of the affine map", entries.len(), entries)?;
        Ok((jacobian, offset))
    }

    /// Number of hyperplanes: one for each unit of a gate with two slopes, two for a clip, and one
    /// for each entry of a maximum that has not won.
    pub fn hyperplanes(&self) -> usize {
        self.distances.margins.len()
    }

    /// The distances to all hyperplanes, in order; infinite for a gate that the input does not
    /// reach, and for the bound of a clip that lies beyond the other, but for no other: one beyond
    /// the range of `f64` is its largest number. `[N]`
    pub fn distances(&self, norm: Norm) -> Vec<f64> {
        self.distances.in_norm(norm).collect()
    }

    /// The distances to the nearest hyperplane.
    pub fn kink_distances(&self) -> KinkDistances {
        self.distances.nearest()
    }

    /// The same rounded down by what rounding explains, `8 √n ε` of the largest margins, so that
    /// the balls are free of kinks in exact arithmetic as well; `n` is the number of terms that the
    /// values on the way are sums of.
    pub fn certain_kink_distances(&self) -> KinkDistances {
        let rounding = self.trace.network().rounding();
        self.distances.nearest_at_least(rounding)
    }

    /// The `count` nearest hyperplanes that the input can reach, nearest first; fewer if there are
    /// fewer.
    pub fn nearest(&self, count: usize, norm: Norm) -> Vec<NearKink> {
        let near = |(number, distance): (usize, f64)| NearKink {
            kink: self.face(number).kink,
            distance,
            number,
        };
        let nearest = self.distances.smallest(count, norm);
        nearest.into_iter().map(near).collect()
    }

    fn face(&self, number: usize) -> Face {
        let place = self.distances.place(number);
        self.trace.network().face(self.pattern(), 0, place)
    }

    /// Calls `visit` with the hyperplanes of the given numbers, in order, in blocks of backward
    /// rows of at most `memory` bytes. Cost: one backward row each.
    ///
    /// # Errors
    /// [`Error::MemoryBound`] if `memory` is less than one row needs; [`Error::OutOfRange`] for a
    /// number that does not exist; [`Error::NotFinite`] for a normal that overflows.
    pub fn for_each_hyperplane(
        &self,
        numbers: impl IntoIterator<Item = usize>,
        memory: usize,
        mut visit: impl FnMut(Hyperplane<T>),
    ) -> Result<()> {
        let fit = memory / self.trace.row_bytes();
        if fit == 0 {
            return Err(Error::MemoryBound {
                bound: memory,
                needed: self.trace.row_bytes(),
            });
        }
        let numbers: Vec<usize> = numbers.into_iter().collect();
        if let Some(&number) = numbers.iter().find(|&&number| number >= self.hyperplanes()) {
            return Err(Error::OutOfRange {
                option: "number of the hyperplane".into(),
                value: number as f64,
                expected: "less than the number of hyperplanes",
            });
        }
        let (network, mut rows) = (self.trace.network(), RowBatch::default());
        for block in numbers.chunks(fit) {
            let faces: Vec<Face> = block.iter().map(|&number| self.face(number)).collect();
            let seeds = |(row, face): (usize, &Face)| {
                face.seeds(row, network.nodes[face.arrives].width, 1.0)
            };
            let sources: Vec<Source<T>> = faces.iter().enumerate().map(seeds).collect();
            let linearized = LinearizedBatch::all(network, &self.trace.state);
            rows.backward_from(&linearized, block.len(), &sources, true);
            let normals = rows.at_input().chunks_exact(network.inputs());
            for ((normal, face), &number) in normals.zip(&faces).zip(block) {
                check_finite("the normal of a hyperplane", normal.len(), normal)?;
                visit(Hyperplane {
                    kink: face.kink,
                    margin: T::from_f64(self.distances.margins[number]),
                    normal: Array1::from_vec(normal.to_vec()),
                });
            }
        }
        Ok(())
    }

    /// The classes other than `class` by their distance in the region's affine map, nearest first.
    /// A single logit is that of class 1 beside 0 for class 0.
    ///
    /// # Errors
    /// [`Error::Label`] if there is no such class, [`Error::NotFinite`] for a Jacobian or a
    /// distance whose numbers overflow.
    pub fn rivals(&self, class: usize, norm: Norm) -> Result<Vec<Rival>> {
        let classes = self.trace.network().outputs().max(2);
        if class >= classes {
            return Err(Error::Label {
                sample: 0,
                label: class,
                classes,
            });
        }
        let jacobian = self.trace.jacobian()?.index_axis_move(Axis(0), 0);
        let logits = self.logits();
        if logits.len() == 1 {
            let pair = concatenate![Axis(0), [T::ZERO], logits];
            let rows = concatenate![
                Axis(0),
                Array2::from_elem((1, jacobian.ncols()), T::ZERO),
                jacobian
            ];
            return rivals(pair.view(), rows.view(), class, norm);
        }
        rivals(logits, jacobian.view(), class, norm)
    }

    /// The largest radius within which, provably, every input has the class `class`: the distance
    /// to the decision boundary in the region's affine map or to the nearest kink, whichever is
    /// less; 0 if the sample has another class.
    ///
    /// # Errors
    /// Those of [`rivals`](Self::rivals).
    pub fn certified_radius(&self, class: usize, norm: Norm) -> Result<f64> {
        let boundary = self
            .rivals(class, norm)?
            .first()
            .map_or(f64::INFINITY, |r| r.distance);
        Ok(boundary.min(self.kink_distances().get(norm)).max(0.0))
    }

    /// The first crossing along a direction, with `at` in multiples of it; `None` if no gate ever
    /// switches. That is also the largest step of a finite difference that stays in the region.
    /// `direction: [D]`
    ///
    /// # Errors
    /// [`Error::Shape`] and [`Error::NotFinite`].
    pub fn next_crossing(&self, direction: ArrayView1<T>) -> Result<Option<Crossing>> {
        let walk = self
            .trace
            .network()
            .walk(self.point(), direction, f64::MAX)?;
        Ok(walk.ahead())
    }
}

/// The other classes by their distance in an affine map, nearest first, and of equal ones the first
/// first.
pub(crate) fn rivals<T: Scalar>(
    logits: ArrayView1<T>,
    jacobian: ArrayView2<T>,
    class: usize,
    norm: Norm,
) -> Result<Vec<Rival>> {
    let rival = |other: usize| {
        let gap = logits[class].into_f64() - logits[other].into_f64();
        let pairs = jacobian.row(class).into_iter().zip(jacobian.row(other));
        let differences = pairs.map(|(a, b)| a.into_f64() - b.into_f64());
        // The largest of the entries' norms, so that no NaN is lost.
        let sum = Norm::Linf.dual_norm(differences.clone());
        let size = norm.dual_norm(differences);
        if !(sum.is_finite() && gap.is_finite()) {
            return Err(Error::NotFinite {
                what: "the distance to a decision boundary".into(),
                index: vec![other],
            });
        }
        Ok(Rival {
            class: other,
            distance: distance::ratio(gap, size),
        })
    };
    let others = (0..logits.len()).filter(|&other| other != class);
    let mut rivals: Vec<Rival> = others.map(rival).collect::<Result<_>>()?;
    rivals.sort_by(|a, b| a.distance.total_cmp(&b.distance));
    Ok(rivals)
}
