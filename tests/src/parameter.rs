//! Parameter gradients of penalties, by the engine and by differences of the engine's values.

use ndarray::Array2;
use relugrad::{Direction, Network, Objective, Penalty, SweepStrategy, Targets};

use crate::cases::Case;
use crate::difference::{holding_step, slope};
use crate::geometry;
use crate::graph::{Graph, array};
use crate::matrix::{Matrix, add, dot, norm, scaled};
use crate::oracle::Pattern;
use crate::penalty::{Derivatives, ball_step, farthest_pair, label, rivals, second_point};

/// The gradient of the mean of a penalty alone.
///
/// The engine returns it added to that of the loss. The weight is chosen so that neither hides the
/// other.
pub fn penalty_gradient(case: &Case, penalty: &Penalty, route: SweepStrategy) -> Vec<f64> {
    let (network, batch) = (case.network(), case.batch());
    let gradient = |objective: &Objective| {
        let found = objective.gradient(&network, batch.view(), &case.owned.view());
        let (evaluation, gradient) = found.unwrap();
        (evaluation, gradient.values().to_vec())
    };
    let loss = gradient(&Objective::new(case.loss)).1;
    let with = |weight: f64| {
        let objective = Objective::new(case.loss).with_strategy(route);
        let (evaluation, total) = gradient(&objective.with(penalty.clone(), weight).unwrap());
        let alone = scaled(1.0 / weight, &add(&total, -1.0, &loss));
        (evaluation.penalties[0], alone)
    };
    let usable = |weight: f64| weight > 1.0 && weight < 1e280;
    let (value, mut found) = with(1.0);
    if usable(norm(&loss) / value) {
        found = with(norm(&loss) / value).1;
    }
    match norm(&loss) / norm(&found) {
        ratio if usable(ratio) => with(ratio).1,
        _ => found,
    }
}

/// What must not change for a penalty to be smooth: patterns, signs, and which entry is the
/// largest.
#[derive(Clone, Debug, PartialEq)]
pub struct Signature {
    patterns: Vec<Pattern>,
    signs: Vec<Vec<bool>>,
    largest: Vec<usize>,
    /// Hyperplanes that count, or gates that switch on the way.
    geometry: Vec<Vec<usize>>,
}

fn place_of_largest(v: &[f64]) -> usize {
    let order = |&i: &usize, &j: &usize| v[i].abs().total_cmp(&v[j].abs());
    (0..v.len()).max_by(order).expect("there are features")
}

fn positive(v: &[f64]) -> Vec<bool> {
    v.iter().map(|&v| v > 0.0).collect()
}

/// The signature of a penalty at a network and a batch.
pub fn signature(case: &Case, graph: &Graph, penalty: &Penalty) -> Signature {
    let mut patterns: Vec<Pattern> = case.inputs.iter().map(|x| graph.pattern(x)).collect();
    let (mut signs, mut largest, mut places) = (Vec::new(), Vec::new(), Vec::new());
    for (x, target) in case.inputs.iter().zip(&case.targets) {
        match penalty {
            Penalty::RegionBoundary(hinge) => {
                let near = geometry::hyperplanes(graph, x, hinge.norm);
                places.push(geometry::signature(hinge, near));
            }
            Penalty::DecisionBoundary(hinge) => {
                let near = geometry::boundaries(graph, x, target, hinge.norm);
                places.push(geometry::signature(hinge, near));
            }
            Penalty::MaximumMargin(hinge) => {
                let halves = [
                    geometry::hyperplanes(graph, x, hinge.norm),
                    geometry::boundaries(graph, x, target, hinge.norm),
                ];
                places.extend(halves.map(|near| geometry::signature(hinge, near)));
            }
            Penalty::CureKinks { step, direction } => {
                let way = (*step, *direction);
                let (_, switches) = geometry::kinks(graph, &case.loss, (x, target), way);
                places.push(switches.concat());
                if *direction == Direction::Sign {
                    let g = Derivatives::at(graph, &case.loss, x, target).gradient;
                    signs.push(positive(&g));
                }
            }
            Penalty::WorstCase(ball) => {
                let here = Derivatives::at(graph, &case.loss, x, target);
                let moved = add(x, 1.0, &ball_step(ball, &here, x));
                let there = Derivatives::at(graph, &case.loss, &moved, target);
                let chosen = rivals(ball, graph.at(&moved).logits(), label(target));
                let apart =
                    |&k: &usize| add(&there.jacobian[k], -1.0, &there.jacobian[label(target)]);
                let rows: Vec<Vec<f64>> = chosen.iter().map(apart).chain([here.gradient]).collect();
                largest.extend(rows.iter().map(|row| place_of_largest(row)));
                signs.extend(rows.iter().map(|row| positive(row)));
                patterns.push(graph.pattern(&moved));
                places.push(chosen);
            }
            Penalty::WorstCaseQuadratic { norm, .. } => {
                let at = Derivatives::at(graph, &case.loss, x, target);
                let pair = farthest_pair(*norm, &at.jacobian);
                let apart = pair.map(|(i, k)| add(&at.jacobian[k], -1.0, &at.jacobian[i]));
                let rows: Vec<Vec<f64>> = apart.into_iter().chain([at.gradient]).collect();
                largest.extend(rows.iter().map(|row| place_of_largest(row)));
                signs.extend(rows.iter().map(|row| positive(row)));
                places.push(pair.into_iter().flat_map(|(i, k)| [i, k]).collect());
            }
            _ => {}
        }
        if matches!(
            penalty,
            Penalty::InputGradientL1 | Penalty::InputGradientLinf | Penalty::Cure { .. }
        ) {
            let at = Derivatives::at(graph, &case.loss, x, target);
            let g = &at.gradient;
            if *penalty == Penalty::InputGradientLinf {
                largest.push(place_of_largest(g));
            }
            if let Penalty::Cure { step, direction } = penalty {
                patterns.push(graph.pattern(&second_point(&at, x, *step, *direction)));
            }
            if !matches!(
                penalty,
                Penalty::Cure {
                    direction: Direction::Gradient { .. },
                    ..
                }
            ) {
                signs.push(positive(g));
            }
        }
    }
    Signature {
        patterns,
        signs,
        largest,
        geometry: places,
    }
}

/// The mean of a penalty as a function of the parameters of the engine's network.
///
/// A direction that is held constant is computed once, at the network of the case.
pub fn penalty_value(case: &Case, penalty: &Penalty) -> impl Fn(&Network<f64>) -> f64 {
    let (batch, owned, loss) = (case.batch(), case.owned.clone(), case.loss);
    let objective = case.objective(penalty, SweepStrategy::AllRows);
    let held = match penalty {
        Penalty::Cure { step, direction } if *direction == (Direction::Gradient { held: true }) => {
            Some(held_points(case, *step, *direction))
        }
        _ => None,
    };
    move |network| match &held {
        None => {
            objective
                .value(network, batch.view(), &owned.view())
                .unwrap()
                .penalties[0]
        }
        Some(moved) => {
            let gradient = |x: &Array2<f64>, targets: &Targets<f64>| {
                let trace = network.trace(x.view()).unwrap();
                trace.input_gradient(&loss, targets).unwrap()
            };
            let (there, here) = (
                gradient(moved, &owned.view()),
                gradient(&batch, &owned.view()),
            );
            let difference = there - here;
            difference.iter().map(|d| d * d).sum::<f64>() / batch.nrows() as f64
        }
    }
}

fn held_points(case: &Case, step: f64, direction: Direction) -> Array2<f64> {
    let point = |i: usize| second_point(&case.derivatives(i), &case.inputs[i], step, direction);
    let points: Matrix = (0..case.inputs.len()).map(point).collect();
    array(&points)
}

/// The derivative of the mean of a penalty along a direction by differences, with an estimate of
/// its error, or `None` if a kink is too near.
pub fn penalty_slope(case: &Case, penalty: &Penalty, direction: &[f64]) -> Option<(f64, f64)> {
    let here = signature(case, &case.graph, penalty);
    let same = |t: f64| signature(case, &case.graph.moved(direction, t), penalty) == here;
    let step = holding_step(first_step(case, direction), 1e-7, same)?;
    let value = penalty_value(case, penalty);
    let (parameters, mut network) = (case.graph.parameters(), case.network());
    let cell = std::cell::RefCell::new(&mut network);
    let phi = |t: f64| {
        let mut network = cell.borrow_mut();
        let moved = add(&parameters, t, direction);
        network.parameters_mut().assign(&moved).unwrap();
        value(&network)
    };
    Some(slope(phi, step))
}

/// A step in which no logit moves by more than a few hundredths, so that probabilities change
/// little.
fn first_step(case: &Case, direction: &[f64]) -> f64 {
    let moved = case.graph.moved(direction, 1e-7);
    let rate = |x: &Vec<f64>| norm(&add(&moved.logits(x), -1.0, &case.graph.logits(x))) / 1e-7;
    0.03 / case.inputs.iter().map(rate).fold(1.0, f64::max)
}

/// `⟨gradient, direction⟩`.
pub fn along(gradient: &[f64], direction: &[f64]) -> f64 {
    dot(gradient, direction)
}
