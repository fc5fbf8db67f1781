//! The matrix products that every sweep is made of.
//!
//! All matrices are row-major slices. Dense products are a library's ([`dense`]); products with the many zeros that are
//! left by gates skip them ([`sparse_rows`], [`sparse_sum`]), or select from tables if the gates' zeros and ones are a factor
//! of their own ([`subset_sums`]). Which of them is taken depends on the numbers alone, and
//! every entry sums in one order, so the bits do not depend on the number of threads.

mod convolution;
mod dense;
mod lanes;
mod lists;
mod panels;
mod scratch;
mod sparse_rows;
mod sparse_sum;
mod subset_sums;

use pulp::{Arch, Simd, WithSimd};

use crate::scalar::Scalar;

pub(crate) use convolution::Convolution;
pub(crate) use dense::{
    Multiply, a_b, a_b_serial, a_bt, a_bt_serial, at_b, at_b_serial, gram_of_rows,
    half_gram_of_rows,
};
pub(crate) use lanes::Lanes;
pub(crate) use panels::Right;
pub(crate) use scratch::Kept;
pub(crate) use sparse_rows::mix_rows;
use sparse_rows::{sparse_row, sparse_rows};
use sparse_sum::sparse_sum;
pub(crate) use subset_sums::{SelectedSums, subset_sums_cost, subset_tables};

/// The least share of nonzero columns at which a dense product is faster, by rows of each sample.
fn dense_from<T>((rows, m, k): (usize, usize, usize), a: &[T], b: Right<T>) -> f64 {
    let packing = match b {
        Right::Plain(_) | Right::Lower(_) => 8.0,
        Right::Transposed(_) => 32.0,
    };
    match rows {
        1 => single_rows(k, packing / (a.len() / m) as f64),
        2 | 3 => 0.75,
        _ => 0.95,
    }
}

/// The same for sums over samples.
fn dense_sum_from((rows, m, k): (usize, usize, usize)) -> f64 {
    if rows == 1 {
        single_rows(k, 8.0 / m as f64)
    } else {
        0.95
    }
}

/// The same for one row: with a load for every multiply-add a sparse product runs at little more than half of a dense one's speed,
/// a list takes as long to make as 120 multiply-adds for each of its entries, and the right factor has to be packed.
fn single_rows(k: usize, packing: f64) -> f64 {
    0.5 * (1.0 - 120.0 / k as f64 - packing)
}

/// The share of nonzero entries below which a row's product with a matrix skips the others; it reads each row of the
/// matrix once, so nothing is packed.
const SINGLE_ROW: f64 = 0.1;

/// The share of the columns of `a: [samples, rows, columns]` that are not zero, from the first row of a few samples.
fn activity<T: Scalar>(a: &[T], rows: usize, columns: usize) -> f64 {
    let samples = a.len() / (rows * columns);
    let looked_at = || {
        a.chunks_exact(rows * columns)
            .step_by(samples.div_ceil(16).max(1))
    };
    let first_rows = looked_at().map(|sample| &sample[..columns]);
    let nonzero = first_rows.map(|row| Arch::new().dispatch(Nonzero(row)));
    nonzero.sum::<u32>() as f64 / (looked_at().count() * columns).max(1) as f64
}

/// Counts the entries that are not 0.
struct Nonzero<'a, T>(&'a [T]);

impl<T: Scalar> WithSimd for Nonzero<'_, T> {
    type Output = u32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> u32 {
        let nonzero = self.0.iter().map(|&entry| u32::from(entry != T::ZERO));
        nonzero.sum()
    }
}

/// `C ← A B`, or `C ← A B + C` if `accumulate`; `a: [samples, rows, m]`, `b: [m, k]`, `c: [samples, rows, k]`. Columns
/// of `A` that are zero at a sample are skipped where that is faster.
pub(crate) fn rows_times<T: Scalar>(
    (rows, m, k): (usize, usize, usize),
    a: &[T],
    b: Right<T>,
    accumulate: bool,
    c: &mut [T],
) {
    let activity = activity(a, rows, m);
    if a.len() == m && activity < SINGLE_ROW {
        return sparse_row(m, a, b, accumulate, c);
    }
    if activity < dense_from((rows, m, k), a, b) {
        return sparse_rows((rows, m, k), a, b, accumulate, c);
    }
    match b {
        Right::Plain(b) | Right::Lower(b) => a_b((m, k), a, b, accumulate, c),
        Right::Transposed(b) => a_bt((m, k), a, b, accumulate, c),
    }
}

/// `C ← α Aᵀ B`, or `C ← α Aᵀ B + C` if `accumulate`; `a: [samples, rows, m]`, `b: [samples, rows, k]`, `c: [m, k]`.
/// Samples at which a column of `A` is zero are skipped where that is faster.
pub(crate) fn sum_of_products<T: Scalar>(
    (rows, m, k): (usize, usize, usize),
    alpha: T,
    a: &[T],
    b: &[T],
    accumulate: bool,
    c: &mut [T],
) {
    if activity(a, rows, m) >= dense_sum_from((rows, m, k)) {
        return at_b((m, k), alpha, a, b, accumulate, c);
    }
    if !accumulate {
        c.fill(T::ZERO);
    }
    sparse_sum((rows, m, k), alpha, a, b, false, c);
}

/// `C ← α Aᵀ B + C` where that sum is known to be symmetric and `C` is 0; `a, b: [samples, rows, n]`, `c: [n, n]`.
pub(crate) fn symmetric_sum<T: Scalar>(
    (rows, n): (usize, usize),
    alpha: T,
    a: &[T],
    b: &[T],
    c: &mut [T],
) {
    if activity(a, rows, n) < dense_sum_from((rows, n, n)) {
        sparse_sum((rows, n, n), alpha, a, b, true, c);
    } else {
        dense::at_b_lower(n, alpha, a, b, c);
    }
    dense::mirror(n, c);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries that are small integers, so every sum is exact.
    pub(super) fn integers(length: usize, step: usize) -> Vec<f64> {
        (0..length).map(|i| ((i * step) % 7) as f64 - 3.0).collect()
    }

    /// `[samples, rows, columns]` with about half of the columns zero at each sample.
    fn gated(samples: usize, rows: usize, columns: usize) -> Vec<f64> {
        let mut a = integers(samples * rows * columns, 3);
        for (i, entry) in a.iter_mut().enumerate() {
            let (sample, column) = (i / (rows * columns), i % columns);
            if (sample * 31 + column * 17) % 5 < 3 {
                *entry = 0.0;
            }
        }
        a
    }

    fn product(a: &[f64], b: impl Fn(usize, usize) -> f64, m: usize, k: usize) -> Vec<f64> {
        let entry = |row: &[f64], j: usize| (0..m).map(|l| row[l] * b(l, j)).sum::<f64>();
        a.chunks_exact(m)
            .flat_map(|row| (0..k).map(move |j| (row, j)))
            .map(|(row, j)| entry(row, j))
            .collect()
    }

    fn check_sparse_rows((samples, rows, m, k): (usize, usize, usize, usize)) {
        let (a, b) = (gated(samples, rows, m), integers(m * k, 5));
        let expected = product(&a, |l, j| b[l * k + j], m, k);
        let mut c = vec![1.0; samples * rows * k];
        sparse_rows((rows, m, k), &a, Right::Plain(&b), true, &mut c);
        assert!(
            c.iter().zip(&expected).all(|(c, e)| *c == e + 1.0),
            "{rows} rows of {m}"
        );
        let expected = product(&a, |l, j| b[j * m + l], m, k);
        sparse_rows((rows, m, k), &a, Right::Transposed(&b), false, &mut c);
        assert_eq!(c, expected, "{rows} rows of {m}, transposed");
    }

    #[test]
    fn sparse_rows_equal_the_definition_for_every_number_of_rows() {
        (1..=13).for_each(|rows| check_sparse_rows((9, rows, 37, 71)));
    }

    #[test]
    fn sparse_rows_skip_the_zeros_above_a_diagonal() {
        for (rows, m) in [(1, 37), (3, 71), (5, 300), (9, 600)] {
            let (a, mut b) = (gated(5, rows, m), integers(m * m, 5));
            for l in 0..m {
                b[l * m + l + 1..(l + 1) * m].fill(0.0);
            }
            let expected = product(&a, |l, j| b[l * m + j], m, m);
            let mut c = vec![1.0; 5 * rows * m];
            sparse_rows((rows, m, m), &a, Right::Lower(&b), false, &mut c);
            assert_eq!(c, expected, "{rows} rows of {m}");
            sparse_rows((rows, m, m), &a, Right::Lower(&b), true, &mut c);
            assert!(c.iter().zip(&expected).all(|(c, e)| *c == 2.0 * e));
        }
    }

    #[test]
    fn sparse_rows_of_several_passes_equal_the_definition() {
        (1..=13).for_each(|rows| check_sparse_rows((5, rows, 600, 71)));
    }

    #[test]
    fn sparse_rows_equal_the_definition_for_every_width_of_a_panel() {
        (1..=40).for_each(|k| check_sparse_rows((5, 5, 37, k)));
    }

    #[test]
    fn a_single_row_equals_the_definition() {
        let (m, k) = (37, 71);
        let (a, b) = (gated(1, 1, m), integers(m * k, 5));
        let mut c = vec![1.0; k];
        sparse_row(m, &a, Right::Plain(&b), true, &mut c);
        let expected = product(&a, |l, j| b[l * k + j], m, k);
        assert!(c.iter().zip(&expected).all(|(c, e)| *c == e + 1.0));
        sparse_row(m, &a, Right::Transposed(&b), false, &mut c);
        assert_eq!(c, product(&a, |l, j| b[j * m + l], m, k));
    }

    #[test]
    fn sparse_sums_equal_the_definition() {
        for (samples, rows, m, k) in [
            (1, 1, 2, 3),
            (40, 3, 37, 71),
            (300, 10, 5, 130),
            (7, 5, 600, 71),
        ] {
            let (a, b) = (gated(samples, rows, m), integers(samples * rows * k, 5));
            let mut c = vec![1.0; m * k];
            sparse_sum((rows, m, k), 2.0, &a, &b, false, &mut c);
            let entry = |i: usize, j: usize| {
                (0..samples * rows)
                    .map(|l| a[l * m + i] * b[l * k + j])
                    .sum::<f64>()
            };
            assert!((0..m * k).all(|x| c[x] == 1.0 + 2.0 * entry(x / k, x % k)));
        }
    }

    #[test]
    fn symmetric_sums_are_whole() {
        for (rows, n) in [(3, 70), (5, 300)] {
            for a in [gated(20, rows, n), integers(20 * rows * n, 3)] {
                let mut c = vec![0.0; n * n];
                symmetric_sum((rows, n), 0.5, &a, &a, &mut c);
                let entry = |i: usize, j: usize| {
                    (0..20 * rows)
                        .map(|l| a[l * n + i] * a[l * n + j])
                        .sum::<f64>()
                };
                assert!((0..n * n).all(|x| c[x] == 0.5 * entry(x / n, x % n)));
            }
        }
    }
}
