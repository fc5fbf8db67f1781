//! What single steps do with numbers, and their derivatives: each `pull` adds to the derivative
//! with respect to an operand what the derivative `bar` with respect to the result means for it.

use super::graph::{Map, Reduction, Zip};
use crate::eigen::EigenSolver;
use crate::error::Result;
use crate::linalg::add_outer;
use crate::norm::{Norm, sign};

fn each(a: &[f64], out: &mut [f64], f: impl Fn(f64) -> f64) {
    out.iter_mut().zip(a).for_each(|(out, &a)| *out = f(a));
}

fn each_pair(a: &[f64], b: &[f64], out: &mut [f64], f: impl Fn(f64, f64) -> f64) {
    match (a, b) {
        ([a], b) => each(b, out, |b| f(*a, b)),
        (a, [b]) => each(a, out, |a| f(a, *b)),
        (a, b) => {
            let pairs = a.iter().zip(b);
            out.iter_mut()
                .zip(pairs)
                .for_each(|(out, (&a, &b))| *out = f(a, b));
        }
    }
}

pub(super) fn map(map: Map, a: &[f64], out: &mut [f64]) {
    match map {
        Map::Exp => each(a, out, f64::exp),
        Map::Log => each(a, out, f64::ln),
        Map::Sqrt => each(a, out, f64::sqrt),
        Map::Abs => each(a, out, f64::abs),
        // Not `max`, which loses a NaN.
        Map::Relu => each(a, out, |a| if a <= 0.0 { 0.0 } else { a }),
        Map::Root => each(a, out, |a| if a <= 0.0 { 0.0 } else { a.sqrt() }),
    }
}

pub(super) fn pull_map(map: Map, (a, out): (&[f64], &[f64]), bar: &[f64], to: &mut [f64]) {
    let of = |from: &[f64], to: &mut [f64], slope: fn(f64) -> f64| {
        let pairs = to.iter_mut().zip(bar.iter().zip(from));
        pairs.for_each(|(to, (bar, &from))| *to += bar * slope(from));
    };
    match map {
        Map::Exp => of(out, to, |out| out),
        Map::Log => of(a, to, |a| 1.0 / a),
        Map::Sqrt => of(out, to, |out| 0.5 / out),
        Map::Abs => of(a, to, sign),
        Map::Relu => of(a, to, |a| if a > 0.0 { 1.0 } else { 0.0 }),
        Map::Root => of(out, to, |out| if out > 0.0 { 0.5 / out } else { 0.0 }),
    }
}

pub(super) fn zip(zip: Zip, a: &[f64], b: &[f64], out: &mut [f64]) {
    match zip {
        Zip::Add => each_pair(a, b, out, |a, b| a + b),
        Zip::Subtract => each_pair(a, b, out, |a, b| a - b),
        Zip::Multiply => each_pair(a, b, out, |a, b| a * b),
        Zip::Divide => each_pair(a, b, out, |a, b| a / b),
    }
}

pub(super) fn pull_zip(
    zip: Zip,
    side: usize,
    (a, b): (&[f64], &[f64]),
    bar: &[f64],
    to: &mut [f64],
) {
    let slope = |a: f64, b: f64| match (zip, side) {
        (Zip::Add, _) | (Zip::Subtract, 0) => 1.0,
        (Zip::Subtract, _) => -1.0,
        (Zip::Multiply, 0) => b,
        (Zip::Multiply, _) => a,
        (Zip::Divide, 0) => 1.0 / b,
        (Zip::Divide, _) => -a / (b * b),
    };
    // A scalar stands beside every entry of the other.
    let entry = |of: &[f64], i: usize| if of.len() == 1 { of[0] } else { of[i] };
    let part = |i: usize| bar[i] * slope(entry(a, i), entry(b, i));
    match to {
        [to] => *to += (0..bar.len()).map(part).sum::<f64>(),
        to => (0..bar.len()).for_each(|i| to[i] += part(i)),
    }
}

pub(super) fn power(a: &[f64], exponent: f64, out: &mut [f64]) {
    match exponent {
        2.0 => each(a, out, |a| a * a),
        _ => each(a, out, |a| a.powf(exponent)),
    }
}

pub(super) fn pull_power(a: &[f64], exponent: f64, bar: &[f64], to: &mut [f64]) {
    let pairs = to.iter_mut().zip(bar.iter().zip(a));
    match exponent {
        0.0 => {}
        2.0 => pairs.for_each(|(to, (bar, a))| *to += bar * 2.0 * a),
        _ => pairs.for_each(|(to, (bar, a))| *to += bar * exponent * a.powf(exponent - 1.0)),
    }
}

/// `Aᵀ` of a matrix with some columns.
pub(super) fn transpose(a: &[f64], columns: usize, out: &mut [f64]) {
    let rows = a.len() / columns;
    for (i, row) in a.chunks_exact(columns).enumerate() {
        let to = out[i..].iter_mut().step_by(rows);
        to.zip(row).for_each(|(to, a)| *to = *a);
    }
}

/// `to += scale Aᵀ` of a matrix with some columns.
pub(super) fn add_transposed(scale: f64, a: &[f64], columns: usize, to: &mut [f64]) {
    let rows = a.len() / columns;
    for (i, row) in a.chunks_exact(columns).enumerate() {
        let to = to[i..].iter_mut().step_by(rows);
        to.zip(row).for_each(|(to, a)| *to += scale * a);
    }
}

/// `tr(A B)`, `A` with some columns.
pub(super) fn trace_of_product(a: &[f64], b: &[f64], columns: usize) -> f64 {
    let rows = a.len() / columns;
    let row = |(i, row): (usize, &[f64])| -> f64 {
        let column = b[i..].iter().step_by(rows);
        row.iter().zip(column).map(|(a, b)| a * b).sum()
    };
    a.chunks_exact(columns).enumerate().map(row).sum()
}

/// The first entry that is better than all before it.
fn first(a: &[f64], better: impl Fn(f64, f64) -> bool) -> usize {
    let places = 1..a.len();
    places.fold(0, |best, i| if better(a[i], a[best]) { i } else { best })
}

fn sum(a: &[f64]) -> f64 {
    a.iter().sum()
}

pub(super) fn reduce(reduction: Reduction, a: &[f64]) -> f64 {
    let no_number = a.iter().any(|x| x.is_nan());
    match reduction {
        Reduction::Sum => sum(a),
        Reduction::Norm(Norm::Linf) | Reduction::Max | Reduction::Min if no_number => f64::NAN,
        Reduction::Norm(norm) => norm.of(a),
        Reduction::Max => a[first(a, |x, best| x > best)],
        Reduction::Min => a[first(a, |x, best| x < best)],
        Reduction::LogSumExp => {
            let largest = a[first(a, |x, best| x > best)];
            match largest.is_finite() {
                true => largest + a.iter().map(|x| (x - largest).exp()).sum::<f64>().ln(),
                false => sum(a),
            }
        }
    }
}

pub(super) fn pull_reduce(reduction: Reduction, (a, out): (&[f64], f64), bar: f64, to: &mut [f64]) {
    let pairs = to.iter_mut().zip(a);
    match reduction {
        Reduction::Sum => pairs.for_each(|(to, _)| *to += bar),
        Reduction::Norm(Norm::L1) => pairs.for_each(|(to, &a)| *to += bar * sign(a)),
        Reduction::Norm(Norm::L2) if out > 0.0 => {
            pairs.for_each(|(to, a)| *to += bar * (a / out));
        }
        Reduction::Norm(Norm::L2) => {}
        Reduction::Norm(Norm::Linf) => {
            let place = first(a, |x, best| x.abs() > best.abs());
            to[place] += bar * sign(a[place]);
        }
        Reduction::Max => to[first(a, |x, best| x > best)] += bar,
        Reduction::Min => to[first(a, |x, best| x < best)] += bar,
        Reduction::LogSumExp => pairs.for_each(|(to, a)| *to += bar * (a - out).exp()),
    }
}

pub(super) fn softmax(a: &[f64], out: &mut [f64]) {
    let largest = a[first(a, |x, best| x > best)];
    each(a, out, |a| (a - largest).exp());
    let total = sum(out);
    out.iter_mut().for_each(|out| *out /= total);
}

pub(super) fn pull_softmax(out: &[f64], bar: &[f64], to: &mut [f64]) {
    let mean: f64 = out.iter().zip(bar).map(|(p, bar)| p * bar).sum();
    let pairs = to.iter_mut().zip(out.iter().zip(bar));
    pairs.for_each(|(to, (p, bar))| *to += p * (bar - mean));
}

pub(super) fn probabilities(a: &[f64], out: &mut [f64]) {
    match a {
        [a] => out[0] = 1.0 / (1.0 + (-a).exp()),
        a => softmax(a, out),
    }
}

pub(super) fn pull_probabilities(out: &[f64], bar: &[f64], to: &mut [f64]) {
    match out {
        [p] => to[0] += bar[0] * p * (1.0 - p),
        out => pull_softmax(out, bar, to),
    }
}

/// Keeps the eigenvector.
pub(super) fn largest(solver: &mut EigenSolver, a: &[f64], kept: &mut [f64]) -> Result<f64> {
    let (value, vector) = solver.largest(a)?;
    kept.copy_from_slice(vector);
    Ok(value)
}

/// `Σ √λ_i`; keeps `½ Σ λ_i^{−½} u_i u_iᵀ` over the eigenvalues that are not 0 to rounding.
pub(super) fn trace_root(
    solver: &mut EigenSolver,
    a: &[f64],
    (rank, epsilon): (usize, f64),
    kept: &mut [f64],
) -> Result<f64> {
    let eigen = solver.solve(a)?;
    let (values, size) = (&eigen.values, eigen.values.len());
    kept.fill(0.0);
    let noise = epsilon * size as f64 * values[0].max(-values[size - 1]);
    if values[size - 1] < -noise {
        return Ok(f64::NAN);
    }
    let mut sum = 0.0;
    for i in 0..eigen.nonzero(rank, epsilon) {
        let (root, vector) = (values[i].sqrt(), eigen.vector(i));
        sum += root;
        add_outer(kept, 0.5 / root, vector, vector);
    }
    Ok(sum)
}

/// `log det A` by Cholesky's factor `A = L Lᵀ`, NaN if there is none; keeps `A⁻¹`.
pub(super) fn log_det(a: &[f64], size: usize, kept: &mut [f64]) -> f64 {
    let mut factor = crate::buffer::Buffer::of(a.iter().copied());
    let mut half = 0.0;
    for j in 0..size {
        for i in j..size {
            let (row, pivot) = (i * size, j * size);
            let before: f64 = (0..j).map(|k| factor[row + k] * factor[pivot + k]).sum();
            let rest = factor[row + j] - before;
            factor[row + j] = match i == j {
                true => rest.sqrt(),
                false => rest / factor[pivot + j],
            };
        }
        half += factor[j * size + j].ln();
    }
    inverse(&factor, size, kept);
    2.0 * half
}

/// `(L Lᵀ)⁻¹`, column by column.
fn inverse(factor: &[f64], size: usize, out: &mut [f64]) {
    out.fill(0.0);
    for (column, x) in out.chunks_exact_mut(size).enumerate() {
        x[column] = 1.0;
        for i in column..size {
            let known: f64 = (column..i).map(|k| factor[i * size + k] * x[k]).sum();
            x[i] = (x[i] - known) / factor[i * size + i];
        }
        for i in (0..size).rev() {
            let known: f64 = (i + 1..size).map(|k| factor[k * size + i] * x[k]).sum();
            x[i] = (x[i] - known) / factor[i * size + i];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_abs_diff_eq;

    #[test]
    fn log_det_and_its_derivative_are_those_of_a_known_matrix() {
        let a = [4.0, 2.0, 0.0, 2.0, 5.0, 2.0, 0.0, 2.0, 5.0];
        let mut inverse = [0.0; 9];
        assert_abs_diff_eq!(log_det(&a, 3, &mut inverse), 64f64.ln(), epsilon = 1e-14);
        for i in 0..3 {
            for j in 0..3 {
                let entry: f64 = (0..3).map(|k| a[3 * i + k] * inverse[3 * k + j]).sum();
                assert_abs_diff_eq!(entry, f64::from(i == j), epsilon = 1e-14);
            }
        }
        assert!(log_det(&[1.0, 2.0, 2.0, 1.0], 2, &mut [0.0; 4]).is_nan());
    }

    #[test]
    fn singular_points_have_the_derivatives_that_are_promised() {
        let pulled = |reduction, a: &[f64]| {
            let mut to = vec![0.0; a.len()];
            pull_reduce(reduction, (a, reduce(reduction, a)), 1.0, &mut to);
            to
        };
        assert_eq!(pulled(Reduction::Norm(Norm::L2), &[0.0, 0.0]), [0.0, 0.0]);
        assert_eq!(pulled(Reduction::Norm(Norm::L1), &[0.0, -2.0]), [0.0, -1.0]);
        assert_eq!(
            pulled(Reduction::Norm(Norm::Linf), &[-3.0, 3.0]),
            [-1.0, 0.0]
        );
        assert_eq!(pulled(Reduction::Max, &[2.0, 2.0]), [1.0, 0.0]);
        assert_eq!(pulled(Reduction::Min, &[2.0, 2.0]), [1.0, 0.0]);
        let of = |one, a: f64| {
            let (mut out, mut to) = ([0.0], [0.0]);
            map(one, &[a], &mut out);
            pull_map(one, (&[a], &out), &[1.0], &mut to);
            (out[0], to[0])
        };
        assert_eq!(of(Map::Abs, 0.0), (0.0, 0.0));
        assert_eq!(of(Map::Relu, 0.0), (0.0, 0.0));
        assert_eq!(of(Map::Root, -1e-20), (0.0, 0.0));
        assert!(of(Map::Relu, f64::NAN).0.is_nan() && of(Map::Root, f64::NAN).0.is_nan());
    }

    #[test]
    fn what_is_no_number_is_not_lost() {
        for reduction in [
            Reduction::Max,
            Reduction::Min,
            Reduction::Norm(Norm::Linf),
            Reduction::LogSumExp,
            Reduction::Sum,
        ] {
            assert!(reduce(reduction, &[1.0, f64::NAN, 2.0]).is_nan());
        }
    }
}
