//! Eigenvalues of small symmetric matrices.

use faer::diag::DiagMut;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::evd::{ComputeEigenvectors, self_adjoint_evd, self_adjoint_evd_scratch};
use faer::{Mat, MatRef, Par};

use crate::buffer::Buffer;
use crate::error::{Error, Result};

/// Eigenvalues of a symmetric matrix, largest first, with their unit eigenvectors.
pub(crate) struct Eigen {
    pub(crate) values: Buffer<f64>,
    /// One after another, in the order of their values.
    vectors: Buffer<f64>,
}

/// Solves symmetric eigenproblems of one size. Its buffers are reused, because for small matrices their
/// allocation takes as long as the solution.
pub(crate) struct EigenSolver {
    size: usize,
    scaled: Vec<f64>,
    values: Vec<f64>,
    vectors: Mat<f64>,
    scratch: MemBuffer,
}

impl EigenSolver {
    /// A solver for `size×size` matrices.
    pub(crate) fn new(size: usize) -> EigenSolver {
        let wanted = ComputeEigenvectors::Yes;
        let scratch = self_adjoint_evd_scratch::<f64>(size, wanted, Par::Seq, Default::default());
        EigenSolver {
            size,
            scaled: Vec::with_capacity(size * size),
            values: vec![0.0; size],
            vectors: Mat::zeros(size, size),
            scratch: MemBuffer::new(scratch),
        }
    }

    /// Solves the eigenproblem of a row-major matrix.
    ///
    /// The matrix is scaled to entries around 1 by a power of two, because the algorithm does not converge where
    /// squares of its entries underflow, as they do for the curvature of a saturated sample.
    pub(crate) fn solve(&mut self, matrix: &[f64]) -> Result<Eigen> {
        let size = self.size;
        if matrix.iter().any(|entry| !entry.is_finite()) {
            return Err(Error::Eigenvalues { size });
        }
        let larger = |largest: f64, entry: &f64| largest.max(entry.abs());
        let scale = power_of_two(matrix.iter().fold(0.0, larger));
        self.scaled.clear();
        self.scaled.extend(matrix.iter().map(|entry| entry / scale));
        self_adjoint_evd(
            MatRef::from_row_major_slice(&self.scaled, size, size),
            DiagMut::from_slice_mut(&mut self.values),
            Some(self.vectors.as_mut()),
            Par::Seq,
            MemStack::new(&mut self.scratch),
            Default::default(),
        )
        .map_err(|_| Error::Eigenvalues { size })?;
        let last = size - 1;
        let entry = |i: usize| self.vectors[(i % size, last - i / size)];
        Ok(Eigen {
            values: Buffer::of((0..size).map(|i| scale * self.values[last - i])),
            vectors: Buffer::of((0..size * size).map(entry)),
        })
    }
}

/// A normal power of two near `value`, so that dividing by it is exact unless the quotient is subnormal; 1 for 0.
fn power_of_two(value: f64) -> f64 {
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
        let eigen = EigenSolver::new(3).solve(&matrix).unwrap();
        assert!(eigen.values.is_sorted_by(|a, b| a >= b));
        for (n, value) in eigen.values.iter().enumerate() {
            let vector = eigen.vector(n);
            for i in 0..3 {
                let product: f64 = (0..3).map(|j| matrix[3 * i + j] * vector[j]).sum();
                assert!((product - value * vector[i]).abs() <= 1e12 * 16.0 * f64::EPSILON);
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
            for (found, expected) in found.iter().zip(expected.iter()) {
                let tolerance = f64::MIN_POSITIVE.max(1e-15 * scale);
                assert!((found - scale * expected).abs() <= 4.0 * tolerance);
            }
        }
        assert_eq!(
            EigenSolver::new(2).solve(&[0.0; 4]).unwrap().values[..],
            [0.0; 2]
        );
    }

    #[test]
    fn nan_is_an_error() {
        assert!(EigenSolver::new(1).solve(&[f64::NAN]).is_err());
    }
}
