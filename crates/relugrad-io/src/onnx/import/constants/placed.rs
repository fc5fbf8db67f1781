//! Constants whose entries are put in places, or tell of places.

use super::moves::Part;
use super::not_together;
use crate::error::Result;
use crate::onnx::attributes::Call;
use crate::onnx::element::Element;
use crate::onnx::import::Importer;
use crate::onnx::tensor::{Numbers, Tensor};
use crate::onnx::values::{axis, strides};

impl<'a> Importer<'a> {
    /// Trilu: the entries of matrices on one side of a diagonal, and 0 on the other.
    pub(super) fn triangle(&mut self, call: Call, x: &Tensor) -> Result<Tensor> {
        let [.., rows, columns] = x.dims[..] else {
            return Err(call.error("its constant is no matrix"));
        };
        let k = self.optional_integers(call, 1)?.unwrap_or_default();
        let k = k.first().copied().unwrap_or(0);
        let upper = call.flag("upper", true)?;
        self.visit(call, x)?;
        let kept = |&e: &u32| {
            let (row, column) = (e as usize / columns % rows, e as usize % columns);
            let beyond = column as i128 - row as i128 - i128::from(k);
            if upper { beyond >= 0 } else { beyond <= 0 }
        };
        let places: Vec<u32> = (0..x.len() as u32).filter(kept).collect();
        let part = Part {
            tensor: x,
            from: places.clone(),
            to: places,
        };
        self.assembled(call, &x.dims, vec![part])
    }

    /// EyeLike: 1 on a diagonal of a matrix of the same dimensions.
    pub(super) fn eye(&mut self, call: Call, x: &Tensor) -> Result<Tensor> {
        let &[_, columns] = &x.dims[..] else {
            return Err(call.error("its constant is no matrix"));
        };
        let element = match call.has("dtype") {
            true => Element::of(call.integer("dtype", 1)?),
            false => Some(x.element),
        };
        let element = element.ok_or_else(|| call.error("its dtype is not read"))?;
        let k = i128::from(call.integer("k", 0)?);
        let count = self.reserve(call, &x.dims)?;
        let one = |e: usize| (e % columns) as i128 - (e / columns) as i128 == k;
        let dims = x.dims.clone();
        Ok(match element.is_real() {
            true => Tensor::real(
                element,
                dims,
                (0..count).map(|e| f64::from(u8::from(one(e)))),
            ),
            false => Tensor::whole(element, dims, (0..count).map(|e| i128::from(one(e)))),
        })
    }

    /// Where in a value of dimensions `dims` the blocks begin that the last axis of a constant
    /// names, and the dimensions of a block.
    fn block_starts(
        &self,
        call: Call,
        dims: &[usize],
        index: &Tensor,
    ) -> Result<(Vec<usize>, Vec<usize>)> {
        let depth = index.dims.last().copied().unwrap_or(0);
        if depth == 0 || depth > dims.len() {
            return Err(not_together(call, dims, &index.dims));
        }
        self.visit(call, index)?;
        let steps = strides(dims);
        let start = |places: &[i64]| {
            let along = places.iter().enumerate().map(|(a, &place)| {
                axis(place, dims[a])
                    .map(|place| place * steps[a])
                    .ok_or_else(|| {
                        call.error(format!(
                            "it takes entry {place} of an axis of length {}",
                            dims[a]
                        ))
                    })
            });
            along.sum::<Result<usize>>()
        };
        let listed = self.whole_numbers(call, index)?;
        let starts = listed.chunks(depth).map(start).collect::<Result<_>>()?;
        Ok((starts, dims[depth..].to_vec()))
    }

    /// GatherND.
    pub(super) fn gathered_blocks(&mut self, call: Call, x: &Tensor) -> Result<Tensor> {
        if call.integer("batch_dims", 0)? != 0 {
            return Err(call.error("it gathers from each entry of a batch, which is not read"));
        }
        let index = self.constant(call, 1)?;
        let (starts, block) = self.block_starts(call, &x.dims, &index)?;
        let outer = &index.dims[..index.dims.len() - 1];
        let size: usize = block.iter().product();
        self.rearranged(call, x, &[outer, &block].concat(), |_| {
            let places = |&start: &usize| (start as u32)..(start + size) as u32;
            starts.iter().flat_map(places).collect()
        })
    }

    /// ScatterND: blocks of a constant replaced by others.
    pub(super) fn scattered_blocks(&mut self, call: Call, x: &Tensor) -> Result<Tensor> {
        if call.string("reduction", "none")? != "none" {
            return Err(call.error("it adds up what it scatters, which is not read"));
        }
        let (index, new) = (self.constant(call, 1)?, self.constant(call, 2)?);
        let (starts, block) = self.block_starts(call, &x.dims, &index)?;
        let size: usize = block.iter().product();
        if new.len() != starts.len() * size {
            return Err(not_together(call, &index.dims, &new.dims));
        }
        self.visit(call, x)?;
        let mut owner: Vec<Option<u32>> = vec![None; x.len()];
        for (i, start) in starts.into_iter().enumerate() {
            for (j, place) in owner[start..start + size].iter_mut().enumerate() {
                *place = Some((i * size + j) as u32);
            }
        }
        let kept: Vec<u32> = (0..x.len() as u32)
            .filter(|&e| owner[e as usize].is_none())
            .collect();
        let pairs = owner
            .iter()
            .enumerate()
            .filter_map(|(e, from)| Some(((*from)?, e as u32)));
        let (from, to) = pairs.unzip();
        let parts = vec![
            Part {
                tensor: x,
                from: kept.clone(),
                to: kept,
            },
            Part {
                tensor: &new,
                from,
                to,
            },
        ];
        self.assembled(call, &x.dims, parts)
    }

    /// OneHot: of two numbers the second where an index says, and the first elsewhere.
    pub(super) fn one_hot(&mut self, call: Call, index: &Tensor) -> Result<Tensor> {
        let (depth, values) = (self.lengths_of_one(call, 1)?, self.constant(call, 2)?);
        if values.len() != 2 {
            return Err(call.error("its values are not two numbers"));
        }
        let rank = index.dims.len();
        let at = self.axis(call, call.integer("axis", -1)?, rank + 1)?;
        let dims = [&index.dims[..at], &[depth], &index.dims[at..]].concat();
        let inner: usize = index.dims[at..].iter().product();
        let listed = self.whole_numbers(call, index)?;
        self.rearranged(call, &values, &dims, |count| {
            let hot = |e: usize| {
                let (outer, along) = (e / inner / depth, e / inner % depth);
                let found = axis(listed[outer * inner + e % inner], depth);
                u32::from(found == Some(along))
            };
            (0..count).map(hot).collect()
        })
    }

    /// The only length that a constant lists.
    fn lengths_of_one(&self, call: Call, place: usize) -> Result<usize> {
        let constant = self.constant(call, place)?;
        let number = match &constant.numbers {
            Numbers::Real(values) => values.first().map(|&v| v as i64),
            Numbers::Whole(values) => values.first().copied(),
        };
        let length = number.and_then(|n| usize::try_from(n).ok());
        length
            .filter(|_| constant.len() == 1)
            .ok_or_else(|| call.error("its depth is no length"))
    }

    /// NonZero: the indices of the entries that are not 0, a column for each.
    pub(super) fn nonzero(&mut self, call: Call, x: &Tensor) -> Result<Tensor> {
        self.visit(call, x)?;
        self.stepped(call, x);
        let there = |&e: &usize| match &x.numbers {
            Numbers::Real(values) => values[e] != 0.0,
            Numbers::Whole(values) => values[e] != 0,
        };
        let entries: Vec<usize> = (0..x.len()).filter(there).collect();
        let dims = [x.dims.len(), entries.len()];
        self.reserve(call, &dims)?;
        let steps = strides(&x.dims);
        let along = |(step, n): (usize, usize)| entries.iter().map(move |e| (e / step % n) as i128);
        let axes = steps.into_iter().zip(x.dims.iter().copied());
        let places: Vec<i128> = axes.flat_map(along).collect();
        Ok(Tensor::whole(Element::Int64, dims.to_vec(), places))
    }

    /// CumSum: the sums of the entries up to each one along an axis.
    pub(super) fn running_sum(&mut self, call: Call, x: &Tensor) -> Result<Tensor> {
        let along = self.whole_numbers(call, &self.constant(call, 1)?)?;
        let &[along] = &along[..] else {
            return Err(call.error("its axis is no number"));
        };
        let at = self.axis(call, along, x.dims.len())?;
        let (exclusive, reverse) = (call.flag("exclusive", false)?, call.flag("reverse", false)?);
        let Some(values) = x.reals() else {
            return self.running_whole(call, x, at, exclusive, reverse);
        };
        self.reserve(call, &x.dims)?;
        self.leave_out(
            x.formula,
            call,
            "sums it up step by step, through which no gradient goes back",
        );
        let mut sums = vec![0.0; x.len()];
        run(&x.dims, at, exclusive, reverse, |to, before, own| {
            sums[to] = before.map_or(0.0, |b| sums[b]) + own.map_or(0.0, |o| values[o]);
        });
        Ok(Tensor::real(x.element, x.dims.clone(), sums))
    }

    fn running_whole(
        &mut self,
        call: Call,
        x: &Tensor,
        at: usize,
        exclusive: bool,
        reverse: bool,
    ) -> Result<Tensor> {
        self.reserve(call, &x.dims)?;
        let values = self.wholes(x);
        let mut sums = vec![0i128; x.len()];
        run(&x.dims, at, exclusive, reverse, |to, before, own| {
            sums[to] = before.map_or(0, |b| sums[b]) + own.map_or(0, |o| values[o]);
        });
        Ok(Tensor::whole(x.element, x.dims.clone(), sums))
    }

    /// IsNaN and IsInf.
    pub(super) fn classified(&mut self, call: Call, x: &Tensor) -> Result<Tensor> {
        let Some(values) = x.reals() else {
            return Err(super::wrong_type(call, x.element));
        };
        self.reserve(call, &x.dims)?;
        self.stepped(call, x);
        let (below, above) = (
            call.flag("detect_negative", true)?,
            call.flag("detect_positive", true)?,
        );
        let is = |v: f64| match call.operator() {
            "IsNaN" => v.is_nan(),
            _ => below && v == f64::NEG_INFINITY || above && v == f64::INFINITY,
        };
        let values = values.iter().map(|&v| i128::from(is(v)));
        Ok(Tensor::whole(Element::Bool, x.dims.clone(), values))
    }
}

/// Goes along an axis, in its order or backwards: for each entry the one before it, and the entry
/// that is added, which is itself or, `exclusive`, also the one before.
fn run(
    dims: &[usize],
    at: usize,
    exclusive: bool,
    reverse: bool,
    mut add: impl FnMut(usize, Option<usize>, Option<usize>),
) {
    let (n, inner) = (dims[at], dims[at + 1..].iter().product::<usize>());
    let outer: usize = dims[..at].iter().product();
    for lane in 0..outer * inner {
        let start = lane / inner * n * inner + lane % inner;
        let entry = |i: usize| start + (if reverse { n - 1 - i } else { i }) * inner;
        for i in 0..n {
            let before = i.checked_sub(1).map(entry);
            add(
                entry(i),
                before,
                if exclusive { before } else { Some(entry(i)) },
            );
        }
    }
}
