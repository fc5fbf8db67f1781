//! Maxima over windows: max-pooling and maxout.
//!
//! The pattern of a unit is the place of the winner among the members of its window, the first of them in a tie. In its
//! region the gate only copies, so its tangent and cotangent need no arithmetic.

use crate::network::windows::Windows;
use crate::parallel::for_each_chunk;
use crate::pattern::{LayerMut, LayerView};
use crate::scalar::Scalar;

use super::Found;

/// The maximum of every window.
#[derive(Clone, Debug)]
pub(crate) struct MaxGate {
    windows: Windows,
    /// Number of planes of one row.
    planes: usize,
    /// The layer of gates whose inactive units are constant, if what arrives are their outputs in place.
    constant: Option<usize>,
}

impl MaxGate {
    pub(crate) fn new(windows: Windows, planes: usize, constant: Option<usize>) -> MaxGate {
        MaxGate {
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

    /// Number of members of all windows of a row.
    pub(crate) fn total_members(&self) -> usize {
        self.planes * self.windows.start(self.windows.count())
    }

    /// The maxima of one sample, whose winners are written to `layer`. `constant` tells of an entry whether it does not
    /// depend on the input of the network; a tie of such entries is no kink.
    pub(crate) fn select<T: Scalar>(
        &self,
        input: &[T],
        constant: impl Fn(usize) -> bool,
        layer: &mut LayerMut,
        out: &mut [T],
    ) -> Found {
        let mut found = Found::default();
        for (unit, (out, choice)) in out.iter_mut().zip(&mut *layer.choices).enumerate() {
            let (mut best, mut at, mut winner, mut tied) = (None, 0, 0, false);
            for (place, i) in self.members(unit).enumerate() {
                let value = input[i];
                found.broken |= !value.is_finite();
                match best {
                    Some(b) if value == b => tied |= !(constant(i) && constant(at)),
                    Some(b) if value < b || value.is_nan() => {}
                    _ => (best, at, winner, tied) = (Some(value), i, place as u32, false),
                }
            }
            (*out, *choice) = (input[at], winner);
            found.kinks += u32::from(tied);
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
            for (unit, (out, &choice)) in out.iter_mut().zip(choices).enumerate() {
                *out = input[self.winner(unit, choice)];
            }
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
            for (unit, (&c, &choice)) in c.iter().zip(choices).enumerate() {
                below[self.winner(unit, choice)] += c;
            }
        });
    }

    /// The unit and the place in its window that the `face`-th face belongs to, if the others of every window are
    /// counted unit by unit and `choices` are the winners.
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

    fn winner(&self, unit: usize, choice: u32) -> usize {
        let (plane, window) = (unit / self.windows.count(), unit % self.windows.count());
        plane * self.windows.plane() + self.windows.members(window)[choice as usize] as usize
    }
}
