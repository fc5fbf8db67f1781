//! The affine operations, a file each: forward map, linear part, transpose, parameter gradient.

mod add;
mod concat;
mod conv2d;
mod dense;
mod elementwise;
mod gather;
mod mean;

pub(crate) use add::{Add, Reshape, add_or_copy};
pub(crate) use concat::Concat;
pub(crate) use conv2d::Conv2d;
pub(crate) use dense::Dense;
pub(crate) use elementwise::{Coefficient, Elementwise, Normalization, Source};
pub(crate) use gather::{Gather, NONE};
pub(crate) use mean::Mean;
