//! Buffers that each thread keeps from one use to the next, so that a training step allocates nothing once it is warm.

use std::ops::{Deref, DerefMut};

use crate::scalar::Scalar;

/// A vector whose memory goes back to its thread when it is dropped.
#[derive(Debug)]
pub struct Buffer<T: Scalar>(Vec<T>);

impl<T: Scalar> Buffer<T> {
    /// An empty one with room for so many numbers.
    pub(crate) fn with_room(length: usize) -> Buffer<T> {
        let mut buffer = T::kept(|kept| take(kept, length));
        buffer.clear();
        buffer.reserve(length);
        Buffer(buffer)
    }

    /// So many numbers, whichever they are: all will be written.
    pub(crate) fn uncleared(length: usize) -> Buffer<T> {
        let mut buffer = T::kept(|kept| take(kept, length));
        buffer.resize(length, T::ZERO);
        Buffer(buffer)
    }

    /// So many zeros.
    pub(crate) fn zeros(length: usize) -> Buffer<T> {
        let mut buffer = Buffer::with_room(length);
        buffer.resize(length, T::ZERO);
        buffer
    }

    /// The numbers of an iterator.
    pub(crate) fn of(numbers: impl ExactSizeIterator<Item = T>) -> Buffer<T> {
        let mut buffer = Buffer::with_room(numbers.len());
        buffer.extend(numbers);
        buffer
    }
}

/// The smallest of the kept ones with enough room, else the largest.
fn take<T>(kept: &mut Vec<Vec<T>>, length: usize) -> Vec<T> {
    let rank = |i: &usize| {
        let room = kept[*i].capacity();
        if room >= length {
            (0, room)
        } else {
            (1, usize::MAX - room)
        }
    };
    match (0..kept.len()).min_by_key(rank) {
        Some(i) => kept.swap_remove(i),
        None => Vec::new(),
    }
}

impl<T: Scalar> Deref for Buffer<T> {
    type Target = Vec<T>;

    fn deref(&self) -> &Vec<T> {
        &self.0
    }
}

impl<T: Scalar> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut Vec<T> {
        &mut self.0
    }
}

impl<T: Scalar> Drop for Buffer<T> {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.0);
        T::kept(|kept| kept.push(buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_and_the_smallest_that_suffices() {
        let (small, large) = (Buffer::<f32>::zeros(10), Buffer::<f32>::zeros(1000));
        drop((small, large));
        let (large, small) = (Buffer::<f32>::zeros(900), Buffer::<f32>::zeros(10));
        assert!(large.capacity() >= 900 && small.capacity() >= 10);
        let place = large.as_ptr();
        drop(large);
        assert_eq!(
            Buffer::<f32>::of((0..800).map(|i| i as f32)).as_ptr(),
            place
        );
        assert!(Buffer::<f32>::zeros(3).iter().all(|&entry| entry == 0.0));
    }
}
