//! How far apart two numbers may be that are equal in exact arithmetic.
//!
//! Every bound is a multiple of a unit roundoff times the size of the quantity, or states why it is
//! not.

/// Largest distance between two arrays relative to the larger of their largest entries and `floor`.
///
/// NaN anywhere, or arrays of different lengths, are infinitely far apart.
pub fn distance(found: &[f64], expected: &[f64], floor: f64) -> f64 {
    if found.len() != expected.len() {
        return f64::INFINITY;
    }
    let size = |values: &[f64]| values.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
    let scale = size(found).max(size(expected)).max(floor);
    let worst = found.iter().zip(expected).fold(0.0, |worst: f64, (a, b)| {
        let distance = (a - b).abs();
        if distance.is_nan() {
            f64::INFINITY
        } else {
            worst.max(distance)
        }
    });
    if worst == 0.0 { 0.0 } else { worst / scale }
}

/// Distance in the Euclidean norm relative to the larger norm; the measure for parameter gradients.
pub fn relative_error(found: &[f64], expected: &[f64]) -> f64 {
    if found.len() != expected.len() {
        return f64::INFINITY;
    }
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let scale = norm(&mut found.iter().copied()).max(norm(&mut expected.iter().copied()));
    let error = norm(&mut found.iter().zip(expected).map(|(a, b)| a - b));
    if error.is_nan() {
        f64::INFINITY
    } else if error == 0.0 {
        0.0
    } else {
        error / scale
    }
}

/// Largest relative error of a parameter gradient against differences, in `f64` and away from
/// kinks.
pub const GRADIENT: f64 = 1e-7;

/// Error of a directional derivative found by differences, relative to what it can be for a unit
/// direction: the norm of the gradient (or the difference itself, should that be larger).
pub fn slope_error(found: f64, exact: f64, gradient_norm: f64) -> f64 {
    let error = (found - exact).abs();
    if error.is_nan() {
        f64::INFINITY
    } else if error == 0.0 {
        0.0
    } else {
        error / gradient_norm.max(found.abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_a_thousandth_is_seen() {
        let exact = [1.0, -2.0, 3.0];
        let wrong = exact.map(|x| 1.001 * x);
        assert!(distance(&wrong, &exact, 0.0) > 9e-4);
        assert!(relative_error(&wrong, &exact) > 9e-4);
    }

    #[test]
    fn nan_and_missing_entries_are_far() {
        assert_eq!(distance(&[f64::NAN], &[1.0], 0.0), f64::INFINITY);
        assert_eq!(relative_error(&[f64::NAN], &[1.0]), f64::INFINITY);
        assert_eq!(distance(&[], &[1.0], 0.0), f64::INFINITY);
        assert_eq!(distance(&[0.0], &[0.0], 0.0), 0.0);
    }
}
