//! Buffers of products and of sweeps, kept by each thread from one to the next.

use super::convolution::Taps;
use super::lists::Lists;
use super::panels::Aligned;
use super::sparse_sum::Units;
use crate::scalar::Scalar;
use crate::sweep::Rows;

/// What a product needs beside its factors and its result.
#[derive(Clone, Debug, Default)]
pub struct Scratch<T> {
    pub(super) panels: Aligned<T>,
    pub(super) sums: Aligned<T>,
    pub(super) lists: Lists<T>,
    pub(super) units: Units<T>,
    pub(super) taps: Taps,
    pub(super) places: Vec<u32>,
}

/// A number type whose buffers each thread keeps.
pub trait Kept: Sized + 'static {
    /// Takes this thread's buffers if they are not in use.
    fn take() -> Option<Box<Scratch<Self>>>;

    /// Gives them back.
    fn put(scratch: Box<Scratch<Self>>);

    /// Calls `f` with the vectors that this thread keeps.
    fn kept<R>(f: impl FnOnce(&mut Vec<Vec<Self>>) -> R) -> R;

    /// Takes the rows of this thread's last sweep whose result was not kept.
    fn take_rows() -> Rows<Self>;

    /// Gives them back.
    fn put_rows(rows: Rows<Self>);
}

macro_rules! kept {
    ($number:ty, $module:ident) => {
        mod $module {
            use std::cell::{Cell, RefCell};

            use super::{Kept, Rows, Scratch};

            thread_local! {
                static PRODUCT: RefCell<Vec<Box<Scratch<$number>>>> = const { RefCell::new(Vec::new()) };
                static KEPT: RefCell<Vec<Vec<$number>>> = const { RefCell::new(Vec::new()) };
                static SWEEP: Cell<Option<Rows<$number>>> = const { Cell::new(None) };
            }

            impl Kept for $number {
                fn take() -> Option<Box<Scratch<$number>>> {
                    PRODUCT.with_borrow_mut(Vec::pop)
                }

                fn put(scratch: Box<Scratch<$number>>) {
                    PRODUCT.with_borrow_mut(|kept| kept.push(scratch));
                }

                fn kept<R>(f: impl FnOnce(&mut Vec<Vec<$number>>) -> R) -> R {
                    KEPT.with_borrow_mut(f)
                }

                fn take_rows() -> Rows<$number> {
                    SWEEP.take().unwrap_or_default()
                }

                fn put_rows(rows: Rows<$number>) {
                    SWEEP.set(Some(rows));
                }
            }
        }
    };
}

kept!(f32, single);
kept!(f64, double);

impl<T: Scalar> Scratch<T> {
    /// This thread's buffers; new ones while a product further out on this thread uses them.
    pub(super) fn take() -> Box<Scratch<T>> {
        T::take().unwrap_or_default()
    }

    /// Leaves the buffers to the next product.
    pub(super) fn put(self: Box<Self>) {
        T::put(self);
    }
}
