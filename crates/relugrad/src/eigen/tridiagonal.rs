//! The largest eigenvalue of a symmetric tridiagonal matrix that grows by a row at a time.

/// A symmetric tridiagonal matrix with entries around 1 and its largest eigenpair.
#[derive(Debug)]
pub(super) struct Tridiagonal {
    diagonal: Vec<f64>,
    /// What couples each row to the next.
    beside: Vec<f64>,
    /// The largest eigenvalue, or a bound above it since rows were added.
    largest: f64,
    /// Pivots of `x − T` from the first row down and from the last row up.
    down: Vec<f64>,
    up: Vec<f64>,
    vector: Vec<f64>,
}

impl Tridiagonal {
    /// No rows, but room for so many.
    pub(super) fn with_room(rows: usize) -> Tridiagonal {
        let room = || Vec::with_capacity(rows);
        Tridiagonal {
            diagonal: room(),
            beside: room(),
            largest: 0.0,
            down: room(),
            up: room(),
            vector: room(),
        }
    }

    /// Takes all rows away.
    pub(super) fn clear(&mut self) {
        self.diagonal.clear();
        self.beside.clear();
    }

    /// Adds a row, `beside` what couples it to the last one.
    pub(super) fn push(&mut self, beside: f64, diagonal: f64) {
        if self.diagonal.is_empty() {
            self.largest = diagonal;
        } else {
            self.beside.push(beside);
            // The largest eigenvalue of [[λ, β], [β, α]], which none of the bordered matrix
            // exceeds, and something for rounding.
            let mean = 0.5 * (self.largest + diagonal);
            let half = 0.5 * (self.largest - diagonal);
            let root = (half * half + beside * beside).sqrt();
            self.largest = mean + root + 4.0 * f64::EPSILON * (mean.abs() + root);
        }
        self.diagonal.push(diagonal);
    }

    /// The largest eigenvalue and its unit eigenvector.
    pub(super) fn solve(&mut self) -> (f64, &[f64]) {
        self.descend();
        self.find_vector();
        (self.largest, &self.vector)
    }

    /// Takes the upper bound `x` down to the largest root of `p(x) = det(x − T)` by Laguerre's
    /// iteration
    ///
    /// `x ← x − n / (s₁ + √((n−1)(n s₂ − s₁²)))`, `s₁ = p'/p`, `s₂ = −s₁'`,
    ///
    /// which from above does not pass it and converges to third order, for all roots are real.
    fn descend(&mut self) {
        let n = self.diagonal.len() as f64;
        while let Some([s1, s2]) = self.logarithmic_derivatives() {
            let root = ((n - 1.0) * (n * s2 - s1 * s1)).max(0.0).sqrt();
            let next = self.largest - n / (s1 + root);
            let settled = self.largest - next <= f64::EPSILON * self.largest.abs();
            if settled || !next.is_finite() {
                return;
            }
            self.largest = next;
        }
    }

    /// `[s₁, s₂]` at `x`, from the pivots `d_i = x − α_i − β_{i−1}²/d_{i−1}` of `p = Π d_i` and
    /// their derivatives; nothing where one of them is not positive: up to rounding `x` is not
    /// above the largest root.
    fn logarithmic_derivatives(&self) -> Option<[f64; 2]> {
        let (mut s1, mut s2) = (0.0, 0.0);
        // t = β²/d, u = d'/d and w = d''/d of the row before.
        let (mut t, mut u, mut w) = (0.0, 0.0, 0.0);
        for (i, alpha) in self.diagonal.iter().enumerate() {
            let d = self.largest - alpha - t;
            if d <= 0.0 {
                return None;
            }
            let inverse = 1.0 / d;
            (u, w) = (inverse * (1.0 + t * u), inverse * t * (w - 2.0 * u * u));
            s1 += u;
            s2 += u * u - w;
            t = self.beside.get(i).map_or(0.0, |beta| beta * beta * inverse);
        }
        Some([s1, s2])
    }

    /// The eigenvector from both sides of the row where `(x − T) z = γ e_i` has the smallest `γ`:
    /// there also its small entries are accurate (Parlett and Dhillon, *Fernando's solution to
    /// Wilkinson's problem*, 1997).
    fn find_vector(&mut self) {
        let (n, x) = (self.diagonal.len(), self.largest);
        let pivots = |to: &mut Vec<f64>, rows: &mut dyn Iterator<Item = (f64, f64)>| {
            to.clear();
            let mut before = 1.0;
            for (alpha, beta) in rows {
                let pivot = x - alpha - beta * beta / before;
                before = if pivot == 0.0 {
                    f64::MIN_POSITIVE
                } else {
                    pivot
                };
                to.push(before);
            }
        };
        let (diagonal, beside) = (&self.diagonal, &self.beside);
        let above = |i: usize| if i == 0 { 0.0 } else { beside[i - 1] };
        let below = |i: usize| if i + 1 == n { 0.0 } else { beside[i] };
        pivots(&mut self.down, &mut (0..n).map(|i| (diagonal[i], above(i))));
        pivots(
            &mut self.up,
            &mut (0..n).rev().map(|i| (diagonal[i], below(i))),
        );
        self.up.reverse();
        let (down, up) = (&self.down, &self.up);
        let gamma = |i: usize| (down[i] + up[i] - (x - diagonal[i])).abs();
        let twist = (0..n).min_by(|&i, &j| gamma(i).total_cmp(&gamma(j)));
        let twist = twist.expect("there is a row");
        let z = &mut self.vector;
        z.clear();
        z.resize(n, 1.0);
        for i in (0..twist).rev() {
            z[i] = z[i + 1] * beside[i] / down[i];
        }
        for i in twist + 1..n {
            z[i] = z[i - 1] * beside[i - 1] / up[i];
        }
        let norm = z.iter().map(|z| z * z).sum::<f64>().sqrt();
        z.iter_mut().for_each(|z| *z /= norm);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_abs_diff_eq;

    /// Eigenvalues 2 cos(iπ/(n+1)) and eigenvectors sin(ijπ/(n+1)) of the matrix with ones beside a
    /// diagonal of zeros.
    #[test]
    fn chain_has_its_known_largest_pair_at_every_length() {
        let mut chain = Tridiagonal::with_room(1);
        for n in 1..=60 {
            chain.push(1.0, 0.0);
            // Bounds of several rows are as good a start.
            if n % 7 > 4 {
                continue;
            }
            let (largest, vector) = chain.solve();
            let angle = std::f64::consts::PI / (n + 1) as f64;
            assert_abs_diff_eq!(largest, 2.0 * angle.cos(), epsilon = 4.0 * f64::EPSILON);
            let scale = (2.0 / (n + 1) as f64).sqrt();
            for (j, found) in vector.iter().enumerate() {
                let expected = scale * (angle * (j + 1) as f64).sin();
                assert!((found.abs() - expected).abs() <= 1e-12, "{n} {j}");
            }
        }
    }

    /// Rows far below the largest eigenvalue: the vector's entries fall by the ratio β/(λ − α), far
    /// below rounding.
    #[test]
    fn small_entries_of_the_vector_are_accurate() {
        let mut matrix = Tridiagonal::with_room(1);
        matrix.push(0.0, 1.0);
        for _ in 1..12 {
            matrix.push(1e-3, 0.0);
        }
        // At the far end z_{i+1}/z_i = β/λ up to β²; each entry before differs by factors 1 +
        // O(β²).
        for pair in matrix.solve().1.windows(2) {
            assert_abs_diff_eq!(pair[1] / pair[0] / 1e-3, 1.0, epsilon = 1e-5);
        }
    }

    #[test]
    fn rows_without_coupling_are_no_trouble() {
        let mut matrix = Tridiagonal::with_room(1);
        for diagonal in [1.0, 3.0, 3.0, 2.0, 0.0] {
            matrix.push(0.0, diagonal);
        }
        let (largest, z) = matrix.solve();
        assert_abs_diff_eq!(largest, 3.0, epsilon = 4.0 * f64::EPSILON);
        assert_abs_diff_eq!(z[1] * z[1] + z[2] * z[2], 1.0, epsilon = 1e-12);
    }
}
