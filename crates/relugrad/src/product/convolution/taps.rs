//! Lists of the cotangents that are not zero.

use super::Convolution;
use crate::product::active_columns::find;
use crate::scalar::Scalar;

/// A cotangent: where it is in a row, and its partner.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tap {
    pub(super) at: u32,
    /// Its output channel, or where the entries under the kernel begin.
    pub(super) partner: u32,
}

/// The cotangents of a sample that are not zero in all rows, in groups.
#[derive(Clone, Debug, Default)]
pub(crate) struct Taps {
    found: Vec<bool>,
    places: Vec<u32>,
    /// Where the entries under the kernel begin at each position, and the group of the position.
    bases: Vec<(u32, u32)>,
    /// Where each group starts, and where the last ends.
    starts: Vec<u32>,
    /// Where the entries under the kernel begin for each group of a position.
    origins: Vec<u32>,
    taps: Vec<Tap>,
}

impl Taps {
    fn find<T: Scalar>(&mut self, of: &Convolution, c: &[T]) {
        let length = of.outputs();
        self.places.clear();
        find(
            c.chunks_exact(length),
            length,
            &mut self.found,
            &mut self.places,
        );
        self.bases.clear();
        let [_, height, width] = of.output;
        // Neighbours down share whole runs, which those across need not do.
        let base = |down, across| {
            (
                of.base(down, across) as u32,
                (across * height + down) as u32,
            )
        };
        let positions =
            (0..height).flat_map(|down| (0..width).map(move |across| base(down, across)));
        self.bases.extend(positions);
    }

    /// Calls `f` with the output channel and the position of every place.
    fn for_each(places: &[u32], positions: usize, mut f: impl FnMut(u32, u32, usize)) {
        let (mut channel, mut start) = (0, 0);
        for &at in places {
            while at as usize >= start + positions {
                start += positions;
                channel += 1;
            }
            f(at, channel, at as usize - start);
        }
    }

    /// Groups of equal positions; the partner is the output channel.
    pub(super) fn by_position<T: Scalar>(&mut self, of: &Convolution, c: &[T]) {
        self.find(of, c);
        let Taps {
            places,
            bases,
            starts,
            origins,
            taps,
            ..
        } = self;
        let positions = of.positions();
        starts.clear();
        starts.resize(positions + 1, 0);
        Taps::for_each(places, positions, |_, _, p| {
            starts[bases[p].1 as usize] += 1;
        });
        let mut end = 0;
        for start in starts.iter_mut() {
            (*start, end) = (end, end + *start);
        }
        origins.clear();
        origins.resize(positions, 0);
        for &(base, group) in bases.iter() {
            origins[group as usize] = base;
        }
        taps.clear();
        taps.resize(places.len(), Tap::default());
        Taps::for_each(places, positions, |at, partner, p| {
            let next = &mut starts[bases[p].1 as usize];
            taps[*next as usize] = Tap { at, partner };
            *next += 1;
        });
        // Every start has become that of the next group.
        starts.rotate_right(1);
        starts[0] = 0;
    }

    /// Groups of equal output channels; the partner is where the entries under the kernel begin.
    pub(super) fn by_channel<T: Scalar>(&mut self, of: &Convolution, c: &[T]) {
        self.find(of, c);
        let Taps {
            places,
            bases,
            starts,
            taps,
            ..
        } = self;
        starts.clear();
        starts.resize(of.output[0] + 1, 0);
        taps.clear();
        Taps::for_each(places, of.positions(), |at, channel, p| {
            taps.push(Tap {
                at,
                partner: bases[p].0,
            });
            starts[channel as usize + 1] = taps.len() as u32;
        });
        for i in 1..starts.len() {
            starts[i] = starts[i].max(starts[i - 1]);
        }
    }

    /// All groups.
    #[inline(always)]
    pub(super) fn groups(&self) -> impl Iterator<Item = &[Tap]> {
        self.starts
            .windows(2)
            .map(|ends| &self.taps[ends[0] as usize..ends[1] as usize])
    }

    /// Groups of positions, with where the entries under the kernel begin.
    #[inline(always)]
    pub(super) fn positions(&self) -> impl Iterator<Item = (usize, &[Tap])> {
        self.origins
            .iter()
            .map(|&origin| origin as usize)
            .zip(self.groups())
    }
}
