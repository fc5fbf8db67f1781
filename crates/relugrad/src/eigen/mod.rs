//! Eigenvalues of small symmetric matrices.

mod lanczos;
mod symmetric;
mod tridiagonal;

use self::lanczos::Lanczos;
use self::symmetric::Problem;
use crate::buffer::Buffer;
use crate::error::{Error, Result};

/// Eigenvalues of a symmetric matrix, largest first, with their unit eigenvectors.
#[derive(Debug)]
pub(crate) struct Eigen {
    pub(crate) values: Buffer<f64>,
    /// One after another, in the order of their values.
    vectors: Buffer<f64>,
}

/// Solves symmetric eigenproblems of one size. Its buffers are reused, because for small matrices
/// their allocation takes as long as the solution.
#[derive(Debug)]
pub(crate) struct EigenSolver {
    size: usize,
    scaled: Vec<f64>,
    values: Vec<f64>,
    /// What couples the rows of a tridiagonal matrix.
    beside: Vec<f64>,
    vectors: Vec<f64>,
    lanczos: Lanczos,
}

impl EigenSolver {
    /// A solver for `size×size` matrices.
    pub(crate) fn new(size: usize) -> EigenSolver {
        EigenSolver {
            size,
            scaled: Vec::with_capacity(size * size),
            values: vec![0.0; size],
            beside: vec![0.0; size],
            vectors: Vec::new(),
            lanczos: Lanczos::new(size),
        }
    }

    /// All eigenvalues of a row-major matrix and their eigenvectors.
    pub(crate) fn solve(&mut self, matrix: &[f64]) -> Result<Eigen> {
        let size = self.size;
        let scale = self.rescale(matrix)?;
        self.vectors.resize(size * size, 0.0);
        let (values, vectors) = (&mut self.values, &mut self.vectors);
        let (matrix, beside) = (&mut self.scaled, &mut self.beside);
        if !(Problem {
            matrix,
            values,
            beside,
            vectors,
        })
        .solve()
        {
            return Err(Error::Eigenvalues { size });
        }
        Ok(Eigen {
            values: Buffer::of(values.iter().map(|value| scale * value)),
            vectors: Buffer::of(vectors.iter().copied()),
        })
    }

    /// The largest eigenvalue of a row-major matrix and its unit eigenvector, in a fraction of the
    /// time of all of them.
    pub(crate) fn largest(&mut self, matrix: &[f64]) -> Result<(f64, &[f64])> {
        let scale = self.rescale(matrix)?;
        let (value, vector) = self.lanczos.solve(&self.scaled);
        Ok((scale * value, vector))
    }

    /// Keeps the matrix divided by the power of two that is returned, with entries around 1: the
    /// algorithms do not converge where squares of its entries underflow, as they do for the
    /// curvature of a saturated sample.
    fn rescale(&mut self, matrix: &[f64]) -> Result<f64> {
        if matrix.iter().any(|entry| !entry.is_finite()) {
            return Err(Error::NotFinite {
                what: "a Gram matrix".into(),
                index: Vec::new(),
            });
        }
        let larger = |largest: f64, entry: &f64| largest.max(entry.abs());
        let scale = power_of_two(matrix.iter().fold(0.0, larger));
        self.scaled.clear();
        self.scaled.extend(matrix.iter().map(|entry| entry / scale));
        Ok(scale)
    }
}

/// A normal power of two near `value`, so that dividing by it is exact unless the quotient is
/// subnormal; 1 for 0.
pub(crate) fn power_of_two(value: f64) -> f64 {
    if value == 0.0 {
        return 1.0;
    }
    value.log2().floor().clamp(-1000.0, 1000.0).exp2()
}

impl Eigen {
    /// The unit eigenvector of `values[i]`.
    pub(crate) fn vector(&self, i: usize) -> &[f64] {
        let size = self.values.len();
        &self.vectors[i * size..(i + 1) * size]
    }

    /// The unit eigenvectors of the first `count` eigenvalues, one after another.
    pub(crate) fn vectors(&self, count: usize) -> &[f64] {
        &self.vectors[..count * self.values.len()]
    }

    /// How many eigenvalues of a positive semidefinite matrix differ from 0 by more than rounding
    /// noise.
    ///
    /// Its entries are accurate to `epsilon`, and its rank is known to be at most `rank`.
    pub(crate) fn nonzero(&self, rank: usize, epsilon: f64) -> usize {
        let tolerance = self.values[0].max(0.0) * epsilon * self.values.len() as f64;
        let first = self.values.iter().take(rank);
        first.filter(|&&value| value > tolerance).count()
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::linalg::dot;
    use crate::product::a_bt_serial;
    use approx::assert_abs_diff_eq;

    /// `A Aᵀ` of a random `size×rank` matrix, whose columns shrink by `ratio` from one to the next.
    fn gram(size: usize, rank: usize, ratio: f64, random: &mut ChaCha8Rng) -> Vec<f64> {
        let entry = |i: usize| ratio.powi((i % rank) as i32);
        let a: Vec<f64> = (0..size * rank)
            .map(|i| entry(i) * random.random_range(-1.0..1.0))
            .collect();
        let mut gram = vec![0.0; size * size];
        a_bt_serial((size, rank, size), &a, &a, false, &mut gram);
        gram
    }

    #[track_caller]
    fn largest_is_first_of_all(size: usize, matrix: &[f64]) {
        let mut solver = EigenSolver::new(size);
        let first = solver.solve(matrix).unwrap().values[0];
        let (value, vector) = solver.largest(matrix).unwrap();
        let norm = matrix.iter().fold(0.0, |sum, x| sum + x * x).sqrt();
        let tolerance = 16.0 * f64::EPSILON * norm;
        assert_abs_diff_eq!(value, first, epsilon = tolerance);
        assert_abs_diff_eq!(dot(vector, vector), 1.0, epsilon = 16.0 * f64::EPSILON);
        for (row, entry) in matrix.chunks_exact(size).zip(vector) {
            assert_abs_diff_eq!(dot(row, vector), value * entry, epsilon = tolerance);
        }
    }

    #[test]
    fn largest_pair_is_the_first_of_all_pairs() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        for size in [1_usize, 2, 3, 5, 10, 17, 40, 100] {
            for rank in [1, size.div_ceil(2), size, 3 * size] {
                for ratio in [1.0, 0.999_999, 0.5] {
                    largest_is_first_of_all(size, &gram(size, rank, ratio, &mut random));
                }
            }
        }
    }

    #[test]
    fn largest_pair_of_repeated_and_clustered_eigenvalues_is_found() {
        for size in [2, 10, 64] {
            for gap in [0.0, 1e-15, 1e-12, 1e-6] {
                let mut diagonal = vec![0.0; size * size];
                for i in 0..size {
                    diagonal[i * (size + 1)] = 1.0 - gap * i as f64;
                }
                largest_is_first_of_all(size, &diagonal);
                // The projection on what is orthogonal to 1, a little less in the first unit's
                // direction.
                let centred = (0..size * size).map(|i| {
                    let identity = f64::from(i % (size + 1) == 0) - 1.0 / size as f64;
                    identity - if i == 0 { gap } else { 0.0 }
                });
                largest_is_first_of_all(size, &centred.collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn largest_pair_of_indefinite_matrices_is_found() {
        let mut random = ChaCha8Rng::seed_from_u64(2);
        for size in [2, 10, 64] {
            let mut matrix = gram(size, size, 1.0, &mut random);
            for i in 0..size {
                matrix[i * (size + 1)] -= 0.4 * size as f64;
            }
            largest_is_first_of_all(size, &matrix);
            largest_is_first_of_all(size, &matrix.iter().map(|x| -x).collect::<Vec<_>>());
        }
    }

    #[test]
    fn large_dynamic_range_is_decomposed_in_order() {
        let matrix = [1e12, 1e6, 0.0, 1e6, 2.0, 0.5, 0.0, 0.5, 1e-3];
        let eigen = EigenSolver::new(3).solve(&matrix).unwrap();
        assert!(eigen.values.is_sorted_by(|a, b| a >= b));
        for (n, value) in eigen.values.iter().enumerate() {
            let vector = eigen.vector(n);
            for i in 0..3 {
                let product: f64 = (0..3).map(|j| matrix[3 * i + j] * vector[j]).sum();
                assert_abs_diff_eq!(
                    product,
                    value * vector[i],
                    epsilon = 1e12 * 16.0 * f64::EPSILON
                );
            }
        }
    }

    #[test]
    fn tiny_and_huge_matrices_are_decomposed_as_well() {
        let matrix = [2.0, 1.0, 0.5, 1.0, 3.0, -1.0, 0.5, -1.0, 1.5];
        let expected = EigenSolver::new(3).solve(&matrix).unwrap().values;
        let mut solver = EigenSolver::new(3);
        for power in [-1060, -600, -500, 600, 1000] {
            let scale = f64::from(power).exp2();
            let scaled = matrix.map(|entry| scale * entry);
            let found = solver.solve(&scaled).unwrap().values;
            let tolerance = 4.0 * f64::MIN_POSITIVE.max(1e-15 * scale);
            for (found, expected) in found.iter().zip(expected.iter()) {
                assert_abs_diff_eq!(*found, scale * expected, epsilon = tolerance);
            }
            let (largest, _) = solver.largest(&scaled).unwrap();
            assert_abs_diff_eq!(largest, scale * expected[0], epsilon = tolerance);
        }
        let mut solver = EigenSolver::new(2);
        assert_eq!(solver.solve(&[0.0; 4]).unwrap().values[..], [0.0; 2]);
        assert_eq!(solver.largest(&[0.0; 4]).unwrap().0, 0.0);
    }

    #[test]
    fn entries_whose_squares_underflow_are_decomposed() {
        for size in [3_usize, 9] {
            for exponent in [140, 152, 154, 156, 160, 170, 300, 320] {
                let tiny = 10_f64.powi(-exponent);
                let entry = |i: usize| match (i / size, i % size) {
                    (row, column) if row == column => 1.0 / (1 + row) as f64,
                    _ => tiny,
                };
                let matrix: Vec<f64> = (0..size * size).map(entry).collect();
                let values = EigenSolver::new(size).solve(&matrix).unwrap().values;
                let exact = (1..=size).map(|row| 1.0 / row as f64);
                assert!(values.iter().zip(exact).all(|(v, e)| (v - e).abs() < 1e-15));
            }
        }
    }

    #[test]
    fn nan_is_an_error() {
        assert!(EigenSolver::new(1).solve(&[f64::NAN]).is_err());
        assert!(EigenSolver::new(1).largest(&[f64::NAN]).is_err());
    }
}
