//! Memory that each thread keeps from one use to the next, so that a training step allocates
//! nothing once it is warm.

use std::any::Any;
use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

use crate::scalar::Scalar;

thread_local! {
    /// A vector of each type of what is kept.
    static KEPT: RefCell<Vec<Box<dyn Any>>> = const { RefCell::new(Vec::new()) };
}

/// Calls `f` with what this thread keeps of a type.
fn kept<K: 'static, R>(f: impl FnOnce(&mut Vec<K>) -> R) -> R {
    KEPT.with_borrow_mut(|all| {
        let place = all.iter().position(|kept| kept.is::<Vec<K>>());
        let place = place.unwrap_or_else(|| {
            all.push(Box::new(Vec::<K>::new()));
            all.len() - 1
        });
        f(all[place].downcast_mut().expect("it was found by its type"))
    })
}

/// Something that goes back to its thread when it is dropped.
#[derive(Debug)]
pub(crate) struct Kept<K: 'static>(Option<Box<K>>);

impl<K: 'static> Kept<K> {
    /// What this thread kept last, if it is still right; otherwise a new one.
    pub(crate) fn or_new(is_right: impl Fn(&K) -> bool, new: impl FnOnce() -> K) -> Kept<K> {
        let last = kept(Vec::<Box<K>>::pop).filter(|last| is_right(last));
        Kept(Some(last.unwrap_or_else(|| Box::new(new()))))
    }

    /// What this thread kept last, whatever it holds; otherwise a new one.
    pub(crate) fn take() -> Kept<K>
    where
        K: Default,
    {
        Kept::or_new(|_| true, K::default)
    }
}

impl<K: 'static> Deref for Kept<K> {
    type Target = K;

    fn deref(&self) -> &K {
        self.0.as_ref().expect("it is there until it is dropped")
    }
}

impl<K: 'static> DerefMut for Kept<K> {
    fn deref_mut(&mut self) -> &mut K {
        self.0.as_mut().expect("it is there until it is dropped")
    }
}

impl<K: 'static> Drop for Kept<K> {
    fn drop(&mut self) {
        kept(|kept| kept.extend(self.0.take()));
    }
}

/// A vector whose memory goes back to its thread when it is dropped.
#[derive(Debug)]
pub struct Buffer<T: Scalar>(Vec<T>);

impl<T: Scalar> Buffer<T> {
    /// An empty buffer with room for `length` entries.
    pub(crate) fn with_room(length: usize) -> Buffer<T> {
        let mut buffer = kept(|kept| take(kept, length));
        buffer.clear();
        buffer.reserve(length);
        Buffer(buffer)
    }

    /// A buffer of `length` entries that hold anything; the caller overwrites all of them.
    pub(crate) fn uncleared(length: usize) -> Buffer<T> {
        let mut buffer = kept(|kept| take(kept, length));
        buffer.resize(length, T::ZERO);
        Buffer(buffer)
    }

    /// A buffer of `length` zeros.
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
        kept(|kept| kept.push(buffer));
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
