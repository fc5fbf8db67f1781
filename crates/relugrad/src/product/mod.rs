//! The matrix products that every sweep is made of.
//!
//! All matrices are row-major slices. Products are dense ([`dense`]), or skip the many zeros that
//! are left by gates ([`masked_gemm`], [`masked_outer`]), or select from tables if the gates' zeros
//! and ones are a factor of their own ([`four_russians`]). Which of them is taken depends on the
//! numbers alone, and every entry sums in one order, so the bits do not depend on the number of
//! threads.

#[macro_use]
mod constant;

mod active_columns;
mod compiled;
mod convolution;
mod dense;
mod dots;
mod four_russians;
mod lanes;
mod lhs;
mod masked;
mod masked_gemm;
mod masked_outer;
mod panels;
mod scratch;
mod tiles;

pub(crate) use compiled::{
    a_b, a_b_serial, a_bt, a_bt_serial, at_b, at_b_serial, contract, convolution_gradient,
    convolve, convolve_back, gram_of_rows, half_gram_of_rows, mix_rows, rows_times,
    sum_of_products, symmetric_sum,
};
pub(crate) use convolution::Convolution;
pub(crate) use four_russians::{SelectedSums, four_russians_cost, four_russians_tables};
pub(crate) use lhs::MaskedLhs;
pub(crate) use masked::pays_to_mask;
pub(crate) use panels::Rhs;

#[cfg(test)]
mod tests {
    use super::masked_gemm::{masked_gemm, masked_row};
    use super::masked_outer::masked_outer;
    use super::*;
    use crate::pattern::{LayerView, WORD};

    /// Entries that are small integers, so every sum is exact.
    pub(super) fn integers(length: usize, step: usize) -> Vec<f64> {
        (0..length).map(|i| ((i * step) % 7) as f64 - 3.0).collect()
    }

    /// Whether a column is zero at a sample, as about half of them are.
    fn is_closed(sample: usize, column: usize) -> bool {
        (sample * 31 + column * 17) % 5 < 3
    }

    /// `a: [samples, rows, columns]` with zeros in closed columns.
    fn closed(mut a: Vec<f64>, rows: usize, columns: usize) -> Vec<f64> {
        for (i, entry) in a.iter_mut().enumerate() {
            if is_closed(i / (rows * columns), i % columns) {
                *entry = 0.0;
            }
        }
        a
    }

    /// `[samples, rows, columns]` with about half of the columns zero at each sample.
    fn gated(samples: usize, rows: usize, columns: usize) -> Vec<f64> {
        closed(integers(samples * rows * columns, 3), rows, columns)
    }

    fn product(a: &[f64], b: impl Fn(usize, usize) -> f64, m: usize, k: usize) -> Vec<f64> {
        let entry = |row: &[f64], j: usize| (0..m).map(|l| row[l] * b(l, j)).sum::<f64>();
        a.chunks_exact(m)
            .flat_map(|row| (0..k).map(move |j| (row, j)))
            .map(|(row, j)| entry(row, j))
            .collect()
    }

    fn check_masked_gemm((samples, rows, m, k): (usize, usize, usize, usize)) {
        let (a, b) = (gated(samples, rows, m), integers(m * k, 5));
        let expected = product(&a, |l, j| b[l * k + j], m, k);
        let mut c = vec![1.0; samples * rows * k];
        masked_gemm(MaskedLhs::of(&a, rows, m), k, Rhs::Plain(&b), true, &mut c);
        assert!(
            c.iter().zip(&expected).all(|(c, e)| *c == e + 1.0),
            "{rows} rows of {m}"
        );
        let expected = product(&a, |l, j| b[j * m + l], m, k);
        masked_gemm(
            MaskedLhs::of(&a, rows, m),
            k,
            Rhs::Transposed(&b),
            false,
            &mut c,
        );
        assert_eq!(c, expected, "{rows} rows of {m}, transposed");
    }

    #[test]
    fn masked_products_equal_the_definition_for_every_number_of_rows() {
        (1..=13).for_each(|rows| check_masked_gemm((9, rows, 37, 71)));
    }

    #[test]
    fn masked_products_skip_the_zeros_above_a_diagonal() {
        for (rows, m) in [(1, 37), (3, 71), (5, 300), (9, 600)] {
            let (a, mut b) = (gated(5, rows, m), integers(m * m, 5));
            for l in 0..m {
                b[l * m + l + 1..(l + 1) * m].fill(0.0);
            }
            let expected = product(&a, |l, j| b[l * m + j], m, m);
            let mut c = vec![1.0; 5 * rows * m];
            let left = MaskedLhs::of(&a, rows, m);
            masked_gemm(left, m, Rhs::Lower(&b), false, &mut c);
            assert_eq!(c, expected, "{rows} rows of {m}");
            masked_gemm(left, m, Rhs::Lower(&b), true, &mut c);
            assert!(c.iter().zip(&expected).all(|(c, e)| *c == 2.0 * e));
        }
    }

    #[test]
    fn masked_products_of_several_passes_equal_the_definition() {
        (1..=13).for_each(|rows| check_masked_gemm((5, rows, 600, 71)));
    }

    #[test]
    fn masked_products_equal_the_definition_for_every_width_of_a_panel() {
        for k in 1..=40 {
            check_masked_gemm((5, 3, 37, k));
            check_masked_gemm((5, 5, 37, k));
        }
    }

    /// The bits of the units that [`gated`] leaves open.
    fn open(samples: usize, units: usize) -> Vec<u64> {
        let words = units.div_ceil(WORD);
        let mut bits = vec![0; samples * words];
        for (sample, unit) in (0..samples).flat_map(|b| (0..units).map(move |j| (b, j))) {
            let is_open = u64::from(!is_closed(sample, unit));
            bits[sample * words + unit / WORD] |= is_open << (unit % WORD);
        }
        bits
    }

    #[test]
    fn gates_close_columns_that_hold_anything() {
        for (rows, m) in [(1, 37), (4, 64), (5, 129), (10, 300)] {
            let (samples, k) = (7, 23);
            let (bits, b) = (open(samples, m), integers(m * k, 5));
            let gates = LayerView::new(m, 1, &bits, &[]);
            let mut c = vec![1.0; samples * rows * k];
            let mut check = |left, zeroed: &[f64]| {
                let expected = product(zeroed, |l, j| b[l * k + j], m, k);
                rows_times(left, k, Rhs::Plain(&b), false, &mut c);
                assert_eq!(c, expected, "{rows} rows of {m}");
            };
            let (all, zeroed) = (integers(samples * rows * m, 3), gated(samples, rows, m));
            check(
                MaskedLhs::of(&zeroed, rows, m).masked_by(Some(gates)),
                &zeroed,
            );
            check(MaskedLhs::before(gates, &all, rows), &zeroed);
            let one = &all[..rows * m];
            let same = closed(one.repeat(samples), rows, m);
            check(MaskedLhs::before(gates, one, rows), &same);
        }
    }

    #[test]
    fn sums_take_open_units_from_the_pattern() {
        for (samples, rows, m, k) in [(40, 3, 37, 71), (30, 10, 130, 65)] {
            let (a, b) = (gated(samples, rows, m), integers(samples * rows * k, 5));
            let bits = open(samples, m);
            let gates = LayerView::new(m, 1, &bits, &[]);
            let (mut found, mut told) = (vec![1.0; m * k], vec![1.0; m * k]);
            let left = MaskedLhs::of(&a, rows, m);
            sum_of_products(left, k, 2.0, &b, true, &mut found);
            sum_of_products(left.masked_by(Some(gates)), k, 2.0, &b, true, &mut told);
            assert_eq!(found, told);
        }
    }

    #[test]
    fn a_single_row_equals_the_definition() {
        let (m, k) = (37, 71);
        let (a, b) = (gated(1, 1, m), integers(m * k, 5));
        let mut c = vec![1.0; k];
        masked_row(&a, Rhs::Plain(&b), true, &mut c);
        let expected = product(&a, |l, j| b[l * k + j], m, k);
        assert!(c.iter().zip(&expected).all(|(c, e)| *c == e + 1.0));
        masked_row(&a, Rhs::Transposed(&b), false, &mut c);
        assert_eq!(c, product(&a, |l, j| b[j * m + l], m, k));
    }

    #[test]
    fn masked_sums_equal_the_definition() {
        for (samples, rows, m, k) in [
            (1, 1, 2, 3),
            (40, 3, 37, 71),
            (300, 10, 5, 130),
            (7, 5, 600, 71),
        ] {
            let (a, b) = (gated(samples, rows, m), integers(samples * rows * k, 5));
            let mut c = vec![1.0; m * k];
            masked_outer(MaskedLhs::of(&a, rows, m), k, 2.0, &b, false, &mut c);
            let entry = |i: usize, j: usize| {
                (0..samples * rows)
                    .map(|l| a[l * m + i] * b[l * k + j])
                    .sum::<f64>()
            };
            assert!((0..m * k).all(|x| c[x] == 1.0 + 2.0 * entry(x / k, x % k)));
        }
    }

    #[test]
    fn symmetric_sums_are_whole() {
        for (rows, n) in [(3, 70), (5, 300)] {
            for a in [gated(20, rows, n), integers(20 * rows * n, 3)] {
                let mut c = vec![0.0; n * n];
                symmetric_sum(MaskedLhs::of(&a, rows, n), 0.5, &a, &mut c);
                let entry = |i: usize, j: usize| {
                    (0..20 * rows)
                        .map(|l| a[l * n + i] * a[l * n + j])
                        .sum::<f64>()
                };
                assert!((0..n * n).all(|x| c[x] == 0.5 * entry(x / n, x % n)));
            }
        }
    }
}
