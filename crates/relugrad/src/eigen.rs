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
pub(crate) fn symmetric_eigen(matrix: &[f64], size: usize) -> Result<Eigen> {
    let failed = Error::Eigenvalues { size };
    if matrix.iter().any(|entry| !entry.is_finite()) {
        return Err(failed);
    }
    let matrix = MatRef::from_row_major_slice(matrix, size, size);
    let solution = matrix.self_adjoint_eigen(Side::Lower).map_err(|_| failed)?;
    let (values, vectors) = (solution.S().column_vector(), solution.U());
    let order = (0..size).rev();
    Ok(Eigen {
        values: order.clone().map(|i| values[i]).collect(),
        vectors: order
            .map(|i| (0..size).map(|j| vectors[(j, i)]).collect())
            .collect(),
    })
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
    fn nan_is_an_error() {
        assert!(symmetric_eigen(&[f64::NAN], 1).is_err());
    }
}
