//! All eigenpairs of a symmetric matrix: Householder reflections to a tridiagonal one, then
//! implicit QL steps (Golub and Van Loan, *Matrix Computations*, 4th edition, sections 8.3.1 and
//! 8.3.3).

use pulp::{Arch, Simd, WithSimd};

use crate::linalg::dot;

/// QL steps in which every eigenvalue has converged long before; two are usual.
const STEPS: usize = 64;

/// About the root of the smallest normal number.
const SMALLEST: f64 = 1e-153;

/// A symmetric eigenproblem of `n` unknowns.
pub(super) struct Problem<'a> {
    /// `[n, n]`; overwritten.
    pub(super) matrix: &'a mut [f64],
    /// Will hold the eigenvalues, largest first.
    pub(super) values: &'a mut [f64],
    /// Room for `n` numbers.
    pub(super) beside: &'a mut [f64],
    /// Will hold the unit eigenvectors in its rows; `[n, n]`.
    pub(super) vectors: &'a mut [f64],
}

impl Problem<'_> {
    /// Solves it, and tells whether the iteration has converged.
    pub(super) fn solve(self) -> bool {
        Arch::new().dispatch(self)
    }
}

impl WithSimd for Problem<'_> {
    type Output = bool;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> bool {
        let Problem {
            matrix,
            values,
            beside,
            vectors,
        } = self;
        let n = values.len();
        tridiagonalise(matrix, values, beside, &mut vectors[..n]);
        reflect(matrix, beside, vectors);
        for i in 1..n {
            beside[i - 1] = matrix[i * n + i - 1];
        }
        let converged = diagonalise(values, beside, vectors);
        sort(values, vectors);
        converged
    }
}

fn sort(values: &mut [f64], vectors: &mut [f64]) {
    let n = values.len();
    for i in 0..n {
        let largest = (i..n).max_by(|&j, &k| values[j].total_cmp(&values[k]));
        let j = largest.unwrap_or(i);
        values.swap(i, j);
        let (first, second) = vectors.split_at_mut(j.max(i + 1) * n);
        if j > i {
            first[i * n..(i + 1) * n].swap_with_slice(&mut second[..n]);
        }
    }
}

/// `A ← Qᵀ A Q` tridiagonal with `Q = H₀ H₁ …`, `H_k = I − τ_k v vᵀ`, where `v` is left in row `k`
/// of `A` behind its diagonal, the matrix's diagonal in `diagonal`, what couples rows `k` and
/// `k + 1` at `[k + 1, k]`, and `τ` in `scales`.
#[inline(always)]
fn tridiagonalise(a: &mut [f64], diagonal: &mut [f64], scales: &mut [f64], product: &mut [f64]) {
    let n = diagonal.len();
    for k in 0..n {
        diagonal[k] = a[k * n + k];
        scales[k] = 0.0;
        let (above, below) = a.split_at_mut((k + 1) * n);
        let v = &mut above[k * n + k + 1..];
        let Some(&first) = v.first() else { break };
        let norm = dot(v, v).sqrt();
        let coupling = if first > 0.0 { -norm } else { norm };
        // Beside entries around 1 a smaller column is nothing, and the scale of its reflection
        // would overflow.
        if norm > SMALLEST {
            v[0] = first - coupling;
            scales[k] = 1.0 / (norm * (norm + first.abs()));
            two_sided(below, v, (n, k + 1), scales[k], product);
        }
        below[k] = coupling;
    }
}

/// `A ← H A H` with `H = I − τ v vᵀ`, of the rows and columns from `first` on; `rows` begins with
/// row `first`.
#[inline(always)]
fn two_sided(
    rows: &mut [f64],
    v: &[f64],
    (n, first): (usize, usize),
    scale: f64,
    product: &mut [f64],
) {
    let p = &mut product[first..n];
    for (p, row) in p.iter_mut().zip(rows.chunks_exact(n)) {
        *p = scale * dot(&row[first..], v);
    }
    let half = 0.5 * scale * dot(p, v);
    p.iter_mut().zip(v).for_each(|(p, v)| *p -= half * v);
    for ((row, &pi), &vi) in rows.chunks_exact_mut(n).zip(p.iter()).zip(v) {
        for ((entry, pj), vj) in row[first..].iter_mut().zip(p.iter()).zip(v) {
            *entry -= vi * pj + pi * vj;
        }
    }
}

/// `Qᵀ` from what [`tridiagonalise`] has left.
#[inline(always)]
fn reflect(a: &[f64], scales: &[f64], q: &mut [f64]) {
    let n = scales.len();
    q.fill(0.0);
    (0..n).for_each(|i| q[i * n + i] = 1.0);
    for k in (0..n).rev() {
        let v = &a[k * n + k + 1..(k + 1) * n];
        for row in q[(k + 1).min(n) * n..].chunks_exact_mut(n) {
            let row = &mut row[k + 1..];
            let sum = scales[k] * dot(row, v);
            row.iter_mut().zip(v).for_each(|(q, v)| *q -= sum * v);
        }
    }
}

/// Takes a tridiagonal matrix to its eigenvalues and turns the rows of `vectors` with it.
#[inline(always)]
fn diagonalise(d: &mut [f64], e: &mut [f64], vectors: &mut [f64]) -> bool {
    let n = d.len();
    e[n - 1] = 0.0;
    let sizes = d.iter().zip(e.iter()).map(|(d, e)| d.abs() + e.abs());
    let negligible = f64::EPSILON * sizes.fold(0.0, f64::max);
    for l in 0..n {
        let mut steps = 0;
        loop {
            let m = (l..n - 1).find(|&m| e[m].abs() <= negligible);
            let m = m.unwrap_or(n - 1);
            if m == l {
                break;
            }
            if steps == STEPS {
                return false;
            }
            steps += 1;
            ql_step(d, e, (l, m), vectors);
        }
    }
    true
}

/// A step with the eigenvalue of the first two rows' block that is nearer to `d[l]` for its shift,
/// by rotations of rows `i` and `i + 1` from `m − 1` up to `l`.
#[inline(always)]
fn ql_step(d: &mut [f64], e: &mut [f64], (l, m): (usize, usize), vectors: &mut [f64]) {
    let n = d.len();
    let ratio = (d[l + 1] - d[l]) / (2.0 * e[l]);
    let shift = d[l] - e[l] / (ratio + ratio.hypot(1.0).copysign(ratio));
    let (mut sine, mut cosine, mut moved) = (1.0, 1.0, 0.0);
    let mut bulge = d[m] - shift;
    for i in (l..m).rev() {
        let (f, b) = (sine * e[i], cosine * e[i]);
        let r = f.hypot(bulge);
        e[i + 1] = r;
        if r == 0.0 {
            // The matrix has fallen apart here: the next step begins below.
            d[i + 1] -= moved;
            e[m] = 0.0;
            return;
        }
        (sine, cosine) = (f / r, bulge / r);
        let g = d[i + 1] - moved;
        let t = (d[i] - g) * sine + 2.0 * cosine * b;
        moved = sine * t;
        d[i + 1] = g + moved;
        bulge = cosine * t - b;
        rotate(&mut vectors[i * n..(i + 2) * n], sine, cosine);
    }
    d[l] -= moved;
    e[l] = bulge;
    e[m] = 0.0;
}

/// `(x, y) ← (c x − s y, s x + c y)` for two rows.
#[inline(always)]
fn rotate(rows: &mut [f64], sine: f64, cosine: f64) {
    let (x, y) = rows.split_at_mut(rows.len() / 2);
    for (x, y) in x.iter_mut().zip(y) {
        (*x, *y) = (cosine * *x - sine * *y, sine * *x + cosine * *y);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The largest entry of `A V − V Λ` and of `Vᵀ V − I`, for `A` with entries around 1.
    fn residuals(a: &[f64], values: &[f64], vectors: &[f64]) -> (f64, f64) {
        let n = values.len();
        let (mut equation, mut angle) = (0.0_f64, 0.0_f64);
        for (i, v) in vectors.chunks_exact(n).enumerate() {
            for (row, entry) in a.chunks_exact(n).zip(v) {
                equation = equation.max((dot(row, v) - values[i] * entry).abs());
            }
            for (j, w) in vectors.chunks_exact(n).enumerate() {
                angle = angle.max((dot(v, w) - f64::from(u8::from(i == j))).abs());
            }
        }
        (equation, angle)
    }

    proptest! {
        /// Full, of low rank, with whole blocks of zeros, with equal eigenvalues.
        #[test]
        fn every_pair_solves_the_equation(
            n in 1_usize..24,
            rank in 1_usize..24,
            seed in proptest::collection::vec(-1.0..1.0, 24 * 24),
            zeros in 0_u32..3,
            diagonal in prop_oneof![Just(0.0), Just(1.0), Just(-3.0)],
        ) {
            let rank = rank.min(n);
            let factor = |i: usize, r: usize| match (i * 7 + r * 3) as u32 % 3 < zeros {
                true => 0.0,
                false => seed[i * 24 + r],
            };
            let entry = |i: usize, j: usize| {
                let sum: f64 = (0..rank).map(|r| factor(i, r) * factor(j, r)).sum();
                sum + if i == j { diagonal } else { 0.0 }
            };
            let a: Vec<f64> = (0..n * n).map(|x| entry(x / n, x % n)).collect();
            let (mut values, mut beside) = (vec![0.0; n], vec![0.0; n]);
            let mut vectors = vec![0.0; n * n];
            let problem = Problem {
                matrix: &mut a.clone(),
                values: &mut values,
                beside: &mut beside,
                vectors: &mut vectors,
            };
            prop_assert!(problem.solve());
            prop_assert!(values.is_sorted_by(|a, b| a >= b));
            let (equation, angle) = residuals(&a, &values, &vectors);
            let size = 4.0 * n as f64 * f64::EPSILON;
            prop_assert!(equation <= size * (n as f64 + 3.0), "{equation}");
            prop_assert!(angle <= 4.0 * size, "{angle}");
        }
    }
}
