//! Dense products, by a library. Matrices are row-major slices.
//!
//! Large products are cut into tiles by their shapes alone, and the library runs each tile on one thread, so the bits do
//! not depend on the number of threads.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

use crate::parallel::for_each_chunk;
use crate::scalar::Scalar;

/// Sides of tiles are multiples of this, and tiles of symmetric results have as many rows.
const SIDE: usize = 64;

/// Rows and columns that are mirrored at a time.
const BLOCK: usize = 16;

/// Into how many tiles a product of so many multiply-adds is cut: enough for the threads that it is worth, and few, since
/// each tile packs its factors anew.
fn tiles(multiply_adds: usize) -> usize {
    match multiply_adds >> 20 {
        0 => 1,
        1..64 => 2,
        64..256 => 4,
        256..1024 => 8,
        _ => 16,
    }
}

/// A number type with the library's product.
pub trait Multiply: Sized {
    /// `C ← α A B`, or `C ← α A B + C` if `accumulate`, on this thread.
    fn multiply(alpha: Self, a: MatRef<Self>, b: MatRef<Self>, accumulate: bool, c: MatMut<Self>);
}

macro_rules! multiply {
    ($number:ty) => {
        impl Multiply for $number {
            fn multiply(
                alpha: $number,
                a: MatRef<$number>,
                b: MatRef<$number>,
                accumulate: bool,
                c: MatMut<$number>,
            ) {
                let accumulate = if accumulate {
                    Accum::Add
                } else {
                    Accum::Replace
                };
                matmul(c, accumulate, a, b, alpha, Par::Seq);
            }
        }
    };
}

multiply!(f32);
multiply!(f64);

fn view<T>(rows: usize, columns: usize, data: &[T]) -> MatRef<'_, T> {
    MatRef::from_row_major_slice(data, rows, columns)
}

fn view_mut<T>(rows: usize, columns: usize, data: &mut [T]) -> MatMut<'_, T> {
    MatMut::from_row_major_slice_mut(data, rows, columns)
}

/// `C ← α A B`, or with `C` added.
fn multiply<T: Scalar>(alpha: T, a: MatRef<T>, b: MatRef<T>, accumulate: bool, c: MatMut<T>) {
    let tiles = tiles(a.nrows() * a.ncols() * b.ncols());
    tiled(tiles, alpha, a, b, accumulate, c);
}

/// The same in so many tiles, a power of two: in halves along the longer side of `C`.
fn tiled<T: Scalar>(
    tiles: usize,
    alpha: T,
    a: MatRef<T>,
    b: MatRef<T>,
    accumulate: bool,
    c: MatMut<T>,
) {
    let (rows, columns) = (c.nrows(), c.ncols());
    let longer = rows.max(columns);
    if tiles == 1 || longer < 2 * SIDE {
        return T::multiply(alpha, a, b, accumulate, c);
    }
    let half = (longer / 2).next_multiple_of(SIDE);
    let (first, second) = if rows >= columns {
        let ((upper, lower), (top, bottom)) = (c.split_at_row_mut(half), a.split_at_row(half));
        ((top, b, upper), (bottom, b, lower))
    } else {
        let ((left, right), (b_left, b_right)) = (c.split_at_col_mut(half), b.split_at_col(half));
        ((a, b_left, left), (a, b_right, right))
    };
    rayon::join(
        || tiled(tiles / 2, alpha, first.0, first.1, accumulate, first.2),
        || tiled(tiles / 2, alpha, second.0, second.1, accumulate, second.2),
    );
}

/// [`Products::a_bt`](super::Products::a_bt).
pub(super) fn a_bt<T: Scalar>(
    (k, m): (usize, usize),
    a: &[T],
    b: &[T],
    accumulate: bool,
    c: &mut [T],
) {
    let n = c.len() / m;
    let b = view(m, k, b).transpose();
    multiply(T::ONE, view(n, k, a), b, accumulate, view_mut(n, m, c));
}

/// [`Products::a_b`](super::Products::a_b).
pub(super) fn a_b<T: Scalar>(
    (m, k): (usize, usize),
    a: &[T],
    b: &[T],
    accumulate: bool,
    c: &mut [T],
) {
    let n = c.len() / k;
    multiply(
        T::ONE,
        view(n, m, a),
        view(m, k, b),
        accumulate,
        view_mut(n, k, c),
    );
}

/// [`Products::at_b`](super::Products::at_b).
pub(super) fn at_b<T: Scalar>(
    (m, k): (usize, usize),
    alpha: T,
    a: &[T],
    b: &[T],
    accumulate: bool,
    c: &mut [T],
) {
    let n = a.len() / m;
    let a = view(n, m, a).transpose();
    multiply(alpha, a, view(n, k, b), accumulate, view_mut(m, k, c));
}

/// [`Products::gram_of_rows`](super::Products::gram_of_rows).
pub(super) fn gram_of_rows<T: Scalar>(k: usize, a: &[T], c: &mut [T]) {
    let n = a.len() / k;
    let a = view(n, k, a);
    lower_tiles(T::ONE, a, a.transpose(), false, c);
    mirror(n, c);
}

/// [`Products::half_gram_of_rows`](super::Products::half_gram_of_rows).
pub(super) fn half_gram_of_rows<T: Scalar>(k: usize, a: &[T], c: &mut [T]) {
    let n = a.len() / k;
    let a = view(n, k, a);
    lower_tiles(T::ONE + T::ONE, a, a.transpose(), false, c);
    for (i, row) in c.chunks_exact_mut(n).enumerate() {
        row[i] *= T::from_f64(0.5);
        row[i + 1..].fill(T::ZERO);
    }
}

/// `C ← α Aᵀ B + C` on and below the diagonal; `a, b: [depth, n]`, `c: [n, n]`.
pub(super) fn at_b_lower<T: Scalar>(n: usize, alpha: T, a: &[T], b: &[T], c: &mut [T]) {
    let depth = a.len() / n;
    lower_tiles(
        alpha,
        view(depth, n, a).transpose(),
        view(depth, n, b),
        true,
        c,
    );
}

/// `C ← α A B`, or with `C` added, in rows of tiles that end at the diagonal.
fn lower_tiles<T: Scalar>(alpha: T, a: MatRef<T>, b: MatRef<T>, accumulate: bool, c: &mut [T]) {
    let n = a.nrows();
    let operations = n * n * a.ncols() / 2;
    for_each_chunk(c, SIDE * n, operations, |tile, c| {
        let rows = c.len() / n;
        let (start, end) = (tile * SIDE, tile * SIDE + rows);
        let part = view_mut(rows, n, c).subcols_mut(0, end);
        T::multiply(
            alpha,
            a.subrows(start, rows),
            b.subcols(0, end),
            accumulate,
            part,
        );
    });
}

/// Copies what is below the diagonal to its place above, in blocks of [`BLOCK`] rows and columns: whole lines of the cache
/// are written at a time.
pub(super) fn mirror<T: Scalar>(n: usize, c: &mut [T]) {
    let mut block = [[T::ZERO; BLOCK]; BLOCK];
    for top in (0..n).step_by(BLOCK) {
        let rows = top..n.min(top + BLOCK);
        for left in (0..=top).step_by(BLOCK) {
            let width = BLOCK.min(n - left);
            for (from, i) in rows.clone().enumerate() {
                let row = &c[i * n + left..i * n + left + width];
                block
                    .iter_mut()
                    .zip(row)
                    .for_each(|(to, &entry)| to[from] = entry);
            }
            for (j, column) in (left..left + width).zip(&block) {
                let above = rows.start.max(j + 1).min(rows.end)..rows.end;
                let from = above.start - rows.start..rows.len();
                c[j * n + above.start..j * n + above.end].copy_from_slice(&column[from]);
            }
        }
    }
}

/// `C ← A B`, or with `C` added, on this thread; `a: [m, k]`, `b: [k, n]`, `c: [m, n]`.
pub(crate) fn a_b_serial<T: Scalar>(
    (m, k, n): (usize, usize, usize),
    a: &[T],
    b: &[T],
    accumulate: bool,
    c: &mut [T],
) {
    let (a, b) = (view(m, k, a), view(k, n, b));
    T::multiply(T::ONE, a, b, accumulate, view_mut(m, n, c));
}

/// `C ← Aᵀ B`, or with `C` added, on this thread; `a: [m, k]`, `b: [m, n]`, `c: [k, n]`.
pub(crate) fn at_b_serial<T: Scalar>(
    (m, k, n): (usize, usize, usize),
    a: &[T],
    b: &[T],
    accumulate: bool,
    c: &mut [T],
) {
    let (a, b) = (view(m, k, a).transpose(), view(m, n, b));
    T::multiply(T::ONE, a, b, accumulate, view_mut(k, n, c));
}

/// `C ← A Bᵀ`, or with `C` added, on this thread; `a: [m, k]`, `b: [n, k]`, `c: [m, n]`.
pub(crate) fn a_bt_serial<T: Scalar>(
    (m, k, n): (usize, usize, usize),
    a: &[T],
    b: &[T],
    accumulate: bool,
    c: &mut [T],
) {
    let (a, b) = (view(m, k, a), view(n, k, b).transpose());
    T::multiply(T::ONE, a, b, accumulate, view_mut(m, n, c));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::product::tests::integers;

    #[test]
    fn products_equal_the_definition_across_tiles() {
        let (n, k, m) = (300, 130, 700);
        let (a, b) = (integers(n * k, 3), integers(m * k, 5));
        let mut c = vec![1.0; n * m];
        a_bt((k, m), &a, &b, true, &mut c);
        let entry = |i: usize, j: usize| (0..k).map(|l| a[i * k + l] * b[j * k + l]).sum::<f64>();
        assert!((0..n * m).all(|x| c[x] == 1.0 + entry(x / m, x % m)));

        let mut d = vec![f64::NAN; n * k];
        a_b((m, k), &c, &b, false, &mut d);
        let entry = |i: usize, j: usize| (0..m).map(|l| c[i * m + l] * b[l * k + j]).sum::<f64>();
        assert!((0..n * k).all(|x| d[x] == entry(x / k, x % k)));

        let mut e = vec![1.0; m * k];
        at_b((m, k), 0.5, &c, &a, true, &mut e);
        let entry = |i: usize, j: usize| (0..n).map(|l| c[l * m + i] * a[l * k + j]).sum::<f64>();
        assert!((0..m * k).all(|x| e[x] == 1.0 + 0.5 * entry(x / k, x % k)));
    }

    #[test]
    fn symmetric_products_equal_the_definition_across_tiles() {
        let (n, k) = (150, 7);
        let a = integers(n * k, 3);
        let mut c = vec![f64::NAN; n * n];
        gram_of_rows(k, &a, &mut c);
        let entry = |i: usize, j: usize| (0..k).map(|l| a[i * k + l] * a[j * k + l]).sum::<f64>();
        assert!((0..n * n).all(|x| c[x] == entry(x / n, x % n)));
        let mut half = vec![f64::NAN; n * n];
        half_gram_of_rows(k, &a, &mut half);
        let sum = |i: usize, j: usize| half[i * n + j] + half[j * n + i];
        assert!((0..n * n).all(|x| sum(x / n, x % n) == 2.0 * c[x]));
        assert!((0..n).all(|i| half[i * n + i + 1..(i + 1) * n].iter().all(|&x| x == 0.0)));
    }
}
