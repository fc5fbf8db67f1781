//! The three dense matrix products that every sweep is made of.
//!
//! All matrices are row-major slices. Each product is cut into tiles whose size depends on the shapes alone,
//! and each tile sums in one order, so the bits do not depend on the number of threads.

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2};

use crate::parallel::for_each_chunk;
use crate::scalar::Scalar;

/// Rows of the result that one call of the kernel computes.
const TILE: usize = 64;

fn view<T>(rows: usize, columns: usize, data: &[T]) -> ArrayView2<'_, T> {
    ArrayView2::from_shape((rows, columns), data).expect("length is rows times columns")
}

fn view_mut<T>(rows: usize, columns: usize, data: &mut [T]) -> ArrayViewMut2<'_, T> {
    ArrayViewMut2::from_shape((rows, columns), data).expect("length is rows times columns")
}

/// `C ← A Bᵀ + β C`, with `a: [n, k]`, `b: [m, k]`, `c: [n, m]`.
pub(crate) fn a_bt<T: Scalar>(k: usize, m: usize, a: &[T], b: &[T], beta: T, c: &mut [T]) {
    let operations = c.len() * k;
    let b = view(m, k, b);
    for_each_chunk(c, TILE * m, operations, |tile, c| {
        let rows = c.len() / m;
        let start = tile * TILE * k;
        let a = view(rows, k, &a[start..start + rows * k]);
        general_mat_mul(T::ONE, &a, &b.t(), beta, &mut view_mut(rows, m, c));
    });
}

/// `C ← A B + β C`, with `a: [n, m]`, `b: [m, k]`, `c: [n, k]`.
pub(crate) fn a_b<T: Scalar>(m: usize, k: usize, a: &[T], b: &[T], beta: T, c: &mut [T]) {
    let operations = c.len() * m;
    let b = view(m, k, b);
    for_each_chunk(c, TILE * k, operations, |tile, c| {
        let rows = c.len() / k;
        let start = tile * TILE * m;
        let a = view(rows, m, &a[start..start + rows * m]);
        general_mat_mul(T::ONE, &a, &b, beta, &mut view_mut(rows, k, c));
    });
}

/// `C ← α Aᵀ B + C`, with `a: [n, m]`, `b: [n, k]`, `c: [m, k]`; the sum over `n` runs in one fixed order.
pub(crate) fn at_b<T: Scalar>(m: usize, k: usize, alpha: T, a: &[T], b: &[T], c: &mut [T]) {
    let n = a.len() / m;
    let operations = c.len() * n;
    let (a, b) = (view(n, m, a), view(n, k, b));
    for_each_chunk(c, TILE * k, operations, |tile, c| {
        let columns = c.len() / k;
        let a = a.slice(ndarray::s![.., tile * TILE..tile * TILE + columns]);
        general_mat_mul(alpha, &a.t(), &b, T::ONE, &mut view_mut(columns, k, c));
    });
}

/// `C ← A B + C` on this thread, with `a: [m, k]`, `b: [k, n]`, `c: [m, n]`.
pub(crate) fn a_b_serial<T: Scalar>(m: usize, k: usize, n: usize, a: &[T], b: &[T], c: &mut [T]) {
    let (a, b) = (view(m, k, a), view(k, n, b));
    general_mat_mul(T::ONE, &a, &b, T::ONE, &mut view_mut(m, n, c));
}

/// `C ← Aᵀ B + C` on this thread, with `a: [m, k]`, `b: [m, n]`, `c: [k, n]`.
pub(crate) fn at_b_serial<T: Scalar>(m: usize, k: usize, n: usize, a: &[T], b: &[T], c: &mut [T]) {
    let (a, b) = (view(m, k, a), view(m, n, b));
    general_mat_mul(T::ONE, &a.t(), &b, T::ONE, &mut view_mut(k, n, c));
}

/// `C ← A Bᵀ + C` on this thread, with `a: [m, k]`, `b: [n, k]`, `c: [m, n]`.
pub(crate) fn a_bt_serial<T: Scalar>(m: usize, k: usize, n: usize, a: &[T], b: &[T], c: &mut [T]) {
    let (a, b) = (view(m, k, a), view(n, k, b));
    general_mat_mul(T::ONE, &a, &b.t(), T::ONE, &mut view_mut(m, n, c));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries that are small integers, so every sum is exact.
    fn integers(length: usize, step: usize) -> Vec<f64> {
        (0..length).map(|i| ((i * step) % 7) as f64 - 3.0).collect()
    }

    #[test]
    fn products_equal_the_definition_across_tiles() {
        let (n, k, m) = (130, 5, 70);
        let (a, b) = (integers(n * k, 3), integers(m * k, 5));
        let mut c = vec![1.0; n * m];
        a_bt(k, m, &a, &b, 2.0, &mut c);
        let entry = |i: usize, j: usize| (0..k).map(|l| a[i * k + l] * b[j * k + l]).sum::<f64>();
        assert!((0..n * m).all(|x| c[x] == 2.0 + entry(x / m, x % m)));

        let mut d = vec![f64::NAN; n * k];
        a_b(m, k, &c, &b, 0.0, &mut d);
        let entry = |i: usize, j: usize| (0..m).map(|l| c[i * m + l] * b[l * k + j]).sum::<f64>();
        assert!((0..n * k).all(|x| d[x] == entry(x / k, x % k)));

        let mut e = vec![1.0; m * k];
        at_b(m, k, 0.5, &c, &a, &mut e);
        let entry = |i: usize, j: usize| (0..n).map(|l| c[l * m + i] * a[l * k + j]).sum::<f64>();
        assert!((0..m * k).all(|x| e[x] == 1.0 + 0.5 * entry(x / k, x % k)));
    }
}
