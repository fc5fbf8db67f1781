//! Which entries of a plane each window of a pooling covers.

use std::ops::Range;
use std::sync::Arc;

use super::builder::{Builder, attribute};
use super::shapes::MAX_WIDTH;
use super::{NodeId, Window};
use crate::error::Result;
use crate::scalar::Scalar;

/// Windows over planes that are treated alike, one after the other in memory.
#[derive(Clone, Debug)]
pub(crate) struct Windows {
    /// Entries of one plane.
    plane: usize,
    /// Where the members of each window start; one more than windows.
    starts: Arc<[u32]>,
    /// Entries of the plane, window after window.
    members: Arc<[u32]>,
}

impl Windows {
    fn new(plane: usize, windows: impl Iterator<Item = Vec<u32>>) -> Windows {
        let (mut starts, mut members) = (vec![0], Vec::new());
        for window in windows {
            members.extend(window);
            starts.push(members.len() as u32);
        }
        Windows {
            plane,
            starts: starts.into(),
            members: members.into(),
        }
    }

    /// The windows of a pooling over a plane of `size`, which the window is known to fit.
    pub(crate) fn pooling(window: &Window, size: [usize; 2]) -> Windows {
        let [rows, columns] = [0, 1].map(|axis| positions(window, axis, size[axis]));
        let taps = |axis: usize, position: usize| -> Vec<usize> {
            taps(window, axis, position, size[axis]).collect()
        };
        let windows = (0..rows * columns).map(|w| {
            let across = taps(1, w % columns);
            let down = taps(0, w / columns).into_iter();
            down.flat_map(|i| across.iter().map(move |j| (i * size[1] + j) as u32))
                .collect()
        });
        Windows::new(size[0] * size[1], windows)
    }

    /// The windows that cover the given axes of `shape` wholly.
    pub(crate) fn axes(shape: &[usize], axes: &[usize]) -> Windows {
        let total: usize = shape.iter().product();
        let kept: usize = (0..shape.len())
            .filter(|a| !axes.contains(a))
            .map(|a| shape[a])
            .product();
        let mut windows = vec![Vec::with_capacity(total / kept); kept];
        for entry in 0..total {
            windows[kept_index(shape, axes, entry)].push(entry as u32);
        }
        Windows::new(total, windows.into_iter())
    }

    /// Entries of one plane.
    pub(crate) fn plane(&self) -> usize {
        self.plane
    }

    /// Number of windows of one plane.
    pub(crate) fn count(&self) -> usize {
        self.starts.len() - 1
    }

    /// The entries of the plane in window `j`, in ascending order.
    pub(crate) fn members(&self, j: usize) -> &[u32] {
        &self.members[self.starts[j] as usize..self.starts[j + 1] as usize]
    }

    /// The entries in some windows, one window after the other.
    pub(crate) fn members_of(&self, windows: Range<usize>) -> &[u32] {
        &self.members[self.start(windows.start)..self.start(windows.end)]
    }

    /// The number of members of every window, if it is the same and not 0.
    pub(crate) fn size(&self) -> Option<usize> {
        let size = self.members(0).len();
        let same = self
            .starts
            .windows(2)
            .all(|ends| (ends[1] - ends[0]) as usize == size);
        (same && size > 0).then_some(size)
    }

    /// Where the members of window `j` start among all members.
    pub(crate) fn start(&self, j: usize) -> usize {
        self.starts[j] as usize
    }
}

/// The flat index of an entry once `axes` have been dropped from `shape`.
fn kept_index(shape: &[usize], axes: &[usize], entry: usize) -> usize {
    let (mut rest, mut index, mut stride) = (entry, 0, 1);
    for axis in (0..shape.len()).rev() {
        let i = rest % shape[axis];
        rest /= shape[axis];
        if !axes.contains(&axis) {
            index += i * stride;
            stride *= shape[axis];
        }
    }
    index
}

/// Entries that a window spans along an axis.
pub(crate) fn extent(window: &Window, axis: usize) -> usize {
    window.dilation[axis]
        .saturating_mul(window.kernel[axis] - 1)
        .saturating_add(1)
}

/// How many positions a window has along an axis of length `size`; 0 if it does not fit.
pub(crate) fn positions(window: &Window, axis: usize, size: usize) -> usize {
    let [before, after] = window.padding[axis];
    let padded = size.saturating_add(before).saturating_add(after);
    let Some(free) = padded.checked_sub(extent(window, axis)) else {
        return 0;
    };
    let stride = window.stride[axis];
    if !window.ceil {
        return free / stride + 1;
    }
    let count = free.div_ceil(stride) + 1;
    count - usize::from((count - 1) * stride >= size + before)
}

/// The entries of an axis that a window covers at a position; padding is left out.
pub(crate) fn taps(
    window: &Window,
    axis: usize,
    position: usize,
    size: usize,
) -> impl Iterator<Item = usize> {
    let (start, before) = (position * window.stride[axis], window.padding[axis][0]);
    let dilation = window.dilation[axis];
    (0..window.kernel[axis]).filter_map(move |tap| {
        let i = (start + tap * dilation).checked_sub(before)?;
        (i < size).then_some(i)
    })
}

/// How many taps lie in the axis or its padding, for averages that count padding.
pub(crate) fn counted_taps(window: &Window, axis: usize, position: usize, size: usize) -> usize {
    let end = size + window.padding[axis][0] + window.padding[axis][1];
    let start = position * window.stride[axis];
    let inside = |tap: &usize| start + tap * window.dilation[axis] < end;
    (0..window.kernel[axis]).filter(inside).count()
}

impl<T: Scalar> Builder<T> {
    /// The channels, height and width of a node.
    pub(crate) fn image(&self, name: &str, node: NodeId) -> Result<[usize; 3]> {
        let shape = self.shape(node)?;
        shape.try_into().map_err(|_| {
            attribute(
                name,
                format!("its input has shape {shape:?} but [channels, height, width] is needed"),
            )
        })
    }

    /// Positions of a window, all of which must lie at least partly in the input.
    pub(crate) fn positions(
        &self,
        name: &str,
        window: &Window,
        size: [usize; 2],
    ) -> Result<[usize; 2]> {
        let small = |n: usize| (1..=MAX_WIDTH).contains(&n);
        let steps = [window.kernel, window.stride, window.dilation];
        if !steps.as_flattened().iter().copied().all(small) {
            return Err(attribute(
                name,
                "kernel, stride and dilation must be positive",
            ));
        }
        if window.padding.as_flattened().iter().any(|&p| p > MAX_WIDTH) {
            return Err(attribute(name, "its padding is larger than any image"));
        }
        let positions = [0, 1].map(|axis| positions(window, axis, size[axis]));
        if positions.contains(&0) {
            let problem = format!(
                "its window of {:?} does not fit its input of {size:?}",
                window.kernel
            );
            return Err(attribute(name, problem));
        }
        Ok(positions)
    }

    /// The windows of a pooling and the shape of its result.
    pub(crate) fn pooling(
        &mut self,
        name: &str,
        node: NodeId,
        window: &Window,
    ) -> Result<(Windows, [usize; 3])> {
        let [channels, height, width] = self.image(name, node)?;
        let [rows, columns] = self.positions(name, window, [height, width])?;
        self.table(name, &[rows, columns, window.kernel[0], window.kernel[1]])?;
        let windows = Windows::pooling(window, [height, width]);
        if (0..windows.count()).any(|j| windows.members(j).is_empty()) {
            return Err(attribute(
                name,
                "a window lies in the padding alone; use less padding",
            ));
        }
        Ok((windows, [channels, rows, columns]))
    }

    /// The windows that cover whole axes and the shape without them.
    pub(crate) fn over_axes(
        &mut self,
        name: &str,
        node: NodeId,
        axes: &[usize],
    ) -> Result<(Windows, Vec<usize>)> {
        let shape = self.shape(node)?.to_vec();
        let distinct = axes.windows(2).all(|pair| pair[0] < pair[1]);
        if !distinct || axes.last().is_some_and(|&axis| axis >= shape.len()) {
            return Err(attribute(
                name,
                format!("{axes:?} are not different axes of {shape:?}"),
            ));
        }
        self.table(name, &shape)?;
        let kept = (0..shape.len()).filter(|axis| !axes.contains(axis));
        Ok((
            Windows::axes(&shape, axes),
            kept.map(|axis| shape[axis]).collect(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_leave_padding_out() {
        let window = Window::new([2, 2]).stride([2, 2]).padding([[1, 0], [0, 1]]);
        let windows = Windows::pooling(&window, [3, 3]);
        let all: Vec<&[u32]> = (0..windows.count()).map(|j| windows.members(j)).collect();
        assert_eq!(all, [&[0, 1][..], &[2], &[3, 4, 6, 7], &[5, 8]]);
        assert_eq!(windows.size(), None);
    }

    #[test]
    fn rounding_up_drops_a_window_that_begins_in_the_padding_behind() {
        let window = Window::new([1, 2]).stride([1, 2]);
        let padded = window.padding([[0, 0], [0, 1]]);
        assert_eq!(positions(&window, 1, 5), 2);
        assert_eq!(positions(&window.ceil(true), 1, 5), 3);
        assert_eq!(positions(&padded.ceil(true), 1, 4), 2);
        assert_eq!(positions(&Window::new([9, 9]), 0, 5), 0);
    }

    #[test]
    fn axes_collect_what_differs_along_them_only() {
        let windows = Windows::axes(&[2, 2, 2], &[1]);
        let all: Vec<&[u32]> = (0..4).map(|j| windows.members(j)).collect();
        assert_eq!(all, [&[0, 2][..], &[1, 3], &[4, 6], &[5, 7]]);
        assert_eq!(windows.size(), Some(2));
    }
}
