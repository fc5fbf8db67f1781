//! A network with the names and layouts of the file that it came from.

use ndarray::{ArrayD, IxDyn};
use relugrad::{Network, Parameters, Scalar};

/// An ONNX file as a network.
#[derive(Clone, Debug)]
pub struct OnnxModel {
    network: Network<f64>,
    /// For each parameter array, which initialiser it is made of; `None` if it was computed from several.
    weights: Vec<Option<Weight>>,
    notes: Vec<String>,
}

/// How the entries of a parameter array come from an initialiser.
#[derive(Clone, Debug)]
pub(super) struct Weight {
    pub(super) initializer: String,
    pub(super) dims: Vec<usize>,
    /// Which entry of the initialiser each entry is made of; the same if `None`.
    pub(super) places: Option<Vec<u32>>,
    pub(super) contribution: Contribution,
}

/// What becomes of an entry `c` of an initialiser.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Contribution {
    /// `factor · c`.
    Times(f64),
    /// `1/c`.
    Reciprocal,
}

impl OnnxModel {
    pub(super) fn new(
        network: Network<f64>,
        weights: Vec<Option<Weight>>,
        notes: Vec<String>,
    ) -> OnnxModel {
        debug_assert_eq!(network.parameters().layout().len(), weights.len());
        OnnxModel {
            network,
            weights,
            notes,
        }
    }

    /// The network.
    pub fn network(&self) -> &Network<f64> {
        &self.network
    }

    /// The network alone.
    pub fn into_network(self) -> Network<f64> {
        self.network
    }

    /// What was left out or changed on reading, such as a final softmax.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// A gradient with respect to the network's parameters as gradients with respect to the initialisers of the file, by
    /// their names, in their layouts, and in the order of their first use.
    ///
    /// An initialiser that is used several times gets the sum. Constants that the file computes from several
    /// initialisers, or holds in its nodes, have no name and are left out.
    ///
    /// # Panics
    /// If the gradient belongs to another network.
    pub fn initializer_gradients<T: Scalar>(
        &self,
        gradient: &Parameters<T>,
    ) -> Vec<(String, ArrayD<f64>)> {
        assert_eq!(gradient.layout(), self.network.parameters().layout());
        let mut named: Vec<(String, ArrayD<f64>)> = Vec::new();
        let values = self.network.parameters().values();
        for (info, weight) in gradient.layout().iter().zip(&self.weights) {
            let Some(weight) = weight else { continue };
            let place = named
                .iter()
                .position(|(name, _)| *name == weight.initializer);
            let place = place.unwrap_or_else(|| {
                let zeros = ArrayD::zeros(IxDyn(&weight.dims));
                named.push((weight.initializer.clone(), zeros));
                named.len() - 1
            });
            let sums = named[place]
                .1
                .as_slice_mut()
                .expect("a new array is contiguous");
            for (i, entry) in info.range().enumerate() {
                let rate = match weight.contribution {
                    Contribution::Times(factor) => factor,
                    Contribution::Reciprocal => -values[entry] * values[entry],
                };
                let to = weight
                    .places
                    .as_ref()
                    .map_or(i, |places| places[i] as usize);
                sums[to] += rate * gradient.values()[entry].into_f64();
            }
        }
        named
    }
}
