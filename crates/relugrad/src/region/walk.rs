//! A walk along a segment from region to region.
//!
//! Along `x + t z` every margin is affine in `t` until some gate switches, so the next crossing is
//! the least root of affine functions. A crossing flips one gate. What that changes behind the gate
//! is one row, `u = ∂f/∂a` of its output `a`, times an affine function of `t`; and the Jacobian
//! changes by the rank-one matrix `c u ⊗ ∇m`, with the gradient of the margin `m` that has fallen
//! through 0 and the change `c` of the gate's slope. So a crossing costs less than one forward row,
//! and with the Jacobian one backward row more.

use ndarray::{Array1, Array2, ArrayView1, Axis, linalg::general_mat_mul};

use super::face::{Face, Kink, cross, write_margins};
use super::frozen::Pass;
use crate::error::{Error, Result, check_array, check_finite, check_non_negative, check_shape};
use crate::network::Network;
use crate::network::map::{GateKind, GateMap};
use crate::pattern::{ActivationPattern, LayerView};
use crate::scalar::Scalar;
use crate::sweep::{LinearizedBatch, RowBatch, Seeds};

/// Crossings after which everything is evaluated afresh, so that rounding errors do not add up.
const REFRESH: usize = 64;

/// A point of a segment where a gate switches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Crossing {
    /// Where it is; `t` of `x + t z`.
    pub at: f64,
    /// Which gate switches.
    pub kink: Kink,
}

/// What a crossing adds to the Jacobian: `output ⊗ normal`.
#[derive(Clone, Debug, PartialEq)]
pub struct Jump<T> {
    /// The change of the gate's slope times the derivative of the logits in its output; `[K]`.
    pub output: Array1<T>,
    /// The gradient of the margin that falls through 0, in the region before; `[D]`.
    pub normal: Array1<T>,
}

/// A walk along `x + t z` for `t` from 0 to a length, made by [`Network::walk`].
///
/// It stands in one region at a time, and [`cross`](Self::cross) takes it to the next. Regions of
/// length 0 lie between gates that switch at one point; they switch one by one, by layer and unit.
/// A gate that is exactly at its kink at `t = 0` switches there if it moves to the other side. A
/// direction inside a hyperplane never crosses it.
///
/// After every 64 crossings all values are evaluated afresh, which bounds the drift of the
/// incremental updates.
///
/// What a walk gives without a `Result` is finite until one of its functions fails; then the walk
/// is of no more use.
///
/// ```
/// use ndarray::array;
/// use relugrad::Mlp;
///
/// let network = Mlp::new(&[2, 16, 16, 3]).build::<f64>(0)?;
/// let mut walk = network.walk(array![0.5, -1.0].view(), array![1.0, 2.0].view(), 1.0)?;
/// let mut regions = 1;
/// while let Some(crossing) = walk.cross()? {
///     assert_eq!(walk.start(), crossing.at);
///     regions += 1;
/// }
/// assert!(regions > 1 && walk.end() == 1.0);
/// # Ok::<(), relugrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Walk<'n, T> {
    network: &'n Network<T>,
    x: Array1<T>,
    z: Array1<T>,
    length: f64,
    pattern: ActivationPattern,
    /// What arrives at each layer of gates: the affine map of the region continued to `t = 0`, and
    /// its derivative with respect to `t`.
    origin: Pass<T>,
    slope: Pass<T>,
    start: f64,
    /// The kinks crossed where the present region begins. None of them is crossed there again:
    /// rounding can give the margin of a gate a falling rate on both of its sides, and then it
    /// would switch back and forth for ever.
    here: Vec<Kink>,
    /// The first crossing of each layer of gates, and which of its faces it is.
    candidates: Vec<Option<(f64, usize)>>,
    /// The next crossing, and which face it is.
    next: Option<(f64, Place)>,
    last: Option<(Face, Array1<T>)>,
    jacobian: Option<Array2<T>>,
    since_refresh: usize,
    rows: RowBatch<T>,
}

/// What overflows, in errors.
const JACOBIAN: &str = "the Jacobian of a region";

/// A layer of gates and one of its faces, by their numbers.
type Place = (usize, usize);

impl<T: Scalar> Network<T> {
    /// A walk along `x + t z` for `t` from 0 to `length`; `x: [D]`, `z: [D]`.
    ///
    /// Cost: three forward rows, and for each crossing what [`Walk::cross`] says.
    ///
    /// # Errors
    /// Those of [`trace`](Self::trace), [`Error::Shape`], [`Error::NotFinite`] for a direction, or
    /// its image at a gate or a logit, that is not finite, and [`Error::OutOfRange`] for a `length`
    /// that is negative or not finite.
    pub fn walk(&self, x: ArrayView1<T>, z: ArrayView1<T>, length: f64) -> Result<Walk<'_, T>> {
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
            x: x.to_owned(),
            z: z.to_owned(),
            length,
            pattern: trace.state.pattern.clone(),
            origin: Pass::default(),
            slope: Pass::default(),
            start: 0.0,
            here: Vec::new(),
            candidates: Vec::new(),
            next: None,
            last: None,
            jacobian: None,
            since_refresh: 0,
            rows: RowBatch::default(),
        };
        walk.refresh()?;
        walk.check(0)?;
        walk.look_ahead(0);
        Ok(walk)
    }
}

impl<T: Scalar> Walk<'_, T> {
    /// Where the present region begins on the segment.
    pub fn start(&self) -> f64 {
        self.start
    }

    /// Where it ends: at the next crossing, or at the end of the segment.
    pub fn end(&self) -> f64 {
        self.next.map_or(self.length, |(at, _)| at)
    }

    /// The next crossing, which [`cross`](Self::cross) would make.
    pub fn ahead(&self) -> Option<Crossing> {
        let (at, place) = self.next?;
        let kink = self.network.face(&self.pattern, 0, place).kink;
        Some(Crossing { at, kink })
    }

    /// The activation pattern of the present region, of one sample.
    pub fn pattern(&self) -> &ActivationPattern {
        &self.pattern
    }

    /// The logits at `x + t z` by the affine map of the present region; `[K]`.
    ///
    /// # Errors
    /// [`Error::NotFinite`] if they overflow.
    pub fn logits(&self, t: f64) -> Result<Array1<T>> {
        let pairs = self.origin.logits.iter().zip(&self.slope.logits);
        let logits: Vec<T> = pairs.map(|(&f, &rate)| f + T::from_f64(t) * rate).collect();
        check_array("a logit", &[logits.len()], &logits)?;
        Ok(logits.into())
    }

    /// The derivative of the logits along the segment, `J z`; `[K]`.
    pub fn logit_rates(&self) -> ArrayView1<'_, T> {
        ArrayView1::from(&self.slope.logits)
    }

    /// The Jacobian of the present region; `[K, D]`. From the first call on, every crossing updates
    /// it, for one backward row and `K·D` operations.
    ///
    /// # Errors
    /// [`Error::NotFinite`] if it overflows.
    pub fn jacobian(&mut self) -> Result<&Array2<T>> {
        let jacobian = match self.jacobian.take() {
            Some(jacobian) => jacobian,
            None => self.fresh_jacobian()?,
        };
        Ok(self.jacobian.insert(jacobian))
    }

    /// Crosses to the next region, or stays and returns `None` if the segment ends in this one.
    ///
    /// Cost: at most one forward row from the gate on, and one scan of all margins.
    ///
    /// # Errors
    /// [`Error::NotFinite`] if the affine map of the next region overflows at a gate or a logit, or
    /// its Jacobian if there is one.
    pub fn cross(&mut self) -> Result<Option<Crossing>> {
        let Some((at, place)) = self.next else {
            return Ok(None);
        };
        let face = self.network.face(&self.pattern, 0, place);
        let gate = self
            .network
            .gate_layers()
            .nth(place.0)
            .expect("the face's layer");
        cross(&mut self.pattern, gate, place.1);
        if at > self.start {
            self.here.clear();
        }
        self.start = at;
        self.here.push(face.kink);
        let output = self.propagate(&face);
        self.last = Some((face, output));
        if self.jacobian.is_some() {
            let jump = self.jump()?.expect("a crossing was just made");
            let (column, row) = (
                jump.output.insert_axis(Axis(1)),
                jump.normal.insert_axis(Axis(0)),
            );
            let jacobian = self.jacobian.as_mut().expect("it is kept");
            general_mat_mul(T::ONE, &column, &row, T::ONE, jacobian);
            let entries = jacobian.as_slice().expect("standard layout");
            check_finite(JACOBIAN, self.network.inputs(), entries)?;
        }
        self.since_refresh += 1;
        let mut changed = place.0;
        if self.since_refresh == REFRESH {
            self.refresh()?;
            changed = 0;
        }
        self.check(changed)?;
        self.look_ahead(changed);
        Ok(Some(Crossing {
            at,
            kink: face.kink,
        }))
    }

    /// What the last crossing added to the Jacobian; `None` before the first. Cost: one backward
    /// row from the gate on.
    ///
    /// # Errors
    /// [`Error::NotFinite`] if it overflows.
    pub fn jump(&mut self) -> Result<Option<Jump<T>>> {
        let Some((face, output)) = self.last.clone() else {
            return Ok(None);
        };
        let mut rows = std::mem::take(&mut self.rows);
        let width = self.network.nodes[face.arrives].width;
        rows.backward_from(&self.linearized(), 1, &[face.seeds(0, width, 1.0)], true);
        let normal = Array1::from_vec(rows.at_input().to_vec());
        self.rows = rows;
        for part in [&output, &normal] {
            check_array("a jump", part.shape(), part.as_slice().expect("one row"))?;
        }
        Ok(Some(Jump { output, normal }))
    }

    fn linearized(&self) -> LinearizedBatch<'_, T> {
        LinearizedBatch::new(self.network, &self.pattern, 0..1)
    }

    /// The face of the last crossing.
    pub(crate) fn last_face(&self) -> Option<&Face> {
        self.last.as_ref().map(|(face, _)| face)
    }

    /// Refuses values that are not finite: of the logits, and of what arrives at the layers of
    /// gates from `changed` on.
    fn check(&self, changed: usize) -> Result<()> {
        for pass in [&self.origin, &self.slope] {
            for arriving in &pass.arriving[changed..] {
                check_array("what arrives at a gate", &[arriving.len()], arriving)?;
            }
            check_array("a logit", &[pass.logits.len()], &pass.logits)?;
        }
        Ok(())
    }

    /// Evaluates everything afresh.
    fn refresh(&mut self) -> Result<()> {
        let (network, pattern) = (self.network, &self.pattern);
        self.origin.run(network, pattern, self.x.view(), true);
        self.slope.run(network, pattern, self.z.view(), false);
        self.since_refresh = 0;
        if self.jacobian.is_some() {
            self.jacobian = Some(self.fresh_jacobian()?);
        }
        Ok(())
    }

    pub(super) fn fresh_jacobian(&mut self) -> Result<Array2<T>> {
        let mut rows = std::mem::take(&mut self.rows);
        let (k, d) = (self.network.outputs(), self.network.inputs());
        rows.backward(&self.linearized(), Seeds::identity(k), 0..1);
        let entries = rows.at_input().to_vec();
        self.rows = rows;
        check_finite(JACOBIAN, d, &entries)?;
        Ok(Array2::from_shape_vec((k, d), entries).expect("K rows of D"))
    }

    /// Adds what the crossing of `face` changes to all that the gate leads to; the result is the
    /// change of its slope times the derivative of the logits in its output.
    fn propagate(&mut self, face: &Face) -> Array1<T> {
        let mut rows = std::mem::take(&mut self.rows);
        let layer = face.kink.layer;
        let origin = face.margin(&self.origin.arriving[layer], true);
        let slope = face.margin(&self.slope.arriving[layer], false);
        let linearized = LinearizedBatch::new(self.network, &self.pattern, 0..1);
        let (at_origin, along) = (&mut self.origin, &mut self.slope);
        let from = (face.gate, face.kink.unit);
        rows.forward_unit(
            &linearized,
            from,
            T::from_f64(face.change),
            |layer, change| {
                add(origin, change, &mut at_origin.arriving[layer]);
                add(slope, change, &mut along.arriving[layer]);
            },
        );
        let output = Array1::from_vec(rows.at_output(self.network).to_vec());
        add(origin, rows.at_output(self.network), &mut at_origin.logits);
        add(slope, rows.at_output(self.network), &mut along.logits);
        self.rows = rows;
        output
    }

    /// Finds the first gate that switches at or after the present place. Only the layers from
    /// `changed` on are looked at again: what arrives at the others is what it was.
    fn look_ahead(&mut self, changed: usize) {
        let (mut margins, mut rates) = (Vec::new(), Vec::new());
        self.candidates.resize(self.pattern.layers(), None);
        for gate in self.network.gate_layers().skip(changed) {
            let (layer, view) = (gate.layer, self.pattern.view(gate.layer, &(0..1)));
            margins.clear();
            rates.clear();
            write_margins(
                gate,
                &view,
                &self.origin.arriving[layer],
                true,
                &mut margins,
            );
            write_margins(gate, &view, &self.slope.arriving[layer], false, &mut rates);
            keep_adjacent(gate, &view, &mut rates);
            let (network, pattern, here) = (self.network, &self.pattern, &self.here);
            let crossed = |face| here.contains(&network.face(pattern, 0, (layer, face)).kink);
            self.candidates[layer] =
                first_root(&margins, &rates, (self.start, self.length), &crossed);
        }
        let places = self.candidates.iter().enumerate();
        let found = places.filter_map(|(layer, found)| found.map(|(at, face)| (at, (layer, face))));
        self.next = found.min_by(|a, b| a.0.total_cmp(&b.0));
    }
}

/// Leaves out the bound of a clip that a unit can only reach after the other one: where rounding
/// makes both one place, it would else be crossed first.
fn keep_adjacent<T: Scalar>(gate: &GateMap, view: &LayerView, rates: &mut [T]) {
    if let GateKind::Slope(slope) = &gate.kind
        && slope.bounds().is_some()
    {
        let (lower, upper) = rates.split_at_mut(slope.width());
        for (unit, (lower, upper)) in lower.iter_mut().zip(upper).enumerate() {
            match view.unit(0, unit) {
                0 => *upper = T::ZERO,
                1 => {}
                _ => *lower = T::ZERO,
            }
        }
    }
}

/// The first face of a layer whose margin falls through 0 between two places, and where; at the
/// first place not one that was `crossed` there.
fn first_root<T: Scalar>(
    margins: &[T],
    rates: &[T],
    (start, length): (f64, f64),
    crossed: &dyn Fn(usize) -> bool,
) -> Option<(f64, usize)> {
    let (mut first, mut place) = (length, None);
    for (face, (&margin, &rate)) in margins.iter().zip(rates).enumerate() {
        if rate < T::ZERO {
            let root = (-margin.into_f64() / rate.into_f64()).max(start);
            if root < first && (root > start || !crossed(face)) {
                (first, place) = (root, Some(face));
            }
        }
    }
    place.map(|face| (first, face))
}

/// `to += scale · change`.
fn add<T: Scalar>(scale: T, change: &[T], to: &mut [T]) {
    let pairs = to.iter_mut().zip(change);
    pairs.for_each(|(to, &change)| *to += scale * change);
}
