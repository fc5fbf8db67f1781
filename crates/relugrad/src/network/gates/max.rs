//! Maxima over windows: max-pooling and maxout.
//!
//! The pattern of a unit is the place of the winner among the members of its window, the first of them in a tie. In its
//! region the gate only copies, so its tangent and cotangent need no arithmetic.

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

    /// Where the member at a place of a unit's window is among the inputs of a row.
    pub(crate) fn member(&self, unit: usize, place: usize) -> usize {
        let start = unit / self.windows.count() * self.windows.plane();
        start + self.windows.members(unit % self.windows.count())[place] as usize
    }

    /// Number of members of all windows of a row.
    pub(crate) fn total_members(&self) -> usize {
        self.planes * self.windows.start(self.windows.count())
    }

    /// The maxima of one sample, whose winners are written to `choices`. `constant` tells of an entry whether it does not
    /// depend on the input of the network; a tie of such entries is no kink.
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
            for (window, (out, choice)) in out.iter_mut().zip(choices).enumerate() {
                let members = self.windows.members(window);
                let (value, winner, equal) = largest(input, members, &mut found.broken);
                (*out, *choice) = (value, winner);
                if equal > 1 {
                    let at_top = members.iter().filter(|&&i| input[i as usize] == value);
                    let varies = |&i: &u32| !constant(plane * size + i as usize);
                    found.kinks += u32::from(at_top.into_iter().any(varies));
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

/// The largest of some entries, the first place where it stands, and how many are equal to it; a value that is not finite
/// is told.
fn largest<T: Scalar>(input: &[T], members: &[u32], broken: &mut bool) -> (T, u32, u32) {
    let first = members.first().map_or(T::ZERO, |&i| input[i as usize]);
    let (mut value, mut winner, mut equal) = (first, 0, 0);
    for (place, &i) in members.iter().enumerate() {
        let entry = input[i as usize];
        *broken |= !entry.is_finite();
        equal = if entry > value {
            1
        } else {
            equal + u32::from(entry == value)
        };
        winner = if entry > value { place as u32 } else { winner };
        value = if entry > value { entry } else { value };
    }
    (value, winner, equal)
}
