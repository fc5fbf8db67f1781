//! In which order the factors of a Gram stage are multiplied.

use std::ops::Range;

use super::last_layers::LastLayers;
use crate::gram::FirstLayer;
use crate::network::Network;
use crate::objective::SweepStrategy;
use crate::scalar::Scalar;
use crate::sweep::LinearizedBatch;

/// Which layers of a step take an order of their own.
#[derive(Clone, Copy, Debug)]
pub(in crate::objective) struct ContractionOrder<'n, T> {
    /// The first layer through its own Gram matrix, so that there is no Jacobian.
    pub(in crate::objective) first: Option<FirstLayer<'n, T>>,
    /// The last two layers through sums over subsets of samples.
    pub(in crate::objective) last: Option<LastLayers<'n, T>>,
}

impl<'n, T: Scalar> ContractionOrder<'n, T> {
    /// The order of a step with `rows` shared rows for each sample.
    pub(in crate::objective) fn of(
        strategy: SweepStrategy,
        network: &'n Network<T>,
        linearized: &LinearizedBatch<T>,
        rows: usize,
    ) -> ContractionOrder<'n, T> {
        let less = |(here, there): (f64, f64)| here < there;
        let first = FirstLayer::of(network).filter(|first| match strategy {
            SweepStrategy::Fewest | SweepStrategy::FourRussians => {
                less(first.costs(linearized, rows))
            }
            SweepStrategy::AllRows => false,
            SweepStrategy::FirstLayerGram => true,
        });
        // What arrives at the first layer are no tangents in its Gram order.
        let apart = |node: usize| first.is_none_or(|first| first.node != node);
        let last = LastLayers::of(network).filter(|last| {
            apart(last.node)
                && match strategy {
                    SweepStrategy::Fewest | SweepStrategy::FirstLayerGram => {
                        less(last.costs(linearized, rows))
                    }
                    SweepStrategy::AllRows => false,
                    SweepStrategy::FourRussians => true,
                }
        });
        ContractionOrder { first, last }
    }

    /// The nodes behind the first layer and before the last ones, whose parts of the gradient come
    /// from cotangents and tangents.
    pub(in crate::objective) fn others(&self, network: &Network<T>) -> Range<usize> {
        let start = self.first.map_or(0, |first| first.node + 1);
        start..self.last.map_or(network.nodes.len(), |last| last.node)
    }
}
