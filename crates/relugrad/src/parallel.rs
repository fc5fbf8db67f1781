//! Work split over threads in pieces that do not depend on how many threads there are.
//!
//! Every piece writes its own part of the result and sums in its own fixed order, so equal inputs
//! give equal bits for any number of threads.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use crate::scalar::Scalar;
use crate::tuning::SERIAL_BELOW;

/// Asked in the midst of long work, from any thread, whether to go on.
///
/// Work that is told not to ends at its next question: with
/// [`Error::Stopped`](crate::Error::Stopped), or with what is finished where its documentation says
/// so. The question must be cheap; a flag that someone else sets is enough.
pub type GoOn<'a> = &'a (dyn Fn() -> bool + Sync);

/// Whether `operations` scalar operations are worth more than one thread.
pub(crate) fn should_parallelize(operations: usize) -> bool {
    operations >= SERIAL_BELOW && rayon::current_num_threads() > 1
}

/// How many of `items` a thread takes at least: all of them if the `operations` of all together are
/// not worth more than one thread.
pub(crate) fn least_together(operations: usize, items: usize) -> usize {
    if should_parallelize(operations) {
        1
    } else {
        items
    }
}

/// Runs `f`, whose parallel parts take `operations` scalar operations together, on a thread of the
/// pool if that is worthwhile: from outside each part would have to wake a thread and wait for it.
pub(crate) fn on_pool<R: Send>(operations: usize, f: impl FnOnce() -> R + Send) -> R {
    if rayon::current_thread_index().is_none() && should_parallelize(operations) {
        rayon::scope(|_| f())
    } else {
        f()
    }
}

/// Calls `f(i, piece)` for the `i`-th piece of `length` entries of `data`; the last may be shorter.
///
/// `operations` estimates the scalar operations of all calls together.
pub(crate) fn for_each_chunk<T: Send>(
    data: &mut [T],
    length: usize,
    operations: usize,
    f: impl Fn(usize, &mut [T]) + Sync + Send,
) {
    // One function for all `f`, so that sharing out is compiled once.
    share_out(data, length, operations, &f);
}

fn share_out<T: Send>(
    data: &mut [T],
    length: usize,
    operations: usize,
    f: &(dyn Fn(usize, &mut [T]) + Sync),
) {
    if should_parallelize(operations) {
        data.par_chunks_mut(length)
            .enumerate()
            .for_each(|(i, piece)| f(i, piece));
    } else {
        for (i, piece) in data.chunks_mut(length).enumerate() {
            f(i, piece);
        }
    }
}

/// Calls `f` for every `length` entries of `data`; the last may be fewer.
pub(crate) fn for_each_piece<T: Sync>(data: &[T], length: usize, f: impl Fn(&[T]) + Sync + Send) {
    if should_parallelize(data.len()) {
        data.par_chunks(length).for_each(f);
    } else {
        data.chunks(length).for_each(f);
    }
}

/// Entries that a thread looks at at a time.
const PIECE: usize = 1 << 16;

/// Whether all numbers are finite.
pub(crate) fn all_finite<T: Scalar>(values: &[T]) -> bool {
    let finite = AtomicBool::new(true);
    for_each_piece(values, PIECE, |part| {
        // Without branches: nearly always all are finite.
        if !part.iter().fold(true, |all, v| all & v.is_finite()) {
            finite.store(false, Ordering::Relaxed);
        }
    });
    finite.into_inner()
}

/// Cuts `0..total` into ranges of `length`; the last may be shorter.
pub(crate) fn blocks(total: usize, length: usize) -> impl Iterator<Item = Range<usize>> {
    (0..total)
        .step_by(length)
        .map(move |start| start..(start + length).min(total))
}

/// Into how many pieces work on `items` independent items is cut, for those whose bits do not
/// depend on it.
pub(crate) fn pieces(items: usize) -> usize {
    (2 * rayon::current_num_threads()).clamp(1, items.max(1))
}
