//! The right factor of a product, cut into panels a few columns wide.

use crate::buffer::Buffer;
use crate::parallel::for_each_chunk;
use crate::scalar::Scalar;

/// The right factor `B: [m, k]` of a product.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Right<'a, T> {
    /// Row by row; `[m, k]`.
    Plain(&'a [T]),
    /// Column by column; `[k, m]`.
    Transposed(&'a [T]),
}

/// Bytes of a line of the cache; a vector that lies in two of them takes twice as long to load.
const LINE: usize = 64;

/// A buffer that begins with a line of the cache.
#[derive(Clone, Debug, Default)]
pub(super) struct Aligned<T>(Vec<T>);

impl<T: Scalar> Aligned<T> {
    /// So many numbers, whichever they are.
    pub(super) fn room(&mut self, length: usize) -> &mut [T] {
        lines(&mut self.0, length)
    }
}

/// A buffer with room for [`lines`] of so many numbers.
pub(super) fn room<T: Scalar>(length: usize) -> Buffer<T> {
    Buffer::with_room(length + LINE / size_of::<T>())
}

/// So many numbers of a buffer, whichever they are, from the beginning of a line of the cache.
pub(super) fn lines<T: Scalar>(buffer: &mut Vec<T>, length: usize) -> &mut [T] {
    buffer.resize(length + LINE / size_of::<T>(), T::ZERO);
    let start = buffer.as_ptr().align_offset(LINE);
    &mut buffer[start..start + length]
}

/// `B` as `[panels, m, width]`, padded with zeros.
pub(super) fn pack<'p, T: Scalar>(
    b: Right<T>,
    m: usize,
    width: usize,
    panels: &'p mut Aligned<T>,
) -> &'p [T] {
    let panels = panels.room(columns(b, m).div_ceil(width) * m * width);
    let operations = panels.len();
    for_each_chunk(panels, m * width, operations, |p, panel| {
        fill(b, (m, p, width), panel);
    });
    panels
}

/// The same on this thread.
pub(super) fn pack_here<'p, T: Scalar>(
    b: Right<T>,
    m: usize,
    width: usize,
    panels: &'p mut Aligned<T>,
) -> &'p [T] {
    let panels = panels.room(columns(b, m).div_ceil(width) * m * width);
    for (p, panel) in panels.chunks_exact_mut(m * width).enumerate() {
        fill(b, (m, p, width), panel);
    }
    panels
}

fn columns<T>(b: Right<T>, m: usize) -> usize {
    match b {
        Right::Plain(b) | Right::Transposed(b) => b.len() / m,
    }
}

/// Writes the `p`-th panel.
pub(super) fn fill<T: Scalar>(b: Right<T>, (m, p, width): (usize, usize, usize), panel: &mut [T]) {
    let k = columns(b, m);
    let columns = p * width..k.min((p + 1) * width);
    match b {
        Right::Plain(b) => {
            for (row, to) in b.chunks_exact(k).zip(panel.chunks_exact_mut(width)) {
                let (to, padding) = to.split_at_mut(columns.len());
                to.copy_from_slice(&row[columns.clone()]);
                padding.fill(T::ZERO);
            }
        }
        Right::Transposed(b) => {
            if columns.len() < width {
                panel.fill(T::ZERO);
            }
            transpose(&b[columns.start * m..columns.end * m], m, width, panel);
        }
    }
}

/// Writes rows of length `m` as the first columns of `to: [m, width]`, in blocks for the sake of the cache.
fn transpose<T: Scalar>(rows: &[T], m: usize, width: usize, to: &mut [T]) {
    const ROWS: usize = 8;
    const COLUMNS: usize = 16;
    for (block, rows) in rows.chunks(ROWS * m).enumerate() {
        for start in (0..m).step_by(COLUMNS) {
            let end = m.min(start + COLUMNS);
            let to = &mut to[start * width..end * width];
            for (j, row) in rows.chunks_exact(m).enumerate() {
                let to = to[block * ROWS + j..].iter_mut().step_by(width);
                to.zip(&row[start..end])
                    .for_each(|(to, &entry)| *to = entry);
            }
        }
    }
}
