//! The pieces of a segment, each breakpoint found exactly from the affine piece before it.

use crate::graph::Graph;
use crate::matrix::{add, dot};
use crate::oracle::{Pattern, Point};

/// One piece of the segment from `x` along `z`.
pub struct Piece {
    /// Where it begins.
    pub start: f64,
    /// Where it ends.
    pub end: f64,
    /// What the gates select on it.
    pub pattern: Pattern,
    /// What switches at the end.
    pub switch: Option<Switch>,
}

/// A unit that takes another piece.
#[derive(Clone, Copy, Debug)]
pub struct Switch {
    /// The layer of gates.
    pub gate: usize,
    /// The unit.
    pub unit: usize,
    /// The piece that it takes.
    pub piece: usize,
}

impl Switch {
    /// The pattern behind it.
    pub fn apply(self, pattern: &mut Pattern) {
        pattern[self.gate][self.unit] = self.piece;
    }

    /// The derivative of the logits in the unit's value, and the change of the unit's derivative in
    /// the input.
    pub fn rank_one(self, graph: &Graph, before: &Point) -> (Vec<f64>, Vec<f64>) {
        let node = graph.gates().nth(self.gate).expect("the gate exists");
        let from = graph.nodes[node].selects().expect("it is a gate");
        let pieces = &graph.pieces(node)[self.unit];
        let derivative = |piece: usize| pieces[piece].derivative(&before.jacobians[from]);
        let now = before.pattern[self.gate][self.unit];
        let above = graph.sensitivity(node, &before.pattern);
        let change = add(&derivative(self.piece), -1.0, &derivative(now));
        (above.iter().map(|row| row[self.unit]).collect(), change)
    }
}

/// The first `t > 0` where a margin of `point` vanishes along `z`, with what switches, if there is
/// one.
pub fn next_kink(graph: &Graph, point: &Point, z: &[f64]) -> Option<(f64, Switch)> {
    let steps = graph.margins(point).into_iter().filter_map(|margin| {
        let rate = dot(&margin.gradient, z);
        let switch = Switch {
            gate: margin.gate,
            unit: margin.unit,
            piece: margin.piece,
        };
        (rate < 0.0).then(|| (margin.value.max(0.0) / -rate, switch))
    });
    steps.min_by(|a, b| a.0.total_cmp(&b.0))
}

/// The pieces of `x + t z` for `0 ≤ t ≤ length`.
///
/// After a breakpoint the margin that vanished grows, so the next one is found from the frozen
/// network with that unit switched.
pub fn pieces(graph: &Graph, x: &[f64], z: &[f64], length: f64) -> Vec<Piece> {
    let (mut start, mut pattern, mut pieces) = (0.0, graph.pattern(x), Vec::new());
    loop {
        let point = graph.frozen(&add(x, start, z), &pattern);
        let kink = next_kink(graph, &point, z);
        let next = kink.filter(|(step, _)| start + step < length);
        let end = next.map_or(length, |(step, _)| start + step);
        let switch = next.map(|(_, switch)| switch);
        pieces.push(Piece {
            start,
            end,
            pattern: pattern.clone(),
            switch,
        });
        let Some(switch) = switch else {
            return pieces;
        };
        switch.apply(&mut pattern);
        start = end;
    }
}
