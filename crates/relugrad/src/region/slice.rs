//! The arrangement of regions in a two-dimensional slice of the input space, found by cutting.
//!
//! In the plane `o + a u + b v` every value is an affine function of `(a, b)` on each polygon.
//! Layer by layer, every polygon is cut along the lines where its units switch, and its parts are
//! carried on with the functions that they then have. The parts of a polygon share their corners,
//! so they tile the window.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ndarray::{Array1, ArrayView1};
use rayon::prelude::*;

use super::cutter::{Cutter, Part, difference};
use super::polygon::{Edge, Polygon};
use crate::error::{Error, Result, check_array, check_shape};
use crate::jacobian::SWEEP_MEMORY;
use crate::network::map::{GateKind, GateMap, SweepContext};
use crate::network::{Network, Node};
use crate::parallel::GoOn;
use crate::pattern::ActivationPattern;
use crate::scalar::Scalar;
use crate::squares::Squares;

/// A plane in the input space, `o + a u + b v`.
#[derive(Clone, Debug, PartialEq)]
pub struct Plane<T> {
    /// `o`; `[D]`.
    pub origin: Array1<T>,
    /// `u` and `v`; `[D]` each.
    pub directions: [Array1<T>; 2],
}

impl<T: Scalar> Plane<T> {
    /// The plane through three points, the first at `(0, 0)` and the second on the first axis. The
    /// axes are orthonormal, so lengths and angles in the plane are those of the input space.
    /// `None` if the points are on one line, or so far apart that their distances overflow.
    pub fn through(points: [ArrayView1<T>; 3]) -> Option<Plane<T>> {
        let norm = |v: &Array1<T>| Squares::of(v.iter().map(|v| v.into_f64())).root();
        let along = &points[1] - &points[0];
        let length = norm(&along);
        let u = along.mapv(|v| T::from_f64(v.into_f64() / length));
        let other = &points[2] - &points[0];
        let part = other.dot(&u);
        let across = &other - &(&u * part);
        let height = norm(&across);
        let flat = T::EPSILON.into_f64() * 16.0 * norm(&other);
        let ok = length > 0.0 && length.is_finite() && height > flat && height.is_finite();
        ok.then(|| Plane {
            origin: points[0].to_owned(),
            directions: [u, across.mapv(|v| T::from_f64(v.into_f64() / height))],
        })
    }

    /// The input at `(a, b)`; `[D]`.
    ///
    /// # Errors
    /// [`Error::NotFinite`] if it overflows.
    pub fn at(&self, [a, b]: [f64; 2]) -> Result<Array1<T>> {
        let [u, v] = &self.directions;
        let x = &self.origin + &(u * T::from_f64(a)) + v * T::from_f64(b);
        let entries = x.to_vec();
        check_array("a point of the plane", &[entries.len()], &entries)?;
        Ok(x)
    }

    /// Where an input is projected to, for axes that are orthonormal.
    ///
    /// # Errors
    /// [`Error::NotFinite`] if it overflows.
    pub fn project(&self, x: ArrayView1<T>) -> Result<[f64; 2]> {
        let from = &x - &self.origin;
        let place = self
            .directions
            .each_ref()
            .map(|axis| axis.dot(&from).into_f64());
        check_array("a place in the plane", &[2], &place)?;
        Ok(place)
    }
}

/// The part of an activation region in a slice.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Where it is.
    pub polygon: Polygon,
    /// What its gates select, of one sample.
    pub pattern: ActivationPattern,
    /// The logits as affine functions `c + a x + b y` of the place, `[c, a, b]` each; `[K]`.
    pub logits: Vec<[f64; 3]>,
}

/// The regions of a window of a plane, or some of them.
#[derive(Clone, Debug)]
pub struct Slice {
    /// The regions that were found.
    pub cells: Vec<Cell>,
    /// Whether these are all; otherwise they leave gaps in the window.
    pub complete: bool,
    /// Whether more were found than the limit allows.
    pub limited: bool,
}

impl Cell {
    /// The parts where each class has the largest logit, by class; in a tie the first. A single
    /// logit is that of class 1 beside 0 for class 0.
    pub fn classes(&self) -> Vec<(usize, Polygon)> {
        let logits = match self.logits[..] {
            [single] => &[[0.0; 3], single],
            ref logits => logits,
        };
        let mut parts = vec![(0, self.polygon.clone())];
        for class in 1..logits.len() {
            let mut next = Vec::with_capacity(parts.len());
            for (leader, polygon) in parts {
                let gap = difference(logits[class], logits[leader]);
                let (stays, goes) = polygon.cut(gap, Edge::Classes(leader, class));
                next.extend(stays.map(|polygon| (leader, polygon)));
                next.extend(goes.map(|polygon| (class, polygon)));
            }
            parts = next;
        }
        parts.sort_by_key(|(class, _)| *class);
        parts
    }
}

impl<T: Scalar> Network<T> {
    /// All activation regions in a window of a plane, each as a polygon, found exactly; `window` is
    /// `[[a_min, a_max], [b_min, b_max]]`. Regions that touch the plane in a segment or a point
    /// have no polygon.
    ///
    /// The polygons tile the window. A corner within rounding of a line counts as on it. Cost:
    /// three forward rows for each polygon and layer, and a comparison of each unit with each
    /// polygon before its layer.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::NotFinite`] for a plane, or values in the window, that are not
    /// finite, [`Error::OutOfRange`] for a window without area or one whose area overflows, and
    /// [`Error::TooManyRegions`] beyond `limit` polygons.
    pub fn slice(
        &self,
        plane: &Plane<T>,
        window: [[f64; 2]; 2],
        limit: usize,
    ) -> Result<Vec<Cell>> {
        let slice = self.slice_while(plane, window, limit, &|| true)?;
        match slice.limited {
            true => Err(Error::TooManyRegions { limit }),
            false => Ok(slice.cells),
        }
    }

    /// As much of [`slice`](Self::slice) as is finished when `go_on` says no, or when `limit`
    /// polygons are; which ones these are is then left to the threads.
    ///
    /// # Errors
    /// As for [`slice`](Self::slice), but for [`Error::TooManyRegions`].
    pub fn slice_while(
        &self,
        plane: &Plane<T>,
        window: [[f64; 2]; 2],
        limit: usize,
        go_on: GoOn,
    ) -> Result<Slice> {
        check_window(window)?;
        for (name, v) in [("origin", &plane.origin)]
            .into_iter()
            .chain(plane.directions.iter().map(|v| ("direction", v)))
        {
            check_shape(name, &[self.inputs()], v.shape())?;
            if let Some(index) = v.iter().position(|v| !v.is_finite()) {
                return Err(Error::NotFinite {
                    what: name.into(),
                    index: vec![index],
                });
            }
        }
        let mut pattern = ActivationPattern::default();
        self.resize_pattern(&mut pattern, 1);
        let mut group = Group::new(self, 1, |_| true);
        let [u, v] = &plane.directions;
        group.origin[0].copy_from_slice(&plane.origin.to_vec());
        group.along[0].copy_from_slice(&[u.to_vec(), v.to_vec()].concat());
        group.parts.push((Polygon::rectangle(window), pattern));
        let arrangement = Arrangement {
            network: self,
            reach: window
                .map(|side| side.map(f64::abs))
                .map(|[low, high]| low.max(high)),
            limit,
            go_on,
            found: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            limited: AtomicBool::new(false),
        };
        let cells = arrangement.descend(1, group)?;
        let (stopped, limited) = (arrangement.stopped, arrangement.limited);
        let limited = limited.into_inner();
        Ok(Slice {
            cells,
            complete: !stopped.into_inner() && !limited,
            limited,
        })
    }
}

/// Refuses a window without area, or whose area is no number: that of a polygon in it is the sum of
/// products that are together no more than four times as much.
fn check_window(window: [[f64; 2]; 2]) -> Result<()> {
    let refused = |option: &str, value, expected| Error::OutOfRange {
        option: option.into(),
        value,
        expected,
    };
    let sides = window.map(|[low, high]| high - low);
    for side in sides {
        if !(side.is_finite() && side > 0.0) {
            return Err(refused("side of the window", side, "finite and positive"));
        }
    }
    let area = 4.0 * sides[0] * sides[1];
    if !area.is_finite() {
        return Err(refused(
            "area of the window",
            area,
            "a quarter of the largest number at most",
        ));
    }
    Ok(())
}

/// Polygons that go through the network together, with the values of all nodes on them.
struct Group<T> {
    parts: Vec<Part>,
    /// Values at `(0, 0)`, by slot; `[parts, width]`.
    origin: Vec<Vec<T>>,
    /// Their derivatives with respect to `a` and `b`; `[parts, 2, width]`.
    along: Vec<Vec<T>>,
}

impl<T: Scalar> Group<T> {
    /// Room for so many parts in the slots that are used.
    fn new(network: &Network<T>, parts: usize, used: impl Fn(usize) -> bool) -> Group<T> {
        let room = |rows: usize| {
            let widths = network.slot_widths.iter().enumerate();
            let used = &used;
            widths.map(move |(slot, w)| match used(slot) {
                true => vec![T::ZERO; parts * rows * w],
                false => Vec::new(),
            })
        };
        Group {
            parts: Vec::new(),
            origin: room(1).collect(),
            along: room(2).collect(),
        }
    }
}

struct Arrangement<'n, T> {
    network: &'n Network<T>,
    /// How far the window reaches from 0, in `a` and `b`.
    reach: [f64; 2],
    limit: usize,
    go_on: GoOn<'n>,
    /// Polygons that are finished.
    found: AtomicUsize,
    stopped: AtomicBool,
    /// Whether parts were left out because of the limit.
    limited: AtomicBool,
}

impl<T: Scalar> Arrangement<'_, T> {
    /// Whether what is not finished is left out.
    fn stops(&self) -> bool {
        if !(self.go_on)() {
            self.stopped.store(true, Ordering::Relaxed);
        }
        if self.found.load(Ordering::Relaxed) >= self.limit {
            self.limited.store(true, Ordering::Relaxed);
            return true;
        }
        self.stopped.load(Ordering::Relaxed)
    }

    /// Leaves out what is more than `room`.
    fn restrict<A>(&self, parts: &mut Vec<A>, room: usize) {
        if parts.len() > room {
            parts.truncate(room);
            self.limited.store(true, Ordering::Relaxed);
        }
    }

    /// Carries a group through all nodes from `first` on.
    fn descend(&self, first: usize, mut group: Group<T>) -> Result<Vec<Cell>> {
        if self.stops() {
            return Ok(Vec::new());
        }
        for (i, node) in self.network.nodes.iter().enumerate().skip(first) {
            if let Some(gate) = node.map.gate() {
                return self.divide(i, gate, &group);
            }
            self.affine(node, &mut group);
        }
        let (k, slot) = (self.network.outputs(), self.network.output().slot);
        self.check("a logit", (slot, k), 0.0, &group)?;
        let before = self.found.fetch_add(group.parts.len(), Ordering::Relaxed);
        self.restrict(&mut group.parts, self.limit.saturating_sub(before));
        let cells = group.parts.into_iter().enumerate();
        let cells = cells.map(|(i, (polygon, pattern))| {
            let origin = &group.origin[slot][i * k..];
            let along = &group.along[slot][2 * i * k..];
            let logit = |j: usize| [origin[j], along[j], along[k + j]].map(Scalar::into_f64);
            Cell {
                polygon,
                pattern,
                logits: (0..k).map(logit).collect(),
            }
        });
        Ok(cells.collect())
    }

    /// Refuses values of a slot that overflow in the window, or whose differences from each other
    /// or from a bound do.
    fn check(
        &self,
        what: &str,
        (slot, width): (usize, usize),
        bound: f64,
        group: &Group<T>,
    ) -> Result<()> {
        let (origin, along) = (&group.origin[slot], &group.along[slot]);
        let rates = along.chunks_exact(2 * width);
        for (values, rates) in origin.chunks_exact(width).zip(rates) {
            let (a, b) = rates.split_at(width);
            let size = |i: usize| {
                let [c, a, b] = [values[i], a[i], b[i]].map(|v| v.into_f64().abs());
                4.0 * (c + bound + a * self.reach[0] + b * self.reach[1])
            };
            let sizes: Vec<f64> = (0..width).map(size).collect();
            check_array(what, &[width], &sizes)?;
        }
        Ok(())
    }

    fn affine(&self, node: &Node, group: &mut Group<T>) {
        let parameters = self.network.parameters().values();
        for (buffers, rows) in [(&mut group.origin, 1), (&mut group.along, 2)] {
            let mut out = std::mem::take(&mut buffers[node.slot]);
            let at = SweepContext::new(parameters, rows);
            node.apply(&self.network.nodes, at, buffers, rows == 1, &mut out);
            buffers[node.slot] = out;
        }
    }

    /// Cuts the polygons of a group where the gates of a layer switch, and carries the parts on.
    fn divide(&self, node: usize, gate: &GateMap, group: &Group<T>) -> Result<Vec<Cell>> {
        let arrives = &self.network.nodes[self.network.nodes[node].inputs[0]];
        let width = arrives.width;
        let bound = match &gate.kind {
            GateKind::Slope(slope) => slope
                .bounds()
                .map_or(0.0, |(min, max)| min.abs().max(max.abs())),
            GateKind::Max(_) => 0.0,
        };
        self.check(
            "what arrives at a gate",
            (arrives.slot, width),
            bound,
            group,
        )?;
        let made = AtomicUsize::new(0);
        let cut = |(i, part): (usize, &Part)| {
            let origin = &group.origin[arrives.slot][i * width..(i + 1) * width];
            let along = &group.along[arrives.slot][2 * i * width..2 * (i + 1) * width];
            let value = |unit: usize| {
                [origin[unit], along[unit], along[width + unit]].map(Scalar::into_f64)
            };
            let cutter = Cutter {
                gate,
                value: &value,
                room: self.limit,
                made: &made,
                stops: &|| self.stops(),
            };
            let parts = match group.parts.len() {
                1 => cutter.cut_together(part.clone()),
                _ => cutter.cut(part.clone()),
            };
            parts.into_iter().map(|part| (i, part)).collect()
        };
        let parts = group.parts.par_iter().enumerate();
        let children: Vec<Vec<(usize, Part)>> = parts.map(cut).collect();
        let mut children: Vec<(usize, Part)> = children.into_iter().flatten().collect();
        self.restrict(&mut children, self.limit);
        if self.stops() {
            return Ok(Vec::new());
        }
        let bytes = 3 * self.network.row_entries() * size_of::<T>();
        let size = (SWEEP_MEMORY / bytes / 4).clamp(1, 64);
        let groups: Vec<Vec<Cell>> = children
            .par_chunks(size)
            .map(|children| self.descend(node + 1, self.child(node, gate, group, children)))
            .collect::<Result<_>>()?;
        Ok(groups.into_iter().flatten().collect())
    }

    /// The group of some parts with the values that their gates select.
    fn child(
        &self,
        node: usize,
        gate: &GateMap,
        parent: &Group<T>,
        children: &[(usize, Part)],
    ) -> Group<T> {
        let nodes = &self.network.nodes;
        let at = &nodes[node];
        let source = nodes[at.inputs[0]].slot;
        let written_later = |slot: usize| nodes[node..].iter().any(|node| node.slot == slot);
        let read_later = |slot: usize| {
            let later = nodes[node + 1..].iter().flat_map(|node| &node.inputs);
            let mut later = later.filter(|&&input| input <= node);
            slot == self.network.output().slot || later.any(|&input| nodes[input].slot == slot)
        };
        let used = |slot| slot == source || written_later(slot) || read_later(slot);
        let mut group = Group::new(self.network, children.len(), used);
        let parameters = self.network.parameters().values();
        let in_place = at.in_place(nodes);
        for (to, from, rows) in [
            (&mut group.origin, &parent.origin, 1),
            (&mut group.along, &parent.along, 2),
        ] {
            for (slot, width) in self.network.slot_widths.iter().enumerate() {
                if !(read_later(slot) || slot == source) {
                    continue;
                }
                let length = rows * width;
                let copies = to[slot].chunks_exact_mut(length);
                for (to, (i, _)) in copies.zip(children) {
                    to.copy_from_slice(&from[slot][i * length..(i + 1) * length]);
                }
            }
            let mut out = std::mem::take(&mut to[at.slot]);
            let chunks = out.chunks_exact_mut(rows * at.width).enumerate();
            for (i, out) in chunks {
                let view = children[i].1.1.view(gate.layer, &(0..1));
                let length = rows * self.network.slot_widths[source];
                let input = (!in_place).then(|| &to[source][i * length..(i + 1) * length]);
                gate.piece(parameters, &view, rows, input, rows == 1, out);
            }
            to[at.slot] = out;
        }
        group.parts = children.iter().map(|(_, part)| part.clone()).collect();
        group
    }
}
