//! Products of rows with rows, where there are too few of one kind to pack the other.

use pulp::{Arch, Simd, WithSimd};

use super::lanes::Lanes;

/// The most rows or columns of `C` whose entries are products of rows that are read as they lie.
pub(super) const FEW: usize = 3;

/// `C ← α A B`, or with `C` added, of a row of `A` with columns of `B` that lie together.
pub(super) fn dots<T: Lanes>(alpha: T, a: &[T], b: &[T], accumulate: bool, c: &mut [T]) {
    Arch::new().dispatch(Dots {
        alpha,
        a,
        b,
        accumulate,
        c,
    });
}

/// Partial sums of a product of rows, the same for all processors.
const PARTS: usize = 16;

/// [`dots`].
struct Dots<'a, T> {
    alpha: T,
    a: &'a [T],
    b: &'a [T],
    accumulate: bool,
    c: &'a mut [T],
}

impl<T: Lanes> WithSimd for Dots<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        with_constant!(PARTS / T::lanes::<S>(), V in [1, 2, 4, 8; PARTS] => {
            self.sums::<S, V>(simd);
        });
    }
}

impl<T: Lanes> Dots<'_, T> {
    /// With `V` vectors of partial sums.
    #[inline(always)]
    fn sums<S: Simd, const V: usize>(self, simd: S) {
        let k = self.a.len();
        let (quads, rest) = self.c.as_chunks_mut::<4>();
        let (alpha, add) = (self.alpha, self.accumulate);
        let store = |c: &mut T, sum: T| *c = alpha * sum + if add { *c } else { T::ZERO };
        for (i, c) in quads.iter_mut().enumerate() {
            let sums = first_dots::<T, S, 4, V>(simd, self.a, &self.b[4 * i * k..]);
            (0..4).for_each(|j| store(&mut c[j], sums[j]));
        }
        for (i, c) in rest.iter_mut().enumerate() {
            let b = &self.b[(4 * quads.len() + i) * k..];
            store(c, first_dots::<T, S, 1, V>(simd, self.a, b)[0]);
        }
    }
}

/// Products of a row with the first `N` of others.
#[inline(always)]
fn first_dots<T: Lanes, S: Simd, const N: usize, const V: usize>(
    simd: S,
    a: &[T],
    b: &[T],
) -> [T; N] {
    let rows: [&[T]; N] = std::array::from_fn(|i| &b[i * a.len()..][..a.len()]);
    let wholes = rows.map(|row| T::vectors::<S>(row).as_chunks::<V>().0);
    let mut sums = [[T::splat(simd, T::ZERO); V]; N];
    for (l, a) in T::vectors::<S>(a).as_chunks::<V>().0.iter().enumerate() {
        for i in 0..N {
            let Some(b) = wholes[i].get(l) else { break };
            for v in 0..V {
                sums[i][v] = T::multiply_add(simd, a[v], b[v], sums[i][v]);
            }
        }
    }
    let last = a.len() / PARTS * PARTS;
    std::array::from_fn(|i| {
        let mut parts = [T::ZERO; PARTS];
        for (to, sum) in T::vectors_mut::<S>(&mut parts).iter_mut().zip(sums[i]) {
            *to = sum;
        }
        let rest = a[last..].iter().zip(&rows[i][last..]);
        parts
            .iter_mut()
            .zip(rest)
            .for_each(|(sum, (&a, &b))| *sum += a * b);
        let mut count = PARTS;
        while count > 1 {
            count /= 2;
            (0..count).for_each(|p| parts[p] += parts[p + count]);
        }
        parts[0]
    })
}
