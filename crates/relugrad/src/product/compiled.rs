//! The products as functions that are compiled once for each number type, in this crate: generic
//! ones would be compiled anew in every crate, test and benchmark that uses a network, which takes
//! a minute or two each time.

use super::{Convolution, MaskedLhs, Rhs, SelectedSums};
use super::{dense, masked, masked_gemm};
use crate::scalar::{Scalar, Signature};

/// Declares functions of any number type that call `function` as it was compiled for the type.
macro_rules! products {
    ($($(#[$doc:meta])* fn $name:ident($($argument:ident: $kind:ty),*) = $function:path;)*) => {$(
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        pub(crate) fn $name<'a, T: Scalar>($($argument: $kind),*) {
            struct Arguments<'a>(std::marker::PhantomData<&'a ()>);
            impl<'a> Signature for Arguments<'a> {
                type Takes<T: Scalar> = ($($kind,)*);
                type Gives<T: Scalar> = ();
            }
            fn single(($($argument,)*): <Arguments<'_> as Signature>::Takes<f32>) {
                $function($($argument),*);
            }
            fn double(($($argument,)*): <Arguments<'_> as Signature>::Takes<f64>) {
                $function($($argument),*);
            }
            T::choose::<Arguments<'a>>(($($argument,)*), single, double);
        }
    )*};
}

products! {
    /// `C ← A Bᵀ`, or with `C` added; `shape` is `(k, m)`, `a: [n, k]`, `b: [m, k]`, `c: [n, m]`.
    fn a_bt(shape: (usize, usize), a: &'a [T], b: &'a [T], accumulate: bool, c: &'a mut [T]) = dense::a_bt;

    /// `C ← A B`, or with `C` added; `shape` is `(m, k)`, `a: [n, m]`, `b: [m, k]`, `c: [n, k]`.
    fn a_b(shape: (usize, usize), a: &'a [T], b: &'a [T], accumulate: bool, c: &'a mut [T]) = dense::a_b;

    /// `C ← α Aᵀ B`, or with `C` added; `shape` is `(m, k)`, `a: [n, m]`, `b: [n, k]`, `c: [m, k]`.
    fn at_b(shape: (usize, usize), alpha: T, a: &'a [T], b: &'a [T], accumulate: bool, c: &'a mut [T]) = dense::at_b;

    /// `C ← A B`, or with `C` added, on this thread; `shape` is `(m, k, n)`, `a: [m, k]`,
    /// `b: [k, n]`, `c: [m, n]`.
    fn a_b_serial(shape: (usize, usize, usize), a: &'a [T], b: &'a [T], accumulate: bool, c: &'a mut [T]) = dense::a_b_serial;

    /// `C ← Aᵀ B`, or with `C` added, on this thread; `shape` is `(m, k, n)`, `a: [m, k]`,
    /// `b: [m, n]`, `c: [k, n]`.
    fn at_b_serial(shape: (usize, usize, usize), a: &'a [T], b: &'a [T], accumulate: bool, c: &'a mut [T]) = dense::at_b_serial;

    /// `C ← A Bᵀ`, or with `C` added, on this thread; `shape` is `(m, k, n)`, `a: [m, k]`,
    /// `b: [n, k]`, `c: [m, n]`.
    fn a_bt_serial(shape: (usize, usize, usize), a: &'a [T], b: &'a [T], accumulate: bool, c: &'a mut [T]) = dense::a_bt_serial;

    /// `C ← A Aᵀ`, with `a: [n, k]`, `c: [n, n]`, for little more than half the price.
    fn gram_of_rows(k: usize, a: &'a [T], c: &'a mut [T]) = dense::gram_of_rows;

    /// `C ← L` with zeros above the diagonal and `L + Lᵀ = 2 A Aᵀ`: half of a symmetric product, of
    /// which `X L Xᵀ` made symmetric is `X A Aᵀ Xᵀ`; `a: [n, k]`, `c: [n, n]`.
    fn half_gram_of_rows(k: usize, a: &'a [T], c: &'a mut [T]) = dense::half_gram_of_rows;

    /// `C ← A B`, or with `C` added; `a: [samples, rows, m]`, `b: [m, k]`, `c: [samples, rows, k]`.
    /// Columns of `A` that are zero at a sample are skipped where that is faster, and always where
    /// they are still to be closed.
    fn rows_times(a: MaskedLhs<'a, T>, k: usize, b: Rhs<'a, T>, accumulate: bool, c: &'a mut [T]) = masked::rows_times;

    /// `C ← α Aᵀ B`, or with `C` added; `a: [samples, rows, m]`, `b: [samples, rows, k]`,
    /// `c: [m, k]`. Samples at which a column of `A` is zero are skipped where that is faster.
    fn sum_of_products(a: MaskedLhs<'a, T>, k: usize, alpha: T, b: &'a [T], accumulate: bool, c: &'a mut [T]) = masked::sum_of_products;

    /// `C ← α Aᵀ B + C` where that sum is known to be symmetric and `C` is 0;
    /// `a, b: [samples, rows, n]`, `c: [n, n]`.
    fn symmetric_sum(a: MaskedLhs<'a, T>, alpha: T, b: &'a [T], c: &'a mut [T]) = masked::symmetric_sum;

    /// `C ← M C` on this thread, with `m: [rows, rows]`, `c: [rows, k]`.
    fn mix_rows(rows: usize, k: usize, m: &'a [T], c: &'a mut [T]) = masked_gemm::mix_rows;

    /// [`SelectedSums::contract`].
    fn contract(sums: SelectedSums<'a, T>, inner: &'a mut [T], outer: &'a mut [T]) = SelectedSums::contract;

    /// [`Convolution::apply`].
    fn convolve(of: &'a Convolution, weight: &'a [T], bias: Option<&'a [T]>, input: &'a [T], out: &'a mut [T]) = Convolution::apply;

    /// [`Convolution::transpose`].
    fn convolve_back(of: &'a Convolution, rows: usize, weight: &'a [T], c: &'a [T], accumulate: bool, below: &'a mut [T]) = Convolution::transpose;

    /// [`Convolution::gradient`].
    fn convolution_gradient(of: &'a Convolution, rows: usize, c: &'a [T], t: &'a [T], scale: T, gradient: &'a mut [T]) = Convolution::gradient;
}
