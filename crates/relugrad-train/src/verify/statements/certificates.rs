//! T61 to T66, T69 and T70: certificates and the local worst case, in the Euclidean norm.

use ndarray::{Array1, Array2};
use relugrad::{Ball, Norm, Penalty, Result, Scalar};

use super::super::logits::{divergence, likeliest};
use super::super::point::{Moved, Point, norm};
use super::curvature::psi;
use super::{Check, Scope, Statement, excess, relative, worst};

/// How much of a radius is used, so that rounding of the margins does not decide.
const INSIDE: f64 = 0.9;
const OUTSIDE: f64 = 1.1;

#[rustfmt::skip]
pub(super) fn statements<T: Scalar>() -> Vec<Statement<T>> {
    vec![
        Statement::new("T61", Scope::Gates, 0.0, nearest_kink, "no gate switches within the distance to the nearest kink, one does beyond"),
        Statement::new("T62", Scope::GatesSoftmax, 1.0, certified_radius, "the class is constant within the certified radius"),
        Statement::new("T63", Scope::GatesSoftmax, 1.0, tangent_and_divergence, "inside the region ℓ(x + δ) = ℓ + ∇ₓℓ·δ + KL(p(x) ‖ p(x + δ))"),
        Statement::new("T64", Scope::GatesSoftmax, 1.0, worst_case, "ℓ + ε‖∇ₓℓ‖ ≤ max ℓ ≤ ℓ + ε‖∇ₓℓ‖ + ¼ ε² ‖C J‖₂² in a ball"),
        Statement::new("T65", Scope::GatesSoftmax, 1.0, worst_case_at_the_centre, "max ℓ ≤ ℓ + ε‖∇ₓℓ‖ + ψ(ρ) ε² ‖H‖₂ in a ball"),
        Statement::new("T66", Scope::GatesSoftmax, 1.0, problem_in_the_logits, "the worst case is a problem in J δ: JᵀG⁺Jδ does what δ does"),
        Statement::new("T69", Scope::GatesSoftmax, 1.0, gradient_and_farthest_rows, "max ℓ ≤ ℓ + ε‖∇ₓℓ‖ + ⅛ ε² max ‖J_j − J_k‖² in a ball"),
        Statement::new("T70", Scope::GatesSoftmax, 1.0, rivals_at_their_worst, "max ℓ ≤ log Σ exp(f_k − f_y + ε‖J_k − J_y‖) in a ball"),
    ]
}

/// The distance to the nearest kink and the direction there, unless the margin is not clear of
/// rounding.
fn radius<T: Scalar>(at: &Point<T>) -> Option<(f64, Array1<f64>)> {
    let (distance, unit) = at.nearest_kink()?;
    let gradient = at.margins.1.row(unit);
    let clear = (OUTSIDE - 1.0) * at.margins.0[unit] > at.margin_noise();
    (clear && !at.on_kink()).then(|| (distance, -&gradient / norm(gradient)))
}

fn nearest_kink<T: Scalar>(at: &Point<T>) -> Result<Check> {
    let Some((distance, direction)) = radius(at) else {
        return Ok(Check::Rejected);
    };
    let random = at.unit(at.x.len(), &mut at.random("nearest kink"));
    let stays = at.moved(&direction, INSIDE * distance)?.same_region
        && at.moved(&random, INSIDE * distance)?.same_region;
    let switches = !at.moved(&direction, OUTSIDE * distance)?.same_region;
    let holds = stays && switches;
    Ok(Check::Residual(if holds { 0.0 } else { 1.0 }))
}

/// How far another class is above `y`, if it is.
fn overtaken(f: &Array1<f64>, y: usize, scale: f64) -> f64 {
    let others = f.iter().enumerate().filter(|(k, _)| *k != y);
    others
        .map(|(_, &value)| excess(value, f[y], scale))
        .fold(0.0, f64::max)
}

fn certified_radius<T: Scalar>(at: &Point<T>) -> Result<Check> {
    let Some((kink, towards_kink)) = radius(at) else {
        return Ok(Check::Rejected);
    };
    let y = likeliest(&at.f);
    let rivals = (0..at.outputs()).filter(|&k| k != y).filter_map(|k| {
        let q = &at.j.row(k) - &at.j.row(y);
        let size = norm(&q);
        (size > 0.0).then(|| ((at.f[y] - at.f[k]) / size, q / size))
    });
    let Some((boundary, towards_boundary)) = rivals.min_by(|a, b| a.0.total_cmp(&b.0)) else {
        return Ok(Check::Rejected);
    };
    let random = at.unit(at.x.len(), &mut at.random("certified radius"));
    let certified = INSIDE * kink.min(boundary);
    let scale = at.logits_size() + at.jacobian_size() * kink.min(boundary);
    let mut residuals = Vec::new();
    for direction in [&towards_kink, &towards_boundary, &random] {
        let there = at.moved(direction, certified)?;
        residuals.push(overtaken(&there.f, y, scale));
    }
    if boundary <= INSIDE * kink {
        let f = at.moved(&towards_boundary, boundary)?.f;
        let others = f.iter().enumerate().filter(|(k, _)| *k != y);
        let rival = others.map(|(_, &f)| f).fold(f64::MIN, f64::max);
        residuals.push(relative(f[y] - rival, scale));
    }
    Ok(worst(residuals))
}

/// Points on the sphere of radius `ε = 0.9 ρ₁`, up the gradient first; nothing if there is no clear
/// radius.
fn sphere<T: Scalar>(at: &Point<T>, name: &str) -> Result<Option<(f64, Vec<Moved<T>>)>> {
    let Some((distance, towards_kink)) = radius(at) else {
        return Ok(None);
    };
    let Some(uphill) = at.gradient_direction() else {
        return Ok(None);
    };
    let random = at.unit(at.x.len(), &mut at.random(name));
    let length = INSIDE * distance;
    let points = [&uphill, &towards_kink, &random].map(|v| at.moved(v, length));
    Ok(Some((
        length,
        points.into_iter().collect::<Result<Vec<Moved<T>>>>()?,
    )))
}

fn loss_at<T: Scalar>(at: &Point<T>, f: &Array1<f64>) -> f64 {
    at.predict(f).loss
}

fn tangent_and_divergence<T: Scalar>(at: &Point<T>) -> Result<Check> {
    let Some((_, points)) = sphere(at, "tangent")? else {
        return Ok(Check::Rejected);
    };
    let residual = |there: &Moved<T>| {
        let found = loss_at(at, &there.f) - at.at.loss - at.g.dot(&there.delta);
        let expected = divergence(&at.f, &there.f);
        relative(found - expected, at.loss_size(there))
    };
    Ok(worst(points.iter().map(residual)))
}

fn worst_case<T: Scalar>(at: &Point<T>) -> Result<Check> {
    let Some((epsilon, points)) = sphere(at, "worst case")? else {
        return Ok(Check::Rejected);
    };
    let first_order = at.at.loss + epsilon * norm(&at.g);
    let bound = first_order + 0.25 * epsilon * epsilon * at.centred_spectral()?;
    let uphill = &points[0];
    let lower = excess(first_order, loss_at(at, &uphill.f), at.loss_size(uphill));
    let upper = points
        .iter()
        .map(|there| excess(loss_at(at, &there.f), bound, at.loss_size(there)));
    Ok(worst(upper.chain([lower])))
}

fn worst_case_at_the_centre<T: Scalar>(at: &Point<T>) -> Result<Check> {
    let Some((epsilon, points)) = sphere(at, "worst case at the centre")? else {
        return Ok(Check::Rejected);
    };
    let rows = 0..at.outputs();
    let pairs = rows.clone().flat_map(|j| rows.clone().map(move |k| (j, k)));
    let spread = pairs
        .map(|(j, k)| norm(&(&at.j.row(j) - &at.j.row(k))))
        .fold(0.0, f64::max);
    let growth = psi(epsilon * spread);
    if growth.is_infinite() {
        return Ok(Check::Rejected);
    }
    let curvature = at.penalty(&Penalty::CurvatureSpectral)?;
    let second_order = growth * epsilon * epsilon * curvature;
    let bound = at.at.loss + epsilon * norm(&at.g) + second_order;
    let residual = |there: &Moved<T>| excess(loss_at(at, &there.f), bound, at.loss_size(there));
    Ok(worst(points.iter().map(residual)))
}

/// How far the loss in a ball is above `ℓ` and a penalty that bounds its growth.
fn above<T: Scalar>(at: &Point<T>, name: &str, growth: impl Fn(f64) -> Penalty) -> Result<Check> {
    let Some((epsilon, points)) = sphere(at, name)? else {
        return Ok(Check::Rejected);
    };
    let bound = at.at.loss + at.penalty(&growth(epsilon))?;
    let residual = |there: &Moved<T>| excess(loss_at(at, &there.f), bound, at.loss_size(there));
    Ok(worst(points.iter().map(residual)))
}

fn gradient_and_farthest_rows<T: Scalar>(at: &Point<T>) -> Result<Check> {
    let norm = Norm::L2;
    above(at, "gradient and farthest rows", |epsilon| {
        Penalty::WorstCaseQuadratic { epsilon, norm }
    })
}

fn rivals_at_their_worst<T: Scalar>(at: &Point<T>) -> Result<Check> {
    above(at, "rivals at their worst", |epsilon| {
        Penalty::WorstCase(Ball::new(Norm::L2, epsilon))
    })
}

/// An orthonormal basis of the space of the rows, by Gram and Schmidt with the longest row first
/// and twice for each, but for rows that are others' to rounding. `JᵀG⁺J` is the projection on it;
/// the inverse of `G`, with the square of the condition of `J`, is not needed.
fn row_space(j: &Array2<f64>) -> Vec<Array1<f64>> {
    let (mut rows, mut basis) = (j.to_owned(), Vec::<Array1<f64>>::new());
    let negligible = f64::EPSILON * norm(j);
    for _ in 0..j.nrows() {
        let lengths = rows.rows().into_iter().map(norm).enumerate();
        let longest = lengths.max_by(|a, b| a.1.total_cmp(&b.1));
        let Some((longest, _)) = longest.filter(|(_, length)| *length > negligible) else {
            break;
        };
        let mut q = rows.row(longest).to_owned();
        let mut left = 0.0;
        for _ in 0..2 {
            for other in &basis {
                let along = other.dot(&q);
                q.scaled_add(-along, other);
            }
            left = norm(&q);
            q /= left.max(f64::MIN_POSITIVE);
        }
        rows.row_mut(longest).fill(0.0);
        // What the second time takes away was rounding in the space of the others.
        if left < 0.5 {
            continue;
        }
        for mut row in rows.rows_mut() {
            let along = row.dot(&q);
            row.scaled_add(-along, &q);
        }
        basis.push(q);
    }
    basis
}

fn problem_in_the_logits<T: Scalar>(at: &Point<T>) -> Result<Check> {
    let Some((distance, _)) = radius(at) else {
        return Ok(Check::Rejected);
    };
    let random = at.unit(at.x.len(), &mut at.random("problem in the logits"));
    let delta = INSIDE * distance * random;
    let e = at.j.dot(&delta);
    let mut shortest = Array1::zeros(delta.len());
    for q in row_space(&at.j) {
        shortest.scaled_add(q.dot(&delta), &q);
    }
    let there = at.moved(&shortest, 1.0)?;
    let size = norm(&delta);
    let scale = at.change_size(&there) + at.jacobian_size() * size;
    Ok(worst([
        excess(norm(&shortest), size, size),
        relative(norm(&(&there.f - &at.f - &e)), scale),
    ]))
}
