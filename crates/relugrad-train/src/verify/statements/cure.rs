//! T53 and T54: CURE in a region and across regions.

use ndarray::{Array1, Axis};
use relugrad::{Direction, Penalty, Piece, Result, Scalar, Targets, gradient_change};

use super::super::logits::Prediction;
use super::super::point::{Point, narrow, norm, wide};
use super::{Check, Scope, Statement, relative, worst};

pub(super) fn statements<T: Scalar>() -> Vec<Statement<T>> {
    vec![
        Statement {
            theorem: "T53",
            text: "in a region CURE is ‖Jᵀ(r(f + h J z) − r(f))‖²",
            scope: Scope::Any,
            tolerance: 4.0,
            check: in_a_region,
        },
        Statement {
            theorem: "T54",
            text: "across regions CURE is smooth part plus kinks, exactly",
            scope: Scope::Any,
            tolerance: 4.0,
            check: across_regions,
        },
    ]
}

/// Half way to the first kink along `g/‖g‖`, at most 1.
fn in_a_region<T: Scalar>(at: &Point<T>) -> Result<Check> {
    let Some(z) = at.gradient_direction().filter(|_| !at.on_kink()) else {
        return Ok(Check::Rejected);
    };
    let step = at.first_kink(&z).map_or(1.0, |(step, _)| step.min(1.0));
    let h = 0.5 * step;
    let cure = Penalty::Cure {
        step: h,
        direction: Direction::Gradient { held: false },
    };
    let f = &at.f + &(h * at.j.dot(&z));
    let there = Prediction::new(&at.subject.loss, &f, at.label);
    let change = at.j.t().dot(&(&there.r - &at.at.r));
    let found = at.penalty(&cure)?;
    let size = at.jacobian_size();
    let steepness = at.gradient_size() / norm(&at.g);
    let logits = at.logits_size();
    let gradients = at.gradient_size() + size * norm(&there.r);
    let scale = gradients.powi(2) * (1.0 + h * size * steepness + logits);
    Ok(worst([relative(found - norm(&change).powi(2), scale)]))
}

/// CURE's sign direction and step.
fn across_regions<T: Scalar>(at: &Point<T>) -> Result<Check> {
    let Some(signs) = signs(at) else {
        return Ok(Check::Rejected);
    };
    let (h, loss) = (at.subject.cure_step, &at.subject.loss);
    let z = &signs / norm(&signs).max(1.0);
    let end = at.moved(&z, h)?;
    if at.on_kink() || ends_on_kink(at, &end.x)? {
        return Ok(Check::Rejected);
    }
    let pieces = at.claims().pieces(at.x, narrow::<T>(&z).view(), h)?;
    let change = gradient_change(&pieces, loss, &Targets::Classes(&[at.label]))?;
    let there = wide(at.claims().input_gradient(end.x.view(), loss, at.label)?);
    let explained = wide(change.smooth) + wide(change.kinks);
    let cure = Penalty::Cure {
        step: h,
        direction: Direction::Sign,
    };
    let total = &there - &at.g;
    let scale = path_size(at, &pieces);
    Ok(worst([
        relative(norm(&(&total - &explained)), scale),
        relative(at.penalty(&cure)? - norm(&explained).powi(2), scale * scale),
    ]))
}

/// The signs of the input gradient; of a nearly certain sample, whose gradient may be below all numbers, those of what it is in
/// the limit, unless rounding decides.
fn signs<T: Scalar>(at: &Point<T>) -> Option<Array1<f64>> {
    let sign = |g: f64| if g == 0.0 { 0.0 } else { g.signum() };
    if at.at.missing > NEARLY_CERTAIN {
        return Some(at.g.mapv(sign));
    }
    let gradient = at.j.t().dot(&at.at.direction);
    let size = at.j.mapv(f64::abs).t().dot(&at.at.direction.mapv(f64::abs));
    let clear = |(g, size): (&f64, &f64)| *size == 0.0 || g.abs() > 1e-6 * size;
    let all = gradient.iter().zip(&size).all(clear);
    all.then(|| gradient.mapv(sign))
}

/// Below this the label's doubt may be lost in rounding.
const NEARLY_CERTAIN: f64 = 1e-11;

/// Whether a unit at `x` is so near its kink that rounding decides.
fn ends_on_kink<T: Scalar>(at: &Point<T>, x: &Array1<T>) -> Result<bool> {
    let margins = at.claims().margins(x.view())?;
    let values = wide(margins.values);
    let largest = values.iter().fold(0.0, |a: f64, &b| a.max(b));
    let noise = (at.rounding * largest).max(at.margin_noise());
    let rows = margins.gradients.axis_iter(Axis(0)).zip(&values);
    Ok(rows
        .into_iter()
        .any(|(row, &value)| value <= noise && row.iter().any(|&g| g != T::ZERO)))
}

/// The largest `‖J_i‖ (1 + ‖f‖) ‖r‖` on the way, to which rounding is proportional: `f` moves by a rounding, and `r` with
/// it by at most as much.
fn path_size<T: Scalar>(at: &Point<T>, pieces: &[Piece<T>]) -> f64 {
    let size = |piece: &Piece<T>| {
        let f = wide(piece.logits_end.iter().copied());
        let r = Prediction::new(&at.subject.loss, &f, at.label).r;
        let j = norm(&wide(piece.jacobian.iter().copied()));
        j * (norm(&r) + norm(&f))
    };
    // By path sums the regions on the way are taken to cancel as much as the first.
    let cancelled = |size: f64, plain: f64| if plain > 0.0 { size / plain } else { 1.0 };
    let jacobian = cancelled(at.jacobian_size(), at.jacobian_norm());
    let logits = cancelled(at.logits_size(), norm(&at.f));
    let sizes = pieces.iter().map(size);
    let along = match at.is_by_paths() {
        // Every crossing adds its own errors.
        true => sizes.sum(),
        false => sizes.fold(0.0, f64::max),
    };
    (along * jacobian * logits.max(1.0)).max(at.gradient_size())
}
