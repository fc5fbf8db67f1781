//! Dense products. Matrices are row-major slices.
//!
//! The sums of a few rows and a few vectors of columns stay in registers while both factors are
//! read from end to end ([`tiles`](super::tiles)); a factor that lies across that direction is
//! packed first (Goto and van de Geijn, *Anatomy of High-Performance Matrix Multiplication*, 2008).
//! Every entry sums in the order of the depth with fused multiply-adds, in blocks of
//! [`DEPTH`](super::tiles::DEPTH), so its bits depend neither on the number of threads nor on how
//! wide the processor's vectors are.

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, ShapeBuilder, s};

use super::dots::{FEW, dots};
use super::lanes::{Lanes, lanes};
use super::panels::{Rhs, fill, lines, pack, pack_here, room, transpose};
use super::scratch::Scratch;
use super::tiles::{Block, Lhs, Panels, VECTORS, tile_rows};
use crate::buffer::Kept;
use crate::parallel::{for_each_chunk, pieces, should_parallelize};

/// Rows of the left factor that are packed at a time: they stay in the second cache.
const ROWS: usize = 128;

/// A product `C ← α A B`, or `C ← α A B + C` if `accumulate`; `c: [n, m]`.
#[derive(Clone, Copy)]
struct Product<'a, T> {
    /// `(n, k, m)`.
    shape: (usize, usize, usize),
    alpha: T,
    /// `Aᵀ: [k, n]`, so that both factors are packed by the same functions.
    a: Rhs<'a, T>,
    b: Rhs<'a, T>,
    accumulate: bool,
    /// Whether only what is on and below the diagonal of `C` is wanted.
    lower: bool,
}

impl<T: Lanes> Product<'_, T> {
    /// Computes it, on several threads if `parallel` and worthwhile.
    fn run(self, parallel: bool, c: &mut [T]) {
        let (n, k, m) = self.shape;
        if k == 0 && !self.accumulate {
            c.fill(T::ZERO);
        }
        if n * k * m == 0 {
            return;
        }
        if m == 1 && n > 1 {
            // A column lies in memory as a row does.
            let (a, b) = (self.b, self.a);
            let shape = (m, k, n);
            return Product {
                shape,
                a,
                b,
                ..self
            }
            .run(parallel, c);
        }
        let operations = if parallel { n * k * m } else { 0 };
        match (self.a, self.b) {
            (Rhs::Transposed(a), Rhs::Transposed(b)) if n.min(m) <= FEW => {
                self.dots(a, b, operations, c);
            }
            _ if cfg!(feature = "matrixmultiply") => self.by_library(operations, c),
            (Rhs::Transposed(_), Rhs::Transposed(_)) if self.is_less_across() => {
                self.across(operations, c);
            }
            _ => self.tiles(operations, c),
        }
    }

    /// Entries as products of rows that lie together.
    fn dots(self, a: &[T], b: &[T], operations: usize, c: &mut [T]) {
        let (n, k, m) = self.shape;
        if n == 1 {
            let chunk = m.div_ceil(pieces(m));
            return for_each_chunk(c, chunk, operations, |i, c| {
                let b = &b[i * chunk * k..][..c.len() * k];
                dots(self.alpha, a, b, self.accumulate, c);
            });
        }
        let chunk = n.div_ceil(pieces(n));
        for_each_chunk(c, chunk * m, operations, |i, c| {
            let rows = a[i * chunk * k..].chunks_exact(k);
            for (a, c) in rows.zip(c.chunks_exact_mut(m)) {
                dots(self.alpha, a, b, self.accumulate, c);
            }
        });
    }

    /// By `matrixmultiply`, which `ndarray` calls, in pieces of rows.
    fn by_library(self, operations: usize, c: &mut [T]) {
        let (n, k, m) = self.shape;
        let transposed = matrix(self.a, k, n);
        let (a, b) = (transposed.t(), matrix(self.b, k, m));
        let before = if self.accumulate { T::ONE } else { T::ZERO };
        for_each_chunk(c, ROWS * m, operations, |i, c| {
            let rows = c.len() / m;
            let a = a.slice(s![i * ROWS..i * ROWS + rows, ..]);
            let mut c = ArrayViewMut2::from_shape((rows, m), c).expect("rows are whole");
            general_mat_mul(self.alpha, &a, &b, before, &mut c);
        });
    }

    /// Whether fewer numbers are moved if `A` is packed instead of `B`, both of which lie across,
    /// and `C` transposed.
    fn is_less_across(&self) -> bool {
        let (n, k, m) = self.shape;
        let passes = if self.accumulate { 2 } else { 1 };
        n * (k + passes * m) < m * k
    }

    /// `Cᵀ ← α Bᵀ Aᵀ`, or with `Cᵀ` added.
    fn across(self, operations: usize, c: &mut [T]) {
        let (n, k, m) = self.shape;
        let mut transposed = room::<T>(n * m);
        let transposed = lines(&mut transposed, n * m);
        if self.accumulate {
            transpose(c, m, n, transposed);
        }
        let (shape, a, b) = ((m, k, n), self.b, self.a);
        Product {
            shape,
            a,
            b,
            ..self
        }
        .tiles(operations, transposed);
        transpose(transposed, n, m, c);
    }

    /// Packs what does not lie in the order of the sums, and shares out the rows of `C`.
    fn tiles(self, operations: usize, c: &mut [T]) {
        let (_, k, m) = self.shape;
        let width = m.div_ceil(lanes::<T>()).min(VECTORS) * lanes::<T>();
        match self.b {
            Rhs::Plain(entries) | Rhs::Lower(entries) => {
                let (step, stride) = (width, m);
                self.share_out(
                    Panels {
                        entries,
                        step,
                        stride,
                    },
                    operations,
                    c,
                );
            }
            Rhs::Transposed(_) => {
                let mut scratch = Kept::<Scratch<T>>::take();
                let entries = match operations {
                    0 => pack_here(self.b, k, width, &mut scratch.panels),
                    _ => pack(self.b, k, width, &mut scratch.panels),
                };
                let (step, stride) = (k * width, width);
                self.share_out(
                    Panels {
                        entries,
                        step,
                        stride,
                    },
                    operations,
                    c,
                );
            }
        }
    }

    fn share_out(self, panels: Panels<T>, operations: usize, c: &mut [T]) {
        let (n, _, m) = self.shape;
        if !should_parallelize(operations) {
            return self.rows(0, panels, c);
        }
        let rows = n.div_ceil(pieces(n));
        let rows = match rows >= tile_rows() {
            true => rows.next_multiple_of(tile_rows()),
            false => rows,
        };
        for_each_chunk(c, rows * m, operations, |i, c| {
            self.rows(i * rows, panels, c);
        });
    }

    /// Rows of `C` from the `first` on.
    fn rows(self, first: usize, panels: Panels<T>, c: &mut [T]) {
        let (_, k, m) = self.shape;
        if let Rhs::Transposed(a) = self.a {
            return self.block(Lhs::Rows(&a[first * k..]), first, panels, c);
        }
        let (tile, mut scratch) = (tile_rows(), Kept::<Scratch<T>>::take());
        for (i, c) in c.chunks_mut(ROWS * m).enumerate() {
            let first = first + i * ROWS;
            let tiles = (c.len() / m).div_ceil(tile);
            let packed = scratch.sums.room(tiles * k * tile);
            fill(self.a, (k, first, tile), packed);
            self.block(Lhs::Tiles(packed), first, panels, c);
        }
    }

    fn block(self, a: Lhs<T>, first: usize, panels: Panels<T>, c: &mut [T]) {
        let (_, k, m) = self.shape;
        Block {
            a,
            panels,
            shape: (c.len() / m, k, m),
            alpha: self.alpha,
            accumulate: self.accumulate,
            lower: self.lower.then_some(first),
            c,
        }
        .run();
    }
}

/// A factor of depth `k` with `columns` columns.
fn matrix<T>(factor: Rhs<'_, T>, k: usize, columns: usize) -> ArrayView2<'_, T> {
    let (shape, entries) = match factor {
        Rhs::Plain(entries) | Rhs::Lower(entries) => ((k, columns).set_f(false), entries),
        Rhs::Transposed(entries) => ((k, columns).set_f(true), entries),
    };
    ArrayView2::from_shape(shape, entries).expect("factors are whole")
}

/// [`a_bt`](super::a_bt).
pub(super) fn a_bt<T: Lanes>(
    (k, m): (usize, usize),
    a: &[T],
    b: &[T],
    accumulate: bool,
    c: &mut [T],
) {
    let (a, b) = (Rhs::Transposed(a), Rhs::Transposed(b));
    product((c.len() / m, k, m), a, b, accumulate).run(true, c);
}

/// [`a_b`](super::a_b).
pub(super) fn a_b<T: Lanes>(
    (m, k): (usize, usize),
    a: &[T],
    b: &[T],
    accumulate: bool,
    c: &mut [T],
) {
    let (a, b) = (Rhs::Transposed(a), Rhs::Plain(b));
    product((c.len() / k, m, k), a, b, accumulate).run(true, c);
}

/// [`at_b`](super::at_b).
pub(super) fn at_b<T: Lanes>(
    (m, k): (usize, usize),
    alpha: T,
    a: &[T],
    b: &[T],
    accumulate: bool,
    c: &mut [T],
) {
    let shape = (m, a.len() / m, k);
    let of_one = product(shape, Rhs::Plain(a), Rhs::Plain(b), accumulate);
    Product { alpha, ..of_one }.run(true, c);
}

/// [`gram_of_rows`](super::gram_of_rows).
pub(super) fn gram_of_rows<T: Lanes>(k: usize, a: &[T], c: &mut [T]) {
    let n = a.len() / k;
    lower_gram(T::ONE, (n, k), a, c);
    symmetrize_lower(n, c);
}

/// [`half_gram_of_rows`](super::half_gram_of_rows).
pub(super) fn half_gram_of_rows<T: Lanes>(k: usize, a: &[T], c: &mut [T]) {
    let n = a.len() / k;
    lower_gram(T::ONE + T::ONE, (n, k), a, c);
    for (i, row) in c.chunks_exact_mut(n).enumerate() {
        row[i] *= T::from_f64(0.5);
        row[i + 1..].fill(T::ZERO);
    }
}

/// `C ← α A Aᵀ` on and below the diagonal; `a: [n, k]`.
fn lower_gram<T: Lanes>(alpha: T, (n, k): (usize, usize), a: &[T], c: &mut [T]) {
    let (a, lower) = (Rhs::Transposed(a), true);
    Product {
        alpha,
        lower,
        ..product((n, k, n), a, a, false)
    }
    .run(true, c);
}

/// `C ← α Aᵀ B + C` on and below the diagonal; `a, b: [depth, n]`, `c: [n, n]`.
pub(super) fn at_b_lower<T: Lanes>(n: usize, alpha: T, a: &[T], b: &[T], c: &mut [T]) {
    let (shape, lower) = ((n, a.len() / n, n), true);
    let of_one = product(shape, Rhs::Plain(a), Rhs::Plain(b), true);
    Product {
        alpha,
        lower,
        ..of_one
    }
    .run(true, c);
}

/// `C ← A B`, or with `C` added, on this thread; `a: [m, k]`, `b: [k, n]`, `c: [m, n]`.
pub(super) fn a_b_serial<T: Lanes>(
    (m, k, n): (usize, usize, usize),
    a: &[T],
    b: &[T],
    accumulate: bool,
    c: &mut [T],
) {
    product((m, k, n), Rhs::Transposed(a), Rhs::Plain(b), accumulate).run(false, c);
}

/// `C ← Aᵀ B`, or with `C` added, on this thread; `a: [m, k]`, `b: [m, n]`, `c: [k, n]`.
pub(super) fn at_b_serial<T: Lanes>(
    (m, k, n): (usize, usize, usize),
    a: &[T],
    b: &[T],
    accumulate: bool,
    c: &mut [T],
) {
    product((k, m, n), Rhs::Plain(a), Rhs::Plain(b), accumulate).run(false, c);
}

/// `C ← A Bᵀ`, or with `C` added, on this thread; `a: [m, k]`, `b: [n, k]`, `c: [m, n]`.
pub(super) fn a_bt_serial<T: Lanes>(
    (m, k, n): (usize, usize, usize),
    a: &[T],
    b: &[T],
    accumulate: bool,
    c: &mut [T],
) {
    let (a, b) = (Rhs::Transposed(a), Rhs::Transposed(b));
    product((m, k, n), a, b, accumulate).run(false, c);
}

/// `C ← A B`, or with `C` added.
fn product<'a, T: Lanes>(
    shape: (usize, usize, usize),
    a: Rhs<'a, T>,
    b: Rhs<'a, T>,
    accumulate: bool,
) -> Product<'a, T> {
    Product {
        shape,
        alpha: T::ONE,
        a,
        b,
        accumulate,
        lower: false,
    }
}

/// Rows and columns that are mirrored at a time.
const BLOCK: usize = 16;

/// Copies what is below the diagonal to its place above, in blocks of [`BLOCK`] rows and columns:
/// whole lines of the cache are written at a time.
pub(super) fn symmetrize_lower<T: Lanes>(n: usize, c: &mut [T]) {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    /// `n`, `k` and `m` around what tiles, vectors, blocks of the depth and rows that are few hold.
    fn shapes() -> impl Strategy<Value = (usize, usize, usize)> {
        let side = || prop_oneof![1_usize..20, 20_usize..150];
        (
            side(),
            prop_oneof![1_usize..70, 500_usize..530, 1020_usize..1030],
            side(),
        )
    }

    /// Small whole numbers, whose sums are exact in both types.
    fn whole(length: usize, step: usize) -> Vec<f32> {
        let entry = |i: usize| ((i * step + i / 7) % 7) as f32 - 3.0;
        (0..length).map(entry).collect()
    }

    fn transposed(a: &[f32], columns: usize) -> Vec<f32> {
        let rows = a.len() / columns;
        (0..a.len())
            .map(|i| a[i % rows * columns + i / rows])
            .collect()
    }

    /// All three products of one pair of factors, as they lie and across, against the definition.
    fn check<T: Lanes>((n, k, m): (usize, usize, usize), accumulate: bool) {
        let of = |entries: &[f32]| {
            entries
                .iter()
                .map(|&x| T::from_f64(x.into()))
                .collect::<Vec<T>>()
        };
        let (a, b) = (whole(n * k, 3), whole(k * m, 5));
        let before = whole(n * m, 1);
        let sum = |i: usize, j: usize| (0..k).map(|l| a[i * k + l] * b[l * m + j]).sum::<f32>();
        let expected = |alpha: f32| -> Vec<T> {
            let entry =
                |x: usize| alpha * sum(x / m, x % m) + if accumulate { before[x] } else { 0.0 };
            of(&(0..n * m).map(entry).collect::<Vec<f32>>())
        };
        let (once, twice) = (expected(1.0), expected(2.0));
        let (plain_a, plain_b) = (of(&a), of(&b));
        let (across_a, across_b) = (of(&transposed(&a, k)), of(&transposed(&b, m)));
        let mut c = of(&before);
        a_b((k, m), &plain_a, &plain_b, accumulate, &mut c);
        assert_eq!(c, once, "A B of {n}, {k}, {m}");
        c = of(&before);
        a_bt((k, m), &plain_a, &across_b, accumulate, &mut c);
        assert_eq!(c, once, "A Bᵀ of {n}, {k}, {m}");
        c = of(&before);
        at_b(
            (n, m),
            T::from_f64(2.0),
            &across_a,
            &plain_b,
            accumulate,
            &mut c,
        );
        assert_eq!(c, twice, "Aᵀ B of {n}, {k}, {m}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn products_of_every_shape_equal_the_definition(shape in shapes(), accumulate: bool) {
            check::<f32>(shape, accumulate);
            check::<f64>(shape, accumulate);
        }

        /// Also where entries are not whole, and whatever is packed.
        #[test]
        fn products_have_the_same_bits_for_any_number_of_threads(shape in shapes(), accumulate: bool) {
            let (n, k, m) = shape;
            let random = |length: usize| (0..length).map(|i| (i as f32 * 0.7).sin()).collect::<Vec<f32>>();
            let (a, b) = (random(n * k), random(m * k));
            let run = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| {
                    let mut c = random(n * m);
                    a_bt((k, m), &a, &b, accumulate, &mut c);
                    c
                })
            };
            prop_assert_eq!(run(1), run(3));
        }
    }
}
