//! Shapes of nodes: products without overflow, broadcasting, permutations.

use crate::error::{Error, Result, check_shape};

/// The most values of one sample that a node may have, and the most entries of all tables of places
/// of a network.
pub const MAX_WIDTH: usize = 1 << 26;

/// The product of a shape, unless it is 0 or too large.
pub(crate) fn width(node: &str, shape: &[usize]) -> Result<usize> {
    if shape.contains(&0) {
        return Err(Error::ZeroWidth { node: node.into() });
    }
    let product = shape.iter().try_fold(1usize, |p, &n| p.checked_mul(n));
    match product.filter(|&p| p <= MAX_WIDTH) {
        Some(product) => Ok(product),
        None => Err(Error::TooWide {
            node: node.into(),
            shape: shape.to_vec(),
            limit: MAX_WIDTH,
        }),
    }
}

/// For every entry of `shape`, the entry of an array of shape `from` that broadcasting puts there.
///
/// Axes are aligned at the end; those of `from` are 1 or equal.
pub(crate) fn broadcast(what: &str, from: &[usize], shape: &[usize]) -> Result<Vec<u32>> {
    let extra = shape.len().checked_sub(from.len());
    let fits = |(&f, &s): (&usize, &usize)| f == s || f == 1;
    match extra {
        Some(extra) if from.iter().zip(&shape[extra..]).all(fits) => {
            let mut strides = vec![0; shape.len()];
            let mut stride = 1;
            for axis in (0..from.len()).rev() {
                if from[axis] > 1 {
                    strides[extra + axis] = stride;
                }
                stride *= from[axis];
            }
            Ok(strided(shape, &strides))
        }
        _ => Err(check_shape(what, shape, from).expect_err("shapes that differ")),
    }
}

/// `Σ_a i_a strides_a` for every index `i` of `shape`, in row-major order.
pub(crate) fn strided(shape: &[usize], strides: &[usize]) -> Vec<u32> {
    let mut index = vec![0u32];
    for (&length, &stride) in shape.iter().zip(strides) {
        let along = |&start: &u32| (0..length).map(move |i| start + (i * stride) as u32);
        index = index.iter().flat_map(along).collect();
    }
    index
}

/// Row-major strides.
pub(crate) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

/// Whether `axes` holds each number below its length once.
pub(crate) fn is_permutation(axes: &[usize], length: usize) -> bool {
    let mut sorted = axes.to_vec();
    sorted.sort_unstable();
    sorted.into_iter().eq(0..length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcasting_aligns_the_last_axes() {
        assert_eq!(
            broadcast("s", &[2, 1], &[2, 3]).unwrap(),
            [0, 0, 0, 1, 1, 1]
        );
        assert_eq!(broadcast("s", &[3], &[2, 3]).unwrap(), [0, 1, 2, 0, 1, 2]);
        assert_eq!(broadcast("s", &[], &[2]).unwrap(), [0, 0]);
        assert!(broadcast("s", &[2], &[2, 3]).is_err());
        assert!(broadcast("s", &[1, 1, 3], &[2, 3]).is_err());
    }

    #[test]
    fn widths_do_not_overflow() {
        assert_eq!(width("n", &[2, 3]).unwrap(), 6);
        assert!(matches!(width("n", &[2, 0]), Err(Error::ZeroWidth { .. })));
        for shape in [[usize::MAX, 2], [1 << 20, 1 << 20]] {
            assert!(matches!(width("n", &shape), Err(Error::TooWide { .. })));
        }
    }
}
