//! The two floating-point types that a network can be made of.

use ndarray::NdFloat;

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// `f32` for training, `f64` for theorems. The trait is sealed: no other type implements it.
pub trait Scalar: NdFloat + Default + sealed::Sealed {
    /// The number 0.
    const ZERO: Self;
    /// The number 1.
    const ONE: Self;
    /// Distance from 1 to the next larger number.
    const EPSILON: Self;
    /// The largest `e` for which both `2^e` and `2^−e` are numbers of full accuracy.
    const EXPONENTS: f64;
    /// `"f32"` or `"f64"`.
    const NAME: &'static str;

    /// The nearest number of this type.
    fn from_f64(value: f64) -> Self;

    /// The same number in double precision.
    fn into_f64(self) -> f64;

    /// Calls that of two functions which is for this type. So what is generic outside of the engine
    /// calls code that was compiled in it, once for each type.
    #[doc(hidden)]
    fn choose<S: Signature>(
        takes: S::Takes<Self>,
        single: fn(S::Takes<f32>) -> S::Gives<f32>,
        double: fn(S::Takes<f64>) -> S::Gives<f64>,
    ) -> S::Gives<Self>;
}

/// What a function of numbers of either type takes and gives.
pub trait Signature {
    type Takes<T: Scalar>;
    type Gives<T: Scalar>;
}

impl Scalar for f32 {
    const ZERO: f32 = 0.0;
    const ONE: f32 = 1.0;
    const EPSILON: f32 = f32::EPSILON;
    const EXPONENTS: f64 = 126.0;
    const NAME: &'static str = "f32";

    fn from_f64(value: f64) -> f32 {
        value as f32
    }

    fn into_f64(self) -> f64 {
        f64::from(self)
    }

    #[inline]
    fn choose<S: Signature>(
        takes: S::Takes<Self>,
        single: fn(S::Takes<f32>) -> S::Gives<f32>,
        _: fn(S::Takes<f64>) -> S::Gives<f64>,
    ) -> S::Gives<Self> {
        single(takes)
    }
}

impl Scalar for f64 {
    const ZERO: f64 = 0.0;
    const ONE: f64 = 1.0;
    const EPSILON: f64 = f64::EPSILON;
    const EXPONENTS: f64 = 1022.0;
    const NAME: &'static str = "f64";

    fn from_f64(value: f64) -> f64 {
        value
    }

    fn into_f64(self) -> f64 {
        self
    }

    #[inline]
    fn choose<S: Signature>(
        takes: S::Takes<Self>,
        _: fn(S::Takes<f32>) -> S::Gives<f32>,
        double: fn(S::Takes<f64>) -> S::Gives<f64>,
    ) -> S::Gives<Self> {
        double(takes)
    }
}
