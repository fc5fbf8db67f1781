//! Eigenvalues of small symmetric matrices.

use faer::{MatRef, Side};

use crate::error::{Error, Result};

/// Eigenvalues of a symmetric matrix, largest first, with their unit eigenvectors.
pub(crate) struct Eigen {
    pub(crate) values: Vec<f64>,
    /// `vectors[i]` belongs to `values[i]`.
    pub(crate) vectors: Vec<Vec<f64>>,
}

/// Solves the symmetric eigenproblem of a row-major `size×size` matrix.
///
/// The matrix is scaled to entries around 1 by a power of two, because the solver does not converge where squares of
/// its entries underflow, as they do for the curvature of a saturated sample.
pub(crate) fn symmetric_eigen(matrix: &[f64], size: usize) -> Result<Eigen> {
    let failed = Error::Eigenvalues { size };
    let largest = matrix
        .iter()
        .fold(0.0, |largest: f64, entry| largest.max(entry.abs()));
    if matrix.iter().any(|entry| !entry.is_finite()) {
        return Err(failed);
    }
    let scale = power_of_two(largest);
    let scaled: Vec<f64> = matrix.iter().map(|entry| entry / scale).collect();
    let matrix = MatRef::from_row_major_slice(&scaled, size, size);
    let solution = matrix.self_adjoint_eigen(Side::Lower).map_err(|_| failed)?;
    let (values, vectors) = (solution.S().column_vector(), solution.U());
    let order = (0..size).rev();
    Ok(Eigen {
        values: order.clone().map(|i| scale * values[i]).collect(),
        vectors: order
            .map(|i| (0..size).map(|j| vectors[(j, i)]).collect())
            .collect(),
    })
}

/// A normal power of two near `value`, so that dividing by it is exact unless the quotient is subnormal; 1 for 0.
fn power_of_two(value: f64) -> f64 {
    if value == 0.0 {
        return 1.0;
    }
    value.log2().floor().clamp(-1000.0, 1000.0).exp2()
}

impl Eigen {
    /// How many eigenvalues of a positive semidefinite matrix differ from 0 by more than rounding noise.
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
    use super::*;

    #[test]
    fn large_dynamic_range_is_decomposed_in_order() {
        let matrix = [1e12, 1e6, 0.0, 1e6, 2.0, 0.5, 0.0, 0.5, 1e-3];
        let eigen = symmetric_eigen(&matrix, 3).unwrap();
        assert!(eigen.values.is_sorted_by(|a, b| a >= b));
        for (value, vector) in eigen.values.iter().zip(&eigen.vectors) {
            for i in 0..3 {
                let product: f64 = (0..3).map(|j| matrix[3 * i + j] * vector[j]).sum();
                assert!((product - value * vector[i]).abs() <= 1e12 * 16.0 * f64::EPSILON);
            }
        }
    }

    #[test]
    fn tiny_and_huge_matrices_are_decomposed_as_well() {
        let matrix = [2.0, 1.0, 0.5, 1.0, 3.0, -1.0, 0.5, -1.0, 1.5];
        let expected = symmetric_eigen(&matrix, 3).unwrap().values;
        for power in [-1060, -600, -500, 600, 1000] {
            let scale = f64::from(power).exp2();
            let scaled = matrix.map(|entry| scale * entry);
            let found = symmetric_eigen(&scaled, 3).unwrap().values;
            for (found, expected) in found.iter().zip(&expected) {
                let tolerance = f64::MIN_POSITIVE.max(1e-15 * scale);
                assert!((found - scale * expected).abs() <= 4.0 * tolerance);
            }
        }
        assert_eq!(symmetric_eigen(&[0.0; 4], 2).unwrap().values, [0.0; 2]);
    }

    #[test]
    fn nan_is_an_error() {
        assert!(symmetric_eigen(&[f64::NAN], 1).is_err());
    }
}
