//! The penalties by their definitions in `J`, `r` and `S`, never through the Gram matrix.

use relugrad::{Direction, Loss, Penalty};

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

/// The second point of CURE.
pub fn second_point(at: &Derivatives, x: &[f64], step: f64, direction: Direction) -> Vec<f64> {
    add(
        x,
        1.0,
        &scaled(step, &step_direction(direction, &at.gradient)),
    )
}
