//! What the names of a graph stand for while it is read.

use relugrad::NodeId;

use super::tensor::Tensor;

/// The value of a name.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Constant(Tensor),
    Node(Activation),
}

/// A value that depends on the input.
#[derive(Clone, Debug)]
pub(super) struct Activation {
    pub(super) id: NodeId,
    /// The dimensions in the file, with a batch of one. Those of the node are without a leading 1.
    pub(super) dims: Vec<usize>,
}

/// The shape of a node for dimensions in the file: without the leading 1, which is the batch.
pub(super) fn sample_shape(dims: &[usize]) -> &[usize] {
    match dims {
        [1, rest @ ..] if !rest.is_empty() => rest,
        _ => dims,
    }
}

/// The dimensions that broadcasting gives, or `None` if they do not go together.
pub(super) fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at = |dims: &[usize], axis: usize| {
        let missing = rank - dims.len();
        if axis < missing {
            1
        } else {
            dims[axis - missing]
        }
    };
    let dim = |axis: usize| match (at(a, axis), at(b, axis)) {
        (a, b) if a == b => Some(a),
        (1, n) | (n, 1) => Some(n),
        _ => None,
    };
    (0..rank).map(dim).collect()
}

/// For every entry of `dims`, the entry of an array of dimensions `from` that broadcasting puts there.
pub(super) fn broadcast_places(from: &[usize], dims: &[usize]) -> Vec<usize> {
    let missing = dims.len() - from.len();
    let mut places = vec![0];
    let mut strides = vec![0; dims.len()];
    let mut stride = 1;
    for axis in (0..from.len()).rev() {
        strides[missing + axis] = if from[axis] == 1 { 0 } else { stride };
        stride *= from[axis];
    }
    for (&n, &stride) in dims.iter().zip(&strides) {
        let along = |&start: &usize| (0..n).map(move |i| start + i * stride);
        places = places.iter().flat_map(along).collect();
    }
    places
}

/// For every entry of the transposed array, its place in the array of dimensions `dims`.
pub(super) fn transposed_places(dims: &[usize], order: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; dims.len()];
    for axis in (1..dims.len()).rev() {
        strides[axis - 1] = strides[axis] * dims[axis];
    }
    let mut places = vec![0];
    for &axis in order {
        let (n, stride) = (dims[axis], strides[axis]);
        let along = |&start: &usize| (0..n).map(move |i| start + i * stride);
        places = places.iter().flat_map(along).collect();
    }
    places
}

/// For every entry of an array whose `axis` has been replaced by the entries `taken` of it, its old place.
pub(super) fn taken_places(dims: &[usize], axis: usize, taken: &[usize]) -> Vec<usize> {
    let inner: usize = dims[axis + 1..].iter().product();
    let outer: usize = dims[..axis].iter().product();
    let rows = (0..outer).flat_map(|o| taken.iter().map(move |t| (o, t)));
    rows.flat_map(|(o, t)| {
        let start = (o * dims[axis] + t) * inner;
        start..start + inner
    })
    .collect()
}

/// An axis that may count from the end.
pub(super) fn axis(axis: i64, rank: usize) -> Option<usize> {
    let axis = if axis < 0 {
        axis.checked_add(rank as i64)?
    } else {
        axis
    };
    usize::try_from(axis).ok().filter(|&axis| axis < rank)
}

/// The entries `start, start + step, …` before `end` of an axis of length `n`, as ONNX's Slice means them.
pub(super) fn slice_range(n: usize, start: i64, end: i64, step: i64) -> Vec<usize> {
    let n = n as i64;
    let from_end = |i: i64| if i < 0 { i.saturating_add(n) } else { i };
    let (start, end) = (from_end(start), from_end(end));
    let (mut i, end) = if step > 0 {
        (start.clamp(0, n), end.clamp(0, n))
    } else {
        (start.clamp(0, n - 1), end.clamp(-1, n - 1))
    };
    let mut taken = Vec::new();
    while n > 0 && (step > 0 && i < end || step < 0 && i > end) {
        taken.push(i as usize);
        i = i.saturating_add(step);
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_count_from_both_ends() {
        assert_eq!(slice_range(5, 1, i64::MAX, 2), [1, 3]);
        assert_eq!(slice_range(5, -1, i64::MIN, -2), [4, 2, 0]);
        assert_eq!(slice_range(5, -3, -1, 1), [2, 3]);
        assert!(slice_range(5, 4, 2, 1).is_empty());
    }

    #[test]
    fn broadcasting_follows_the_last_axes() {
        assert_eq!(broadcast(&[2, 1, 3], &[4, 1]), Some(vec![2, 4, 3]));
        assert_eq!(broadcast(&[2], &[3]), None);
        assert_eq!(
            broadcast_places(&[2, 1], &[2, 2, 2]),
            [0, 0, 1, 1, 0, 0, 1, 1]
        );
        assert_eq!(transposed_places(&[2, 3], &[1, 0]), [0, 3, 1, 4, 2, 5]);
        assert_eq!(taken_places(&[2, 3], 1, &[2, 0]), [2, 0, 5, 3]);
    }
}
