//! Maxima over windows: max-pooling and maxout.
//!
//! The pattern of a unit is the place of the winner among the members of its window, the first of
//! them in a tie. In its region the gate only copies, so its tangent and cotangent need no
//! arithmetic.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use crate::network::windows::Windows;
use crate::parallel::for_each_chunk;
use crate::pattern::LayerView;
use crate::scalar::Scalar;

use super::Found;

/// The maximum of every window.
#[derive(Clone, Debug)]
pub(crate) struct MaxGate {
    windows: Windows,
    /// Number of planes of one row.
    planes: usize,
    /// Members of every window, if all have as many.
    size: Option<usize>,
    /// The layer of gates whose inactive units are constant, if what arrives are their outputs in
    /// place.
    constant: Option<usize>,
}

impl MaxGate {
    pub(crate) fn new(windows: Windows, planes: usize, constant: Option<usize>) -> MaxGate {
        MaxGate {
            size: windows.size(),
            windows,
            planes,
            constant,
        }
    }

    /// The layer of gates whose inactive units tie without a kink.
    pub(crate) fn constant(&self) -> Option<usize> {
        self.constant
    }

    /// Number of outputs of one row.
    pub(crate) fn units(&self) -> usize {
        self.planes * self.windows.count()
    }

    /// Number of inputs of one row.
    fn inputs(&self) -> usize {
        self.planes * self.windows.plane()
    }

    /// Where the members of a unit's window are among the inputs of a row.
    pub(crate) fn members(&self, unit: usize) -> impl ExactSizeIterator<Item = usize> + '_ {
        let start = unit / self.windows.count() * self.windows.plane();
        let members = self.windows.members(unit % self.windows.count());
        members.iter().map(move |&i| start + i as usize)
    }

    /// Where the member at a place of a unit's window is among the inputs of a row.
    pub(crate) fn member(&self, unit: usize, place: usize) -> usize {
        let start = unit / self.windows.count() * self.windows.plane();
        start + self.windows.members(unit % self.windows.count())[place] as usize
    }

    /// Number of members of all windows of a row.
    pub(crate) fn total_members(&self) -> usize {
        self.planes * self.windows.start(self.windows.count())
    }

    /// The maxima of one sample, whose winners are written to `choices`. `constant` tells of an
    /// entry whether it does not depend on the input of the network; a tie of such entries is no
    /// kink.
    pub(crate) fn select<T: Scalar>(
        &self,
        input: &[T],
        constant: impl Fn(usize) -> bool,
        choices: &mut [u32],
        out: &mut [T],
    ) -> Found {
        let mut found = Found::default();
        let (count, size) = (self.windows.count(), self.windows.plane());
        let planes = out
            .chunks_exact_mut(count)
            .zip(choices.chunks_exact_mut(count));
        for (plane, (out, choices)) in planes.enumerate() {
            let input = &input[plane * size..(plane + 1) * size];
            let outputs = out.chunks_mut(BLOCK).zip(choices.chunks_mut(BLOCK));
            for (block, (out, choices)) in outputs.enumerate() {
                let first = block * BLOCK;
                let top = self.largest(input, first..first + out.len());
                out.copy_from_slice(&top.values[..out.len()]);
                choices.copy_from_slice(&top.winners[..out.len()]);
                found.broken |= !top.finite;
                let tied = (0..out.len()).filter(|&i| top.equal[i] > 1);
                for i in tied {
                    let members = self.windows.members(first + i).iter();
                    let mut at_top = members.filter(|&&member| input[member as usize] == out[i]);
                    let varies = |&i: &u32| !constant(plane * size + i as usize);
                    found.kinks += u32::from(at_top.any(varies));
                }
            }
        }
        found
    }

    /// The winners of every row.
    pub(crate) fn apply<T: Scalar>(
        &self,
        layer: &LayerView,
        rows: usize,
        input: &[T],
        out: &mut [T],
    ) {
        let operations = out.len();
        for_each_chunk(out, self.units(), operations, |row, out| {
            let input = &input[row * self.inputs()..(row + 1) * self.inputs()];
            let choices = layer.sample_choices(row / rows);
            let mut units = out.iter_mut();
            self.for_each_winner(choices, |winner| {
                *units.next().expect("a value for each choice") = input[winner];
            });
        });
    }

    /// Sends the cotangent of every unit to its winner.
    pub(crate) fn transpose<T: Scalar>(
        &self,
        layer: &LayerView,
        rows: usize,
        c: &[T],
        accumulate: bool,
        below: &mut [T],
    ) {
        let operations = below.len();
        for_each_chunk(below, self.inputs(), operations, |row, below| {
            if !accumulate {
                below.fill(T::ZERO);
            }
            let c = &c[row * self.units()..(row + 1) * self.units()];
            let choices = layer.sample_choices(row / rows);
            let mut units = c.iter();
            self.for_each_winner(choices, |winner| {
                below[winner] += *units.next().expect("a value for each choice");
            });
        });
    }

    /// The unit and the place in its window that the `face`-th face belongs to, if the others of
    /// every window are counted unit by unit and `choices` are the winners.
    pub(crate) fn rival(&self, choices: &[u32], face: usize) -> (usize, usize) {
        let mut rest = face;
        for (unit, &choice) in choices.iter().enumerate() {
            let rivals = self.members(unit).len() - 1;
            if rest < rivals {
                return (unit, rest + usize::from(rest >= choice as usize));
            }
            rest -= rivals;
        }
        unreachable!("a layer has no face {face}")
    }

    /// Calls `f` with the place of every unit's winner among the inputs, in the order of units.
    fn for_each_winner(&self, choices: &[u32], mut f: impl FnMut(usize)) {
        let planes = choices.chunks_exact(self.windows.count()).enumerate();
        for (plane, choices) in planes {
            for (window, &choice) in choices.iter().enumerate() {
                let member = self.windows.members(window)[choice as usize];
                f(plane * self.windows.plane() + member as usize);
            }
        }
    }
}

/// Windows that are looked at together.
const BLOCK: usize = 64;

/// The largest members of some windows.
struct Top<T> {
    values: [T; BLOCK],
    /// The first place where each stands.
    winners: [u32; BLOCK],
    /// How many members are equal to it.
    equal: [u32; BLOCK],
    /// Whether all that was looked at is finite.
    finite: bool,
}

impl MaxGate {
    /// The largest members of at most [`BLOCK`] windows of a plane.
    fn largest<T: Scalar>(&self, input: &[T], windows: Range<usize>) -> Top<T> {
        let mut top = Top {
            values: [T::ZERO; BLOCK],
            winners: [0; BLOCK],
            equal: [1; BLOCK],
            finite: true,
        };
        let Some(size) = self.size else {
            for (i, window) in windows.enumerate() {
                let members = self.windows.members(window);
                top.values[i] = members
                    .first()
                    .map_or(T::ZERO, |&first| input[first as usize]);
                top.finite &= top.values[i].is_finite();
                for (place, &member) in members.iter().enumerate().skip(1) {
                    top.look(place as u32, i..i + 1, &[input[member as usize]]);
                }
            }
            return top;
        };
        let mut entries = [T::ZERO; BLOCK];
        let all = self.windows.members_of(windows).chunks_exact(size);
        for place in 0..size {
            for (entry, members) in entries.iter_mut().zip(all.clone()) {
                *entry = input[members[place] as usize];
            }
            let (top, entries, place) = (&mut top, &entries, place as u32);
            Arch::new().dispatch(Look {
                place,
                entries,
                top,
            });
        }
        top
    }
}

impl<T: Scalar> Top<T> {
    /// Looks at the next member of some windows, without branches.
    #[inline(always)]
    fn look(&mut self, place: u32, windows: Range<usize>, entries: &[T]) {
        let values = self.values[windows.clone()].iter_mut().zip(entries);
        let winners = self.winners[windows.clone()].iter_mut();
        let found = winners.zip(&mut self.equal[windows]);
        let mut finite = true;
        for ((value, &entry), (winner, equal)) in values.zip(found) {
            let (larger, same) = (entry > *value, u32::from(entry == *value));
            *equal = same + if larger { 1 } else { *equal };
            *winner = if larger { place } else { *winner };
            *value = if larger { entry } else { *value };
            finite &= entry.is_finite();
        }
        self.finite &= finite;
    }
}

/// Looks at one member of every window.
struct Look<'a, T> {
    place: u32,
    entries: &'a [T; BLOCK],
    top: &'a mut Top<T>,
}

impl<T: Scalar> WithSimd for Look<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        if self.place == 0 {
            self.top.values = *self.entries;
            let finite = |all: bool, entry: &T| all & entry.is_finite();
            self.top.finite = self.entries.iter().fold(true, finite);
        } else {
            self.top.look(self.place, 0..BLOCK, self.entries);
        }
    }
}
