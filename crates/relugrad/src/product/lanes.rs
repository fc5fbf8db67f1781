//! The vectors of the processor, for both number types.

use pulp::{Arch, Simd, WithSimd};

use crate::scalar::Scalar;

/// A number type with its vectors. Nearly every method compiles to one instruction where there are
/// vectors, and to plain arithmetic where there are none.
pub(crate) trait Lanes: Scalar {
    /// A vector register.
    type Vector<S: Simd>: Copy;

    /// Numbers in a vector.
    fn lanes<S: Simd>() -> usize;

    /// A vector of equal numbers.
    fn splat<S: Simd>(simd: S, value: Self) -> Self::Vector<S>;

    /// `a b + c`, rounded once where the processor can.
    fn multiply_add<S: Simd>(
        simd: S,
        a: Self::Vector<S>,
        b: Self::Vector<S>,
        c: Self::Vector<S>,
    ) -> Self::Vector<S>;

    /// `a + b`.
    fn plus<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;

    /// The sum of a vector's numbers.
    fn horizontal_sum<S: Simd>(simd: S, a: Self::Vector<S>) -> Self;

    /// The numbers of a slice no longer than a vector, and zeros.
    fn load_part<S: Simd>(simd: S, values: &[Self]) -> Self::Vector<S>;

    /// As many of a vector's first numbers as the slice has.
    fn store_part<S: Simd>(simd: S, values: &mut [Self], vector: Self::Vector<S>);

    /// All whole vectors of a slice.
    fn vectors<S: Simd>(values: &[Self]) -> &[Self::Vector<S>];

    /// All whole vectors of a slice, to be changed.
    fn vectors_mut<S: Simd>(values: &mut [Self]) -> &mut [Self::Vector<S>];
}

macro_rules! lanes {
    ($number:ty, $vector:ident, $lanes:ident, $splat:ident, $fused:ident, $add:ident, $sum:ident, $load:ident, $store:ident, $slice:ident, $slice_mut:ident) => {
        impl Lanes for $number {
            type Vector<S: Simd> = S::$vector;

            #[inline(always)]
            fn lanes<S: Simd>() -> usize {
                S::$lanes
            }

            #[inline(always)]
            fn splat<S: Simd>(simd: S, value: Self) -> S::$vector {
                simd.$splat(value)
            }

            #[inline(always)]
            fn multiply_add<S: Simd>(
                simd: S,
                a: S::$vector,
                b: S::$vector,
                c: S::$vector,
            ) -> S::$vector {
                simd.$fused(a, b, c)
            }

            #[inline(always)]
            fn plus<S: Simd>(simd: S, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$add(a, b)
            }

            #[inline(always)]
            fn horizontal_sum<S: Simd>(simd: S, a: S::$vector) -> Self {
                simd.$sum(a)
            }

            #[inline(always)]
            fn load_part<S: Simd>(simd: S, values: &[Self]) -> S::$vector {
                simd.$load(values)
            }

            #[inline(always)]
            fn store_part<S: Simd>(simd: S, values: &mut [Self], vector: S::$vector) {
                simd.$store(values, vector);
            }

            #[inline(always)]
            fn vectors<S: Simd>(values: &[Self]) -> &[S::$vector] {
                S::$slice(values).0
            }

            #[inline(always)]
            fn vectors_mut<S: Simd>(values: &mut [Self]) -> &mut [S::$vector] {
                S::$slice_mut(values).0
            }
        }
    };
}

lanes!(
    f32,
    f32s,
    F32_LANES,
    splat_f32s,
    mul_add_e_f32s,
    add_f32s,
    reduce_sum_f32s,
    partial_load_f32s,
    partial_store_f32s,
    as_simd_f32s,
    as_mut_simd_f32s
);
lanes!(
    f64,
    f64s,
    F64_LANES,
    splat_f64s,
    mul_add_e_f64s,
    add_f64s,
    reduce_sum_f64s,
    partial_load_f64s,
    partial_store_f64s,
    as_simd_f64s,
    as_mut_simd_f64s
);

#[cfg(test)]
thread_local! {
    /// What this thread's kernels are to use.
    static FORCED: std::cell::Cell<Option<Arch>> = const { std::cell::Cell::new(None) };
}

/// Runs a kernel with the best instructions of this processor.
#[inline(always)]
pub(super) fn dispatch<K: WithSimd>(kernel: K) -> K::Output {
    #[cfg(test)]
    if let Some(arch) = FORCED.get() {
        return arch.dispatch(kernel);
    }
    Arch::new().dispatch(kernel)
}

/// Calls `f` on a thread whose convolutions use each set of instructions of this processor in turn.
#[cfg(test)]
pub(super) fn on_each_path(f: impl Fn() + Sync) {
    let mut paths = vec![Arch::new(), Arch::Scalar];
    #[cfg(target_arch = "x86_64")]
    paths.extend(pulp::x86::V3::try_new().map(Arch::V3));
    for path in paths {
        std::thread::scope(|scope| {
            let run = || {
                FORCED.set(Some(path));
                let pool = rayon::ThreadPoolBuilder::new().num_threads(1);
                let pool = pool.use_current_thread().build();
                pool.expect("one thread can be started").install(&f);
            };
            scope.spawn(run).join().expect("tests of a path");
        });
    }
}

/// The most numbers in a vector of any processor.
pub(super) const MOST_LANES: usize = 16;

/// Numbers in a vector of this processor.
pub(super) fn lanes<T: Scalar>() -> usize {
    struct Single;
    impl WithSimd for Single {
        type Output = usize;

        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> usize {
            S::F32_LANES
        }
    }
    let bytes = dispatch(Single) * size_of::<f32>();
    (bytes / size_of::<T>()).max(1)
}

/// Vector registers of this processor.
pub(super) fn registers() -> usize {
    struct Count;
    impl WithSimd for Count {
        type Output = usize;

        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> usize {
            S::REGISTER_COUNT
        }
    }
    dispatch(Count)
}
