//! The sums of a few rows of a product with an unfolded input, in registers.

use pulp::{Simd, WithSimd};

use crate::product::lanes::{Lanes, registers};

/// The most rows of a tile.
pub(super) const MOST_ROWS: usize = 8;

/// Heights of tiles, and the first row of each, for so many rows of a product. A row may be added
/// that nobody reads where that saves a tile.
pub(super) fn tiles(rows: usize) -> impl Iterator<Item = (usize, usize)> + Clone {
    let most = if registers() < 32 { 4 } else { MOST_ROWS };
    let height = move |first: usize| {
        let left = rows.saturating_sub(first);
        let fits = |&height: &usize| left >= height || (height > 2 && left + 1 == height);
        let height = [most, 4, 2, 1].into_iter().find(fits);
        height.map(|height| (first, height))
    };
    std::iter::successors(height(0), move |&(first, rows)| height(first + rows))
}

/// Rows of all tiles together.
pub(super) fn padded(rows: usize) -> usize {
    tiles(rows)
        .last()
        .map_or(0, |(first, height)| first + height)
}

/// The sums of one tile at all positions of a strip.
pub(super) struct Tile<'a, T> {
    /// Rows: 1, 2, 4 or 8.
    pub(super) height: usize,
    /// Where what every tap reads begins.
    pub(super) places: &'a [usize],
    /// `[taps, height]`.
    pub(super) weight: &'a [T],
    pub(super) unfolded: &'a [T],
    /// Vectors of positions.
    pub(super) vectors: usize,
    /// `[height, vectors]`.
    pub(super) sums: &'a mut [T],
}

impl<T: Lanes> WithSimd for Tile<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        with_constant!(self.height, U in [1, 2, 4; 8] => self.run::<S, U>(simd));
    }
}

impl<T: Lanes> Tile<'_, T> {
    /// With `U` rows; the vectors are shared out evenly.
    #[inline(always)]
    fn run<S: Simd, const U: usize>(mut self, simd: S) {
        let most = match (U, S::REGISTER_COUNT) {
            (8, _) | (4, ..32) => 3,
            _ => 6,
        };
        let (parts, mut first) = (self.vectors.div_ceil(most), 0);
        for left in (1..=parts).rev() {
            let width = (self.vectors - first).div_ceil(left);
            if U == 8 {
                with_constant!(width, V in [1, 2; 3] => self.sum::<S, U, V>(simd, first));
            } else {
                with_constant!(width, V in [1, 2, 3, 4, 5; 6] => self.sum::<S, U, V>(simd, first));
            }
            first += width;
        }
    }

    /// The sums of `V` vectors.
    #[inline(always)]
    fn sum<S: Simd, const U: usize, const V: usize>(&mut self, simd: S, first: usize) {
        let (weight, _) = self.weight.as_chunks::<U>();
        let from = self.unfolded.get(first * T::lanes::<S>()..);
        let sums = products::<T, S, U, V>(simd, self.places, weight, from.unwrap_or_default());
        let length = self.vectors * T::lanes::<S>();
        for (sums, to) in sums.iter().zip(self.sums.chunks_exact_mut(length)) {
            let to = T::vectors_mut::<S>(to).get_mut(first..);
            let Some(to) = to.and_then(|to| to.first_chunk_mut::<V>()) else {
                break;
            };
            *to = *sums;
        }
    }
}

/// The products of all taps.
#[inline(always)]
fn products<T: Lanes, S: Simd, const U: usize, const V: usize>(
    simd: S,
    places: &[usize],
    weight: &[[T; U]],
    from: &[T],
) -> [[T::Vector<S>; V]; U] {
    let mut sums = [[T::splat(simd, T::ZERO); V]; U];
    for (&place, weight) in places.iter().zip(weight) {
        let run = from.get(place..).unwrap_or_default();
        // A panic would keep the sums out of the registers; everything is in range.
        let Some(run) = T::vectors::<S>(run).first_chunk::<V>() else {
            break;
        };
        for u in 0..U {
            let weight = T::splat(simd, weight[u]);
            for v in 0..V {
                sums[u][v] = T::multiply_add(simd, weight, run[v], sums[u][v]);
            }
        }
    }
    sums
}
