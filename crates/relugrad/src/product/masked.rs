//! Products with a left factor of which gates have closed some columns: dense, or with lists of the
//! others, whichever is faster.

use super::dense;
use super::lanes::{Lanes, registers};
use super::lhs::MaskedLhs;
use super::masked_gemm::{masked_gemm, masked_row};
use super::masked_outer::masked_outer;
use super::panels::Rhs;
use crate::tuning::{
    DENSE_FROM, FEW_ROWS_DENSE_FROM, LISTING, MANY_ROWS, PACKING, ROW_SPEED, SINGLE_ROW, SUM_SPEED,
};

/// Whether products with `rows` rows for each sample skip inactive columns, whatever else they are,
/// if the share `activity` of columns is active.
pub(crate) fn pays_to_mask(rows: usize, activity: f64) -> bool {
    rows >= MANY_ROWS && activity < DENSE_FROM
}

/// The least share of nonzero columns at which a dense product is faster, by rows of each sample.
fn dense_from<T: Lanes>(a: MaskedLhs<T>, k: usize, b: Rhs<T>) -> f64 {
    let packing = match b {
        Rhs::Plain(_) | Rhs::Lower(_) => PACKING.0,
        Rhs::Transposed(_) => PACKING.1,
    };
    match a.rows {
        1 => single_rows(ROW_SPEED, a, k, packing / a.samples as f64),
        2 | 3 => FEW_ROWS_DENSE_FROM,
        _ => DENSE_FROM,
    }
}

/// The same for sums over samples.
fn dense_sum_from<T: Lanes>(a: MaskedLhs<T>, k: usize) -> f64 {
    if a.rows == 1 {
        let speed = if registers() < 32 {
            SUM_SPEED
        } else {
            ROW_SPEED
        };
        single_rows(speed, a, k, PACKING.0 / a.columns as f64)
    } else {
        DENSE_FROM
    }
}

/// The same for one row and such a `speed`: each entry of a list takes as long as so many
/// multiply-adds, more where zeros have to be found, and the right factor has to be packed.
fn single_rows<T: Lanes>(speed: f64, a: MaskedLhs<T>, k: usize, packing: f64) -> f64 {
    let listing = if a.is_unknown() { LISTING.1 } else { LISTING.0 };
    speed * (1.0 - listing / k as f64 - packing)
}

/// [`rows_times`](super::rows_times).
pub(super) fn rows_times<T: Lanes>(
    a: MaskedLhs<T>,
    k: usize,
    b: Rhs<T>,
    accumulate: bool,
    c: &mut [T],
) {
    let activity = a.activity();
    let Some(entries) = a.closed() else {
        return masked_gemm(a, k, b, accumulate, c);
    };
    if entries.len() == a.columns && activity < SINGLE_ROW {
        return masked_row(entries, b, accumulate, c);
    }
    if activity < dense_from(a, k, b) {
        return masked_gemm(a, k, b, accumulate, c);
    }
    match b {
        Rhs::Plain(b) | Rhs::Lower(b) => dense::a_b((a.columns, k), entries, b, accumulate, c),
        Rhs::Transposed(b) => dense::a_bt((a.columns, k), entries, b, accumulate, c),
    }
}

/// [`sum_of_products`](super::sum_of_products).
pub(super) fn sum_of_products<T: Lanes>(
    a: MaskedLhs<T>,
    k: usize,
    alpha: T,
    b: &[T],
    accumulate: bool,
    c: &mut [T],
) {
    if a.activity() >= dense_sum_from(a, k) {
        return dense::at_b((a.columns, k), alpha, a.entries(), b, accumulate, c);
    }
    if !accumulate {
        c.fill(T::ZERO);
    }
    masked_outer(a, k, alpha, b, false, c);
}

/// [`symmetric_sum`](super::symmetric_sum).
pub(super) fn symmetric_sum<T: Lanes>(a: MaskedLhs<T>, alpha: T, b: &[T], c: &mut [T]) {
    let n = a.columns;
    if a.activity() < dense_sum_from(a, n) {
        masked_outer(a, n, alpha, b, true, c);
    } else {
        dense::at_b_lower(n, alpha, a.entries(), b, c);
    }
    dense::symmetrize_lower(n, c);
}
