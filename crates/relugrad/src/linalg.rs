//! Small dense matrices and vectors, as slices. Matrices are row-major.

use crate::buffer::Buffer;
use crate::scalar::Scalar;

/// `Σ_i f(a_i, b_i)`, in eight sums that do not wait for each other.
#[inline(always)]
pub(crate) fn sum_of_pairs(a: &[f64], b: &[f64], f: impl Fn(f64, f64) -> f64) -> f64 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        for i in 0..8 {
            sums[i] += f(a[i], b[i]);
        }
    }
    for (sum, (&a, &b)) in sums.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *sum += f(a, b);
    }
    sums.iter().sum()
}

/// `aᵀ b`, or `tr(Aᵀ B)`.
#[inline(always)]
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    sum_of_pairs(a, b, |a, b| a * b)
}

/// `tr M`.
pub(crate) fn trace(m: &[f64], size: usize) -> f64 {
    m.iter().step_by(size + 1).sum()
}

/// `Mᵀ`.
pub(crate) fn transposed(m: &[f64], size: usize) -> Buffer<f64> {
    let mut transposed = Buffer::of(m.iter().copied());
    transpose(&mut transposed, size);
    transposed
}

/// `to += scale · from`.
pub(crate) fn add(to: &mut [f64], scale: f64, from: &[f64]) {
    let pairs = to.iter_mut().zip(from);
    pairs.for_each(|(to, from)| *to += scale * from);
}

/// `M += scale · a bᵀ`.
pub(crate) fn add_outer(m: &mut [f64], scale: f64, a: &[f64], b: &[f64]) {
    for (row, a) in m.chunks_exact_mut(b.len()).zip(a) {
        add(row, scale * a, b);
    }
}

/// `M ← (M + Mᵀ)/2`.
pub(crate) fn symmetrise<T: Scalar>(matrix: &mut [T], size: usize) {
    let half = T::from_f64(0.5);
    for_each_pair(size, |below, above| {
        let mean = half * (matrix[below] + matrix[above]);
        (matrix[below], matrix[above]) = (mean, mean);
    });
}

/// `M ← Mᵀ`.
pub(crate) fn transpose<T: Scalar>(matrix: &mut [T], size: usize) {
    for_each_pair(size, |below, above| matrix.swap(below, above));
}

/// Calls `f` with the places of each entry below the diagonal and of its mirror image, block by
/// block for the sake of the cache.
fn for_each_pair(size: usize, mut f: impl FnMut(usize, usize)) {
    const BLOCK: usize = 16;
    for top in (0..size).step_by(BLOCK) {
        for left in (0..=top).step_by(BLOCK) {
            for i in top..size.min(top + BLOCK) {
                for j in left..i.min(left + BLOCK) {
                    f(i * size + j, j * size + i);
                }
            }
        }
    }
}
