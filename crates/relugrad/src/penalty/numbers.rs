//! Numbers of the network's type, as penalties see them: in `f64`.

use std::cell::OnceCell;
use std::marker::PhantomData;

use crate::buffer::Buffer;
use crate::norm::squared_length;
use crate::scalar::{Scalar, Signature};

/// Numbers of one of the two types.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Raw<'a> {
    /// Of a network in `f32`.
    Single(&'a [f32]),
    /// Of a network in `f64`.
    Double(&'a [f64]),
}

/// Sums in one of the two types.
#[derive(Debug)]
pub(crate) enum RawMut<'a> {
    /// Of a network in `f32`.
    Single(&'a mut [f32]),
    /// Of a network in `f64`.
    Double(&'a mut [f64]),
}

impl<'a> Raw<'a> {
    /// Numbers of a network.
    pub(crate) fn of<T: Scalar>(numbers: &'a [T]) -> Raw<'a> {
        struct Slice<'a>(PhantomData<&'a ()>);
        impl<'a> Signature for Slice<'a> {
            type Takes<T: Scalar> = &'a [T];
            type Gives<T: Scalar> = Raw<'a>;
        }
        T::choose::<Slice<'a>>(numbers, Raw::Single, Raw::Double)
    }
}

impl<'a> RawMut<'a> {
    /// Sums of a network.
    pub(crate) fn of<T: Scalar>(numbers: &'a mut [T]) -> RawMut<'a> {
        struct Slice<'a>(PhantomData<&'a ()>);
        impl<'a> Signature for Slice<'a> {
            type Takes<T: Scalar> = &'a mut [T];
            type Gives<T: Scalar> = RawMut<'a>;
        }
        T::choose::<Slice<'a>>(numbers, RawMut::Single, RawMut::Double)
    }
}

/// Numbers that are widened when they are first looked at.
#[derive(Debug)]
pub(crate) struct Numbers<'a> {
    raw: Raw<'a>,
    /// They are the raw ones times this.
    factor: f64,
    wide: OnceCell<Buffer<f64>>,
}

impl<'a> Numbers<'a> {
    /// The sum of their squares, without widening them.
    pub(crate) fn squared_length(&self) -> f64 {
        match (self.factor == 1.0, self.raw) {
            (true, Raw::Single(numbers)) => squared_length(numbers),
            (true, Raw::Double(numbers)) => squared_length(numbers),
            (false, _) => squared_length(self.get()),
        }
    }

    pub(crate) fn new(raw: Raw<'a>) -> Numbers<'a> {
        Numbers::times(raw, 1.0)
    }

    pub(crate) fn times(raw: Raw<'a>, factor: f64) -> Numbers<'a> {
        Numbers {
            raw,
            factor,
            wide: OnceCell::new(),
        }
    }

    pub(crate) fn get(&self) -> &[f64] {
        if let Raw::Double(numbers) = self.raw
            && self.factor == 1.0
        {
            return numbers;
        }
        let factor = self.factor;
        self.wide.get_or_init(|| match self.raw {
            Raw::Single(numbers) => Buffer::of(numbers.iter().map(|&x| factor * f64::from(x))),
            Raw::Double(numbers) => Buffer::of(numbers.iter().map(|&x| factor * x)),
        })
    }
}

impl RawMut<'_> {
    pub(crate) fn len(&self) -> usize {
        match self {
            RawMut::Single(sums) => sums.len(),
            RawMut::Double(sums) => sums.len(),
        }
    }

    /// Adds `scale` times numbers of its own type, or of the other.
    pub(crate) fn add_numbers(&mut self, scale: f64, numbers: &Numbers) {
        match (self, numbers.raw) {
            (RawMut::Single(sums), Raw::Single(own)) if numbers.factor == 1.0 => {
                let scale = scale as f32;
                let pairs = sums.iter_mut().zip(own);
                pairs.for_each(|(sum, &x)| *sum += scale * x);
            }
            (sums, _) => sums.add(0, scale, numbers.get()),
        }
    }

    /// Adds `scale · v` at a place, rounded as the network's type rounds.
    pub(crate) fn add(&mut self, place: usize, scale: f64, v: &[f64]) {
        match self {
            RawMut::Single(sums) => {
                let (sums, scale) = (&mut sums[place..place + v.len()], scale as f32);
                let pairs = sums.iter_mut().zip(v);
                pairs.for_each(|(sum, &v)| *sum += scale * v as f32);
            }
            RawMut::Double(sums) => {
                let pairs = sums[place..place + v.len()].iter_mut().zip(v);
                pairs.for_each(|(sum, &v)| *sum += scale * v);
            }
        }
    }
}
