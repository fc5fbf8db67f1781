//! Distances of samples to all hyperplanes of their regions.
//!
//! The distance to the hyperplane of a margin `m` is `m/‖∇m‖` in the dual norm. The gradients of
//! all margins come row by row, by one backward sweep from each layer of gates, or column by
//! column, by one forward sweep of the unit vectors; only their norms are kept.

use std::ops::Range;

use ndarray::{ArrayView2, Axis};

use super::face::{Face, write_margins};
use super::frozen::Pass;
use crate::error::{Error, Result};
use crate::jacobian::SWEEP_MEMORY;
use crate::network::Network;
use crate::network::map::GateKind;
use crate::norm::Norm;
use crate::pattern::ActivationPattern;
use crate::scalar::Scalar;
use crate::squares::Squares;
use crate::sweep::{LinearizedBatch, RowBatch, Source};

/// How far a sample is from its nearest kink: the largest balls around it in which no gate
/// switches; infinite without gates that the input reaches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KinkDistances {
    /// In ℓ1.
    pub l1: f64,
    /// In ℓ2.
    pub l2: f64,
    /// In ℓ∞.
    pub linf: f64,
}

impl KinkDistances {
    fn of(distance: impl Fn(Norm) -> f64) -> KinkDistances {
        let [l1, l2, linf] = [Norm::L1, Norm::L2, Norm::Linf].map(distance);
        KinkDistances { l1, l2, linf }
    }

    /// The distance in a norm.
    pub fn get(&self, norm: Norm) -> f64 {
        match norm {
            Norm::L1 => self.l1,
            Norm::L2 => self.l2,
            Norm::Linf => self.linf,
        }
    }
}

/// The margins of a sample and the sizes of their gradients, in the order of layers and faces.
#[derive(Clone, Debug, Default)]
pub(crate) struct Distances {
    pub(crate) margins: Vec<f64>,
    sizes: Vec<Size>,
    /// Where the faces of each layer start, and where the last end.
    starts: Vec<usize>,
}

/// The largest entry of a gradient, the sum of squares, and the sum: what the dual norms are made
/// of.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    largest: f64,
    squares: Squares,
    sum: f64,
}

impl Size {
    fn add<T: Scalar>(&mut self, entry: T) {
        let entry = entry.into_f64().abs();
        self.largest = self.largest.max(entry);
        self.squares.add(entry);
        self.sum += entry;
    }

    fn of<T: Scalar>(gradient: &[T]) -> Size {
        let mut size = Size::default();
        gradient.iter().for_each(|&entry| size.add(entry));
        size
    }

    fn dual(&self, norm: Norm) -> f64 {
        match norm {
            Norm::L1 => self.largest,
            Norm::L2 => self.squares.root(),
            Norm::Linf => self.sum,
        }
    }
}

/// `margin / size`, infinite for a size of 0 only.
pub(super) fn ratio(margin: f64, size: f64) -> f64 {
    if size > 0.0 {
        (margin / size).clamp(-f64::MAX, f64::MAX)
    } else {
        f64::INFINITY
    }
}

impl Distances {
    /// Those of every sample of a batch with its pattern; `inputs: [B, D]`.
    ///
    /// # Errors
    /// [`Error::NotFinite`] for a margin, or a sum of the entries of its gradient, that overflows.
    pub(crate) fn of<T: Scalar>(
        network: &Network<T>,
        inputs: ArrayView2<T>,
        pattern: &ActivationPattern,
    ) -> Result<Vec<Distances>> {
        let counts = network.face_counts();
        let mut starts = vec![0];
        counts
            .iter()
            .for_each(|count| starts.push(starts[starts.len() - 1] + count));
        let mut pass = Pass::default();
        let mut all: Vec<Distances> = Vec::with_capacity(inputs.nrows());
        for (sample, x) in inputs.axis_iter(Axis(0)).enumerate() {
            pass.run_sample(network, (pattern, sample), x, true);
            let mut margins = Vec::new();
            for gate in network.gate_layers() {
                let view = pattern.view(gate.layer, &(sample..sample + 1));
                write_margins(gate, &view, &pass.arriving[gate.layer], true, &mut margins);
            }
            all.push(Distances {
                margins: margins.into_iter().map(|m| m.into_f64().abs()).collect(),
                sizes: vec![Size::default(); starts[starts.len() - 1]],
                starts: starts.clone(),
            });
        }
        let mut sweep = Sweep {
            network,
            pattern,
            rows: RowBatch::default(),
        };
        if sweep.backward_costs() <= sweep.forward_costs() {
            sweep.backward(&mut all);
        } else {
            (0..all.len()).for_each(|sample| sweep.forward(sample, &mut all[sample]));
        }
        for (sample, distances) in all.iter_mut().enumerate() {
            distances.leave_out_far_bounds(network, (pattern, sample));
            distances.check(sample)?;
        }
        Ok(all)
    }

    fn check(&self, sample: usize) -> Result<()> {
        let finite = |(&margin, size): (&f64, &Size)| margin.is_finite() && size.sum.is_finite();
        let mut pairs = self.margins.iter().zip(&self.sizes);
        match pairs.position(|pair| !finite(pair)) {
            None => Ok(()),
            Some(number) => Err(Error::NotFinite {
                what: "the distance to a kink".into(),
                index: vec![sample, number],
            }),
        }
    }

    /// Of a unit that is clipped, only the bound where it is bounds the region.
    fn leave_out_far_bounds<T: Scalar>(
        &mut self,
        network: &Network<T>,
        (pattern, sample): (&ActivationPattern, usize),
    ) {
        for gate in network.gate_layers() {
            let GateKind::Slope(slope) = &gate.kind else {
                continue;
            };
            if slope.bounds().is_none() {
                continue;
            }
            let (start, width) = (self.starts[gate.layer], slope.width());
            for unit in 0..width {
                match pattern.choice(sample, gate.layer, unit) {
                    0 => self.sizes[start + width + unit] = Size::default(),
                    2 => self.sizes[start + unit] = Size::default(),
                    _ => {}
                }
            }
        }
    }

    /// The distances to all hyperplanes.
    pub(crate) fn in_norm(&self, norm: Norm) -> impl Iterator<Item = f64> {
        let pairs = self.margins.iter().zip(&self.sizes);
        pairs.map(move |(&margin, size)| ratio(margin, size.dual(norm)))
    }

    /// The dual norm of a margin's gradient.
    pub(crate) fn size(&self, number: usize, norm: Norm) -> f64 {
        self.sizes[number].dual(norm)
    }

    pub(crate) fn nearest(&self) -> KinkDistances {
        KinkDistances::of(|norm| self.in_norm(norm).fold(f64::INFINITY, f64::min))
    }

    /// The distances to the nearest hyperplane less what rounding explains: a margin may be wrong
    /// by `rounding` times the largest margin of its layer and those before.
    pub(crate) fn nearest_at_least(&self, rounding: f64) -> KinkDistances {
        KinkDistances::of(|norm| self.least_in(norm, rounding))
    }

    fn least_in(&self, norm: Norm, rounding: f64) -> f64 {
        let (mut least, mut largest) = (f64::INFINITY, 0.0);
        for layer in self.starts.windows(2) {
            let (margins, sizes) = (
                &self.margins[layer[0]..layer[1]],
                &self.sizes[layer[0]..layer[1]],
            );
            largest = margins.iter().copied().fold(largest, f64::max);
            for (margin, size) in margins.iter().zip(sizes) {
                let size = size.dual(norm) * (1.0 + rounding);
                least = ratio((margin - rounding * largest).max(0.0), size).min(least);
            }
        }
        least
    }

    /// The numbers and distances of the `count` nearest hyperplanes at a finite distance, nearest
    /// first, and of equal ones the first first.
    pub(crate) fn smallest(&self, count: usize, norm: Norm) -> Vec<(usize, f64)> {
        let finite = self
            .in_norm(norm)
            .enumerate()
            .filter(|(_, d)| d.is_finite());
        let mut all: Vec<(usize, f64)> = finite.collect();
        let order = |a: &(usize, f64), b: &(usize, f64)| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0));
        if count < all.len() {
            all.select_nth_unstable_by(count, order);
            all.truncate(count);
        }
        all.sort_unstable_by(order);
        all
    }

    /// The layer of a face, and its number there.
    pub(crate) fn place(&self, number: usize) -> (usize, usize) {
        let layer = self.starts.partition_point(|&start| start <= number) - 1;
        (layer, number - self.starts[layer])
    }
}

/// The two ways to the gradients of all margins.
struct Sweep<'n, T> {
    network: &'n Network<T>,
    pattern: &'n ActivationPattern,
    rows: RowBatch<T>,
}

impl<T: Scalar> Sweep<'_, T> {
    /// Multiply-adds of all rows of a sample, layer by layer, backward.
    fn backward_costs(&self) -> usize {
        let counts = self.network.face_counts();
        let cost = |gate: &crate::network::map::GateMap| {
            let arrives = self.network.nodes[self.network.gate_node(gate.layer)].inputs[0];
            let before = self.network.nodes[..arrives].iter();
            let below: usize = before.map(|node| node.multiply_adds()).sum();
            let at = &self.network.nodes[arrives];
            let own = if at.map.dense().is_some() {
                0
            } else {
                at.multiply_adds()
            };
            counts[gate.layer].saturating_mul(below + own)
        };
        self.network.gate_layers().map(cost).sum()
    }

    /// The same for the unit vectors, forward.
    fn forward_costs(&self) -> usize {
        let nodes = self.network.nodes.iter();
        nodes.map(|node| node.multiply_adds()).sum::<usize>() * self.network.inputs()
    }

    fn linearized(&self, samples: Range<usize>) -> LinearizedBatch<'_, T> {
        LinearizedBatch::new(self.network, self.pattern, samples)
    }

    /// As many samples or rows as fit into the memory of a sweep.
    fn fit(&self, rows: usize) -> usize {
        (SWEEP_MEMORY / (rows * self.network.row_entries() * size_of::<T>())).max(1)
    }

    /// The unit vectors of one sample, in blocks.
    fn forward(&mut self, sample: usize, to: &mut Distances) {
        let (d, mut rows) = (self.network.inputs(), std::mem::take(&mut self.rows));
        let (linearized, view_of) = (self.linearized(sample..sample + 1), self.pattern);
        let gates: Vec<_> = self.network.gate_layers().collect();
        let fit = self.fit(1);
        for start in (0..d).step_by(fit) {
            let count = fit.min(d - start);
            let mut units = vec![T::ZERO; count * d];
            let diagonal = units[start..].iter_mut().step_by(d + 1);
            diagonal.for_each(|entry| *entry = T::ONE);
            let mut rates = Vec::new();
            rows.forward_seen(&linearized, count, &units, |layer, arriving| {
                let view = view_of.view(layer, &(sample..sample + 1));
                let sizes = &mut to.sizes[to.starts[layer]..to.starts[layer + 1]];
                for row in arriving.chunks_exact(arriving.len() / count) {
                    rates.clear();
                    write_margins(gates[layer], &view, row, false, &mut rates);
                    sizes
                        .iter_mut()
                        .zip(&rates)
                        .for_each(|(size, &rate)| size.add(rate));
                }
            });
        }
        self.rows = rows;
    }

    /// All margins of all samples, layer by layer.
    fn backward(&mut self, all: &mut [Distances]) {
        let layers = self.network.gate_layers().count();
        for layer in 0..layers {
            let gate_node = self.network.gate_node(layer);
            let arrives = self.network.nodes[gate_node].inputs[0];
            let nodes = &self.network.nodes[..gate_node];
            let gate = self.network.nodes[gate_node]
                .map
                .gate()
                .expect("a layer of gates");
            if let GateKind::Max(_) = gate.kind {
                self.by_face(layer, all);
            } else if nodes.iter().any(|node| node.map.gate().is_some()) {
                self.by_unit(layer, arrives, all);
            } else {
                // Before the first gates gradients are the same for every sample.
                let (first, others) = all.split_first_mut().expect("a batch has samples");
                self.by_unit(layer, arrives, std::slice::from_mut(first));
                let range = first.starts[layer]..first.starts[layer + 1];
                for other in others {
                    other.sizes[range.clone()].copy_from_slice(&first.sizes[range.clone()]);
                }
            }
        }
    }

    /// The gradients of all values that arrive at a layer; both margins of a clip have the same.
    fn by_unit(&mut self, layer: usize, arrives: usize, all: &mut [Distances]) {
        let width = self.network.nodes[arrives].width;
        let (d, fit) = (self.network.inputs(), self.fit(width));
        let mut rows = std::mem::take(&mut self.rows);
        for start in (0..all.len()).step_by(fit) {
            let samples = start..(start + fit).min(all.len());
            rows.backward_units(&self.linearized(samples.clone()), arrives);
            let gradients = rows.at_input().chunks_exact(width * d);
            for (distances, gradients) in all[samples].iter_mut().zip(gradients) {
                let range = distances.starts[layer]..distances.starts[layer + 1];
                for sizes in distances.sizes[range].chunks_exact_mut(width) {
                    let pairs = sizes.iter_mut().zip(gradients.chunks_exact(d));
                    pairs.for_each(|(size, gradient)| *size = Size::of(gradient));
                }
            }
        }
        self.rows = rows;
    }

    /// The gradients of the differences of maxima and their rivals.
    fn by_face(&mut self, layer: usize, all: &mut [Distances]) {
        let (d, fit) = (self.network.inputs(), self.fit(1));
        let mut rows = std::mem::take(&mut self.rows);
        for (sample, distances) in all.iter_mut().enumerate() {
            let range = distances.starts[layer]..distances.starts[layer + 1];
            for (block, sizes) in distances.sizes[range].chunks_mut(fit).enumerate() {
                let face = |row: usize| -> Face {
                    self.network
                        .face(self.pattern, sample, (layer, block * fit + row))
                };
                let mut source = Source::default();
                for row in 0..sizes.len() {
                    let face = face(row);
                    let seeds = face.seeds(row, self.network.nodes[face.arrives].width, 1.0);
                    source.node = seeds.node;
                    source.entries.extend(seeds.entries);
                }
                rows.backward_from(
                    &self.linearized(sample..sample + 1),
                    sizes.len(),
                    &[source],
                    true,
                );
                let pairs = sizes.iter_mut().zip(rows.at_input().chunks_exact(d));
                pairs.for_each(|(size, gradient)| *size = Size::of(gradient));
            }
        }
        self.rows = rows;
    }
}
