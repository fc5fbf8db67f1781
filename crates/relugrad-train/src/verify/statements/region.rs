//! T1 to T3: the network on a region.

use relugrad::{Result, Scalar};

use super::super::point::{Point, narrow, norm, wide};
use super::{Check, Scope, Statement, relative, worst};

#[rustfmt::skip]
pub(super) fn statements<T: Scalar>() -> Vec<Statement<T>> {
    vec![
        Statement::new("T1", Scope::Any, 1.0, affine, "f(x + δ) − f(x) = J δ as far as the pattern holds"),
        Statement::new("T2", Scope::Gates, 1.0, first_switch, "the pattern holds along v up to min |z| / |∇z·v|"),
        Statement::new("T3", Scope::NoBiases, 1.0, homogeneous, "f(x) = J x without biases"),
    ]
}

/// Half way to the first kink along a random direction, or the length of the sample if there is
/// none.
fn affine<T: Scalar>(at: &Point<T>) -> Result<Check> {
    if at.on_kink() {
        return Ok(Check::Rejected);
    }
    let v = at.unit(at.x.len(), &mut at.random("affine"));
    let free = 1.0 + norm(&wide(at.x.iter().copied()));
    let step = at
        .first_kink(&v)
        .map_or(free, |(step, _)| (0.5 * step).min(free));
    let there = at.moved(&v, step)?;
    if !there.same_region {
        return Ok(Check::Residual(f64::INFINITY));
    }
    let change = at.j.dot(&there.delta);
    let scale = at.change_size(&there);
    let error = norm(&(&there.f - &at.f - &change));
    Ok(Check::Residual(relative(error, scale)))
}

/// The margins and the walk agree on the first kink, and the forward pass switches there.
fn first_switch<T: Scalar>(at: &Point<T>) -> Result<Check> {
    let v = at.unit(at.x.len(), &mut at.random("first switch"));
    let Some((step, unit)) = at.first_kink(&v).filter(|_| !at.on_kink()) else {
        return Ok(Check::Rejected);
    };
    let direction = narrow::<T>(&v);
    let pieces = at.claims().pieces(at.x, direction.view(), 2.0 * step)?;
    let rate = at.margins.1.row(unit).dot(&v).abs();
    let largest = at.margin_noise() / at.rounding;
    // The step is as uncertain as the margin and as the rate, of which cancellation leaves a part.
    let scale = step * (norm(at.margins.1.row(unit)) / rate).max(1.0) + largest / rate;
    let noise = at.margin_noise() / rate;
    let before = at.moved(&v, step - noise.max(1e-3 * step))?;
    let after = at.moved(&v, step + noise.max(1e-3 * step))?;
    let switches = before.same_region && !after.same_region;
    Ok(worst([
        relative(pieces[0].end - step, scale),
        if switches { 0.0 } else { f64::INFINITY },
    ]))
}

fn homogeneous<T: Scalar>(at: &Point<T>) -> Result<Check> {
    let x = wide(at.x.iter().copied());
    let product = at.j.dot(&x);
    let scale = at.logits_size() + at.jacobian_size() * norm(&x);
    Ok(worst([relative(norm(&(&at.f - &product)), scale)]))
}
