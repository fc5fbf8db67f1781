//! The pieces of a segment, each breakpoint found exactly from the affine piece before it.

use relugrad_tests::graph::Graph;
use relugrad_tests::matrix::{add, dot};
use relugrad_tests::oracle::{Pattern, Point};

/// One piece of the segment from `x` along `z`.
pub(crate) struct Piece {
    pub(crate) start: f64,
    pub(crate) end: f64,
    pub(crate) pattern: Pattern,
    /// The gate layer and unit that switches at the end.
    pub(crate) switch: Option<(usize, usize)>,
}

/// The first `t > 0` where a margin of `point` vanishes along `z`, with the gate and unit, if there is one.
pub(crate) fn next_kink(graph: &Graph, point: &Point, z: &[f64]) -> Option<(f64, (usize, usize))> {
    let steps = graph.margins(point).into_iter().filter_map(|margin| {
        let rate = dot(&margin.gradient, z);
        (rate < 0.0).then(|| (margin.value.max(0.0) / -rate, (margin.gate, margin.unit)))
    });
    steps.min_by(|a, b| a.0.total_cmp(&b.0))
}

/// The pieces of `x + t z` for `0 ≤ t ≤ length`.
///
/// After a breakpoint the margin that vanished grows, so the next one is found from the frozen network with that
/// unit switched.
pub(crate) fn pieces(graph: &Graph, x: &[f64], z: &[f64], length: f64) -> Vec<Piece> {
    let (mut start, mut pattern, mut pieces) = (0.0, graph.pattern(x), Vec::new());
    loop {
        let point = graph.frozen(&add(x, start, z), &pattern);
        let kink = next_kink(graph, &point, z);
        let next = kink.filter(|(step, _)| start + step < length);
        let end = next.map_or(length, |(step, _)| start + step);
        let switch = next.map(|(_, unit)| unit);
        pieces.push(Piece {
            start,
            end,
            pattern: pattern.clone(),
            switch,
        });
        let Some((gate, unit)) = switch else {
            return pieces;
        };
        pattern[gate][unit] ^= true;
        start = end;
    }
}
