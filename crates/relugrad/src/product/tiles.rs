//! The sums of a dense product: tiles of rows by panels of columns, in registers.

use pulp::{Arch, Simd, WithSimd};

use super::lanes::{Lanes, registers};

/// The most vectors in a panel's width.
pub(super) const VECTORS: usize = 3;

/// Depth of a block: its part of a tile stays in the first cache, that of a panel in the second.
pub(super) const DEPTH: usize = 512;

/// Rows of a tile: with those of a panel, their sums fill the registers.
pub(super) fn tile_rows() -> usize {
    if registers() < 32 { 4 } else { 8 }
}

/// Some rows of the left factor.
#[derive(Clone, Copy)]
pub(super) enum Lhs<'a, T> {
    /// As they lie; `[rows, k]`.
    Rows(&'a [T]),
    /// Packed; `[tiles, k, rows of a tile]`.
    Tiles(&'a [T]),
}

/// The right factor in panels.
#[derive(Clone, Copy)]
pub(super) struct Panels<'a, T> {
    pub(super) entries: &'a [T],
    /// From a panel to the next.
    pub(super) step: usize,
    /// From a row of a panel to the next.
    pub(super) stride: usize,
}

/// Some rows of a product.
pub(super) struct Block<'a, T> {
    pub(super) a: Lhs<'a, T>,
    pub(super) panels: Panels<'a, T>,
    pub(super) shape: (usize, usize, usize),
    pub(super) alpha: T,
    pub(super) accumulate: bool,
    /// If only what is on and below the diagonal is wanted: which row of `C` is the first here.
    pub(super) lower: Option<usize>,
    pub(super) c: &'a mut [T],
}

impl<T: Lanes> Block<'_, T> {
    /// Computes them.
    pub(super) fn run(self) {
        match tile_rows() {
            8 => Arch::new().dispatch(Tiled::<T, 8>(self)),
            _ => Arch::new().dispatch(Tiled::<T, 4>(self)),
        }
    }
}

/// A block in tiles of `R` rows.
struct Tiled<'a, T, const R: usize>(Block<'a, T>);

impl<T: Lanes, const R: usize> WithSimd for Tiled<'_, T, R> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Block {
            a,
            panels,
            shape: (rows, k, m),
            ..
        } = self.0;
        let width = m.div_ceil(T::lanes::<S>()).min(VECTORS) * T::lanes::<S>();
        for start in (0..k).step_by(DEPTH) {
            let depth = DEPTH.min(k - start);
            let accumulate = self.0.accumulate || start > 0;
            for (p, left) in (0..m).step_by(width).enumerate() {
                let columns = width.min(m - left);
                let panel = &panels.entries[p * panels.step + start * panels.stride..];
                let above = self
                    .0
                    .lower
                    .map_or(0, |first| left.saturating_sub(first) / R);
                for tile in above..rows.div_ceil(R) {
                    let sums = Sums {
                        a: match a {
                            Lhs::Rows(a) => Lhs::Rows(&a[tile * R * k + start..]),
                            Lhs::Tiles(a) => Lhs::Tiles(&a[(tile * k + start) * R..]),
                        },
                        depth: (depth, k),
                        panel,
                        stride: panels.stride,
                        alpha: self.0.alpha,
                        accumulate,
                        c: &mut self.0.c[tile * R * m + left..],
                        shape: (R.min(rows - tile * R), m, columns),
                    };
                    sums.of_rows::<S, R>(simd);
                }
            }
        }
    }
}

/// The product of a tile and a panel.
struct Sums<'a, T> {
    a: Lhs<'a, T>,
    /// Of the product, and numbers from a row of the left factor to the next where it is not
    /// packed.
    depth: (usize, usize),
    panel: &'a [T],
    stride: usize,
    alpha: T,
    accumulate: bool,
    c: &'a mut [T],
    /// Rows, numbers from a row of `C` to the next, columns.
    shape: (usize, usize, usize),
}

impl<T: Lanes> Sums<'_, T> {
    #[inline(always)]
    fn of_rows<S: Simd, const R: usize>(self, simd: S) {
        match self.shape.0 {
            1 => self.of_vectors::<S, R, 1>(simd),
            2 => self.of_vectors::<S, R, 2>(simd),
            3 => self.of_vectors::<S, R, 3>(simd),
            4 => self.of_vectors::<S, R, 4>(simd),
            5 if R > 4 => self.of_vectors::<S, R, 5>(simd),
            6 if R > 4 => self.of_vectors::<S, R, 6>(simd),
            7 if R > 4 => self.of_vectors::<S, R, 7>(simd),
            _ => self.of_vectors::<S, R, R>(simd),
        }
    }

    #[inline(always)]
    fn of_vectors<S: Simd, const R: usize, const U: usize>(self, simd: S) {
        let (columns, lanes) = (self.shape.2, T::lanes::<S>());
        match (columns.div_ceil(lanes), columns.is_multiple_of(lanes)) {
            (1, true) => self.compute::<S, R, U, 1, true>(simd),
            (1, false) => self.compute::<S, R, U, 1, false>(simd),
            (2, true) => self.compute::<S, R, U, 2, true>(simd),
            (2, false) => self.compute::<S, R, U, 2, false>(simd),
            (_, true) => self.compute::<S, R, U, VECTORS, true>(simd),
            (_, false) => self.compute::<S, R, U, VECTORS, false>(simd),
        }
    }

    /// The sums of `U` rows and `V` vectors, of which the last may not be `WHOLE`.
    #[inline(always)]
    fn compute<S: Simd, const R: usize, const U: usize, const V: usize, const WHOLE: bool>(
        self,
        simd: S,
    ) {
        let mut sums = [[T::splat(simd, T::ZERO); V]; U];
        let (depth, line) = self.depth;
        let (rows, stride, columns) = self.shape;
        let panel = self.panel.chunks(self.stride).take(depth);
        // A panic in a loop would keep the sums out of the registers; rows of a panel are never too
        // short.
        match self.a {
            Lhs::Rows(a) => {
                let rows: [&[T]; U] = std::array::from_fn(|r| &a[r * line..][..depth]);
                for (l, b) in panel.enumerate() {
                    let Some(b) = load::<T, S, V, WHOLE>(simd, b, columns).filter(|_| l < depth)
                    else {
                        break;
                    };
                    let a = std::array::from_fn(|r| rows[r][l]);
                    add_products::<T, S, U, V>(simd, a, b, &mut sums);
                }
            }
            Lhs::Tiles(a) => {
                for (a, b) in a.as_chunks::<R>().0.iter().zip(panel) {
                    let Some(b) = load::<T, S, V, WHOLE>(simd, b, columns) else {
                        break;
                    };
                    let a = std::array::from_fn(|r| a[r]);
                    add_products::<T, S, U, V>(simd, a, b, &mut sums);
                }
            }
        }
        let alpha = T::splat(simd, self.alpha);
        for (r, sums) in sums.iter().enumerate() {
            if r == rows {
                break;
            }
            let Some(c) = self.c.get_mut(r * stride..r * stride + columns) else {
                break;
            };
            let before = match self.accumulate {
                true => load::<T, S, V, WHOLE>(simd, c, columns),
                false => Some([T::splat(simd, T::ZERO); V]),
            };
            let Some(mut entries) = before else { break };
            for v in 0..V {
                entries[v] = T::multiply_add(simd, alpha, sums[v], entries[v]);
            }
            store::<T, S, V, WHOLE>(simd, c, entries);
        }
    }
}

/// The first `columns` numbers in vectors, of which the last may not be `WHOLE`; nothing if there
/// are fewer.
#[inline(always)]
fn load<T: Lanes, S: Simd, const V: usize, const WHOLE: bool>(
    simd: S,
    from: &[T],
    columns: usize,
) -> Option<[T::Vector<S>; V]> {
    if WHOLE {
        return T::vectors::<S>(from).first_chunk::<V>().copied();
    }
    let last = (V - 1) * T::lanes::<S>();
    let part = T::load_part(simd, from.get(last..columns)?);
    let mut vectors = [part; V];
    let whole = T::vectors::<S>(from).get(..V - 1)?;
    vectors[..V - 1].copy_from_slice(whole);
    Some(vectors)
}

/// Writes vectors, of which the last may not be `WHOLE`, to as many numbers as there are.
#[inline(always)]
fn store<T: Lanes, S: Simd, const V: usize, const WHOLE: bool>(
    simd: S,
    to: &mut [T],
    vectors: [T::Vector<S>; V],
) {
    let (whole, part) = to.split_at_mut(if WHOLE {
        to.len()
    } else {
        (V - 1) * T::lanes::<S>()
    });
    let whole = T::vectors_mut::<S>(whole);
    for (to, vector) in whole.iter_mut().zip(vectors) {
        *to = vector;
    }
    if !WHOLE {
        T::store_part(simd, part, vectors[V - 1]);
    }
}

/// Adds `a b` to the sums.
#[inline(always)]
fn add_products<T: Lanes, S: Simd, const U: usize, const V: usize>(
    simd: S,
    a: [T; U],
    b: [T::Vector<S>; V],
    sums: &mut [[T::Vector<S>; V]; U],
) {
    for r in 0..U {
        let a = T::splat(simd, a[r]);
        for v in 0..V {
            sums[r][v] = T::multiply_add(simd, a, b[v], sums[r][v]);
        }
    }
}
