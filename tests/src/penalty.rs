//! The penalties by their definitions in `J`, `r` and `S`, never through the Gram matrix.

use relugrad::{Ball, Direction, Loss, Norm, Penalty};

use crate::geometry;
use crate::graph::Graph;
use crate::loss::{LossPoint, evaluate};
use crate::matrix::{
    Matrix, add, chain, dot, eigen, frobenius, norm, product, scaled, singular_values, times,
    trace, transpose, transposed_times, unit,
};

/// The derivatives of one sample that penalties are made of.
#[derive(Clone, Debug)]
pub struct Derivatives {
    /// `J`.
    pub jacobian: Matrix,
    /// The loss with `r` and `S`.
    pub loss: LossPoint,
    /// `g = Jᵀ r`.
    pub gradient: Vec<f64>,
}

impl Derivatives {
    /// At one input of a network.
    pub fn at(graph: &Graph, loss: &Loss, x: &[f64], target: &[f64]) -> Derivatives {
        let point = graph.at(x);
        let loss = evaluate(loss, point.logits(), target);
        Derivatives {
            jacobian: point.jacobian().clone(),
            gradient: transposed_times(point.jacobian(), &loss.residual),
            loss,
        }
    }

    /// `H = Jᵀ S J`.
    pub fn hessian(&self) -> Matrix {
        let j = &self.jacobian;
        chain(&[&transpose(j), &self.loss.hessian, j])
    }
}

/// `Σ_{j,k} ‖J_j − J_k‖²`.
pub fn cross_lipschitz(jacobian: &[Vec<f64>]) -> f64 {
    let pairs = jacobian
        .iter()
        .flat_map(|a| jacobian.iter().map(move |b| add(a, -1.0, b)));
    pairs.map(|difference| dot(&difference, &difference)).sum()
}

/// CURE's unit direction for an input gradient.
pub fn step_direction(direction: Direction, gradient: &[f64]) -> Vec<f64> {
    match direction {
        Direction::Sign => {
            let sign = |g: &f64| if *g == 0.0 { 0.0 } else { g.signum() };
            unit(&gradient.iter().map(sign).collect::<Vec<f64>>())
        }
        Direction::Gradient { .. } => unit(gradient),
    }
}

/// The value of a penalty at one sample, or `None` for the projected one, which depends on random
/// rows.
///
/// # Panics
/// For a penalty that is not known here.
pub fn value(
    penalty: &Penalty,
    graph: &Graph,
    loss: &Loss,
    x: &[f64],
    target: &[f64],
) -> Option<f64> {
    let at = Derivatives::at(graph, loss, x, target);
    let (j, g, s) = (&at.jacobian, &at.gradient, &at.loss.hessian);
    let squared = |v: f64| v * v;
    Some(match penalty {
        Penalty::InputGradient => dot(g, g),
        Penalty::InputGradientL2 => norm(g),
        Penalty::InputGradientL1 => g.iter().map(|g| g.abs()).sum(),
        Penalty::InputGradientLinf => g.iter().fold(0.0, |m, g| g.abs().max(m)),
        Penalty::Jacobian => squared(frobenius(j)),
        Penalty::JacobianSpectral => squared(singular_values(j)[0]),
        Penalty::JacobianNuclear => singular_values(j).iter().sum(),
        Penalty::JacobianProjected { .. } => return None,
        Penalty::JacobianProbabilities => squared(frobenius(&product(s, j))),
        Penalty::CrossLipschitz => cross_lipschitz(j),
        Penalty::CurvatureTrace => trace(&at.hessian()),
        Penalty::CurvatureFrobenius => squared(frobenius(&at.hessian())),
        Penalty::CurvatureSpectral => eigen(&at.hessian()).0[0],
        Penalty::CurvatureDirectional => squared(norm(&times(&at.hessian(), &unit(g)))),
        Penalty::Cure { step, direction } => {
            let z = step_direction(*direction, g);
            let moved = Derivatives::at(graph, loss, &add(x, *step, &z), target);
            squared(norm(&add(&moved.gradient, -1.0, g)))
        }
        Penalty::WorstCase(ball) => {
            let moved = add(x, 1.0, &ball_step(ball, &at, x));
            let there = Derivatives::at(graph, loss, &moved, target);
            let (y, f) = (label(target), graph.at(x).logits().to_vec());
            let cross_entropy = |f: &[f64]| log_sum_exp(f) - f[y];
            worst_loss(ball, graph.at(&moved).logits(), &there.jacobian, y) - cross_entropy(&f)
        }
        Penalty::WorstCaseQuadratic { epsilon, norm } => {
            let pair = farthest_pair(*norm, j);
            let farthest = pair.map_or(0.0, |(i, k)| dual(*norm, &add(&j[k], -1.0, &j[i])));
            epsilon * dual(*norm, g) + squared(epsilon * farthest) / 8.0
        }
        Penalty::CureKinks { step, direction } => {
            let (sum, _) = geometry::kinks(graph, loss, (x, target), (*step, *direction));
            dot(&sum, &sum)
        }
        Penalty::RegionBoundary(hinge) => {
            geometry::hinges(hinge, geometry::hyperplanes(graph, x, hinge.norm))
        }
        Penalty::DecisionBoundary(hinge) => {
            geometry::hinges(hinge, geometry::boundaries(graph, x, target, hinge.norm))
        }
        Penalty::MaximumMargin(hinge) => {
            let halves = [
                geometry::hyperplanes(graph, x, hinge.norm),
                geometry::boundaries(graph, x, target, hinge.norm),
            ];
            halves
                .into_iter()
                .map(|near| geometry::hinges(hinge, near))
                .sum()
        }
        _ => panic!("no oracle for {penalty}"),
    })
}

/// The first largest entry of a target.
pub fn label(target: &[f64]) -> usize {
    let largest = target.iter().fold(f64::NEG_INFINITY, |m, t| m.max(*t));
    let first = target.iter().position(|t| *t == largest);
    first.expect("it is one of them")
}

/// `max v·δ` over `‖δ‖ ≤ 1`.
pub fn dual(of: Norm, v: &[f64]) -> f64 {
    match of {
        Norm::L1 => v.iter().fold(0.0, |m, v| v.abs().max(m)),
        Norm::L2 => norm(v),
        Norm::Linf => v.iter().map(|v| v.abs()).sum(),
    }
}

fn log_sum_exp(f: &[f64]) -> f64 {
    let largest = f.iter().fold(f64::NEG_INFINITY, |m, f| m.max(*f));
    largest + f.iter().map(|f| (f - largest).exp()).sum::<f64>().ln()
}

/// The pair of rows whose difference is the longest, if any two differ.
pub fn farthest_pair(norm: Norm, jacobian: &[Vec<f64>]) -> Option<(usize, usize)> {
    let k = jacobian.len();
    let pairs = (0..k).flat_map(|i| (i + 1..k).map(move |k| (i, k)));
    let length = |(i, k): (usize, usize)| dual(norm, &add(&jacobian[k], -1.0, &jacobian[i]));
    let farthest = pairs.max_by(|&a, &b| length(a).total_cmp(&length(b)));
    farthest.filter(|&pair| length(pair) > 0.0)
}

/// The likeliest classes other than `y`, as many as count.
pub fn rivals(ball: &Ball, f: &[f64], y: usize) -> Vec<usize> {
    let likelier = |k: usize| {
        let before = |&i: &usize| i != y && (f[i] > f[k] || (f[i] == f[k] && i < k));
        (0..f.len()).filter(before).count()
    };
    let counts = |&k: &usize| k != y && ball.rivals.is_none_or(|rivals| likelier(k) < rivals);
    (0..f.len()).filter(counts).collect()
}

/// `log Σ_k exp(f_k − f_y + ε ‖J_k − J_y‖•)`, where the likeliest rivals count with `ε` and the
/// others without.
pub fn worst_loss(ball: &Ball, f: &[f64], jacobian: &[Vec<f64>], y: usize) -> f64 {
    let epsilon = (1.0 - ball.step) * ball.epsilon;
    let chosen = rivals(ball, f, y);
    let worst = (0..f.len()).map(|k| {
        let apart = dual(ball.norm, &add(&jacobian[k], -1.0, &jacobian[y]));
        f[k] - f[y]
            + if chosen.contains(&k) {
                epsilon * apart
            } else {
                0.0
            }
    });
    log_sum_exp(&worst.collect::<Vec<f64>>())
}

/// The step along the steepest ascent that a ball is moved by, no coordinate further out of
/// `[0, 1]` unless that is allowed.
pub fn ball_step(ball: &Ball, at: &Derivatives, x: &[f64]) -> Vec<f64> {
    let g = &at.gradient;
    let largest = dual(Norm::L1, g);
    let first = g.iter().position(|g| g.abs() == largest);
    let length = ball.step * ball.epsilon;
    let ends = x.iter().enumerate().map(|(i, x)| {
        let u = match ball.norm {
            _ if largest == 0.0 => 0.0,
            Norm::Linf if g[i] == 0.0 => 0.0,
            Norm::Linf => g[i].signum(),
            Norm::L2 => g[i] / norm(g),
            Norm::L1 if Some(i) == first => g[i].signum(),
            Norm::L1 => 0.0,
        };
        let end = x + length * u;
        let clipped = if end > *x {
            end.min(x.max(1.0))
        } else {
            end.max(x.min(0.0))
        };
        (if ball.unclipped { end } else { clipped }) - x
    });
    ends.collect()
}

/// The second point of CURE.
pub fn second_point(at: &Derivatives, x: &[f64], step: f64, direction: Direction) -> Vec<f64> {
    add(
        x,
        1.0,
        &scaled(step, &step_direction(direction, &at.gradient)),
    )
}
