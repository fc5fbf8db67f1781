//! Entries of the input in other places: transposition, slices, padding, repetition.

use std::borrow::Cow;
use std::sync::Arc;

use super::{AffineMap, Cost, Map, SweepContext};
use crate::error::{Error, Result, check_shape};
use crate::network::builder::{Builder, New, attribute, length_of};
use crate::network::shapes::{self, is_permutation, strided, strides};
use crate::network::{Constant, NodeId, Operation};
use crate::parallel::for_each_chunk;
use crate::scalar::Scalar;

/// No entry of the input.
pub(crate) const NONE: u32 = u32::MAX;

/// Entry `i` of the output is entry `index[i]` of the input, or `fill` for [`NONE`].
#[derive(Clone, Debug)]
pub(crate) struct Gather {
    inputs: usize,
    index: Arc<[u32]>,
    fill: f64,
}

impl Gather {
    pub(crate) fn new(inputs: usize, index: Vec<u32>, fill: f64) -> Gather {
        let index = index.into();
        Gather {
            inputs,
            index,
            fill,
        }
    }
}

impl<T: Scalar> AffineMap<T> for Gather {
    fn cost(&self, _: usize) -> Cost {
        Cost::moving(1)
    }

    fn factors<'p>(&self, _: &'p [T]) -> Cow<'p, [T]> {
        Cow::Borrowed(&[])
    }

    fn apply(&self, _: SweepContext<T>, inputs: &[&[T]], offset: bool, out: &mut [T]) {
        let fill = T::from_f64(if offset { self.fill } else { 0.0 });
        let operations = out.len();
        for_each_chunk(out, self.index.len(), operations, |row, out| {
            let input = &inputs[0][row * self.inputs..(row + 1) * self.inputs];
            for (out, &index) in out.iter_mut().zip(&*self.index) {
                *out = input.get(index as usize).copied().unwrap_or(fill);
            }
        });
    }

    fn transpose(&self, _: SweepContext<T>, _: usize, c: &[T], accumulate: bool, below: &mut [T]) {
        let operations = c.len();
        for_each_chunk(below, self.inputs, operations, |row, below| {
            if !accumulate {
                below.fill(T::ZERO);
            }
            let c = &c[row * self.index.len()..(row + 1) * self.index.len()];
            for (&c, &index) in c.iter().zip(&*self.index) {
                if let Some(below) = below.get_mut(index as usize) {
                    *below += c;
                }
            }
        });
    }
}

impl<T: Scalar> Builder<T> {
    /// The axes in another order: axis `a` of the result is axis `axes[a]` of `node`.
    ///
    /// # Errors
    /// [`Error::Attribute`] if `axes` does not name every axis once, [`Error::UnknownNode`].
    pub fn transpose(&mut self, node: NodeId, axes: &[usize]) -> Result<NodeId> {
        let name = self.name("transpose");
        let shape = self.shape(node)?.to_vec();
        if !is_permutation(axes, shape.len()) {
            return Err(attribute(
                &name,
                format!("{axes:?} is no order of the axes of {shape:?}"),
            ));
        }
        self.table(&name, &shape)?;
        let old = strides(&shape);
        let strides: Vec<usize> = axes.iter().map(|&axis| old[axis]).collect();
        let new_shape: Vec<usize> = axes.iter().map(|&axis| shape[axis]).collect();
        let index = strided(&new_shape, &strides);
        let map = Map::Gather(Gather::new(self.node(node)?.width, index, 0.0));
        let operation = Operation::Transpose {
            axes: axes.to_vec(),
        };
        self.push(New::named(&name, operation, map), &[node], &new_shape)
    }

    /// Entries of the flattened value of `node` under a new shape: entry `i` is entry `index[i]`,
    /// or `fill` where that is `None`.
    ///
    /// # Errors
    /// [`Error::Shape`] if `index` has not as many entries as `shape`, [`Error::Attribute`] for a
    /// place that does not exist, [`Error::NotFinite`] for `fill`, [`Error::TooWide`],
    /// [`Error::UnknownNode`].
    pub fn gather(
        &mut self,
        node: NodeId,
        shape: &[usize],
        index: &[Option<usize>],
        fill: f64,
    ) -> Result<NodeId> {
        let name = self.name("gather");
        let inputs = self.node(node)?.width;
        check_shape(
            &format!("{name}.index"),
            &[shapes::width(&name, shape)?],
            &[index.len()],
        )?;
        self.table(&name, shape)?;
        if let Some(place) = index.iter().flatten().find(|&&place| place >= inputs) {
            return Err(attribute(
                &name,
                format!("entry {place} of {inputs} does not exist"),
            ));
        }
        if !fill.is_finite() {
            return Err(Error::NotFinite {
                what: format!("fill of {name}"),
                index: Vec::new(),
            });
        }
        let places = index
            .iter()
            .map(|place| place.map_or(-1.0, |place| place as f64));
        let constant = Constant::new("index", shape.to_vec(), places.collect());
        let places = index
            .iter()
            .map(|place| place.map_or(NONE, |place| place as u32));
        let map = Map::Gather(Gather::new(inputs, places.collect(), fill));
        let mut new = New::named(&name, Operation::Gather { fill }, map);
        new.constants = vec![constant];
        self.push(new, &[node], shape)
    }

    /// Every `step`-th of the entries `start`, `start + step`, … along `axis`, `count` in all;
    /// `step` may be negative.
    ///
    /// # Errors
    /// [`Error::Attribute`] if an entry or the axis does not exist, [`Error::ZeroWidth`] if `count`
    /// is 0, [`Error::UnknownNode`].
    pub fn slice(
        &mut self,
        node: NodeId,
        axis: usize,
        start: usize,
        step: isize,
        count: usize,
    ) -> Result<NodeId> {
        let shape = self.shape(node)?.to_vec();
        let length = length_of(&self.name("gather"), axis, &shape)?;
        let last = (count.saturating_sub(1) as isize).checked_mul(step);
        let last = last.and_then(|last| (start as isize).checked_add(last));
        if start >= length || !last.is_some_and(|last| (0..length as isize).contains(&last)) {
            let problem =
                format!("{count} entries from {start} by {step} leave axis {axis} of {shape:?}");
            return Err(attribute(&self.name("gather"), problem));
        }
        self.rearrange(node, 0.0, axis, count, |i| {
            Some((start as isize + i as isize * step) as usize)
        })
    }

    /// `[before, after]` entries of `value` added at the ends of `axis`.
    ///
    /// # Errors
    /// [`Error::Attribute`] for no such axis, [`Error::NotFinite`], [`Error::TooWide`],
    /// [`Error::UnknownNode`].
    pub fn pad(
        &mut self,
        node: NodeId,
        axis: usize,
        [before, after]: [usize; 2],
        value: f64,
    ) -> Result<NodeId> {
        let shape = self.shape(node)?.to_vec();
        let length = length_of(&self.name("gather"), axis, &shape)?;
        let count = length.saturating_add(before).saturating_add(after);
        self.rearrange(node, value, axis, count, |i| {
            i.checked_sub(before).filter(|&i| i < length)
        })
    }

    /// Entry `i` along `axis` of the result is entry `from(i)` along `axis` of `node`.
    fn rearrange(
        &mut self,
        node: NodeId,
        fill: f64,
        axis: usize,
        count: usize,
        from: impl Fn(usize) -> Option<usize>,
    ) -> Result<NodeId> {
        let old = self.shape(node)?.to_vec();
        let mut shape = old.clone();
        shape[axis] = count;
        let inner: usize = old[axis + 1..].iter().product();
        let entry = |i: usize| {
            let (head, along, tail) = (i / inner / count, i / inner % count, i % inner);
            from(along).map(|along| (head * old[axis] + along) * inner + tail)
        };
        let name = self.name("gather");
        let index: Vec<Option<usize>> = (0..shapes::width(&name, &shape)?).map(entry).collect();
        self.gather(node, &shape, &index, fill)
    }
}
