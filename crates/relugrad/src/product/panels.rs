//! The right factor of a product, cut into panels a few columns wide.

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

/// Writes `B` to `panels: [panels, m, width]`, padded with zeros.
pub(super) fn pack<T: Scalar>(b: Right<T>, m: usize, width: usize, panels: &mut Vec<T>) {
    make_room(b, m, width, panels);
    let operations = panels.len();
    for_each_chunk(panels, m * width, operations, |p, panel| {
        fill(b, (m, p, width), panel);
    });
}

/// The same on this thread.
pub(super) fn pack_here<T: Scalar>(b: Right<T>, m: usize, width: usize, panels: &mut Vec<T>) {
    make_room(b, m, width, panels);
    for (p, panel) in panels.chunks_exact_mut(m * width).enumerate() {
        fill(b, (m, p, width), panel);
    }
}

fn columns<T>(b: Right<T>, m: usize) -> usize {
    match b {
        Right::Plain(b) | Right::Transposed(b) => b.len() / m,
    }
}

fn make_room<T: Scalar>(b: Right<T>, m: usize, width: usize, panels: &mut Vec<T>) {
    panels.clear();
    panels.resize(columns(b, m).div_ceil(width) * m * width, T::ZERO);
}

/// Writes the `p`-th panel.
fn fill<T: Scalar>(b: Right<T>, (m, p, width): (usize, usize, usize), panel: &mut [T]) {
    let k = columns(b, m);
    match b {
        Right::Plain(b) => {
            let columns = p * width..k.min((p + 1) * width);
            for (row, to) in b.chunks_exact(k).zip(panel.chunks_exact_mut(width)) {
                to[..columns.len()].copy_from_slice(&row[columns.clone()]);
            }
        }
        Right::Transposed(b) => {
            let columns = b.chunks_exact(m).skip(p * width).take(width);
            transpose(columns, width, panel);
        }
    }
}

/// Side of the blocks in which matrices are transposed, for the sake of the cache.
const BLOCK: usize = 32;

/// Writes rows of equal length as the first columns of `to: [length, width]`.
fn transpose<'a, T: Scalar>(
    rows: impl Iterator<Item = &'a [T]> + Clone,
    width: usize,
    to: &mut [T],
) {
    for (block, to) in to.chunks_mut(BLOCK * width).enumerate() {
        for (j, row) in rows.clone().enumerate() {
            let part = row.iter().skip(block * BLOCK).take(BLOCK);
            for (to, &entry) in to.chunks_exact_mut(width).zip(part) {
                to[j] = entry;
            }
        }
    }
}
