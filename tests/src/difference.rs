//! Differences as an oracle for derivatives: a four-point stencil at several steps, with an
//! estimate of its own error that does not look at what it is compared with.

use crate::matrix::{add, norm, scaled};

/// A derivative with an estimate of its error, both in the Euclidean norm.
#[derive(Clone, Debug)]
pub struct Quotient {
    /// The derivative.
    pub value: Vec<f64>,
    /// How far the two best steps are apart.
    pub error: f64,
}

/// Ratio of one step to the next.
const RATIO: f64 = 3.0;

/// Roundings of a function value that its differences are expected to show.
const ROUNDINGS: f64 = 16.0;

/// Number of steps that are tried.
const STEPS: i32 = 4;

/// The derivative at 0 of a function that is smooth on `[−2h, 2h]`, with steps `h, h/3, h/9, h/27`.
///
/// Each is `(8 (φ(h) − φ(−h)) − (φ(2h) − φ(−2h))) / 12h`, wrong by `h⁴ φ⁗′/30` and by rounding,
/// which grows as `1/h`; the two neighbouring steps that agree best are taken. The estimate of the
/// error is how far they are apart, which may be little by chance, and what is known of rounding:
/// `16 ε φ/h`, and a third of how far the next two are apart.
pub fn derivative(phi: impl Fn(f64) -> Vec<f64>, h: f64) -> Quotient {
    let size = norm(&phi(h));
    let steps: Vec<f64> = (0..STEPS).map(|i| h / RATIO.powi(i)).collect();
    let values: Vec<Vec<f64>> = steps.iter().map(|&h| stencil(&phi, h)).collect();
    let pairs = values.windows(2);
    let apart: Vec<f64> = pairs.map(|p| norm(&add(&p[0], -1.0, &p[1]))).collect();
    let quotients = (0..apart.len()).map(|i| {
        let next = apart.get(i + 1).map_or(0.0, |apart| apart / RATIO);
        let rounding = ROUNDINGS * f64::EPSILON * size / steps[i + 1];
        Quotient {
            error: apart[i] + next + rounding,
            value: values[i + 1].clone(),
        }
    });
    quotients
        .min_by(|a, b| a.error.total_cmp(&b.error))
        .expect("there are at least two steps")
}

/// [`derivative`] of a function with one value.
pub fn slope(phi: impl Fn(f64) -> f64, h: f64) -> (f64, f64) {
    let quotient = derivative(|t| vec![phi(t)], h);
    (quotient.value[0], quotient.error)
}

fn stencil(phi: impl Fn(f64) -> Vec<f64>, h: f64) -> Vec<f64> {
    let width = |h: f64| add(&phi(h), -1.0, &phi(-h));
    let sum = add(&scaled(8.0, &width(h)), -1.0, &width(2.0 * h));
    scaled(1.0 / (12.0 * h), &sum)
}

/// The one-sided derivative `φ′(0+)` to order `h²`, for a function with a kink at 0.
pub fn one_sided(phi: impl Fn(f64) -> f64, h: f64) -> f64 {
    (4.0 * phi(h) - phi(2.0 * h) - 3.0 * phi(0.0)) / (2.0 * h)
}

/// The largest of `first, first/4, first/16, …` such that `same(t)` at all points that
/// [`derivative`] uses, or `None` if that would be less than `last`.
pub fn holding_step(first: f64, last: f64, same: impl Fn(f64) -> bool) -> Option<f64> {
    let mut h = first;
    while h >= last {
        if [-2.0, -1.0, 1.0, 2.0].iter().all(|side| same(side * h)) {
            return Some(h);
        }
        h /= 4.0;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_abs_diff_eq;

    #[test]
    fn smooth_functions_have_eleven_digits() {
        let (found, error) = slope(f64::exp, 1e-2);
        assert!((found - 1.0).abs() < 1e-11 && error < 1e-10);
    }

    #[test]
    fn a_kink_shows_in_the_estimate() {
        let (_, error) = slope(|t| (t - 1e-3).abs(), 1e-2);
        assert!(error > 1e-3);
        assert_abs_diff_eq!(one_sided(f64::abs, 1e-3), 1.0, epsilon = 1e-12);
    }
}
