//! Constants whose entries are entries of others.

use std::sync::Arc;

use super::{not_together, table};
use crate::error::Result;
use crate::formula::Term;
use crate::onnx::attributes::Call;
use crate::onnx::element::Element;
use crate::onnx::import::Importer;
use crate::onnx::tensor::{Numbers, Tensor};
use crate::onnx::values::{
    axis, broadcast, broadcast_places, strides, taken_places, transposed_places,
};

/// Entries `from[e]` of a constant, that become the entries `to[e]` of another one.
pub(in crate::onnx::import) struct Part<'t> {
    pub(in crate::onnx::import) tensor: &'t Tensor,
    pub(in crate::onnx::import) from: Vec<u32>,
    pub(in crate::onnx::import) to: Vec<u32>,
}

impl<'a> Importer<'a> {
    /// A constant of the given dimensions whose entry `i` is entry `places[i]` of `x`.
    pub(in crate::onnx::import) fn rearranged(
        &mut self,
        call: Call,
        x: &Tensor,
        dims: &[usize],
        places: impl FnOnce(usize) -> Vec<u32>,
    ) -> Result<Tensor> {
        let count = self.reserve(call, dims)?;
        let places = if count == 0 {
            Vec::new()
        } else {
            places(count)
        };
        let numbers = x.numbers.picked(&places);
        let result = Tensor::new(dims.to_vec(), x.element, numbers);
        let term = x.formula.map(|of| Term::picked(of, table(places)));
        Ok(self.with_terms(result, term.into_iter().collect()))
    }

    /// A constant made of parts of others of one type, which fill it together.
    pub(in crate::onnx::import) fn assembled(
        &mut self,
        call: Call,
        dims: &[usize],
        parts: Vec<Part>,
    ) -> Result<Tensor> {
        let count = self.reserve(call, dims)?;
        let element = parts
            .first()
            .map_or(Element::Float, |part| part.tensor.element);
        if let Some(other) = parts.iter().find(|part| part.tensor.element != element) {
            return Err(call.error(format!(
                "its constants are of types {} and {}, which it does not mix",
                element.name(),
                other.tensor.element.name()
            )));
        }
        let numbers = if element.is_real() {
            Numbers::Real(laid(count, &parts, |numbers| match numbers {
                Numbers::Real(values) => values,
                Numbers::Whole(_) => &[],
            }))
        } else {
            Numbers::Whole(laid(count, &parts, |numbers| match numbers {
                Numbers::Whole(values) => values,
                Numbers::Real(_) => &[],
            }))
        };
        let result = Tensor::new(dims.to_vec(), element, numbers);
        let term = |part: Part| {
            let of = part.tensor.formula?;
            Some(Term::scattered(
                of,
                Some(part.from.into()),
                Some(part.to.into()),
            ))
        };
        Ok(self.with_terms(result, parts.into_iter().filter_map(term).collect()))
    }

    pub(in crate::onnx::import) fn transposed_constant(
        &mut self,
        call: Call,
        x: &Tensor,
    ) -> Result<Tensor> {
        let order = self.order(call, x.dims.len())?;
        self.in_order(call, x, &order)
    }

    /// The axes of a constant in another order.
    pub(in crate::onnx::import) fn in_order(
        &mut self,
        call: Call,
        x: &Tensor,
        order: &[usize],
    ) -> Result<Tensor> {
        let dims: Vec<usize> = order.iter().map(|&a| x.dims[a]).collect();
        self.rearranged(call, x, &dims, |_| transposed_places(&x.dims, order))
    }

    /// A constant with `axis` replaced by entries of it.
    fn taken(&mut self, call: Call, x: &Tensor, axis: usize, taken: &[usize]) -> Result<Tensor> {
        let mut dims = x.dims.clone();
        dims[axis] = taken.len();
        self.rearranged(call, x, &dims, |_| taken_places(&x.dims, axis, taken))
    }

    pub(super) fn sliced_constant(&mut self, call: Call, x: &Tensor) -> Result<Tensor> {
        let mut x = x.clone();
        for (axis, taken) in self.slices(call, &x.dims)? {
            x = self.taken(call, &x, axis, &taken)?;
        }
        Ok(x)
    }

    pub(super) fn split_constant(&mut self, call: Call, x: &Tensor) -> Result<Vec<Tensor>> {
        let (at, lengths) = self.parts(call, &x.dims)?;
        let mut start = 0;
        let mut values = Vec::new();
        for length in lengths {
            let taken: Vec<usize> = (start..start + length).collect();
            values.push(self.taken(call, x, at, &taken)?);
            start += length;
        }
        Ok(values)
    }

    pub(super) fn gathered_constant(&mut self, call: Call, x: &Tensor) -> Result<Tensor> {
        let index = self.constant(call, 1)?;
        let at = self.axis(call, call.integer("axis", 0)?, x.dims.len())?;
        let taken = self.indices(call, &index, x.dims[at])?;
        let dims = [&x.dims[..at], &index.dims, &x.dims[at + 1..]].concat();
        self.rearranged(call, x, &dims, |_| taken_places(&x.dims, at, &taken))
    }

    pub(super) fn gathered_elements(&mut self, call: Call, x: &Tensor) -> Result<Tensor> {
        let index = self.constant(call, 1)?;
        let places = self.element_places(call, &x.dims, &index)?;
        self.rearranged(call, x, &index.dims, |_| places)
    }

    /// Where the entries that a GatherElements takes lie in a value of dimensions `dims`.
    pub(in crate::onnx::import) fn element_places(
        &self,
        call: Call,
        dims: &[usize],
        index: &Tensor,
    ) -> Result<Vec<u32>> {
        let at = self.axis(call, call.integer("axis", 0)?, dims.len())?;
        let beyond = |a: usize| a != at && index.dims[a] > dims[a];
        if index.dims.len() != dims.len() || (0..dims.len()).any(beyond) {
            return Err(not_together(call, dims, &index.dims));
        }
        let taken = self.indices(call, index, dims[at])?;
        let (own, theirs) = (strides(dims), strides(&index.dims));
        let place = |(e, &t): (usize, &usize)| {
            let along = |a: usize| match a == at {
                true => t * own[a],
                false => e / theirs[a] % index.dims[a] * own[a],
            };
            (0..dims.len()).map(along).sum::<usize>() as u32
        };
        Ok(taken.iter().enumerate().map(place).collect())
    }

    pub(super) fn joined(&mut self, call: Call, parts: &[Tensor]) -> Result<Tensor> {
        let dims: Vec<&[usize]> = parts.iter().map(|part| &part.dims[..]).collect();
        let (at, total) = self.joined_dims(call, &dims)?;
        let inner: usize = total[at + 1..].iter().product();
        let row = total[at] * inner;
        self.reserve(call, &total)?;
        let mut start = 0;
        let mut pieces = Vec::new();
        for part in parts {
            let own = part.dims[at] * inner;
            let place = |i: usize| (i / own * row + start + i % own) as u32;
            pieces.push(Part {
                tensor: part,
                from: (0..part.len() as u32).collect(),
                to: (0..part.len()).map(place).collect(),
            });
            start += own;
        }
        self.assembled(call, &total, pieces)
    }

    pub(super) fn expanded_constant(&mut self, call: Call, x: &Tensor) -> Result<Tensor> {
        let target = self.lengths(call, 1)?;
        let dims = broadcast(&x.dims, &target);
        let dims = dims.ok_or_else(|| not_together(call, &x.dims, &target))?;
        self.spread(call, x, &dims)
    }

    /// A constant repeated along axes until it has the dimensions.
    pub(in crate::onnx::import) fn spread(
        &mut self,
        call: Call,
        x: &Tensor,
        dims: &[usize],
    ) -> Result<Tensor> {
        self.rearranged(call, x, dims, |_| broadcast_places(&x.dims, dims))
    }

    pub(super) fn tiled_constant(&mut self, call: Call, x: &Tensor) -> Result<Tensor> {
        let repeats = self.repeats(call, x.dims.len())?;
        let mut x = x.clone();
        for (axis, repeats) in repeats.into_iter().enumerate().filter(|&(_, n)| n != 1) {
            let n = x.dims[axis];
            let mut dims = x.dims.clone();
            dims[axis] = n.saturating_mul(repeats);
            self.reserve(call, &dims)?;
            let taken: Vec<usize> = (0..dims[axis]).map(|i| i % n).collect();
            x = self.taken(call, &x, axis, &taken)?;
        }
        Ok(x)
    }

    /// How often a Tile repeats each axis.
    pub(in crate::onnx::import) fn repeats(&self, call: Call, rank: usize) -> Result<Vec<usize>> {
        if self.opset < 6 {
            return Err(
                call.error("it repeats one axis, as up to opset 5; export it with a later one")
            );
        }
        let repeats = self.lengths(call, 1)?;
        match repeats.len() == rank {
            true => Ok(repeats),
            false => Err(call.error(format!("its repeats {repeats:?} do not fit {rank} axes"))),
        }
    }

    pub(super) fn padded_constant(&mut self, call: Call, x: &Tensor) -> Result<Tensor> {
        let mut x = x.clone();
        let fill = match self.fill(call)? {
            Some(fill) if self.opset < 11 => self.cast_to(call, &fill, x.element)?,
            Some(fill) => fill,
            None if x.element.is_real() => Tensor::real(x.element, Vec::new(), [0.0]),
            None => Tensor::whole(x.element, Vec::new(), [0]),
        };
        for (axis, taken) in self.pads(call, &x.dims)? {
            let mut dims = x.dims.clone();
            dims[axis] = taken.len();
            let count = self.reserve(call, &dims)?;
            let inner: usize = dims[axis + 1..].iter().product();
            let inside = |e: u32| {
                let (row, offset) = (e as usize / inner, e as usize % inner);
                let (outer, along) = (row / taken.len(), row % taken.len());
                taken[along].map(|t| ((outer * x.dims[axis] + t) * inner + offset) as u32)
            };
            let (mut from, mut to, mut filled) = (Vec::new(), Vec::new(), Vec::new());
            for e in 0..count as u32 {
                match inside(e) {
                    Some(place) => {
                        from.push(place);
                        to.push(e);
                    }
                    None => filled.push(e),
                }
            }
            let fills = Part {
                tensor: &fill,
                from: vec![0; filled.len()],
                to: filled,
            };
            let own = Part {
                tensor: &x,
                from,
                to,
            };
            x = self.assembled(call, &dims, vec![own, fills])?;
        }
        Ok(x)
    }

    /// Where of constants.
    pub(super) fn chosen(&mut self, call: Call) -> Result<Tensor> {
        let (x, y) = (self.constant(call, 1)?, self.constant(call, 2)?);
        let condition = self.constant(call, 0)?;
        let dims = broadcast(&condition.dims, &x.dims);
        let dims = dims.and_then(|dims| broadcast(&dims, &y.dims));
        let dims = dims.ok_or_else(|| not_together(call, &x.dims, &y.dims))?;
        self.reserve(call, &dims)?;
        let chosen = self.condition(call, &condition, &dims)?;
        let parts = [(&x, true), (&y, false)].map(|(tensor, side)| {
            let places = broadcast_places(&tensor.dims, &dims);
            let to: Vec<u32> = (0..chosen.len() as u32)
                .filter(|&e| chosen[e as usize] == side)
                .collect();
            Part {
                tensor,
                from: to.iter().map(|&e| places[e as usize]).collect(),
                to,
            }
        });
        self.assembled(call, &dims, parts.into())
    }

    /// The truth values of a condition repeated until it has the dimensions.
    pub(in crate::onnx::import) fn condition(
        &mut self,
        call: Call,
        condition: &Tensor,
        dims: &[usize],
    ) -> Result<Vec<bool>> {
        if condition.element != Element::Bool {
            return Err(call.error(format!(
                "its condition is {} and not bool",
                condition.element.name()
            )));
        }
        let all = self.spread(call, condition, dims)?;
        Ok(self.wholes(&all).into_iter().map(|v| v != 0).collect())
    }

    /// The entries along an axis that a constant names.
    pub(in crate::onnx::import) fn indices(
        &self,
        call: Call,
        index: &Tensor,
        n: usize,
    ) -> Result<Vec<usize>> {
        let one = |i: i64| {
            axis(i, n)
                .ok_or_else(|| call.error(format!("it takes entry {i} of an axis of length {n}")))
        };
        self.visit(call, index)?;
        self.whole_numbers(call, index)?
            .into_iter()
            .map(one)
            .collect()
    }
}

/// The numbers of parts at their places.
fn laid<V: Copy + Default>(
    count: usize,
    parts: &[Part],
    values: impl Fn(&Numbers) -> &[V],
) -> Arc<[V]> {
    let mut all = vec![V::default(); count];
    for part in parts {
        let from = values(&part.tensor.numbers);
        let pairs = part.from.iter().zip(&part.to);
        pairs.for_each(|(&i, &j)| all[j as usize] = from[i as usize]);
    }
    all.into()
}
