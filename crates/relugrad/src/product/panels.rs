//! The right factor of a product, cut into panels a few columns wide.

use pulp::{Arch, Simd, WithSimd};

use super::lanes::Lanes;
use crate::buffer::Buffer;
use crate::parallel::{for_each_chunk, pieces};

/// The right factor `B: [m, k]` of a product.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rhs<'a, T> {
    /// Row by row; `[m, k]`.
    Plain(&'a [T]),
    /// The same with zeros above the diagonal; `[m, m]`.
    Lower(&'a [T]),
    /// Column by column; `[k, m]`.
    Transposed(&'a [T]),
}

/// Bytes of a line of the cache; a vector that lies in two of them takes twice as long to load.
const LINE: usize = 64;

/// A buffer that begins with a line of the cache.
#[derive(Clone, Debug, Default)]
pub(super) struct Aligned<T>(Vec<T>);

impl<T: Lanes> Aligned<T> {
    /// Room for `length` numbers, which hold anything.
    pub(super) fn room(&mut self, length: usize) -> &mut [T] {
        lines(&mut self.0, length)
    }
}

/// A buffer with room for [`lines`] of so many numbers.
pub(super) fn room<T: Lanes>(length: usize) -> Buffer<T> {
    Buffer::with_room(length + LINE / size_of::<T>())
}

/// So many numbers of a buffer, whichever they are, from the beginning of a line of the cache.
pub(super) fn lines<T: Lanes>(buffer: &mut Vec<T>, length: usize) -> &mut [T] {
    let room = length + LINE / size_of::<T>();
    if buffer.len() < room {
        buffer.resize(room, T::ZERO);
    }
    let start = buffer.as_ptr().align_offset(LINE);
    &mut buffer[start..start + length]
}

/// `B` as `[panels, m, width]`, padded with zeros.
pub(super) fn pack<'p, T: Lanes>(
    b: Rhs<T>,
    m: usize,
    width: usize,
    panels: &'p mut Aligned<T>,
) -> &'p [T] {
    let count = columns(b, m).div_ceil(width);
    let panels = panels.room(count * m * width);
    let (operations, some) = (panels.len(), count.div_ceil(pieces(count)));
    for_each_chunk(panels, some * m * width, operations, |i, panels| {
        fill(b, (m, i * some * width, width), panels);
    });
    panels
}

/// The same on this thread.
pub(super) fn pack_here<'p, T: Lanes>(
    b: Rhs<T>,
    m: usize,
    width: usize,
    panels: &'p mut Aligned<T>,
) -> &'p [T] {
    let panels = panels.room(columns(b, m).div_ceil(width) * m * width);
    fill(b, (m, 0, width), panels);
    panels
}

/// Writes panels of the columns from the `first` on.
pub(super) fn fill<T: Lanes>(
    b: Rhs<T>,
    (m, first, width): (usize, usize, usize),
    panels: &mut [T],
) {
    let b = match b {
        Rhs::Plain(b) | Rhs::Lower(b) => b,
        Rhs::Transposed(b) => return fill_from_columns(b, (m, first, width), panels),
    };
    // One to four vectors of up to 16 numbers, or eight of up to eight.
    with_constant!(width, W in [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48; 64] => {
        fill_from_rows::<T, W>(b, m, first, panels);
    });
}

/// Rows of the right factor that are copied to all panels before the next: a panel alone would take
/// a line of the cache from each of rows that lie far apart.
const ROWS: usize = 8;

/// The same for a factor that lies row by row and panels of `W` columns.
fn fill_from_rows<T: Lanes, const W: usize>(b: &[T], m: usize, first: usize, panels: &mut [T]) {
    let k = b.len() / m;
    for (block, rows) in b.chunks(ROWS * k).enumerate() {
        for (p, panel) in panels.chunks_exact_mut(m * W).enumerate() {
            let (to, _) = panel[block * ROWS * W..].as_chunks_mut::<W>();
            let start = first + p * W;
            for (to, row) in to.iter_mut().zip(rows.chunks_exact(k)) {
                match row[start..].first_chunk::<W>() {
                    Some(entries) => *to = *entries,
                    None => {
                        to.fill(T::ZERO);
                        to[..k - start].copy_from_slice(&row[start..]);
                    }
                }
            }
        }
    }
}

fn columns<T>(b: Rhs<T>, m: usize) -> usize {
    match b {
        Rhs::Plain(b) | Rhs::Lower(b) | Rhs::Transposed(b) => b.len() / m,
    }
}

/// The same for a factor that lies column by column.
fn fill_from_columns<T: Lanes>(
    b: &[T],
    (m, first, width): (usize, usize, usize),
    panels: &mut [T],
) {
    let columns = b[first * m..].chunks(width * m);
    for (panel, columns) in panels.chunks_exact_mut(m * width).zip(columns) {
        if columns.len() < panel.len() {
            panel.fill(T::ZERO);
        }
        transpose(columns, m, width, panel);
    }
}

/// Writes rows of length `m` as the first columns of `to: [m, width]`.
pub(super) fn transpose<T: Lanes>(rows: &[T], m: usize, width: usize, to: &mut [T]) {
    transpose_rows(rows, (rows.len() / m, m, m), width, to);
}

/// Writes so many rows, so many numbers apart and of length `m`, as the first columns of
/// `to: [m, width]`.
pub(super) fn transpose_rows<T: Lanes>(
    rows: &[T],
    (count, apart, m): (usize, usize, usize),
    width: usize,
    to: &mut [T],
) {
    let mut done = 0;
    while done < count {
        let (rows, to) = (&rows[done * apart..], &mut to[done..]);
        let shape = (apart, m, width);
        done += match count - done {
            16.. => columns_of::<T, 16>(rows, shape, to),
            8.. => columns_of::<T, 8>(rows, shape, to),
            4.. => columns_of::<T, 4>(rows, shape, to),
            _ => columns_of::<T, 1>(rows, shape, to),
        };
    }
}

/// Writes the first `N` rows, and tells how many they are.
fn columns_of<T: Lanes, const N: usize>(
    rows: &[T],
    shape: (usize, usize, usize),
    to: &mut [T],
) -> usize {
    Arch::new().dispatch(Transpose::<T, N> { rows, shape, to });
    N
}

/// Writes `N` rows as columns.
struct Transpose<'a, T, const N: usize> {
    rows: &'a [T],
    /// Numbers from a row to the next, their length, and numbers from a column to the next.
    shape: (usize, usize, usize),
    to: &'a mut [T],
}

impl<T: Lanes, const N: usize> WithSimd for Transpose<'_, T, N> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let (apart, m, width) = self.shape;
        let rows: [&[T]; N] = std::array::from_fn(|j| &self.rows[j * apart..][..m]);
        for (l, to) in self.to.chunks_mut(width).enumerate() {
            // Without a panic the loop needs no checks; there are `m` whole rows to write.
            let Some(to) = to.first_chunk_mut::<N>().filter(|_| l < m) else {
                break;
            };
            for j in 0..N {
                to[j] = rows[j][l];
            }
        }
    }
}
