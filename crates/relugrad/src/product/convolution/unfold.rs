//! Entries laid out so that what a tap reads at consecutive positions is consecutive.
//!
//! A tap reads the entries at `step · position + at`, so rows and columns are sorted by what is
//! left of them when divided by the step, with zeros where a tap reads padding. Columns lie in one
//! of two ways. If every entry lies there once, rows are longer than there are positions, and
//! between one row and the next a few positions are computed for nothing; if every tap across has a
//! copy of its own, none are. Rows of taps that are far apart have copies too.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::axis::Axis;
use crate::product::lanes::{Lanes, dispatch};
use crate::scalar::Scalar;

/// Numbers that are copied at once; rows may be written so many beyond their end.
const PIECE: usize = 16;

/// Numbers beyond the last plane that may be read or written.
const BEYOND: usize = 2 * PIECE;

/// The most bytes that are unfolded at a time, if that is enough for as many rows of positions as
/// rows that they share with the next ones: they stay in the second cache.
const BYTES: usize = 256 << 10;

/// What copying a vector costs in multiply-adds of vectors.
const COPY: f64 = 3.0;

/// How the entries along an axis are sorted.
#[derive(Clone, Copy, Debug)]
struct Lines {
    axis: Axis,
    /// Whether every tap has a copy; otherwise those have one that are whole steps apart.
    copies: bool,
}

impl Lines {
    fn count(&self) -> usize {
        if self.copies {
            self.axis.taps
        } else {
            self.axis.residues()
        }
    }

    /// Entries of a line beyond one for each position.
    fn span(&self) -> usize {
        if self.copies { 0 } else { self.axis.span() }
    }

    /// The entry of the source with which a line begins.
    fn first(&self, line: usize) -> isize {
        let (at, step) = (self.axis.at(line), self.axis.step as isize);
        if self.copies {
            at
        } else {
            self.axis.least() * step + at.rem_euclid(step)
        }
    }

    /// The line in which is what a tap reads, if it reads the entry `at` at the position 0, and
    /// where in the line that is.
    fn locate(&self, at: isize) -> (usize, usize) {
        let tap = self.axis.tap_at(at);
        if self.copies {
            (tap, 0)
        } else {
            let steps = at.div_euclid(self.axis.step as isize);
            (
                tap % self.axis.residues(),
                (steps - self.axis.least()) as usize,
            )
        }
    }
}

/// How rows of positions are unfolded, some at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unfolding {
    pub(super) channels: usize,
    rows: Lines,
    columns: Lines,
    /// Rows of positions at a time.
    pub(super) strip: usize,
}

impl Unfolding {
    /// For sums of so many products with every number that is unfolded, in the way that costs less.
    pub(super) fn new<T: Scalar>(channels: usize, axes: [Axis; 2], products: usize) -> Unfolding {
        let ways = [false, true].map(|copies| Unfolding::whole(channels, axes, copies));
        let [least, other] = ways.map(|way| {
            let taps = (channels * axes[0].taps * axes[1].taps) as f64;
            let products = way.run(0..way.strip) as f64 * taps * products as f64;
            let copies = (way.planes() * channels) as f64 * way.plane() as f64;
            products + COPY * copies
        });
        let way = ways[usize::from(other < least)];
        if way.is_plain() {
            way
        } else {
            way.in_strips::<T>()
        }
    }

    /// With a copy for every tap across, so that positions lie as in the output.
    pub(super) fn in_copies<T: Scalar>(channels: usize, axes: [Axis; 2]) -> Unfolding {
        Unfolding::whole(channels, axes, true).in_strips::<T>()
    }

    fn whole(channels: usize, [rows, columns]: [Axis; 2], copies: bool) -> Unfolding {
        // Rows that are far apart have few in common.
        let shared = rows.residues() * (rows.positions + rows.span());
        let columns = Lines {
            axis: columns,
            copies,
        };
        Unfolding {
            channels,
            rows: Lines {
                axis: rows,
                copies: rows.taps * rows.positions < shared,
            },
            columns,
            strip: rows.positions,
        }
    }

    fn in_strips<T: Scalar>(mut self) -> Unfolding {
        let row = self.planes() * self.channels * self.pitch() * size_of::<T>();
        let (rows, span) = (self.rows.axis.positions, self.rows.span());
        let fit = BYTES / row.max(1);
        let most = fit.saturating_sub(span).max(span).max(1);
        self.strip = rows.div_ceil(rows.div_ceil(most).max(1)).max(1);
        self
    }

    /// The strips of so many rows of positions.
    pub(super) fn strips(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (strip, rows) = (self.strip, self.rows.axis.positions);
        (0..rows)
            .step_by(strip)
            .map(move |start| start..rows.min(start + strip))
    }

    /// Numbers from one row of positions to the next.
    pub(super) fn pitch(&self) -> usize {
        self.columns.axis.positions + self.columns.span()
    }

    /// Numbers from the first of some rows of positions to the last.
    pub(super) fn run(&self, rows: Range<usize>) -> usize {
        let rows = rows.len().saturating_sub(1);
        rows * self.pitch() + self.columns.axis.positions
    }

    /// Planes of one channel.
    fn planes(&self) -> usize {
        self.columns.count() * self.rows.count()
    }

    /// Numbers of a plane.
    fn plane(&self) -> usize {
        ((self.strip + self.rows.span()) * self.pitch()).next_multiple_of(PIECE)
    }

    /// Numbers that a strip takes.
    pub(super) fn size(&self) -> usize {
        self.planes() * self.channels * self.plane() + BEYOND
    }

    /// Whether what is unfolded is what is there, and whole vectors do not reach beyond it.
    pub(super) fn is_plain(&self) -> bool {
        let plain = |axis: &Axis| {
            let whole = axis.entries == axis.positions;
            axis.taps == 1 && axis.step == 1 && axis.start == 0 && whole
        };
        let (rows, columns) = (&self.rows.axis, &self.columns.axis);
        let size = rows.positions * columns.positions;
        plain(rows) && plain(columns) && size.is_multiple_of(PIECE)
    }

    /// Adds where the numbers that every tap reads begin, in the order of channels, rows and
    /// columns.
    pub(super) fn places(&self, [rows, columns]: [Axis; 2], places: &mut Vec<usize>) {
        for channel in 0..self.channels {
            for (line, slot) in (0..rows.taps).map(|tap| self.rows.locate(rows.at(tap))) {
                let across = (0..columns.taps).map(|tap| self.columns.locate(columns.at(tap)));
                places.extend(across.map(|(column, offset)| {
                    let plane = column * self.rows.count() + line;
                    let start = (plane * self.channels + channel) * self.plane();
                    start + slot * self.pitch() + offset
                }));
            }
        }
    }

    /// Writes what some rows of positions read of `source`, `[channels, rows, columns]`.
    pub(super) fn fill<T: Lanes>(&self, strip: Range<usize>, source: &[T], to: &mut [T]) {
        let (step, mut planes) = (self.rows.axis.step, 0);
        for column in 0..self.columns.count() {
            let row = Row::new(&self.columns.axis, self.columns.first(column), self.pitch());
            for line in 0..self.rows.count() {
                dispatch(Planes {
                    unfolding: self,
                    source,
                    down: self.rows.first(line) + (strip.start * step) as isize,
                    slots: strip.len() + self.rows.span(),
                    row,
                    to: &mut to[planes * self.plane()..],
                });
                planes += self.channels;
            }
        }
    }
}

/// One plane of every channel.
struct Planes<'a, T> {
    unfolding: &'a Unfolding,
    source: &'a [T],
    /// The row of the source that comes first, and how many are written.
    down: isize,
    slots: usize,
    row: Row,
    to: &'a mut [T],
}

impl<T: Lanes> WithSimd for Planes<'_, T> {
    type Output = ();

    /// Writes them: whole pieces are vectors where there are any.
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        match self.unfolding.columns.axis.step {
            1 => self.write(copy),
            2 => self.write(copy_every_other),
            step => self.write(|from, count, to| {
                let from = from.iter().step_by(step).take(count);
                to.iter_mut().zip(from).for_each(|(to, &from)| *to = from);
            }),
        }
    }
}

impl<T: Lanes> Planes<'_, T> {
    /// With a way to copy so many numbers of a row.
    #[inline(always)]
    fn write(self, copy_row: impl Fn(&[T], usize, &mut [T])) {
        let (rows, columns) = (self.unfolding.rows.axis, self.unfolding.columns.axis);
        let row = self.row;
        let (pitch, size) = (row.pitch, rows.entries * columns.entries);
        let (start, end) = row.inside;
        let slots = within(rows.entries, self.down, rows.step, self.slots);
        let is_flat = pitch == columns.entries && (rows.step, columns.step) == (1, 1);
        let plane = self.unfolding.plane();
        for channel in 0..self.source.len() / size {
            let to = &mut self.to[channel * plane..];
            zeros(to, 0..slots.start * pitch);
            if !slots.is_empty() && start < end {
                let first = (self.down + (slots.start * rows.step) as isize) as usize;
                let source = &self.source[channel * size + first * columns.entries + row.from..];
                let to = &mut to[slots.start * pitch..];
                if is_flat {
                    copy(
                        source,
                        (slots.len() - 1) * pitch + end - start,
                        &mut to[start..],
                    );
                    clear_columns(&mut to[..slots.len() * pitch], pitch, row.inside);
                } else {
                    for slot in 0..slots.len() {
                        let to = &mut to[slot * pitch..];
                        zeros(to, 0..start);
                        let source = &source[slot * rows.step * columns.entries..];
                        copy_row(source, end - start, &mut to[start..]);
                        zeros(to, end..pitch);
                    }
                }
            } else {
                zeros(to, slots.start * pitch..slots.end * pitch);
            }
            zeros(to, slots.end * pitch..self.slots * pitch);
        }
    }
}

/// Writes zeros to the columns of some rows that are not `inside`; they are few.
#[inline(always)]
fn clear_columns<T: Lanes>(rows: &mut [T], pitch: usize, inside: (usize, usize)) {
    for column in (0..inside.0).chain(inside.1..pitch) {
        for entry in rows[column..].iter_mut().step_by(pitch) {
            *entry = T::ZERO;
        }
    }
}

/// Which of so many places read one of so many entries, where the first place reads the entry
/// `first` and each the one `step` behind that of the last.
fn within(entries: usize, first: isize, step: usize, places: usize) -> Range<usize> {
    let step = step as isize;
    let until = |entry: isize| ((entry - first + step - 1).max(0) / step) as usize;
    let start = until(0).min(places);
    start..until(entries as isize).clamp(start, places)
}

/// How a row is copied.
#[derive(Clone, Copy, Debug)]
struct Row {
    /// From where to where numbers are copied; the others are zeros.
    inside: (usize, usize),
    pitch: usize,
    /// The first entry that is copied.
    from: usize,
}

impl Row {
    /// One that begins with the entry at `across`.
    fn new(columns: &Axis, across: isize, pitch: usize) -> Row {
        let Range { start, end } = within(columns.entries, across, columns.step, pitch);
        let from = across + (start * columns.step) as isize;
        Row {
            inside: (start, end),
            pitch,
            from: if start < end { from as usize } else { 0 },
        }
    }
}

/// Writes zeros to a range, and perhaps to what follows it.
#[inline(always)]
fn zeros<T: Lanes>(to: &mut [T], range: Range<usize>) {
    for at in range.step_by(PIECE) {
        to[at..at + PIECE].fill(T::ZERO);
    }
}

/// Copies so many numbers, and perhaps some that follow them: whole pieces are copied faster than
/// what is wanted of them.
#[inline(always)]
fn copy<T: Lanes>(from: &[T], count: usize, to: &mut [T]) {
    let whole = count.next_multiple_of(PIECE);
    if whole > from.len() {
        return to[..count].copy_from_slice(&from[..count]);
    }
    let (from, to) = (&from[..whole], &mut to[..whole]);
    let (from, to) = (from.as_chunks::<PIECE>().0, to.as_chunks_mut::<PIECE>().0);
    to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
}

/// Copies so many numbers, each the second of two, and perhaps some that follow them.
#[inline(always)]
fn copy_every_other<T: Lanes>(from: &[T], count: usize, to: &mut [T]) {
    let pieces = count.div_ceil(PIECE);
    if pieces * 2 * PIECE > from.len() {
        let from = from.iter().step_by(2).take(count);
        return to.iter_mut().zip(from).for_each(|(to, &from)| *to = from);
    }
    let from = from.as_chunks::<{ 2 * PIECE }>().0;
    let to = to.as_chunks_mut::<PIECE>().0;
    for (to, from) in to.iter_mut().zip(from).take(pieces) {
        *to = std::array::from_fn(|i| from[2 * i]);
    }
}
