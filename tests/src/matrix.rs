//! Small dense matrices as rows of vectors: slow, obvious, and shared with nothing under test.

/// Rows of a matrix.
pub type Matrix = Vec<Vec<f64>>;

/// The zero matrix.
pub fn zeros(rows: usize, columns: usize) -> Matrix {
    vec![vec![0.0; columns]; rows]
}

/// The identity matrix.
pub fn identity(size: usize) -> Matrix {
    diagonal(&vec![1.0; size])
}

/// The matrix with these diagonal entries.
pub fn diagonal(entries: &[f64]) -> Matrix {
    let mut matrix = zeros(entries.len(), entries.len());
    for (i, &entry) in entries.iter().enumerate() {
        matrix[i][i] = entry;
    }
    matrix
}

/// `I − 11ᵀ/K`.
pub fn centring(size: usize) -> Matrix {
    let mean = 1.0 / size as f64;
    let entry = |i: usize, j: usize| f64::from(i == j) - mean;
    (0..size)
        .map(|i| (0..size).map(|j| entry(i, j)).collect())
        .collect()
}

/// `⟨a, b⟩`.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "lengths differ");
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `‖a‖₂`.
pub fn norm(a: &[f64]) -> f64 {
    dot(a, a).sqrt()
}

/// `a + scale · b`.
pub fn add(a: &[f64], scale: f64, b: &[f64]) -> Vec<f64> {
    assert_eq!(a.len(), b.len(), "lengths differ");
    a.iter().zip(b).map(|(a, b)| a + scale * b).collect()
}

/// `scale · a`.
pub fn scaled(scale: f64, a: &[f64]) -> Vec<f64> {
    a.iter().map(|a| scale * a).collect()
}

/// `a / ‖a‖`, or `a` itself if it is zero.
pub fn unit(a: &[f64]) -> Vec<f64> {
    match norm(a) {
        0.0 => a.to_vec(),
        length => scaled(1.0 / length, a),
    }
}

/// `M v`.
pub fn times(m: &[Vec<f64>], v: &[f64]) -> Vec<f64> {
    m.iter().map(|row| dot(row, v)).collect()
}

/// `Mᵀ v`, for `M` with at least one row.
pub fn transposed_times(m: &[Vec<f64>], v: &[f64]) -> Vec<f64> {
    let mut out = vec![0.0; m[0].len()];
    for (row, &v) in m.iter().zip(v) {
        assert_eq!(row.len(), out.len(), "lengths differ");
        out.iter_mut().zip(row).for_each(|(out, m)| *out += v * m);
    }
    out
}

/// `Mᵀ`, for `M` with at least one row.
pub fn transpose(m: &[Vec<f64>]) -> Matrix {
    (0..m[0].len())
        .map(|j| m.iter().map(|row| row[j]).collect())
        .collect()
}

/// `A B`.
pub fn product(a: &[Vec<f64>], b: &[Vec<f64>]) -> Matrix {
    a.iter().map(|row| transposed_times(b, row)).collect()
}

/// The product of several matrices.
pub fn chain(factors: &[&[Vec<f64>]]) -> Matrix {
    let (first, rest) = factors.split_first().expect("at least one factor");
    rest.iter().fold(first.to_vec(), |m, b| product(&m, b))
}

/// `A Bᵀ`.
pub fn product_transposed(a: &[Vec<f64>], b: &[Vec<f64>]) -> Matrix {
    a.iter().map(|row| times(b, row)).collect()
}

/// `a bᵀ`.
pub fn outer(a: &[f64], b: &[f64]) -> Matrix {
    a.iter().map(|&a| scaled(a, b)).collect()
}

/// `A + scale · B`.
pub fn plus(a: &[Vec<f64>], scale: f64, b: &[Vec<f64>]) -> Matrix {
    a.iter().zip(b).map(|(a, b)| add(a, scale, b)).collect()
}

/// `scale · A`.
pub fn multiple(scale: f64, a: &[Vec<f64>]) -> Matrix {
    a.iter().map(|row| scaled(scale, row)).collect()
}

/// `tr A`.
pub fn trace(a: &[Vec<f64>]) -> f64 {
    a.iter().enumerate().map(|(i, row)| row[i]).sum()
}

/// `⟨A, B⟩ = tr(Aᵀ B)`.
pub fn inner(a: &[Vec<f64>], b: &[Vec<f64>]) -> f64 {
    a.iter().zip(b).map(|(a, b)| dot(a, b)).sum()
}

/// `‖A‖_F`.
pub fn frobenius(a: &[Vec<f64>]) -> f64 {
    inner(a, a).sqrt()
}

/// All entries, row by row.
pub fn flatten(a: &[Vec<f64>]) -> Vec<f64> {
    a.concat()
}

/// Entries of a row-major slice as rows.
pub fn rows(entries: &[f64], columns: usize) -> Matrix {
    entries.chunks(columns).map(<[f64]>::to_vec).collect()
}

/// Sweeps of rotations at most; convergence is quadratic, and takes about ten.
const SWEEPS: usize = 60;

/// Eigenvalues of a symmetric matrix, largest first, and their unit eigenvectors, by Jacobi's
/// rotations.
pub fn eigen(a: &[Vec<f64>]) -> (Vec<f64>, Matrix) {
    let size = a.len();
    let (mut a, mut vectors) = (a.to_vec(), identity(size));
    let (total, mut before) = (frobenius(&a), f64::INFINITY);
    for _ in 0..SWEEPS {
        let rest: f64 = (0..size).map(|i| norm(&a[i][..i])).sum();
        let only_rounding = rest <= 1e-13 * total && rest > 0.5 * before;
        if rest <= 1e-20 * total || only_rounding {
            break;
        }
        before = rest;
        for p in 0..size {
            for q in p + 1..size {
                rotate(&mut a, &mut vectors, p, q);
            }
        }
    }
    let mut order: Vec<usize> = (0..size).collect();
    order.sort_by(|&i, &j| a[j][j].total_cmp(&a[i][i]));
    let values = order.iter().map(|&i| a[i][i]).collect();
    (values, order.iter().map(|&i| vectors[i].clone()).collect())
}

/// The rotation that makes entry `(p, q)` zero, applied to both sides of `a` and to the rows of
/// `vectors`.
fn rotate(a: &mut Matrix, vectors: &mut Matrix, p: usize, q: usize) {
    if a[p][q] == 0.0 {
        return;
    }
    let angle = 0.5 * (2.0 * a[p][q]).atan2(a[p][p] - a[q][q]);
    let (sine, cosine) = angle.sin_cos();
    let turned = |x: f64, y: f64| (cosine * x + sine * y, cosine * y - sine * x);
    for m in [&mut *a, vectors] {
        for j in 0..m[p].len() {
            (m[p][j], m[q][j]) = turned(m[p][j], m[q][j]);
        }
    }
    for row in a {
        (row[p], row[q]) = turned(row[p], row[q]);
    }
}

/// Singular values of a matrix, largest first: the roots of the eigenvalues of its smaller Gram
/// matrix.
pub fn singular_values(a: &[Vec<f64>]) -> Vec<f64> {
    let gram = if a.len() <= a[0].len() {
        product_transposed(a, a)
    } else {
        product_transposed(&transpose(a), &transpose(a))
    };
    let (values, _) = eigen(&gram);
    values.iter().map(|value| value.max(0.0).sqrt()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_abs_diff_eq;

    #[test]
    fn eigenpairs_of_a_known_matrix() {
        let a = vec![
            vec![2.0, 1.0, 0.0],
            vec![1.0, 2.0, 0.0],
            vec![0.0, 0.0, -5.0],
        ];
        let (values, vectors) = eigen(&a);
        for (value, expected) in values.iter().zip([3.0, 1.0, -5.0]) {
            assert_abs_diff_eq!(*value, expected, epsilon = 1e-14);
        }
        for (value, vector) in values.iter().zip(&vectors) {
            let residual = add(&times(&a, vector), -value, vector);
            assert!(norm(&residual) < 1e-14 && (norm(vector) - 1.0).abs() < 1e-14);
        }
    }

    #[test]
    fn products_by_hand() {
        let a = vec![vec![1.0, 2.0], vec![0.0, 1.0]];
        assert_eq!(product(&a, &a), [[1.0, 4.0], [0.0, 1.0]]);
        assert_eq!(product_transposed(&a, &a), [[5.0, 2.0], [2.0, 1.0]]);
        assert_eq!(transposed_times(&a, &[1.0, 1.0]), [1.0, 3.0]);
        assert_eq!(singular_values(&[vec![3.0, 4.0]]), [5.0]);
    }
}
