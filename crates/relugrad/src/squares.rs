//! Sums of squares that neither overflow nor underflow as long as their root does not.

/// `Σ x²` of numbers of any size: the very small and the very large ones are scaled by powers of
/// two before they are squared (Blue 1978, *A portable Fortran program to find the Euclidean norm
/// of a vector*).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Squares {
    small: f64,
    middle: f64,
    large: f64,
}

const SMALL: f64 = power_of_two(-480);
const LARGE: f64 = power_of_two(480);
const UP: f64 = power_of_two(600);
const DOWN: f64 = power_of_two(-600);

const fn power_of_two(exponent: i64) -> f64 {
    f64::from_bits(((1023 + exponent) as u64) << 52)
}

impl Squares {
    pub(crate) fn of(numbers: impl Iterator<Item = f64>) -> Squares {
        let mut squares = Squares::default();
        numbers.for_each(|x| squares.add(x));
        squares
    }

    pub(crate) fn add(&mut self, x: f64) {
        let size = x.abs();
        if size > LARGE {
            self.large += (x * DOWN) * (x * DOWN);
        } else if size < SMALL {
            self.small += (x * UP) * (x * UP);
        } else {
            self.middle += x * x;
        }
    }

    /// The root of the sum.
    pub(crate) fn root(self) -> f64 {
        if self.large > 0.0 {
            (self.large + self.middle * DOWN * DOWN).sqrt() * UP
        } else if self.middle == 0.0 {
            self.small.sqrt() * DOWN
        } else {
            (self.middle + self.small * DOWN * DOWN).sqrt()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_of_sums_of_any_size() {
        let root = |numbers: [f64; 2]| Squares::of(numbers.into_iter()).root();
        for exponent in [-1060, -700, -481, -300, 0, 300, 479, 600, 1000] {
            let unit = f64::from(exponent).exp2();
            assert_eq!(root([3.0 * unit, -4.0 * unit]), 5.0 * unit, "{exponent}");
        }
        assert_eq!(root([0.0, 0.0]), 0.0);
        assert_eq!(root([1e-200, 1.0]), 1.0);
        assert_eq!(root([1e200, 1.0]), 1e200);
        assert_eq!(root([f64::INFINITY, 1.0]), f64::INFINITY);
        assert!(root([f64::NAN, 1.0]).is_nan());
    }
}
