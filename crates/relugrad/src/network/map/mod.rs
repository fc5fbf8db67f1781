//! How nodes compute. Every affine operation has a file here: what the builder checks, forward map,
//! linear part, transpose and parameter gradient. The sweeps know it as an [`AffineMap`], and an
//! operation that selects as a [`GateMap`].

mod add;
mod concat;
mod conv2d;
mod dense;
mod elementwise;
mod gather;
mod mean;

pub use elementwise::BatchNorm;

pub(crate) use add::{Add, Reshape, add_or_copy};
pub(crate) use concat::Concat;
pub(crate) use conv2d::Conv2d;
pub(crate) use dense::Dense;
pub(crate) use elementwise::Elementwise;
pub(crate) use gather::Gather;
pub(crate) use mean::Mean;

use std::borrow::Cow;

use super::gates::{MaxGate, SlopeGate};
use crate::pattern::LayerView;
use crate::scalar::Scalar;

/// What all operations of a sweep have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SweepContext<'a, T> {
    /// The flat vector of all parameters.
    pub(crate) parameters: &'a [T],
    /// Rows of each sample; what a gate has made 0 in one of them is 0 in all.
    pub(crate) rows: usize,
    /// Gates that have made 0 what they close of the rows that are multiplied, if they are known.
    pub(crate) masked_by: Option<LayerView<'a>>,
}

impl<'a, T> SweepContext<'a, T> {
    /// `rows` rows of each sample, of which nothing is known.
    pub(crate) fn new(parameters: &'a [T], rows: usize) -> SweepContext<'a, T> {
        SweepContext {
            parameters,
            rows,
            masked_by: None,
        }
    }

    /// The same rows behind gates, if there are any.
    pub(crate) fn masked_by(self, masked_by: Option<LayerView<'a>>) -> SweepContext<'a, T> {
        SweepContext { masked_by, ..self }
    }
}

/// Which part of a parameter gradient is wanted, and how it joins what stands in its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Accumulate<T> {
    /// A factor of all of it.
    pub(crate) scale: T,
    /// Whether the offsets of affine maps have a part in it.
    pub(crate) offset: bool,
    /// Whether it replaces what stands in the place of a dense weight; all else is added to.
    pub(crate) overwrite: bool,
}

impl<T: Scalar> Accumulate<T> {
    /// That of the linear part, times `scale`.
    pub(crate) fn linear(scale: T) -> Accumulate<T> {
        Accumulate {
            scale,
            offset: false,
            overwrite: false,
        }
    }

    /// That of the affine map.
    pub(crate) fn affine() -> Accumulate<T> {
        Accumulate {
            offset: true,
            ..Accumulate::linear(T::ONE)
        }
    }
}

/// What an affine operation costs for one sample.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// Multiplications.
    pub(crate) multiply_adds: usize,
    /// How many products or entries each of its values is a sum of.
    pub(crate) terms: usize,
}

impl Cost {
    /// That of an operation that moves entries, or adds up `terms` of them.
    pub(crate) fn moving(terms: usize) -> Cost {
        Cost {
            multiply_adds: 0,
            terms,
        }
    }
}

/// An affine operation on a batch of rows; every argument holds whole rows, one after the other.
pub(crate) trait AffineMap<T: Scalar> {
    /// What it costs for one sample of `width` values.
    fn cost(&self, width: usize) -> Cost;

    /// The numbers by which it multiplies, or none if it makes nothing larger.
    fn factors<'p>(&self, parameters: &'p [T]) -> Cow<'p, [T]>;

    /// The map of the rows `inputs`, one slice for each node that is read, or its linear part
    /// without `offset`.
    fn apply(&self, at: SweepContext<T>, inputs: &[&[T]], offset: bool, out: &mut [T]);

    /// The transpose of the linear part in one branch; it is added to `below` if `accumulate`.
    fn transpose(
        &self,
        at: SweepContext<T>,
        branch: usize,
        c: &[T],
        accumulate: bool,
        below: &mut [T],
    );

    /// Accumulates `∂/∂θ Σ ⟨c, A(t)⟩` in `gradient`.
    fn gradient(
        &self,
        _at: SweepContext<T>,
        _c: &[T],
        _t: &[T],
        _how: Accumulate<T>,
        _gradient: &mut [T],
    ) {
    }
}

/// How a node computes.
#[derive(Clone, Debug)]
pub(crate) enum Map {
    Input,
    Add(Add),
    Concat(Concat),
    Conv2d(Conv2d),
    Dense(Dense),
    Elementwise(Elementwise),
    Gather(Gather),
    Mean(Mean),
    Reshape(Reshape),
    Gate(GateMap),
}

/// An operation that selects, and which layer of the activation pattern holds what.
#[derive(Clone, Debug)]
pub(crate) struct GateMap {
    pub(crate) layer: usize,
    pub(crate) kind: GateKind,
}

/// How it selects.
#[derive(Clone, Debug)]
pub(crate) enum GateKind {
    /// A slope for every unit.
    Slope(SlopeGate),
    /// One of several values for every unit.
    Max(MaxGate),
}

impl Map {
    /// The affine map, or `None` for the input and for what selects.
    pub(crate) fn affine<T: Scalar>(&self) -> Option<&dyn AffineMap<T>> {
        match self {
            Map::Input | Map::Gate(_) => None,
            Map::Add(map) => Some(map),
            Map::Concat(map) => Some(map),
            Map::Conv2d(map) => Some(map),
            Map::Dense(map) => Some(map),
            Map::Elementwise(map) => Some(map),
            Map::Gather(map) => Some(map),
            Map::Mean(map) => Some(map),
            Map::Reshape(map) => Some(map),
        }
    }

    pub(crate) fn gate(&self) -> Option<&GateMap> {
        if let Map::Gate(gate) = self {
            Some(gate)
        } else {
            None
        }
    }

    pub(crate) fn dense(&self) -> Option<&Dense> {
        if let Map::Dense(dense) = self {
            Some(dense)
        } else {
            None
        }
    }

    /// Where its parameter arrays start in the flat vector of all parameters, in order.
    pub(crate) fn parameters(&self) -> [Option<usize>; 2] {
        match self {
            Map::Dense(dense) => [Some(dense.weight), dense.bias],
            Map::Conv2d(conv) => [Some(conv.weight), conv.bias],
            Map::Elementwise(map) => map.parameters(),
            Map::Gate(gate) => match &gate.kind {
                GateKind::Slope(gate) => [gate.slopes.as_ref().map(|slopes| slopes.start), None],
                GateKind::Max(_) => [None; 2],
            },
            Map::Input
            | Map::Add(_)
            | Map::Concat(_)
            | Map::Gather(_)
            | Map::Mean(_)
            | Map::Reshape(_) => [None; 2],
        }
    }

    pub(crate) fn parameter_starts(&self) -> impl Iterator<Item = usize> + use<> {
        self.parameters().into_iter().flatten()
    }

    pub(crate) fn has_parameters(&self) -> bool {
        self.parameter_starts().next().is_some()
    }
}
