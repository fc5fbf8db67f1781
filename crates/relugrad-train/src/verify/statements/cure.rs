//! T53 and T54: CURE in a region and across regions.

use ndarray::{Array1, Axis};
use relugrad::{Direction, PathSums, Penalty, Piece, Result, Scalar, gradient_change};

use super::super::point::{Point, narrow, norm, smallest, wide};
use super::{Check, Scope, Statement, relative, worst};

#[rustfmt::skip]
pub(super) fn statements<T: Scalar>() -> Vec<Statement<T>> {
    vec![
        Statement::new("T53", Scope::Any, 4.0, in_a_region, "in a region CURE is ‖Jᵀ(r(f + h J z) − r(f))‖²"),
        Statement::new("T54", Scope::Any, ACROSS, across_regions, "across regions CURE is smooth part plus kinks, exactly"),
    ]
}

/// The tolerance of T54.
const ACROSS: f64 = 4.0;

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
    let there = at.predict(&f);
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
    let (end, way) = (at.moved(&z, h)?, narrow::<T>(&z));
    let paths = match at.is_by_paths() {
        true => Some(at.subject.network.path_sums_along(at.x, way.view(), h)?),
        false => None,
    };
    if at.on_kink() || ends_on_kink(at, &end.x, paths.as_deref())? {
        return Ok(Check::Rejected);
    }
    let pieces = at.claims().pieces(at.x, way.view(), h)?;
    let change = gradient_change(&pieces, loss, &at.truth.targets())?;
    let there = wide(
        at.claims()
            .input_gradient(end.x.view(), loss, &at.truth.targets())?,
    );
    let explained = wide(change.smooth) + wide(change.kinks);
    let cure = Penalty::Cure {
        step: h,
        direction: Direction::Sign,
    };
    let total = &there - &at.g;
    let (scale, size) = (way_size(at, &pieces, paths.as_deref()), norm(&explained));
    // The error of a square is that of its root times twice the root, and its own square.
    let squared = scale * (2.0 * size + ACROSS * at.rounding * scale);
    Ok(worst([
        relative(norm(&(&total - &explained)), scale),
        relative(at.penalty(&cure)? - size * size, squared),
    ]))
}

/// The signs of the input gradient; of a nearly certain sample, whose gradient may be below all
/// numbers, those of what it is in the limit, unless rounding decides.
fn signs<T: Scalar>(at: &Point<T>) -> Option<Array1<f64>> {
    let sign = |g: f64| if g == 0.0 { 0.0 } else { g.signum() };
    if at.at.missing > NEARLY_CERTAIN {
        return at.gradient_is_clear().then(|| at.g.mapv(sign));
    }
    let gradient = at.j.t().dot(&at.at.direction);
    let size = at.j.mapv(f64::abs).t().dot(&at.at.direction.mapv(f64::abs));
    let clear = |(g, size): (&f64, &f64)| *size == 0.0 || g.abs() > 1e-6 * size;
    let all = gradient.iter().zip(&size).all(clear);
    all.then(|| gradient.mapv(sign))
}

/// Below this the label's doubt may be lost in rounding.
const NEARLY_CERTAIN: f64 = 1e-11;

/// Whether a unit at the end `x` of the way is so near its kink that rounding decides there, or has
/// decided on the way.
fn ends_on_kink<T: Scalar>(
    at: &Point<T>,
    x: &Array1<T>,
    paths: Option<&[PathSums]>,
) -> Result<bool> {
    let margins = at.claims().margins(x.view())?;
    let values = wide(margins.values);
    let largest = values.iter().fold(0.0, |a: f64, &b| a.max(b));
    let noise = |unit: usize| match paths {
        Some(paths) => {
            at.rounding
                * paths
                    .iter()
                    .filter_map(|sums| sums.margins.get(unit))
                    .sum::<f64>()
        }
        None => (at.rounding * largest).max(at.margin_noise()),
    };
    let rows = margins.gradients.axis_iter(Axis(0)).zip(&values);
    let mut rows = rows.enumerate();
    Ok(rows.any(|(unit, (row, &value))| value <= noise(unit) && row.iter().any(|&g| g != T::ZERO)))
}

/// What the rounding error of `Δ` is proportional to (theory, section 1.7): the Jacobians' own
/// errors, which add up from crossing to crossing, times the residual; their products with
/// residuals; and what the errors of the logits, which add up as well, make of the residuals, times
/// the Jacobian of each piece.
fn way_size<T: Scalar>(at: &Point<T>, pieces: &[Piece<T>], paths: Option<&[PathSums]>) -> f64 {
    let (mut logits, mut jacobians) = (at.logits_size(), at.jacobian_size());
    for piece in pieces {
        let ends = [&piece.logits_start, &piece.logits_end];
        logits += ends
            .map(|f| norm(&wide(f.iter().copied())))
            .iter()
            .sum::<f64>();
        jacobians += norm(&wide(piece.jacobian.iter().copied()));
    }
    for sums in paths.unwrap_or_default() {
        logits += norm(&sums.logits);
        jacobians += norm(&sums.jacobian);
    }
    let (mut largest, mut products) = (norm(&at.at.r), 0.0);
    for piece in pieces {
        let j = norm(&wide(piece.jacobian.iter().copied()));
        for f in [&piece.logits_start, &piece.logits_end] {
            let there = at.predict(&wide(f.iter().copied()));
            let residual = norm(&there.r);
            largest = largest.max(residual);
            products += j * (residual + there.steepness(ACROSS * at.rounding * logits) * logits);
        }
    }
    jacobians * (largest + smallest::<T>()) + products
}
