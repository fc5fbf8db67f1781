//! What the names of a graph stand for while it is read.

use relugrad::NodeId;

use super::tensor::Tensor;

/// The value of a name.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Constant(Tensor),
    Node(Activation),
}

impl Value {
    /// The dimensions in the file.
    pub(super) fn dims(&self) -> &[usize] {
        match self {
            Value::Constant(tensor) => &tensor.dims,
            Value::Node(activation) => &activation.dims,
        }
    }
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

/// For every entry of `dims`, the entry of an array of dimensions `from` that broadcasting puts
/// there.
pub(super) fn broadcast_places(from: &[usize], dims: &[usize]) -> Vec<u32> {
    let missing = dims.len() - from.len();
    let mut strides = vec![0; dims.len()];
    let mut stride = 1;
    for axis in (0..from.len()).rev() {
        strides[missing + axis] = if from[axis] == 1 { 0 } else { stride };
        stride *= from[axis];
    }
    strided_places(dims.iter().copied().zip(strides))
}

/// For every entry of the transposed array, its place in the array of dimensions `dims`.
pub(super) fn transposed_places(dims: &[usize], order: &[usize]) -> Vec<u32> {
    let strides = strides(dims);
    strided_places(order.iter().map(|&axis| (dims[axis], strides[axis])))
}

/// The steps from one entry to the next along each axis.
pub(super) fn strides(dims: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; dims.len()];
    for axis in (1..dims.len()).rev() {
        strides[axis - 1] = strides[axis] * dims[axis];
    }
    strides
}

/// The places of an array whose axes have these lengths and strides.
fn strided_places(axes: impl Iterator<Item = (usize, usize)> + Clone) -> Vec<u32> {
    if axes.clone().any(|(n, _)| n == 0) {
        return Vec::new();
    }
    let mut places = vec![0];
    for (n, stride) in axes.filter(|&(n, _)| n > 1) {
        let along = |&start: &u32| (0..n).map(move |i| start + (i * stride) as u32);
        places = places.iter().flat_map(along).collect();
    }
    places
}

/// For every entry of an array whose `axis` has been replaced by the entries `taken` of it, its old
/// place.
pub(super) fn taken_places(dims: &[usize], axis: usize, taken: &[usize]) -> Vec<u32> {
    let inner: usize = dims[axis + 1..].iter().product();
    let outer: usize = dims[..axis].iter().product();
    let rows = (0..outer).flat_map(|o| taken.iter().map(move |t| (o, t)));
    rows.flat_map(|(o, t)| {
        let start = ((o * dims[axis] + t) * inner) as u32;
        start..start + inner as u32
    })
    .collect()
}

/// The places of an array whose entry `(i, j, …)` is at the sum of what its axes say at `i`, `j`, …,
/// or nowhere if one of them says so.
pub(super) fn summed_places(axes: &[Vec<Option<usize>>]) -> Vec<Option<usize>> {
    let mut places = vec![Some(0)];
    for axis in axes {
        let along = |&start: &Option<usize>| axis.iter().map(move |at| Some(start? + (*at)?));
        places = places.iter().flat_map(along).collect();
    }
    places
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

/// The entries `start, start + step, …` before `end` of an axis of length `n`, as ONNX's Slice
/// means them.
pub(super) fn slice_range(n: usize, start: i64, end: i64, step: i64) -> Vec<usize> {
    if n == 0 {
        return Vec::new();
    }
    let n = n as i64;
    let from_end = |i: i64| if i < 0 { i.saturating_add(n) } else { i };
    let (start, end) = (from_end(start), from_end(end));
    let (mut i, end) = if step > 0 {
        (start.clamp(0, n), end.clamp(0, n))
    } else {
        (start.clamp(0, n - 1), end.clamp(-1, n - 1))
    };
    let mut taken = Vec::new();
    while step > 0 && i < end || step < 0 && i > end {
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
        assert_eq!(slice_range(5, i64::MIN, i64::MAX, i64::MAX), [0]);
        assert_eq!(slice_range(5, i64::MAX, i64::MIN, i64::MIN), [4]);
        assert!(slice_range(5, 4, 2, 1).is_empty());
        for step in [-2, 3] {
            assert!(slice_range(0, 0, i64::MAX, step).is_empty());
        }
    }

    #[test]
    fn broadcasting_follows_the_last_axes() {
        assert_eq!(broadcast(&[2, 1, 3], &[4, 1]), Some(vec![2, 4, 3]));
        assert_eq!(broadcast(&[2], &[3]), None);
        assert_eq!(broadcast(&[1], &[0, 2]), Some(vec![0, 2]));
        assert!(broadcast_places(&[1], &[1 << 60, 0]).is_empty());
        assert_eq!(
            broadcast_places(&[2, 1], &[2, 2, 2]),
            [0, 0, 1, 1, 0, 0, 1, 1]
        );
        assert_eq!(transposed_places(&[2, 3], &[1, 0]), [0, 3, 1, 4, 2, 5]);
        assert_eq!(taken_places(&[2, 3], 1, &[2, 0]), [2, 0, 5, 3]);
    }
}
