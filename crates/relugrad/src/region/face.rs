//! The faces of a region: where a gate would select otherwise, and how far that is.

use crate::network::Network;
use crate::network::map::{GateKind, GateMap};
use crate::pattern::{ActivationPattern, LayerView, WORD};
use crate::scalar::Scalar;
use crate::sweep::Source;

/// A gate that selects otherwise on the other side of a hyperplane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kink {
    /// Which layer of gates, counted as by [`ActivationPattern`].
    pub layer: usize,
    /// Which unit of the layer.
    pub unit: usize,
    /// What it selects in the region; see [`ActivationPattern::choice`].
    pub from: usize,
    /// What it selects beyond.
    pub to: usize,
}

/// A kink with the affine function that falls through 0 there: the *margin*, a signed sum of one or
/// two values that arrive at the layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Face {
    pub(crate) kink: Kink,
    /// The node whose values arrive at the layer.
    pub(crate) arrives: usize,
    /// The node of the gates.
    pub(crate) gate: usize,
    /// What crossing adds to the unit's value, in multiples of the margin.
    pub(crate) change: f64,
    plus: Option<usize>,
    minus: Option<usize>,
    offset: f64,
}

impl Face {
    /// The margin, or without `affine` its linear part, from what arrives at the layer.
    pub(crate) fn margin<T: Scalar>(&self, arriving: &[T], affine: bool) -> T {
        let entry = |unit: Option<usize>| unit.map_or(T::ZERO, |unit| arriving[unit]);
        let offset = if affine { self.offset } else { 0.0 };
        entry(self.plus) - entry(self.minus) + T::from_f64(offset)
    }

    /// The units that the margin is a sum of, with their signs.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (usize, f64)> {
        let plus = self.plus.map(|unit| (unit, 1.0));
        plus.into_iter().chain(self.minus.map(|unit| (unit, -1.0)))
    }

    /// Seeds of `scale` times the margin's derivative in row `row` of rows of this width.
    pub(crate) fn seeds<T: Scalar>(&self, row: usize, width: usize, scale: f64) -> Source<T> {
        let seed = |(unit, sign): (usize, f64)| (row * width + unit, T::from_f64(scale * sign));
        Source {
            node: self.arrives,
            entries: self.entries().map(seed).collect(),
        }
    }
}

/// The margins of a layer at the first sample of `view`, in the order of its faces: one for each
/// unit of a gate with two slopes, for a clip one for each bound (all lower bounds first), for a
/// maximum one for each entry of its window that has not won. Margins are not negative where the
/// pattern is the right one.
pub(crate) fn write_margins<T: Scalar>(
    gate: &GateMap,
    view: &LayerView,
    arriving: &[T],
    affine: bool,
    to: &mut Vec<T>,
) {
    match &gate.kind {
        GateKind::Slope(slope) if slope.bounds().is_none() => {
            for (word, z) in arriving.chunks(WORD).enumerate() {
                let active = view.active(0, word);
                let margin = |(bit, &z): (usize, &T)| if active >> bit & 1 == 1 { z } else { -z };
                to.extend(z.iter().enumerate().map(margin));
            }
        }
        GateKind::Slope(slope) => {
            for (plane, bound) in bounds(slope.bounds()).enumerate() {
                let bound = T::from_f64(if affine { bound } else { 0.0 });
                to.extend(arriving.iter().enumerate().map(|(unit, &z)| {
                    let beyond = view.unit(0, unit) > plane;
                    if beyond { z - bound } else { bound - z }
                }));
            }
        }
        GateKind::Max(max) => {
            for unit in 0..max.units() {
                let winner = view.unit(0, unit);
                let top = arriving[max.member(unit, winner)];
                let rivals = max.members(unit).enumerate();
                let rivals = rivals.filter(|(place, _)| *place != winner);
                to.extend(rivals.map(|(_, i)| top - arriving[i]));
            }
        }
    }
}

/// Where the slope of a gate changes: at 0, or at the bounds of a clip.
fn bounds(clip: Option<(f64, f64)>) -> impl Iterator<Item = f64> {
    let (lower, upper) = clip.map_or((0.0, None), |(min, max)| (min, Some(max)));
    [lower].into_iter().chain(upper)
}

/// Crosses a face of the region of a pattern's first sample, by its number in the order of
/// [`write_margins`].
pub(super) fn cross(pattern: &mut ActivationPattern, gate: &GateMap, face: usize) {
    match &gate.kind {
        GateKind::Slope(slope) => {
            pattern.flip(gate.layer, face / slope.width(), face % slope.width());
        }
        GateKind::Max(max) => {
            let view = pattern.view(gate.layer, &(0..1));
            let (unit, place) = max.rival(view.sample_choices(0), face);
            pattern.choose(gate.layer, unit, place);
        }
    }
}

impl<T: Scalar> Network<T> {
    /// Number of faces of each layer of gates.
    pub(crate) fn face_counts(&self) -> Vec<usize> {
        let count = |gate: &GateMap| match &gate.kind {
            GateKind::Slope(slope) => slope.width() * bounds(slope.bounds()).count(),
            GateKind::Max(max) => max.total_members() - max.units(),
        };
        self.gate_layers().map(count).collect()
    }

    /// The node of a layer of gates.
    pub(crate) fn gate_node(&self, layer: usize) -> usize {
        let is_layer =
            |node: &crate::network::Node| node.map.gate().is_some_and(|gate| gate.layer == layer);
        self.nodes
            .iter()
            .position(is_layer)
            .expect("a layer of the network")
    }

    /// A face of a sample's region by its number in its layer.
    pub(crate) fn face(
        &self,
        pattern: &ActivationPattern,
        sample: usize,
        (layer, number): (usize, usize),
    ) -> Face {
        let gate_node = self.gate_node(layer);
        let node = &self.nodes[gate_node];
        let gate = node.map.gate().expect("a layer of gates");
        let view = pattern.view(layer, &(sample..sample + 1));
        let (kink, plus, minus, offset, change);
        match &gate.kind {
            GateKind::Slope(slope) => {
                let width = slope.width();
                let (plane, unit) = (number / width, number % width);
                let bound = bounds(slope.bounds())
                    .nth(plane)
                    .expect("a face of the layer");
                let choice = view.unit(0, unit);
                let beyond = choice > plane;
                let to = if beyond { choice - 1 } else { choice + 1 };
                kink = Kink {
                    layer,
                    unit,
                    from: choice,
                    to,
                };
                (plus, minus, offset) = if beyond {
                    (Some(unit), None, -bound)
                } else {
                    (None, Some(unit), bound)
                };
                let inactive = slope.slope(self.parameters().values(), unit).into_f64();
                // The slope below the bound less that above it.
                change = if plane == 0 {
                    inactive - 1.0
                } else {
                    1.0 - inactive
                };
            }
            GateKind::Max(max) => {
                let (unit, place) = max.rival(view.sample_choices(0), number);
                let winner = view.unit(0, unit);
                kink = Kink {
                    layer,
                    unit,
                    from: winner,
                    to: place,
                };
                plus = Some(max.member(unit, winner));
                minus = Some(max.member(unit, place));
                (offset, change) = (0.0, -1.0);
            }
        }
        Face {
            kink,
            arrives: node.inputs[0],
            gate: gate_node,
            change,
            plus,
            minus,
            offset,
        }
    }
}
