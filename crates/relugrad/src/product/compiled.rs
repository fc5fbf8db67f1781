//! The products as functions of each number type, so that they are compiled once, in this crate: generic functions would be
//! compiled anew in every crate, test and benchmark that uses a network, which takes a minute or two each time.

use super::{Convolution, Left, Right, SelectedSums};
use super::{dense, sparse_rows};

/// Declares the functions of [`Products`] and implements them by generic ones.
macro_rules! products {
    ($($(#[$doc:meta])* fn $name:ident($($argument:ident: $kind:ty),*) = $function:path;)*) => {
        /// A number type with its products.
        pub trait Products: Sized {
            $($(#[$doc])* #[allow(clippy::too_many_arguments)] fn $name($($argument: $kind),*);)*
        }

        impl Products for f32 {
            $(fn $name($($argument: $kind),*) { $function($($argument),*); })*
        }

        impl Products for f64 {
            $(fn $name($($argument: $kind),*) { $function($($argument),*); })*
        }
    };
}

products! {
    /// `C ← A Bᵀ`, or with `C` added; `shape` is `(k, m)`, `a: [n, k]`, `b: [m, k]`, `c: [n, m]`.
    fn a_bt(shape: (usize, usize), a: &[Self], b: &[Self], accumulate: bool, c: &mut [Self]) = dense::a_bt;

    /// `C ← A B`, or with `C` added; `shape` is `(m, k)`, `a: [n, m]`, `b: [m, k]`, `c: [n, k]`.
    fn a_b(shape: (usize, usize), a: &[Self], b: &[Self], accumulate: bool, c: &mut [Self]) = dense::a_b;

    /// `C ← α Aᵀ B`, or with `C` added; `shape` is `(m, k)`, `a: [n, m]`, `b: [n, k]`, `c: [m, k]`.
    fn at_b(shape: (usize, usize), alpha: Self, a: &[Self], b: &[Self], accumulate: bool, c: &mut [Self]) = dense::at_b;

    /// `C ← A Aᵀ`, with `a: [n, k]`, `c: [n, n]`, for little more than half the price.
    fn gram_of_rows(k: usize, a: &[Self], c: &mut [Self]) = dense::gram_of_rows;

    /// `C ← L` with zeros above the diagonal and `L + Lᵀ = 2 A Aᵀ`: half of a symmetric product, of which `X L Xᵀ` made
    /// symmetric is `X A Aᵀ Xᵀ`; `a: [n, k]`, `c: [n, n]`.
    fn half_gram_of_rows(k: usize, a: &[Self], c: &mut [Self]) = dense::half_gram_of_rows;

    /// `C ← A B`, or with `C` added; `a: [samples, rows, m]`, `b: [m, k]`, `c: [samples, rows, k]`. Columns of `A` that are
    /// zero at a sample are skipped where that is faster, and always where they are still to be closed.
    fn rows_times(a: Left<Self>, k: usize, b: Right<Self>, accumulate: bool, c: &mut [Self]) = super::rows_times;

    /// `C ← α Aᵀ B`, or with `C` added; `a: [samples, rows, m]`, `b: [samples, rows, k]`, `c: [m, k]`. Samples at which a
    /// column of `A` is zero are skipped where that is faster.
    fn sum_of_products(a: Left<Self>, k: usize, alpha: Self, b: &[Self], accumulate: bool, c: &mut [Self]) = super::sum_of_products;

    /// `C ← α Aᵀ B + C` where that sum is known to be symmetric and `C` is 0; `a, b: [samples, rows, n]`, `c: [n, n]`.
    fn symmetric_sum(a: Left<Self>, alpha: Self, b: &[Self], c: &mut [Self]) = super::symmetric_sum;

    /// `C ← M C` on this thread, with `m: [rows, rows]`, `c: [rows, k]`.
    fn mix_rows(rows: usize, k: usize, m: &[Self], c: &mut [Self]) = sparse_rows::mix_rows;

    /// [`SelectedSums::contract`].
    fn contract(sums: SelectedSums<Self>, inner: &mut [Self], outer: &mut [Self]) = SelectedSums::contract;

    /// [`Convolution::apply`].
    fn convolve(of: &Convolution, weight: &[Self], bias: Option<&[Self]>, input: &[Self], out: &mut [Self]) = Convolution::apply;

    /// [`Convolution::transpose`].
    fn convolve_back(of: &Convolution, rows: usize, weight: &[Self], c: &[Self], accumulate: bool, below: &mut [Self]) = Convolution::transpose;

    /// [`Convolution::gradient`].
    fn convolution_gradient(of: &Convolution, rows: usize, c: &[Self], t: &[Self], scale: Self, gradient: &mut [Self]) = Convolution::gradient;
}
