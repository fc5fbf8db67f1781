//! A polygon cut by all gates of a layer.
//!
//! A gate whose line does not meet a polygon does not meet its parts either, so each part carries on
//! only the gates that are still open on it: the work is that of the parts that there are, not of all
//! parts times all gates.

use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::face::Kink;
use super::polygon::{Affine, Edge, Polygon, Side};
use crate::network::gates::{MaxGate, SlopeGate};
use crate::network::map::{GateKind, GateMap};
use crate::pattern::ActivationPattern;

/// A polygon and what the gates so far select there.
pub(super) type Part = (Polygon, ActivationPattern);

/// Parts of one polygon that are cut by different threads.
const TOGETHER: usize = 64;

/// Parts after which it is asked whether to go on.
const ASKED: usize = 64;

/// What cuts the polygons of a layer.
pub(super) struct Cutter<'a> {
    pub(super) gate: &'a GateMap,
    /// What arrives at a unit.
    pub(super) value: &'a (dyn Fn(usize) -> Affine + Sync),
    /// The most parts that are made of all polygons together.
    pub(super) room: usize,
    /// How many are.
    pub(super) made: &'a AtomicUsize,
    pub(super) stops: &'a (dyn Fn() -> bool + Sync),
}

/// A part, and the units that may switch on it.
struct Open {
    part: Part,
    units: Rc<[u32]>,
}

impl Cutter<'_> {
    /// The parts of a polygon, in the order in which unit after unit would cut it. More than there
    /// is room for show that there are too many; what is stopped is not complete.
    pub(super) fn cut(&self, whole: Part) -> Vec<Part> {
        self.cut_open(Open {
            part: whole,
            units: self.all_units(),
        })
    }

    /// The same by all threads.
    pub(super) fn cut_together(&self, whole: Part) -> Vec<Part> {
        let mut parts = vec![Open {
            part: whole,
            units: self.all_units(),
        }];
        let mut open = true;
        while open && parts.len() < TOGETHER && !(self.stops)() {
            parts = parts.into_iter().flat_map(|part| self.step(part)).collect();
            open = parts.iter().any(|part| !part.units.is_empty());
        }
        let parts = parts
            .into_iter()
            .map(|Open { part, units }| (part, units.to_vec()));
        let parts: Vec<(Part, Vec<u32>)> = parts.collect();
        let cut = |(part, units): (Part, Vec<u32>)| {
            let units = units.into();
            self.cut_open(Open { part, units })
        };
        let found: Vec<Vec<Part>> = parts.into_par_iter().map(cut).collect();
        found.into_iter().flatten().collect()
    }

    fn all_units(&self) -> Rc<[u32]> {
        let units = match &self.gate.kind {
            GateKind::Slope(slope) => slope.width(),
            GateKind::Max(max) => max.units(),
        };
        (0..units as u32).collect()
    }

    fn cut_open(&self, open: Open) -> Vec<Part> {
        let (mut waiting, mut done) = (vec![open], Vec::new());
        while let Some(open) = waiting.pop() {
            let full = self.made.load(Ordering::Relaxed) > self.room;
            if full || done.len() % ASKED == 0 && (self.stops)() {
                break;
            }
            let parts = self.step(open);
            if parts.len() == 1 && parts[0].units.is_empty() {
                self.made.fetch_add(1, Ordering::Relaxed);
                done.extend(parts.into_iter().map(|open| open.part));
            } else {
                waiting.extend(parts.into_iter().rev());
            }
        }
        done
    }

    /// Settles the units whose lines do not meet a part, and cuts it by the first of the others.
    fn step(&self, Open { part, units }: Open) -> Vec<Open> {
        let (polygon, mut pattern) = part;
        let met = units.iter().copied();
        let met: Vec<u32> = met
            .filter(|&unit| !self.settles(unit as usize, &polygon, &mut pattern))
            .collect();
        let (first, rest): (Option<u32>, Rc<[u32]>) = match met.split_first() {
            None => (None, Rc::new([])),
            Some((first, rest)) => (Some(*first), rest.into()),
        };
        let part = (polygon, pattern);
        let parts = match first {
            None => vec![part],
            Some(unit) => self.cut_by(unit as usize, part),
        };
        let open = |part| Open {
            part,
            units: Rc::clone(&rest),
        };
        parts.into_iter().map(open).collect()
    }

    /// Whether a unit selects the same on all of a polygon; then the pattern tells it.
    fn settles(&self, unit: usize, polygon: &Polygon, pattern: &mut ActivationPattern) -> bool {
        match &self.gate.kind {
            GateKind::Slope(slope) => self.slope_settles(slope, unit, polygon, pattern),
            GateKind::Max(max) => self.max_settles(max, unit, polygon, pattern),
        }
    }

    fn slope_settles(
        &self,
        slope: &SlopeGate,
        unit: usize,
        polygon: &Polygon,
        pattern: &mut ActivationPattern,
    ) -> bool {
        let [c, a, b] = (self.value)(unit);
        let sides = bounds(slope).map(|(choice, bound)| (choice, polygon.side([c - bound, a, b])));
        let mut settled = true;
        for (choice, side) in sides {
            match side {
                Side::Below => {}
                Side::Above => pattern.raise(self.gate.layer, unit, choice),
                Side::Both => settled = false,
            }
        }
        settled
    }

    /// One member wins on all of a polygon: against those before it somewhere and nowhere the other
    /// way, and those behind it nowhere against it.
    fn max_settles(
        &self,
        max: &MaxGate,
        unit: usize,
        polygon: &Polygon,
        pattern: &mut ActivationPattern,
    ) -> bool {
        let members = max.members(unit).len();
        let value = |place: usize| (self.value)(max.member(unit, place));
        let [x, y] = polygon.middle();
        let at_middle = |place: usize| {
            let [c, a, b] = value(place);
            c + a * x + b * y
        };
        let (mut winner, mut most) = (0, at_middle(0));
        for place in 1..members {
            let found = at_middle(place);
            if found > most {
                (winner, most) = (place, found);
            }
        }
        let own = value(winner);
        let wins = (0..members).filter(|&place| place != winner).all(|place| {
            let gap = polygon.side(difference(value(place), own));
            let reversed = || polygon.side(difference(own, value(place)));
            match place < winner {
                true => reversed() == Side::Above,
                false => gap == Side::Below,
            }
        });
        if wins {
            pattern.choose(self.gate.layer, unit, winner);
        }
        wins
    }

    /// Cuts a part by the lines of one unit.
    fn cut_by(&self, unit: usize, part: Part) -> Vec<Part> {
        match &self.gate.kind {
            GateKind::Slope(slope) => self.cut_by_slope(slope, unit, part),
            GateKind::Max(max) => self.cut_by_max(max, unit, part),
        }
    }

    fn cut_by_slope(&self, slope: &SlopeGate, unit: usize, part: Part) -> Vec<Part> {
        let (layer, [c, a, b]) = (self.gate.layer, (self.value)(unit));
        let mut parts = vec![part];
        for (choice, bound) in bounds(slope) {
            let kink = Kink {
                layer,
                unit,
                from: choice,
                to: choice + 1,
            };
            let above = |pattern: &mut ActivationPattern| pattern.raise(layer, unit, choice);
            parts = cut_all(parts, [c - bound, a, b], kink, above);
        }
        parts
    }

    fn cut_by_max(&self, max: &MaxGate, unit: usize, part: Part) -> Vec<Part> {
        let layer = self.gate.layer;
        let mut parts = vec![part];
        for place in 1..max.members(unit).len() {
            let rival = (self.value)(max.member(unit, place));
            let mut next = Vec::with_capacity(parts.len());
            for part in parts {
                let winner = part.1.choice(0, layer, unit);
                let gap = difference(rival, (self.value)(max.member(unit, winner)));
                let kink = Kink {
                    layer,
                    unit,
                    from: winner,
                    to: place,
                };
                let wins = |pattern: &mut ActivationPattern| pattern.choose(layer, unit, place);
                next.extend(cut_all(vec![part], gap, kink, wins));
            }
            parts = next;
        }
        parts
    }
}

/// The bounds of a gate with slopes at which it switches, and what it selects below each.
fn bounds(slope: &SlopeGate) -> impl Iterator<Item = (usize, f64)> {
    let (min, max) = slope.bounds().unwrap_or((0.0, f64::INFINITY));
    let bounds = [min, max].into_iter().enumerate();
    bounds.filter(|(_, bound)| *bound != f64::INFINITY)
}

pub(super) fn difference(a: Affine, b: Affine) -> Affine {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2]]
}

/// Cuts all parts by one line; beyond it `above` changes the pattern.
fn cut_all(
    parts: Vec<Part>,
    function: Affine,
    kink: Kink,
    above: impl Fn(&mut ActivationPattern),
) -> Vec<Part> {
    let mut next = Vec::with_capacity(parts.len() + 1);
    for (polygon, pattern) in parts {
        let (below, beyond) = polygon.cut(function, Edge::Kink(kink));
        if let Some(polygon) = beyond {
            let mut pattern = pattern.clone();
            above(&mut pattern);
            next.push((polygon, pattern));
        }
        next.extend(below.map(|polygon| (polygon, pattern)));
    }
    next
}
