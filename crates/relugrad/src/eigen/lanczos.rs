//! The largest eigenvalue of a dense symmetric matrix and its eigenvector.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::tridiagonal::Tridiagonal;
use crate::linalg::{add, dot};

/// Lanczos iteration with full reorthogonalisation (Golub and Van Loan, *Matrix Computations*,
/// section 10.3) for matrices of one size. It takes a product with the matrix per step, and far
/// fewer steps than rows where the matrix is large.
#[derive(Debug)]
pub(super) struct Lanczos {
    /// A random unit vector: how small its part along the wanted eigenvector is does not depend on
    /// the matrix.
    start: Vec<f64>,
    /// Orthonormal, one after another.
    basis: Vec<f64>,
    next: Vec<f64>,
    /// The matrix in that basis.
    projected: Tridiagonal,
    vector: Vec<f64>,
}

impl Lanczos {
    /// For `size×size` matrices, with room for as many steps as any of them can take.
    pub(super) fn new(size: usize) -> Lanczos {
        let mut random = ChaCha8Rng::seed_from_u64(0);
        let mut start: Vec<f64> = (0..size).map(|_| random.random_range(-1.0..1.0)).collect();
        normalise(&mut start);
        Lanczos {
            start,
            basis: Vec::with_capacity(size * (size + 1)),
            next: Vec::with_capacity(size),
            projected: Tridiagonal::with_room(size),
            vector: Vec::with_capacity(size),
        }
    }

    /// The largest eigenvalue of a symmetric matrix with entries up to about 1, and its unit
    /// eigenvector: with them `‖A u − λ u‖` is at most a small multiple of rounding.
    pub(super) fn solve(&mut self, matrix: &[f64]) -> (f64, &[f64]) {
        let size = self.start.len();
        self.basis.clear();
        self.basis.extend_from_slice(&self.start);
        self.projected.clear();
        let (mut step, mut beside) = (0, 0.0);
        let (value, weights) = loop {
            beside = self.step(matrix, beside);
            step += 1;
            let last = step == size || beside <= f64::EPSILON;
            // A solution takes about as long as a step.
            if last || step % 4 == 0 {
                let (value, weights) = self.projected.solve();
                let residual = beside * weights[step - 1].abs();
                if last || residual <= f64::EPSILON * value.abs().max(1.0) {
                    break (value, weights);
                }
            }
        };
        self.vector.clear();
        self.vector.resize(size, 0.0);
        for (q, &weight) in self.basis.chunks_exact(size).zip(weights) {
            add(&mut self.vector, weight, q);
        }
        normalise(&mut self.vector);
        (value, &self.vector)
    }

    /// Extends the basis by what the matrix makes of its last vector, coupled to the one before by
    /// `beside`, and returns how that last one couples to the new one.
    fn step(&mut self, matrix: &[f64], beside: f64) -> f64 {
        let size = self.start.len();
        let last = &self.basis[self.basis.len() - size..];
        self.next.clear();
        self.next.resize(size, 0.0);
        for (row, &entry) in matrix.chunks_exact(size).zip(last) {
            add(&mut self.next, entry, row);
        }
        let diagonal = dot(last, &self.next);
        self.projected.push(beside, diagonal);
        // Twice is enough (Parlett, *The Symmetric Eigenvalue Problem*, section 6.9): once along
        // the two vectors where the product has parts, once along all of them.
        add(&mut self.next, -diagonal, last);
        if let Some(before) = self.basis.rchunks_exact(size).nth(1) {
            add(&mut self.next, -beside, before);
        }
        for q in self.basis.chunks_exact(size) {
            let part = dot(q, &self.next);
            add(&mut self.next, -part, q);
        }
        let beside = normalise(&mut self.next);
        self.basis.extend_from_slice(&self.next);
        beside
    }
}

/// Makes it a unit vector unless it is 0, and returns the norm it had.
fn normalise(vector: &mut [f64]) -> f64 {
    let norm = dot(vector, vector).sqrt();
    if norm > 0.0 {
        vector.iter_mut().for_each(|entry| *entry /= norm);
    }
    norm
}
