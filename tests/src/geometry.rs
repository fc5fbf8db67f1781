//! Penalties on hyperplanes by their definitions: distances from the margins of the oracle, kinks
//! from its pieces.

use relugrad::{Direction, Hinge, Loss, Norm};

use crate::graph::Graph;
use crate::loss::evaluate;
use crate::matrix::{self, add, scaled, transposed_times};
use crate::penalty::{Derivatives, step_direction};
use crate::segment::pieces;

/// A hyperplane at a distance.
#[derive(Clone, Debug)]
pub struct Near {
    /// The signed distance.
    pub distance: f64,
    /// The gradient of its margin in the input.
    pub normal: Vec<f64>,
    /// Which it is, in the order of the oracle.
    pub number: usize,
}

/// The dual norm of a vector.
pub fn dual(norm: Norm, v: &[f64]) -> f64 {
    match norm {
        Norm::L1 => v.iter().fold(0.0, |m, v| v.abs().max(m)),
        Norm::L2 => matrix::norm(v),
        Norm::Linf => v.iter().map(|v| v.abs()).sum(),
    }
}

/// All hyperplanes of a region, nearest first; those that the input does not reach are left out.
pub fn hyperplanes(graph: &Graph, x: &[f64], norm: Norm) -> Vec<Near> {
    let margins = graph.margins(&graph.at(x)).into_iter().enumerate();
    let near = margins.map(|(number, margin)| Near {
        distance: margin.value / dual(norm, &margin.gradient),
        normal: margin.gradient,
        number,
    });
    sorted(near.collect())
}

/// The hyperplanes between the target and every other class, nearest first.
pub fn boundaries(graph: &Graph, x: &[f64], target: &[f64], norm: Norm) -> Vec<Near> {
    let point = graph.at(x);
    let class =
        (0..target.len()).fold(0, |best, i| if target[i] > target[best] { i } else { best });
    let (f, j) = (point.logits(), point.jacobian());
    let others = (0..f.len()).filter(|&other| other != class);
    let near = others.map(|other| {
        let normal = add(&j[class], -1.0, &j[other]);
        Near {
            distance: (f[class] - f[other]) / dual(norm, &normal),
            normal,
            number: other,
        }
    });
    sorted(near.collect())
}

fn sorted(near: Vec<Near>) -> Vec<Near> {
    let reached = |near: &Near| near.normal.iter().any(|&n| n != 0.0);
    let mut near: Vec<Near> = near.into_iter().filter(reached).collect();
    near.sort_by(|a, b| a.distance.total_cmp(&b.distance));
    near
}

/// The mean of the hinges of the nearest hyperplanes.
pub fn hinges(hinge: &Hinge, mut near: Vec<Near>) -> f64 {
    near.truncate(hinge.nearest);
    let values = near
        .iter()
        .map(|near| (1.0 - near.distance / hinge.radius).max(0.0));
    values.sum::<f64>() / near.len().max(1) as f64
}

/// `Σ_i (J_{i+1} − J_i)ᵀ r(t_i)` between `x` and CURE's second point, and what switches on the way.
pub fn kinks(
    graph: &Graph,
    loss: &Loss,
    (x, target): (&[f64], &[f64]),
    (step, direction): (f64, Direction),
) -> (Vec<f64>, Vec<[usize; 3]>) {
    let z = step_direction(direction, &Derivatives::at(graph, loss, x, target).gradient);
    let pieces = pieces(graph, x, &z, step);
    let (mut sum, mut switches) = (scaled(0.0, x), Vec::new());
    for pair in pieces.windows(2) {
        let at = add(x, pair[0].end, &z);
        let [before, after] = [&pair[0], &pair[1]].map(|piece| graph.frozen(&at, &piece.pattern));
        let r = evaluate(loss, before.logits(), target).residual;
        sum = add(&sum, 1.0, &transposed_times(after.jacobian(), &r));
        sum = add(&sum, -1.0, &transposed_times(before.jacobian(), &r));
        let switch = pair[0].switch.expect("a piece follows");
        switches.push([switch.gate, switch.unit, switch.piece]);
    }
    (sum, switches)
}

/// What must not change for the mean of hinges to be smooth: which hyperplanes count, which are
/// within the radius, and what the dual norm's derivative depends on.
pub fn signature(hinge: &Hinge, mut near: Vec<Near>) -> Vec<usize> {
    near.truncate(hinge.nearest);
    near.sort_by_key(|near| near.number);
    let mut facts = Vec::new();
    for Near {
        distance,
        normal,
        number,
    } in near
    {
        facts.extend([number, usize::from(distance < hinge.radius)]);
        match hinge.norm {
            Norm::L1 => facts.push((0..normal.len()).fold(0, |best, i| {
                if normal[i].abs() > normal[best].abs() {
                    i
                } else {
                    best
                }
            })),
            Norm::L2 => {}
            Norm::Linf => {
                let sign = |n: &f64| usize::from(*n > 0.0) + 2 * usize::from(*n < 0.0);
                facts.extend(normal.iter().map(sign));
            }
        }
    }
    facts
}
